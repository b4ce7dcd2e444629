//! What is true of a robot: `robot.toml`, read strictly.
//!
//! [`Robot::load`] reads the file and refuses everything that it does not understand, with line, column and value.
//! [`check_bundle`], [`effective_limits`] and [`effective_gains`] hold a bundle's manifest against the robot;
//! [`JointMap`] is the only place where joint names of the two are compared.

mod bundle;
mod error;
mod joint_map;
mod parse;
mod raw;
#[cfg(test)]
pub(crate) mod tests;

pub use bundle::{
    Gain, GainCap, Looser, check_bundle, effective_gains, effective_limits, mismatches, ticks_per_step,
};
pub use error::{Place, RobotError};
pub use joint_map::JointMap;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A robot: joints, limits, rates and safety, in the order of its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Robot {
    /// Name.
    pub name: String,
    /// Where robot.toml lies.
    pub path: PathBuf,
    /// The text of robot.toml, carried into the log.
    pub text: String,
    /// MuJoCo model, an absolute path.
    pub model: Option<PathBuf>,
    /// The device that moves it.
    pub device: DeviceConfig,
    /// Control rate, Hz.
    pub control_hz: f64,
    /// Inertial measurement, if present.
    pub imu: Option<ImuConfig>,
    /// Thresholds of the safety gate.
    pub safety: SafetyConfig,
    /// Named frames.
    pub frames: Vec<FrameConfig>,
    /// Joints; their order is the order everywhere in memory.
    pub joints: Vec<Joint>,
    /// Monitors beside those of the bundle.
    pub monitors: Vec<RobotMonitor>,
}

impl Robot {
    /// Reads a robot.toml, or the robot.toml of a folder.
    ///
    /// # Errors
    /// [`RobotError::Read`] when there is no such file, and everything that [`Robot::parse`] refuses.
    pub fn load(path: &Path) -> Result<Self, RobotError> {
        let file = if path.is_dir() { path.join("robot.toml") } else { path.to_path_buf() };
        let read = |e: std::io::Error| RobotError::Read { path: file.clone(), what: e.to_string() };
        let file = std::path::absolute(&file).map_err(read)?;
        let text = std::fs::read_to_string(&file).map_err(read)?;
        Self::parse(&text, &file)
    }

    /// Reads the text of a robot.toml that lies at `path`.
    ///
    /// # Errors
    /// Unknown keys (unless they start with `x-`), missing keys, numbers that are not finite or out of their range,
    /// duplicate names and motor ids; each with line, column and the value.
    pub fn parse(text: &str, path: &Path) -> Result<Self, RobotError> {
        parse::robot(text, path)
    }

    /// Position of a joint in the robot's order.
    pub fn joint_index(&self, name: &str) -> Option<usize> {
        self.joints.iter().position(|j| j.name == name)
    }

    /// Names of the joints, in order.
    pub fn joint_names(&self) -> Vec<String> {
        self.joints.iter().map(|j| j.name.clone()).collect()
    }

    /// Control period, s.
    pub fn control_dt(&self) -> f64 {
        1.0 / self.control_hz
    }

    /// Control period, ns.
    pub fn control_period_ns(&self) -> i64 {
        (1e9 / self.control_hz).round() as i64
    }
}

/// `[device]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceConfig {
    /// `sim | replay | null | link | feetech | dynamixel | mit_can | unitree`.
    pub kind: String,
    /// Serial port, CAN interface or address.
    pub port: Option<String>,
    /// Bits per second.
    pub baud: Option<u32>,
    /// Bus cycle, s.
    pub period: Option<f64>,
    /// Dead-man time of the bus thread, s.
    pub command_timeout: f64,
    /// What the bus thread does on silence.
    pub on_silence: crate::device::Stop,
    /// What the device does at exit.
    pub on_exit: crate::device::Stop,
}

/// `[imu]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ImuConfig {
    /// Rotation from the sensor to the base.
    pub mount_quat: [f64; 4],
    /// Body that carries it.
    pub source: Option<String>,
}

