//! Smooth minimum and maximum, forward and backward. A window is folded by the block kernel from parts that carry
//! their greatest value and sums relative to it, so that nothing overflows and nothing is subtracted again:
//! O(T) whatever the window. Until is the flat definition, one aggregate over t' of one over the right operand at
//! t' and the left operand before it: O(T · window).

use crate::engine::extent;
use crate::plan::{Op, OpId};
use crate::robustness::Semantics;
use crate::scalar::Scalar;
use crate::window::folds;

/// Some elements together: the greatest y, Σ w e^{β(y − top)} and Σ w (y − top) e^{β(y − top)}. On the way
/// forward every w is 1; on the way back y is minus the log-sum of a result and w its derivative.
#[derive(Clone, Copy)]
pub(crate) struct Part<S> {
    top: S,
    sum: S,
    moment: S,
}

impl<S: Scalar> Part<S> {
    pub(crate) const EMPTY: Self = Self { top: S::NEG_INFINITY, sum: S::ZERO, moment: S::ZERO };
}

/// A smooth maximum, or minimum as −max of the negatives.
#[derive(Clone, Copy)]
pub(crate) struct Soft<S> {
    sign: S,
    beta: S,
    softmax: bool,
}

impl<S: Scalar> Soft<S> {
    pub(crate) fn new(semantics: Semantics, max: bool) -> Self {
        let sign = if max { S::ONE } else { S::ZERO - S::ONE };
        match semantics {
            Semantics::Softmax { beta } => Self { sign, beta: S::from_f64(beta), softmax: true },
            Semantics::LogSumExp { beta } => Self { sign, beta: S::from_f64(beta), softmax: false },
            Semantics::True => Self { sign, beta: S::INFINITY, softmax: false },
        }
    }

    /// One element. That of an infinite one is decided by its top alone.
    pub(crate) fn leaf(self, y: S) -> Part<S> {
        let top = self.sign * y;
        let sum = if top > S::NEG_INFINITY { S::ONE } else { S::ZERO };
        Part { top, sum, moment: S::ZERO }
    }

    pub(crate) fn product(self, a: Part<S>, b: Part<S>) -> Part<S> {
        if a.top == b.top {
            return Part { top: a.top, sum: a.sum + b.sum, moment: a.moment + b.moment };
        }
        let (big, small) = if a.top > b.top { (a, b) } else { (b, a) };
        let shift = small.top - big.top;
        let scale = (self.beta * shift).exp();
        // Below it numbers lose their digits, and the processor its speed.
        if scale < S::MIN_POSITIVE {
            return big;
        }
        Part {
            top: big.top,
            sum: big.sum + small.sum * scale,
            moment: big.moment + (small.moment + shift * small.sum) * scale,
        }
    }

    /// The aggregate; that of no elements is the one of an empty window.
    pub(crate) fn value(self, p: Part<S>) -> S {
        if !p.top.is_finite() {
            return self.sign * p.top;
        }
        let above = if self.softmax { p.moment / p.sum } else { p.sum.ln() / self.beta };
        self.sign * (p.top + above)
    }

    /// Way back: what the elements of an aggregate need to know of it and of its derivative `g`.
    fn pull(self, p: Part<S>, g: S) -> Part<S> {
        let log_sum = p.top + p.sum.ln() / self.beta;
        if g.abs() < S::MIN_POSITIVE || !p.top.is_finite() || !log_sum.is_finite() {
            return Part::EMPTY;
        }
        let moment = if self.softmax { g * (p.sum.ln() / self.beta - p.moment / p.sum) } else { S::ZERO };
        Part { top: S::ZERO - log_sum, sum: g, moment }
    }

    /// Way back: the derivative that an element of value `y` gets from the aggregates in `p` that it is part of.
    /// Their log-sums are not below it, so that no exponent is positive.
    fn share(self, p: Part<S>, y: S) -> S {
        let distance = self.sign * y + p.top;
        let scale = (self.beta * distance).exp();
        if p.top == S::NEG_INFINITY || scale < S::MIN_POSITIVE || !distance.is_finite() {
            return S::ZERO;
        }
        let weight = if self.softmax { p.sum + self.beta * (distance * p.sum + p.moment) } else { p.sum };
        weight * scale
    }

