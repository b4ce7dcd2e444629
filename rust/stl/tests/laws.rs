//! Laws of the semantics, and what intervals promise.

mod common;

use cadenza_stl::{
    At, Error, Formula, Monitor, MonitorOptions, Options, ParseErrorKind, ParseOptions, Traces, Truth,
    Workspace, robustness_trace,
};
use common::{F, Rng, SIGNALS, random, same, text, trace};

fn parse(text: &str) -> Formula {
    let o = ParseOptions { signals: Some(&SIGNALS), ..Default::default() };
    Formula::parse(text, &o).unwrap_or_else(|e| panic!("{e}"))
}

fn values(f: &Formula, x: &[[f64; 3]]) -> Vec<f64> {
    let data = x.as_flattened();
    let mut out = vec![0.0; x.len()];
    let x = Traces { data, n: 1, t: x.len(), d: 3, lengths: None };
    robustness_trace(f, x, &[], &Options::default(), &mut Workspace::new(), &mut out).unwrap();
    out
}

fn finite(rng: &mut Rng, t: usize) -> Vec<[f64; 3]> {
    (0..t).map(|_| [0; 3].map(|_| (rng.below(65) as f64 - 32.0) / 8.0)).collect()
}

fn length(rng: &mut Rng) -> usize {
    1 + rng.below(30) as usize
}

#[test]
fn equivalences() {
    let mut rng = Rng(51);
    for case in 0..500 {
        let (p, q) = (text(&random(&mut rng, case % 3, true)), text(&random(&mut rng, case % 3, true)));
        let (a, c) = (rng.below(4), rng.below(4));
        let (b, d) = (a + rng.below(5), c + rng.below(5));
        let x = {
            let t = length(&mut rng);
            trace(&mut rng, t)
        };
        for (left, right) in [
            (format!("not F[{a},{b}] not {p}"), format!("G[{a},{b}] {p}")),
            (format!("not O[{a},{b}] not {p}"), format!("H[{a},{b}] {p}")),
            (format!("(not {p}) U[{a},{b}] (not {q})"), format!("not (({p}) R[{a},{b}] ({q}))")),
            (format!("F[{a},{b}] F[{c},{d}] {p}"), format!("F[{},{}] {p}", a + c, b + d)),
            (format!("O[{a},{b}] O[{c},{d}] {p}"), format!("O[{},{}] {p}", a + c, b + d)),
            (format!("({p}) U ({q})"), format!("{q} or {p} and X (({p}) U ({q}))")),
            (format!("({p}) Ui ({q})"), format!("({q} and {p}) or {p} and X (({p}) Ui ({q}))")),
            (format!("({p}) S ({q})"), format!("{q} or {p} and Y (({p}) S ({q}))")),
            (format!("({p}) W[{a},{b}] ({q})"), format!("G[0,{b}] {p} or (({p}) U[{a},{b}] ({q}))")),
            (format!("X {p}"), format!("F[1,1] {p}")),
            (format!("wY {p}"), format!("H[1,1] {p}")),
            (format!("{p} xor {q}"), format!("not ({p} iff {q})")),
        ] {
            let (l, r) = (values(&parse(&left), &x), values(&parse(&right), &x));
            assert!(l.iter().zip(&r).all(|(l, r)| same(*l, *r)), "{left}\n{right}\n{l:?}\n{r:?}");
        }
    }
}

#[test]
fn time_reversal_maps_future_to_past() {
    let mut rng = Rng(52);
    for _ in 0..500 {
        let a = rng.below(5);
        let b = if rng.chance(20) { "inf".to_owned() } else { (a + rng.below(9)).to_string() };
        let x = {
            let t = length(&mut rng);
            trace(&mut rng, t)
        };
        let reversed: Vec<_> = x.iter().rev().copied().collect();
        for (future, past) in [("x>0 U", "x>0 S"), ("x>0 Ui", "x>0 Si"), ("F", "O"), ("G", "H")] {
            let ahead = values(&parse(&format!("{future}[{a},{b}] (y > z)")), &x);
            let mut behind = values(&parse(&format!("{past}[{a},{b}] (y > z)")), &reversed);
            behind.reverse();
            assert!(ahead.iter().zip(&behind).all(|(l, r)| same(*l, *r)), "{future}[{a},{b}]");
        }
    }
}

