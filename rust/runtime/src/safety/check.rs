//! What the gate asks of one command, computed from what was sent before it and from nothing else.

use super::Level;
use crate::robot::{Gains, Limits};
use crate::state::{Command, Joints, MAX_JOINTS};

/// Relative tolerance of velocity, acceleration, effort and gains; position has none.
pub const TOLERANCE: f64 = 1e-6;

/// Part of a limit below which a sent velocity counts as rest.
const REST: f64 = 1e-3;

/// Which check a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// Number of joints.
    Joints,
    /// A number is not finite.
    Finite,
    /// Position range.
    Position,
    /// Change of position in one tick.
    Velocity,
    /// Change of velocity in one tick.
    Acceleration,
    /// Change of acceleration in one tick.
    Jerk,
    /// Velocity feed-forward.
    FeedForward,
    /// Effort feed-forward.
    Effort,
    /// Position or velocity gain.
    Gain,
    /// Still moving when a hold or a soft stop must have come to rest.
    Braking,
}

/// A command that broke a limit.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("joint {joint}: {what:?} of the command is {value}, limit {limit}")]
pub struct Mismatch {
    /// Joint, or `u16::MAX`.
    pub joint: u16,
    /// Failed check.
    pub what: Check,
    /// Value of the command.
    pub value: f64,
    /// Limit that it broke.
    pub limit: f64,
}

/// The last command as the limits see it: before the gain ramp and the torque scaling, which change gains only.
#[derive(Clone, Debug)]
pub(super) struct Last {
    /// Command.
    pub(super) command: Command,
    /// Velocity of the sent positions.
    pub(super) velocity: Joints,
    /// Acceleration of the sent positions.
    pub(super) acceleration: Joints,
    /// Joints that the gate itself has moved and that have not stood still since, one bit each: their jerk is its own.
    pub(super) moved: u64,
}

impl Last {
    pub(super) fn new(n: usize) -> Self {
        Self {
            command: Command::off(n),
            velocity: [0.0; MAX_JOINTS],
            acceleration: [0.0; MAX_JOINTS],
            moved: 0,
        }
    }

    /// Takes `command`, which passed the checks.
    pub(super) fn accept(&mut self, command: &Command, dt: f64) {
        for i in 0..command.joints() {
            let velocity = (command.q[i] - self.command.q[i]) / dt;
            self.acceleration[i] = (velocity - self.velocity[i]) / dt;
            self.velocity[i] = velocity;
            if velocity == 0.0 && self.acceleration[i] == 0.0 {
                self.moved &= !(1 << i);
            }
        }
        self.command = *command;
    }

    /// Stops where it is: the last positions once more, at rest.
    pub(super) fn freeze(&mut self) {
        self.velocity = [0.0; MAX_JOINTS];
        self.acceleration = [0.0; MAX_JOINTS];
        self.command.dq = [0.0; MAX_JOINTS];
        self.moved = u64::MAX;
    }

    /// Whether no sent position moves.
    pub(super) fn at_rest(&self, limits: &[Limits]) -> bool {
        limits.iter().zip(&self.velocity).all(|(l, v)| v.abs() <= REST * l.velocity)
    }
}

/// Checks `command` against the limits and against `last`, in the order finite, position, velocity, acceleration, jerk.
pub(super) fn check(
    command: &Command,
    last: &Last,
    limits: &[Limits],
    gains: &[Gains],
    dt: f64,
) -> Result<(), Mismatch> {
    if command.joints() != limits.len() {
        let (value, limit) = (f64::from(command.n), limits.len() as f64);
        return Err(Mismatch { joint: u16::MAX, what: Check::Joints, value, limit });
    }
    for (i, (l, g)) in limits.iter().zip(gains).enumerate() {
        let fail = |what, value, limit| Err(Mismatch { joint: i as u16, what, value, limit });
        let (q, dq, tau) = (command.q[i], command.dq[i], command.tau[i]);
        let (kp, kd) = (command.kp[i], command.kd[i]);
        if let Some(&value) = [q, dq, kp, kd, tau].iter().find(|x| !x.is_finite()) {
            return fail(Check::Finite, value, f64::MAX);
        }
        let [lo, hi] = l.position;
        if q < lo || q > hi {
            return fail(Check::Position, q, if q < lo { lo } else { hi });
        }
        let velocity = (q - last.command.q[i]) / dt;
        // Two positions of size |q| carry this much rounding into their difference.
        let rounding = 2.0 * f64::EPSILON * q.abs().max(last.command.q[i].abs()) / dt;
        if velocity.abs() > l.velocity * (1.0 + TOLERANCE) + rounding {
            return fail(Check::Velocity, velocity, l.velocity);
        }
        if dq.abs() > l.velocity * (1.0 + TOLERANCE) {
            return fail(Check::FeedForward, dq, l.velocity);
        }
        let acceleration = (velocity - last.velocity[i]) / dt;
        if acceleration.abs() > l.acceleration * (1.0 + TOLERANCE) + 2.0 * rounding / dt {
            return fail(Check::Acceleration, acceleration, l.acceleration);
        }
        let jerk = (acceleration - last.acceleration[i]) / dt;
        let rough = last.moved >> i & 1 == 1;
        if !rough && jerk.abs() > l.jerk * (1.0 + TOLERANCE) + 4.0 * rounding / (dt * dt) {
            return fail(Check::Jerk, jerk, l.jerk);
        }
        if tau.abs() > l.effort * (1.0 + TOLERANCE) {
            return fail(Check::Effort, tau, l.effort);
        }
        for (gain, max) in [(kp, g.kp_max), (kd, g.kd_max)] {
            if gain < 0.0 || gain > max * (1.0 + TOLERANCE) {
                return fail(Check::Gain, gain, max);
            }
        }
    }
    Ok(())
}

