//! What runs on the control thread does not allocate: the recorder's push, the statistics, the clocks.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cadenza_runtime::log::Recorder;
use cadenza_runtime::timing::clock::{Clock, MonotonicClock, VirtualClock, next_deadline};
use cadenza_runtime::timing::stats::Stats;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator; counting touches a thread-local cell that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 2);
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
        assert_eq!(allocations(|| common::push(&mut recorder, &mut stats, 20_000)), 0);
        assert_eq!(stats.ticks(), 20_000);
        let failed = recorder.failed();
        assert_eq!(allocations(|| assert_eq!(recorder.failed(), failed)), 0);
    }
}

#[test]
fn clocks_do_not_allocate() {
    let (mut real, mut simulated) = (MonotonicClock::new(50), VirtualClock::default());
    let count = allocations(|| {
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
