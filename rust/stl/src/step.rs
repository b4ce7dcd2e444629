//! One step of the streaming operators, and their values when the trace ends.

use crate::bounds::{Side, Sweep};
use crate::cell::{Bad, HalfBlock, State, since_product, until_product};
use crate::formula::Bounds;
use crate::monitor::Cell;
use crate::plan::{Op, Plan};
use crate::scalar::Scalar;
use crate::window::{Extremum, Max, Min};

/// `value` without NaN; what stands in for it is only read by results that are NaN themselves.
fn clean<S: Scalar>(value: S, instant: u64, bad: &mut Bad) -> S {
    if value.is_nan() {
        *bad = instant + 1;
        S::ZERO
    } else {
        value
    }
}

pub(crate) fn extremum<S: Scalar>(max: bool) -> fn(S, S) -> S {
    if max { Max::of } else { Min::of }
}

pub(crate) fn empty<S: Scalar>(max: bool) -> S {
    if max { S::NEG_INFINITY } else { S::INFINITY }
}

/// Feeds step `n` of a trace of `end` samples to an operation that has operands; its value at instant
/// `n − delay`, if that instant exists.
pub(crate) fn step<S: Scalar>(op: &Op, below: &[Cell<S>], cell: &mut Cell<S>, n: u64, end: u64) -> Option<S> {
    let own = n.checked_sub(cell.delay).filter(|t| *t < end && !cell.late);
    match op {
        Op::Const(_) | Op::Pred { .. } => None,
        Op::Fold { max, kids } => {
            let t = own?;
            let of = extremum::<S>(*max);
            let mut value = empty(*max);
            for k in kids {
                let v = below[*k as usize].ring.get(t);
                if v.is_nan() {
                    return Some(S::NAN);
                }
                value = of(value, v);
            }
            Some(value)
        }
        Op::Window { max: false, past, bounds, kid } => {
            step_window::<S, Min>(*past, *bounds, &below[*kid as usize], cell, n, end)
        }
        Op::Window { max: true, past, bounds, kid } => {
            step_window::<S, Max>(*past, *bounds, &below[*kid as usize], cell, n, end)
        }
        Op::Until { dual: false, .. } => step_until::<S, Min, Max>(op, below, cell, n, end),
        Op::Until { dual: true, .. } => step_until::<S, Max, Min>(op, below, cell, n, end),
    }
}

#[inline]
fn step_window<S: Scalar, E: Extremum<S>>(
    past: bool,
    bounds: Bounds,
    kid: &Cell<S>,
    cell: &mut Cell<S>,
    n: u64,
    end: u64,
) -> Option<S> {
    let own = n.checked_sub(cell.delay).filter(|t| *t < end && !cell.late);
    let a = u64::from(bounds.a);
    // The newest instant in the window.
    let newest = if past { own?.checked_sub(a) } else { n.checked_sub(kid.delay) };
    match &mut cell.state {
        State::Window { block, bad, start } => {
            let mut fold = E::EMPTY;
            if let Some(s) = newest {
                let v = if s < end { clean(kid.ring.get(s), s, bad) } else { fold };
                if s >= a && bounds.b.is_some_and(|b| s <= u64::from(b)) {
                    *start = E::of(*start, v);
                }
                fold = block.push(v, E::of);
            }
            let t = own?;
            let oldest = if past { t.saturating_sub(u64::from(bounds.b?)) } else { t + a };
            Some(if *bad > oldest { S::NAN } else { fold })
        }
        State::Scan { total, bad } => {
            if let Some(s) = newest.filter(|s| *s < end && (past || *s >= a)) {
                *total = E::of(*total, clean(kid.ring.get(s), s, bad));
            }
            own?;
            Some(if *bad > 0 { S::NAN } else { *total })
        }
        _ => None,
    }
}