    /// The part of a result: for the log-sum the value says all.
    fn fold(self, values: impl Iterator<Item = S>) -> Part<S> {
        values.fold(Part::EMPTY, |p, y| self.product(p, self.leaf(y)))
    }
}

pub(crate) fn applies(op: &Op) -> bool {
    matches!(op, Op::Fold { .. } | Op::Window { .. } | Op::Until { .. })
}

/// The values of an operand and their first instant.
pub(crate) type Kid<'a, S> = (&'a [S], i64);

/// The window of an until at one instant, nearest first.
struct Walk {
    t: i64,
    /// +1 for until, −1 for since.
    way: i64,
    /// The instant of the window nearest to `t`, and how many there are.
    near: i64,
    count: i64,
    /// 1 if the left operand need not hold at the deciding instant.
    gap: i64,
}

impl Walk {
    fn new(op: &Op, t: i64, last: i64) -> Self {
        let Op::Until { past, inclusive, bounds, .. } = op else {
            return Self { t, way: 1, near: t, count: 0, gap: 0 };
        };
        let (a, b) = (i64::from(bounds.a), bounds.b.map(i64::from));
        let gap = i64::from(!*inclusive);
        if *past {
            let from = b.map_or(0, |b| (t - b).max(0));
            Self { t, way: -1, near: t - a, count: (t - a - from + 1).max(0), gap }
        } else {
            let to = b.map_or(last, |b| (t + b).min(last));
            Self { t, way: 1, near: t + a, count: (to - t - a + 1).max(0), gap }
        }
    }

    /// Hands `each` the part of every instant of the window, nearest first.
    fn inner<S: Scalar>(&self, soft: Soft<S>, p: Kid<S>, q: Kid<S>, mut each: impl FnMut(Part<S>)) {
        let (mut held, mut next) = (Part::EMPTY, self.t);
        for i in 0..self.count {
            let s = self.near + self.way * i;
            while (s - next) * self.way >= self.gap {
                held = soft.product(held, soft.leaf(p.0[(next - p.1) as usize]));
                next += self.way;
            }
            each(soft.product(held, soft.leaf(q.0[(s - q.1) as usize])));
        }
    }
}

/// The instants from `first` on of an operation with operands.
pub(crate) fn evaluate<'a, S: Scalar>(
    op: &Op,
    semantics: Semantics,
    last: i64,
    first: i64,
    out: &mut [S],
    kid: impl Fn(OpId) -> Kid<'a, S>,
    parts: &mut Vec<Part<S>>,
) {
    match op {
        Op::Const(_) | Op::Pred { .. } => {}
        Op::Fold { max, kids } => {
            let soft = Soft::new(semantics, *max);
            for (t, out) in (first..).zip(out) {
                *out = soft.value(soft.fold(kids.iter().map(|k| {
                    let (values, at) = kid(*k);
                    values[(t - at) as usize]
                })));
            }
        }
        Op::Window { max, kid: k, .. } => {
            let soft = Soft::new(semantics, *max);
            window_parts(op, soft, first, out.len(), kid(*k), parts, |i, p| out[i] = soft.value(p));
        }
        Op::Until { dual, lhs, rhs, .. } => {
            let (outer, inner) = (Soft::new(semantics, !*dual), Soft::new(semantics, *dual));
            let (p, q) = (kid(*lhs), kid(*rhs));
            for (t, out) in (first..).zip(out) {
                let mut total = Part::EMPTY;
                Walk::new(op, t, last).inner(inner, p, q, |part| {
                    total = outer.product(total, outer.leaf(inner.value(part)));
                });
                *out = outer.value(total);
            }
        }
    }
}

/// The part of each window of an operation.
fn window_parts<S: Scalar>(
    op: &Op,
    soft: Soft<S>,
    first: i64,
    count: usize,
    (values, at): Kid<S>,
    scratch: &mut Vec<Part<S>>,
    store: impl FnMut(usize, Part<S>),
) {
    let Op::Window { past, bounds, .. } = op else { return };
    let (offset, width) = extent(*past, i64::from(bounds.a), bounds.b.map(i64::from));
    let windows = (first + offset - at, width, count);
    let element = |i: usize| soft.leaf(values[i]);
    folds(values.len(), element, windows, Part::EMPTY, |a, b| soft.product(a, b), scratch, store);
}

