//! Decomposition: the allocations of a formula, all of them, are the formula.

mod common;

use std::collections::BTreeMap;

use cadenza_stl::{Branch, Chain, DecomposeOptions, Error, Formula, ParseErrorKind, ParseOptions, decompose};
use common::{F, Rng, SIGNALS, brute, text};

fn parse(text: &str) -> Formula {
    let o = ParseOptions { signals: Some(&SIGNALS), ..Default::default() };
    Formula::parse(text, &o).unwrap_or_else(|e| panic!("{e}"))
}

fn random(rng: &mut Rng, depth: u32, chain: bool) -> F {
    let sub = |rng: &mut Rng| Box::new(random(rng, depth - 1, chain));
    let atom = |rng: &mut Rng| F::Pred(rng.below(3) as usize, rng.pick(&[">", "<"]), 0.0);
    if depth == 0 {
        return atom(rng);
    }
    let a = rng.below(3) as usize;
    let b = Some(a + rng.below(3) as usize);
    match rng.below(if chain { 6 } else { 13 }) {
        0 => F::And(vec![*sub(rng), *sub(rng)]),
        1 => F::Or(vec![*sub(rng), *sub(rng)]),
        2 | 3 => F::Window("F", a, b, sub(rng)),
        4 | 5 => F::Window("G", a, b, sub(rng)),
        6 => F::Step(rng.pick(&["X", "wX"]), sub(rng)),
        7 => F::Not(sub(rng)),
        8 => F::Implies(sub(rng), sub(rng)),
        9 if rng.chance(30) => F::Iff(sub(rng), sub(rng)),
        _ => F::Binary(rng.pick(&["U", "Ui", "R", "Ri", "W", "Wi"]), a, b, sub(rng), sub(rng)),
    }
}

fn name(f: &F, into: &mut BTreeMap<String, u32>) {
    let (label, kids): (&str, Vec<&F>) = match f {
        F::And(k) => ("and", k.iter().collect()),
        F::Or(k) => ("or", k.iter().collect()),
        F::Window(op, _, _, k) | F::Step(op, k) => (op, vec![k]),
        F::Not(k) => ("not", vec![k]),
        F::Implies(l, r) => ("->", vec![l, r]),
        F::Iff(l, r) => ("iff", vec![l, r]),
        F::Binary(op, _, _, l, r) => (op, vec![l, r]),
        _ => return,
    };
    *into.entry(label.to_owned()).or_default() += 1;
    kids.into_iter().for_each(|k| name(k, into));
}

/// Largest robustness over all allocations of a branch; `None` if there are too many to try.
fn best(f: &Formula, branch: &Branch, trace: &[f64]) -> Option<f64> {
    if branch.count() > 3_000 {
        return None;
    }
    let mut best = f64::NEG_INFINITY;
    let mut deltas: Vec<i64> = branch.variables.iter().map(|v| v.min).collect();
    loop {
        match branch.allocate(&deltas) {
            Ok(a) => best = best.max(a.robustness(f, trace, &[]).unwrap()),
            Err(Error::Delta { variable, .. }) => assert!(branch.variables[variable].visit.is_some()),
            Err(e) => panic!("{e}"),
        }
        let mut i = 0;
        loop {
            if i == deltas.len() {
                return Some(best);
            }
            deltas[i] += 1;
            if deltas[i] <= branch.variables[i].max {
                break;
            }
            deltas[i] = branch.variables[i].min;
            i += 1;
        }
    }
}

struct Outcome {
    checked: u32,
    incomplete: u32,
    unsupported: u32,
    seen: BTreeMap<String, u32>,
}

