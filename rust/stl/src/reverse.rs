//! The way back through minimum and maximum: where each value of an operation comes from. The tie rule is that of
//! the explanation: the earliest instant, then the leftmost operand; in until the smallest t', then its right
//! operand.

use crate::engine::extent;
use crate::plan::{Op, OpId};
use crate::scalar::Scalar;
use crate::smooth::Kid;
use crate::window::folds;

/// A value with its position; `NOWHERE` for the value of an empty window.
type Choice<S> = (S, u32);
const NOWHERE: u32 = u32::MAX;

/// Memory of the way back.
pub(crate) struct Scratch<S> {
    choices: Vec<Choice<S>>,
    lhs: Tree<S>,
    lhs_backward: Tree<S>,
    rhs: Tree<S>,
}

impl<S> Default for Scratch<S> {
    fn default() -> Self {
        let tree = || Tree { nodes: Vec::new(), leaves: 0 };
        Self { choices: Vec::new(), lhs: tree(), lhs_backward: tree(), rhs: tree() }
    }
}

/// Hands `add(operand, instant, derivative)` the derivative of each value of `op`, from instant `first` on.
pub(crate) fn reverse<'a, S: Scalar>(
    op: &Op,
    last: i64,
    first: i64,
    (values, upstream): (&[S], &[S]),
    kid: impl Fn(OpId) -> Kid<'a, S>,
    scratch: &mut Scratch<S>,
    mut add: impl FnMut(OpId, i64, S),
) {
    match op {
        Op::Const(_) | Op::Pred { .. } => {}
        Op::Fold { kids, .. } => {
            for ((t, v), g) in (first..).zip(values).zip(upstream).filter(|(_, g)| **g != S::ZERO) {
                let value = |k: &&OpId| {
                    let (values, at) = kid(**k);
                    values[(t - at) as usize] == *v
                };
                if let Some(k) = kids.iter().find(value) {
                    add(*k, t, *g);
                }
            }
        }
        Op::Window { max, past, bounds, kid: k } => {
            let (elements, at) = kid(*k);
            let (offset, width) = extent(*past, i64::from(bounds.a), bounds.b.map(i64::from));
            let better = |a: S, b: S| if *max { a > b } else { a < b };
            let earliest = |a: Choice<S>, b: Choice<S>| match (a.1, b.1) {
                (NOWHERE, _) => b,
                (_, NOWHERE) => a,
                _ if better(b.0, a.0) => b,
                _ => a,
            };
            let element = |i: usize| (elements[i], i as u32);
            let windows = (first + offset - at, width, values.len());
            let none = (S::ZERO, NOWHERE);
            folds(
                elements.len(),
                element,
                windows,
                none,
                earliest,
                &mut scratch.choices,
                |i, (_, chosen)| {
                    if chosen != NOWHERE && upstream[i] != S::ZERO {
                        add(*k, at + i64::from(chosen), upstream[i]);
                    }
                },
            );
        }
        Op::Until { dual, past, inclusive, bounds, lhs, rhs } => {
            let ((p, p_at), (q, q_at)) = (kid(*lhs), kid(*rhs));
            let (a, b) = (i64::from(bounds.a), bounds.b.map(i64::from));
            let gap = i64::from(!*inclusive);
            let Scratch { lhs: p_tree, lhs_backward: p_back, rhs: q_tree, .. } = scratch;
            p_tree.fill(p.iter().copied(), *dual);
            q_tree.fill(q.iter().copied(), !*dual);
            if *past {
                p_back.fill(p.iter().rev().copied(), *dual);
            }
            for ((t, &v), g) in (first..).zip(values).zip(upstream).filter(|(_, g)| **g != S::ZERO) {
                // The right operand reaches v at t'; the left one falls short of it where it is beyond.
                let reaches = |x: S| if *dual { x <= v } else { x >= v };
                let stops = |x: S| if *dual { x >= v } else { x <= v };
                let beyond = |x: S| if *dual { x > v } else { x < v };
                let (mut from, to) = crate::explain::instants(*past, (a, b), t, last);
                if from > to {
                    continue;
                }
                if *past && !p.is_empty() {
                    let newest = p.len() - 1 - (t - p_at) as usize;
                    if let Some(back) = p_back.first(newest, beyond) {
                        from = from.max(p_at + (p.len() - 1 - back) as i64 + 1 - gap);
                    }
                }
                // Nothing in the window exceeds v, and the left operand holds v until some t' where the right one
                // does: the smallest t' is the first at which the right one does.
                let Some(chosen) = q_tree.first((from - q_at) as usize, reaches) else { continue };
                let s = q_at + chosen as i64;
                if q[chosen] == v {
                    add(*rhs, s, *g);
                    continue;
                }
                let held = if *past { s + gap } else { t };
                if let Some(u) = p_tree.first((held - p_at) as usize, stops) {
                    add(*lhs, p_at + u as i64, *g);
                }
            }
        }
    }
}

/// Finds the first of many values, from a place on, that meets a bound; logarithmic in the distance.
struct Tree<S> {
    /// Node i holds the extremum of nodes 2i and 2i + 1; the values are the nodes from `leaves` on.
    nodes: Vec<S>,
    leaves: usize,
}

impl<S: Scalar> Tree<S> {
    fn fill(&mut self, values: impl ExactSizeIterator<Item = S>, max: bool) {
        self.leaves = values.len().next_power_of_two();
        let empty = if max { S::NEG_INFINITY } else { S::INFINITY };
        self.nodes.clear();
        self.nodes.resize(2 * self.leaves, empty);
        for (slot, value) in self.nodes[self.leaves..].iter_mut().zip(values) {
            *slot = value;
        }
        for i in (1..self.leaves).rev() {
            let (a, b) = (self.nodes[2 * i], self.nodes[2 * i + 1]);
            self.nodes[i] = if (a > b) == max { a } else { b };
        }
    }

    /// `meets` must hold for an extremum exactly if it holds for one of its values.
    fn first(&self, from: usize, meets: impl Fn(S) -> bool) -> Option<usize> {
        let mut i = self.leaves + from;
        while !meets(*self.nodes.get(i)?) {
            // The next subtree to the right: below the first ancestor that this one is left of.
            while i % 2 == 1 {
                i /= 2;
            }
            if i == 0 {
                return None;
            }
            i += 1;
        }
        while i < self.leaves {
            i = if meets(self.nodes[2 * i]) { 2 * i } else { 2 * i + 1 };
        }
        Some(i - self.leaves)
    }
}
