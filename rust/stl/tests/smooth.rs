//! Smooth semantics against the definitions, evaluated directly and in another order.

mod common;

use cadenza_stl::{
    Formula, Instants, Options, ParseOptions, Semantics, Traces, Workspace, gradient, robustness_trace,
};
use common::{F, Rng, SIGNALS, text};

fn parse(text: &str) -> Formula {
    let o = ParseOptions { signals: Some(&SIGNALS), ..Default::default() };
    Formula::parse(text, &o).unwrap_or_else(|e| panic!("{e}"))
}

fn traces(data: &[f64]) -> Traces<'_, f64> {
    Traces { data, n: 1, t: data.len() / 3, d: 3, lengths: None }
}

fn values(f: &Formula, data: &[f64], semantics: Semantics) -> Vec<f64> {
    let mut out = vec![0.0; data.len() / 3];
    let (o, mut w) = (Options { semantics, ..Default::default() }, Workspace::new());
    robustness_trace(f, traces(data), &[], &o, &mut w, &mut out).unwrap();
    out
}

fn every(f: &Formula, data: &[f64], semantics: Semantics, upstream: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; data.len()];
    let (o, mut w) = (Options { semantics, ..Default::default() }, Workspace::new());
    gradient(f, traces(data), &[], Instants::Every, upstream, &o, &mut w, &mut dx, &mut []).unwrap();
    dx
}

/// The smooth maximum of some values, from its definition; −∞ for none of them.
fn max(semantics: Semantics, y: &[f64]) -> f64 {
    let top = y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !top.is_finite() {
        return top;
    }
    let y: Vec<f64> = y.iter().copied().filter(|y| *y > f64::NEG_INFINITY).collect();
    match semantics {
        Semantics::True => top,
        Semantics::LogSumExp { beta } => {
            top + y.iter().map(|y| (beta * (y - top)).exp()).sum::<f64>().ln() / beta
        }
        Semantics::Softmax { beta } => {
            let weights: Vec<f64> = y.iter().map(|y| (beta * (y - top)).exp()).collect();
            y.iter().zip(&weights).map(|(y, w)| y * w).sum::<f64>() / weights.iter().sum::<f64>()
        }
    }
}

fn min(semantics: Semantics, y: &[f64]) -> f64 {
    -max(semantics, &y.iter().map(|y| -y).collect::<Vec<_>>())
}

/// The smooth value at every instant, operator by operator as the specification writes them.
fn direct(f: &F, x: &[f64], s: Semantics) -> Vec<f64> {
    let n = x.len() / 3;
    let all = |g: &dyn Fn(i64) -> f64| (0..n as i64).map(g).collect::<Vec<f64>>();
    let last = n as i64 - 1;
    match f {
        F::Pred(e, cmp, c) => all(&|t| {
            let row = &x[3 * t as usize..][..3];
            let value = [row[0], row[1], row[2], row[0] + row[1], row[0] - 2.0 * row[2]][*e] - c;
            if *cmp == ">" { value } else { -value }
        }),
        F::Not(g) => direct(g, x, s).into_iter().map(|v| -v).collect(),
        F::And(kids) | F::Or(kids) => {
            let kids: Vec<_> = kids.iter().map(|k| direct(k, x, s)).collect();
            let at = |t: i64| kids.iter().map(|k| k[t as usize]).collect::<Vec<_>>();
            if matches!(f, F::And(_)) { all(&|t| min(s, &at(t))) } else { all(&|t| max(s, &at(t))) }
        }
        F::Xor(l, r) => {
            let (l, r) = (direct(l, x, s), direct(r, x, s));
            all(&|t| {
                let (l, r) = (l[t as usize], r[t as usize]);
                -min(s, &[max(s, &[-l, r]), max(s, &[-r, l])])
            })
        }
        F::Rise(g) => {
            let v = direct(g, x, s);
            all(&|t| if t == 0 { v[0] } else { min(s, &[v[t as usize], -v[t as usize - 1]]) })
        }
        F::Window(op, a, b, g) => {
            let v = direct(g, x, s);
            let (a, b) = (*a as i64, b.map_or(last + 1, |b| b as i64));
            all(&|t| {
                let (from, to) = if matches!(*op, "G" | "F") { (t + a, t + b) } else { (t - b, t - a) };
                let y: Vec<f64> = (from.max(0)..=to.min(last)).map(|u| v[u as usize]).collect();
                if matches!(*op, "G" | "H") { min(s, &y) } else { max(s, &y) }
            })
        }
        F::Binary(op, a, b, l, r) => {
            let (p, q) = (direct(l, x, s), direct(r, x, s));
            let dual = op.starts_with('R');
            let (p, q): (Vec<f64>, Vec<f64>) =
                if dual { (p.iter().map(|v| -v).collect(), q.iter().map(|v| -v).collect()) } else { (p, q) };
            let gap = i64::from(!op.ends_with('i'));
            let (a, b) = (*a as i64, b.map_or(last + 1, |b| b as i64));
            let until = all(&|t| {
                let past = op.starts_with('S');
                let (from, to) = if past { ((t - b).max(0), t - a) } else { (t + a, (t + b).min(last)) };
                let y: Vec<f64> = (from..=to)
                    .map(|u| {
                        let held = if past { u + gap..=t } else { t..=u - gap };
                        let mut y: Vec<f64> = held.map(|v| p[v as usize]).collect();
                        y.push(q[u as usize]);
                        min(s, &y)
                    })
                    .collect();
                max(s, &y)
            });
            match op.as_bytes()[0] {
                b'W' => all(&|t| {
                    let y: Vec<f64> = (t..=(t + b).min(last)).map(|u| p[u as usize]).collect();
                    max(s, &[min(s, &y), until[t as usize]])
                }),
                b'R' => until.into_iter().map(|v| -v).collect(),
                _ => until,
            }
        }
        _ => unreachable!("not generated"),
    }
}

