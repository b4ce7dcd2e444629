//! What `bench latency` writes: the statistics of a run on warm caches, and of one on cold ones when asked for.

use serde::{Deserialize, Serialize};

use super::stats::Latency;
use super::summary::{BARE_WAKE, CounterSummary, PERIOD_ERROR, RawTick, StageSummary, StatsSummary};
use crate::log::entry::Stage;

/// What stands before the name of a stage on cold caches.
pub const COLD: &str = "cold ";

/// What was measured, and under what trouble.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BenchConfig {
    /// Name of the bundle.
    pub bundle: String,
    /// Name of the robot.
    pub robot: String,
    /// Kind of the device.
    pub device: String,
    /// Control rate, Hz.
    pub control_hz: f64,
    /// Length asked for, s.
    pub seconds: f64,
    /// Where the policy ran, and why.
    pub placement: String,
    /// Busy threads beside the loop.
    pub stress: usize,
    /// Memory touched between two ticks of the cold run, bytes; 0 without one.
    pub evict_bytes: usize,
    /// Time before a deadline from which the loop spun, µs.
    pub spin_us: u32,
}

/// What the cold run has beside its rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ColdRun {
    /// Counters.
    pub counters: CounterSummary,
    /// The ticks that finished latest after their deadlines, worst first.
    pub worst: Vec<RawTick>,
}

/// The whole file; its statistics are those of the warm run, and the rows of the cold one beside them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Rows, counters and raw ticks.
    #[serde(flatten)]
    pub stats: StatsSummary,
    /// What was measured; absent in the statistics of an ordinary run.
    #[serde(default)]
    pub config: Option<BenchConfig>,
    /// Load average before the measurement.
    #[serde(default)]
    pub load_before: Option<f64>,
    /// The run on cold caches.
    #[serde(default)]
    pub cold: Option<ColdRun>,
}

impl Measurement {
    /// The statistics of the warm run with the bare sleeper's row before them.
    pub fn new(
        config: BenchConfig,
        load_before: Option<f64>,
        mut stats: StatsSummary,
        bare: &Latency,
    ) -> Self {
        stats.stages.insert(0, StageSummary::new(BARE_WAKE, bare));
        Self { stats, config: Some(config), load_before, cold: None }
    }

    /// Adds the run on cold caches: each of its rows after the warm one of the same name. Its period error is left out,
    /// because its periods are stretched by the touching.
    pub fn add_cold(&mut self, cold: StatsSummary) {
        for row in cold.stages.into_iter().filter(|row| row.name != PERIOD_ERROR) {
            let at = self.stats.stages.iter().position(|warm| warm.name == row.name);
            let row = StageSummary { name: format!("{COLD}{}", row.name), ..row };
            self.stats.stages.insert(at.map_or(self.stats.stages.len(), |i| i + 1), row);
        }
        self.cold = Some(ColdRun { counters: cold.counters, worst: cold.worst });
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = self.stats.table();
        if let Some(cold) = &self.cold {
            let counters = &cold.counters;
            text += &format!(
                " cold: missed {} of {} ticks · {} periods skipped\n",
                counters.missed, counters.ticks, counters.skipped
            );
        }
        for (what, words) in
            [("wake lateness / bare wake", self.wake_ratio()), ("cold / hot tick", self.cold_ratio())]
        {
            if let Some((p50, p99)) = words {
                text += &format!(" {what}: p50 {p50:.2}, p99 {p99:.2}\n");
            }
        }
        text
    }

    /// Wake lateness of the loop against that of the bare sleeper: median and 99th percentile.
    pub fn wake_ratio(&self) -> Option<(f64, f64)> {
        self.ratio(Stage::Wake.name(), BARE_WAKE)
    }

    /// Whole tick on cold caches against warm ones.
    pub fn cold_ratio(&self) -> Option<(f64, f64)> {
        self.ratio(&format!("{COLD}{}", Stage::Total.name()), Stage::Total.name())
    }

    fn ratio(&self, name: &str, reference: &str) -> Option<(f64, f64)> {
        let row = |name: &str| self.stats.stage(name).filter(|row| row.count > 0);
        let (row, reference) = (row(name)?, row(reference)?);
        let of = |a: u64, b: u64| a as f64 / b.max(1) as f64;
        Some((of(row.p50, reference.p50), of(row.p99, reference.p99)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::sched::RtReport;
    use crate::timing::stats::Stats;
    use crate::timing::stats::tests::tick;
    use crate::timing::summary::Environment;

    fn run(total_ns: u32) -> StatsSummary {
        let mut stats = Stats::new(2_000_000);
        for i in 0..100 {
            stats.add(&tick(i, 20_000, total_ns));
        }
        stats.summary(Environment::capture(RtReport::default()))
    }

    #[test]
    fn cold_rows_stand_after_the_warm_ones_and_the_file_comes_back() {
        let mut bare = Latency::new();
        bare.record(10_000);
        let config = BenchConfig { robot: "duo".into(), evict_bytes: 1 << 20, ..BenchConfig::default() };
        let mut made = Measurement::new(config, Some(0.5), run(30_000), &bare);
        assert!(made.cold_ratio().is_none());
        made.add_cold(run(90_000));
        let names: Vec<&str> = made.stats.stages.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names[..3], [BARE_WAKE, "wake lateness", "cold wake lateness"]);
        assert!(!names.contains(&"cold period error"));
        let (p50, p99) = made.cold_ratio().expect("both ran");
        assert!((p50 - 3.0).abs() < 0.01 && (p99 - 3.0).abs() < 0.01, "{p50} {p99}");
        assert!((made.wake_ratio().expect("both").0 - 2.0).abs() < 0.01);
        let table = made.table();
        assert!(table.contains("cold: missed 0 of 100 ticks"));
        // All figures end in one column, however long a name is.
        let ends: Vec<usize> = table
            .lines()
            .filter(|line| line.contains("whole tick") || line.contains("wake late"))
            .map(str::len)
            .collect();
        assert!(ends.len() == 5 && ends[..4].iter().all(|&end| end == ends[0]), "{table}");
        let text = serde_json::to_string(&made).expect("plain data");
        assert_eq!(serde_json::from_str::<Measurement>(&text).expect("own form"), made);
        let json: serde_json::Value = serde_json::from_str(&text).expect("json");
        assert_eq!((&json["schema"], &json["config"]["robot"]), (&1.into(), &"duo".into()));
        assert_eq!(json["cold"]["worst"][0]["stages"][10], 90_000);
    }

    #[test]
    fn the_statistics_of_an_ordinary_run_are_read_as_well() {
        let text = serde_json::to_string(&run(1000)).expect("plain data");
        let read: Measurement = serde_json::from_str(&text).expect("statistics");
        assert_eq!((read.stats, read.config, read.cold), (run(1000).clone(), None, None));
    }
}
