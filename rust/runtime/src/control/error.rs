//! Why a run cannot start.

use std::path::PathBuf;

use cadenza_policy::{LoadError, ManifestError, ParityError};

use crate::action::ActionError;
use crate::device::DeviceError;
use crate::log::LogError;
use crate::observe::ObserveError;
use crate::observe::frames::FrameError;
use crate::robot::RobotError;
use crate::safety::monitors::MonitorError;
use crate::safety::signals::SignalError;

/// Why a run cannot start. Nothing has moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The bundle and the robot do not fit.
    #[error(transparent)]
    Robot(#[from] RobotError),
    /// The networks cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The manifest of a log is refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A log lacks messages.
    #[error("{text}: what happened in between is unknown, and a replay does not guess")]
    Gap {
        /// Topic and ticks.
        text: String,
    },
    /// The recorded vectors cannot be replayed.
    #[error(transparent)]
    Vectors(#[from] ParityError),
    /// The engine does not reproduce the recorded vectors.
    #[error("parity: {text}")]
    Parity {
        /// The worst difference.
        text: String,
    },
    /// The observation is not rebuilt from the recorded sensors.
    #[error(transparent)]
    Frames(#[from] FrameError),
    /// A device that moves needs a bundle that proves itself.
    #[error(
        "the bundle has no parity vectors, and '{device}' moves: only simulation, replay and dry runs go without"
    )]
    NoVectors {
        /// Kind of device.
        device: &'static str,
    },
    /// The observation cannot be built.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The action cannot be carried out.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// Two signals would have one name.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// A monitor cannot be built.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// The device cannot be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The policy is too slow for its own sequences.
    #[error(
        "the policy takes {:.1} ms = {delay} policy steps and is asked each {every}: its sequences of {horizon} cannot cover that \
         (delay ≤ every ≤ horizon − delay)",
        1e3 * latency
    )]
    HorizonTooShort {
        /// Its slowest inference, s.
        latency: f64,
        /// The same in policy steps.
        delay: u64,
        /// Policy steps between two questions.
        every: u64,
        /// Steps of a sequence.
        horizon: u64,
    },
    /// A pose that robot.toml asks for lies outside the range that the bundle leaves.
    #[error("{what}: {joint} would go to {q} rad, outside [{lo}, {hi}]")]
    Pose {
        /// Key of robot.toml.
        what: &'static str,
        /// Joint.
        joint: String,
        /// Position.
        q: f64,
        /// Lower end.
        lo: f64,
        /// Upper end.
        hi: f64,
    },
    /// The fallback bundle cannot be used.
    #[error("fallback {}: {why}", path.display())]
    Fallback {
        /// Its file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The fallback has the robot.
    #[error("the fallback bundle has the robot and hears no commands: switch to another bundle first")]
    FallenBack,
    /// A policy is asked again over a log in which another one took over.
    #[error("another bundle took over at tick {tick}: beyond that only the recorded answers can be replayed")]
    Switched {
        /// First such tick.
        tick: u64,
    },
    /// A source of emergency stops cannot be opened.
    #[error("safety.estop {source_name}: {what}")]
    Estop {
        /// The source, as in robot.toml.
        source_name: String,
        /// Why.
        what: String,
    },
    /// A knob of the run has a value that makes no sense.
    #[error("{key} = {value}: {expected}")]
    Config {
        /// Field of the run's configuration.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The operator names a command that the bundle does not have.
    #[error("no command '{name}'; the bundle has: {known}")]
    UnknownCommand {
        /// Name.
        name: String,
        /// What there is.
        known: String,
    },
    /// The operator gives a command outside the range that the policy was trained for.
    #[error("command {name} = {value} is outside [{lo}, {hi}]")]
    CommandRange {
        /// Name.
        name: String,
        /// Value.
        value: f64,
        /// Lower end.
        lo: f64,
        /// Upper end.
        hi: f64,
    },
}
