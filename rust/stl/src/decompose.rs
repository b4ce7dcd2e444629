//! A formula as timed subgoals: which region to reach when, and which to stay in from when to when.
//!
//! Decomposition works on traces that are longer than the horizon. A trace that meets one allocation of one
//! branch satisfies the formula; if every branch is `complete`, the largest robustness of all allocations is the
//! robustness of the formula.

use std::collections::HashMap;

use crate::error::{Error, ParseErrorKind};
use crate::expr::{eval_sample, nan_max, nan_min};
use crate::formula::{Cmp, Formula, Node, NodeId};
pub use crate::nnf::Region;
use crate::nnf::{Nnf, Tree, tree, unsupported};
use crate::scalar::Scalar;

/// Most branches of a decomposition.
const MAX_BRANCHES: u64 = 4_096;

/// How many visits stand for "again and again" (`G F`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// As few as can do: sound, but misses satisfying traces.
    Minimal,
    /// Twice as many, repeats allowed: finds every satisfying trace.
    Complete,
}

/// How to decompose.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecomposeOptions {
    /// Allows `F` throughout a window; without it that is `Unsupported`.
    pub chain: Option<Chain>,
}

/// An instant: a variable, or the start of the trace, plus a number of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Index in [`Branch::variables`].
    pub variable: Option<usize>,
    /// Steps after it.
    pub offset: i64,
}

impl Time {
    fn plus(self, steps: i64) -> Self {
        Self { offset: self.offset + steps, ..self }
    }

    fn at(self, values: &[i64]) -> i64 {
        self.variable.map_or(0, |v| values[v]) + self.offset
    }
}

/// One free instant: `parent + δ` with δ in `min..=max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Where δ counts from; its variable, if any, stands earlier in the list.
    pub parent: Time,
    /// Least δ.
    pub min: i64,
    /// Greatest δ.
    pub max: i64,
    /// The variable is one visit of a chain, which narrows δ further.
    pub visit: Option<Visit>,
}

/// What a chain of visits asks of one of them: `last` visits later (each at most `gap` steps after the one
/// before) an instant between `from` and `to` must be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Earliest instant of the last visit.
    pub from: Time,
    /// Latest instant of the last visit.
    pub to: Time,
    /// Longest distance of two visits.
    pub gap: i64,
    /// Visits after this one.
    pub after: i64,
}

/// Be in a region at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Where.
    pub region: Region,
    /// When.
    pub at: Time,
}

/// Stay in a region from one instant to another, both included; nothing if the second is earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Where.
    pub region: Region,
    /// First instant.
    pub from: Time,
    /// Last instant.
    pub to: Time,
}

/// One way to satisfy the formula.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Free instants.
    pub variables: Vec<Variable>,
    /// Goals.
    pub reach: Vec<Reach>,
    /// Invariants.
    pub hold: Vec<Hold>,
    /// False if a choice that could change over time was made once for a whole window.
    pub complete: bool,
}

/// A region with the instants at which it is required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Where.
    pub region: Region,
    /// First instant.
    pub from: u32,
    /// Last instant; equal to `from` for a region that is only to be reached.
    pub to: u32,
}

/// A branch with all instants fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// What to reach, and after reaching to hold, by time.
    pub goals: Vec<Goal>,
    /// What to hold over windows that no choice moves, by time.
    pub invariants: Vec<Goal>,
}

