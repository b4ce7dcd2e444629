//! From names to places: the bundle's joints in the robot's order, and the motors behind them.

use super::{Motor, Robot, RobotError};
use crate::state::Joints;

/// Where each joint of a bundle's list stands in the robot's order. Names are compared here and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JointMap {
    robot: Vec<usize>,
}

impl JointMap {
    /// Finds each of `names` in `robot`.
    ///
    /// # Errors
    /// [`RobotError::MissingJoint`] with the robot's joints, [`RobotError::RepeatedJoint`].
    pub fn new<S: AsRef<str>>(robot: &Robot, names: &[S]) -> Result<Self, RobotError> {
        let mut places = Vec::with_capacity(names.len());
        for name in names.iter().map(S::as_ref) {
            let place = robot.joint_index(name).ok_or_else(|| RobotError::MissingJoint {
                name: name.to_owned(),
                known: robot.joint_names(),
            })?;
            if places.contains(&place) {
                return Err(RobotError::RepeatedJoint { name: name.to_owned() });
            }
            places.push(place);
        }
        Ok(Self { robot: places })
    }

    /// Number of joints in the list.
    pub fn len(&self) -> usize {
        self.robot.len()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.robot.is_empty()
    }

    /// Robot index of each joint, in the list's order.
    pub fn places(&self) -> &[usize] {
        &self.robot
    }

    /// The list's joints out of a vector in robot order, in the list's order.
    pub fn gather<'a>(&'a self, from: &'a Joints) -> impl Iterator<Item = f64> + 'a {
        self.robot.iter().map(|&i| from[i])
    }
}

/// Between a motor's side of the gear and the joint's.
impl Motor {
    /// Joint position of a motor position.
    pub fn joint_position(&self, motor: f64) -> f64 {
        self.sign * (motor / self.gear) + self.offset
    }

    /// Motor position of a joint position.
    pub fn motor_position(&self, joint: f64) -> f64 {
        self.sign * (joint - self.offset) * self.gear
    }

    /// Joint velocity of a motor velocity.
    pub fn joint_velocity(&self, motor: f64) -> f64 {
        self.sign * (motor / self.gear)
    }

    /// Motor velocity of a joint velocity.
    pub fn motor_velocity(&self, joint: f64) -> f64 {
        self.sign * joint * self.gear
    }

    /// Joint effort of a motor effort.
    pub fn joint_effort(&self, motor: f64) -> f64 {
        self.sign * motor * self.gear
    }

    /// Motor effort of a joint effort.
    pub fn motor_effort(&self, joint: f64) -> f64 {
        self.sign * (joint / self.gear)
    }

    /// Motor gain (kp or kd) that acts like a joint gain.
    pub fn motor_gain(&self, joint: f64) -> f64 {
        joint / (self.gear * self.gear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::robot::tests::two_joints;
    use proptest::prelude::*;

    #[test]
    fn names_are_found_in_any_order() {
        let robot = two_joints();
        let map = JointMap::new(&robot, &["wrist", "shoulder"]).unwrap();
        assert_eq!(map.places(), [1, 0]);
        let mut q = [0.0; crate::state::MAX_JOINTS];
        (q[0], q[1]) = (10.0, 20.0);
        assert_eq!(map.gather(&q).collect::<Vec<_>>(), [20.0, 10.0]);
    }

    #[test]
    fn a_missing_joint_lists_what_there_is() {
        let robot = two_joints();
        let error = JointMap::new(&robot, &["shoulder", "knee"]).unwrap_err();
        assert_eq!(error.to_string(), "the robot has no joint knee; it has shoulder, wrist");
        let error = JointMap::new(&robot, &["wrist", "wrist"]).unwrap_err();
        assert_eq!(error, RobotError::RepeatedJoint { name: "wrist".into() });
    }

    proptest! {
        /// The motor's law `tau_m + kp_m(q*-q) + kd_m(dq*-dq)` on its side of the gear is the joint's law.
        #[test]
        fn motor_and_joint_follow_one_law(
            negative: bool, gear in 0.1..50.0f64, offset in -3.0..3.0f64,
            q in -3.0..3.0f64, target in -3.0..3.0f64, dq in -9.0..9.0f64, kp in 0.0..300.0f64, kd in 0.0..9.0f64, tau in -9.0..9.0f64,
        ) {
            let sign = if negative { -1.0 } else { 1.0 };
            let m = Motor { model: None, bus: None, id: None, sign, gear, offset };
            prop_assert!((m.joint_position(m.motor_position(q)) - q).abs() < 1e-12);
            prop_assert!((m.joint_velocity(m.motor_velocity(dq)) - dq).abs() < 1e-12);
            let joint = tau + kp * (target - q) + kd * (0.5 - dq);
            let motor = m.motor_effort(tau)
                + m.motor_gain(kp) * (m.motor_position(target) - m.motor_position(q))
                + m.motor_gain(kd) * (m.motor_velocity(0.5) - m.motor_velocity(dq));
            prop_assert!((m.joint_effort(motor) - joint).abs() < 1e-9 * (1.0 + joint.abs()));
        }
    }
}
