//! The one gate before the motors: levels, reasons, faults, and the monitors that watch the mission.

pub mod arming;
mod budget;
pub mod check;
pub mod gate;
mod handover;
pub mod ladder;
mod monitor_error;
pub mod monitors;
pub mod reason;
mod ring;
pub mod signals;
mod spec_text;

pub use arming::{ArmRefusal, ResetRefusal};
pub use gate::Gate;
pub use monitors::{MonitorError, Monitors};
pub use reason::Reason;
pub use signals::{SignalTable, Signals};

/// Level of the safety ladder. Hold is not latched; from SoftStop on the level only grows until an operator resets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// The policy moves the robot.
    Run = 0,
    /// The last target, full gains.
    Hold = 1,
    /// Brake to rest, hold, then damp.
    SoftStop = 2,
    /// No stiffness, damping only.
    Damp = 3,
    /// Motors off.
    Off = 4,
}

impl Level {
    /// Name in logs and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Run => "run",
            Level::Hold => "hold",
            Level::SoftStop => "soft stop",
            Level::Damp => "damp",
            Level::Off => "off",
        }
    }
}

/// Whether the policy may move the robot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Motors off, states are read.
    Disarmed = 0,
    /// Collecting fresh states and checking.
    Arming = 1,
    /// Motors on.
    Armed = 2,
}

impl Phase {
    /// Name in snapshots and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Disarmed => "disarmed",
            Phase::Arming => "arming",
            Phase::Armed => "armed",
        }
    }
}

/// Something went wrong at a tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Control tick.
    pub tick: u64,
    /// Why.
    pub reason: Reason,
    /// Joint in robot order, or monitor index, or `u16::MAX` when neither applies.
    pub joint: u16,
    /// What was seen.
    pub value: f64,
    /// What was allowed.
    pub limit: f64,
    /// Level that it asks for.
    pub level: Level,
}
