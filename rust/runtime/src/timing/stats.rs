//! Statistics of a run: one histogram for each stage, counters, the first and the worst ticks. Nothing here allocates
//! after [`Stats::new`].

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use hdrhistogram::Histogram;

use crate::log::entry::{Stage, TickEntry};
use crate::state::MAX_JOINTS;

/// Largest time that a histogram tells apart, ns (69 s); longer ones are counted at this value.
pub const MAX_NS: u64 = 1 << 36;
/// Ticks kept raw from the start.
pub const FIRST_TICKS: usize = 1000;
/// Ticks kept raw because they were the latest to finish.
pub const WORST_TICKS: usize = 256;

/// Times with three significant digits; count, minimum, maximum and mean are exact.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u32>,
    min: u64,
    max: u64,
    sum: u128,
    saturated: u64,
}

impl Latency {
    /// An empty histogram, its memory touched.
    pub fn new() -> Self {
        let mut histogram = Histogram::new_with_bounds(1, MAX_NS, 3).expect("constant bounds are valid");
        // Zeroed memory may come as untouched pages; clearing writes them.
        histogram.clear();
        Self { histogram, min: u64::MAX, max: 0, sum: 0, saturated: 0 }
    }

    /// Counts one time, ns. Does not allocate; above [`MAX_NS`] the bucket saturates, which is counted.
    pub fn record(&mut self, ns: u64) {
        self.saturated += u64::from(ns > MAX_NS);
        self.histogram.saturating_record(ns.min(MAX_NS));
        self.min = self.min.min(ns);
        self.max = self.max.max(ns);
        self.sum += u128::from(ns);
    }

    /// Adds every time of `other`.
    pub fn merge(&mut self, other: &Latency) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.saturated += other.saturated;
    }

    /// Number of times.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Smallest time, exact; 0 when there is none.
    pub fn min(&self) -> u64 {
        if self.count() == 0 { 0 } else { self.min }
    }

    /// Largest time, exact.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Mean, exact.
    pub fn mean(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.sum as f64 / self.count() as f64 }
    }

    /// Times above [`MAX_NS`].
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    /// The time that the fraction `q` of all times does not exceed: the upper edge of its bucket, but never more than
    /// the maximum. At most 0.1 % above the sample of rank ⌈q·count⌉.
    pub fn quantile(&self, q: f64) -> u64 {
        if self.count() == 0 { 0 } else { self.histogram.value_at_quantile(q).min(self.max) }
    }

    /// Buckets in use: upper edge in ns, count.
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        let recorded = self.histogram.iter_recorded();
        recorded
            .map(|b| {
                (self.histogram.highest_equivalent(b.value_iterated_to()), u64::from(b.count_at_value()))
            })
            .collect()
    }

    fn clear(&mut self) {
        self.histogram.clear();
        (self.min, self.max, self.sum, self.saturated) = (u64::MAX, 0, 0, 0);
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

/// Counters of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) ticks: u64,
    pub(crate) missed: u64,
    pub(crate) skipped: u64,
    pub(crate) inferred: u64,
    pub(crate) clamps: [u64; MAX_JOINTS],
    pub(crate) levels: [u64; 5],
    pub(crate) flows: [u64; 3],
}

impl Counters {
    const ZERO: Counters = Counters {
        ticks: 0,
        missed: 0,
        skipped: 0,
        inferred: 0,
        clamps: [0; MAX_JOINTS],
        levels: [0; 5],
        flows: [0; 3],
    };
}

/// A tick ordered by how long after its deadline it finished; the heap's top is the one that finished first.
#[derive(Clone, Copy, Debug)]
struct Worst(TickEntry);

impl Worst {
    fn finished_ns(&self) -> u64 {
        finished_ns(&self.0)
    }
}

/// Time from the deadline to the end of the tick.
pub(crate) fn finished_ns(tick: &TickEntry) -> u64 {
    u64::from(tick.stage_ns[Stage::Wake as usize]) + u64::from(tick.stage_ns[Stage::Total as usize])
}

impl PartialEq for Worst {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Worst {}
impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        // Reversed; of two equal ticks the later one leaves first.
        (other.finished_ns(), self.0.tick).cmp(&(self.finished_ns(), other.0.tick))
    }
}

/// Statistics of a run, fed one tick at a time on the control thread.
#[derive(Clone, Debug)]
pub struct Stats {
    pub(crate) period_ns: i64,
    pub(crate) stages: [Latency; Stage::COUNT],
    pub(crate) period_error: Latency,
    pub(crate) sensor_to_command: Latency,
    pub(crate) counters: Counters,
    pub(crate) first: Vec<TickEntry>,
    worst: BinaryHeap<Worst>,
    last_wake_ns: Option<i64>,
}

/// Stages between the receipt of a state and the return of the write that answers it.
const STATE_TO_WRITE: [Stage; 7] =
    [Stage::Observe, Stage::Infer, Stage::Sequence, Stage::Limit, Stage::Monitor, Stage::Gate, Stage::Write];

