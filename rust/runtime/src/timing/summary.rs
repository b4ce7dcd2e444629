//! What is told of the statistics: the JSON of `bench latency` (schema 1) and the table.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::host;
use super::sched::RtReport;
use super::stats::{Latency, Stats};
use super::usage::Usage;
use crate::log::entry::{Stage, TickEntry};

/// Number of the JSON form.
pub const SCHEMA: u32 = 1;

/// Where the numbers were measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Level of the control thread.
    pub rt: RtReport,
    /// Processor.
    pub cpu: Option<String>,
    /// Load average at the end of the run; absent on the virtual clock.
    pub load: Option<f64>,
    /// `release` or `debug`.
    pub build: String,
    /// Version of the runtime.
    pub version: String,
    /// Commit of the source, where the build was told (`CADENZA_COMMIT`).
    #[serde(default)]
    pub commit: Option<String>,
}

impl Environment {
    /// This machine and this build, with the level that the control thread reached.
    pub fn capture(rt: RtReport) -> Self {
        Self { load: host::load(), ..Self::without_load(rt) }
    }

    /// The same without the load, which differs between two runs on the virtual clock.
    pub fn without_load(rt: RtReport) -> Self {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        let version = env!("CARGO_PKG_VERSION").into();
        let commit = option_env!("CADENZA_COMMIT").filter(|commit| !commit.is_empty()).map(str::to_owned);
        Self { rt, cpu: host::cpu_model(), load: None, build: build.into(), version, commit }
    }
}

/// One row: times in ns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageSummary {
    /// Name of the stage.
    pub name: String,
    /// Number of times.
    pub count: u64,
    /// Smallest, exact.
    pub min: u64,
    /// Median, like all percentiles the upper edge of its bucket.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p99_9: u64,
    /// Largest, exact.
    pub max: u64,
    /// Mean, exact.
    pub mean: f64,
    /// Times beyond the histogram's range.
    pub saturated: u64,
    /// Buckets in use: upper edge in ns, count.
    pub buckets: Vec<(u64, u64)>,
}

impl StageSummary {
    /// The row of these times.
    pub fn new(name: &str, latency: &Latency) -> Self {
        Self {
            name: name.into(),
            count: latency.count(),
            min: latency.min(),
            p50: latency.quantile(0.5),
            p90: latency.quantile(0.9),
            p99: latency.quantile(0.99),
            p99_9: latency.quantile(0.999),
            max: latency.max(),
            mean: latency.mean(),
            saturated: latency.saturated(),
            buckets: latency.buckets(),
        }
    }
}

/// Counters of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterSummary {
    /// Control ticks.
    pub ticks: u64,
    /// Ticks that came after at least one skipped period.
    pub missed: u64,
    /// Periods skipped.
    pub skipped: u64,
    /// Ticks that ran the policy.
    pub inferred: u64,
    /// Ticks in which the limiter changed a joint's target, robot order, up to the last joint that was changed.
    pub clamps: Vec<u64>,
    /// Ticks at each level: run, hold, soft stop, damp, off.
    pub levels: Vec<u64>,
    /// Ticks in which the sequence ran, held, was exhausted.
    pub flows: Vec<u64>,
}

/// What became of the policy's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerSummary {
    /// Taken into the plan.
    pub accepted: u64,
    /// Too late as a whole, out of order, or of another episode.
    pub refused: u64,
    /// No answer, or one that was not finite or of the wrong length.
    pub failed: u64,
    /// Actions of accepted answers that were in the past already.
    pub expired: u64,
}

/// A tick kept with all its stages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawTick {
    /// Control tick.
    pub tick: u64,
    /// Periods skipped before it.
    pub skipped: u32,
    /// Times of the stages in the order of [`Stage::ALL`], ns.
    pub stages: Vec<u32>,
}

impl From<&TickEntry> for RawTick {
    fn from(tick: &TickEntry) -> Self {
        Self { tick: tick.tick, skipped: tick.skipped, stages: tick.stage_ns.to_vec() }
    }
}

/// Everything that is told of a run's timing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsSummary {
    /// Number of this form.
    pub schema: u32,
    /// Where it was measured.
    pub environment: Environment,
    /// Control period, ns.
    pub period_ns: i64,
    /// One row for each stage, then the period error and sensor → command.
    pub stages: Vec<StageSummary>,
    /// Counters.
    pub counters: CounterSummary,
    /// What the control thread used of the machine from the first tick to the last; absent on the virtual clock.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// The policy's answers.
    #[serde(default)]
    pub answers: AnswerSummary,
    /// The first ticks.
    pub first: Vec<RawTick>,
    /// The ticks that finished latest after their deadlines, worst first.
    pub worst: Vec<RawTick>,
}

