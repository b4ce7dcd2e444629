//! The interval of each operation's first pending instant, from those of its operands: the part of the window
//! that is final is already folded, so that a few products per operation do, whatever the windows.

use crate::cell::{State, since_product, until_product};
use crate::monitor::Cell;
use crate::plan::{Op, Plan};
use crate::scalar::Scalar;
use crate::step::{empty, extremum};
use crate::window::{Extremum, Max, Min};

/// What the value at the first pending instant can become.
#[derive(Clone, Copy)]
pub(crate) struct Edge<S> {
    pub(crate) lo: S,
    pub(crate) hi: S,
    /// A NaN was read.
    pub(crate) bad: bool,
    /// Later instants look the same: nothing below has seen a sample of them.
    uniform: bool,
}

/// Brings the edges up to the last sample. `None` where more than one pending instant of an operand matters:
/// while the first windows of nested operators fill.
pub(crate) fn refresh<S: Scalar>(
    plan: &Plan,
    cells: &[Cell<S>],
    images: &[(S, S)],
    edges: &mut [Option<Edge<S>>],
) {
    for (i, op) in plan.ops.iter().enumerate() {
        let (below, rest) = edges.split_at_mut(i);
        rest[0] = match op {
            Op::Const(_) | Op::Pred { .. } => {
                Some(Edge { lo: images[i].0, hi: images[i].1, bad: false, uniform: true })
            }
            Op::Fold { max, kids } => fold(*max, kids, &cells[i], cells, below),
            Op::Window { .. } => window(op, &cells[i], cells, below),
            Op::Until { dual: false, .. } => until::<S, Min, Max>(op, &cells[i], cells, below),
            Op::Until { dual: true, .. } => until::<S, Max, Min>(op, &cells[i], cells, below),
        };
    }
}

/// Both sides of a value that is computed from others.
fn both<S: Scalar>(bad: bool, f: impl Fn(fn(&Edge<S>) -> S) -> S) -> Option<Edge<S>> {
    Some(Edge { lo: f(|e| e.lo), hi: f(|e| e.hi), bad, uniform: false })
}

/// An operand at an instant: final, or its first pending one, or one of many that look the same.
fn read<S: Scalar>(k: u32, s: u64, cells: &[Cell<S>], below: &[Option<Edge<S>>]) -> Option<Edge<S>> {
    let ring = &cells[k as usize].ring;
    if s >= ring.count() {
        return below[k as usize].filter(|e| s == ring.count() || e.uniform);
    }
    let v = ring.get(s);
    let bad = v.is_nan();
    let v = if bad { S::ZERO } else { v };
    Some(Edge { lo: v, hi: v, bad, uniform: false })
}

fn fold<S: Scalar>(
    max: bool,
    kids: &[u32],
    cell: &Cell<S>,
    cells: &[Cell<S>],
    below: &[Option<Edge<S>>],
) -> Option<Edge<S>> {
    let (of, none) = (extremum::<S>(max), empty(max));
    let mut all = Edge { lo: none, hi: none, bad: false, uniform: true };
    for k in kids {
        let e = read(*k, cell.ring.count(), cells, below)?;
        all = Edge {
            lo: of(all.lo, e.lo),
            hi: of(all.hi, e.hi),
            bad: all.bad | e.bad,
            uniform: all.uniform & e.uniform,
        };
    }
    Some(all)
}

fn window<S: Scalar>(
    op: &Op,
    cell: &Cell<S>,
    cells: &[Cell<S>],
    below: &[Option<Edge<S>>],
) -> Option<Edge<S>> {
    let Op::Window { max, past, bounds, kid } = op else { return None };
    let (t, a) = (cell.ring.count(), u64::from(bounds.a));
    let (of, none) = (extremum::<S>(*max), empty::<S>(*max));
    match &cell.state {
        State::Window { block, bad, .. } if *past => {
            let oldest = t.saturating_sub(u64::from(bounds.b?));
            let Some(s) = t.checked_sub(a) else { return both(false, |_| none) };
            let e = read(*kid, s, cells, below)?;
            both(e.bad || *bad > oldest, |side| block.peek(side(&e), of))
        }
        State::Scan { total, bad } if *past => {
            let Some(s) = t.checked_sub(a) else { return both(false, |_| none) };
            let e = read(*kid, s, cells, below)?;
            both(e.bad || *bad > 0, |side| of(*total, side(&e)))
        }
        State::Window { block, bad, start } => {
            let (done, last) = (cells[*kid as usize].ring.count(), t + u64::from(bounds.b?));
            let e = read(*kid, done.max(t + a), cells, below).filter(|e| done == last || e.uniform)?;
            let bad = e.bad || *bad > t + a;
            match t {
                0 => both(bad, |side| of(*start, side(&e))),
                _ => both(bad, |side| block.peek(side(&e), of)),
            }
        }
        _ => None,
    }
}

