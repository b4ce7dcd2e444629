//! Robustness intervals of instants whose future is not known yet: the offline kernels over what the monitor
//! holds, once with every unknown predicate at its least value and once at its greatest.

use crate::cell::State;
use crate::engine::{NOTHING, Range, extent, lhs_extent, reads, union};
use crate::expr::{Arith, Expr, Func};
use crate::monitor::Cell;
use crate::plan::{Op, Plan, PredKind};
use crate::scalar::Scalar;
use crate::window::{Extremum, Max, Min, Scratch, UntilSpan, lanes, since, sliding, until};

/// What a sweep computes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Lo,
    Hi,
    /// 1 where a NaN was read, −∞ elsewhere.
    Flags,
}

/// The instants of the operands that the unfinished instants `lo..=hi` of `op` read. `done` is the first
/// unfinished instant: unbounded operators of the past continue from their totals.
pub(crate) fn unfinished_reads(op: &Op, done: i64, (lo, hi): Range, mut f: impl FnMut(u32, Range)) {
    match op {
        Op::Window { past: true, bounds, kid, .. } if bounds.b.is_none() => {
            f(*kid, (done - i64::from(bounds.a), hi - i64::from(bounds.a)));
        }
        Op::Until { past: true, bounds, lhs, rhs, .. } if bounds.b.is_none() => {
            f(*lhs, (done - i64::from(bounds.a), hi));
            f(*rhs, (done - i64::from(bounds.a), hi - i64::from(bounds.a)));
        }
        _ => reads(op, (lo, hi), f),
    }
}

/// Memory of the sweeps.
pub(crate) struct Sweep<S> {
    ranges: Box<[Range]>,
    buffers: Box<[Box<[S]>]>,
    suffix: Box<[S]>,
    joined: Box<[S]>,
}

impl<S: Scalar> Sweep<S> {
    /// Room for `sizes[op]` instants of each operation.
    pub(crate) fn new(sizes: &[usize]) -> Self {
        let longest = sizes.iter().copied().max().unwrap_or(0);
        let room = |n: usize| vec![S::ZERO; n].into_boxed_slice();
        Self {
            ranges: vec![NOTHING; sizes.len()].into(),
            buffers: sizes.iter().map(|n| room(*n)).collect(),
            suffix: room(longest),
            joined: room(longest),
        }
    }

    /// Scalars that [`Sweep::new`] allocates.
    pub(crate) fn scalars(sizes: &[usize]) -> usize {
        let longest = sizes.iter().copied().max().unwrap_or(0);
        sizes.iter().fold(2 * longest, |sum, n| sum.saturating_add(*n))
    }

    /// Forgets all wanted instants.
    pub(crate) fn clear(&mut self) {
        self.ranges.fill(NOTHING);
    }

    /// Asks for instants of an operation in the next [`Sweep::run`].
    pub(crate) fn want(&mut self, op: usize, range: Range) {
        self.ranges[op] = union(self.ranges[op], (range.0.max(0), range.1));
    }

    /// The value of an operation that was wanted.
    pub(crate) fn value(&self, op: usize, instant: i64) -> S {
        self.buffers[op][(instant - self.ranges[op].0) as usize]
    }

    /// Passes the wanted instants down to the operands.
    pub(crate) fn spread(&mut self, plan: &Plan, cells: &[Cell<S>]) {
        for i in (0..plan.ops.len()).rev() {
            let own = self.ranges[i];
            let done = cells[i].ring.count() as i64;
            let open = (own.0.max(done), own.1);
            if open.0 <= open.1 {
                let ranges = &mut self.ranges;
                unfinished_reads(&plan.ops[i], done, open, |kid, (lo, hi)| {
                    ranges[kid as usize] = union(ranges[kid as usize], (lo.max(0), hi));
                });
            }
        }
    }

    /// Evaluates every wanted instant.
    pub(crate) fn run(&mut self, plan: &Plan, cells: &[Cell<S>], images: &[(S, S)], side: Side) {
        for i in 0..plan.ops.len() {
            let (lo, hi) = self.ranges[i];
            if lo > hi {
                continue;
            }
            let cell = &cells[i];
            let (below, rest) = self.buffers.split_at_mut(i);
            let out = &mut rest[0][..(hi - lo + 1) as usize];
            let done = cell.ring.count() as i64;
            let known = (done - lo).clamp(0, hi - lo + 1) as usize;
            let (old, open) = out.split_at_mut(known);
            cell.ring.copy_from(lo as u64, old);
            for v in old {
                *v = match (side, v.is_nan()) {
                    (Side::Flags, true) => S::ONE,
                    (Side::Flags, false) => S::NEG_INFINITY,
                    (_, true) => S::ZERO,
                    (_, false) => *v,
                };
            }
            if open.is_empty() {
                continue;
            }
            let ranges = &self.ranges;
            let kid = |k: u32| {
                let (lo, hi) = ranges[k as usize];
                let len = (hi - lo + 1).max(0) as usize;
                (below[k as usize][..len].as_chunks::<1>().0, lo)
            };
            let scratch = Scratch {
                suffix: self.suffix.as_chunks_mut::<1>().0,
                joined: self.joined.as_chunks_mut::<1>().0,
            };
            let first = lo.max(done);
            let open = open.as_chunks_mut::<1>().0;
            open_instants(&plan.ops[i], cell, images[i], side, (first, done), kid, open, scratch);
        }
    }
}

