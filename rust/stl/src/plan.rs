//! What the engines evaluate: the formula with negations pushed into the predicates, every operator reduced to
//! a pointwise fold, a window or an until. Offline evaluation, monitor and intervals share this one form.

use std::collections::HashMap;

use crate::expr::{Expr, ExprId};
use crate::formula::{Binary, Bounds, Cmp, Endpoint, Node, Step, Temporal};

/// Index of an operation in a plan.
pub(crate) type OpId = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PredKind {
    /// lhs − rhs
    Difference,
    /// |lhs − rhs|
    Distance,
    /// −|lhs − rhs|
    Closeness,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// +∞ or −∞ everywhere.
    Const(bool),
    Pred {
        kind: PredKind,
        lhs: ExprId,
        rhs: ExprId,
    },
    /// Maximum (`max`) or minimum of the operands at the same instant.
    Fold {
        max: bool,
        kids: Box<[OpId]>,
    },
    /// Maximum or minimum over [t+a, t+b], or [t−b, t−a] where `past`.
    Window {
        max: bool,
        past: bool,
        bounds: Bounds,
        kid: OpId,
    },
    /// Until or since; with `dual`, minimum and maximum change places (release).
    Until {
        dual: bool,
        past: bool,
        inclusive: bool,
        bounds: Bounds,
        lhs: OpId,
        rhs: OpId,
    },
}

impl Op {
    /// Calls `f` with every operand.
    pub(crate) fn each_kid(&self, mut f: impl FnMut(OpId)) {
        match self {
            Op::Const(_) | Op::Pred { .. } => {}
            Op::Fold { kids, .. } => kids.iter().copied().for_each(f),
            Op::Window { kid, .. } => f(*kid),
            Op::Until { lhs, rhs, .. } => {
                f(*lhs);
                f(*rhs);
            }
        }
    }
}

/// Operations with operands first.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) ops: Vec<Op>,
    /// For each node of the formula: the operation that has its value, and whether with the sign changed.
    pub(crate) of_node: Vec<(OpId, bool)>,
    /// The same for the conjuncts of the formula.
    pub(crate) conjuncts: Box<[(OpId, bool)]>,
    /// For each operation: the first node that it came from.
    pub(crate) node_of: Vec<u32>,
    /// For each operation: whether it is a window that only one fold reads, and can be computed right into it.
    pub(crate) fused: Vec<bool>,
    /// For each operation: a buffer that no operation still to be read uses.
    pub(crate) slots: Vec<u32>,
    /// For each predicate operation: the expressions below it, operands first.
    pub(crate) registers: Vec<Box<[ExprId]>>,
}

impl Plan {
    pub(crate) fn new(nodes: &[Node], exprs: &[Expr]) -> Self {
        let mut plan = Lower::new(nodes).run();
        plan.fused = fused(&plan.ops);
        plan.slots = slots(&plan.ops, &plan.fused);
        plan.conjuncts = match nodes.last() {
            Some(Node::And(kids)) => kids.iter().map(|k| plan.of_node[k.index()]).collect(),
            _ => [(plan.root() as OpId, false)].into(),
        };
        plan.registers = plan
            .ops
            .iter()
            .map(|op| match op {
                Op::Pred { lhs, rhs, .. } => below(exprs, [*lhs, *rhs]),
                _ => Box::default(),
            })
            .collect();
        plan
    }

    pub(crate) fn root(&self) -> usize {
        self.of_node.last().map_or(0, |(op, _)| *op as usize)
    }
}

fn fused(ops: &[Op]) -> Vec<bool> {
    let (mut readers, mut folds) = (vec![0; ops.len()], vec![0; ops.len()]);
    for op in ops {
        op.each_kid(|k| {
            readers[k as usize] += 1;
            folds[k as usize] += usize::from(matches!(op, Op::Fold { .. }));
        });
    }
    let single = readers.iter().zip(&folds).map(|(r, f)| (*r, *f) == (1, 1));
    ops.iter().zip(single).map(|(op, single)| single && matches!(op, Op::Window { .. })).collect()
}

