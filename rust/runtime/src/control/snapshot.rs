//! What an observer sees of a running loop.

use super::tick::Controller;
use crate::safety::{Fault, Level, Phase};
use crate::state::{Joints, MAX_JOINTS};

/// The newest tick, copied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Snapshot {
    /// Control tick.
    pub tick: u64,
    /// Level of the ladder.
    pub level: Level,
    /// Phase.
    pub phase: Phase,
    /// Authority of the policy, 0…1.
    pub authority: f64,
    /// Number of joints.
    pub n: usize,
    /// Measured positions.
    pub q: Joints,
    /// Measured velocities.
    pub dq: Joints,
    /// Positions that were sent.
    pub command: Joints,
    /// Position in the world and orientation (w x y z, body → world) of the floating base, where the device reports it.
    pub base: Option<([f64; 3], [f64; 4])>,
    /// Whether the run's fallback bundle has the robot.
    pub fallback: bool,
    /// The fault that latched the ladder.
    pub fault: Option<Fault>,
}

impl Snapshot {
    /// What is seen of a robot with `n` joints before the first tick.
    pub(super) fn new(n: usize) -> Self {
        let zero = [0.0; MAX_JOINTS];
        Self {
            tick: 0,
            level: Level::Off,
            phase: Phase::Disarmed,
            authority: 0.0,
            n,
            q: zero,
            dq: zero,
            command: zero,
            base: None,
            fallback: false,
            fault: None,
        }
    }

    /// Takes the newest tick of `controller`.
    pub(super) fn take(&mut self, controller: &Controller) {
        let (state, gate) = (controller.state(), controller.gate());
        *self = Self {
            tick: state.tick,
            level: gate.level(),
            phase: gate.phase(),
            authority: controller.authority(),
            n: state.joints(),
            q: state.q,
            dq: state.dq,
            command: controller.command().q,
            base: state.base.valid.then_some((state.base.pos, state.imu.quat)),
            fallback: controller.skill.fallback,
            fault: gate.first_fault(),
        };
    }
}