/// The instants from `first` on of one operation; `done` is the first instant that has no value yet.
#[allow(clippy::too_many_arguments)]
fn open_instants<'a, S: Scalar>(
    op: &Op,
    cell: &Cell<S>,
    image: (S, S),
    side: Side,
    (first, done): (i64, i64),
    kid: impl Fn(u32) -> (&'a [[S; 1]], i64),
    out: &mut [[S; 1]],
    mut scratch: Scratch<S, 1>,
) {
    let count = out.len();
    let flags = side == Side::Flags;
    match op {
        Op::Const(_) | Op::Pred { .. } => out.fill(match side {
            Side::Lo => [image.0],
            Side::Hi => [image.1],
            Side::Flags => [S::NEG_INFINITY],
        }),
        Op::Fold { max, kids } => {
            for (position, k) in kids.iter().enumerate() {
                let (from, at) = kid(*k);
                let from = &from[(first - at) as usize..][..count];
                for (o, x) in out.iter_mut().zip(from) {
                    *o = match position {
                        0 => *x,
                        _ if *max || flags => lanes::<S, Max, 1>(o, x),
                        _ => lanes::<S, Min, 1>(o, x),
                    };
                }
            }
        }
        Op::Window { max, past, bounds, kid: k } => {
            let (from, at) = kid(*k);
            let (a, b) = (i64::from(bounds.a), bounds.b.map(i64::from));
            // An unbounded window continues from its total; operands that are in both do no harm.
            let (offset, width) = extent(*past, a, b);
            let total = match &cell.state {
                State::Scan { total, bad } => Some(match (flags, *bad > 0) {
                    (false, _) => *total,
                    (true, true) => S::ONE,
                    (true, false) => S::NEG_INFINITY,
                }),
                _ => None,
            };
            let offset = first + offset - at;
            let max = *max || flags;
            if max {
                sliding::<S, Max, 1>(from, offset, width, count, scratch.suffix, |i, v| out[i] = v);
            } else {
                sliding::<S, Min, 1>(from, offset, width, count, scratch.suffix, |i, v| out[i] = v);
            }
            if let Some(total) = total {
                for o in out {
                    *o = if max { lanes::<S, Max, 1>(o, &[total]) } else { lanes::<S, Min, 1>(o, &[total]) };
                }
            }
        }
        Op::Until { dual, past, inclusive, bounds, lhs, rhs } => {
            let ((p, p_at), (q, q_at)) = (kid(*lhs), kid(*rhs));
            let (a, b) = (i64::from(bounds.a), bounds.b.map(i64::from));
            if flags {
                let earlier = matches!(&cell.state, State::UntilScan { bad, .. } if *bad != [0, 0]);
                let (offset, width) = extent(*past, a, b);
                sliding::<S, Max, 1>(q, first + offset - q_at, width, count, scratch.suffix, |i, v| {
                    out[i] = if earlier { [S::ONE] } else { v };
                });
                let (offset, width) = lhs_extent(*past, *inclusive, b);
                if width > 0 {
                    sliding::<S, Max, 1>(p, first + offset - p_at, width, count, scratch.suffix, |i, v| {
                        out[i] = lanes::<S, Max, 1>(&out[i], &v);
                    });
                }
                return;
            }
            let edge = if *past { (done - a).max(0) } else { i64::MAX };
            let span = UntilSpan { lhs: p_at, rhs: q_at, out: first, a, b, edge, inclusive: *inclusive };
            let before = match &cell.state {
                State::UntilScan { total, .. } => total[1],
                _ if *dual => S::INFINITY,
                _ => S::NEG_INFINITY,
            };
            match (*past, *dual) {
                (false, false) => until::<S, Min, Max, 1>(p, q, span, out, &mut scratch),
                (false, true) => until::<S, Max, Min, 1>(p, q, span, out, &mut scratch),
                (true, false) => since::<S, Min, Max, 1>(p, q, span, before, out, &mut scratch),
                (true, true) => since::<S, Max, Min, 1>(p, q, span, before, out, &mut scratch),
            }
        }
    }
}

