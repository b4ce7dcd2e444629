//! Did it get slower? Two runs compared stage by stage, with the uncertainty of each ratio.
//!
//! The interval is a percentile bootstrap over the histogram's buckets. Resampling n times and taking the k-th smallest
//! is the same as inverting the distribution at a draw of Beta(k, n − k + 1), which costs two gamma draws instead of n.
//! Ticks that follow each other are alike, so intervals of short runs are somewhat too narrow.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::measurement::{BenchConfig, Measurement};
use super::summary::{BARE_WAKE, SCHEMA, StageSummary, StatsSummary};

/// Resamples per ratio.
const RESAMPLES: usize = 2000;

/// Two files that cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// Not statistics.
    #[error("{which}: not the statistics of a run: {error}")]
    Json {
        /// `before` or `after`.
        which: &'static str,
        /// What the reader says.
        error: serde_json::Error,
    },
    /// Another form.
    #[error("{which}: schema {schema}, this version reads {SCHEMA}")]
    Schema {
        /// `before` or `after`.
        which: &'static str,
        /// What the file says.
        schema: u32,
    },
    /// A count that its buckets do not add up to.
    #[error("{which}: stage '{stage}' counts {count} times, its buckets {buckets}")]
    Count {
        /// `before` or `after`.
        which: &'static str,
        /// The stage.
        stage: String,
        /// Stated count.
        count: u64,
        /// Sum of the buckets.
        buckets: u64,
    },
}

/// A ratio after/before with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Ratio of the two quantiles.
    pub value: f64,
    /// Lower end of the interval.
    pub lo: f64,
    /// Upper end of the interval.
    pub hi: f64,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageComparison {
    /// Name of the stage.
    pub name: String,
    /// Median.
    pub p50: Ratio,
    /// 99th percentile.
    pub p99: Ratio,
    /// Whether the median is worse than the threshold, and not by chance: its whole interval is above 1.
    pub worse: bool,
}

/// All stages that both runs have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Largest ratio of medians that is accepted.
    pub fail_above: f64,
    /// Stages in order.
    pub stages: Vec<StageComparison>,
    /// Why the two runs may not be comparable.
    pub warnings: Vec<String>,
}

impl Comparison {
    /// Whether any stage got worse.
    pub fn worse(&self) -> bool {
        self.stages.iter().any(|stage| stage.worse)
    }

    /// Exit code of `bench compare`: 4 when a stage got worse, else 0.
    pub fn exit_code(&self) -> u8 {
        if self.worse() { 4 } else { 0 }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.stages.iter().map(|stage| stage.name.len()).fold(16, usize::max);
        writeln!(f, " {:width$}{:>28}{:>28}", "after/before", "p50 [95 %]", "p99 [95 %]")?;
        for stage in &self.stages {
            let words = |r: &Ratio| format!("{:.3} [{:.3}, {:.3}]", r.value, r.lo, r.hi);
            let mark = if stage.worse { "  worse" } else { "" };
            writeln!(f, " {:width$}{:>28}{:>28}{mark}", stage.name, words(&stage.p50), words(&stage.p99))?;
        }
        for warning in &self.warnings {
            writeln!(f, " warning: {warning}")?;
        }
        Ok(())
    }
}

/// Compares two runs given as their JSON; a stage is worse when its median grew by more than `fail_above`.
pub fn compare(before: &str, after: &str, fail_above: f64) -> Result<Comparison, CompareError> {
    let (a, b) = (parse("before", before)?, parse("after", after)?);
    let warnings = differences(&a, &b);
    let (a, b) = (a.stats, b.stats);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut stages = Vec::new();
    for row in a.stages.iter().filter(|row| row.count > 0) {
        let Some(other) = b.stage(&row.name).filter(|other| other.count > 0) else { continue };
        let p50 = ratio(row, other, 0.5, &mut random);
        let p99 = ratio(row, other, 0.99, &mut random);
        // The bare wake is the machine, not the loop.
        let worse = p50.value > fail_above && p50.lo > 1.0 && row.name != BARE_WAKE;
        stages.push(StageComparison { name: row.name.clone(), p50, p99, worse });
    }
    Ok(Comparison { fail_above, stages, warnings })
}

fn parse(which: &'static str, text: &str) -> Result<Measurement, CompareError> {
    let measured: Measurement =
        serde_json::from_str(text).map_err(|error| CompareError::Json { which, error })?;
    let summary = &measured.stats;
    if summary.schema != SCHEMA {
        return Err(CompareError::Schema { which, schema: summary.schema });
    }
    for row in &summary.stages {
        let buckets = row.buckets.iter().fold(0, |sum: u64, b| sum.saturating_add(b.1));
        if buckets != row.count {
            return Err(CompareError::Count { which, stage: row.name.clone(), count: row.count, buckets });
        }
    }
    Ok(measured)
}