/// Memory of the way back.
#[derive(Default)]
pub(crate) struct Scratch<S> {
    fold: Vec<Part<S>>,
    parts: Vec<Part<S>>,
}

/// The way back through one operation: `values` and `upstream` are its values and their derivatives from instant
/// `first` on; `add(operand, instant, derivative)` takes what the operands get.
#[allow(clippy::too_many_arguments)]
pub(crate) fn reverse<'a, S: Scalar>(
    op: &Op,
    semantics: Semantics,
    last: i64,
    first: i64,
    (values, upstream): (&[S], &[S]),
    kid: impl Fn(OpId) -> Kid<'a, S>,
    scratch: &mut Scratch<S>,
    mut add: impl FnMut(OpId, i64, S),
) {
    match op {
        Op::Const(_) | Op::Pred { .. } => {}
        Op::Fold { max, kids } => {
            let soft = Soft::new(semantics, *max);
            for (t, g) in (first..).zip(upstream).filter(|(_, g)| **g != S::ZERO) {
                let value = |k: OpId| {
                    let (values, at) = kid(k);
                    values[(t - at) as usize]
                };
                let pulled = soft.pull(soft.fold(kids.iter().map(|k| value(*k))), *g);
                kids.iter().for_each(|k| add(*k, t, soft.share(pulled, value(*k))));
            }
        }
        Op::Window { max, past, bounds, kid: k } => {
            let soft = Soft::new(semantics, *max);
            let Scratch { fold, parts } = scratch;
            parts.clear();
            if soft.softmax {
                parts.resize(values.len(), Part::EMPTY);
                window_parts(op, soft, first, values.len(), kid(*k), fold, |i, p| parts[i] = p);
            } else {
                // The log-sum is the value itself.
                parts.extend(values.iter().map(|y| soft.leaf(*y)));
            }
            for (part, g) in parts.iter_mut().zip(upstream) {
                *part = soft.pull(*part, *g);
            }
            // The results that an element is part of are a window of the other direction.
            let (elements, at) = kid(*k);
            let (offset, width) = extent(!*past, i64::from(bounds.a), bounds.b.map(i64::from));
            let windows = (at + offset - first, width, elements.len());
            let product = |a, b| soft.product(a, b);
            folds(
                parts.len(),
                |i| parts[i],
                windows,
                Part::EMPTY,
                product,
                fold,
                |i, p| {
                    add(*k, at + i as i64, soft.share(p, elements[i]));
                },
            );
        }
        Op::Until { dual, lhs, rhs, .. } => {
            let (outer, inner) = (Soft::new(semantics, !*dual), Soft::new(semantics, *dual));
            let (p, q) = (kid(*lhs), kid(*rhs));
            let parts = &mut scratch.parts;
            for (t, g) in (first..).zip(upstream).filter(|(_, g)| **g != S::ZERO) {
                let walk = Walk::new(op, t, last);
                let mut total = Part::EMPTY;
                parts.clear();
                walk.inner(inner, p, q, |part| {
                    total = outer.product(total, outer.leaf(inner.value(part)));
                    parts.push(part);
                });
                let pulled = outer.pull(total, *g);
                let held = |u: i64, after| inner.share(after, p.0[(u - p.1) as usize]);
                // From the far end: a left operand counts in every aggregate beyond it.
                let mut after = Part::EMPTY;
                for (i, part) in parts.iter().enumerate().rev() {
                    let s = walk.near + walk.way * i as i64;
                    let own = inner.pull(*part, outer.share(pulled, inner.value(*part)));
                    add(*rhs, s, inner.share(own, q.0[(s - q.1) as usize]));
                    after = inner.product(after, own);
                    let u = s - walk.way * walk.gap;
                    if (u - t) * walk.way >= 0 {
                        add(*lhs, u, held(u, after));
                    }
                }
                let mut u = t;
                while !parts.is_empty() && (walk.near - u) * walk.way > walk.gap {
                    add(*lhs, u, held(u, after));
                    u += walk.way;
                }
            }
        }
    }
}