/// `[safety]`; times in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct SafetyConfig {
    /// Age of a state from which the loop holds.
    pub stale_after: f64,
    /// Age of a state from which the motors are damped.
    pub lost_after: f64,
    /// Largest tilt of the base, rad.
    pub tilt_max: Option<f64>,
    /// Largest |command − measured|, rad.
    pub track_max: f64,
    /// Control ticks that an exhausted sequence is held.
    pub hold_ticks: u32,
    /// Missed periods in a row that are a fault with `overrun = "fault"`.
    pub max_consecutive_misses: u32,
    /// What a missed deadline does.
    pub overrun: Overrun,
    /// Time in which gains grow from 0 after arming.
    pub gain_ramp: f64,
    /// Time in which the policy's authority grows from 0 to 1.
    pub authority_ramp: f64,
    /// Where motion starts.
    pub start: Start,
    /// What the gate does about too much estimated torque.
    pub torque_mode: TorqueMode,
    /// Level of an emergency stop.
    pub estop_level: crate::safety::Level,
    /// Time at rest in a soft stop before the motors are damped, s.
    pub softstop_damp: f64,
    /// Where a soft stop moves the robot, inside all limits, before it rests: positions by joint, rad. Other joints stay
    /// where they came to rest.
    pub softstop_pose: BTreeMap<String, f64>,
    /// Where an emergency stop may come from. What the device itself reports is always obeyed.
    pub estop: Vec<EstopSource>,
}

/// Where an emergency stop may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EstopSource {
    /// The device reports it in its state.
    Device,
    /// A line on the standard input.
    Stdin,
    /// A datagram.
    Udp(SocketAddr),
    /// A key or button of the input device with this name.
    Evdev(String),
}

impl fmt::Display for EstopSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("device"),
            Self::Stdin => f.write_str("stdin"),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Evdev(name) => write!(f, "evdev:{name}"),
        }
    }
}

/// What is no source of emergency stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotASource;

impl FromStr for EstopSource {
    type Err = NotASource;

    fn from_str(text: &str) -> Result<Self, NotASource> {
        match text.split_once(':') {
            None if text == "device" => Ok(Self::Device),
            None if text == "stdin" => Ok(Self::Stdin),
            // A port alone is for programs of this machine.
            Some(("udp", to)) => match to.parse::<u16>() {
                Ok(port) => Ok(Self::Udp((Ipv4Addr::LOCALHOST, port).into())),
                Err(_) => to.parse().map(Self::Udp).map_err(|_| NotASource),
            },
            Some(("evdev", name)) if !name.is_empty() => Ok(Self::Evdev(name.into())),
            _ => Err(NotASource),
        }
    }
}

/// What a missed deadline does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrun {
    /// Jump to the next grid point and count.
    Skip,
    /// Soft stop after `max_consecutive_misses`.
    Fault,
}

/// Where motion starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From the measured pose.
    Measured,
    /// After a limited move to the home pose.
    Home,
}

/// What the gate does about too much estimated torque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TorqueMode {
    /// Scale gains and feed-forward.
    Gain,
    /// Move the target towards the measured position.
    Target,
    /// Nothing: the motors limit themselves.
    Off,
}

/// `[[frame]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameConfig {
    /// Name.
    pub name: String,
    /// Site of the model.
    pub site: String,
}

/// `[[joint]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Joint {
    /// Name, the same in robot.toml, model and bundle.
    pub name: String,
    /// Motor.
    pub motor: Motor,
    /// Limits.
    pub limits: Limits,
    /// Gain caps.
    pub gains: Gains,
    /// Home position.
    pub home: f64,
    /// Whether the joint turns without end.
    pub wrap: bool,
}

/// The motor behind a joint: `joint = sign·(motor/gear) + offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct Motor {
    /// Model name.
    pub model: Option<String>,
    /// Bus.
    pub bus: Option<String>,
    /// Id on its bus.
    pub id: Option<u32>,
    /// Direction, ±1.
    pub sign: f64,
    /// Motor turns for one joint turn.
    pub gear: f64,
    /// Joint position at motor zero.
    pub offset: f64,
}

/// What a joint may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Position range.
    pub position: [f64; 2],
    /// Velocity, rad/s.
    pub velocity: f64,
    /// Acceleration, rad/s².
    pub acceleration: f64,
    /// Jerk, rad/s³; 100·acceleration unless given.
    pub jerk: f64,
    /// Effort, N·m.
    pub effort: f64,
    /// Change of effort, N·m/s.
    pub effort_rate: Option<f64>,
    /// Temperature, °C.
    pub temperature: Option<f64>,
}

/// Gain caps of a joint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gains {
    /// Largest position gain, N·m/rad.
    pub kp_max: f64,
    /// Largest velocity gain, N·m·s/rad.
    pub kd_max: f64,
    /// Velocity gain while damping.
    pub kd_damp: f64,
}

/// `[[monitor]]`: the keys of a bundle's monitor and its formula.
#[derive(Clone, Debug, PartialEq)]
pub struct RobotMonitor {
    /// How it is watched.
    pub spec: cadenza_policy::manifest::MonitorSpec,
    /// STL text.
    pub formula: String,
}
