//! One semantics: offline, streaming and the brute-force evaluator give the same numbers.

mod common;

use cadenza_stl::{
    Formula, Monitor, MonitorOptions, Options, ParseOptions, Scalar, Traces, Truth, Workspace, robustness,
    robustness_trace,
};
use common::{F, Rng, SIGNALS, brute, random, same, text, trace};

fn parse(f: &F) -> Formula {
    let o = ParseOptions { signals: Some(&SIGNALS), ..Default::default() };
    Formula::parse(&text(f), &o).unwrap_or_else(|e| panic!("{e}"))
}

fn known(x: &[[f64; 3]]) -> Vec<Option<[f64; 3]>> {
    x.iter().copied().map(Some).collect()
}

fn offline<S: Scalar>(f: &Formula, x: &[[f64; 3]], w: &mut Workspace<S>) -> Vec<S> {
    let data: Vec<S> = x.iter().flatten().map(|v| S::from_f64(*v)).collect();
    let mut out = vec![S::ZERO; x.len()];
    let x = Traces { data: &data, n: 1, t: x.len(), d: 3, lengths: None };
    robustness_trace(f, x, &[], &Options::default(), w, &mut out).unwrap();
    out
}

fn online<S: Scalar>(m: &mut Monitor<S>, x: &[[f64; 3]]) -> Vec<S> {
    let mut out = Vec::new();
    let mut take = |c: cadenza_stl::Closed<S>| {
        assert_eq!(c.t as usize, out.len());
        assert_eq!(c.truth == Truth::Fault, c.robustness.is_nan());
        out.push(c.robustness);
    };
    for (n, s) in x.iter().enumerate() {
        let v = m.update(&s.map(S::from_f64)).unwrap();
        assert_eq!(v.step, n as u64);
        v.closed.into_iter().for_each(&mut take);
    }
    m.finish(&mut take);
    out
}

#[test]
fn offline_is_brute_force() {
    let mut rng = Rng(1);
    let (mut w, mut w32) = (Workspace::new(), Workspace::new());
    for case in 0..10_000 {
        let f = random(&mut rng, 1 + case % 5, true);
        let t = 1 + rng.below(40) as usize;
        let x = trace(&mut rng, t);
        let formula = parse(&f);
        let got = offline::<f64>(&formula, &x, &mut w);
        let expected = brute(&f, &known(&x));
        let data: Vec<f64> = x.iter().flatten().copied().collect();
        let at = rng.below(t as u64) as u32;
        let mut one = [0.0];
        let traces = Traces { data: &data, n: 1, t, d: 3, lengths: None };
        robustness(&formula, traces, &[], at, &Options::default(), &mut w, &mut one).unwrap();
        assert!(same(one[0], got[at as usize]), "{formula} at {at}: {one:?} {got:?} {x:?}");
        for (t, (g, e)) in got.iter().zip(&expected).enumerate() {
            assert!(same(*g, e.value()), "{formula}\nat {t}: {g}, expected {}\n{x:?}", e.value());
        }
        if case % 4 == 0 {
            let narrow = offline::<f32>(&formula, &x, &mut w32);
            for (g, e) in narrow.iter().zip(&expected) {
                assert!(same(f64::from(*g), e.value()), "{formula} in f32: {g}, expected {}", e.value());
            }
        }
    }
}

#[test]
fn online_is_offline() {
    let mut rng = Rng(2);
    let (mut w, mut w32) = (Workspace::new(), Workspace::new());
    for case in 0..3_000 {
        let f = random(&mut rng, 1 + case % 5, false);
        let formula = parse(&f);
        let t = 1 + rng.below(40) as usize;
        let x = trace(&mut rng, t);
        let o = MonitorOptions { interval: false, ..Default::default() };
        let mut m = Monitor::<f64>::new(&formula, &o).unwrap();
        let expected = offline::<f64>(&formula, &x, &mut w);
        for epoch in 0..2 {
            assert_eq!(m.epoch(), epoch);
            let got = online(&mut m, &x);
            assert_eq!(got.len(), expected.len(), "{formula}");
            for (t, (g, e)) in got.iter().zip(&expected).enumerate() {
                assert!(same(*g, *e), "{formula}\nat {t} epoch {epoch}: {g}, expected {e}\n{x:?}");
            }
            m.reset();
        }
        if case % 4 == 0 {
            let o = MonitorOptions { interval: false, ..Default::default() };
            let got = online(&mut Monitor::<f32>::new(&formula, &o).unwrap(), &x);
            let expected = offline::<f32>(&formula, &x, &mut w32);
            assert!(got.iter().zip(&expected).all(|(g, e)| g == e || g.is_nan() && e.is_nan()), "{formula}");
        }
    }
}

