//! The path from a formula to the one predicate value that decides its robustness. It is also the path of the
//! subgradient: minimum and maximum copy a value, so the argument is where the equal value stands.

use std::fmt;

use crate::engine::{Job, Room, run_kept};
use crate::expr::Expr;
use crate::formula::{Formula, Node, NodeId};
use crate::plan::{Op, OpId};
use crate::print::{head, number_text};
use crate::scalar::Scalar;
use crate::window::{Extremum, Max, Min};

/// Why a trace has its robustness.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation<S> {
    /// ρ; NaN if a NaN was read, and then there is no path.
    pub robustness: S,
    /// The deciding conjunct: its position in [`Formula::conjuncts`].
    pub conjunct: Option<usize>,
    /// The deciding predicate; `None` if an empty window or a constant decides.
    pub predicate: Option<NodeId>,
    /// The instant at which it is read.
    pub step: usize,
    /// Its signals and their values there.
    pub values: Vec<(String, S)>,
    /// Nodes and instants from the formula to the predicate.
    pub path: Vec<(NodeId, usize)>,
    summary: String,
}

/// One line, as `violated by 0.12: gap > $d at step 41 (G[0,100] → and[1])`.
impl<S> fmt::Display for Explanation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)
    }
}

pub(crate) fn explain<S: Scalar>(
    f: &Formula,
    job: &Job<S>,
    trace: usize,
    room: &mut Room<S>,
) -> Explanation<S> {
    let mut result = [S::NAN];
    run_kept(job, trace, room, &mut result);
    let robustness = result[0];
    let start = (job.plan.root() as OpId, job.range.0);
    let mut found = Explanation {
        robustness,
        conjunct: None,
        predicate: None,
        step: start.1 as usize,
        values: Vec::new(),
        path: Vec::new(),
        summary: "fault: a predicate value is NaN".to_owned(),
    };
    if robustness.is_nan() {
        return found;
    }
    let last = job.x.length(trace) as i64 - 1;
    let mut at = Some(start);
    let mut end = start;
    while let Some((op, t)) = at {
        end = (op, t);
        let step = (NodeId(job.plan.node_of[op as usize]), t as usize);
        if found.path.last() != Some(&step) {
            found.path.push(step);
        }
        at = descend(&job.plan.ops[op as usize], t, last, room.value(op, t), |k, t| room.value(k, t));
    }
    let (op, t) = end;
    found.step = t as usize;
    if let Op::Pred { .. } = &job.plan.ops[op as usize] {
        found.predicate = Some(NodeId(job.plan.node_of[op as usize]));
        let row = (trace * job.x.t + found.step) * job.x.d;
        for e in &job.plan.registers[op as usize] {
            if let Expr::Signal(s) = &job.exprs[e.index()] {
                found.values.push((f.signals()[*s as usize].clone(), job.x.data[row + *s as usize]));
            }
        }
    }
    let conjuncts = f.conjuncts();
    found.conjunct = found.path.iter().take(2).find_map(|(node, _)| conjuncts.iter().position(|c| c == node));
    found.summary = summary(f, &found);
    found
}

fn summary<S: Scalar>(f: &Formula, e: &Explanation<S>) -> String {
    let rho = e.robustness.to_f64();
    let verdict = match rho.partial_cmp(&0.0) {
        Some(std::cmp::Ordering::Greater) => format!("satisfied by {}", number_text(rho)),
        Some(std::cmp::Ordering::Less) => format!("violated by {}", number_text(-rho)),
        _ => "on the boundary".to_owned(),
    };
    let way: Vec<String> = (e.path.windows(2))
        .map(|pair| {
            let (node, next) = (pair[0].0, pair[1].0);
            match &f.nodes()[node.index()] {
                Node::And(kids) | Node::Or(kids) => match kids.iter().position(|k| *k == next) {
                    Some(i) => format!("{}[{i}]", head(f, node)),
                    None => head(f, node),
                },
                _ => head(f, node),
            }
        })
        .collect();
    let way = if way.is_empty() { String::new() } else { format!(" ({})", way.join(" → ")) };
    let what = e.path.last().map_or_else(String::new, |(node, _)| head(f, *node));
    let what = if e.predicate.is_some() { what } else { format!("the empty window of {what}") };
    format!("{verdict}: {what} at step {}{way}", e.step)
}

/// Where the value `v` of an operation at instant `t` comes from. `None` for leaves and empty windows. The tie
/// rule: the earliest instant, then the leftmost operand; in until the smallest t', then its right operand.
pub(crate) fn descend<S: Scalar>(
    op: &Op,
    t: i64,
    last: i64,
    v: S,
    value: impl Fn(OpId, i64) -> S,
) -> Option<(OpId, i64)> {
    match op {
        Op::Const(_) | Op::Pred { .. } => None,
        Op::Fold { kids, .. } => kids.iter().find(|k| value(**k, t) == v).map(|k| (*k, t)),
        Op::Window { past, bounds, kid, .. } => {
            let (a, b) = (i64::from(bounds.a), bounds.b.map(i64::from));
            let (from, to) = instants(*past, (a, b), t, last);
            (from..=to).find(|s| value(*kid, *s) == v).map(|s| (*kid, s))
        }
        Op::Until { dual: false, .. } => descend_until::<S, Min>(op, t, last, v, value),
        Op::Until { dual: true, .. } => descend_until::<S, Max>(op, t, last, v, value),
    }
}

/// Instants of a window around `t`, cut at the trace.
pub(crate) fn instants(past: bool, (a, b): (i64, Option<i64>), t: i64, last: i64) -> (i64, i64) {
    if past {
        (b.map_or(0, |b| (t - b).max(0)), t - a)
    } else {
        (t + a, b.map_or(last, |b| (t + b).min(last)))
    }
}

fn descend_until<S: Scalar, A: Extremum<S>>(
    op: &Op,
    t: i64,
    last: i64,
    v: S,
    value: impl Fn(OpId, i64) -> S,
) -> Option<(OpId, i64)> {
    let Op::Until { past, inclusive, bounds, lhs, rhs, .. } = op else { return None };
    let (a, b) = (i64::from(bounds.a), bounds.b.map(i64::from));
    let extra = i64::from(*inclusive);
    // The deciding instant t', and the instants at which the left operand must hold for it.
    let mut decided = None;
    let mut held = A::EMPTY;
    if *past {
        let mut next = t;
        for s in (b.map_or(0, |b| (t - b).max(0))..=t - a).rev() {
            while next >= s + 1 - extra {
                held = A::of(value(*lhs, next), held);
                next -= 1;
            }
            if A::of(value(*rhs, s), held) == v {
                decided = Some((s, (s + 1 - extra, t)));
            }
        }
    } else {
        let mut next = t;
        for s in t + a..=b.map_or(last, |b| (t + b).min(last)) {
            while next < s + extra {
                held = A::of(held, value(*lhs, next));
                next += 1;
            }
            if A::of(value(*rhs, s), held) == v {
                decided = Some((s, (t, s - 1 + extra)));
                break;
            }
        }
    }
    let (s, (from, to)) = decided?;
    if value(*rhs, s) == v {
        return Some((*rhs, s));
    }
    (from..=to).find(|s| value(*lhs, *s) == v).map(|s| (*lhs, s))
}
