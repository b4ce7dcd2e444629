//! What the loop needs from a robot, real or simulated. One file per transport stands beside this one.

pub mod fault;
pub mod mujoco;
pub mod null;
pub mod replay;
pub mod sim;
pub mod time;

pub use time::TimeSource;

use crate::robot::Robot;
use crate::state::{Command, State};

/// Largest distance between a joint and the position at which it would be held when motors are switched on, rad.
pub const ENABLE_WINDOW: f64 = 0.05;

/// What a device says about itself after [`Device::connect`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceInfo {
    /// Kind, as in `device.kind` of robot.toml.
    pub name: &'static str,
    /// Whether commands move something: parity must have passed before such a device is enabled.
    pub moves: bool,
    /// Names of the objects that it reports, in the order of [`State::objects`].
    pub objects: Vec<String>,
}

/// How fresh a state is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Freshness {
    /// Grows with each new measurement; equal numbers are the same measurement.
    pub sequence: u64,
    /// Clock reading when the oldest joint of the state was measured, ns.
    pub stamp_ns: i64,
    /// One bit for each joint that did not answer in the last cycle.
    pub stale_joints: u64,
    /// The device has nothing more to give (the end of a replayed log).
    pub finished: bool,
}

/// How to stop the motors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Hold the measured position.
    Hold,
    /// No stiffness, damping only.
    Damp,
    /// Motors off.
    Off,
}

/// Why a device could not be opened, enabled or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The transport failed.
    #[error("{device}: {what}")]
    Io {
        /// Kind of device.
        device: &'static str,
        /// What happened.
        what: String,
    },
    /// The device's configuration is not usable.
    #[error("{device}: {what}")]
    Config {
        /// Kind of device.
        device: &'static str,
        /// What is wrong, with the value.
        what: String,
    },
    /// The joint stands too far from where it would be held.
    #[error("joint {joint} is at {measured} rad, the hold command says {hold} rad (window {window} rad)")]
    NotAtHold {
        /// Joint name.
        joint: String,
        /// Measured position.
        measured: f64,
        /// Commanded position.
        hold: f64,
        /// Largest difference accepted.
        window: f64,
    },
}

/// What a device reports while it runs. One table in [`crate::safety`] maps each to a reason and a level.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum DeviceFault {
    /// A joint lost its replies.
    JointSilent {
        /// Joint, robot order.
        joint: u16,
        /// Replies lost in a row.
        lost: u32,
    },
    /// Nothing answers.
    BusSilent {
        /// For how long, ms.
        for_ms: u32,
    },
    /// A motor is too hot.
    Overheated {
        /// Joint, robot order.
        joint: u16,
        /// Measured, °C.
        celsius: f32,
        /// Limit, °C.
        limit: f32,
    },
    /// A fault in the vendor's own numbering.
    Vendor {
        /// Joint, robot order.
        joint: u16,
        /// The vendor's code.
        code: u32,
    },
    /// A command that the device will not send: one of its numbers is not finite, or it has another number of joints.
    Refused {
        /// Joint, robot order; `u16::MAX` when the number of joints is wrong.
        joint: u16,
    },
    /// The simulated physics diverged. Latched: a new simulation is needed.
    Diverged {
        /// Joint whose state is not finite; `u16::MAX` when the simulator itself reported it.
        joint: u16,
    },
}

/// A robot as the loop sees it: everything in robot order and SI units.
///
/// `read` and `write` run on the control thread: they must not allocate, lock or block beyond the control period.
/// The other methods may block.
pub trait Device: Send {
    /// What the device is.
    fn info(&self) -> &DeviceInfo;
    /// Opens the device. Only reads: nothing moves, and torque is neither switched on nor off.
    fn connect(&mut self) -> Result<(), DeviceError>;
    /// Switches the motors on, holding `hold`. Refused when a joint is more than 0.05 rad away from it.
    fn enable(&mut self, hold: &Command) -> Result<(), DeviceError>;
    /// Fills `out` with the newest measurement (`q`, `dq`, `tau`, `temp`, `imu`, `base`, `objects`, `estop`).
    fn read(&mut self, out: &mut State) -> Result<Freshness, DeviceFault>;
    /// Sends one command.
    fn write(&mut self, command: &Command) -> Result<(), DeviceFault>;
    /// Stops the motors. Idempotent, callable in every state.
    fn stop(&mut self, how: Stop) -> Result<(), DeviceFault>;
}

/// Refuses to switch on motors that would jump: every joint must stand within [`ENABLE_WINDOW`] of `hold`.
fn check_hold(
    device: &'static str,
    robot: &Robot,
    measured: &[f64],
    hold: &Command,
) -> Result<(), DeviceError> {
    let n = measured.len();
    if hold.joints() != n || !hold.is_finite() {
        let what = format!(
            "hold command has {} joints (robot: {n}), all finite: {}",
            hold.joints(),
            hold.is_finite()
        );
        return Err(DeviceError::Config { device, what });
    }
    for (i, joint) in robot.joints.iter().enumerate() {
        let distance = (measured[i] - hold.q[i]).abs();
        if distance.is_nan() || distance > ENABLE_WINDOW {
            return Err(DeviceError::NotAtHold {
                joint: joint.name.clone(),
                measured: measured[i],
                hold: hold.q[i],
                window: ENABLE_WINDOW,
            });
        }
    }
    Ok(())
}

/// Refuses a robot that does not fit the records of the loop.
fn check_robot(device: &'static str, robot: &Robot) -> Result<usize, DeviceError> {
    let n = robot.joints.len();
    if n == 0 || n > crate::state::MAX_JOINTS {
        let what =
            format!("robot {} has {n} joints, 1 to {} are possible", robot.name, crate::state::MAX_JOINTS);
        return Err(DeviceError::Config { device, what });
    }
    Ok(n)
}

/// Refuses a command that must not reach motors, naming the joint.
fn check_command(n: usize, command: &Command) -> Result<(), DeviceFault> {
    if command.joints() != n {
        return Err(DeviceFault::Refused { joint: u16::MAX });
    }
    for i in 0..n {
        let numbers = [command.q[i], command.dq[i], command.kp[i], command.kd[i], command.tau[i]];
        if !numbers.iter().all(|x| x.is_finite()) {
            return Err(DeviceFault::Refused { joint: i as u16 });
        }
    }
    Ok(())
}