/// Buffers by last use: an operation's buffer is free again after its last reader. The operand of a fused window
/// is read together with the operands of the fold.
fn slots(ops: &[Op], fused: &[bool]) -> Vec<u32> {
    let mut last_reader: Vec<usize> = (0..ops.len()).collect();
    for (i, op) in ops.iter().enumerate() {
        op.each_kid(|k| {
            last_reader[k as usize] = i;
            if fused[k as usize] {
                ops[k as usize].each_kid(|below| last_reader[below as usize] = i);
            }
        });
    }
    let mut free = Vec::new();
    let mut slots = Vec::with_capacity(ops.len());
    let mut count = 0;
    for (i, op) in ops.iter().enumerate() {
        slots.push(free.pop().unwrap_or_else(|| {
            count += 1;
            count - 1
        }));
        let mut freed: Vec<u32> = Vec::new();
        let mut free_after = |k: OpId| {
            if last_reader[k as usize] == i && !freed.contains(&slots[k as usize]) {
                freed.push(slots[k as usize]);
            }
        };
        op.each_kid(|k| {
            free_after(k);
            if fused[k as usize] {
                ops[k as usize].each_kid(&mut free_after);
            }
        });
        free.extend(freed);
    }
    slots
}

/// Expressions below two others, operands first.
pub(crate) fn below(exprs: &[Expr], roots: [ExprId; 2]) -> Box<[ExprId]> {
    let mut found: Vec<ExprId> = Vec::new();
    let mut open = roots.to_vec();
    let mut seen = std::collections::HashSet::new();
    while let Some(e) = open.pop() {
        if seen.insert(e) {
            found.push(e);
            open.extend(exprs[e.index()].operands());
        }
    }
    found.sort_unstable();
    found.into()
}

struct Lower<'a> {
    nodes: &'a [Node],
    /// Which signs of each node are needed: [as it stands, negated].
    needed: Vec<[bool; 2]>,
    done: Vec<[Option<OpId>; 2]>,
    ids: HashMap<Op, OpId>,
    plan: Plan,
    current: u32,
}

impl<'a> Lower<'a> {
    fn new(nodes: &'a [Node]) -> Self {
        let mut needed = vec![[false; 2]; nodes.len()];
        if let Some(root) = needed.last_mut() {
            root[0] = true;
        }
        for i in (0..nodes.len()).rev() {
            let own = needed[i];
            let flipped = [own[1], own[0]];
            let either = [own[0] || own[1]; 2];
            for (position, kid) in nodes[i].operands().iter().enumerate() {
                let wanted = match &nodes[i] {
                    Node::Not(_) => flipped,
                    Node::Implies(..) if position == 0 => flipped,
                    Node::Iff(..) | Node::Xor(..) | Node::Rise(_) | Node::Fall(_) => either,
                    _ => own,
                };
                for (slot, wanted) in needed[kid.index()].iter_mut().zip(wanted) {
                    *slot |= wanted;
                }
            }
        }
        let done = vec![[None; 2]; nodes.len()];
        Self { nodes, needed, done, ids: HashMap::new(), plan: Plan::default(), current: 0 }
    }

    fn run(mut self) -> Plan {
        for i in 0..self.nodes.len() {
            self.current = i as u32;
            for negated in [false, true] {
                if self.needed[i][usize::from(negated)] {
                    let op = self.node(i, negated);
                    self.done[i][usize::from(negated)] = Some(op);
                }
            }
        }
        self.plan.of_node = (self.done.iter())
            .map(|[plain, negated]| match (plain, negated) {
                (Some(op), _) => (*op, false),
                (None, Some(op)) => (*op, true),
                (None, None) => unreachable!("a finished formula has no unused node"),
            })
            .collect();
        self.plan
    }

    fn push(&mut self, op: Op) -> OpId {
        let next = self.plan.ops.len() as OpId;
        let (ops, node_of, current) = (&mut self.plan.ops, &mut self.plan.node_of, self.current);
        *self.ids.entry(op).or_insert_with_key(|op| {
            ops.push(op.clone());
            node_of.push(current);
            next
        })
    }

