//! How a run went.

use serde::Serialize;

use super::tick::Controller;
use crate::log::header::LogHeader;
use crate::log::record::RecordStatus;
use crate::safety::monitors::MonitorReport;
use crate::safety::{Fault, Level};
use crate::timing::sched::RtReport;
use crate::timing::summary::StatsSummary;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its time was over, or a replayed log was.
    Finished,
    /// The operator stopped it.
    Stopped,
    /// A fault.
    Fault,
    /// The motors did not come on.
    Refused,
    /// The motors are off, and nobody can ask for them any more.
    Disarmed,
    /// The control thread panicked.
    Panic,
}

/// How a run went.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Why it ended, in words.
    pub ended: String,
    /// Level of the ladder when it ended, before the motors went off.
    pub level: &'static str,
    /// Time from the start of the loop to the motors' coming on, s; absent when they did not.
    pub armed_s: Option<f64>,
    /// Commands made.
    pub ticks: u64,
    /// Faults in order, at most the first 256.
    pub faults: Vec<FaultReport>,
    /// Times and counters.
    pub stats: StatsSummary,
    /// What the operating system granted.
    pub rt: RtReport,
    /// What became of the log.
    pub record: RecordStatus,
    /// One for each monitor of the bundle that ran last.
    pub monitors: Vec<MonitorReport>,
    /// The statistics as a text table.
    pub table: String,
    /// Exit code: 0 ended as it should, 1 a fault (or motors that did not come on), 70 a panic.
    pub exit_code: u8,
}

impl Report {
    pub(super) fn new(
        ending: Ending,
        level: Level,
        controller: &Controller,
        stats: StatsSummary,
        rt: RtReport,
        record: RecordStatus,
        header: &LogHeader,
    ) -> Self {
        let joints: Vec<String> = header.joints.iter().map(|j| j.name.clone()).collect();
        let name =
            |fault: &Fault| FaultReport::new(fault, &joints, controller.succession.watched_at(fault.tick));
        let first = controller.gate().first_fault();
        let ended = match ending {
            Ending::Finished => "finished".into(),
            Ending::Stopped => "stopped by the operator".into(),
            Ending::Disarmed => "the motors are off, and no request is left that switches them on".into(),
            Ending::Panic => "the control thread panicked: motors damped".into(),
            Ending::Refused => controller.refusal().map_or_else(String::new, |r| r.describe(&joints)),
            Ending::Fault => first.as_ref().map_or_else(String::new, |fault| name(fault).to_string()),
        };
        let exit_code = match ending {
            Ending::Finished | Ending::Stopped | Ending::Disarmed => 0,
            Ending::Fault | Ending::Refused => 1,
            Ending::Panic => 70,
        };
        Self {
            ended,
            level: level.name(),
            armed_s: (controller.state.epoch > 0).then_some(controller.armed_at as f64 * controller.dt),
            ticks: stats.counters.ticks,
            faults: controller.faults().iter().map(name).collect(),
            table: stats.table(),
            stats,
            rt,
            record,
            monitors: controller.skill.monitors.reports(),
            exit_code,
        }
    }

    /// A run that ended before its first tick.
    pub(super) fn not_started(ended: String, rt: RtReport) -> Self {
        Self {
            ended,
            level: Level::Off.name(),
            armed_s: None,
            ticks: 0,
            faults: Vec::new(),
            stats: StatsSummary::default(),
            rt,
            record: RecordStatus::default(),
            monitors: Vec::new(),
            table: String::new(),
            exit_code: 1,
        }
    }

    /// A control thread that panicked outside its loop.
    pub(super) fn panicked() -> Self {
        let ended = "the control thread panicked outside its loop".into();
        Self { exit_code: 70, ..Self::not_started(ended, RtReport::default()) }
    }
}

/// A fault with names instead of numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultReport {
    /// Control tick.
    pub tick: u64,
    /// Reason.
    pub reason: &'static str,
    /// Joint or monitor, empty when neither applies.
    pub subject: String,
    /// What was seen.
    pub value: f64,
    /// What was allowed.
    pub limit: f64,
    /// Level that it asked for.
    pub level: &'static str,
}

impl FaultReport {
    /// Names the joint, or the monitor, of `fault`.
    pub fn new(fault: &Fault, joints: &[String], monitors: &[String]) -> Self {
        let names = if fault.reason.is_about_monitors() { monitors } else { joints };
        Self {
            tick: fault.tick,
            reason: fault.reason.name(),
            subject: names.get(usize::from(fault.joint)).cloned().unwrap_or_default(),
            value: fault.value,
            limit: fault.limit,
            level: fault.level.name(),
        }
    }
}

impl std::fmt::Display for FaultReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tick {}: {}", self.tick, self.reason)?;
        if !self.subject.is_empty() {
            write!(f, " ({})", self.subject)?;
        }
        write!(f, ": {:.6}, limit {:.6} -> {}", self.value, self.limit, self.level)
    }
}
