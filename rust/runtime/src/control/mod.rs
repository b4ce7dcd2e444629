//! The loop itself: one tick, its threads, its operator.
//!
//! ```text
//! Prepared ─► start ─► Handle        (requests in, snapshots out)
//!    │          │
//!    └─► run ───┴─► control thread: sleep · tick · repeat ─► Report
//! ```

mod error;
pub mod latest;
mod lifecycle;
mod operator;
mod policy;
mod replay;
mod report;
mod request;
mod snapshot;
mod stages;
mod tick;
mod watch;

pub use error::RunError;
pub use lifecycle::{Busy, Handle, Prepared};
pub use policy::{PolicyError, PolicySource, Recorded};
pub use replay::{ReplayReport, device as replay_device, replay, replay_on};
pub use report::{FaultReport, Report};
pub use request::{Inbox, Request};
pub use snapshot::Snapshot;
pub use tick::{Controller, Due, Refusal};
