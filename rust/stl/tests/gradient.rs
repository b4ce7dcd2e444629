//! Gradients against finite differences, tie rules, smooth semantics and their bounds.

mod common;

use cadenza_stl::{
    Error, Formula, Instants, Options, Param, ParseOptions, Semantics, Traces, Workspace, gradient,
    robustness, robustness_trace,
};
use common::{F, Rng, SIGNALS, random, text, trace};

fn parse(text: &str) -> Formula {
    let o = ParseOptions { signals: Some(&SIGNALS), ..Default::default() };
    Formula::parse(text, &o).unwrap_or_else(|e| panic!("{e}"))
}

fn options(semantics: Semantics) -> Options {
    Options { semantics, ..Default::default() }
}

fn traces(data: &[f64]) -> Traces<'_, f64> {
    Traces { data, n: 1, t: data.len() / 3, d: 3, lengths: None }
}

fn value(f: &Formula, data: &[f64], params: &[Param<f64>], o: &Options) -> f64 {
    let mut out = [0.0];
    robustness(f, traces(data), params, 0, o, &mut Workspace::new(), &mut out).unwrap();
    out[0]
}

fn slope(f: &Formula, data: &[f64], params: &[Param<f64>], o: &Options) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dp) = (vec![7.0; data.len()], vec![7.0; params.len()]);
    gradient(f, traces(data), params, Instants::At(0), &[1.0], o, &mut Workspace::new(), &mut dx, &mut dp)
        .unwrap();
    (dx, dp)
}

/// Samples without ties: every value is distinct.
fn distinct(rng: &mut Rng, t: usize) -> Vec<f64> {
    (0..3 * t).map(|i| (rng.below(1000) as f64 - 500.0) / 150.0 + i as f64 * 1e-4).collect()
}

#[test]
fn subgradient_is_the_slope_away_from_ties() {
    let mut rng = Rng(71);
    let mut moved = 0;
    for case in 0..800 {
        let f = parse(&text(&random(&mut rng, 1 + case % 4, true)));
        let t = 1 + rng.below(12) as usize;
        let x = distinct(&mut rng, t);
        let o = options(Semantics::True);
        let (dx, _) = slope(&f, &x, &[], &o);
        for i in 0..x.len() {
            let at = |h: f64| {
                let mut y = x.clone();
                y[i] += h;
                value(&f, &y, &[], &o)
            };
            let h = 1e-7;
            let (ahead, behind) = ((at(h) - at(0.0)) / h, (at(0.0) - at(-h)) / h);
            if !ahead.is_finite() || (ahead - behind).abs() > 1e-3 {
                continue;
            }
            assert!((ahead - dx[i]).abs() < 1e-3, "{f}: slope {ahead}, gradient {} at {i} of {x:?}", dx[i]);
            moved += usize::from(dx[i] != 0.0);
        }
    }
    assert!(moved > 400, "{moved}");
}

/// Formulas that are smooth functions of their samples.
fn differentiable(rng: &mut Rng, depth: u32) -> F {
    let sub = |rng: &mut Rng| Box::new(differentiable(rng, depth - 1));
    if depth == 0 {
        return F::Pred(rng.pick(&[0, 1, 2, 3, 4]), rng.pick(&[">", "<"]), 0.5);
    }
    let a = rng.below(3) as usize;
    let b = if rng.chance(15) { None } else { Some(a + rng.below(4) as usize) };
    match rng.below(10) {
        0 => F::Not(sub(rng)),
        1 | 2 => F::And(vec![*sub(rng), *sub(rng), *sub(rng)]),
        3 => F::Xor(sub(rng), sub(rng)),
        4 => F::Rise(sub(rng)),
        5 | 6 => F::Window(rng.pick(&["G", "F", "H", "O"]), a, b, sub(rng)),
        _ => F::Binary(rng.pick(&["U", "Ui", "R", "Ri", "W", "Wi", "S", "Si"]), a, b, sub(rng), sub(rng)),
    }
}

#[test]
fn smooth_gradients_are_central_differences() {
    let mut rng = Rng(72);
    let mut checked = 0;
    for case in 0..500 {
        let f = parse(&text(&differentiable(&mut rng, 1 + case % 3)));
        let t = 1 + rng.below(9) as usize;
        let x = distinct(&mut rng, t);
        let beta = rng.pick(&[0.5, 1.0, 4.0]);
        let o =
            options(if case % 2 == 0 { Semantics::LogSumExp { beta } } else { Semantics::Softmax { beta } });
        let (dx, _) = slope(&f, &x, &[], &o);
        for i in 0..x.len() {
            let at = |h: f64| {
                let mut y = x.clone();
                y[i] += h;
                value(&f, &y, &[], &o)
            };
            let h = 1e-5;
            let expected = (at(h) - at(-h)) / (2.0 * h);
            if expected.is_finite() {
                let error = (expected - dx[i]).abs() / (1.0 + expected.abs());
                assert!(error < 1e-6, "{f} {o:?}: {expected}, gradient {} at {i}", dx[i]);
                checked += 1;
            } else {
                assert_eq!(dx[i], 0.0, "{f}");
            }
        }
    }
    assert!(checked > 4_000, "{checked}");
}

