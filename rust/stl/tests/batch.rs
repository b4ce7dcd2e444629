//! Batches, ragged lengths, threads, the strict end, NaN refused, breakdown, node values, explanations.

mod common;

use cadenza_stl::{
    End, Error, Formula, Nan, Options, Param, ParseErrorKind, ParseOptions, Scalar, Traces, Workspace,
    breakdown, explain, node_values, robustness, robustness_trace,
};
use common::{Rng, SIGNALS, random, same, text, trace};

fn parse(text: &str) -> Formula {
    let o = ParseOptions { signals: Some(&SIGNALS), ..Default::default() };
    Formula::parse(text, &o).unwrap_or_else(|e| panic!("{e}"))
}

/// Traces of one length as one slice; shorter ones are padded with what must not be read.
fn pack<S: Scalar>(traces: &[Vec<[f64; 3]>], t: usize) -> Vec<S> {
    let mut data = Vec::new();
    for x in traces {
        data.extend(x.iter().flatten().map(|v| S::from_f64(*v)));
        data.extend(std::iter::repeat_n(S::NAN, (t - x.len()) * 3));
    }
    data
}

fn lanes<S: Scalar>(seed: u64) {
    let mut rng = Rng(seed);
    let mut w = Workspace::<S>::new();
    for case in 0..400 {
        let f = parse(&text(&random(&mut rng, 1 + case % 4, true)));
        let n = rng.pick(&[1, 2, 7, 8, 9, 15, 16, 17, 33]);
        let t = 1 + rng.below(30) as usize;
        let ragged = rng.chance(60);
        let traces: Vec<_> = (0..n)
            .map(|_| {
                let len = if ragged { 1 + rng.below(t as u64) as usize } else { t };
                trace(&mut rng, len)
            })
            .collect();
        let data: Vec<S> = pack(&traces, t);
        let lengths: Vec<u32> = traces.iter().map(|x| x.len() as u32).collect();
        let x = Traces { data: &data, n, t, d: 3, lengths: ragged.then_some(&lengths[..]) };
        let mut all = vec![S::ZERO; n * t];
        let o = Options { threads: 1 + case as usize % 3, ..Default::default() };
        robustness_trace(&f, x, &[], &o, &mut w, &mut all).unwrap();
        let mut at_zero = vec![S::ZERO; n];
        robustness(&f, x, &[], 0, &o, &mut w, &mut at_zero).unwrap();
        for (i, one) in traces.iter().enumerate() {
            let data: Vec<S> = pack(std::slice::from_ref(one), one.len());
            let x = Traces { data: &data, n: 1, t: one.len(), d: 3, lengths: None };
            let mut expected = vec![S::ZERO; one.len()];
            robustness_trace(&f, x, &[], &Options::default(), &mut w, &mut expected).unwrap();
            let got = &all[i * t..(i + 1) * t];
            for (at, e) in expected.iter().enumerate() {
                assert!(same(got[at].to_f64(), e.to_f64()), "{f} trace {i} at {at}: {} {e}", got[at]);
            }
            assert!(got[one.len()..].iter().all(|v| v.is_nan()));
            assert!(same(at_zero[i].to_f64(), expected[0].to_f64()));
        }
    }
}

#[test]
fn batches_are_single_traces() {
    lanes::<f64>(21);
    lanes::<f32>(22);
}

#[test]
fn strict_end() {
    let f = parse("G[0,2] x > 0 and O[0,5] y > 0");
    let data: Vec<f64> = (0..15).map(f64::from).collect();
    let x = Traces { data: &data, n: 1, t: 5, d: 3, lengths: None };
    let (o, mut w) = (Options { end: End::Strict, ..Default::default() }, Workspace::new());
    let mut out = [0.0; 3];
    robustness_trace(&f, x, &[], &o, &mut w, &mut out).unwrap();
    assert_eq!(out, [0.0, 3.0, 6.0]);
    let e = robustness(&f, x, &[], 3, &o, &mut w, &mut out[..1]).unwrap_err();
    assert_eq!(e, Error::Horizon { at: 3, horizon: 2, trace: 0, length: 5 });
    robustness_trace(&parse("X X X X X X x>0"), x, &[], &o, &mut w, &mut []).unwrap();
    let unbounded = parse("y > 0 and F x > 0");
    match robustness(&unbounded, x, &[], 0, &o, &mut w, &mut out[..1]).unwrap_err() {
        Error::Formula(e) => assert_eq!((e.kind, e.start, e.end), (ParseErrorKind::UnboundedFuture, 10, 17)),
        e => panic!("{e}"),
    }
}

