//! Nothing allocates inside a tick. Its own binary, because it counts every heap operation of the process.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cadenza_policy::manifest::Weights;
use cadenza_policy::{Bundle, Options, Policy, Session};
use common::{golden, layers, lazy, plain, recorded};

/// Counts the heap operations of the threads that ask for it.
struct Counting;

thread_local! {
    static COUNT: Cell<Option<usize>> = const { Cell::new(None) };
}

fn count() {
    COUNT.with(|c| c.set(c.get().map(|n| n + 1)));
}

// SAFETY: every call is passed on to the system allocator unchanged; counting touches only a constant-initialised
// thread-local cell, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(p, layout) }
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(p, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Heap operations of `f` on this thread.
fn counted(f: impl FnOnce()) -> usize {
    COUNT.with(|c| c.set(Some(0)));
    f();
    COUNT.with(|c| c.take()).unwrap_or(0)
}

#[test]
fn the_counter_counts() {
    assert!(counted(|| drop(std::hint::black_box(vec![1, 2, 3]))) >= 2);
}

const FORMATS: [Weights; 2] = [Weights::F32, Weights::Int8];

fn load(bundle: &Bundle, weights: Weights) -> Policy {
    let mut options = Options::default();
    options.weights = Some(weights);
    Policy::load(bundle, &options).unwrap()
}

#[test]
fn a_thousand_ticks_allocate_nothing() {
    let plain = ["mlp_relu", "mlp_softplus", "mlp_gelu", "mlp_norm", "symphony", "encoder_18", "mask_23"];
    let plain = plain.map(|n| (n, self::plain(n)));
    let recurrent = [("gru_opset11", &["h"][..]), ("lstm", &["h", "c"])].map(|(n, s)| (n, layers(n, s)));
    let all = plain.into_iter().chain(recurrent);
    for ((name, bundle), weights) in all.flat_map(|net| FORMATS.map(|w| (net.clone(), w))) {
        let (inputs, outputs) = recorded(name);
        let mut policy = load(&bundle, weights);
        let mut out = vec![0.0; outputs[0]["action"].len()];
        let bad = vec![f32::NAN; inputs[0]["obs"].len()];
        let huge = vec![f32::MAX; inputs[0]["obs"].len()];
        let (mut good, mut refused) = (0, 0);
        let heap = counted(|| {
            for k in 0..1000 {
                policy.reset();
                good += usize::from(policy.act(&inputs[k % inputs.len()]["obs"], &[], &mut out).is_ok());
                refused += usize::from(policy.act(&bad, &[], &mut out).is_err());
                refused += usize::from(policy.act(&bad[1..], &[], &mut out).is_err());
                refused += usize::from(policy.begin(&bad).is_err());
                refused += usize::from(policy.next(&bad, &mut out).is_err());
                // May or may not overflow inside.
                let _ = policy.act(&huge, &[], &mut out);
            }
        });
        assert_eq!((heap, good, refused), (0, 1000, 4000), "{name} {weights:?}");
    }
}

#[test]
fn a_diffusion_step_allocates_nothing() {
    let (inputs, _) = recorded("unet");
    let mut net = Session::from_onnx(&golden("unet.onnx"), 1, &Options::default()).unwrap();
    let names = ["sample", "step", "condition"];
    let (mut good, mut refused) = (0, 0);
    let heap = counted(|| {
        for k in 0..200 {
            for (port, name) in names.into_iter().enumerate() {
                net.input_mut(port).copy_from_slice(&inputs[k % inputs.len()][name]);
            }
            good += usize::from(net.run().is_ok());
            net.input_mut(0)[3] = f32::NAN;
            refused += usize::from(net.run().is_err());
        }
    });
    assert_eq!((heap, good, refused), (0, 200, 200));
}

#[test]
fn lazy_sequences_allocate_nothing() {
    FORMATS.into_iter().for_each(lazy_sequences);
}

fn lazy_sequences(weights: Weights) {
    let mut policy = load(&lazy(), weights);
    let (obs, bad, mut out) = ([0.5; 16], [f32::NAN; 16], [0.0; 6]);
    let (mut good, mut refused) = (0, 0);
    let heap = counted(|| {
        for _ in 0..1000 {
            policy.reset();
            refused += usize::from(policy.next(&obs[..6], &mut out).is_err());
            refused += usize::from(policy.begin(&bad).is_err());
            good += usize::from(policy.begin(&obs).is_ok());
            for _ in 0..4 {
                let previous = out;
                good += usize::from(policy.next(&previous, &mut out).is_ok());
            }
            refused += usize::from(policy.next(&bad[..6], &mut out).is_err());
            refused += usize::from(policy.act(&obs, &[], &mut out).is_err());
        }
    });
    assert_eq!((heap, good, refused), (0, 5000, 4000));
}