/// Decomposes a formula of the bounded future.
///
/// # Errors
/// `Unsupported`, with the place, for past operators, unbounded intervals, until, release and weak until
/// throughout a window, and `F` throughout a window without [`DecomposeOptions::chain`]; `TooLarge` beyond 4,096
/// branches.
pub fn decompose(f: &Formula, o: &DecomposeOptions) -> Result<Vec<Branch>, Error> {
    let tree = tree(f)?;
    let mut work = Work { f, tree: &tree, chain: o.chain, counts: HashMap::new() };
    let count = work.count(tree.root, Some(0))?;
    if count > MAX_BRANCHES {
        let message = format!("the formula has {count} branches, the limit is {MAX_BRANCHES}");
        return Err(f.error_at(f.root(), ParseErrorKind::TooLarge, message).into());
    }
    let start = Time { variable: None, offset: 0 };
    let empty = Branch { variables: Vec::new(), reach: Vec::new(), hold: Vec::new(), complete: true };
    let mut open = vec![(empty, vec![(tree.root, start, start)])];
    let mut branches = Vec::with_capacity(count as usize);
    while let Some((branch, todo)) = open.pop() {
        work.expand(branch, todo, &mut open, &mut branches);
    }
    Ok(branches)
}

/// An item to be satisfied throughout a window.
type Task = (u32, Time, Time);

struct Work<'a> {
    f: &'a Formula,
    tree: &'a Tree,
    chain: Option<Chain>,
    counts: HashMap<(u32, Option<i64>), u64>,
}

/// `h − l` where it does not depend on a choice.
fn span(l: Time, h: Time) -> Option<i64> {
    (l.variable == h.variable).then_some(h.offset - l.offset)
}