/// Formulas of `signal > c` without negation.
fn monotone(rng: &mut Rng, depth: u32) -> F {
    let f = |rng: &mut Rng| Box::new(monotone(rng, depth.saturating_sub(1)));
    let a = rng.below(3) as usize;
    let b = Some(a + rng.below(5) as usize);
    match if depth == 0 { 0 } else { rng.below(6) } {
        0 => F::Pred(rng.below(3) as usize, ">", 0.5),
        1 => F::And(vec![*f(rng), *f(rng)]),
        2 => F::Or(vec![*f(rng), *f(rng)]),
        3 => F::Window(rng.pick(&["G", "F", "H", "O"]), a, b, f(rng)),
        4 => F::Step(rng.pick(&["X", "Y", "wX", "wY"]), f(rng)),
        _ => F::Binary(rng.pick(&["U", "Ui", "R", "Ri", "W", "Wi", "S", "Si"]), a, b, f(rng), f(rng)),
    }
}

#[test]
fn monotone_and_lipschitz() {
    let mut rng = Rng(53);
    for case in 0..1_000 {
        let f = parse(&text(&monotone(&mut rng, 1 + case % 4)));
        let x = {
            let t = length(&mut rng);
            finite(&mut rng, t)
        };
        let before = values(&f, &x);
        let mut y = x.clone();
        let (t, s) = (rng.below(x.len() as u64) as usize, rng.below(3) as usize);
        y[t][s] += 0.75;
        for (v, w) in before.iter().zip(values(&f, &y)) {
            assert!(*v == w || (*v < w && w - v <= 0.75), "{f}: {v} became {w}");
        }
    }
}

#[test]
fn nothing_outside_horizon_and_history_matters() {
    let mut rng = Rng(54);
    let mut outside = 0;
    for case in 0..1_500 {
        let f = parse(&text(&random(&mut rng, 1 + case % 4, false)));
        let x = {
            let t = length(&mut rng);
            trace(&mut rng, t)
        };
        let before = values(&f, &x);
        let t = rng.below(x.len() as u64) as usize;
        let mut y = x.clone();
        for (s, row) in y.iter_mut().enumerate() {
            let ahead = f.horizon().is_some_and(|h| s > t + h as usize);
            let behind = f.history().is_some_and(|p| s + (p as usize) < t);
            if ahead || behind {
                outside += 1;
                row.fill(if rng.chance(50) { f64::NAN } else { 77.0 });
            }
        }
        assert!(same(before[t], values(&f, &y)[t]), "{f} at {t}\n{x:?}");
    }
    assert!(outside > 1_000, "{outside}");
}

#[test]
fn intervals_hold_every_completion_and_shrink() {
    let mut rng = Rng(55);
    let ranges =
        || vec![("x".to_owned(), -4.0, 4.0), ("y".to_owned(), -4.0, 4.0), ("z".to_owned(), -4.0, 4.0)];
    let (mut bounded, mut decided) = (0, 0);
    for case in 0..400 {
        let f = parse(&text(&random(&mut rng, 1 + case % 3, false)));
        let Some(horizon) = f.horizon().filter(|h| *h <= 40) else { continue };
        let o = MonitorOptions {
            ranges: if case % 2 == 0 { ranges() } else { Vec::new() },
            ..Default::default()
        };
        let seen = finite(&mut rng, 1 + case as usize % 12);
        // One run per completion; all share the same beginning.
        for completion in 0..20 {
            let mut x = seen.clone();
            x.extend(finite(&mut rng, horizon as usize + 1));
            if completion == 0 {
                x.iter_mut().skip(seen.len()).for_each(|row| *row = [4.0, -4.0, 4.0]);
            }
            let mut m = Monitor::<f64>::new(&f, &o).unwrap();
            let mut open: Vec<(f64, f64)> = Vec::new();
            for (n, sample) in x.iter().enumerate() {
                let v = m.update(sample).unwrap();
                open.push((f64::NEG_INFINITY, f64::INFINITY));
                m.pending(|i| {
                    let (lo, hi) = &mut open[i.t as usize];
                    assert!(
                        *lo <= i.lo && i.lo <= i.hi && i.hi <= *hi,
                        "{f} step {n}: [{lo}, {hi}] then {i:?}"
                    );
                    (*lo, *hi) = (i.lo, i.hi);
                    bounded += u32::from(i.lo.is_finite() && i.hi.is_finite());
                    decided += u32::from(i.hi < 0.0 || i.lo > 0.0);
                });
                if let Some(c) = v.closed {
                    let (lo, hi) = open[c.t as usize];
                    assert!(lo <= c.robustness && c.robustness <= hi, "{f}: {c:?} outside [{lo}, {hi}]");
                }
            }
        }
    }
    assert!(bounded > 1_000 && decided > 1_000, "{bounded} {decided}");
}

