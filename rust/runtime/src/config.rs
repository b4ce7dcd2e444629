//! The run's knobs: one set of fields for TOML, Python and the command line, with their defaults in one place.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::action::Seam;
use crate::control::{Latency, RunError};
use crate::device::TimeSource;

/// How a bundle is run. What is true of the robot stands in robot.toml instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Length of the run in seconds of the loop's clock, counted from arming; without end when absent.
    pub seconds: Option<f64>,
    /// Log file (MCAP); nothing is recorded when absent.
    pub record: Option<PathBuf>,
    /// Run on the virtual clock: no sleeping, one period for each tick, the same bytes for the same input.
    pub virtual_clock: bool,
    /// Full pipeline, motors never enabled; commands go to the log only.
    pub dry_run: bool,
    /// Where the policy runs.
    pub mode: PolicyMode,
    /// When the policy is asked for a new sequence; each `chunk.execute` steps when absent.
    pub trigger: Option<Trigger>,
    /// Delay of the policy's answers, on the virtual clock only.
    pub inject: Option<Latency>,
    /// How the policy's rate becomes the control rate; `linear` for sequences, `hold` for single actions when absent.
    pub upsample: Option<Upsample>,
    /// How a new action sequence takes over; the bundle's rule when absent.
    pub seam: Option<Seam>,
    /// Policy steps that a new sequence may no longer change.
    pub freeze: u32,
    /// What becomes of a sequence that arrives when all of it is in the past.
    pub late: Late,
    /// Bundle that takes over when a monitor with the action `fallback_policy` trips, and with `late = "fallback"`.
    pub fallback: Option<PathBuf>,
    /// Share, 0 to 1, of the exploration noise that the bundle allows.
    pub noise: f64,
    /// Time of a control tick that all monitors together may take on the average, µs; without a limit when absent.
    /// Those that take longest are stepped more rarely until they keep it. Not on the virtual clock.
    pub monitor_budget_us: Option<f64>,
    /// Control ticks between two records of `/tick`; states and commands are always recorded.
    pub record_every: u32,
    /// Real-time priority asked for (SCHED_FIFO).
    pub priority: u8,
    /// Core to pin the control thread to.
    pub core: Option<usize>,
    /// Time before a deadline from which the loop spins instead of sleeping, µs.
    pub spin_us: u32,
    /// Refuse to run when the real-time set-up is degraded.
    pub require_rt: bool,
    /// Arm as soon as the checks pass, without waiting for the operator.
    pub arm: bool,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seconds: None,
            record: None,
            virtual_clock: false,
            dry_run: false,
            mode: PolicyMode::Auto,
            trigger: None,
            inject: None,
            upsample: None,
            seam: None,
            freeze: 0,
            late: Late::Drop,
            fallback: None,
            noise: 0.0,
            monitor_budget_us: None,
            record_every: 1,
            priority: 80,
            core: None,
            spin_us: 0,
            require_rt: false,
            arm: true,
        }
    }
}

impl RunConfig {
    /// Refuses values that make no sense, naming field and value.
    ///
    /// # Errors
    /// [`RunError::Config`]
    pub fn check(&self) -> Result<(), RunError> {
        let bad = |key, value: String, expected| Err(RunError::Config { key, value, expected });
        match self.seconds {
            Some(s) if !(s.is_finite() && s > 0.0) => bad("seconds", s.to_string(), "a positive number"),
            None if self.virtual_clock => {
                bad("seconds", "none".into(), "a length: the virtual clock does not wait")
            }
            _ if self.inject.is_some() && !self.virtual_clock => bad(
                "inject",
                self.inject.map_or_else(String::new, |i| i.to_string()),
                "a run on the virtual clock",
            ),
            _ if self.mode == PolicyMode::Async && self.virtual_clock => {
                bad("mode", "async".into(), "inline or auto on the virtual clock, with inject for delays")
            }
            _ if self.late == Late::Fallback && self.fallback.is_none() => {
                bad("late", "fallback".into(), "a fallback bundle beside it")
            }
            _ if self.monitor_budget_us.is_some_and(|us| !(us.is_finite() && us > 0.0)) => bad(
                "monitor_budget_us",
                self.monitor_budget_us.map_or_else(String::new, |us| us.to_string()),
                "a positive number",
            ),
            _ if self.record_every == 0 => bad("record_every", "0".into(), "at least 1"),
            _ if !(1..=98).contains(&self.priority) => bad("priority", self.priority.to_string(), "1 to 98"),
            _ => Ok(()),
        }
    }

    /// The clock that devices stamp their measurements with under this configuration.
    pub fn time_source(&self) -> TimeSource {
        if self.virtual_clock { TimeSource::Virtual(Arc::default()) } else { TimeSource::Monotonic }
    }
}

/// Where the policy runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum PolicyMode {
    /// On the control thread if its cold inference is short beside the control period, else on a thread of its own.
    #[default]
    Auto,
    /// On the control thread.
    Inline,
    /// On a thread of its own; the loop never waits for it.
    Async,
}

/// When the policy is asked for a new sequence; in text `every:8` or `remaining:4`, in policy steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Trigger {
    /// Each so many steps.
    Every(u64),
    /// When the plan covers at most so many more steps.
    Remaining(u64),
}

/// What is not a trigger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trigger {0:?}: expected every:STEPS or remaining:STEPS")]
pub struct NotATrigger(String);

impl FromStr for Trigger {
    type Err = NotATrigger;

    fn from_str(text: &str) -> Result<Self, NotATrigger> {
        let steps = |text: &str| text.parse().ok();
        let parsed = match text.split_once(':') {
            Some(("every", n)) => steps(n).filter(|&n| n > 0).map(Self::Every),
            Some(("remaining", n)) => steps(n).map(Self::Remaining),
            _ => None,
        };
        parsed.ok_or_else(|| NotATrigger(text.to_owned()))
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(n) => write!(f, "every:{n}"),
            Self::Remaining(n) => write!(f, "remaining:{n}"),
        }
    }
}

impl TryFrom<String> for Trigger {
    type Error = NotATrigger;

    fn try_from(text: String) -> Result<Self, NotATrigger> {
        text.parse()
    }
}

impl From<Trigger> for String {
    fn from(trigger: Trigger) -> Self {
        trigger.to_string()
    }
}

/// How the policy's rate becomes the control rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Upsample {
    /// Hold each action for its policy step.
    Hold,
    /// Straight line between two actions; needs a horizon of at least 2.
    Linear,
    /// Monotone cubic through the actions, smooth in velocity; needs a horizon of at least 2.
    Cubic,
}

/// What becomes of a sequence that arrives when all of it is in the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Late {
    /// Nothing: what is held stays held.
    #[default]
    Drop,
    /// Its last action is held, if nothing newer is being played.
    Last,
    /// The run's fallback bundle takes over, as it does when the policy's answers cease.
    Fallback,
}