impl Work<'_> {
    fn is_free(&self, item: u32) -> bool {
        matches!(self.tree.items[item as usize].0, Nnf::Free(_))
    }

    /// Ranges of δ in which until (release) is decided without, and with, a window of its held operand. One range
    /// if that operand is temporal-free: an empty window then asks for nothing.
    fn parts(&self, held: u32, min: i64, max: i64, without: i64) -> Vec<(i64, i64, bool)> {
        if self.is_free(held) {
            return if min <= max { vec![(min, max, true)] } else { Vec::new() };
        }
        let split = [(min, max.min(without), false), (min.max(without + 1), max, true)];
        split.into_iter().filter(|(lo, hi, _)| lo <= hi).collect()
    }

    /// The ways to satisfy until or release at one instant: δ from, to, and whether the held operand has a window.
    fn ways(&self, item: &Nnf) -> Vec<(i64, i64, bool)> {
        match *item {
            Nnf::Until { inclusive, a, b, lhs, .. } => self.parts(lhs, a, b, if inclusive { -1 } else { 0 }),
            Nnf::Release { inclusive, a, b, rhs, .. } => {
                let (last, without) = if inclusive { (b, a) } else { (b - 1, a - 1) };
                self.parts(rhs, 0, last, without)
            }
            _ => Vec::new(),
        }
    }

    fn visits(&self, id: NodeId, a: i64, b: i64, length: Option<i64>) -> Result<i64, Error> {
        let Some(chain) = self.chain else {
            return Err(unsupported(self.f, id, "F throughout a window needs a chain of visits: choose one"));
        };
        let Some(length) = length else {
            return Err(unsupported(self.f, id, "a chain of visits in a window of variable length"));
        };
        let least = (length + 1 + b - a) / (b - a + 1);
        Ok(if chain == Chain::Minimal { least } else { 2 * least })
    }

    /// Branches of an item throughout a window of `length + 1` instants (0: at one instant; `None`: varies).
    fn count(&mut self, item: u32, length: Option<i64>) -> Result<u64, Error> {
        if length.is_some_and(|l| l < 0) {
            return Ok(1);
        }
        if let Some(count) = self.counts.get(&(item, length)) {
            return Ok(*count);
        }
        let (node, id) = &self.tree.items[item as usize];
        let point = length == Some(0);
        let count = match node {
            Nnf::Free(_) => 1,
            Nnf::And(kids) => kids
                .iter()
                .try_fold(1, |n: u64, k| Ok::<_, Error>(n.saturating_mul(self.count(*k, length)?)))?,
            Nnf::Or(kids) => kids
                .iter()
                .try_fold(0, |n: u64, k| Ok::<_, Error>(n.saturating_add(self.count(*k, length)?)))?,
            Nnf::Always(a, b, kid) => self.count(*kid, length.map(|l| l + b - a))?,
            Nnf::Eventually(a, b, kid) if point || a == b => self.count(*kid, length)?,
            Nnf::Eventually(a, b, kid) => {
                let visits = self.visits(*id, *a, *b, length)?;
                let one = self.count(*kid, Some(0))?;
                if one == 1 { 1 } else { one.saturating_pow(visits.min(i64::from(u32::MAX)) as u32) }
            }
            Nnf::Until { .. } | Nnf::Release { .. } if !point => {
                return Err(unsupported(
                    self.f,
                    *id,
                    "until and release throughout a window cannot be decomposed",
                ));
            }
            Nnf::Until { lhs, rhs, .. } => {
                let mut total = 0_u64;
                for (_, _, held) in self.ways(node) {
                    let window = if held { self.count(*lhs, None)? } else { 1 };
                    total = total.saturating_add(self.count(*rhs, Some(0))?.saturating_mul(window));
                }
                total
            }
            Nnf::Release { a, b, lhs, rhs, .. } => {
                let mut total = self.count(*rhs, Some(b - a))?;
                for (_, _, held) in self.ways(node) {
                    let window = if held { self.count(*rhs, None)? } else { 1 };
                    total = total.saturating_add(self.count(*lhs, Some(0))?.saturating_mul(window));
                }
                total
            }
        };
        self.counts.insert((item, length), count);
        Ok(count)
    }

    /// Works through the tasks of a branch until it is finished or splits.
    fn expand(
        &self,
        mut branch: Branch,
        mut todo: Vec<Task>,
        open: &mut Vec<(Branch, Vec<Task>)>,
        done: &mut Vec<Branch>,
    ) {
        while let Some((item, l, h)) = todo.pop() {
            let length = span(l, h);
            if length.is_some_and(|n| n < 0) {
                continue;
            }
            let (node, id) = &self.tree.items[item as usize];
            match node {
                Nnf::Free(region) if length == Some(0) => {
                    branch.reach.push(Reach { region: region.clone(), at: l });
                }
                Nnf::Free(region) => branch.hold.push(Hold { region: region.clone(), from: l, to: h }),
                Nnf::And(kids) => todo.extend(kids.iter().rev().map(|k| (*k, l, h))),
                Nnf::Or(kids) => {
                    branch.complete &= length == Some(0);
                    for kid in kids.iter().rev() {
                        let mut todo = todo.clone();
                        todo.push((*kid, l, h));
                        open.push((branch.clone(), todo));
                    }
                    return;
                }
                Nnf::Always(a, b, kid) => todo.push((*kid, l.plus(*a), h.plus(*b))),
                Nnf::Eventually(a, b, kid) if a == b => todo.push((*kid, l.plus(*a), h.plus(*b))),
                Nnf::Eventually(a, b, kid) if length == Some(0) => {
                    let at = choose(&mut branch, l, *a, *b);
                    todo.push((*kid, at, at));
                }
                Nnf::Eventually(a, b, kid) => {
                    let visits = self.visits(*id, *a, *b, length).unwrap_or(0);
                    branch.complete &= self.chain == Some(Chain::Complete);
                    let gap = b - a + 1;
                    let (mut parent, mut range) = (l, (*a, *b));
                    for after in (0..visits).rev() {
                        let visit = Visit { from: h.plus(*a), to: h.plus(*b), gap, after };
                        parent = choose(&mut branch, parent, range.0, range.1);
                        if let Some(last) = branch.variables.last_mut() {
                            last.visit = Some(visit);
                        }
                        todo.push((*kid, parent, parent));
                        range = (0, gap);
                    }
                }
                Nnf::Until { inclusive, lhs, rhs, .. } => {
                    for (min, max, held) in self.ways(node) {
                        let (mut branch, mut todo) = (branch.clone(), todo.clone());
                        let at = choose(&mut branch, l, min, max);
                        if held {
                            todo.push((*lhs, l, at.plus(i64::from(*inclusive) - 1)));
                        }
                        todo.push((*rhs, at, at));
                        open.push((branch, todo));
                    }
                    return;
                }
                Nnf::Release { inclusive, a, b, lhs, rhs } => {
                    for (min, max, held) in self.ways(node) {
                        let (mut branch, mut todo) = (branch.clone(), todo.clone());
                        let at = choose(&mut branch, l, min, max);
                        if held {
                            todo.push((*rhs, l.plus(*a), at.plus(-i64::from(*inclusive))));
                        }
                        todo.push((*lhs, at, at));
                        open.push((branch, todo));
                    }
                    todo.push((*rhs, l.plus(*a), l.plus(*b)));
                }
            }
        }
        done.push(branch);
    }
}