impl Stats {
    /// Empty statistics of a loop with this period. Allocates everything that will ever be needed (about 1.5 MB).
    pub fn new(period_ns: i64) -> Self {
        Self {
            period_ns,
            stages: std::array::from_fn(|_| Latency::new()),
            period_error: Latency::new(),
            sensor_to_command: Latency::new(),
            counters: Counters::ZERO,
            first: Vec::with_capacity(FIRST_TICKS),
            worst: BinaryHeap::with_capacity(WORST_TICKS),
            last_wake_ns: None,
        }
    }

    /// Counts one tick. Does not allocate.
    ///
    /// Every stage is counted on every tick, observation and inference only where the policy ran. The period error is
    /// |wake − previous wake − periods between their deadlines|; sensor → command is the state's age when the loop
    /// judged it plus the stages from there to the return of the write.
    pub fn add(&mut self, tick: &TickEntry) {
        for stage in Stage::ALL {
            if !matches!(stage, Stage::Observe | Stage::Infer) || tick.inferred {
                self.stages[stage as usize].record(tick.stage_ns[stage as usize].into());
            }
        }
        let wake = tick.deadline_ns.saturating_add(tick.stage_ns[Stage::Wake as usize].into());
        if let Some(last) = self.last_wake_ns {
            let due = self.period_ns.saturating_mul(1 + i64::from(tick.skipped));
            self.period_error.record(wake.saturating_sub(last).saturating_sub(due).unsigned_abs());
        }
        self.last_wake_ns = Some(wake);
        let work: u64 = STATE_TO_WRITE.iter().map(|&stage| u64::from(tick.stage_ns[stage as usize])).sum();
        self.sensor_to_command.record(u64::try_from(tick.age_ns).unwrap_or(0) + work);

        let counters = &mut self.counters;
        counters.ticks += 1;
        counters.missed += u64::from(tick.skipped > 0);
        counters.skipped += u64::from(tick.skipped);
        counters.inferred += u64::from(tick.inferred);
        counters.levels[tick.level as usize] += 1;
        counters.flows[tick.flow as usize] += 1;
        let mut clamped = tick.clamped;
        while clamped != 0 {
            counters.clamps[clamped.trailing_zeros() as usize] += 1;
            clamped &= clamped - 1;
        }

        if self.first.len() < FIRST_TICKS {
            self.first.push(*tick);
        }
        if self.worst.len() < WORST_TICKS {
            self.worst.push(Worst(*tick));
        } else if let Some(mut top) = self.worst.peek_mut()
            && finished_ns(tick) > top.finished_ns()
        {
            *top = Worst(*tick);
        }
    }

    /// Forgets everything, when the warm-up ends. Writes 1.5 MB: not for a running loop.
    pub fn reset(&mut self) {
        for latency in self.stages.iter_mut().chain([&mut self.period_error, &mut self.sensor_to_command]) {
            latency.clear();
        }
        self.counters = Counters::ZERO;
        self.first.clear();
        self.worst.clear();
        self.last_wake_ns = None;
    }

    /// Adds the times and counters of another run; the raw ticks stay those of this one, the worst are the worst of both.
    pub fn merge(&mut self, other: &Stats) {
        for (mine, theirs) in self.stages.iter_mut().zip(&other.stages) {
            mine.merge(theirs);
        }
        self.period_error.merge(&other.period_error);
        self.sensor_to_command.merge(&other.sensor_to_command);
        let (a, b) = (&mut self.counters, &other.counters);
        a.ticks += b.ticks;
        a.missed += b.missed;
        a.skipped += b.skipped;
        a.inferred += b.inferred;
        add(&mut a.clamps, &b.clamps);
        add(&mut a.levels, &b.levels);
        add(&mut a.flows, &b.flows);
        self.worst.extend(other.worst.iter().copied());
        while self.worst.len() > WORST_TICKS {
            self.worst.pop();
        }
    }

    /// Times of one stage.
    pub fn stage(&self, stage: Stage) -> &Latency {
        &self.stages[stage as usize]
    }

    /// Ticks so far.
    pub fn ticks(&self) -> u64 {
        self.counters.ticks
    }

    /// Ticks that came after at least one skipped period.
    pub fn missed(&self) -> u64 {
        self.counters.missed
    }

    /// The worst ticks, the latest to finish first.
    pub fn worst(&self) -> Vec<TickEntry> {
        let mut worst: Vec<Worst> = self.worst.iter().copied().collect();
        worst.sort();
        worst.into_iter().map(|w| w.0).collect()
    }
}