    fn kid(&self, kid: crate::formula::NodeId, negated: bool) -> OpId {
        self.done[kid.index()][usize::from(negated)]
            .expect("operands come first, with every sign that is needed")
    }

    fn fold(&mut self, max: bool, kids: impl IntoIterator<Item = OpId>) -> OpId {
        let kids = kids.into_iter().collect();
        self.push(Op::Fold { max, kids })
    }

    fn node(&mut self, i: usize, negated: bool) -> OpId {
        let node = &self.nodes[i];
        let window = |max, past, bounds, kid| Op::Window { max, past, bounds, kid };
        match node {
            Node::Const(value) => self.push(Op::Const(*value != negated)),
            Node::Predicate { lhs, cmp, rhs } => {
                let (lhs, rhs) = (*lhs, *rhs);
                let op = match (cmp, negated) {
                    (Cmp::Gt | Cmp::Ge, false) | (Cmp::Lt | Cmp::Le, true) => {
                        Op::Pred { kind: PredKind::Difference, lhs, rhs }
                    }
                    (Cmp::Lt | Cmp::Le, false) | (Cmp::Gt | Cmp::Ge, true) => {
                        Op::Pred { kind: PredKind::Difference, lhs: rhs, rhs: lhs }
                    }
                    (Cmp::Eq, false) | (Cmp::Ne, true) => Op::Pred { kind: PredKind::Closeness, lhs, rhs },
                    (Cmp::Ne, false) | (Cmp::Eq, true) => Op::Pred { kind: PredKind::Distance, lhs, rhs },
                };
                self.push(op)
            }
            Node::Not(c) => self.kid(*c, !negated),
            Node::And(kids) | Node::Or(kids) => {
                let max = matches!(node, Node::Or(_)) != negated;
                let kids: Vec<_> = kids.iter().map(|k| self.kid(*k, negated)).collect();
                self.fold(max, kids)
            }
            Node::Implies(l, r) => {
                let kids = [self.kid(*l, !negated), self.kid(*r, negated)];
                self.fold(!negated, kids)
            }
            Node::Iff(l, r) | Node::Xor(l, r) => {
                // min(max(−φ,ψ), max(−ψ,φ)), or its dual.
                let dual = matches!(node, Node::Xor(..)) != negated;
                let [a, b] = [(*l, *r), (*r, *l)].map(|(x, y)| [self.kid(x, !dual), self.kid(y, dual)]);
                let kids = [self.fold(!dual, a), self.fold(!dual, b)];
                self.fold(dual, kids)
            }
            Node::Temporal(op, bounds, c) => {
                let max = matches!(op, Temporal::Eventually | Temporal::Once) != negated;
                let past = matches!(op, Temporal::Historically | Temporal::Once);
                let kid = self.kid(*c, negated);
                self.push(window(max, past, *bounds, kid))
            }
            Node::Step(op, c) => {
                let max = matches!(op, Step::Next | Step::Prev) != negated;
                let past = matches!(op, Step::Prev | Step::WeakPrev);
                let kid = self.kid(*c, negated);
                self.push(window(max, past, ONE, kid))
            }
            Node::Binary(op, endpoint, bounds, l, r) => {
                let (lhs, rhs) = (self.kid(*l, negated), self.kid(*r, negated));
                let dual = (*op == Binary::Release) != negated;
                let past = *op == Binary::Since;
                let inclusive = *endpoint == Endpoint::Inclusive;
                let until = self.push(Op::Until { dual, past, inclusive, bounds: *bounds, lhs, rhs });
                if *op == Binary::WeakUntil {
                    let all = self.push(window(negated, false, Bounds { a: 0, b: bounds.b }, lhs));
                    self.fold(!negated, [all, until])
                } else {
                    until
                }
            }
            Node::Rise(c) | Node::Fall(c) => {
                // min(φ, wY −φ) with φ negated for fall; the dual when negated.
                let falls = matches!(node, Node::Fall(_));
                let now = self.kid(*c, falls != negated);
                let before = self.kid(*c, falls == negated);
                let before = self.push(window(negated, true, ONE, before));
                self.fold(negated, [now, before])
            }
        }
    }
}

const ONE: Bounds = Bounds { a: 1, b: Some(1) };