#[test]
fn smooth_goldens() {
    // One sample of three signals: and/or are the aggregates of 1, 2, 3.
    let (all, any) = (parse("x>0 and y>0 and z>0"), parse("x>0 or y>0 or z>0"));
    let window = parse("F[0,2] x>0");
    let x = [1.0, 2.0, 3.0];
    let columns = [1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 3.0, 0.0, 0.0];
    let lse = |beta| options(Semantics::LogSumExp { beta });
    let softmax = |beta| options(Semantics::Softmax { beta });
    for (o, max, min) in [
        (lse(1.0), 3.40760596444438, Some(0.5923940355556196)),
        (lse(10.0), 3.000004540096028, None),
        (softmax(1.0), 2.5752103826044417, Some(1.4247896173955585)),
        (softmax(10.0), 2.9999545980092712, None),
    ] {
        assert!((value(&any, &x, &[], &o) - max).abs() < 1e-14);
        assert!((value(&window, &columns, &[], &o) - max).abs() < 1e-14);
        if let Some(min) = min {
            assert!((value(&all, &x, &[], &o) - min).abs() < 1e-14);
        }
    }
}

#[test]
fn smooth_values_are_bounded_and_converge() {
    let mut rng = Rng(73);
    for _ in 0..200 {
        let n = 1 + rng.below(20) as usize;
        let f = parse(&format!("F[0,{}] x>0", n - 1));
        let data = distinct(&mut rng, n);
        let exact = value(&f, &data, &[], &Options::default());
        for beta in [0.5, 3.0, 50.0, 1e4] {
            let slack = (n as f64).ln() / beta + 1e-12;
            let lse = value(&f, &data, &[], &options(Semantics::LogSumExp { beta }));
            let softmax = value(&f, &data, &[], &options(Semantics::Softmax { beta }));
            assert!(exact - 1e-12 <= lse && lse <= exact + slack, "{lse} {exact}");
            assert!(exact - slack <= softmax && softmax <= exact + 1e-12, "{softmax} {exact}");
        }
    }
}

#[test]
fn ties_and_empty_windows() {
    let only = |text: &str, data: &[f64]| {
        let (dx, _) = slope(&parse(text), data, &[], &Options::default());
        let hit: Vec<(usize, f64)> = dx.into_iter().enumerate().filter(|(_, g)| *g != 0.0).collect();
        hit
    };
    let row = |v: &[(f64, f64)]| v.iter().flat_map(|(x, y)| [*x, *y, 0.0]).collect::<Vec<_>>();
    let p = [1.0, 3.0, -1.0, 2.0, 0.5, -2.0].into_iter().zip([-5.0, -0.5, -3.0, 4.0, -1.0, 1.0]);
    let table = row(&p.collect::<Vec<_>>());
    assert_eq!(only("F[0,3] G[0,1] x>0", &table), [(0, 1.0)]);
    assert_eq!(only("x>0 U[0,3] y>0", &table), [(4, 1.0)]);
    assert_eq!(only("G[0,2] x>0", &row(&[(2.0, 0.0), (1.0, 0.0), (1.0, 0.0)])), [(3, 1.0)]);
    assert_eq!(only("x>0 and y>0", &row(&[(1.0, 1.0)])), [(0, 1.0)]);
    assert_eq!(only("x<0", &row(&[(1.0, 1.0)])), [(0, -1.0)]);
    assert_eq!(only("F[3,4] x>0", &row(&[(1.0, 1.0)])), []);
    assert_eq!(only("abs(x) > 0 and norm(x) > 0 and sqrt(x) > 0", &row(&[(0.0, 0.0)])), []);
    assert_eq!(only("F[0,1] true or x>0", &row(&[(0.0, 0.0)])), []);
}

