//! Where the gate gives the robot from one hand to the next: from home to the policy, from one bundle to another.

use super::{Gate, Phase};
use crate::robot::{Limits, Robot};
use crate::state::{Joints, MAX_JOINTS};

impl Gate {
    /// The policy's share of the motion grows from 0 again: another policy begins. Holds that the one before or its
    /// monitors began are its own and end with it.
    pub fn hand_over(&mut self) {
        self.authority_ticks = 0;
        (self.held_policy, self.held_monitors, self.policy_ticks) = (0, 0, 0);
        self.settle();
    }

    /// From now on `limits` hold, one for each joint.
    ///
    /// # Errors
    /// The first joint that was sent a motion which they do not allow: while the motors are on they change at rest only.
    pub fn adopt(&mut self, limits: &[Limits]) -> Result<(), u16> {
        if self.phase() == Phase::Armed {
            for (i, l) in limits.iter().enumerate() {
                let [lo, hi] = l.position;
                let rests = self.last.velocity[i] == 0.0 && self.last.acceleration[i] == 0.0;
                if !rests || !(lo..=hi).contains(&self.sent.q[i]) {
                    return Err(i as u16);
                }
            }
        }
        self.limits.copy_from_slice(limits);
        Ok(())
    }

    /// Whether what was sent last rests within `window` rad of `pose`. A joint whose pose is not a number rests anywhere.
    pub fn rests_at(&self, pose: &Joints, window: f64) -> bool {
        // NaN compares false.
        let away = |i: usize| (self.last.command.q[i] - pose[i]).abs() > window;
        self.last.at_rest(&self.limits) && !(0..self.limits.len()).any(away)
    }

    /// Where a soft stop moves the robot once it has braked; NaN for a joint that stays.
    pub fn stop_pose(&self) -> Option<&Joints> {
        self.pose.as_ref()
    }
}

/// The pose that robot.toml names for a soft stop, robot order.
pub(super) fn stop_pose(robot: &Robot) -> Option<Joints> {
    let named = &robot.safety.softstop_pose;
    let mut pose = [f64::NAN; MAX_JOINTS];
    for (pose, joint) in pose.iter_mut().zip(&robot.joints) {
        *pose = named.get(&joint.name).copied().unwrap_or(f64::NAN);
    }
    (!named.is_empty()).then_some(pose)
}
