//! The gateway's settings: TOML file, then environment, checked as a whole.
//!
//! One struct per section with a default for every key; `config/default.toml` documents them and is
//! tested equal to these defaults. Pure: files and environment are read by the command line, this
//! module only parses, merges and checks. All mistakes are reported at once.

mod sections;

pub use sections::{
    Config, Delivery, HighWater, Ingest, Log, LogFormat, Retention, Server, Storage,
};