fn until<S: Scalar, A: Extremum<S>, O: Extremum<S>>(
    op: &Op,
    cell: &Cell<S>,
    cells: &[Cell<S>],
    below: &[Option<Edge<S>>],
) -> Option<Edge<S>> {
    let Op::Until { past, inclusive, bounds, lhs, rhs, .. } = op else { return None };
    let (t, a, b) = (cell.ring.count(), u64::from(bounds.a), bounds.b.map(u64::from));
    let join = |p: S, q: S| if *inclusive { A::of(p, q) } else { q };
    let read = |k: u32, s: u64| read(k, s, cells, below);
    let nothing = Edge { lo: A::EMPTY, hi: A::EMPTY, bad: false, uniform: false };
    if *past {
        let now = read(*lhs, t)?;
        let entering = match t.checked_sub(a) {
            Some(s) => Some((read(*lhs, s)?, read(*rhs, s)?)),
            None => None,
        };
        let right_bad = entering.is_some_and(|(_, q)| q.bad);
        return match &cell.state {
            State::Until { pairs, guard, bad, .. } => {
                let b = b?;
                let left_from = (t + u64::from(!*inclusive)).saturating_sub(b);
                let left_bad = bad[0] > left_from || now.bad && t + 1 > left_from;
                both(left_bad || right_bad || bad[1] > t.saturating_sub(b), |side| {
                    let fold = entering.map_or(O::EMPTY, |(p, q)| {
                        pairs.peek([side(&p), join(side(&p), side(&q))], since_product::<S, A, O>)[1]
                    });
                    A::of(guard.as_ref().map_or(A::EMPTY, |g| g.peek(side(&now), A::of)), fold)
                })
            }
            State::UntilScan { total, guard, bad } => both(now.bad || right_bad || *bad != [0, 0], |side| {
                let total = entering
                    .map_or(total[1], |(p, q)| O::of(join(side(&p), side(&q)), A::of(side(&p), total[1])));
                A::of(guard.as_ref().map_or(A::EMPTY, |g| g.peek(side(&now), A::of)), total)
            }),
            _ => None,
        };
    }
    let State::Until { pairs, guard, bad, start } = &cell.state else { return None };
    let (b, done) = (b?, cells[*lhs as usize].ring.count().min(cells[*rhs as usize].ring.count()));
    let product = until_product::<S, A, O>;
    let q = read(*rhs, done.max(t + a))?;
    let known_bad = q.bad || bad[0] > t || bad[1] > t + a;
    if done < t + b {
        let p = read(*lhs, done).filter(|p| p.uniform && q.uniform && t == 0)?;
        return both(known_bad, |side| {
            let mut total = *start;
            if done < a {
                total = product(total, [side(&p), O::EMPTY]);
            }
            product(total, [side(&p), join(side(&p), side(&q))])[1]
        });
    }
    // The exclusive form does not read its left operand at the last instant of the window.
    let p = if *inclusive { read(*lhs, done)? } else { nothing };
    let leaving = match (guard, done.checked_sub(b - a + 1)) {
        (Some(_), Some(s)) if t > 0 => read(*lhs, s)?,
        _ => nothing,
    };
    both(known_bad || p.bad, |side| {
        let pair = [side(&p), join(side(&p), side(&q))];
        if t == 0 {
            return product(*start, pair)[1];
        }
        let kept = guard.as_ref().map_or(A::EMPTY, |g| g.peek(side(&leaving), A::of));
        A::of(kept, pairs.peek(pair, product)[1])
    })
}