/// A new variable `parent + δ`; none where δ has one value only.
fn choose(branch: &mut Branch, parent: Time, min: i64, max: i64) -> Time {
    if min == max {
        return parent.plus(min);
    }
    branch.variables.push(Variable { parent, min, max, visit: None });
    Time { variable: Some(branch.variables.len() - 1), offset: 0 }
}

impl Branch {
    /// Least and greatest δ of variable `i` when the variables before it are at `values`.
    fn range(&self, i: usize, values: &[i64]) -> (i64, i64) {
        let v = &self.variables[i];
        let parent = v.parent.at(values);
        match v.visit {
            None => (v.min, v.max),
            Some(c) => {
                let from = c.from.at(values) - c.after * c.gap - parent;
                (v.min.max(from), v.max.min(c.to.at(values) - parent))
            }
        }
    }

    /// Number of allocations: the product of the ranges, at most `u128::MAX`; with chains an upper bound.
    pub fn count(&self) -> u128 {
        let ranges = self.variables.iter().map(|v| (v.max - v.min + 1) as u128);
        ranges.fold(1, u128::saturating_mul)
    }

    /// Fixes all instants: `deltas[i]` is δ of variable i.
    ///
    /// # Errors
    /// [`Error::Length`] for a wrong number, [`Error::Delta`] for a δ outside its range.
    pub fn allocate(&self, deltas: &[i64]) -> Result<Allocation, Error> {
        if deltas.len() != self.variables.len() {
            return Err(Error::Length { what: "deltas", expected: self.variables.len(), got: deltas.len() });
        }
        let mut values = Vec::with_capacity(deltas.len());
        for (i, delta) in deltas.iter().enumerate() {
            let (min, max) = self.range(i, &values);
            if !(min..=max).contains(delta) {
                return Err(Error::Delta { variable: i, delta: *delta, min, max });
            }
            values.push(self.variables[i].parent.at(&values) + delta);
        }
        Ok(self.fixed(&values))
    }

    /// A random allocation, without rejection. `draw(n)` gives a number in `0..n`, uniform for a sampling of each
    /// δ that is uniform in its range.
    pub fn sample(&self, mut draw: impl FnMut(u64) -> u64) -> Allocation {
        let mut values = Vec::with_capacity(self.variables.len());
        for i in 0..self.variables.len() {
            let (min, max) = self.range(i, &values);
            let count = (max - min + 1).max(1) as u64;
            let delta = min + (draw(count) % count) as i64;
            values.push(self.variables[i].parent.at(&values) + delta);
        }
        self.fixed(&values)
    }

    fn fixed(&self, values: &[i64]) -> Allocation {
        let mut goals = Vec::with_capacity(self.reach.len());
        let mut invariants = Vec::new();
        for r in &self.reach {
            let at = r.at.at(values) as u32;
            goals.push(Goal { region: r.region.clone(), from: at, to: at });
        }
        for h in &self.hold {
            let (from, to) = (h.from.at(values), h.to.at(values));
            if from <= to {
                let goal = Goal { region: h.region.clone(), from: from as u32, to: to as u32 };
                let moved = h.from.variable.is_some();
                if moved { goals.push(goal) } else { invariants.push(goal) }
            }
        }
        goals.sort_by_key(|g| (g.from, g.to));
        invariants.sort_by_key(|g| (g.from, g.to));
        Allocation { goals, invariants }
    }
}

