//! For the binaries that must not call the heap: an allocator that counts the calls of each thread.

use cadenza_runtime::timing::usage::{Counting, heap_calls};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the heap that `work` makes on this thread.
pub(crate) fn calls_of(work: impl FnOnce()) -> u64 {
    let before = heap_calls();
    work();
    heap_calls() - before
}
