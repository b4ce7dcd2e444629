//! Speed of the engine against the physical floor of its memory traffic: `cargo bench -p cadenza-stl`.
//! Interleaved runs, the best of each; every row is a ratio of two figures of the same run.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cadenza_stl::{
    Formula, Instants, Monitor, MonitorOptions, Options, ParseOptions, Scalar, Semantics, Traces, Workspace,
    gradient, robustness_trace,
};

const F1: &str = "G[0,100](x>0)";
const F2: &str = "F[0,100](G[0,20](x>0))";
const F3: &str = "(x>0) U[0,100] (y>0)";
const F4: &str =
    "F[0,100](x>0 and G[0,20](y>0)) and G[0,200](x<2 or F[0,50](y>0.5)) and ((y>-3) U[0,100] (x>1))";

/// The signals of the specification's table: dyadic, so that every engine computes the same numbers.
fn signals<S: Scalar>(n: usize, t: usize) -> Vec<S> {
    let mut data = Vec::with_capacity(n * t * 2);
    for n in 0..n {
        for t in 0..t {
            let t = (t + 3 * n) as f64;
            let x = (64.0 * ((t / 37.0).sin() + 0.6 * (1.7 * t).sin() + 1.0)).round_ties_even() / 64.0;
            let y = (64.0 * ((t / 53.0).cos() + 0.5 * (2.3 * t).sin())).round_ties_even() / 64.0;
            data.extend([S::from_f64(x), S::from_f64(y)]);
        }
    }
    data
}

fn parse(text: &str) -> Formula {
    Formula::parse(text, &ParseOptions { signals: Some(&["x", "y"]), ..Default::default() })
        .expect("a formula")
}

