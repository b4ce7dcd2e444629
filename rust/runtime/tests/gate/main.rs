//! The gate: every reason provoked, with the exact levels that follow; arming, reset, ramps and torque.

#[path = "../safety_support/mod.rs"]
mod safety_support;

mod arming;
mod checks;
mod levels;
mod reasons;
mod requests;
mod torque;

use cadenza_runtime::safety::{Fault, Level, Reason};
use safety_support::Rig;

/// Ticks at rest that a soft stop takes with `softstop_damp` = 0.1 s.
const REST: usize = 50;

fn fault(rig: &Rig, reason: Reason, level: Level) -> Fault {
    Fault { tick: rig.state.tick, reason, joint: u16::MAX, value: 1.0, limit: 0.0, level }
}
