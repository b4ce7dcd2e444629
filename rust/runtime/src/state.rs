//! The two records that cross the loop every tick: what the robot is ([`State`]) and what it is told ([`Command`]).
//!
//! Both are plain numbers without pointers, so they are copied, logged and published without an allocation.
//! Joints stand in the order of `[[joint]]` in robot.toml; units are SI (rad or m, rad/s, N·m or N, s), quaternions
//! are `wxyz` and rotate body vectors into the world.

use crate::safety::Level;

/// Most joints that a robot may have.
pub const MAX_JOINTS: usize = 64;
/// Most operator command slots.
pub const MAX_USER: usize = 16;
/// Most named objects that a device may report.
pub const MAX_OBJECTS: usize = 16;

/// One number for each joint.
pub type Joints = [f64; MAX_JOINTS];

/// Inertial measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Imu {
    /// Orientation, body → world.
    pub quat: [f64; 4],
    /// Angular velocity in the body frame, rad/s.
    pub gyro: [f64; 3],
    /// Specific force in the body frame, m/s².
    pub acc: [f64; 3],
    /// Whether the device reports an IMU.
    pub valid: bool,
}

/// Pose and velocity of the floating base in the world.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Base {
    /// Position, m.
    pub pos: [f64; 3],
    /// Linear velocity, m/s.
    pub vel: [f64; 3],
    /// Whether the device reports a base.
    pub valid: bool,
}

/// A named object that the device reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Position in the world, m.
    pub pos: [f64; 3],
    /// Orientation, body → world.
    pub quat: [f64; 4],
    /// When it was seen, ns of the monotonic clock.
    pub stamp_ns: i64,
    /// Whether it has been seen at all.
    pub valid: bool,
}

/// What the robot measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// Control tick that read this state.
    pub tick: u64,
    /// Grows with every reset; plans of an older epoch are void.
    pub epoch: u32,
    /// Number of joints in use.
    pub n: u16,
    /// When the oldest joint was measured, ns of the monotonic clock.
    pub t_sensor_ns: i64,
    /// When the loop received the state.
    pub t_read_ns: i64,
    /// Joint positions.
    pub q: Joints,
    /// Joint velocities.
    pub dq: Joints,
    /// Joint efforts.
    pub tau: Joints,
    /// Motor temperatures in °C, 0 where unknown.
    pub temp: [f32; MAX_JOINTS],
    /// Inertial measurement.
    pub imu: Imu,
    /// Floating base.
    pub base: Base,
    /// Operator command vector, in the order of the bundle's `commands`.
    pub user: [f64; MAX_USER],
    /// Objects, in the order of [`DeviceInfo::objects`](crate::device::DeviceInfo).
    pub objects: [Object; MAX_OBJECTS],
    /// Whether the device reports its emergency stop pressed.
    pub estop: bool,
}

impl State {
    /// A robot with `n` joints at zero that has reported nothing yet.
    pub fn new(n: usize) -> Self {
        assert!(n <= MAX_JOINTS, "{n} joints, at most {MAX_JOINTS}");
        let object = Object { pos: [0.0; 3], quat: [1.0, 0.0, 0.0, 0.0], stamp_ns: 0, valid: false };
        Self {
            tick: 0,
            epoch: 0,
            n: n as u16,
            t_sensor_ns: 0,
            t_read_ns: 0,
            q: [0.0; MAX_JOINTS],
            dq: [0.0; MAX_JOINTS],
            tau: [0.0; MAX_JOINTS],
            temp: [0.0; MAX_JOINTS],
            imu: Imu { quat: [1.0, 0.0, 0.0, 0.0], gyro: [0.0; 3], acc: [0.0; 3], valid: false },
            base: Base { pos: [0.0; 3], vel: [0.0; 3], valid: false },
            user: [0.0; MAX_USER],
            objects: [object; MAX_OBJECTS],
            estop: false,
        }
    }

    /// Number of joints in use.
    pub fn joints(&self) -> usize {
        self.n as usize
    }
}

/// What the motors are told: each joint follows `tau + kp·(q − q_measured) + kd·(dq − dq_measured)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Command {
    /// Control tick that made this command.
    pub tick: u64,
    /// Epoch of the state that it answers.
    pub epoch: u32,
    /// Number of joints in use.
    pub n: u16,
    /// Level of the safety ladder at which it was made.
    pub level: Level,
    /// Target positions.
    pub q: Joints,
    /// Target velocities.
    pub dq: Joints,
    /// Position gains, N·m/rad.
    pub kp: Joints,
    /// Velocity gains, N·m·s/rad.
    pub kd: Joints,
    /// Feed-forward efforts.
    pub tau: Joints,
}

impl Command {
    /// Motors of `n` joints switched off.
    pub fn off(n: usize) -> Self {
        assert!(n <= MAX_JOINTS, "{n} joints, at most {MAX_JOINTS}");
        let zero = [0.0; MAX_JOINTS];
        Self {
            tick: 0,
            epoch: 0,
            n: n as u16,
            level: Level::Off,
            q: zero,
            dq: zero,
            kp: zero,
            kd: zero,
            tau: zero,
        }
    }

    /// Number of joints in use.
    pub fn joints(&self) -> usize {
        self.n as usize
    }

    /// Whether every number of every joint in use is finite.
    pub fn is_finite(&self) -> bool {
        let n = self.joints();
        [&self.q, &self.dq, &self.kp, &self.kd, &self.tau]
            .iter()
            .all(|a| a[..n].iter().all(|x| x.is_finite()))
    }
}