fn run(seed: u64, cases: u32, chain: Option<Chain>) -> Outcome {
    let mut rng = Rng(seed);
    let mut outcome = Outcome { checked: 0, incomplete: 0, unsupported: 0, seen: BTreeMap::new() };
    for case in 0..cases {
        let f = random(&mut rng, 1 + case % 3, chain.is_some());
        let formula = parse(&text(&f));
        let branches = match decompose(&formula, &DecomposeOptions { chain }) {
            Ok(branches) => branches,
            Err(Error::Formula(e)) => {
                assert!(matches!(e.kind, ParseErrorKind::Unsupported | ParseErrorKind::TooLarge), "{e}");
                outcome.unsupported += 1;
                continue;
            }
            Err(e) => panic!("{e}"),
        };
        if branches.len() > 200 {
            continue;
        }
        let t = formula.horizon().unwrap() as usize + 1;
        let boolean = case % 2 == 0;
        let samples: Vec<[f64; 3]> =
            (0..t)
                .map(|_| {
                    [0; 3].map(|_| {
                        if boolean { rng.pick(&[-1.0, 1.0]) } else { (rng.below(41) as f64 - 20.0) / 4.0 }
                    })
                })
                .collect();
        let rho = brute(&f, &samples.iter().copied().map(Some).collect::<Vec<_>>())[0].value();
        let all: Option<Vec<f64>> =
            branches.iter().map(|b| best(&formula, b, samples.as_flattened())).collect();
        let Some(all) = all else { continue };
        let found = all.into_iter().fold(f64::NEG_INFINITY, f64::max);
        assert!(found <= rho, "{formula}: unsound, {found} > {rho}\n{branches:#?}\n{samples:?}");
        if branches.iter().all(|b| b.complete) {
            assert_eq!(found, rho, "{formula}: incomplete\n{branches:#?}\n{samples:?}");
            outcome.checked += 1;
            name(&f, &mut outcome.seen);
        } else {
            outcome.incomplete += 1;
        }
        // A drawn allocation is one of those.
        let branch = &branches[rng.below(branches.len() as u64) as usize];
        let drawn = branch.sample(|n| rng.below(n));
        assert!(drawn.robustness(&formula, samples.as_flattened(), &[]).unwrap() <= rho);
    }
    outcome
}

#[test]
fn allocations_are_the_formula() {
    let o = run(61, 11_000, None);
    assert!(o.checked >= 6_000, "{}", o.checked);
    assert!(o.incomplete > 20 && o.unsupported > 100, "{} {}", o.incomplete, o.unsupported);
    for op in ["and", "or", "F", "G", "X", "wX", "U", "Ui", "R", "Ri", "W", "Wi", "not", "->", "iff"] {
        assert!(o.seen.get(op).is_some_and(|n| *n > 20), "{op}: {:?}", o.seen);
    }
}

#[test]
fn chains() {
    let minimal = run(62, 1_500, Some(Chain::Minimal));
    let complete = run(62, 1_500, Some(Chain::Complete));
    assert!(
        complete.checked > 600 && minimal.incomplete > 100,
        "{} {}",
        complete.checked,
        minimal.incomplete
    );
}

#[test]
fn goldens() {
    let f = parse("F[2,5] G[0,3] x>0 and G[0,8] (y>0 or z>0)");
    let branches = decompose(&f, &DecomposeOptions::default()).unwrap();
    let [branch] = &branches[..] else { panic!("{branches:?}") };
    assert_eq!((branch.count(), branch.complete, branch.reach.len(), branch.hold.len()), (4, true, 0, 2));
    let a = branch.allocate(&[3]).unwrap();
    assert_eq!((a.goals[0].from, a.goals[0].to), (3, 6));
    assert_eq!((a.invariants[0].from, a.invariants[0].to), (0, 8));
    let e = branch.allocate(&[6]).unwrap_err();
    assert_eq!(e.to_string(), "variable 0 has δ = 6, outside 2..=5");
    let short = a.check(&f, &[1.0; 12], &[]).unwrap_err();
    assert_eq!(short, Error::Instant { at: 8, trace: 0, length: 4 });
    assert!(a.check(&f, &[1.0; 27], &[]).unwrap());
    // Instant 0 counts.
    let mut late = [1.0; 27];
    late[1..3].fill(-1.0);
    assert!(!a.check(&f, &late, &[]).unwrap());
}

#[test]
fn what_cannot_be_decomposed() {
    let refused = |text: &str| match decompose(&parse(text), &DecomposeOptions::default()) {
        Err(Error::Formula(e)) => (e.kind, e.start, e.end),
        other => panic!("{other:?}"),
    };
    let kind = ParseErrorKind::Unsupported;
    assert_eq!(refused("x>0 and F x>0"), (kind, 8, 13));
    assert_eq!(refused("x>0 or O[0,3] x>0"), (kind, 7, 17));
    assert_eq!(refused("G[0,3] (x>0 U[0,2] y>0)"), (kind, 8, 22));
    assert_eq!(refused("G[0,3] F[0,2] y>0"), (kind, 7, 17));
    let parts: Vec<_> = (1..14).map(|i| format!("(F[0,{i}] x>0 or F[1,{}] y>0)", i + 1)).collect();
    let many = parts.join(" and ");
    assert_eq!(refused(&many).0, ParseErrorKind::TooLarge);
}