impl Allocation {
    /// The least robustness of all goals and invariants on a trace `[t, d]` of the formula's signals; NaN if one of
    /// them reads NaN. `params` are in the order of [`Formula::params`].
    ///
    /// # Errors
    /// Wrong sizes; [`Error::Instant`] if the trace ends before the last goal.
    pub fn robustness<S: Scalar>(&self, f: &Formula, trace: &[S], params: &[S]) -> Result<S, Error> {
        let d = f.signals().len();
        let length = trace.len().checked_div(d).unwrap_or(0);
        if d > 0 && length * d != trace.len() {
            return Err(Error::Length { what: "trace", expected: length * d, got: trace.len() });
        }
        if params.len() != f.params().len() {
            return Err(Error::Length { what: "params", expected: f.params().len(), got: params.len() });
        }
        let all = || self.goals.iter().chain(&self.invariants);
        let last = all().map(|g| g.to).max();
        if let Some(at) = last.filter(|at| d > 0 && *at as usize >= length) {
            return Err(Error::Instant { at, trace: 0, length });
        }
        let mut registers = vec![S::ZERO; f.exprs().len()];
        let mut least = S::INFINITY;
        for t in 0..=last.unwrap_or(0) {
            if !all().any(|g| (g.from..=g.to).contains(&t)) {
                continue;
            }
            eval_sample(f.exprs(), &trace[t as usize * d..][..d], |p| params[p], &mut registers);
            for goal in all().filter(|g| (g.from..=g.to).contains(&t)) {
                least = nan_min(least, region_value(f, &goal.region, &registers));
            }
        }
        Ok(least)
    }

    /// Whether a trace meets every goal and invariant: robustness above 0.
    ///
    /// # Errors
    /// As [`Allocation::robustness`].
    pub fn check<S: Scalar>(&self, f: &Formula, trace: &[S], params: &[S]) -> Result<bool, Error> {
        Ok(self.robustness(f, trace, params)? > S::ZERO)
    }
}

fn region_value<S: Scalar>(f: &Formula, region: &Region, registers: &[S]) -> S {
    let signed = |(id, negated): &(NodeId, bool)| {
        let value = node_value(f, *id, registers);
        if *negated { S::ZERO - value } else { value }
    };
    region.any.iter().map(signed).fold(S::NEG_INFINITY, nan_max)
}

/// A temporal-free node at one instant; its depth is limited by the parser.
fn node_value<S: Scalar>(f: &Formula, id: NodeId, registers: &[S]) -> S {
    let of = |k: &NodeId| node_value(f, *k, registers);
    let not = |v: S| S::ZERO - v;
    let iff = |l: S, r: S| nan_min(nan_max(not(l), r), nan_max(not(r), l));
    match &f.nodes()[id.index()] {
        Node::Const(true) => S::INFINITY,
        Node::Const(false) => S::NEG_INFINITY,
        Node::Predicate { lhs, cmp, rhs } => {
            let (l, r) = (registers[lhs.index()], registers[rhs.index()]);
            match cmp {
                Cmp::Gt | Cmp::Ge => l - r,
                Cmp::Lt | Cmp::Le => r - l,
                Cmp::Eq => not((l - r).abs()),
                Cmp::Ne => (l - r).abs(),
            }
        }
        Node::Not(c) => not(of(c)),
        Node::And(kids) => kids.iter().map(of).fold(S::INFINITY, nan_min),
        Node::Or(kids) => kids.iter().map(of).fold(S::NEG_INFINITY, nan_max),
        Node::Implies(l, r) => nan_max(not(of(l)), of(r)),
        Node::Iff(l, r) => iff(of(l), of(r)),
        Node::Xor(l, r) => not(iff(of(l), of(r))),
        _ => unreachable!("a region is temporal-free"),
    }
}
