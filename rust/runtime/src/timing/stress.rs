//! Trouble made on purpose while the loop is measured: busy threads, and memory that pushes the loop's own out of the
//! caches.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;

use super::clock::{Clock, MonotonicClock};
use crate::device::TimeSource;

/// Most busy threads.
pub const MAX_THREADS: usize = 1024;
/// Most memory to touch between two ticks, bytes.
pub const MAX_BYTES: usize = 4 << 30;
/// Step from one touched byte to the next: a cache line.
const LINE: usize = 64;

/// Threads of the ordinary class that compute until this is dropped.
#[derive(Debug)]
pub struct BusyThreads {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl BusyThreads {
    /// Starts `n` threads, at most [`MAX_THREADS`].
    ///
    /// # Errors
    /// The operating system starts no more of them.
    pub fn start(n: usize) -> std::io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let mut busy = Self { over, threads: Vec::with_capacity(n.min(MAX_THREADS)) };
        for _ in 0..n.min(MAX_THREADS) {
            let over = busy.over.clone();
            let work = move || {
                let mut x = 1_u64;
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..4096 {
                        x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                    }
                }
            };
            busy.threads.push(std::thread::Builder::new().name("cadenza-busy".into()).spawn(work)?);
        }
        Ok(busy)
    }
}

impl Drop for BusyThreads {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Memory that pushes everything else out of the caches when it is touched.
#[derive(Debug)]
pub struct Eviction(Vec<u8>);

impl Eviction {
    /// So many bytes, every page touched.
    ///
    /// # Errors
    /// The memory is not there.
    pub fn new(bytes: usize) -> Result<Self, std::collections::TryReserveError> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(bytes)?;
        memory.resize(bytes, 1);
        Ok(Self(memory))
    }

    /// Writes to every cache line once.
    fn touch(&mut self) {
        for byte in self.0.iter_mut().step_by(LINE) {
            *byte = byte.wrapping_add(1);
        }
        black_box(&self.0);
    }
}

/// A clock that touches memory before every sleep. Where that takes longer than the time to the deadline, the loop's time
/// stands still for whole periods, so that a cold tick is late by what the machine is late and by nothing else.
#[derive(Debug)]
pub struct ColdClock<C = MonotonicClock> {
    inner: C,
    eviction: Eviction,
    period_ns: i64,
    stopped_ns: i64,
    shown_ns: Arc<AtomicI64>,
}

impl ColdClock {
    /// Over the monotonic clock, for a loop with this period.
    pub fn new(period_ns: i64, spin_us: u32, eviction: Eviction) -> Self {
        Self::over(MonotonicClock::new(spin_us), period_ns, eviction)
    }
}

impl<C: Clock> ColdClock<C> {
    fn over(inner: C, period_ns: i64, eviction: Eviction) -> Self {
        let shown_ns = Arc::new(AtomicI64::new(inner.now_ns()));
        Self { inner, eviction, period_ns, stopped_ns: 0, shown_ns }
    }

    /// What a device of this loop takes its stamps from: the time that the loop read last.
    pub fn time_source(&self) -> TimeSource {
        TimeSource::Virtual(self.shown_ns.clone())
    }
}

/// How long the loop's time stands still for a touching from `before` to `now`, when its next tick is due at `due`.
fn standstill(period_ns: i64, before: i64, now: i64, due: i64) -> i64 {
    if before >= due {
        // Late already: it stays exactly as late.
        return now - before;
    }
    // A quarter of a period of sleep remains, so that the wake-up is one.
    let over = (now + period_ns / 4 - due).max(0);
    (over + period_ns - 1) / period_ns * period_ns
}

impl<C: Clock> Clock for ColdClock<C> {
    fn now_ns(&self) -> i64 {
        let now = self.inner.now_ns() - self.stopped_ns;
        self.shown_ns.store(now, Ordering::Release);
        now
    }

    fn sleep_until(&mut self, deadline_ns: i64) {
        let before = self.inner.now_ns();
        self.eviction.touch();
        let (now, due) = (self.inner.now_ns(), deadline_ns + self.stopped_ns);
        self.stopped_ns += standstill(self.period_ns, before, now, due);
        self.inner.sleep_until(deadline_ns + self.stopped_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::clock::VirtualClock;

    #[test]
    fn the_loops_time_stands_still_for_whole_periods_or_for_the_touching() {
        // Ample time, too little for a quarter of a period of sleep, several periods, late by 30 before.
        let cases = [((0, 70, 100), 0), ((0, 80, 100), 100), ((0, 475, 100), 400), ((0, 476, 100), 500)];
        for ((before, now, due), stopped) in cases {
            assert_eq!(standstill(100, before, now, due), stopped, "{before} {now} {due}");
        }
        assert_eq!(standstill(100, 130, 999, 100), 869);
    }

    #[test]
    fn a_cold_loop_sees_an_even_grid() {
        let real = Arc::new(AtomicI64::new(5));
        let eviction = Eviction::new(1 << 12).expect("4 KiB");
        let mut clock = ColdClock::over(VirtualClock::new(real), 10, eviction);
        let source = clock.time_source();
        for tick in 1..=50 {
            clock.sleep_until(5 + 10 * tick);
            assert_eq!(clock.now_ns(), 5 + 10 * tick, "tick {tick}");
            assert_eq!(source.now_ns(), 5 + 10 * tick);
        }
        assert!(clock.eviction.0.iter().step_by(LINE).all(|&byte| byte == 51), "touched before each tick");
    }

    #[test]
    fn every_line_is_written_at_each_touch() {
        let mut eviction = Eviction::new(256).expect("256 bytes");
        eviction.touch();
        eviction.touch();
        let lines: Vec<u8> = eviction.0.iter().copied().step_by(LINE).collect();
        assert_eq!((lines, eviction.0[1]), (vec![3; 4], 1));
    }

    #[test]
    fn busy_threads_end_with_their_owner() {
        let busy = BusyThreads::start(2).expect("two threads");
        let over = busy.over.clone();
        assert_eq!(busy.threads.len(), 2);
        drop(busy);
        assert!(over.load(Ordering::Relaxed) && Arc::strong_count(&over) == 1);
    }
}
