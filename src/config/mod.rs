//! The gateway's settings: TOML file, then environment, checked as a whole.
//!
//! Owns every key: its name, type, range and default. The default for each stands in [`sections`]'
//! structs, name and range in [`keys`], and `config/default.toml` documents them; a test holds the
//! three together. Reading never stops at the first mistake: whatever is wrong in the file, in the
//! environment and between related keys comes back in one [`Mistakes`].
//!
//! Pure: files and environment are read by the command line, this module gets text and pairs.
//! Elsewhere: what a setting means (the module named by its section), the admin key (`cli`).

mod check;
mod duration;
mod keys;
mod load;
mod mistakes;
mod sections;
mod show;
mod suggest;
mod table;
mod value;

pub use mistakes::{Mistake, Mistakes, Place};
pub use sections::{
    Config, Delivery, HighWater, Inbound, Ingest, Log, LogFormat, Providers, Retention, Server,
    Storage, Vault,
};
pub use show::KeyInfo;
