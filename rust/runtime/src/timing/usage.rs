//! What a thread has used of the machine: calls of the heap, context switches, page faults.
//!
//! The kernel counts switches and faults for each thread anyway. The heap is counted by [`Counting`], where a program has
//! made it its allocator; both command lines do. System calls cannot be counted from inside: tracing them would slow the
//! loop that is measured.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use serde::{Deserialize, Serialize};

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with the calls of each thread counted.
pub struct Counting;

fn count() {
    // The thread may be past its own end; nobody counts there.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is a thread-local `Cell` without destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(p, layout) }
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(p, layout, size) }
    }
}

/// Calls of the heap, to take or to give back, that this thread has made; 0 in a program whose allocator does not count.
pub fn heap_calls() -> u64 {
    CALLS.get()
}

/// Whether this program's allocator counts.
fn counts() -> bool {
    let before = heap_calls();
    drop(std::hint::black_box(Box::new(0u8)));
    heap_calls() > before
}

/// What a thread has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Calls of the heap by Rust code; absent where the program's allocator does not count.
    pub heap_calls: Option<u64>,
    /// Context switches because the thread waited: for its next tick, or for a device.
    pub waits: u64,
    /// Context switches because the scheduler gave its core to another thread.
    pub preemptions: u64,
    /// Pages that were mapped on first touch.
    pub minor_faults: u64,
    /// Pages that were read from a disk.
    pub major_faults: u64,
}

impl Usage {
    /// What the calling thread has used since it began; `None` where the kernel does not say.
    pub fn of_this_thread() -> Option<Self> {
        let heap_calls = counts().then(heap_calls);
        // SAFETY: all zeros are a valid `rusage`.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is ours for the whole call.
        if unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) } != 0 {
            return None;
        }
        let of = |count: libc::c_long| u64::try_from(count).unwrap_or(0);
        Some(Self {
            heap_calls,
            waits: of(usage.ru_nvcsw),
            preemptions: of(usage.ru_nivcsw),
            minor_faults: of(usage.ru_minflt),
            major_faults: of(usage.ru_majflt),
        })
    }

    /// What was used between `before` and this.
    pub fn since(&self, before: &Self) -> Self {
        let calls = |usage: &Self| usage.heap_calls;
        Self {
            heap_calls: calls(self).zip(calls(before)).map(|(now, then)| now - then - COUNTED),
            waits: self.waits - before.waits,
            preemptions: self.preemptions - before.preemptions,
            minor_faults: self.minor_faults - before.minor_faults,
            major_faults: self.major_faults - before.major_faults,
        }
    }
}

/// Calls that [`counts`] makes itself to see whether they are counted.
const COUNTED: u64 = 2;

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.heap_calls {
            Some(calls) => write!(f, "heap calls {calls}")?,
            None => f.write_str("heap calls not counted")?,
        }
        let Self { waits, preemptions, minor_faults, major_faults, .. } = self;
        write!(f, " · waits {waits} · preemptions {preemptions} · page faults {minor_faults}")?;
        if *major_faults > 0 {
            write!(f, " and {major_faults} from disk")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_and_page_faults_are_those_of_the_thread() {
        let before = Usage::of_this_thread().expect("Linux counts");
        (0..5).for_each(|_| std::thread::sleep(std::time::Duration::from_millis(2)));
        let pages = std::hint::black_box(vec![1u8; 64 << 20]);
        let used = Usage::of_this_thread().expect("Linux counts").since(&before);
        assert!(used.waits >= 5 && used.minor_faults >= 20, "{used:?}, {} bytes", pages.len());
        assert_eq!(used.heap_calls, None, "the allocator of this program does not count");
        assert!(used.to_string().starts_with("heap calls not counted · waits "), "{used}");
    }
}
