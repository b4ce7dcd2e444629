//! Smooth minimum and maximum, from the definitions: one n-ary aggregate per window, for until one over t' of
//! one over the right operand at t' and the left operand before it.

use crate::plan::{Op, OpId};
use crate::robustness::Semantics;
use crate::scalar::Scalar;

/// A smooth maximum (or minimum, as −max of the negatives) of the values it was made of.
#[derive(Clone, Copy)]
pub(crate) struct Soft<S> {
    sign: S,
    beta: S,
    softmax: bool,
    /// Greatest value, and Σ e^{β(y − top)}.
    top: S,
    sum: S,
    /// The aggregate; an empty one is that of an empty window.
    pub(crate) value: S,
}

impl<S: Scalar> Soft<S> {
    pub(crate) fn of(semantics: Semantics, max: bool, values: impl Iterator<Item = S> + Clone) -> Self {
        let sign = if max { S::ONE } else { S::ZERO - S::ONE };
        let (beta, softmax) = match semantics {
            Semantics::Softmax { beta } => (S::from_f64(beta), true),
            Semantics::LogSumExp { beta } => (S::from_f64(beta), false),
            Semantics::True => (S::INFINITY, false),
        };
        let signed = values.map(|y| sign * y);
        let top = signed.clone().fold(S::NEG_INFINITY, |m, y| if y > m { y } else { m });
        let mut soft = Self { sign, beta, softmax, top, sum: S::ZERO, value: sign * top };
        if !top.is_finite() {
            return soft;
        }
        let mut weighted = S::ZERO;
        // An element of −∞ has no weight.
        for y in signed.filter(|y| *y > S::NEG_INFINITY) {
            let e = (beta * (y - top)).exp();
            soft.sum = soft.sum + e;
            weighted = weighted + e * y;
        }
        let value = if softmax { weighted / soft.sum } else { top + soft.sum.ln() / beta };
        soft.value = sign * value;
        soft
    }

    /// Derivative of the aggregate with respect to an element of value `y`.
    pub(crate) fn weight(&self, y: S) -> S {
        let y = self.sign * y;
        if !self.top.is_finite() || y == S::NEG_INFINITY {
            return S::ZERO;
        }
        let share = (self.beta * (y - self.top)).exp() / self.sum;
        if self.softmax { share * (S::ONE + self.beta * (y - self.sign * self.value)) } else { share }
    }
}

pub(crate) fn applies(op: &Op) -> bool {
    matches!(op, Op::Fold { .. } | Op::Window { .. } | Op::Until { .. })
}

/// Instants of a window around `t`, cut at the trace.
pub(crate) fn instants(past: bool, (a, b): (i64, Option<i64>), t: i64, last: i64) -> (i64, i64) {
    if past {
        (b.map_or(0, |b| (t - b).max(0)), t - a)
    } else {
        (t + a, b.map_or(last, |b| (t + b).min(last)))
    }
}

/// Instants at which until needs its left operand if its right one decides at `s`.
pub(crate) fn held(past: bool, inclusive: bool, t: i64, s: i64) -> (i64, i64) {
    let extra = i64::from(!inclusive);
    if past { (s + extra, t) } else { (t, s - extra) }
}

/// The instants from `first` on of an operation with operands.
pub(crate) fn evaluate<S: Scalar>(
    op: &Op,
    semantics: Semantics,
    last: i64,
    first: i64,
    out: &mut [S],
    value: impl Fn(OpId, i64) -> S,
) {
    let value = &value;
    for (t, out) in (first..).zip(out) {
        *out = match op {
            Op::Fold { max, kids } => Soft::of(semantics, *max, kids.iter().map(|k| value(*k, t))).value,
            Op::Window { max, past, bounds, kid } => {
                let (from, to) = instants(*past, (i64::from(bounds.a), bounds.b.map(i64::from)), t, last);
                Soft::of(semantics, *max, (from..=to).map(|s| value(*kid, s))).value
            }
            Op::Until { dual, past, inclusive, bounds, lhs, rhs } => {
                let (from, to) = instants(*past, (i64::from(bounds.a), bounds.b.map(i64::from)), t, last);
                let at = |s: i64| {
                    let (low, high) = held(*past, *inclusive, t, s);
                    let before = (low..=high).map(|u| value(*lhs, u));
                    Soft::of(semantics, *dual, std::iter::once(value(*rhs, s)).chain(before)).value
                };
                Soft::of(semantics, !*dual, (from..=to).map(at)).value
            }
            Op::Const(_) | Op::Pred { .. } => *out,
        };
    }
}
