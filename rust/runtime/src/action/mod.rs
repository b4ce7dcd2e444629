//! What happens to an action on its way to the motor: units, sequence, limits.

use crate::state::Joints;

/// How a sequence stands at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flow {
    /// A valid action covers this tick.
    Run = 0,
    /// None does: the last target is held.
    Hold = 1,
    /// The hold time is over: the gate must brake.
    Exhausted = 2,
}

/// What the limiter is asked for at one control tick, robot order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// How the sequence stands.
    pub flow: Flow,
    /// Target positions.
    pub q: Joints,
    /// Velocity of the target, for feed-forward; 0 where it is held.
    pub dq: Joints,
}