fn differences(a: &Measurement, b: &Measurement) -> Vec<String> {
    let asked =
        |m: &Measurement, word: fn(&BenchConfig) -> String| m.config.as_ref().map_or_else(String::new, word);
    let (device, stress) = (|c: &BenchConfig| c.device.clone(), |c: &BenchConfig| c.stress.to_string());
    let touched = |c: &BenchConfig| format!("{} bytes", c.evict_bytes);
    let configs = [
        ("device", asked(a, device), asked(b, device)),
        ("busy threads", asked(a, stress), asked(b, stress)),
        ("memory touched", asked(a, touched), asked(b, touched)),
    ];
    let (a, b): (&StatsSummary, &StatsSummary) = (&a.stats, &b.stats);
    let (x, y) = (&a.environment, &b.environment);
    let cpu = |c: &Option<String>| c.clone().unwrap_or_else(|| "unknown".into());
    let pairs = [
        ("cpu", cpu(&x.cpu), cpu(&y.cpu)),
        ("kernel", x.rt.kernel.clone(), y.rt.kernel.clone()),
        ("level", x.rt.level(), y.rt.level()),
        ("build", x.build.clone(), y.build.clone()),
        ("period", format!("{} ns", a.period_ns), format!("{} ns", b.period_ns)),
    ];
    let mut warnings: Vec<String> = pairs
        .into_iter()
        .chain(configs)
        .filter(|(_, before, after)| before != after)
        .map(|(what, before, after)| format!("{what} differs: {before} → {after}"))
        .collect();
    if x.build == "debug" || y.build == "debug" {
        warnings.push("a debug build says nothing about a release build".into());
    }
    warnings
}

/// Ratio of the `q` quantiles. A quantile of 0 ns counts as 1 ns, the clock's own resolution.
fn ratio(a: &StageSummary, b: &StageSummary, q: f64, random: &mut Random) -> Ratio {
    let (a, b) = (Distribution::new(a), Distribution::new(b));
    let value = b.at_rank(rank(q, b.count)) / a.at_rank(rank(q, a.count));
    let mut draws: Vec<f64> =
        (0..RESAMPLES).map(|_| b.resampled(q, random) / a.resampled(q, random)).collect();
    draws.sort_by(f64::total_cmp);
    let tail = RESAMPLES * 25 / 1000;
    Ratio { value, lo: draws[tail], hi: draws[RESAMPLES - 1 - tail] }
}

fn rank(q: f64, count: u64) -> u64 {
    ((q * count as f64).ceil() as u64).clamp(1, count)
}

struct Distribution {
    count: u64,
    /// Upper edge, number of times up to and including this bucket.
    cumulative: Vec<(u64, u64)>,
}

impl Distribution {
    fn new(row: &StageSummary) -> Self {
        let mut sum: u64 = 0;
        let cumulative = row.buckets.iter().map(|&(edge, count)| {
            sum = sum.saturating_add(count);
            (edge, sum)
        });
        Self { count: row.count, cumulative: cumulative.collect() }
    }

    fn at_rank(&self, rank: u64) -> f64 {
        let bucket = self.cumulative.partition_point(|&(_, upto)| upto < rank);
        self.cumulative[bucket.min(self.cumulative.len() - 1)].0.max(1) as f64
    }

    /// The `q` quantile of one resample.
    fn resampled(&self, q: f64, random: &mut Random) -> f64 {
        let k = rank(q, self.count) as f64;
        let (x, y) = (random.gamma(k), random.gamma(self.count as f64 - k + 1.0));
        self.at_rank(rank(x / (x + y), self.count))
    }
}

/// SplitMix64: the same comparison gives the same interval on every machine.
struct Random(u64);