/// Range of each expression when every signal stays in its range.
pub(crate) fn expr_images<S: Scalar>(exprs: &[Expr], signals: &[(S, S)], params: &[S], out: &mut [(S, S)]) {
    for (i, expr) in exprs.iter().enumerate() {
        let of = |e: &crate::expr::ExprId| out[e.index()];
        out[i] = sane(match expr {
            Expr::Number(n) => (S::from_f64(n.get()), S::from_f64(n.get())),
            Expr::Param(p) => (params[*p as usize], params[*p as usize]),
            Expr::Signal(s) => signals[*s as usize],
            Expr::Neg(e) => (S::ZERO - of(e).1, S::ZERO - of(e).0),
            Expr::Binary(op, l, r) => {
                let (x, y) = (of(l), of(r));
                match op {
                    Arith::Add => (x.0 + y.0, x.1 + y.1),
                    Arith::Sub => (x.0 - y.1, x.1 - y.0),
                    Arith::Mul => corners(x, y, |a, b| a * b),
                    Arith::Div if y.0 > S::ZERO || y.1 < S::ZERO => corners(x, y, |a, b| a / b),
                    Arith::Div => unknown(),
                }
            }
            Expr::Call(func, args) => {
                let first = of(&args[0]);
                match func {
                    Func::Abs => absolute(first),
                    Func::Sqrt => (Max::of(first.0, S::ZERO).sqrt(), Max::of(first.1, S::ZERO).sqrt()),
                    Func::Sin | Func::Cos => (S::ZERO - S::ONE, S::ONE),
                    // The library's exp need not be monotone in its last bit.
                    Func::Exp => {
                        let slack = S::from_f64(4.0) * S::EPSILON;
                        (first.0.exp() * (S::ONE - slack), first.1.exp() * (S::ONE + slack))
                    }
                    Func::Min => args
                        .iter()
                        .map(of)
                        .fold((S::INFINITY, S::INFINITY), |m, x| (Min::of(m.0, x.0), Min::of(m.1, x.1))),
                    Func::Max => args.iter().map(of).fold((S::NEG_INFINITY, S::NEG_INFINITY), |m, x| {
                        (Max::of(m.0, x.0), Max::of(m.1, x.1))
                    }),
                    Func::Norm => {
                        let sum = args
                            .iter()
                            .map(|e| absolute(of(e)))
                            .fold((S::ZERO, S::ZERO), |s, x| (s.0 + x.0 * x.0, s.1 + x.1 * x.1));
                        (sum.0.sqrt(), sum.1.sqrt())
                    }
                }
            }
        });
    }
}

/// Range of each operation over an unknown future.
pub(crate) fn op_images<S: Scalar>(plan: &Plan, exprs: &[(S, S)], out: &mut [(S, S)]) {
    for (i, op) in plan.ops.iter().enumerate() {
        let of = |k: &u32| out[*k as usize];
        out[i] = sane(match op {
            Op::Const(true) => (S::INFINITY, S::INFINITY),
            Op::Const(false) => (S::NEG_INFINITY, S::NEG_INFINITY),
            Op::Pred { kind, lhs, rhs } => {
                let (l, r) = (exprs[lhs.index()], exprs[rhs.index()]);
                let difference = sane((l.0 - r.1, l.1 - r.0));
                let distance = absolute(difference);
                match kind {
                    PredKind::Difference => difference,
                    PredKind::Distance => distance,
                    PredKind::Closeness => (S::ZERO - distance.1, S::ZERO - distance.0),
                }
            }
            Op::Fold { max: true, kids } => kids
                .iter()
                .map(of)
                .fold((S::NEG_INFINITY, S::NEG_INFINITY), |m, x| (Max::of(m.0, x.0), Max::of(m.1, x.1))),
            Op::Fold { max: false, kids } => kids
                .iter()
                .map(of)
                .fold((S::INFINITY, S::INFINITY), |m, x| (Min::of(m.0, x.0), Min::of(m.1, x.1))),
            Op::Window { past: false, kid, .. } => of(kid),
            Op::Window { past: true, max: true, kid, .. } => (S::NEG_INFINITY, of(kid).1),
            Op::Window { past: true, max: false, kid, .. } => (of(kid).0, S::INFINITY),
            Op::Until { past, dual: false, lhs, rhs, .. } => {
                (if *past { S::NEG_INFINITY } else { Min::of(of(lhs).0, of(rhs).0) }, of(rhs).1)
            }
            Op::Until { past, dual: true, lhs, rhs, .. } => {
                (of(rhs).0, if *past { S::INFINITY } else { Max::of(of(lhs).1, of(rhs).1) })
            }
        });
    }
}

fn unknown<S: Scalar>() -> (S, S) {
    (S::NEG_INFINITY, S::INFINITY)
}

fn sane<S: Scalar>((lo, hi): (S, S)) -> (S, S) {
    if lo.is_nan() || hi.is_nan() { unknown() } else { (lo, hi) }
}

fn absolute<S: Scalar>((lo, hi): (S, S)) -> (S, S) {
    let (a, b) = (lo.abs(), hi.abs());
    let least = if lo <= S::ZERO && hi >= S::ZERO { S::ZERO } else { Min::of(a, b) };
    (least, Max::of(a, b))
}

fn corners<S: Scalar>(x: (S, S), y: (S, S), f: impl Fn(S, S) -> S) -> (S, S) {
    let all = [f(x.0, y.0), f(x.0, y.1), f(x.1, y.0), f(x.1, y.1)];
    if all.iter().any(|v| v.is_nan()) {
        return unknown();
    }
    all.into_iter().fold((all[0], all[0]), |m, v| (Min::of(m.0, v), Max::of(m.1, v)))
}