/// Name of the row with the period error.
pub const PERIOD_ERROR: &str = "period error";
/// Name of the row with the wake lateness of a loop that does nothing else, measured between the ticks of this one.
pub const BARE_WAKE: &str = "bare wake";
/// Name of the row from measurement to command.
pub const SENSOR_TO_COMMAND: &str = "sensor->command";

impl Stats {
    /// Everything that is told of the run's timing.
    pub fn summary(&self, environment: Environment) -> StatsSummary {
        let mut stages: Vec<StageSummary> =
            Stage::ALL.iter().map(|&stage| StageSummary::new(stage.name(), self.stage(stage))).collect();
        stages.push(StageSummary::new(PERIOD_ERROR, &self.period_error));
        stages.push(StageSummary::new(SENSOR_TO_COMMAND, &self.sensor_to_command));
        let counters = &self.counters;
        let joints = counters.clamps.iter().rposition(|&n| n > 0).map_or(0, |last| last + 1);
        StatsSummary {
            schema: SCHEMA,
            environment,
            period_ns: self.period_ns,
            stages,
            counters: CounterSummary {
                ticks: counters.ticks,
                missed: counters.missed,
                skipped: counters.skipped,
                inferred: counters.inferred,
                clamps: counters.clamps[..joints].to_vec(),
                levels: counters.levels.to_vec(),
                flows: counters.flows.to_vec(),
            },
            usage: None,
            answers: AnswerSummary::default(),
            first: self.first.iter().map(RawTick::from).collect(),
            worst: self.worst().iter().map(RawTick::from).collect(),
        }
    }
}

impl StatsSummary {
    /// The row with this name.
    pub fn stage(&self, name: &str) -> Option<&StageSummary> {
        self.stages.iter().find(|row| row.name == name)
    }

    /// A table for people: one row for each stage that ran, in µs, then the counters.
    pub fn table(&self) -> String {
        let mut text = self.header();
        // On the virtual clock every time is 0 and says nothing.
        let rows = || self.stages.iter().filter(|row| row.max > 0);
        let width = rows().map(|row| row.name.len()).fold(16, usize::max);
        if rows().next().is_some() {
            let _ =
                writeln!(text, " {:width$}{:>10}{:>10}{:>10}{:>10}   us", "", "p50", "p99", "p99.9", "max");
        }
        for row in rows() {
            let _ = write!(text, " {:width$}", row.name);
            for ns in [row.p50, row.p99, row.p99_9, row.max] {
                let _ = write!(text, "{:>10.1}", ns as f64 / 1e3);
            }
            text.push('\n');
        }
        let counters = &self.counters;
        let _ = writeln!(
            text,
            " missed {} of {} ticks · {} periods skipped",
            counters.missed, counters.ticks, counters.skipped
        );
        if let Some(usage) = &self.usage {
            let _ = writeln!(text, " {usage}");
        }
        text
    }

    fn header(&self) -> String {
        let environment = &self.environment;
        let mut words = vec![environment.cpu.clone().unwrap_or_else(|| "unknown cpu".into())];
        if environment.rt.policy.is_empty() {
            words.push("virtual clock: no times".into());
        } else {
            words.push(format!("kernel {}", environment.rt.kernel));
            words.push(environment.rt.level());
        }
        words.push(environment.build.clone());
        words.extend(environment.commit.clone());
        words.extend(environment.load.map(|load| format!("load {load:.1}")));
        let mut text = format!(" {}\n", words.join(" · "));
        if environment.build == "debug" {
            text += " warning: debug build, its times say nothing about a release build\n";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::stats::tests::tick;

    fn summary() -> StatsSummary {
        let mut stats = Stats::new(2_000_000);
        for i in 0..100 {
            stats.add(&tick(i, 18_000 + i as u32, 31_000));
        }
        stats.summary(Environment::capture(RtReport::default()))
    }

    #[test]
    fn json_and_back() {
        let summary = summary();
        let text = serde_json::to_string(&summary).expect("plain data");
        assert_eq!(serde_json::from_str::<StatsSummary>(&text).expect("own form"), summary);
        let json: serde_json::Value = serde_json::from_str(&text).expect("json");
        assert_eq!(json["schema"], 1);
        assert_eq!(json["stages"][0]["name"], "wake lateness");
        assert_eq!(json["stages"][0]["min"], 18_000);
        assert_eq!(json["stages"][0]["max"], 18_099);
        assert_eq!(json["worst"][0]["tick"], 99);
    }

    #[test]
    fn the_table_has_a_row_for_each_stage_that_ran() {
        let table = summary().table();
        let row = table.lines().find(|line| line.contains("wake lateness")).expect("row");
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["wake", "lateness", "18.1", "18.1", "18.1", "18.1"]
        );
        assert!(table.contains("missed 0 of 100 ticks"), "{table}");
        assert!(table.contains("debug build") == cfg!(debug_assertions));
    }
}
