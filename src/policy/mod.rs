//! Pure rules.

pub mod filter;
