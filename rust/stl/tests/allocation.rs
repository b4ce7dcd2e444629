//! After construction a monitor never touches the heap, and neither does a warm offline call.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cadenza_stl::{
    At, Formula, Monitor, MonitorOptions, Options, ParseOptions, Semantics, Traces, Workspace, breakdown,
    node_values, robustness, robustness_trace,
};

struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    CALLS.with(|c| c.set(c.get() + 1));
}

// SAFETY: every call is passed on unchanged to the system allocator; the counter is a plain thread-local cell that
// needs no allocation itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's guarantees are those of the system allocator.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(f: impl FnOnce()) -> u64 {
    let before = CALLS.with(Cell::get);
    f();
    CALLS.with(Cell::get) - before
}

const FORMULA: &str = "F[0,20](x > $d and G[0,5](y>0)) and G[0,30](x<2 or F[0,10](y>0.5)) and ((y>-3) U[2,20] (x>1)) \
     and O(x>0) and (x>0 S y>0) and (x>0 S[1,9] y>0) and H[1,4](norm(x, y) > 0.1) and rise(x>0) and wX(y>0)";

fn sample(n: u32) -> [f64; 2] {
    let t = f64::from(n);
    [(t / 7.0).sin() + 0.3, if n == 50 { f64::NAN } else { (t / 5.0).cos() }]
}

#[test]
fn the_counter_counts() {
    assert!(allocations(|| drop(std::hint::black_box(vec![1_u8; 10]))) >= 2);
}

#[test]
fn monitor_never_allocates() {
    for (text, at) in
        [(FORMULA, At::Every), (FORMULA, At::Start), ("G(x > $d) and (x>0 U F[0,9] y>0)", At::Start)]
    {
        let f = Formula::parse(text, &ParseOptions::default()).unwrap();
        let o = MonitorOptions { at, ranges: vec![("x".into(), -5.0, 5.0)], ..Default::default() };
        let mut m = Monitor::<f64>::new(&f, &o).unwrap();
        let d = f.param("d").unwrap();
        let mut verdicts = 0;
        let calls = allocations(|| {
            for run in 0..2 {
                m.set_param(d, 0.1 * f64::from(run)).unwrap();
                for n in 0..150 {
                    verdicts += u32::from(m.update(&sample(n)).unwrap().closed.is_some());
                    m.pending(|_| ());
                }
                m.finish(|_| verdicts += 1);
                m.reset();
            }
        });
        assert_eq!(calls, 0, "{text}");
        assert!(verdicts >= 2);
    }
}

#[test]
fn warm_offline_calls_never_allocate() {
    let f = Formula::parse(&FORMULA.replace("$d", "0.1"), &ParseOptions::default()).unwrap();
    let (n, t) = (19, 200);
    let data: Vec<f64> = (0..n * t).flat_map(sample).collect();
    let x = Traces { data: &data, n: n as usize, t: t as usize, d: 2, lengths: None };
    let (o, mut w) = (Options::default(), Workspace::new());
    let mut all = vec![0.0; (n * t) as usize];
    let mut one = vec![0.0; n as usize];
    let mut parts = vec![0.0; n as usize * f.conjuncts().len()];
    let mut nodes = vec![0.0; f.nodes().len() * all.len()];
    for pass in 0..2 {
        let calls = allocations(|| {
            robustness_trace(&f, x, &[], &o, &mut w, &mut all).unwrap();
            robustness(&f, x, &[], 3, &o, &mut w, &mut one).unwrap();
            breakdown(&f, x, &[], 3, &o, &mut w, &mut parts).unwrap();
            node_values(&f, x, &[], &mut w, &mut nodes).unwrap();
            for semantics in [Semantics::LogSumExp { beta: 3.0 }, Semantics::Softmax { beta: 3.0 }] {
                let o = Options { semantics, ..o };
                robustness_trace(&f, x, &[], &o, &mut w, &mut all).unwrap();
            }
        });
        assert_eq!(calls == 0, pass == 1, "{calls} in pass {pass}");
    }
}
