//! What is watched, and what the operator may command.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How one property of `spec.stl` is watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorSpec {
    /// Property name in `spec.stl`.
    pub name: String,
    /// Seconds of one STL step; a whole multiple of `control_dt`.
    pub dt: f64,
    /// When it trips.
    pub trip: Trip,
    /// What happens then.
    pub action: MonitorAction,
    /// Margin of `at_risk`.
    #[serde(default)]
    pub margin: f64,
    /// Values of the formula's parameters.
    #[serde(default)]
    pub params: BTreeMap<String, f64>,
}

/// When a monitor trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trip {
    /// No future can save it any more.
    Violated,
    /// Its lower bound fell below the margin.
    AtRisk,
    /// It is satisfied.
    Satisfied,
}

/// What a tripped monitor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MonitorAction {
    /// Only a record.
    Log,
    /// Hold the last target.
    Hold,
    /// Brake, hold, damp.
    SoftStop,
    /// Damp.
    Damp,
    /// Motors off.
    Off,
    /// The run's fallback bundle takes over; a soft stop when there is none.
    FallbackPolicy,
}

/// A slot of the operator command vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSlot {
    /// Name; signals call it `user.<name>`.
    pub name: String,
    /// Values that the policy was trained for; a command outside is refused.
    pub range: [f64; 2],
    /// Value before the operator gives one.
    #[serde(default)]
    pub default: f64,
}