#[test]
fn refusals() {
    let f = parse("x > $a");
    let data = [1.0_f64, 2.0, 3.0, f64::NAN, 5.0, 6.0];
    let x = Traces { data: &data, n: 2, t: 1, d: 3, lengths: None };
    let (o, mut w) = (Options::default(), Workspace::new());
    let a = [Param::PerTrace(&[0.5, 0.25][..])];
    let mut out = [0.0; 2];
    let mut call = |x, params: &[Param<f64>], at, o: &Options, out: &mut [f64]| {
        robustness(&f, x, params, at, o, &mut w, out).map_err(|e| e.to_string())
    };
    call(x, &a, 0, &o, &mut out).unwrap();
    assert!(out[0] == 0.5 && out[1].is_nan());
    let refuse = |r: Result<(), String>| r.unwrap_err();
    let raise = Options { nan: Nan::Raise, ..o };
    assert_eq!(refuse(call(x, &a, 0, &raise, &mut out)), "trace 1, step 0: x makes a predicate NaN");
    assert_eq!(refuse(call(x, &a, 1, &o, &mut out)), "instant 1 is outside trace 0 of length 1");
    assert_eq!(refuse(call(x, &[], 0, &o, &mut out)), "params has 0 elements, expected 1");
    assert_eq!(refuse(call(x, &a, 0, &o, &mut [0.0])), "out has 1 elements, expected 2");
    let nan = [Param::All(f64::NAN)];
    assert_eq!(refuse(call(x, &nan, 0, &o, &mut out)), "parameter $a must be finite, got NaN");
    let narrow = Traces { data: &data, n: 3, t: 1, d: 2, lengths: None };
    let expected = "the formula has 3 signals (x, y, z) but the data have 2 columns";
    assert_eq!(refuse(call(narrow, &a, 0, &o, &mut out)), expected);
    let empty = Traces { data: &[], n: 2, t: 0, d: 3, lengths: None };
    assert_eq!(refuse(call(empty, &a, 0, &o, &mut out)), "trace 0 has no samples");
    let ragged = Traces { lengths: Some(&[1, 2]), ..x };
    assert_eq!(refuse(call(ragged, &a, 0, &o, &mut out)), "trace 1 has length 2, the data hold 1 steps");
    let none = Traces { data: &[], n: 0, t: 4, d: 3, lengths: None };
    call(none, &[Param::All(0.0)], 0, &o, &mut []).unwrap();
}

#[test]
fn infinity_minus_infinity_is_named_by_its_predicate() {
    let f = parse("G (x - y > 0)");
    let inf = f64::INFINITY;
    let x = Traces { data: &[1.0, 0.0, 0.0, inf, inf, 0.0], n: 1, t: 2, d: 3, lengths: None };
    let o = Options { nan: Nan::Raise, ..Default::default() };
    let e = robustness(&f, x, &[], 0, &o, &mut Workspace::new(), &mut [0.0]).unwrap_err();
    assert_eq!(e, Error::NotANumber { trace: 0, step: 1, signal: "x - y > 0".into() });
}