/// `update` answers from the folded windows, `pending` sweeps over all that is held.
#[test]
fn the_oldest_interval_is_the_first_of_the_sweep() {
    let mut rng = Rng(46);
    let mut decided = 0;
    for case in 0..600 {
        let f = parse(&text(&random(&mut rng, 1 + case % 4, false)));
        let at = if rng.chance(30) { At::Start } else { At::Every };
        let ranges =
            if rng.chance(50) { vec![("x".into(), -4.0, 3.0), ("z".into(), -2.0, 2.0)] } else { vec![] };
        let o = MonitorOptions { at, ranges, ..Default::default() };
        let mut m = Monitor::<f64>::new(&f, &o).unwrap();
        for run in 0..2 {
            for sample in trace(&mut rng, 90) {
                let told = m.update(&sample).unwrap().pending;
                let mut swept = None;
                m.pending(|i| swept = swept.or(Some(i)));
                assert_eq!(told, swept, "{f} {at:?} run {run}");
                decided += usize::from(told.is_some_and(|i| i.lo > 0.0 || i.hi < 0.0));
            }
            m.reset();
        }
    }
    assert!(decided > 10_000, "{decided}");
}

#[test]
fn a_sample_outside_its_range_is_a_fault() {
    let f = parse("x > 0");
    let o = MonitorOptions { ranges: vec![("x".into(), 0.0, 5.0)], ..Default::default() };
    let mut m = Monitor::<f64>::new(&f, &o).unwrap();
    for (x, truth) in
        [(5.0, Truth::Satisfied), (5.5, Truth::Fault), (0.0, Truth::Boundary), (f64::NAN, Truth::Fault)]
    {
        let c = m.update(&[x, 0.0, 0.0]).unwrap().closed.unwrap();
        assert_eq!((c.truth, c.robustness.is_nan()), (truth, truth == Truth::Fault));
    }
    let o = MonitorOptions { ranges: vec![("w".into(), 0.0, 5.0)], ..Default::default() };
    let e = Monitor::<f64>::new(&f, &o).err().unwrap();
    assert_eq!(e.to_string(), "the formula has no signal `w`, did you mean `x`?");
    let o = MonitorOptions { ranges: vec![("x".into(), 1.0, 0.0)], ..Default::default() };
    assert_eq!(Monitor::<f64>::new(&f, &o).err().unwrap().to_string(), "range of x is [1, 0]");
}

#[test]
fn ranges_decide_earlier() {
    // x + y cannot exceed 9, so the wish for 10 is hopeless from the first sample.
    let f = parse("F[0,3] (x + y > 10)");
    let o = MonitorOptions {
        ranges: vec![("x".into(), -4.0, 4.0), ("y".into(), 0.0, 5.0)],
        ..Default::default()
    };
    let mut m = Monitor::<f64>::new(&f, &o).unwrap();
    let i = m.update(&[0.0, 0.0, 0.0]).unwrap().pending.unwrap();
    assert_eq!((i.lo, i.hi), (-10.0, -1.0));
}

