//! The future fragment of a formula in negation normal form, for decomposition.

use std::collections::HashMap;

use crate::error::{Error, ParseErrorKind};
use crate::formula::{Binary, Bounds, Endpoint, Formula, Node, NodeId, Step, Temporal};

/// A set of states: a disjunction of temporal-free nodes, each possibly negated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// (node, whether negated); one of them must hold.
    pub any: Vec<(NodeId, bool)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Nnf {
    Free(Region),
    And(Vec<u32>),
    Or(Vec<u32>),
    /// F and G over [a, b]; X and wX are windows [1, 1].
    Eventually(i64, i64, u32),
    Always(i64, i64, u32),
    Until {
        inclusive: bool,
        a: i64,
        b: i64,
        lhs: u32,
        rhs: u32,
    },
    Release {
        inclusive: bool,
        a: i64,
        b: i64,
        lhs: u32,
        rhs: u32,
    },
}

/// Items with operands first, and the node that each came from.
pub(crate) struct Tree {
    pub(crate) items: Vec<(Nnf, NodeId)>,
    pub(crate) root: u32,
}

pub(crate) fn unsupported(f: &Formula, id: NodeId, message: &str) -> Error {
    f.error_at(id, ParseErrorKind::Unsupported, message).into()
}

/// # Errors
/// `Unsupported` for past operators and unbounded intervals.
pub(crate) fn tree(f: &Formula) -> Result<Tree, Error> {
    let mut free = Vec::with_capacity(f.nodes().len());
    for node in f.nodes() {
        let temporal = matches!(
            node,
            Node::Temporal(..) | Node::Step(..) | Node::Binary(..) | Node::Rise(_) | Node::Fall(_)
        );
        let below = node.operands().iter().all(|k| free[k.index()]);
        free.push(below && !temporal);
    }
    let mut b = Build { f, free, items: Vec::new(), done: HashMap::new() };
    let root = b.item(f.root(), false)?;
    Ok(Tree { items: b.items, root })
}

struct Build<'a> {
    f: &'a Formula,
    free: Vec<bool>,
    items: Vec<(Nnf, NodeId)>,
    done: HashMap<(NodeId, bool), u32>,
}

impl Build<'_> {
    fn push(&mut self, item: Nnf, id: NodeId) -> u32 {
        self.items.push((item, id));
        self.items.len() as u32 - 1
    }

    /// Depth is limited by the parser, the number of items by sharing.
    fn item(&mut self, id: NodeId, negated: bool) -> Result<u32, Error> {
        if let Some(done) = self.done.get(&(id, negated)) {
            return Ok(*done);
        }
        let item = if self.free[id.index()] {
            self.push(Nnf::Free(Region { any: vec![(id, negated)] }), id)
        } else {
            self.temporal(id, negated)?
        };
        self.done.insert((id, negated), item);
        Ok(item)
    }

    fn bounds(&self, id: NodeId, bounds: Bounds) -> Result<(i64, i64), Error> {
        match bounds.b {
            Some(b) => Ok((i64::from(bounds.a), i64::from(b))),
            None => {
                Err(unsupported(self.f, id, "an unbounded interval cannot be decomposed: give it a bound"))
            }
        }
    }

    fn both(&mut self, or: bool, operands: Vec<(NodeId, bool)>, id: NodeId) -> Result<u32, Error> {
        let mut kids = Vec::with_capacity(operands.len());
        let mut any = Vec::new();
        for (kid, negated) in operands {
            if or && self.free[kid.index()] {
                any.push((kid, negated));
            } else {
                kids.push(self.item(kid, negated)?);
            }
        }
        if !any.is_empty() {
            let region = self.push(Nnf::Free(Region { any }), id);
            kids.insert(0, region);
        }
        Ok(match kids[..] {
            [only] => only,
            _ => self.push(if or { Nnf::Or(kids) } else { Nnf::And(kids) }, id),
        })
    }

    fn temporal(&mut self, id: NodeId, negated: bool) -> Result<u32, Error> {
        let f = self.f;
        match &f.nodes()[id.index()] {
            Node::Not(c) => self.item(*c, !negated),
            node @ (Node::And(kids) | Node::Or(kids)) => {
                let or = matches!(node, Node::Or(_)) != negated;
                self.both(or, kids.iter().map(|k| (*k, negated)).collect(), id)
            }
            Node::Implies(l, r) => self.both(!negated, vec![(*l, !negated), (*r, negated)], id),
            node @ (Node::Iff(l, r) | Node::Xor(l, r)) => {
                // Two disjunctions both of which must hold, or two conjunctions one of which must.
                let iff = matches!(node, Node::Iff(..)) != negated;
                let first = self.both(iff, vec![(*l, iff), (*r, !iff)], id)?;
                let second = self.both(iff, vec![(*l, !iff), (*r, iff)], id)?;
                let kids = vec![first, second];
                Ok(self.push(if iff { Nnf::And(kids) } else { Nnf::Or(kids) }, id))
            }
            Node::Temporal(op @ (Temporal::Always | Temporal::Eventually), bounds, c) => {
                let (a, b) = self.bounds(id, *bounds)?;
                let kid = self.item(*c, negated)?;
                let always = (*op == Temporal::Always) != negated;
                Ok(self.push(if always { Nnf::Always(a, b, kid) } else { Nnf::Eventually(a, b, kid) }, id))
            }
            Node::Step(Step::Next | Step::WeakNext, c) => {
                // Allocations lie inside the trace, where the strong and the weak form agree.
                let kid = self.item(*c, negated)?;
                Ok(self.push(Nnf::Always(1, 1, kid), id))
            }
            Node::Binary(
                op @ (Binary::Until | Binary::Release | Binary::WeakUntil),
                endpoint,
                bounds,
                l,
                r,
            ) => {
                let (a, b) = self.bounds(id, *bounds)?;
                let (lhs, rhs) = (self.item(*l, negated)?, self.item(*r, negated)?);
                let inclusive = *endpoint == Endpoint::Inclusive;
                let release = (*op == Binary::Release) != negated;
                let main = if release {
                    self.push(Nnf::Release { inclusive, a, b, lhs, rhs }, id)
                } else {
                    self.push(Nnf::Until { inclusive, a, b, lhs, rhs }, id)
                };
                if *op != Binary::WeakUntil {
                    return Ok(main);
                }
                let all = if negated { Nnf::Eventually(0, b, lhs) } else { Nnf::Always(0, b, lhs) };
                let all = self.push(all, id);
                Ok(self.push(if negated { Nnf::And(vec![all, main]) } else { Nnf::Or(vec![all, main]) }, id))
            }
            _ => Err(unsupported(f, id, "operators of the past cannot be decomposed")),
        }
    }
}