/// `and` stands only above temporal operators, because chains of it are one operator.
fn random(rng: &mut Rng, depth: u32) -> F {
    if depth == 0 {
        return F::Pred(rng.below(5) as usize, rng.pick(&[">", "<"]), 0.5);
    }
    let sub = |rng: &mut Rng| Box::new(random(rng, depth - 1));
    let a = rng.below(4) as usize;
    let b = if rng.chance(20) { None } else { Some(a + rng.below(9) as usize) };
    let temporal = |rng: &mut Rng| match rng.below(2) {
        0 => F::Window(rng.pick(&["G", "F", "H", "O"]), a, b, sub(rng)),
        _ => F::Binary(rng.pick(&["U", "Ui", "R", "Ri", "W", "Wi", "S", "Si"]), a, b, sub(rng), sub(rng)),
    };
    match rng.below(8) {
        0 => F::Not(sub(rng)),
        1 => F::And(vec![temporal(rng), temporal(rng), temporal(rng)]),
        2 => F::Or(vec![temporal(rng), temporal(rng)]),
        3 => F::Xor(sub(rng), sub(rng)),
        4 => F::Rise(sub(rng)),
        _ => temporal(rng),
    }
}

fn samples(rng: &mut Rng, t: usize, wild: bool) -> Vec<f64> {
    // Only y is ever infinite, so that no predicate is the difference of two infinities.
    (0..3 * t)
        .map(|i| match rng.below(30) {
            0 if wild && i % 3 == 1 => f64::INFINITY,
            1 if wild && i % 3 == 1 => f64::NEG_INFINITY,
            2 if wild => 1e290 * (rng.below(3) as f64 - 1.0),
            _ => (rng.below(2001) as f64 - 1000.0) / 300.0,
        })
        .collect()
}

#[test]
fn kernels_are_the_definition() {
    let mut rng = Rng(81);
    for case in 0..1_500 {
        let f = random(&mut rng, 1 + case % 3);
        let parsed = parse(&text(&f));
        let t = 1 + rng.below(40) as usize;
        let x = samples(&mut rng, t, case % 4 == 0);
        let beta = rng.pick(&[0.1, 1.0, 7.0, 300.0]);
        for semantics in [Semantics::LogSumExp { beta }, Semantics::Softmax { beta }] {
            let expected = direct(&f, &x, semantics);
            for (at, (got, expected)) in values(&parsed, &x, semantics).iter().zip(&expected).enumerate() {
                let near = got == expected
                    || (got - expected).abs() <= 1e-12 * (1.0 + expected.abs()) * (1.0 + 1.0 / beta);
                // The definition itself has no value where its sums leave the range of numbers.
                assert!(near || expected.is_nan(), "{parsed} {semantics:?} at {at}: {got} {expected}");
            }
        }
    }
}

