//! The gate and the monitors allocate nothing once they are built; a counting allocator watches, in a binary of its own.

mod safety_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cadenza_runtime::safety::{Level, Reason};
use safety_support::*;

thread_local!(static ALLOCATIONS: Cell<usize> = const { Cell::new(0) });

struct Counting;

// SAFETY: every call is handed to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's contract is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System.alloc` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(f: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn the_gate_allocates_nothing_from_arming_to_damping() {
    let mut rig = Rig::new(&robot(7));
    let mut faults = 0;
    let used = allocations(|| {
        rig.arm();
        for tick in 0..20_000 {
            rig.target[tick % 7] = if tick % 200 < 100 { 1.2 } else { -0.8 };
            match tick {
                5_000 => rig.report(Reason::PolicyLate),
                5_010 => rig.gate.policy_answered(),
                15_000 => rig.follower.p[0] -= 0.05,
                _ => {}
            }
            rig.tick();
            rig.gate.drain_faults(|_| faults += 1);
        }
    });
    assert_eq!((used, rig.gate.level(), faults), (0, Level::Damp, 2));
}
