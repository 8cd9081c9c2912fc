//! The command line: one file per sub-command.

pub mod config;
pub mod demo;
pub mod http;
pub mod sink;
pub mod verdict;
