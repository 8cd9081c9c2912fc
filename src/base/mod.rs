//! Building blocks that could live in any server: ids, time, sizes, maps, tasks, YAML.
//!
//! Nothing here knows what a webhook is. Pure except [`clock`], the one place that reads clocks,
//! and [`task`], the one place that spawns.

pub mod broken;
pub mod clock;
pub mod frames;
pub mod id;
pub mod parted;
pub mod size;
pub mod task;
pub mod time;
pub mod yaml;

pub use clock::{Clock, SystemClock};
pub use id::{BadId, Id20};
pub use parted::Parted;
pub use size::ByteSize;
pub use time::Timestamp;
