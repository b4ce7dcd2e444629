//! The clock that inline devices stamp their measurements with.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::timing::clock::monotonic_ns;

/// Where an inline device takes the time from: the clock of the loop that reads it.
#[derive(Clone, Debug)]
pub enum TimeSource {
    /// CLOCK_MONOTONIC.
    Monotonic,
    /// Nanoseconds that the loop writes before it reads the device.
    Virtual(Arc<AtomicI64>),
}

impl TimeSource {
    /// Now, ns. Neither allocates nor blocks.
    pub fn now_ns(&self) -> i64 {
        match self {
            TimeSource::Monotonic => monotonic_ns(),
            TimeSource::Virtual(ns) => ns.load(Ordering::Acquire),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_agrees_with_the_standard_library() {
        let (a, before) = (TimeSource::Monotonic.now_ns(), std::time::Instant::now());
        std::thread::sleep(std::time::Duration::from_millis(5));
        let (passed, b) = (before.elapsed(), TimeSource::Monotonic.now_ns());
        assert!(b - a >= passed.as_nanos() as i64, "{} ns against {passed:?}", b - a);
    }

    #[test]
    fn virtual_time_is_what_the_loop_wrote() {
        let ns = Arc::new(AtomicI64::new(7));
        let time = TimeSource::Virtual(ns.clone());
        assert_eq!(time.now_ns(), 7);
        ns.store(2_000_007, Ordering::Release);
        assert_eq!(time.now_ns(), 2_000_007);
    }
}