#[test]
fn monitor_of_the_start_is_offline_at_zero() {
    let mut rng = Rng(56);
    let mut late = 0;
    for case in 0..1_500 {
        // Unbounded future operators stand below Boolean operators only.
        let inner = |rng: &mut Rng| text(&random(rng, case % 3, false));
        let mut parts = Vec::new();
        for _ in 0..1 + case % 3 {
            let a = rng.below(4);
            let (p, q) = (inner(&mut rng), inner(&mut rng));
            parts.push(match rng.below(5) {
                0 => p,
                1 => format!("G[{a},inf] {p}"),
                2 => format!("F[{a},inf] {p}"),
                _ => format!("(({p}) {}[{a},inf] ({q}))", rng.pick(&["U", "Ui", "R", "Ri", "W", "Wi"])),
            });
        }
        let joined = parts.join(rng.pick(&[" and ", " or ", " -> ", " xor "]));
        let f = parse(&joined);
        late += u32::from(f.horizon().is_none());
        let x = {
            let t = length(&mut rng);
            if case % 2 == 0 { trace(&mut rng, t) } else { finite(&mut rng, t) }
        };
        let expected = values(&f, &x)[0];
        let o = MonitorOptions { at: At::Start, interval: case % 5 > 0, ..Default::default() };
        let mut m = Monitor::<f64>::new(&f, &o).unwrap();
        for _ in 0..2 {
            let mut closed = Vec::new();
            let mut last = (f64::NEG_INFINITY, f64::INFINITY);
            for s in &x {
                let v = m.update(s).unwrap();
                if let Some(i) = v.pending {
                    assert_eq!(i.t, 0);
                    assert!(closed.is_empty());
                    last = (i.lo, i.hi);
                    assert!(i.lo <= i.hi);
                }
                closed.extend(v.closed);
            }
            let decided = !closed.is_empty();
            m.finish(|c| closed.push(c));
            assert_eq!(closed.len(), 1, "{f}");
            // A value that is decided is reported at once: what is NaN later no longer matters.
            let early = expected.is_nan() && decided;
            let value = closed[0].robustness;
            assert!(closed[0].t == 0 && (early || same(value, expected)), "{f}: {value} {expected}\n{x:?}");
            assert!(
                expected.is_nan() || (last.0 <= expected && expected <= last.1),
                "{f}: {last:?} {expected}"
            );
            m.reset();
        }
    }
    assert!(late > 500, "{late}");
}

#[test]
fn unbounded_future_online() {
    let refused = |text: &str, at| match Monitor::<f64>::new(
        &parse(text),
        &MonitorOptions { at, ..Default::default() },
    ) {
        Err(Error::Formula(e)) => (e.kind, e.start, e.end),
        _ => panic!("accepted: {text}"),
    };
    let kind = ParseErrorKind::UnboundedFuture;
    assert_eq!(refused("x>0 and F y>0", At::Every), (kind, 8, 13));
    assert_eq!(refused("x>0 and O F y>0", At::Start), (kind, 10, 15));
    assert_eq!(refused("G[0,3] (x>0 U y>0)", At::Start), (kind, 8, 17));
    let mut m = Monitor::<f64>::new(&parse("F x>0"), &MonitorOptions { at: At::Start, ..Default::default() })
        .unwrap();
    assert_eq!(m.delay(), u32::MAX);
    // Already satisfied, although the value may still grow.
    let v = m.update(&[2.0, 0.0, 0.0]).unwrap();
    assert!(v.closed.is_none() && v.pending.unwrap().lo == 2.0);
}

#[test]
fn memory_is_limited_and_named() {
    let f = parse("x > 0 and F[0,100000] (y > 0 U[0,9] z > 0)");
    let o = MonitorOptions { max_bytes: 1 << 20, ..Default::default() };
    match Monitor::<f64>::new(&f, &o).err().unwrap() {
        Error::TooLarge { operator, bytes, limit } => {
            assert!(bytes > limit && limit == 1 << 20, "{bytes}");
            assert_eq!(operator, "F[0,100000] (y > 0 U[0,9] z > 0)");
        }
        e => panic!("{e}"),
    }
    assert!(Monitor::<f64>::new(&parse("G[0,2147483646] x>0"), &MonitorOptions::default()).is_err());
    let m = Monitor::<f64>::new(&f, &MonitorOptions { interval: false, ..Default::default() }).unwrap();
    assert!(m.memory_bytes() < 8 * 500_000, "{}", m.memory_bytes());
}

#[test]
fn node_values_online_lag_by_their_horizon() {
    let f = parse("G[0,2] x > 0 and not (y > 1)");
    let mut m = Monitor::<f64>::new(&f, &MonitorOptions::default()).unwrap();
    let [always, not] = f.conjuncts()[..] else { panic!("two conjuncts") };
    for n in 0..6 {
        let x = f64::from(n);
        m.update(&[x, x, 0.0]).unwrap();
        assert_eq!(m.node_value(always), (n >= 2).then_some(x - 2.0));
        assert_eq!(m.node_value(not), Some(1.0 - x));
    }
}
