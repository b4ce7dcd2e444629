//! The messages of a log, one for each topic. Field numbers never change their meaning.
//!
//! Doubles are stored as they are, so positions, velocities and efforts come back exactly. Arrays over joints hold the
//! joints in use, in the order of [`LogHeader::joints`](super::LogHeader). These structs are the reading side; the
//! control thread writes the same bytes without them (`encode.rs`), and the descriptors in the file are built from the
//! table in `descriptor.rs`.

use super::entry::Entry;

/// A topic of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Topic {
    /// `/state`: what the robot measured, every tick.
    State = 0,
    /// `/command`: what the motors were told, every tick.
    Command = 1,
    /// `/tick`: how long each stage took.
    Tick = 2,
    /// `/obs`: what the policy saw.
    Obs = 3,
    /// `/chunk`: what the policy answered.
    Chunk = 4,
    /// `/monitor`: verdicts.
    Verdict = 5,
    /// `/event`: faults.
    Event = 6,
    /// `/request`: what the operator asked for.
    Request = 7,
    /// `/bundle`: what took, or was to take, another bundle's place.
    Bundle = 8,
}

impl serde::Serialize for Topic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Topic {
    /// Number of topics.
    pub const COUNT: usize = 9;
    /// Every topic, in order.
    pub const ALL: [Topic; Self::COUNT] = [
        Topic::State,
        Topic::Command,
        Topic::Tick,
        Topic::Obs,
        Topic::Chunk,
        Topic::Verdict,
        Topic::Event,
        Topic::Request,
        Topic::Bundle,
    ];

    /// Name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Topic::State => "/state",
            Topic::Command => "/command",
            Topic::Tick => "/tick",
            Topic::Obs => "/obs",
            Topic::Chunk => "/chunk",
            Topic::Verdict => "/monitor",
            Topic::Event => "/event",
            Topic::Request => "/request",
            Topic::Bundle => "/bundle",
        }
    }

    /// Message type.
    pub const fn message(self) -> &'static str {
        match self {
            Topic::State => "cadenza.State",
            Topic::Command => "cadenza.Command",
            Topic::Tick => "cadenza.Tick",
            Topic::Obs => "cadenza.Obs",
            Topic::Chunk => "cadenza.Chunk",
            Topic::Verdict => "cadenza.Verdict",
            Topic::Event => "cadenza.Event",
            Topic::Request => "cadenza.Request",
            Topic::Bundle => "cadenza.Bundle",
        }
    }

    /// The topic with this name.
    pub fn from_name(name: &str) -> Option<Topic> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }

    /// Where an entry goes.
    pub fn of(entry: &Entry<'_>) -> Topic {
        match entry {
            Entry::State(_) => Topic::State,
            Entry::Command(_) => Topic::Command,
            Entry::Tick(_) => Topic::Tick,
            Entry::Obs { .. } => Topic::Obs,
            Entry::Chunk { .. } => Topic::Chunk,
            Entry::Verdict(_) => Topic::Verdict,
            Entry::Event(_) => Topic::Event,
            Entry::Request { .. } => Topic::Request,
            Entry::Bundle { .. } => Topic::Bundle,
        }
    }
}

/// `/state`; see [`crate::state::State`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct State {
    /// Control tick.
    #[prost(uint64, tag = "1")]
    pub tick: u64,
    /// Epoch.
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    /// When it was measured, ns of the loop's clock.
    #[prost(int64, tag = "3")]
    pub t_sensor_ns: i64,
    /// When it was received, ns of the loop's clock.
    #[prost(int64, tag = "4")]
    pub t_read_ns: i64,
    /// Positions.
    #[prost(double, repeated, tag = "5")]
    pub q: Vec<f64>,
    /// Velocities.
    #[prost(double, repeated, tag = "6")]
    pub dq: Vec<f64>,
    /// Efforts.
    #[prost(double, repeated, tag = "7")]
    pub tau: Vec<f64>,
    /// Temperatures, °C.
    #[prost(float, repeated, tag = "8")]
    pub temp: Vec<f32>,
    /// Inertial measurement.
    #[prost(message, optional, tag = "9")]
    pub imu: Option<Imu>,
    /// Floating base.
    #[prost(message, optional, tag = "10")]
    pub base: Option<Base>,
    /// Operator command vector.
    #[prost(double, repeated, tag = "11")]
    pub user: Vec<f64>,
    /// Objects.
    #[prost(message, repeated, tag = "12")]
    pub objects: Vec<Object>,
    /// Emergency stop pressed.
    #[prost(bool, tag = "13")]
    pub estop: bool,
}

