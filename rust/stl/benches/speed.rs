//! Speed of the engine against the physical floor of its memory traffic: `cargo bench -p cadenza-stl`.
//! Interleaved runs, the best of each.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cadenza_stl::{
    Formula, Monitor, MonitorOptions, Options, ParseOptions, Scalar, Traces, Workspace, robustness_trace,
};

const F1: &str = "G[0,100](x>0)";
const F3: &str = "(x>0) U[0,100] (y>0)";
const F4: &str =
    "F[0,100](x>0 and G[0,20](y>0)) and G[0,200](x<2 or F[0,50](y>0.5)) and ((y>-3) U[0,100] (x>1))";

fn signals(n: usize, t: usize) -> Vec<f32> {
    let mut data = Vec::with_capacity(n * t * 2);
    for n in 0..n {
        for t in 0..t {
            let t = (t + 3 * n) as f64;
            data.push(
                ((64.0 * ((t / 37.0).sin() + 0.6 * (1.7 * t).sin() + 1.0)).round_ties_even() / 64.0) as f32,
            );
            data.push(((64.0 * ((t / 53.0).cos() + 0.5 * (2.3 * t).sin())).round_ties_even() / 64.0) as f32);
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

/// Reads x once and writes ρ once.
fn floor(data: &[f32], out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(data.as_chunks::<2>().0) {
        *o = x[0] + x[1];
    }
}

fn batch(n: usize, t: usize) {
    let data = signals(n, t);
    let mut out = vec![0.0_f32; n * t];
    let x = Traces { data: &data, n, t, d: 2, lengths: None };
    let formulas = [F1, F3, F4].map(parse);
    let mut best = [Duration::MAX; 4];
    let mut w = Workspace::new();
    for _ in 0..7 {
        best[0] = best[0].min(time(|| floor(black_box(&data), black_box(&mut out))));
        for (f, best) in formulas.iter().zip(&mut best[1..]) {
            let run = || {
                robustness_trace(f, x, &[], &Options::default(), &mut w, black_box(&mut out))
                    .expect("sizes fit")
            };
            *best = (*best).min(time(run));
        }
    }
    let ns = best.map(|b| b.as_secs_f64() * 1e9 / (n * t) as f64);
    println!(
        "{n}x{t} f32, ns/sample: floor {:.2}, F1 {:.2} ({:.1}x), F3 {:.2}, F4 {:.2}",
        ns[0],
        ns[1],
        ns[1] / ns[0],
        ns[2],
        ns[3]
    );
}

fn stream<S: Scalar>(name: &str, text: &str, interval: bool) {
    let t = 20_000;
    let data: Vec<S> = signals(1, t).into_iter().map(|v| S::from_f64(f64::from(v))).collect();
    let f = parse(text);
    let o = MonitorOptions { interval, ..Default::default() };
    let mut m = Monitor::<S>::new(&f, &o).expect("bounded");
    let mut best = Duration::MAX;
    for _ in 0..5 {
        m.reset();
        best = best.min(time(|| {
            for s in data.as_chunks::<2>().0 {
                black_box(m.update(s).expect("two signals"));
            }
        }));
    }
    let interval = if interval { "with interval" } else { "delayed only" };
    println!("stream {name} {interval}: {:.0} ns/sample", best.as_secs_f64() * 1e9 / t as f64);
}

fn main() {
    batch(1, 10_000);
    batch(256, 1000);
    batch(4096, 1000);
    for (name, text) in [("F1", F1), ("F3", F3), ("F4", F4)] {
        stream::<f64>(name, text, false);
        stream::<f64>(name, text, true);
    }
}