#[inline]
fn step_until<S: Scalar, A: Extremum<S>, O: Extremum<S>>(
    op: &Op,
    below: &[Cell<S>],
    cell: &mut Cell<S>,
    n: u64,
    end: u64,
) -> Option<S> {
    let Op::Until { past, inclusive, bounds, lhs, rhs, .. } = op else { return None };
    let (p, q) = (&below[*lhs as usize], &below[*rhs as usize]);
    let (a, b) = (u64::from(bounds.a), bounds.b.map(u64::from));
    let own = n.checked_sub(cell.delay).filter(|t| *t < end && !cell.late);
    let join = |p: S, q: S| if *inclusive { A::of(p, q) } else { q };
    if *past {
        let t = own?;
        let now = |bad: &mut Bad| clean(p.ring.get(t), t, bad);
        // The pair a steps ago, which enters the window now.
        let entering = |bad: &mut [Bad; 2]| {
            t.checked_sub(a).map(|s| {
                let left = p.ring.get(s);
                let left = if left.is_nan() { S::ZERO } else { left };
                let right = clean(q.ring.get(s), s, &mut bad[1]);
                [left, join(left, right)]
            })
        };
        return Some(match &mut cell.state {
            State::Until { pairs, guard, bad, .. } => {
                let b = b?;
                let now = now(&mut bad[0]);
                let fold = entering(bad).map_or(O::EMPTY, |x| pairs.push(x, since_product::<S, A, O>)[1]);
                let kept = guard.as_mut().map_or(A::EMPTY, |g| g.push(now, A::of));
                let left_from = (t + u64::from(!*inclusive)).saturating_sub(b);
                let faulty = bad[0] > left_from || bad[1] > t.saturating_sub(b);
                if faulty { S::NAN } else { A::of(kept, fold) }
            }
            State::UntilScan { total, guard, bad } => {
                let now = now(&mut bad[0]);
                if let Some([left, right]) = entering(bad) {
                    total[1] = O::of(right, A::of(left, total[1]));
                }
                let kept = guard.as_mut().map_or(A::EMPTY, |g| g.push(now, A::of));
                if *bad == [0, 0] { A::of(kept, total[1]) } else { S::NAN }
            }
            _ => return None,
        });
    }
    // The newest instant that both operands have reached.
    let s = n.checked_sub(p.delay.max(q.delay))?;
    match &mut cell.state {
        State::Until { pairs, guard, bad, start } => {
            let b = b?;
            let width = b - a + 1;
            let before = bad[0];
            let pair = if s < end {
                let left = clean(p.ring.get(s), s, &mut bad[0]);
                [left, join(left, clean(q.ring.get(s), s, &mut bad[1]))]
            } else {
                [A::EMPTY, O::EMPTY]
            };
            if s <= b {
                let right = if s >= a { pair[1] } else { O::EMPTY };
                *start = until_product::<S, A, O>(*start, [pair[0], right]);
            }
            let fold = pairs.push(pair, until_product::<S, A, O>)[1];
            let mut kept = A::EMPTY;
            if let (Some(guard), Some(s)) = (guard, s.checked_sub(width)) {
                let left = if s < end { p.ring.get(s) } else { A::EMPTY };
                kept = guard.push(if left.is_nan() { S::ZERO } else { left }, A::of);
            }
            let t = own?;
            // The exclusive form does not read its left operand at the last instant of the window.
            let left_bad = if *inclusive { bad[0] } else { before };
            Some(if left_bad > t || bad[1] > t + a { S::NAN } else { A::of(kept, fold) })
        }
        State::UntilScan { total, bad, .. } if s < end => {
            let left = clean(p.ring.get(s), s, &mut bad[0]);
            let right = if s >= a { join(left, clean(q.ring.get(s), s, &mut bad[1])) } else { O::EMPTY };
            *total = until_product::<S, A, O>(*total, [left, right]);
            None
        }
        _ => None,
    }
}

/// Empties the rings and windows.
pub(crate) fn reset<S: Scalar>(cell: &mut Cell<S>) {
    cell.ring.reset();
    match &mut cell.state {
        State::Point | State::Scan { .. } => {}
        State::Window { block, bad, .. } => {
            block.reset();
            *bad = 0;
        }
        State::Until { pairs, guard, bad, .. } => {
            pairs.reset();
            guard.iter_mut().for_each(HalfBlock::reset);
            *bad = [0, 0];
        }
        State::UntilScan { guard, bad, .. } => {
            guard.iter_mut().for_each(HalfBlock::reset);
            *bad = [0, 0];
        }
    }
}

/// Brings running totals back to those of an empty window.
pub(crate) fn restart<S: Scalar>(cell: &mut Cell<S>, op: &Op) {
    match (&mut cell.state, op) {
        (State::Scan { total, bad }, Op::Window { max, .. }) => (*total, *bad) = (empty(*max), 0),
        (State::Window { start, .. }, Op::Window { max, .. }) => *start = empty(*max),
        (State::UntilScan { total, .. } | State::Until { start: total, .. }, Op::Until { dual, .. }) => {
            *total = [empty(*dual), empty(!*dual)];
        }
        _ => {}
    }
}