fn add(a: &mut [u64], b: &[u64]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::action::Flow;
    use crate::safety::{Level, Phase};
    use proptest::prelude::*;

    /// A tick of a 2 ms loop.
    pub(crate) fn tick(tick: u64, wake: u32, total: u32) -> TickEntry {
        let mut stage_ns = [0; Stage::COUNT];
        (stage_ns[Stage::Wake as usize], stage_ns[Stage::Total as usize]) = (wake, total);
        TickEntry {
            tick,
            deadline_ns: tick as i64 * 2_000_000,
            stage_ns,
            skipped: 0,
            inferred: tick.is_multiple_of(10),
            flow: Flow::Run,
            level: Level::Run,
            phase: Phase::Armed,
            clamped: 0,
            authority: 1.0,
            age_ns: 1000,
        }
    }

    proptest! {
        #[test]
        fn quantiles_are_the_sorted_samples_rounded_up(mut times in prop::collection::vec(0u64..1 << 37, 1..400)) {
            let mut latency = Latency::new();
            times.iter().for_each(|&t| latency.record(t));
            times.sort_unstable();
            prop_assert_eq!((latency.min(), latency.max()), (times[0], times[times.len() - 1]));
            prop_assert_eq!(latency.count(), times.len() as u64);
            prop_assert_eq!(latency.saturated(), times.iter().filter(|&&t| t > MAX_NS).count() as u64);
            let mean = times.iter().map(|&t| t as f64).sum::<f64>() / times.len() as f64;
            prop_assert!((latency.mean() - mean).abs() <= 1e-9 * mean);
            for q in [0.5, 0.9, 0.99, 0.999, 1.0] {
                let rank = ((q * times.len() as f64).ceil() as usize).max(1);
                let sample = times[rank - 1].min(MAX_NS);
                let got = latency.quantile(q);
                prop_assert!(got >= sample && got as f64 <= sample as f64 * 1.001 + 1.0, "{} {} {}", q, got, sample);
            }
            let buckets = latency.buckets();
            prop_assert_eq!(buckets.iter().map(|b| b.1).sum::<u64>(), times.len() as u64);
            prop_assert!(buckets.is_sorted());
        }

        #[test]
        fn merging_is_adding(a in prop::collection::vec(0u32..u32::MAX, 0..300), b in prop::collection::vec(0u32..u32::MAX, 0..300)) {
            let mut all = Stats::new(2_000_000);
            let (mut one, mut two) = (all.clone(), all.clone());
            for (i, &t) in a.iter().enumerate() { one.add(&tick(i as u64, t / 2, t)); all.add(&tick(i as u64, t / 2, t)); }
            all.last_wake_ns = None;
            for (i, &t) in b.iter().enumerate() { two.add(&tick(i as u64, t, t / 3)); all.add(&tick(i as u64, t, t / 3)); }
            one.merge(&two);
            for stage in Stage::ALL {
                prop_assert_eq!(one.stage(stage).buckets(), all.stage(stage).buckets());
                prop_assert_eq!(one.stage(stage).max(), all.stage(stage).max());
            }
            prop_assert_eq!(one.period_error.buckets(), all.period_error.buckets());
            prop_assert_eq!(&one.counters, &all.counters);
            let times = |s: &Stats| s.worst().iter().map(finished_ns).collect::<Vec<_>>();
            prop_assert_eq!(times(&one), times(&all));
            let mut sorted: Vec<u64> = a.iter().map(|&t| u64::from(t / 2) + u64::from(t)).collect();
            sorted.extend(b.iter().map(|&t| u64::from(t) + u64::from(t / 3)));
            sorted.sort_unstable_by(|x, y| y.cmp(x));
            sorted.truncate(WORST_TICKS);
            prop_assert_eq!(times(&all), sorted);
        }
    }

    #[test]
    fn counts_are_exact() {
        let mut stats = Stats::new(2_000_000);
        let mut t = 0;
        for i in 0..1500u64 {
            let mut entry = tick(t, 100, 5000);
            entry.skipped = if i % 100 == 99 { 3 } else { 0 };
            entry.deadline_ns += i64::from(entry.skipped) * 2_000_000;
            t += 1 + u64::from(entry.skipped);
            entry.clamped = (1 << 63) | 1;
            stats.add(&entry);
        }
        assert_eq!((stats.ticks(), stats.missed(), stats.counters.skipped), (1500, 15, 45));
        assert_eq!(
            (stats.counters.clamps[0], stats.counters.clamps[1], stats.counters.clamps[63]),
            (1500, 0, 1500)
        );
        assert_eq!((stats.first.len(), stats.worst().len()), (FIRST_TICKS, WORST_TICKS));
        assert_eq!(stats.stage(Stage::Infer).count(), stats.counters.inferred);
        assert_eq!(stats.sensor_to_command.max(), 1000);
        stats.reset();
        assert_eq!((stats.ticks(), stats.stage(Stage::Total).count(), stats.first.len()), (0, 0, 0));
    }

    #[test]
    fn the_period_error_allows_for_skipped_periods() {
        let mut stats = Stats::new(2_000_000);
        stats.add(&tick(0, 10_000, 1));
        stats.add(&tick(1, 13_000, 1));
        let mut late = tick(4, 9_000, 1);
        late.skipped = 2;
        stats.add(&late);
        assert_eq!(
            (stats.period_error.min(), stats.period_error.max(), stats.period_error.count()),
            (3000, 4000, 2)
        );
    }
}
