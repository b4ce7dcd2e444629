//! What runs on the control thread does not allocate: the recorder's push, the statistics, the clocks.

mod common;
mod counting;

use cadenza_runtime::log::Recorder;
use cadenza_runtime::timing::clock::{Clock, MonotonicClock, VirtualClock, next_deadline};
use cadenza_runtime::timing::stats::Stats;
use counting::calls_of;

#[test]
fn the_counter_counts() {
    assert_eq!(calls_of(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

#[test]
fn pushing_and_counting_do_not_allocate() {
    let dir = tempfile::tempdir().expect("temporary folder");
    // A file, a dead recorder, none at all; far more ticks than the statistics keep raw and than the ring holds.
    let full = std::path::Path::new("/dev/full");
    let path = dir.path().join("run.mcap");
    for recorder in [
        Recorder::start(&path, common::header(false)),
        Recorder::start(full, common::header(false)),
        Recorder::off(),
    ] {
        let (mut recorder, mut stats) = (recorder, Stats::new(common::PERIOD_NS));
        assert_eq!(calls_of(|| common::push(&mut recorder, &mut stats, 20_000)), 0);
        assert_eq!(stats.ticks(), 20_000);
        let failed = recorder.failed();
        assert_eq!(calls_of(|| assert_eq!(recorder.failed(), failed)), 0);
    }
}

#[test]
fn clocks_do_not_allocate() {
    let (mut real, mut simulated) = (MonotonicClock::new(50), VirtualClock::default());
    let count = calls_of(|| {
        let mut deadline = real.now_ns();
        for _ in 0..20 {
            deadline = next_deadline(deadline, real.now_ns(), 100_000).0;
            real.sleep_until(deadline);
            simulated.sleep_until(deadline);
        }
    });
    assert_eq!(count, 0);
    assert!(simulated.now_ns() > 0);
}
