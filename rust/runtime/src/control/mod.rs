//! The loop itself: one tick, its threads, its operator.
//!
//! ```text
//! Prepared ─► start ─► Handle        (requests in, snapshots out)
//!    │          │
//!    └─► run ───┴─► control thread: sleep · tick · repeat ─► Report
//! ```

mod asking;
mod error;
mod estop;
mod explore;
mod fallback;
mod inject;
pub mod latest;
mod lifecycle;
mod load;
mod operator;
mod placement;
mod planner;
mod player;
mod policy;
mod replay;
mod report;
mod request;
mod skill;
mod snapshot;
mod stages;
mod switch;
mod sync;
mod tick;
mod watch;
mod worker;

pub use error::RunError;
pub use estop::{Button, Estops};
pub use explore::exploring;
pub use inject::{Latency, NotALatency, Span};
pub use lifecycle::{Busy, Handle, Prepared};
pub use load::Loader;
pub use placement::Placement;
pub use planner::{Answer, Planner};
pub use player::{Player, PlayerCounts};
pub use policy::{Ask, PolicyError, PolicySource};
pub use replay::{ReplayReport, device as replay_device, replay, replay_on};
pub use report::{FaultReport, Report};
pub use request::{Inbox, Request};
pub use snapshot::Snapshot;
pub use switch::{Port, Successor, SwitchRefusal, Switcher, switcher};
pub use tick::{Controller, Due, Refusal};
