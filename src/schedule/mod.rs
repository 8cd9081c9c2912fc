//! Which delivery starts when: the owner of all live delivery state.
//!
//! [`core`] is a pure state machine: (now, input) in, commands out. The driver beside it feeds it
//! committed messages, outcomes, pages of parked rows and requests, and carries out its commands:
//! start an attempt, settle, read a page, announce an operational event. `starting` keeps it from starting
//! more than the runtime gets to look at. `recover` reads what was open when the process ended last. [`Handle`] is how the API asks.
//!
//! Invariant: every open delivery is in exactly one of: in memory (waiting or sending), parked in the
//! store, finished. Elsewhere: what follows an attempt (`policy`), the attempt itself (`deliver`).

mod announce;
pub mod core;
mod driver;
mod handle;
mod lookup;
mod pages;
mod plan;
mod recover;
mod starting;
mod under_way;
mod walks;

pub use announce::{Announcer, OPERATOR, QuotaNews, SourceNews, StoreNews, Teller};
pub use driver::{Attempts, Driver, Exchange, Inbox, Parts};
pub use handle::{DeliveryView, Error, Handle, Open, Request, Status, UnderWay};
pub use pages::{find_row, read_page};
pub use recover::{Recovery, begin, open_deliveries};