/// See [`crate::state::Imu`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Imu {
    /// Orientation, wxyz.
    #[prost(double, repeated, tag = "1")]
    pub quat: Vec<f64>,
    /// Angular velocity, body frame.
    #[prost(double, repeated, tag = "2")]
    pub gyro: Vec<f64>,
    /// Specific force, body frame.
    #[prost(double, repeated, tag = "3")]
    pub acc: Vec<f64>,
    /// Whether the device reports it.
    #[prost(bool, tag = "4")]
    pub valid: bool,
}

/// See [`crate::state::Base`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Base {
    /// Position, world.
    #[prost(double, repeated, tag = "1")]
    pub pos: Vec<f64>,
    /// Velocity, world.
    #[prost(double, repeated, tag = "2")]
    pub vel: Vec<f64>,
    /// Whether the device reports it.
    #[prost(bool, tag = "3")]
    pub valid: bool,
}

/// See [`crate::state::Object`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Object {
    /// Position, world.
    #[prost(double, repeated, tag = "1")]
    pub pos: Vec<f64>,
    /// Orientation, wxyz.
    #[prost(double, repeated, tag = "2")]
    pub quat: Vec<f64>,
    /// When it was seen.
    #[prost(int64, tag = "3")]
    pub stamp_ns: i64,
    /// Whether it has been seen.
    #[prost(bool, tag = "4")]
    pub valid: bool,
}

/// `/command`; see [`crate::state::Command`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// Control tick.
    #[prost(uint64, tag = "1")]
    pub tick: u64,
    /// Epoch.
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    /// Level, the number of [`crate::safety::Level`].
    #[prost(int32, tag = "3")]
    pub level: i32,
    /// Target positions.
    #[prost(double, repeated, tag = "4")]
    pub q: Vec<f64>,
    /// Target velocities.
    #[prost(double, repeated, tag = "5")]
    pub dq: Vec<f64>,
    /// Position gains.
    #[prost(double, repeated, tag = "6")]
    pub kp: Vec<f64>,
    /// Velocity gains.
    #[prost(double, repeated, tag = "7")]
    pub kd: Vec<f64>,
    /// Feed-forward efforts.
    #[prost(double, repeated, tag = "8")]
    pub tau: Vec<f64>,
}

/// `/tick`; see [`crate::log::entry::TickEntry`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tick {
    /// Control tick.
    #[prost(uint64, tag = "1")]
    pub tick: u64,
    /// When it was due.
    #[prost(int64, tag = "2")]
    pub deadline_ns: i64,
    /// Times of the stages.
    #[prost(message, optional, tag = "3")]
    pub stages: Option<Stages>,
    /// Periods skipped before.
    #[prost(uint32, tag = "4")]
    pub skipped: u32,
    /// Whether the policy ran.
    #[prost(bool, tag = "5")]
    pub inferred: bool,
    /// Flow, the number of [`crate::action::Flow`].
    #[prost(int32, tag = "6")]
    pub flow: i32,
    /// Level.
    #[prost(int32, tag = "7")]
    pub level: i32,
    /// Phase, the number of [`crate::safety::Phase`].
    #[prost(int32, tag = "8")]
    pub phase: i32,
    /// Joints that the limiter changed, one bit each.
    #[prost(uint64, tag = "9")]
    pub clamped: u64,
    /// Authority of the policy.
    #[prost(double, tag = "10")]
    pub authority: f64,
    /// Age of the state.
    #[prost(int64, tag = "11")]
    pub age_ns: i64,
}

/// Times of the stages of a tick, ns, in the order of [`Stage`](crate::log::entry::Stage).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stages {
    /// Wake-up after the deadline.
    #[prost(uint32, tag = "1")]
    pub wake: u32,
    /// Device read.
    #[prost(uint32, tag = "2")]
    pub read: u32,
    /// Observation.
    #[prost(uint32, tag = "3")]
    pub observe: u32,
    /// Inference.
    #[prost(uint32, tag = "4")]
    pub infer: u32,
    /// Sequence.
    #[prost(uint32, tag = "5")]
    pub sequence: u32,
    /// Limiter.
    #[prost(uint32, tag = "6")]
    pub limit: u32,
    /// Monitors.
    #[prost(uint32, tag = "7")]
    pub monitor: u32,
    /// Gate.
    #[prost(uint32, tag = "8")]
    pub gate: u32,
    /// Device write.
    #[prost(uint32, tag = "9")]
    pub write: u32,
    /// Recorder.
    #[prost(uint32, tag = "10")]
    pub record: u32,
    /// The whole tick.
    #[prost(uint32, tag = "11")]
    pub total: u32,
}