#[test]
fn intervals_are_brute_force() {
    let mut rng = Rng(3);
    let (mut narrow, mut faults) = (0, 0);
    for case in 0..2_000 {
        let f = random(&mut rng, 1 + case % 4, false);
        let formula = parse(&f);
        let Some(horizon) = formula.horizon() else { continue };
        if horizon > 60 {
            continue;
        }
        let distances = text(&f).contains("==") || text(&f).contains("!=");
        let t = 1 + rng.below(25) as usize;
        let x = trace(&mut rng, t);
        let mut m = Monitor::<f64>::new(&formula, &MonitorOptions::default()).unwrap();
        for n in 0..t {
            let v = m.update(&x[n]).unwrap();
            let mut seen = known(&x[..=n]);
            seen.extend(std::iter::repeat_n(None, horizon as usize));
            let expected = brute(&f, &seen);
            let mut next = (n as u64 + 1).saturating_sub(u64::from(horizon));
            assert_eq!(v.pending.is_some(), horizon > 0);
            let mut all = Vec::new();
            m.pending(|i| all.push(i));
            assert_eq!(all.first().copied(), v.pending);
            for i in all {
                assert_eq!(i.t, next);
                let e = expected[i.t as usize];
                let (lo, hi) = if e.nan { (f64::NEG_INFINITY, f64::INFINITY) } else { (e.lo, e.hi) };
                // Distances are known to be at least 0: with them ours may be tighter than the table's.
                let tighter = !e.nan && i.lo <= i.hi && i.lo >= lo && i.hi <= hi;
                let exact = (i.lo, i.hi) == (lo, hi);
                assert!(exact || distances && tighter, "{formula}\nstep {n}: {i:?}, expected {e:?}\n{x:?}");
                faults += u32::from(e.nan);
                narrow += usize::from(i.lo > f64::NEG_INFINITY && i.hi < f64::INFINITY);
                next += 1;
            }
            assert!(horizon == 0 || next == n as u64 + 1);
        }
    }
    assert!(narrow > 1_000 && faults > 1_000, "{narrow} {faults}");
}

#[test]
fn interval_goldens() {
    let p = [1.0, 3.0, -1.0, 2.0, 0.5, -2.0];
    let q = [-5.0, -0.5, -3.0, 4.0, -1.0, 1.0];
    let inf = f64::INFINITY;
    let cases: [(&str, &[(f64, f64)]); 2] = [
        ("F[0,3] G[0,1] p>0", &[(-inf, inf), (1.0, inf), (1.0, inf), (1.0, 2.0)]),
        ("p>0 U[0,3] q>0", &[(-5.0, 1.0), (-0.5, 1.0), (-0.5, -0.5)]),
    ];
    for (text, expected) in cases {
        let o = ParseOptions { signals: Some(&["p", "q"]), ..Default::default() };
        let f = Formula::parse(text, &o).unwrap();
        let mut m = Monitor::<f64>::new(&f, &MonitorOptions::default()).unwrap();
        for (n, (lo, hi)) in expected.iter().enumerate() {
            let i = m.update(&[p[n], q[n]]).unwrap().pending.unwrap();
            assert_eq!((i.t, i.lo, i.hi), (0, *lo, *hi), "{text} after {} samples", n + 1);
        }
        let closed = m.update(&[p[expected.len()], q[expected.len()]]).unwrap().closed.unwrap();
        assert_eq!((closed.t, closed.robustness), (0, if text.starts_with('F') { 1.0 } else { -0.5 }));
    }
}
