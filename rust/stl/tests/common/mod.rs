//! Random formulas and traces, and an evaluator written straight from the semantics table: every operator is a
//! loop over the instants it names. It shares no code with the crate.

#![allow(dead_code, unreachable_pub)]

pub const SIGNALS: [&str; 3] = ["x", "y", "z"];

/// A small fast generator (splitmix64): tests must not change with a library's version.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[derive(Clone, Debug)]
pub enum F {
    Const(bool),
    /// Expression index, comparison, constant.
    Pred(usize, &'static str, f64),
    Not(Box<F>),
    And(Vec<F>),
    Or(Vec<F>),
    Implies(Box<F>, Box<F>),
    Iff(Box<F>, Box<F>),
    Xor(Box<F>, Box<F>),
    /// "G", "F", "H", "O"
    Window(&'static str, usize, Option<usize>, Box<F>),
    /// "X", "wX", "Y", "wY"
    Step(&'static str, Box<F>),
    /// "U", "Ui", "R", "Ri", "W", "Wi", "S", "Si"
    Binary(&'static str, usize, Option<usize>, Box<F>, Box<F>),
    Rise(Box<F>),
    Fall(Box<F>),
}

const EXPRS: [&str; 8] = ["x", "y", "z", "x + y", "x - 2*z", "abs(y) - z", "min(x, y, z)", "max(y, -z)"];

fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a < b {
        a
    } else {
        b
    }
}

fn max(a: f64, b: f64) -> f64 {
    -min(-a, -b)
}

fn expr(i: usize, s: &[f64]) -> f64 {
    let (x, y, z) = (s[0], s[1], s[2]);
    match i {
        0 => x,
        1 => y,
        2 => z,
        3 => x + y,
        4 => x - 2.0 * z,
        5 => y.abs() - z,
        6 => min(min(x, y), z),
        _ => max(y, -z),
    }
}

/// What is known of a value: bounds (equal once it is final), and whether a NaN was read.
#[derive(Clone, Copy, Debug)]
pub struct V {
    pub lo: f64,
    pub hi: f64,
    pub nan: bool,
}

const TOP: V = V { lo: f64::INFINITY, hi: f64::INFINITY, nan: false };
const BOTTOM: V = V { lo: f64::NEG_INFINITY, hi: f64::NEG_INFINITY, nan: false };

impl V {
    fn not(self) -> V {
        V { lo: -self.hi, hi: -self.lo, nan: self.nan }
    }
    fn and(self, o: V) -> V {
        V { lo: min(self.lo, o.lo), hi: min(self.hi, o.hi), nan: self.nan || o.nan }
    }
    fn or(self, o: V) -> V {
        self.not().and(o.not()).not()
    }
    pub fn value(self) -> f64 {
        if self.nan { f64::NAN } else { self.lo }
    }
}

/// Values at every instant. `None` is a sample that is not known yet.
pub fn brute(f: &F, trace: &[Option<[f64; 3]>]) -> Vec<V> {
    let n = trace.len() as i64;
    let all = |g: &dyn Fn(usize) -> V| (0..n as usize).map(g).collect::<Vec<V>>();
    let inside = |from: i64, to: i64| (from.max(0)..=to.min(n - 1)).map(|t| t as usize);
    match f {
        F::Const(b) => vec![if *b { TOP } else { BOTTOM }; n as usize],
        F::Pred(e, cmp, c) => all(&|t| match &trace[t] {
            None => V { lo: f64::NEG_INFINITY, hi: f64::INFINITY, nan: false },
            Some(s) => {
                let d = expr(*e, s) - c;
                let v = match *cmp {
                    ">" | ">=" => d,
                    "<" | "<=" => -d,
                    "==" => -d.abs(),
                    _ => d.abs(),
                };
                if v.is_nan() { V { lo: 0.0, hi: 0.0, nan: true } } else { V { lo: v, hi: v, nan: false } }
            }
        }),
        F::Not(g) => brute(g, trace).into_iter().map(V::not).collect(),
        F::And(gs) | F::Or(gs) => {
            let vs: Vec<_> = gs.iter().map(|g| brute(g, trace)).collect();
            let and = matches!(f, F::And(_));
            all(&|t| vs.iter().map(|v| v[t]).reduce(|a, b| if and { a.and(b) } else { a.or(b) }).unwrap())
        }
        F::Implies(l, r) => {
            let (l, r) = (brute(l, trace), brute(r, trace));
            all(&|t| l[t].not().or(r[t]))
        }
        F::Iff(l, r) | F::Xor(l, r) => {
            let (l, r) = (brute(l, trace), brute(r, trace));
            let iff = all(&|t| l[t].not().or(r[t]).and(r[t].not().or(l[t])));
            if matches!(f, F::Iff(..)) { iff } else { iff.into_iter().map(V::not).collect() }
        }
        F::Window(op, a, b, g) => {
            let v = brute(g, trace);
            let (a, b) = (*a as i64, b.map_or(n, |b| b as i64));
            all(&|t| {
                let t = t as i64;
                let (from, to) = if matches!(*op, "G" | "F") { (t + a, t + b) } else { (t - b, t - a) };
                let window = inside(from, to).map(|s| v[s]);
                if matches!(*op, "G" | "H") { window.fold(TOP, V::and) } else { window.fold(BOTTOM, V::or) }
            })
        }
        F::Step(op, g) => {
            let v = brute(g, trace);
            all(&|t| {
                let s = if op.ends_with('X') { t as i64 + 1 } else { t as i64 - 1 };
                let outside = if op.starts_with('w') { TOP } else { BOTTOM };
                if (0..n).contains(&s) { v[s as usize] } else { outside }
            })
        }
        F::Rise(g) | F::Fall(g) => {
            let mut v = brute(g, trace);
            if matches!(f, F::Fall(_)) {
                v = v.into_iter().map(V::not).collect();
            }
            all(&|t| if t == 0 { v[0].and(TOP) } else { v[t].and(v[t - 1].not()) })
        }
        F::Binary(op, a, b, l, r) => {
            let (l, r) = (brute(l, trace), brute(r, trace));
            let (l, r, negate) = match op.as_bytes()[0] {
                b'R' => (flip(&l), flip(&r), true),
                _ => (l, r, false),
            };
            let inclusive = op.ends_with('i');
            let v = if op.starts_with('S') {
                all(&|t| since(&l, &r, t as i64, *a as i64, b.map(|b| b as i64), inclusive))
            } else {
                all(&|t| until(&l, &r, t as i64, *a as i64, b.map(|b| b as i64), inclusive))
            };
            if op.starts_with('W') {
                let to = b.map_or(n, |b| b as i64);
                return all(&|t| inside(t as i64, t as i64 + to).map(|s| l[s]).fold(TOP, V::and).or(v[t]));
            }
            if negate { flip(&v) } else { v }
        }
    }
}

fn flip(v: &[V]) -> Vec<V> {
    v.iter().map(|v| v.not()).collect()
}

fn until(l: &[V], r: &[V], t: i64, a: i64, b: Option<i64>, inclusive: bool) -> V {
    let n = l.len() as i64;
    let mut best = BOTTOM;
    for s in t + a..=b.map_or(n - 1, |b| (t + b).min(n - 1)) {
        let mut v = r[s as usize];
        for u in t..s + i64::from(inclusive) {
            v = v.and(l[u as usize]);
        }
        best = best.or(v);
    }
    // The read set: rhs on the window, lhs on [t, min(t+b, T)−1], or up to min(t+b, T−1).
    let last = b.map_or(n - 1, |b| if inclusive { (t + b).min(n - 1) } else { (t + b).min(n) - 1 });
    best.nan = (t..=last).any(|s| l[s as usize].nan)
        || (t + a..=b.map_or(n - 1, |b| (t + b).min(n - 1))).any(|s| r[s as usize].nan);
    best
}

fn since(l: &[V], r: &[V], t: i64, a: i64, b: Option<i64>, inclusive: bool) -> V {
    let mut best = BOTTOM;
    let from = b.map_or(0, |b| (t - b).max(0));
    for s in from..=t - a {
        let mut v = r[s as usize];
        for u in s + i64::from(!inclusive)..=t {
            v = v.and(l[u as usize]);
        }
        best = best.or(v);
    }
    let first = b.map_or(0, |b| if inclusive { (t - b).max(0) } else { (t - b).max(-1) + 1 });
    best.nan = (first..=t).any(|s| l[s as usize].nan) || (from..=t - a).any(|s| r[s as usize].nan);
    best
}

fn bounds(rng: &mut Rng, unbounded: bool) -> (usize, Option<usize>) {
    let a = if rng.chance(50) { 0 } else { rng.below(6) as usize };
    if unbounded && rng.chance(15) {
        return (a, None);
    }
    let width = if rng.chance(10) { rng.below(60) } else { rng.below(7) };
    (a, Some(a + width as usize))
}

/// A random formula of at most `depth` levels; `future` allows unbounded future operators.
pub fn random(rng: &mut Rng, depth: u32, future: bool) -> F {
    let leaf = depth == 0 || rng.chance(15);
    let sub = |rng: &mut Rng| Box::new(random(rng, depth.saturating_sub(1), future));
    if leaf {
        return match rng.below(20) {
            0 => F::Const(rng.chance(50)),
            _ => F::Pred(
                rng.below(EXPRS.len() as u64) as usize,
                rng.pick(&[">", ">=", "<", "<=", "==", "!="]),
                rng.pick(&[0.0, 0.5, -1.0]),
            ),
        };
    }
    match rng.below(16) {
        0 => F::Not(sub(rng)),
        1 | 2 => {
            let kids = (0..2 + rng.below(2)).map(|_| *sub(rng)).collect();
            if rng.chance(50) { F::And(kids) } else { F::Or(kids) }
        }
        3 => F::Implies(sub(rng), sub(rng)),
        4 => F::Iff(sub(rng), sub(rng)),
        5 => F::Xor(sub(rng), sub(rng)),
        6 => F::Rise(sub(rng)),
        7 => F::Fall(sub(rng)),
        8 => F::Step(rng.pick(&["X", "wX", "Y", "wY"]), sub(rng)),
        9..=11 => {
            let op = rng.pick(&["G", "F", "H", "O"]);
            let (a, b) = bounds(rng, future || matches!(op, "H" | "O"));
            F::Window(op, a, b, sub(rng))
        }
        _ => {
            let op = rng.pick(&["U", "Ui", "R", "Ri", "W", "Wi", "S", "Si"]);
            let (a, b) = bounds(rng, future || op.starts_with('S'));
            F::Binary(op, a, b, sub(rng), sub(rng))
        }
    }
}

fn interval(a: usize, b: Option<usize>) -> String {
    format!("[{a},{}]", b.map_or("inf".into(), |b| b.to_string()))
}

/// Fully parenthesised text.
pub fn text(f: &F) -> String {
    let join = |kids: &[F], op: &str| kids.iter().map(text).collect::<Vec<_>>().join(op);
    match f {
        F::Const(b) => b.to_string(),
        F::Pred(e, cmp, c) => format!("({} {cmp} {c})", EXPRS[*e]),
        F::Not(g) => format!("not {}", text(g)),
        F::And(kids) => format!("({})", join(kids, " and ")),
        F::Or(kids) => format!("({})", join(kids, " or ")),
        F::Implies(l, r) => format!("({} -> {})", text(l), text(r)),
        F::Iff(l, r) => format!("({} iff {})", text(l), text(r)),
        F::Xor(l, r) => format!("({} xor {})", text(l), text(r)),
        F::Window(op, a, b, g) => format!("{op}{} {}", interval(*a, *b), text(g)),
        F::Step(op, g) => format!("{op} {}", text(g)),
        F::Binary(op, a, b, l, r) => format!("(({}) {op}{} ({}))", text(l), interval(*a, *b), text(r)),
        F::Rise(g) => format!("rise({})", text(g)),
        F::Fall(g) => format!("fall({})", text(g)),
    }
}

/// Dyadic samples with ties, plateaus, infinities and −0.0; NaN in one trace of three.
pub fn trace(rng: &mut Rng, t: usize) -> Vec<[f64; 3]> {
    let nan = rng.chance(33);
    let mut last = [0.0; 3];
    (0..t)
        .map(|_| {
            for v in &mut last {
                *v = match rng.below(40) {
                    0 => f64::INFINITY,
                    1 => f64::NEG_INFINITY,
                    2 => -0.0,
                    3 if nan => f64::NAN,
                    4..=20 => *v,
                    _ => (rng.below(33) as f64 - 16.0) / 8.0,
                };
            }
            last
        })
        .collect()
}

pub fn same(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan()
}