impl Random {
    /// In the open interval (0, 1).
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON / 4.0
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Gamma with this shape (at least 1) and scale 1, after Marsaglia and Tsang (2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::sched::RtReport;
    use crate::timing::stats::{Latency, Stats, tests::tick};
    use crate::timing::summary::Environment;

    /// A run whose ticks took `scale` times 20…40 µs.
    fn run(scale: f64, seed: u64, ticks: u64) -> String {
        let mut stats = Stats::new(2_000_000);
        let mut random = Random(seed);
        for i in 0..ticks {
            let total = scale * 20_000.0 * (1.0 + random.uniform());
            stats.add(&tick(i, 18_000, total as u32));
        }
        serde_json::to_string(&stats.summary(Environment::without_load(RtReport::default())))
            .expect("plain data")
    }

    fn whole(comparison: &Comparison) -> StageComparison {
        comparison.stages.iter().find(|s| s.name == "whole tick").expect("stage").clone()
    }

    #[test]
    fn the_same_run_is_not_worse() {
        let a = run(1.0, 1, 2000);
        let comparison = compare(&a, &a, 1.0).expect("own form");
        assert_eq!(comparison.exit_code(), 0);
        assert_eq!(whole(&comparison).p50.value, 1.0);
        let p50 = whole(&comparison).p50;
        assert!(p50.lo < 1.0 && p50.hi > 1.0, "{p50:?}");
    }

    #[test]
    fn a_slower_run_is_worse_and_a_faster_one_is_not() {
        let (a, b) = (run(1.0, 1, 2000), run(1.2, 2, 2000));
        let slower = compare(&a, &b, 1.1).expect("own form");
        assert_eq!(slower.exit_code(), 4);
        assert!((whole(&slower).p50.value - 1.2).abs() < 0.03, "{:?}", whole(&slower));
        assert!(slower.to_string().contains("worse"));
        assert_eq!(compare(&b, &a, 1.1).expect("own form").exit_code(), 0);
        assert_eq!(compare(&a, &b, 1.3).expect("own form").exit_code(), 0);
    }

    #[test]
    fn a_slower_machine_is_shown_and_is_no_regression_of_the_loop() {
        let rename = |json: String| json.replace("\"whole tick\"", &format!("\"{BARE_WAKE}\""));
        let (a, b) = (rename(run(1.0, 1, 2000)), rename(run(1.2, 2, 2000)));
        let comparison = compare(&a, &b, 1.1).expect("own form");
        let bare = comparison.stages.iter().find(|s| s.name == BARE_WAKE).expect("stage");
        assert!(bare.p50.value > 1.15 && !bare.worse);
    }

    #[test]
    fn the_interval_covers_the_truth() {
        // 95 % nominal; 200 independent pairs, so fewer than 180 hits has a probability below 1e-3.
        let row = |scale: f64, seed| {
            let (mut latency, mut random) = (Latency::new(), Random(seed));
            (0..300).for_each(|_| latency.record((scale * 20_000.0 * (1.0 + random.uniform())) as u64));
            StageSummary { count: latency.count(), buckets: latency.buckets(), ..StageSummary::default() }
        };
        let hits = (0..200)
            .filter(|&seed| {
                let p50 = ratio(&row(1.0, seed), &row(1.1, seed + 1000), 0.5, &mut Random(seed));
                p50.lo <= 1.1 && 1.1 <= p50.hi
            })
            .count();
        assert!((180..200).contains(&hits), "{hits} of 200");
    }

    #[test]
    fn gamma_has_the_right_moments() {
        for shape in [1.0, 2.5, 50.0] {
            let mut random = Random(7);
            let draws: Vec<f64> = (0..20_000).map(|_| random.gamma(shape)).collect();
            let mean = draws.iter().sum::<f64>() / 20_000.0;
            let var = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
            assert!(
                (mean / shape - 1.0).abs() < 0.04 && (var / shape - 1.0).abs() < 0.08,
                "{shape} {mean} {var}"
            );
        }
    }

    #[test]
    fn files_that_cannot_be_compared() {
        let good = run(1.0, 1, 10);
        assert!(matches!(compare("{", &good, 1.1), Err(CompareError::Json { which: "before", .. })));
        let other = good.replacen("\"schema\":1", "\"schema\":9", 1);
        assert!(matches!(
            compare(&good, &other, 1.1),
            Err(CompareError::Schema { which: "after", schema: 9 })
        ));
        let lie = good.replacen("\"count\":10", "\"count\":11", 1);
        assert!(matches!(compare(&good, &lie, 1.1), Err(CompareError::Count { count: 11, buckets: 10, .. })));
        let huge = good.replacen("\"count\":10", &format!("\"count\":{}", u64::MAX), 1);
        let first = &huge[huge.find("\"buckets\":[[").expect("buckets")..];
        let old = &first[..first.find("]]").expect("end")];
        let huge = huge.replacen(old, &format!("\"buckets\":[[1,{}],[2,5", u64::MAX), 1);
        assert_eq!(compare(&huge, &huge, 1.1).expect("counts agree").exit_code(), 0);
        let debug = good.replace("\"build\":\"debug\"", "\"build\":\"release\"");
        if debug != good {
            assert!(compare(&good, &debug, 1.1).expect("own form").warnings[0].contains("build differs"));
        }
    }
}