#[test]
fn bounds_of_each_operator_and_convergence() {
    let mut rng = Rng(82);
    for case in 0..200 {
        let n = 1 + rng.below(60) as usize;
        let x = samples(&mut rng, 80, false);
        let (over, under) = (format!("F[2,{}] x>0", n + 1), format!("G[2,{}] x>0", n + 1));
        for (text, up) in [(over, true), (under, false)] {
            let f = parse(&text);
            let exact = values(&f, &x, Semantics::True);
            for beta in [0.2, 2.0, 1e2, 1e5] {
                let slack = (n as f64).ln() / beta;
                let lse = values(&f, &x, Semantics::LogSumExp { beta });
                let softmax = values(&f, &x, Semantics::Softmax { beta });
                for ((e, l), s) in exact.iter().zip(&lse).zip(&softmax).filter(|((e, _), _)| e.is_finite()) {
                    // Of the maximum: lse over-estimates, softmax under-estimates; of the minimum the reverse.
                    let (l, s) = if up { (l - e, s - e) } else { (e - l, e - s) };
                    assert!((-1e-12..=slack + 1e-12).contains(&l), "case {case} {text} β {beta}: {l}");
                    assert!((-slack - 1e-12..=1e-12).contains(&s), "case {case} {text} β {beta}: {s}");
                }
            }
        }
    }
}

#[test]
fn extremes_are_finite_where_the_definition_is() {
    let column = |v: &[f64]| v.iter().flat_map(|x| [*x, 0.0, 0.0]).collect::<Vec<_>>();
    let (huge, inf) = (1.5e308, f64::INFINITY);
    let f = parse("F[0,4] x>0");
    for beta in [1e-3, 1.0, 1e300] {
        for semantics in [Semantics::LogSumExp { beta }, Semantics::Softmax { beta }] {
            let at = |v: &[f64]| values(&f, &column(v), semantics)[0];
            assert!((at(&[huge, huge, huge, huge]) / huge - 1.0).abs() < 1e-12);
            assert!((at(&[-huge, huge, -huge]) / huge - 1.0).abs() < 1e-12, "{semantics:?}");
            assert_eq!(at(&[-inf, 2.0, -inf]), 2.0);
            assert_eq!((at(&[-inf, -inf]), at(&[1.0, inf, -inf, inf])), (-inf, inf));
            let x = column(&[-inf, 1.0, inf, 2.0, -huge, huge, 0.0, -inf]);
            let dx = every(&f, &x, semantics, &[1.0; 8]);
            assert!(dx.iter().all(|g| g.is_finite()), "{semantics:?}: {dx:?}");
        }
    }
    let far = values(&f, &column(&[1e9, 1e9 + 1.0, 1e9 - 3.0]), Semantics::Softmax { beta: 1.0 });
    let near = values(&f, &column(&[0.0, 1.0, -3.0]), Semantics::Softmax { beta: 1.0 });
    assert!((far[0] - 1e9 - near[0]).abs() < 1e-6, "{far:?} {near:?}");
}

/// Central differences of the direct definition, with windows of many blocks and every instant's derivative.
#[test]
fn gradients_of_long_windows_are_central_differences() {
    let mut rng = Rng(83);
    for (case, f) in
        ["G[3,17] x>0", "F[0,9] y<0.5", "H[2,11] x>0", "O x>0", "F[4,inf] z>0"].iter().enumerate()
    {
        let (f, t) = (parse(f), 70);
        let x = samples(&mut rng, t, false);
        let upstream: Vec<f64> = (0..t).map(|i| (i as f64 * 0.7 + case as f64).sin()).collect();
        for semantics in [Semantics::LogSumExp { beta: 3.0 }, Semantics::Softmax { beta: 3.0 }] {
            let dx = every(&f, &x, semantics, &upstream);
            let loss = |x: &[f64]| {
                let v = values(&f, x, semantics);
                v.iter().zip(&upstream).filter(|(v, _)| v.is_finite()).map(|(v, g)| v * g).sum::<f64>()
            };
            for i in 0..x.len() {
                let h = 1e-5;
                let at = |d: f64| {
                    let mut y = x.clone();
                    y[i] += d;
                    loss(&y)
                };
                let expected = (at(h) - at(-h)) / (2.0 * h);
                assert!((expected - dx[i]).abs() < 1e-7, "{f} {semantics:?}: {expected} {} at {i}", dx[i]);
            }
        }
    }
}
