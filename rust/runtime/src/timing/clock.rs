//! The clocks of the loop, and its deadlines on a fixed grid.
//!
//! Deadlines are absolute. A late tick never shifts the ones after it: [`next_deadline`] jumps to the next grid point
//! that is still ahead and counts what it jumped over.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A clock that the loop reads and sleeps on. Neither call allocates.
pub trait Clock {
    /// Time now, ns. Never decreases.
    fn now_ns(&self) -> i64;
    /// Returns at `deadline_ns` or later, never earlier; at once when it has passed.
    fn sleep_until(&mut self, deadline_ns: i64);
}

/// `CLOCK_MONOTONIC`: sleeps to `deadline − spin`, then spins.
#[derive(Clone, Debug)]
pub struct MonotonicClock {
    spin_ns: i64,
}

/// Longest time that a spin holds the core before it sleeps for 1 µs, so that the kernel's real-time throttle
/// (950 ms of each second by default) never takes the core away in the middle of a tick.
const SPIN_SLICE_NS: i64 = 1_000_000;

impl MonotonicClock {
    /// A clock that spins for the last `spin_us` microseconds before each deadline; 0 only sleeps.
    pub fn new(spin_us: u32) -> Self {
        Self { spin_ns: i64::from(spin_us) * 1000 }
    }
}

impl Clock for MonotonicClock {
    fn now_ns(&self) -> i64 {
        monotonic_ns()
    }

    fn sleep_until(&mut self, deadline_ns: i64) {
        sleep_absolute(deadline_ns.saturating_sub(self.spin_ns));
        let mut slice = now(libc::CLOCK_MONOTONIC);
        loop {
            let t = now(libc::CLOCK_MONOTONIC);
            if t >= deadline_ns {
                return;
            }
            if t - slice >= SPIN_SLICE_NS {
                sleep_absolute(t + 1000);
                slice = now(libc::CLOCK_MONOTONIC);
            }
            std::hint::spin_loop();
        }
    }
}

/// A clock that moves exactly to each deadline, without sleeping: the same run takes the same time on any machine.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock {
    now_ns: Arc<AtomicI64>,
}

impl VirtualClock {
    /// The clock behind `now_ns`, which devices read as [`TimeSource::Virtual`](crate::device::TimeSource).
    pub fn new(now_ns: Arc<AtomicI64>) -> Self {
        Self { now_ns }
    }
}

impl Clock for VirtualClock {
    fn now_ns(&self) -> i64 {
        self.now_ns.load(Ordering::Acquire)
    }

    fn sleep_until(&mut self, deadline_ns: i64) {
        self.now_ns.fetch_max(deadline_ns, Ordering::AcqRel);
    }
}

/// The deadline after `deadline_ns` on the grid of `period_ns`, and the number of grid points skipped because they have
/// passed at `now_ns`. A grid point that is exactly now is not skipped.
///
/// # Panics
/// When `period_ns` is not positive: a rate of 0 never reaches the loop.
pub fn next_deadline(deadline_ns: i64, now_ns: i64, period_ns: i64) -> (i64, u32) {
    assert!(period_ns > 0, "period {period_ns} ns");
    let next = deadline_ns.saturating_add(period_ns);
    if next >= now_ns {
        return (next, 0);
    }
    let late = i128::from(now_ns) - i128::from(next);
    let period = i128::from(period_ns);
    let skipped = (late + period - 1) / period;
    let ahead = i128::from(next) + skipped * period;
    (i64::try_from(ahead).unwrap_or(i64::MAX), u32::try_from(skipped).unwrap_or(u32::MAX))
}

/// Time of `CLOCK_MONOTONIC`, ns. Neither allocates nor blocks.
pub fn monotonic_ns() -> i64 {
    now(libc::CLOCK_MONOTONIC)
}

/// Length of a control period, ns.
pub fn period_ns(hz: f64) -> i64 {
    (1e9 / hz).round() as i64
}

/// Nanoseconds to add to `CLOCK_MONOTONIC` to get UTC, measured now. Taken once per log, so a step of the wall clock
/// never bends the time axis of a run.
pub fn monotonic_to_utc_ns() -> i64 {
    let before = now(libc::CLOCK_MONOTONIC);
    let utc = now(libc::CLOCK_REALTIME);
    let after = now(libc::CLOCK_MONOTONIC);
    utc - (before + (after - before) / 2)
}

fn now(clock: libc::clockid_t) -> i64 {
    let mut t = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `t` is valid for one timespec; the call cannot fail for the two clocks used here.
    let t = unsafe {
        libc::clock_gettime(clock, t.as_mut_ptr());
        t.assume_init()
    };
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

fn sleep_absolute(deadline_ns: i64) {
    if deadline_ns <= 0 {
        return;
    }
    let t = libc::timespec {
        tv_sec: (deadline_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (deadline_ns % 1_000_000_000) as _,
    };
    // SAFETY: `t` is a normalised timespec and outlives the call; an absolute sleep has no remainder to return.
    while unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &t, std::ptr::null_mut())
    } == libc::EINTR
    {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn deadlines_stay_on_the_grid(start in 0i64..1_000_000, period in 1i64..50_000, late in -60_000i64..5_000_000) {
            let now = start + late;
            let (next, skipped) = next_deadline(start, now, period);
            prop_assert_eq!((next - start) % period, 0);
            prop_assert!(next > start && next >= now);
            prop_assert_eq!((next - start) / period, i64::from(skipped) + 1);
            // The grid point before is either this tick's own or already past.
            prop_assert!(next - period == start || next - period < now);
        }

        #[test]
        fn a_run_covers_every_grid_point_once(works in prop::collection::vec(0i64..35, 1..200)) {
            let (period, mut clock, mut deadline, mut ticks, mut skips) = (10, VirtualClock::default(), 10, 0i64, 0i64);
            for work in works {
                clock.sleep_until(deadline);
                ticks += 1;
                let end = clock.now_ns() + work;
                clock.sleep_until(end);
                let (next, skipped) = next_deadline(deadline, clock.now_ns(), period);
                skips += i64::from(skipped);
                deadline = next;
            }
            prop_assert_eq!(deadline, 10 + (ticks + skips) * period);
        }
    }

    #[test]
    fn exact_counts() {
        assert_eq!(next_deadline(100, 105, 10), (110, 0));
        assert_eq!(next_deadline(100, 110, 10), (110, 0));
        assert_eq!(next_deadline(100, 111, 10), (120, 1));
        assert_eq!(next_deadline(100, 151, 10), (160, 5));
        assert_eq!(next_deadline(i64::MAX - 1, i64::MAX, 10), (i64::MAX, 0));
    }

    #[test]
    fn the_monotonic_clock_never_wakes_early() {
        for spin_us in [0, 100, 3000] {
            let mut clock = MonotonicClock::new(spin_us);
            let mut deadline = clock.now_ns();
            for _ in 0..5 {
                deadline += 2_000_000;
                clock.sleep_until(deadline);
                assert!(clock.now_ns() >= deadline);
            }
            let before = clock.now_ns();
            clock.sleep_until(before - 1_000_000_000);
            assert!(clock.now_ns() >= before);
        }
    }

    #[test]
    fn the_virtual_clock_moves_exactly() {
        let mut clock = VirtualClock::default();
        clock.sleep_until(2_000_000);
        assert_eq!(clock.now_ns(), 2_000_000);
        clock.sleep_until(1_000_000);
        assert_eq!(clock.now_ns(), 2_000_000);
    }
}