/// `/obs`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Obs {
    /// Control tick.
    #[prost(uint64, tag = "1")]
    pub tick: u64,
    /// Observation.
    #[prost(float, repeated, tag = "2")]
    pub values: Vec<f32>,
}

/// `/chunk`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Chunk {
    /// Control tick at which it was accepted.
    #[prost(uint64, tag = "1")]
    pub tick: u64,
    /// Number of the chunk.
    #[prost(uint64, tag = "2")]
    pub id: u64,
    /// Rows × actions, graph units.
    #[prost(float, repeated, tag = "3")]
    pub values: Vec<f32>,
    /// Policy step of its observation, counted from arming.
    #[prost(uint64, tag = "4")]
    pub step: u64,
    /// Leading rows that repeat committed actions.
    #[prost(uint32, tag = "5")]
    pub prefix: u32,
}

/// `/monitor`; see [`crate::log::entry::VerdictEntry`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Verdict {
    /// Control tick.
    #[prost(uint64, tag = "1")]
    pub tick: u64,
    /// Index of the monitor.
    #[prost(uint32, tag = "2")]
    pub monitor: u32,
    /// STL step.
    #[prost(uint64, tag = "3")]
    pub step: u64,
    /// Robustness of the instant that closed.
    #[prost(double, optional, tag = "4")]
    pub closed: Option<f64>,
    /// Lower bound of the oldest pending instant.
    #[prost(double, tag = "5")]
    pub lo: f64,
    /// Upper bound.
    #[prost(double, tag = "6")]
    pub hi: f64,
}

/// `/event`; see [`crate::safety::Fault`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// Control tick.
    #[prost(uint64, tag = "1")]
    pub tick: u64,
    /// Why, the number of [`crate::safety::Reason`].
    #[prost(int32, tag = "2")]
    pub reason: i32,
    /// Joint or monitor; 65535 when neither applies.
    #[prost(uint32, tag = "3")]
    pub joint: u32,
    /// What was seen.
    #[prost(double, tag = "4")]
    pub value: f64,
    /// What was allowed.
    #[prost(double, tag = "5")]
    pub limit: f64,
    /// Level that it asks for.
    #[prost(int32, tag = "6")]
    pub level: i32,
}

/// `/request`; see [`crate::log::entry::Request`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// Control tick that obeyed it.
    #[prost(uint64, tag = "1")]
    pub tick: u64,
    /// 0 arm, 1 stop, 2 e-stop, 3 disarm, 4 reset, 5 command, 6 switch.
    #[prost(int32, tag = "2")]
    pub kind: i32,
    /// Slot of a command.
    #[prost(uint32, tag = "3")]
    pub slot: u32,
    /// Value of a command.
    #[prost(double, tag = "4")]
    pub value: f64,
}

/// `/bundle`; see [`crate::log::entry::BundleEntry`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bundle {
    /// Control tick at which it was asked for.
    #[prost(uint64, tag = "1")]
    pub tick: u64,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// SHA-256 of the bundle, hexadecimal.
    #[prost(string, tag = "3")]
    pub sha256: String,
    /// Text of its manifest.
    #[prost(string, tag = "4")]
    pub manifest_json: String,
    /// Its STL specification.
    #[prost(string, tag = "5")]
    pub spec_stl: String,
    /// Whether its answers may come later than their questions.
    #[prost(bool, tag = "6")]
    pub late: bool,
    /// Whether it is the run's fallback.
    #[prost(bool, tag = "7")]
    pub fallback: bool,
    /// Its monitors.
    #[prost(message, repeated, tag = "8")]
    pub monitors: Vec<Monitor>,
}

/// A monitor of a [`Bundle`]; see [`crate::log::header::MonitorHeader`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Monitor {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Step, s.
    #[prost(double, tag = "2")]
    pub dt: f64,
    /// STL text.
    #[prost(string, tag = "3")]
    pub formula: String,
}
