//! The golden tables of the semantics: exact values at every instant.

use cadenza_stl::{Formula, Options, ParseOptions, Traces, Workspace, robustness, robustness_trace};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

fn trace(text: &str, data: &[f64], d: usize) -> Vec<f64> {
    let names = ["p", "q"];
    let o = ParseOptions { signals: Some(&names[..d]), ..Default::default() };
    let f = Formula::parse(text, &o).unwrap_or_else(|e| panic!("{e}"));
    let t = data.len() / d;
    let x = Traces { data, n: 1, t, d, lengths: None };
    let (o, mut w) = (Options::default(), Workspace::new());
    let mut out = vec![0.0; t];
    robustness_trace(&f, x, &[], &o, &mut w, &mut out).unwrap();
    for (at, &expected) in out.iter().enumerate() {
        let mut one = [0.0];
        robustness(&f, x, &[], at as u32, &o, &mut w, &mut one).unwrap();
        assert!(
            one[0] == expected || one[0].is_nan() && expected.is_nan(),
            "{text} at {at}: {one:?} {expected}"
        );
    }
    out
}

fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || a.is_nan() && b.is_nan())
}

#[test]
fn table() {
    let p = [1.0, 3.0, -1.0, 2.0, 0.5, -2.0];
    let q = [-5.0, -0.5, -3.0, 4.0, -1.0, 1.0];
    let data: Vec<f64> = p.iter().zip(q).flat_map(|(p, q)| [*p, q]).collect();
    let cases: &[(&str, [f64; 6])] = &[
        ("G[0,2] p>0", [-1.0, -1.0, -1.0, -2.0, -2.0, -2.0]),
        ("F[1,2] q>0", [-0.5, 4.0, 4.0, 1.0, 1.0, -INF]),
        ("p>0 U[0,3] q>0", [-0.5, -0.5, -1.0, 4.0, 0.5, 1.0]),
        ("p>0 Ui[0,3] q>0", [-0.5, -0.5, -1.0, 2.0, -1.0, -2.0]),
        ("p>0 U[1,3] q>0", [-0.5, -1.0, -1.0, 0.5, 0.5, -INF]),
        ("p>0 Ui[1,3] q>0", [-0.5, -1.0, -1.0, -1.0, -2.0, -INF]),
        ("p>0 S[0,2] q>0", [-5.0, -0.5, -1.0, 4.0, 0.5, 1.0]),
        ("p>0 Si[0,2] q>0", [-5.0, -0.5, -1.0, 2.0, 0.5, -2.0]),
        ("p>0 S[1,3] q>0", [-INF, -5.0, -1.0, -1.0, 0.5, -2.0]),
        ("H[1,2] p>0", [INF, 1.0, 1.0, -1.0, -1.0, 0.5]),
        ("p>0 R[0,2] q>0", [-5.0, -0.5, -3.0, 2.0, -1.0, 1.0]),
        ("p>0 W[1,2] q>0", [-0.5, -1.0, -1.0, 0.5, 0.5, -2.0]),
        ("X p>0", [3.0, -1.0, 2.0, 0.5, -2.0, -INF]),
        ("wY p>0", [INF, 1.0, 3.0, -1.0, 2.0, 0.5]),
        ("F[0,3] G[0,1] p>0", [1.0, 0.5, 0.5, 0.5, -2.0, -2.0]),
        ("F[0,1](p>0 and G[0,1](q>-2))", [-1.0, -1.0, 1.0, 1.0, 0.5, -2.0]),
    ];
    for (text, expected) in cases {
        let got = trace(text, &data, 2);
        assert!(same(&got, expected), "{text}: {got:?}, expected {expected:?}");
    }
}

#[test]
fn nan_touches_exactly_what_reads_it() {
    let got = trace("G[0,3](p>0)", &[2.0, NAN, -3.0, 1.0, 4.0], 1);
    assert!(same(&got, &[NAN, NAN, -3.0, 1.0, 4.0]), "{got:?}");
    let data = [1.0, 0.0, 1.0, 0.0, NAN, 3.0];
    assert_eq!(trace("p>0 U[0,2] q>0", &data, 2)[0], 1.0);
    assert!(trace("p>0 Ui[0,2] q>0", &data, 2)[0].is_nan());
}

#[test]
fn bench_signals() {
    let (mut sum, mut data) = ((0.0, 0.0), Vec::new());
    for t in 0..1000 {
        let t = f64::from(t);
        let x = (64.0 * ((t / 37.0).sin() + 0.6 * (1.7 * t).sin() + 1.0)).round_ties_even() / 64.0;
        let y = (64.0 * ((t / 53.0).cos() + 0.5 * (2.3 * t).sin())).round_ties_even() / 64.0;
        sum = (sum.0 + x, sum.1 + y);
        data.extend([x, y]);
    }
    assert_eq!(sum, (1049.140625, 0.96875));
    let f4 = "F[0,100](p>0 and G[0,20](q>0)) and G[0,200](p<2 or F[0,50](q>0.5)) and ((q>-3) U[0,100] (p>1))";
    let cases = [
        ("G[0,100](p>0)", 0, 0.53125),
        ("F[0,100](G[0,20](p>0))", 0, 1.40625),
        ("(p>0) U[0,100] (q>0)", 0, 1.0),
        (f4, 0, -0.140625),
        ("G[0,100](p>0)", 500, -0.015625),
        ("F[0,100](G[0,20](p>0))", 500, 1.40625),
        ("(p>0) U[0,100] (q>0)", 500, 0.40625),
        ("(p>0) U[0,100] (p<0)", 200, 0.234375),
        ("(p>0) Ui[0,100] (p<0)", 200, -0.234375),
    ];
    for (text, at, expected) in cases {
        assert_eq!(trace(text, &data, 2)[at], expected, "{text} at {at}");
    }
}
