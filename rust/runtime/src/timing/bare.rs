//! How late would a loop wake that does nothing? The same thread, the same minutes, between the ticks of the real one.
//!
//! After every 64 sleeps of the loop a [`PairedClock`] stands still for 64 periods, in which it only sleeps from
//! deadline to deadline. The loop does not notice: its time and its deadlines move on by nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::clock::{Clock, MonotonicClock};
use super::stats::Latency;
use crate::device::TimeSource;

/// Ticks in a block.
const BLOCK: u32 = 64;

/// A clock whose time stops for a block of bare sleeps after each block of ticks.
#[derive(Debug)]
pub struct PairedClock<C = MonotonicClock> {
    inner: C,
    period_ns: i64,
    /// Sleeps of the loop in this block.
    slept: u32,
    /// Time spent in bare blocks, ns.
    stopped_ns: i64,
    shown_ns: Arc<AtomicI64>,
    lateness: Latency,
}

impl PairedClock {
    /// Over the monotonic clock, for a loop with this period.
    pub fn new(period_ns: i64, spin_us: u32) -> Self {
        Self::over(MonotonicClock::new(spin_us), period_ns)
    }
}

impl<C: Clock> PairedClock<C> {
    fn over(inner: C, period_ns: i64) -> Self {
        let shown_ns = Arc::new(AtomicI64::new(inner.now_ns()));
        Self { inner, period_ns, slept: 0, stopped_ns: 0, shown_ns, lateness: Latency::new() }
    }

    /// What a device of this loop takes its stamps from: the time that the loop read last.
    pub fn time_source(&self) -> TimeSource {
        TimeSource::Virtual(self.shown_ns.clone())
    }

    /// Wake lateness of the bare sleeps.
    pub fn lateness(&self) -> &Latency {
        &self.lateness
    }

    /// Sleeps one block of bare periods from `deadline_ns` of the inner clock on.
    fn bare_block(&mut self, deadline_ns: i64) {
        for i in 0..i64::from(BLOCK) {
            let deadline = deadline_ns + i * self.period_ns;
            self.inner.sleep_until(deadline);
            self.lateness.record((self.inner.now_ns() - deadline).unsigned_abs());
        }
        self.stopped_ns += i64::from(BLOCK) * self.period_ns;
    }
}

impl<C: Clock> Clock for PairedClock<C> {
    fn now_ns(&self) -> i64 {
        let now = self.inner.now_ns() - self.stopped_ns;
        self.shown_ns.store(now, Ordering::Release);
        now
    }

    fn sleep_until(&mut self, deadline_ns: i64) {
        if self.slept == BLOCK {
            self.slept = 0;
            self.bare_block(deadline_ns + self.stopped_ns);
        }
        self.slept += 1;
        self.inner.sleep_until(deadline_ns + self.stopped_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::clock::VirtualClock;

    #[test]
    fn the_loop_sees_an_even_grid_and_half_of_the_sleeps_are_bare() {
        let real = Arc::new(AtomicI64::new(5));
        let mut clock = PairedClock::over(VirtualClock::new(real.clone()), 10);
        let source = clock.time_source();
        for tick in 1..=320 {
            clock.sleep_until(5 + 10 * tick);
            assert_eq!(clock.now_ns(), 5 + 10 * tick, "tick {tick}");
            assert_eq!(source.now_ns(), 5 + 10 * tick);
        }
        assert_eq!(clock.lateness().count(), 4 * 64);
        assert_eq!(real.load(Ordering::Relaxed), 5 + 10 * (320 + 4 * 64));
    }

    #[test]
    fn bare_sleeps_are_late_by_what_the_inner_clock_is_late() {
        struct Late(i64);
        impl Clock for Late {
            fn now_ns(&self) -> i64 {
                self.0
            }
            fn sleep_until(&mut self, deadline_ns: i64) {
                self.0 = self.0.max(deadline_ns + 3);
            }
        }
        let mut clock = PairedClock::over(Late(0), 100);
        for tick in 1..=129 {
            clock.sleep_until(100 * tick);
            assert_eq!(clock.now_ns(), 100 * tick + 3);
        }
        assert_eq!((clock.lateness().count(), clock.lateness().min(), clock.lateness().max()), (128, 3, 3));
    }
}