/// Asks the sweep for the operands of the operations that close with the trace.
pub(crate) fn late_wants<S: Scalar>(plan: &Plan, cells: &[Cell<S>], steps: u64, sweep: &mut Sweep<S>) {
    let last = steps as i64 - 1;
    for (op, cell) in plan.ops.iter().zip(cells) {
        if !cell.late {
            continue;
        }
        match op {
            Op::Fold { kids, .. } => {
                for k in kids.iter().filter(|k| !cells[**k as usize].late) {
                    if cells[*k as usize].ring.count() == 0 {
                        sweep.want(*k as usize, (0, 0));
                    }
                }
            }
            Op::Window { kid, .. } => {
                sweep.want(*kid as usize, (cells[*kid as usize].ring.count() as i64, last))
            }
            Op::Until { lhs, rhs, .. } => {
                let first = joint_count(cells, *lhs, *rhs);
                sweep.want(*lhs as usize, (first, last));
                sweep.want(*rhs as usize, (first, last));
            }
            Op::Const(_) | Op::Pred { .. } => {}
        }
    }
}

/// Instants for which both operands have values.
fn joint_count<S: Scalar>(cells: &[Cell<S>], lhs: u32, rhs: u32) -> i64 {
    cells[lhs as usize].ring.count().min(cells[rhs as usize].ring.count()) as i64
}

/// The value at instant 0 of operation `i`, which closes with the trace: the final one, or with `open` one side
/// of its interval. `below` holds those of earlier operations.
pub(crate) fn late_value<S: Scalar>(
    op: &Op,
    cells: &[Cell<S>],
    i: usize,
    below: &[S],
    open: Option<(Side, &Sweep<S>)>,
    images: &[(S, S)],
    steps: u64,
) -> S {
    let side = open.map(|(side, _)| side);
    let flags = side == Some(Side::Flags);
    // What is known, as the pass wants it.
    let known = |value: S, faulty: bool| match (side, faulty) {
        (Some(Side::Flags), true) => S::ONE,
        (Some(Side::Flags), false) => S::NEG_INFINITY,
        (None, true) => S::NAN,
        _ => value,
    };
    // An operand's least or greatest value after the last sample.
    let tail = |k: u32| match side {
        Some(Side::Lo) => images[k as usize].0,
        Some(Side::Hi) => images[k as usize].1,
        _ => S::NEG_INFINITY,
    };
    match op {
        Op::Fold { max, kids } => {
            let of = extremum::<S>(*max || flags);
            let mut value = empty(*max || flags);
            for k in kids {
                let kid = &cells[*k as usize];
                let v = match open {
                    _ if kid.late => below[*k as usize],
                    Some((_, sweep)) if kid.ring.count() == 0 => sweep.value(*k as usize, 0),
                    _ => known(kid.first, kid.first.is_nan()),
                };
                if v.is_nan() {
                    return S::NAN;
                }
                value = of(value, v);
            }
            value
        }
        Op::Window { max, bounds, kid, .. } => {
            let State::Scan { total, bad } = &cells[i].state else { return S::NAN };
            let of = extremum::<S>(*max || flags);
            let mut value = known(*total, *bad > 0);
            if let Some((side, sweep)) = open {
                for t in cells[*kid as usize].ring.count().max(u64::from(bounds.a))..steps {
                    value = of(value, sweep.value(*kid as usize, t as i64));
                }
                // More samples can only lower a minimum and raise a maximum.
                if (side == Side::Hi) == *max {
                    value = of(value, tail(*kid));
                }
            }
            value
        }
        Op::Until { dual, bounds, inclusive, lhs, rhs, .. } => {
            let State::UntilScan { total, bad, .. } = &cells[i].state else { return S::NAN };
            let faulty = *bad != [0, 0];
            let Some((side, sweep)) = open else { return known(total[1], faulty) };
            let first = joint_count(cells, *lhs, *rhs);
            if flags {
                let mut value = known(total[1], faulty);
                for t in first..steps as i64 {
                    value = Max::of(value, sweep.value(*lhs as usize, t));
                    if t >= i64::from(bounds.a) {
                        value = Max::of(value, sweep.value(*rhs as usize, t));
                    }
                }
                return value;
            }
            let product = if *dual { until_product::<S, Max, Min> } else { until_product::<S, Min, Max> };
            let of = extremum::<S>(*dual);
            let mut value = *total;
            for t in first..steps as i64 {
                let left = sweep.value(*lhs as usize, t);
                let right = match t >= i64::from(bounds.a) {
                    true if *inclusive => of(left, sweep.value(*rhs as usize, t)),
                    true => sweep.value(*rhs as usize, t),
                    false => empty(!*dual),
                };
                value = product(value, [left, right]);
            }
            if (side == Side::Hi) != *dual {
                value = product(
                    value,
                    [tail(*lhs), if *inclusive { of(tail(*lhs), tail(*rhs)) } else { tail(*rhs) }],
                );
            }
            value[1]
        }
        Op::Const(_) | Op::Pred { .. } => S::NAN,
    }
}