#[test]
fn parameters_and_traces() {
    let f = parse("G[0,1] (x * $k - $c > 0)");
    assert_eq!(f.params(), ["k", "c"]);
    let data = [3.0, 0.0, 0.0, 2.0, 0.0, 0.0, 5.0, 0.0, 0.0];
    let params = [Param::All(2.0), Param::PerTrace(&[1.0][..])];
    let (dx, dp) = slope(&f, &data, &params, &Options::default());
    assert_eq!(dp, [2.0, -1.0]);
    assert_eq!(dx[3], 2.0);
    // Every instant: 1·ρ(0) + 10·ρ(1) + 100·ρ(2) read x at 1, 1, 2.
    let (mut dx, mut dp, up) = ([0.0; 9], [0.0; 2], [1.0, 10.0, 100.0]);
    let (o, mut w) = (Options::default(), Workspace::new());
    gradient(&f, traces(&data), &params, Instants::Every, &up, &o, &mut w, &mut dx, &mut dp).unwrap();
    assert_eq!((dx[0], dx[3], dx[6]), (0.0, 22.0, 200.0));
    assert_eq!(dp, [2.0 * 11.0 + 5.0 * 100.0, -111.0]);
    let bad = options(Semantics::LogSumExp { beta: 0.0 });
    let e = gradient(&f, traces(&data), &params, Instants::Every, &up, &bad, &mut w, &mut dx, &mut dp)
        .unwrap_err();
    assert_eq!(e, Error::Beta { beta: 0.0 });
    let e =
        gradient(&f, traces(&data), &params, Instants::At(0), &up, &o, &mut w, &mut dx, &mut dp).unwrap_err();
    assert_eq!(e.to_string(), "upstream has 3 elements, expected 1");
}

/// The kernels of the full trace choose what the path from one instant chooses, ties included.
#[test]
fn every_instant_is_the_sum_of_the_single_ones() {
    let mut rng = Rng(75);
    let mut moved = 0;
    for case in 0..1_500 {
        let f = parse(&text(&random(&mut rng, 1 + case % 4, true)));
        let t = 1 + rng.below(25) as usize;
        let samples = trace(&mut rng, t);
        let x = traces(samples.as_flattened());
        let mut w = Workspace::new();
        let exact = {
            let mut out = vec![0.0; t];
            robustness_trace(&f, x, &[], &Options::default(), &mut w, &mut out).unwrap();
            out
        };
        // Powers of two add without rounding, and tell the instants apart.
        let up: Vec<f64> =
            (0..t).map(|i| if exact[i].is_nan() { 0.0 } else { f64::from(1_u32 << i) }).collect();
        for semantics in [Semantics::True, Semantics::LogSumExp { beta: 2.0 }] {
            let o = options(semantics);
            let (mut all, mut sum) = (vec![0.0; 3 * t], vec![0.0; 3 * t]);
            gradient(&f, x, &[], Instants::Every, &up, &o, &mut w, &mut all, &mut []).unwrap();
            for (i, g) in up.iter().enumerate().filter(|(_, g)| **g != 0.0) {
                let mut one = vec![0.0; 3 * t];
                let at = Instants::At(i as u32);
                gradient(&f, x, &[], at, &[*g], &o, &mut w, &mut one, &mut []).unwrap();
                sum.iter_mut().zip(&one).for_each(|(s, g)| *s += g);
            }
            let scale = 1e-9 * up.iter().sum::<f64>();
            let same = |a: f64, b: f64| a == b || semantics != Semantics::True && (a - b).abs() <= scale;
            assert!(
                all.iter().zip(&sum).all(|(a, b)| same(*a, *b)),
                "{f} {semantics:?}\n{all:?}\n{sum:?}\n{samples:?}"
            );
            moved += usize::from(all.iter().any(|g| *g != 0.0));
        }
    }
    assert!(moved > 2_000, "{moved}");
}

#[test]
fn nan_is_loud_where_it_is_asked_for() {
    let f = parse("G[0,1] x>0");
    let data = [1.0, 0.0, 0.0, f64::NAN, 0.0, 0.0, 2.0, 0.0, 0.0];
    let (mut dx, o, mut w) = ([0.0; 9], Options::default(), Workspace::new());
    let mut run = |up: &[f64], dx: &mut [f64]| {
        gradient(&f, traces(&data), &[], Instants::Every, up, &o, &mut w, dx, &mut []).unwrap();
    };
    run(&[0.0, 0.0, 1.0], &mut dx);
    assert_eq!((dx[0], dx[3], dx[6]), (0.0, 0.0, 1.0));
    run(&[1.0, 0.0, 0.0], &mut dx);
    assert!([0, 3, 6].iter().all(|i| dx[*i].is_nan()) && dx[1] == 0.0);
}

#[test]
fn smooth_values_read_what_true_values_read() {
    let mut rng = Rng(74);
    for case in 0..300 {
        let f = parse(&text(&random(&mut rng, 1 + case % 4, true)));
        let t = 1 + rng.below(15) as usize;
        let x = trace(&mut rng, t);
        let run = |semantics| {
            let mut out = vec![0.0; t];
            let (o, mut w) = (options(semantics), Workspace::new());
            robustness_trace(&f, traces(x.as_flattened()), &[], &o, &mut w, &mut out).unwrap();
            out
        };
        let exact = run(Semantics::True);
        for smooth in [run(Semantics::LogSumExp { beta: 1e5 }), run(Semantics::Softmax { beta: 1e5 })] {
            for (e, s) in exact.iter().zip(smooth) {
                let near = *e == s || (e - s).abs() < 1e-3 || (e.is_nan() && s.is_nan());
                assert!(near, "{f}: {e}, smooth {s}\n{x:?}");
            }
        }
    }
}