/// In a hold or a soft stop: fails when `command` still moves a joint.
pub(super) fn check_rest(command: &Command, last: &Last, limits: &[Limits], dt: f64) -> Result<(), Mismatch> {
    for (i, l) in limits.iter().enumerate() {
        let velocity = (command.q[i] - last.command.q[i]) / dt;
        if velocity.abs() > REST * l.velocity {
            return Err(Mismatch { joint: i as u16, what: Check::Braking, value: velocity, limit: 0.0 });
        }
    }
    Ok(())
}

/// Longest time in which the limiter brakes to rest from `last`: twice the bare braking time, the delay of a jerk
/// filter and 50 ms.
pub(super) fn braking_time(last: &Last, limits: &[Limits]) -> f64 {
    let joint = |(l, v): (&Limits, &f64)| stopping_time(l, *v);
    limits.iter().zip(&last.velocity).map(joint).fold(0.0, f64::max)
}

/// Longest time in which the limiter reaches a target from anywhere in the range.
pub(super) fn crossing_time(limits: &[Limits]) -> f64 {
    let joint = |l: &Limits| (l.position[1] - l.position[0]) / l.velocity + stopping_time(l, l.velocity);
    limits.iter().map(joint).fold(0.0, f64::max)
}

fn stopping_time(l: &Limits, velocity: f64) -> f64 {
    2.0 * velocity.abs() / l.acceleration + 4.0 * l.acceleration / l.jerk + 0.05
}

/// Torque that the motor would give for joint `i` of `command`.
pub(super) fn torque(command: &Command, i: usize, q: f64, dq: f64) -> f64 {
    command.tau[i] + command.kp[i] * (command.q[i] - q) + command.kd[i] * (command.dq[i] - dq)
}

/// Scales gains and feed-forward of joint `i` so that the torque estimate stays within `effort`.
/// Returns whether anything was scaled.
pub(super) fn scale_gains(command: &mut Command, i: usize, q: f64, dq: f64, effort: f64) -> bool {
    let estimate = torque(command, i, q, dq).abs();
    if estimate <= effort {
        return false;
    }
    // An estimate that is not a number gives no torque at all.
    let scale = if estimate.is_nan() { 0.0 } else { effort / estimate };
    command.kp[i] *= scale;
    command.kd[i] *= scale;
    command.tau[i] *= scale;
    true
}

/// Moves the target of joint `i` towards the measured position until the torque estimate is within effort, as far as
/// position, velocity, acceleration and the distance needed for braking allow. Returns whether the estimate was too large.
pub(super) fn move_target(
    command: &mut Command,
    last: &Last,
    i: usize,
    q: f64,
    dq: f64,
    l: &Limits,
    dt: f64,
) -> bool {
    let estimate = torque(command, i, q, dq);
    if estimate.abs() <= l.effort {
        return false;
    }
    let wanted = command.q[i];
    if command.kp[i] > 0.0 && estimate.is_finite() {
        let moved = wanted + (l.effort.copysign(estimate) - estimate) / command.kp[i];
        let (p, v, step) = (last.command.q[i], last.velocity[i], l.acceleration * dt);
        let [lo, hi] = l.position;
        let down = (v - step).max(-l.velocity).max(-safe_speed((p - lo) / dt, step));
        let up = (v + step).min(l.velocity).min(safe_speed((hi - p) / dt, step));
        if down <= up {
            let moved = moved.clamp(wanted.min(q), wanted.max(q));
            command.q[i] = moved.clamp(p + down * dt, p + up * dt).clamp(lo, hi);
        }
    }
    true
}