#[test]
fn parts_of_a_formula() {
    let mut rng = Rng(31);
    let mut w = Workspace::new();
    let mut decided = 0;
    for case in 0..600 {
        let (a, b) = (text(&random(&mut rng, case % 4, true)), text(&random(&mut rng, 3, true)));
        let f = parse(&format!("{a} and {b}"));
        let t = 1 + rng.below(20) as usize;
        let samples = trace(&mut rng, t);
        let data: Vec<f64> = pack(std::slice::from_ref(&samples), t);
        let x = Traces { data: &data, n: 1, t, d: 3, lengths: None };
        let o = Options::default();
        let mut all = vec![0.0; t];
        robustness_trace(&f, x, &[], &o, &mut w, &mut all).unwrap();
        let k = f.conjuncts().len();
        let mut parts = vec![0.0; k];
        breakdown(&f, x, &[], 0, &o, &mut w, &mut parts).unwrap();
        let least = parts
            .iter()
            .fold(f64::INFINITY, |m: f64, v| if m.is_nan() || v.is_nan() { f64::NAN } else { m.min(*v) });
        assert!(same(least, all[0]), "{f}: {parts:?} {}", all[0]);
        let mut nodes = vec![0.0; f.nodes().len() * t];
        node_values(&f, x, &[], &mut w, &mut nodes).unwrap();
        for (id, values) in nodes.chunks(t).enumerate() {
            let node = parse(&f.node_text(f.conjuncts()[0]));
            if id == f.conjuncts()[0].index() {
                let mut expected = vec![0.0; t];
                robustness_trace(&node, x, &[], &o, &mut w, &mut expected).unwrap();
                assert!(values.iter().zip(&expected).all(|(a, b)| same(*a, *b)), "{node}");
            }
        }
        let e = &explain(&f, x, &[], 0, &o, &mut w).unwrap()[0];
        assert!(same(e.robustness, all[0]));
        if let (Some(_), Some(conjunct)) = (e.predicate, e.conjunct) {
            assert_eq!(parts[conjunct], e.robustness, "{f}");
            decided += 1;
            // The named sample decides: making it NaN makes the result NaN.
            let mut changed = data.clone();
            changed[e.step * 3..e.step * 3 + 3].fill(f64::NAN);
            let mut out = [0.0];
            robustness(&f, Traces { data: &changed, ..x }, &[], 0, &o, &mut w, &mut out).unwrap();
            assert!(out[0].is_nan(), "{f}: {e}");
        }
    }
    assert!(decided > 200, "{decided}");
}

#[test]
fn explanation_goldens() {
    let explained = |text: &str, data: &[f64]| {
        let f = Formula::parse(text, &ParseOptions::default()).unwrap();
        let d = f.signals().len();
        let x = Traces { data, n: 1, t: data.len() / d, d, lengths: None };
        explain(&f, x, &[], 0, &Options::default(), &mut Workspace::new()).unwrap().remove(0)
    };
    let p = [1.0, 3.0, -1.0, 2.0, 0.5, -2.0];
    let e = explained("F[0,3] G[0,1] p>0", &p);
    assert_eq!((e.step, e.to_string().as_str()), (0, "satisfied by 1: p > 0 at step 0 (F[0,3] → G[0,1])"));
    let both: Vec<f64> =
        p.iter().zip([-5.0, -0.5, -3.0, 4.0, -1.0, 1.0]).flat_map(|(p, q)| [*p, q]).collect();
    let e = explained("p>0 U[0,3] q>0", &both);
    assert_eq!((e.step, e.values), (1, vec![("q".to_owned(), -0.5)]));
    assert_eq!(explained("G[0,2] p>0", &[2.0, 1.0, 1.0]).step, 1);
    let e = explained("G[0,2](p < 9 and (q > 0 or p > 1))", &[0.5, 1.0, 0.25, -0.12, 3.0, -1.0]);
    assert_eq!(e.to_string(), "violated by 0.12: q > 0 at step 1 (G[0,2] → and[1] → or[0])");
    let e = explained("F[3,4] p>0", &[1.0]);
    assert_eq!(
        (e.predicate, e.to_string().as_str()),
        (None, "violated by inf: the empty window of F[3,4] at step 0")
    );
}

#[test]
fn normalised_predicates_compare() {
    let f = parse("G[0,1](x > 1) and y < 6 and z + 1 != x");
    let scaled = f.normalised(&[("y", 4.0)]).unwrap();
    assert_eq!(scaled.to_string(), "G[0,1] x > 1 and (y - 6) / 4 < 0 and z + 1 != x");
    assert_eq!(scaled.signals(), f.signals());
    let x = Traces { data: &[2.0, 3.0, 9.0], n: 1, t: 1, d: 3, lengths: None };
    let mut parts = [0.0; 3];
    breakdown(&scaled, x, &[], 0, &Options::default(), &mut Workspace::new(), &mut parts).unwrap();
    assert_eq!(parts, [1.0, 0.75, 8.0]);
    match f.normalised(&[("x", 2.0), ("z", 3.0)]).unwrap_err() {
        Error::Formula(e) => assert_eq!((e.kind, e.start..e.end), (ParseErrorKind::Unsupported, 28..38)),
        e => panic!("{e}"),
    }
    assert_eq!(f.normalised(&[("x", 2.0), ("z", 2.0)]).unwrap().conjuncts().len(), 3);
    let e = f.normalised(&[("w", 2.0)]).unwrap_err();
    assert_eq!(e.to_string(), "the formula has no signal `w`, did you mean `x`?");
    let e = f.normalised(&[("x", -2.0)]).unwrap_err();
    assert_eq!(e.to_string(), "the scale of x must be finite and positive, got -2");
}

