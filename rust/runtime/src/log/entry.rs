//! What the loop hands to the recorder: plain numbers, one kind for each topic.

use super::header::MonitorHeader;
use crate::safety::{Fault, Level, Phase};

/// Stages of a tick, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stage {
    /// Wake-up after the deadline.
    Wake = 0,
    /// Device read.
    Read = 1,
    /// Observation.
    Observe = 2,
    /// Inference (policy ticks only).
    Infer = 3,
    /// Sequence and up-sampling.
    Sequence = 4,
    /// Limiter.
    Limit = 5,
    /// Monitors.
    Monitor = 6,
    /// Safety gate, both halves.
    Gate = 7,
    /// Device write.
    Write = 8,
    /// Hand-over to the recorder.
    Record = 9,
    /// The whole tick without the wake-up.
    Total = 10,
}

impl Stage {
    /// Number of stages.
    pub const COUNT: usize = 11;
    /// Every stage, in order.
    pub const ALL: [Stage; Self::COUNT] = [
        Stage::Wake,
        Stage::Read,
        Stage::Observe,
        Stage::Infer,
        Stage::Sequence,
        Stage::Limit,
        Stage::Monitor,
        Stage::Gate,
        Stage::Write,
        Stage::Record,
        Stage::Total,
    ];

    /// Name in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Wake => "wake lateness",
            Stage::Read => "read",
            Stage::Observe => "observe",
            Stage::Infer => "infer",
            Stage::Sequence => "sequence",
            Stage::Limit => "limiter",
            Stage::Monitor => "monitors",
            Stage::Gate => "gate",
            Stage::Write => "device",
            Stage::Record => "record",
            Stage::Total => "whole tick",
        }
    }
}

/// How one tick went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TickEntry {
    /// Control tick.
    pub tick: u64,
    /// When it was due, ns of the loop's clock.
    pub deadline_ns: i64,
    /// Time of each stage, ns; 0 where the stage did not run.
    pub stage_ns: [u32; Stage::COUNT],
    /// Periods skipped before this tick.
    pub skipped: u32,
    /// Whether this tick ran the policy.
    pub inferred: bool,
    /// How the sequence stood.
    pub flow: crate::action::Flow,
    /// Level of the ladder.
    pub level: Level,
    /// Phase.
    pub phase: Phase,
    /// Joints whose target the limiter changed, one bit each.
    pub clamped: u64,
    /// Authority of the policy, 0…1.
    pub authority: f64,
    /// Age of the state, ns.
    pub age_ns: i64,
}

/// A request from outside that the loop obeyed, in the order of arrival: what a replay needs beside the states.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request {
    /// Switch the motors on when the checks pass.
    Arm,
    /// Soft stop, then motors off.
    Stop,
    /// Damp at once.
    Estop,
    /// Motors off.
    Disarm,
    /// Clear the latch; leaves disarmed.
    Reset,
    /// Operator command: one slot of the vector.
    Command {
        /// Slot.
        slot: u16,
        /// Value.
        value: f64,
    },
    /// The bundle that was offered takes over at the next policy step.
    Switch,
}

/// A bundle that takes another's place: what a replay needs of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BundleEntry {
    /// Name.
    pub name: String,
    /// SHA-256 of the bundle, hexadecimal.
    pub sha256: String,
    /// Text of its manifest.
    pub manifest_json: String,
    /// Its STL specification; empty when it has none.
    pub spec_stl: String,
    /// Whether its answers may come later than their questions.
    pub late: bool,
    /// Whether it is the run's fallback.
    pub fallback: bool,
    /// Its monitors, in the order of `Verdict.monitor` while it runs.
    pub monitors: Vec<MonitorHeader>,
}

/// A monitor's word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VerdictEntry {
    /// Control tick.
    pub tick: u64,
    /// Monitor index.
    pub monitor: u16,
    /// STL step that was pushed.
    pub step: u64,
    /// Robustness of the instant that closed with this step, if one did.
    pub closed: Option<f64>,
    /// Bounds of the oldest pending instant.
    pub lo: f64,
    /// See `lo`.
    pub hi: f64,
}

/// One message for the recorder.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// `/state`
    State(&'a crate::state::State),
    /// `/command`
    Command(&'a crate::state::Command),
    /// `/tick`
    Tick(&'a TickEntry),
    /// `/obs`: the observation that the policy saw.
    Obs {
        /// Control tick.
        tick: u64,
        /// Observation.
        values: &'a [f32],
    },
    /// `/chunk`: the network's output in graph units.
    Chunk {
        /// Control tick at which it was accepted.
        tick: u64,
        /// Number of the chunk.
        id: u64,
        /// Policy step of its observation, counted from arming.
        step: u64,
        /// Leading rows that repeat committed actions.
        prefix: u32,
        /// Rows × actions.
        values: &'a [f32],
    },
    /// `/monitor`
    Verdict(&'a VerdictEntry),
    /// `/event`
    Event(&'a Fault),
    /// `/request`
    Request {
        /// Control tick that obeyed it.
        tick: u64,
        /// What was asked.
        request: Request,
    },
    /// `/bundle`
    Bundle {
        /// Control tick at which it was asked for.
        tick: u64,
        /// The bundle.
        bundle: &'a BundleEntry,
    },
}