/// Largest speed from which steps of `step` (= acceleration · dt) come to rest within `distance`·dt.
fn safe_speed(distance: f64, step: f64) -> f64 {
    if distance <= 0.0 {
        return 0.0;
    }
    let m = (((1.0 + 8.0 * distance / step).sqrt() - 1.0) / 2.0).floor();
    if m.is_finite() { distance / (m + 1.0) + step * m / 2.0 } else { f64::INFINITY }
}

/// Overwrites `command` with damping: no stiffness, no feed-forward, the target where the joint is.
pub(super) fn damp(command: &mut Command, measured: &Joints, limits: &[Limits], gains: &[Gains]) {
    *command = Command::off(limits.len());
    command.level = Level::Damp;
    for (i, (l, g)) in limits.iter().zip(gains).enumerate() {
        command.q[i] = measured[i].clamp(l.position[0], l.position[1]);
        command.kd[i] = g.kd_damp;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_braking_law_meets_its_golden_values() {
        let golden = [(0.1, 0.1), (0.3, 0.25), (0.6, 0.4), (1.0, 0.533_333), (5.0, 1.314_286)];
        for (distance, speed) in golden {
            assert!((safe_speed(distance, 0.2) - speed).abs() < 1e-6, "{distance}");
        }
        assert_eq!(safe_speed(f64::INFINITY, 0.2), f64::INFINITY);
        assert_eq!(safe_speed(-1.0, 0.2), 0.0);
    }

    #[test]
    fn scaled_gains_put_the_estimate_on_the_limit() {
        let mut command = Command::off(1);
        (command.q[0], command.kp[0], command.kd[0], command.tau[0]) = (0.5, 100.0, 2.0, 5.0);
        // 5 + 100·0.5 + 2·(0 − 1) = 53
        assert_eq!(torque(&command, 0, 0.0, 1.0), 53.0);
        assert!(scale_gains(&mut command, 0, 0.0, 1.0, 10.0));
        assert!((torque(&command, 0, 0.0, 1.0) - 10.0).abs() < 1e-12);
        assert!((command.kp[0] - 100.0 * 10.0 / 53.0).abs() < 1e-12);
        assert!(!scale_gains(&mut command, 0, 0.0, 1.0, 10.000_001));
        // ∞ − ∞: nothing is known, nothing is given.
        (command.kp[0], command.kd[0]) = (100.0, 2.0);
        assert!(torque(&command, 0, f64::MAX, -f64::MAX).is_nan());
        assert!(scale_gains(&mut command, 0, f64::MAX, -f64::MAX, 10.0));
        assert_eq!((command.kp[0], command.kd[0], command.tau[0]), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_moved_target_gives_the_torque_limit_and_keeps_the_rates() {
        let l = Limits {
            position: [-1.0, 1.0],
            velocity: 2.0,
            acceleration: 50.0,
            jerk: 5000.0,
            effort: 10.0,
            effort_rate: None,
            temperature: None,
        };
        let (dt, mut last) = (0.01, Last::new(1));
        (last.command.q[0], last.velocity[0]) = (0.2, 0.0);
        let mut command = last.command;
        command.kp[0] = 100.0;
        // 100·0.2 = 20 N·m: the target would have to go back to 0.1, but half a rad/s for one tick is all there is.
        assert!(move_target(&mut command, &last, 0, 0.0, 0.0, &l, dt));
        assert!((command.q[0] - 0.195).abs() < 1e-12);
        // Near enough, the estimate is met exactly.
        command.q[0] = 0.101;
        last.command.q[0] = 0.101;
        assert!(move_target(&mut command, &last, 0, 0.0, 0.0, &l, dt));
        assert!((torque(&command, 0, 0.0, 0.0) - 10.0).abs() < 1e-9);
        // Pulled towards the upper end at 0.4 rad/s with 6 mm to go: 0.55 rad/s can still be braked.
        (last.command.q[0], last.velocity[0], command.q[0]) = (0.994, 0.4, 0.994);
        assert!(move_target(&mut command, &last, 0, 1.3, 0.0, &l, dt));
        assert!((command.q[0] - 0.9995).abs() < 1e-12);
    }
}