#[test]
fn a_decimated_formula_is_that_of_the_longer_step() {
    let at =
        |text: &str, dt| Formula::parse(text, &ParseOptions { dt: Some(dt), ..Default::default() }).unwrap();
    for text in [
        "G[0,2s](x < 0.5) and F[80ms,160ms] y > $p",
        "(x > 0 U[40ms,1s] y > 0) or H[0,400ms](O[80ms,240ms] x > y)",
        "x > 0 Ri[0,80ms] (z < 1 S[40ms,120ms] y > 0) -> true",
        "rise(x > 0) -> F[0,40ms] fall(y > 0)",
    ] {
        for every in [1, 2, 4, 20] {
            assert_eq!(
                at(text, 0.002).decimated(every).unwrap(),
                at(text, 0.002 * f64::from(every)),
                "{text}"
            );
        }
    }
    // Where every sample is taken several times, the fewer ones say the same.
    let mut rng = Rng(5);
    for text in ["G[4,12] x>0", "x>0 U[4,8] y>0", "x>0 R[0,8] y>0", "O[4,8](y>0 S[0,12] z>0)"] {
        let f = parse(text);
        let few = trace(&mut rng, 12);
        let many: Vec<_> = few.iter().flat_map(|v| [*v; 4]).collect();
        let values = |f: &Formula, x: &[Vec<[f64; 3]>]| {
            let (t, data) = (x[0].len(), pack::<f64>(x, x[0].len()));
            let (mut out, mut w) = (vec![0.0; t], Workspace::new());
            let traces = Traces { data: &data, n: 1, t, d: 3, lengths: None };
            robustness_trace(f, traces, &[], &Options::default(), &mut w, &mut out).unwrap();
            out
        };
        let (all, thin) = (values(&f, &[many]), values(&f.decimated(4).unwrap(), &[few]));
        // Windows that the end of the trace cuts short differ.
        for (i, rho) in thin.iter().enumerate().take(12 - 3) {
            assert!(same(all[4 * i], *rho), "{text} at {i}: {} {rho}", all[4 * i]);
        }
    }
    for (text, every, kind) in [
        ("G[0,9] x>0", 2, ParseErrorKind::NotMultipleOfDt),
        ("G[1,8] x>0", 4, ParseErrorKind::NotMultipleOfDt),
        ("G[0,8] x>0", 0, ParseErrorKind::NotMultipleOfDt),
        ("G[0,8] X x>0", 2, ParseErrorKind::Unsupported),
    ] {
        match parse(text).decimated(every).unwrap_err() {
            Error::Formula(e) => assert_eq!(e.kind, kind, "{text}"),
            e => panic!("{e}"),
        }
    }
    assert_eq!(
        parse("G[1,9] x>0").decimated(4).unwrap_err().to_string().lines().next(),
        Some("1 steps are not a whole multiple of 4")
    );
}

#[test]
fn a_nan_that_is_not_read_leaves_the_explanation_alone() {
    // y at step 1 is NaN but until does not read it at the last instant of its window.
    let f = parse("y>0 U[0,1] x>0");
    let data = [-1.0, 5.0, 0.0, 3.0, f64::NAN, 0.0];
    let x = Traces { data: &data, n: 1, t: 2, d: 3, lengths: None };
    let e = explain(&f, x, &[], 0, &Options::default(), &mut Workspace::new()).unwrap().remove(0);
    assert_eq!((e.robustness, e.step, e.values), (3.0, 1, vec![("x".to_owned(), 3.0)]));
}

#[test]
fn formulas_without_signals() {
    let f = Formula::parse("G[0,1] true and not F[5,6] true", &ParseOptions::default()).unwrap();
    let x = Traces::<f32> { data: &[], n: 2, t: 3, d: 0, lengths: None };
    let mut out = [0.0; 6];
    robustness_trace(&f, x, &[], &Options::default(), &mut Workspace::new(), &mut out).unwrap();
    assert_eq!(out, [f32::INFINITY; 6]);
    let mut m = cadenza_stl::Monitor::<f32>::new(&f, &Default::default()).unwrap();
    assert!(m.update(&[]).unwrap().pending.is_some());
    let mut closed = 0;
    m.finish(|c| closed += u32::from(c.robustness == f32::INFINITY));
    assert_eq!(closed, 1);
}