fn time(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

/// Best time of each run, in ns per sample; the runs take turns.
fn best(rounds: usize, samples: usize, runs: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let mut best = vec![Duration::MAX; runs.len()];
    for _ in 0..rounds {
        for (best, run) in best.iter_mut().zip(runs.iter_mut()) {
            *best = (*best).min(time(&mut *run));
        }
    }
    best.iter().map(|b| b.as_secs_f64() * 1e9 / samples as f64).collect()
}

/// One row: a ratio and the bar it is held to.
fn row(name: &str, ratio: f64, bar: f64, at_most: bool) {
    let met = if (ratio <= bar) == at_most { "met" } else { "MISSED" };
    println!("  {name}: {ratio:.2}x, bar {} {bar}x: {met}", if at_most { "<=" } else { ">=" });
}

/// Reads x once and writes ρ once.
fn floor(data: &[f32], out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(data.as_chunks::<2>().0) {
        *o = x[0] + x[1];
    }
}

/// Robustness at every instant of a batch, ready to be called.
struct Batch<S> {
    formula: Formula,
    data: Vec<S>,
    shape: (usize, usize),
    options: Options,
    workspace: Workspace<S>,
    out: Vec<S>,
}

impl<S: Scalar> Batch<S> {
    fn new(text: &str, (n, t): (usize, usize), threads: usize) -> Self {
        Self {
            formula: parse(text),
            data: signals(n, t),
            shape: (n, t),
            options: Options { threads, ..Default::default() },
            workspace: Workspace::new(),
            out: vec![S::ZERO; n * t],
        }
    }

    fn run(&mut self) {
        let x = Traces { data: &self.data, n: self.shape.0, t: self.shape.1, d: 2, lengths: None };
        let out = black_box(&mut self.out[..]);
        robustness_trace(&self.formula, x, &[], &self.options, &mut self.workspace, out).expect("sizes fit");
    }
}

fn floor_rows() -> f64 {
    let mut small = 0.0;
    for (shape, bar) in [((256, 1000), 5.0), ((4096, 1000), 8.0)] {
        let samples = shape.0 * shape.1;
        let [mut f1, mut f3, mut f4] = [F1, F3, F4].map(|f| Batch::<f32>::new(f, shape, 1));
        let (data, mut out) = (f1.data.clone(), vec![0.0; samples]);
        let mut low = || floor(black_box(&data), black_box(&mut out));
        let ns = best(
            if shape.0 > 1000 { 5 } else { 15 },
            samples,
            &mut [&mut low, &mut || f1.run(), &mut || f3.run(), &mut || f4.run()],
        );
        println!(
            "{}x{} f32, ns/sample: floor {:.2}, F1 {:.2}, F3 {:.2}, F4 {:.2}",
            shape.0, shape.1, ns[0], ns[1], ns[2], ns[3]
        );
        row("F1 against the floor", ns[1] / ns[0], bar, true);
        if small == 0.0 {
            small = ns[0];
        }
    }
    small
}

/// One kernel on a warm tile of 16 traces: eight of them stacked, less the one below.
fn kernel_rows(floor: f64) {
    let shape = (16, 1000);
    let stack =
        |text: &dyn Fn(usize, String) -> String, count| (0..count).fold("(x>0)".into(), |f, i| text(i, f));
    let window = |i: usize, f: String| format!("{}[0,100]({f})", if i.is_multiple_of(2) { "G" } else { "F" });
    let until = |_: usize, f: String| format!("((x>0) U[0,100] ({f}))");
    let texts = [stack(&window, 1), stack(&window, 9), stack(&until, 1), stack(&until, 9)];
    let [mut g1, mut g9, mut u1, mut u9] = texts.map(|f| Batch::<f32>::new(&f, shape, 1));
    let ns = best(
        300,
        shape.0 * shape.1,
        &mut [&mut || g1.run(), &mut || g9.run(), &mut || u1.run(), &mut || u9.run()],
    );
    let (g, u) = ((ns[1] - ns[0]) / 8.0, (ns[3] - ns[2]) / 8.0);
    println!("kernels on a warm tile 16x1000 f32, ns/sample: G {g:.3}, until {u:.3}");
    row("G kernel against the floor of 256x1000", g / floor, 1.5, true);
    row("until kernel against the G kernel", u / g, 3.0, true);
}

fn thread_row() {
    let shape = (4096, 1000);
    let [mut one, mut two] = [1, 2].map(|threads| Batch::<f32>::new(F4, shape, threads));
    let ns = best(4, shape.0 * shape.1, &mut [&mut || one.run(), &mut || two.run()]);
    println!("F4 4096x1000 f32, ns/sample: 1 thread {:.2}, 2 threads {:.2}", ns[0], ns[1]);
    row("F4 with two threads (two idle cores)", ns[0] / ns[1], 1.6, false);
}

fn monitor(text: &str, interval: bool) -> Monitor<f64> {
    Monitor::new(&parse(text), &MonitorOptions { interval, ..Default::default() }).expect("bounded")
}

fn feed(m: &mut Monitor<f64>, data: &[f64]) {
    m.reset();
    for s in data.as_chunks::<2>().0 {
        black_box(m.update(s).expect("two signals"));
    }
}

fn stream_rows() {
    let t = 20_000;
    for (name, text) in [("F1", F1), ("F2", F2), ("F3", F3), ("F4", F4)] {
        let mut offline = Batch::<f64>::new(text, (1, t), 1);
        let data = offline.data.clone();
        let (mut delayed, mut interval) = (monitor(text, false), monitor(text, true));
        let ns = best(
            7,
            t,
            &mut [&mut || offline.run(), &mut || feed(&mut delayed, &data), &mut || {
                feed(&mut interval, &data)
            }],
        );
        println!(
            "{name} one trace f64, ns/sample: offline {:.2}, streaming {:.1}, with interval {:.1}",
            ns[0], ns[1], ns[2]
        );
        if name == "F1" {
            row("F1 streaming against offline", ns[1] / ns[0], 20.0, true);
        }
    }
}

/// Cost per sample as the window grows, and the worst single push (of 200,000, the best of three runs).
fn window_rows() {
    let t = 200_000;
    println!("cost per sample as the window grows, ns: offline, streaming, with interval; worst single push");
    let mut first = [0.0; 3];
    for width in [10, 100, 1_000, 10_000, 100_000] {
        let text = format!("G[0,{}](x>0)", width - 1);
        let mut offline = Batch::<f64>::new(&text, (1, t), 1);
        let data = offline.data.clone();
        let (mut delayed, mut interval) = (monitor(&text, false), monitor(&text, true));
        let ns = best(
            3,
            t,
            &mut [&mut || offline.run(), &mut || feed(&mut delayed, &data), &mut || {
                feed(&mut interval, &data)
            }],
        );
        let worst = (0..3).map(|_| {
            delayed.reset();
            let push = |s: &[f64; 2]| time(|| _ = black_box(delayed.update(s)));
            data.as_chunks::<2>().0.iter().map(push).max().unwrap_or_default()
        });
        let worst = worst.min().unwrap_or_default();
        println!("  G[0,{}]: {:.2}, {:.1}, {:.1}; {worst:?}", width - 1, ns[0], ns[1], ns[2]);
        if width == 10 {
            first.copy_from_slice(&ns);
        } else if width == 100_000 {
            for ((name, now), then) in ["offline", "streaming", "intervals"].iter().zip(&ns).zip(&first) {
                row(&format!("{name}, window 100000 against window 10"), now / then, 2.0, true);
            }
        }
    }
}

/// Forward and backward, and the smooth semantics, as the window grows.
fn gradient_rows() {
    let t = 1000;
    println!("one trace of 1000 f32, us: forward + backward of every instant; smooth forward; smooth both");
    let formulas = [F1, "G[0,10](x>0)", F3, "(x>0) U[0,10] (y>0)", F4];
    for text in formulas {
        let mut batch = Batch::<f32>::new(text, (1, t), 1);
        let (x, upstream) = (batch.data.clone(), vec![1.0; t]);
        let x = Traces { data: &x, n: 1, t, d: 2, lengths: None };
        let (mut w, mut dx) = (Workspace::new(), vec![0.0; 2 * t]);
        let f = batch.formula.clone();
        let mut back = |o: &Options| {
            gradient(&f, x, &[], Instants::Every, &upstream, o, &mut w, &mut dx, &mut []).expect("sizes fit");
        };
        let smooth = Options { semantics: Semantics::LogSumExp { beta: 10.0 }, ..Default::default() };
        let hard = best(20, 1, &mut [&mut || back(&Options::default())]);
        batch.options = smooth;
        let soft = best(5, 1, &mut [&mut || batch.run(), &mut || back(&smooth)]);
        println!("  {text}: {:.1}; {:.0}; {:.0}", hard[0] / 1e3, soft[0] / 1e3, soft[1] / 1e3);
    }
}

fn main() {
    let floor = floor_rows();
    kernel_rows(floor);
    thread_row();
    stream_rows();
    window_rows();
    gradient_rows();
}
