//! Building a formula: equal nodes are shared, sizes are limited, and the finished tree is brought into its
//! canonical order (operands first, left to right, nothing that is not used).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ParseError, ParseErrorKind};
use crate::expr::{Arith, Expr, ExprId, Number};
use crate::formula::{Bounds, Formula, Inner, Node, NodeId};
use crate::parse::nearest;
use crate::plan::{Plan, below};

/// Deepest nesting of a formula.
pub(crate) const MAX_DEPTH: u32 = 256;
/// Most nodes of a formula, written out without sharing.
pub(crate) const MAX_NODES: u64 = 65_536;
/// Most nodes and operands of all definitions and properties of a text together.
const MAX_STORED: usize = 16 * MAX_NODES as usize;

#[derive(Clone, Copy, Default)]
struct Size {
    depth: u32,
    nodes: u64,
}

impl Size {
    fn above(operands: impl Iterator<Item = Size>) -> Size {
        operands.fold(Size { depth: 1, nodes: 1 }, |s, o| Size {
            depth: s.depth.max(o.depth + 1),
            nodes: s.nodes.saturating_add(o.nodes),
        })
    }

    fn check(self, text: &str, span: &Range<usize>) -> Result<Size, ParseError> {
        if self.depth > MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH}");
            return Err(ParseError::new(ParseErrorKind::TooDeep, message, text, span.clone()));
        }
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} nodes");
            return Err(ParseError::new(ParseErrorKind::TooLarge, message, text, span.clone()));
        }
        Ok(self)
    }
}

#[derive(Default)]
pub(crate) struct Builder {
    nodes: Vec<Node>,
    spans: Vec<Range<u32>>,
    node_sizes: Vec<Size>,
    node_ids: HashMap<Node, NodeId>,
    exprs: Vec<Expr>,
    expr_sizes: Vec<Size>,
    expr_ids: HashMap<Expr, ExprId>,
    /// Nodes and operands stored so far.
    stored: usize,
    pub(crate) signals: Names,
    pub(crate) params: Names,
}

/// Names with their positions, found in constant time: a long text must not take quadratic time.
#[derive(Default)]
pub(crate) struct Names {
    list: Vec<String>,
    index: HashMap<String, u32>,
}

impl Names {
    pub(crate) fn get(&self, name: &str) -> Option<u32> {
        self.index.get(name).copied()
    }

    pub(crate) fn get_or_push(&mut self, name: String) -> u32 {
        let list = &mut self.list;
        *self.index.entry(name).or_insert_with_key(|name| {
            list.push(name.clone());
            list.len() as u32 - 1
        })
    }
}

impl<S: AsRef<str>> FromIterator<S> for Names {
    /// A name that comes twice keeps both places and is found at the first.
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut all = Self::default();
        for name in names {
            let next = all.list.len() as u32;
            all.index.entry(name.as_ref().to_owned()).or_insert(next);
            all.list.push(name.as_ref().to_owned());
        }
        all
    }
}

impl Builder {
    pub(crate) fn node(&mut self, node: Node, text: &str, span: &Range<usize>) -> Result<NodeId, ParseError> {
        if let Some(id) = self.node_ids.get(&node) {
            return Ok(*id);
        }
        let size = match &node {
            Node::Predicate { lhs, rhs, .. } => {
                Size::above([lhs, rhs].into_iter().map(|e| self.expr_sizes[e.index()]))
            }
            _ => Size::above(node.operands().iter().map(|n| self.node_sizes[n.index()])),
        };
        self.node_sizes.push(size.check(text, span)?);
        self.store(1 + node.operands().len(), text, span)?;
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node.clone());
        self.spans.push(span.start as u32..span.end as u32);
        self.node_ids.insert(node, id);
        Ok(id)
    }

    /// Definitions that are never written out are limited too.
    fn store(&mut self, count: usize, text: &str, span: &Range<usize>) -> Result<(), ParseError> {
        self.stored += count;
        if self.stored > MAX_STORED {
            let message = format!("more than {MAX_STORED} nodes in all definitions");
            return Err(ParseError::new(ParseErrorKind::TooLarge, message, text, span.clone()));
        }
        Ok(())
    }

    /// A conjunction or disjunction, with operands of the same kind spliced in.
    pub(crate) fn chain(
        &mut self,
        and: bool,
        kids: Vec<NodeId>,
        text: &str,
        span: &Range<usize>,
    ) -> Result<NodeId, ParseError> {
        let mut flat = Vec::with_capacity(kids.len());
        for kid in kids {
            match &self.nodes[kid.index()] {
                Node::And(inner) if and => flat.extend_from_slice(inner),
                Node::Or(inner) if !and => flat.extend_from_slice(inner),
                _ => flat.push(kid),
            }
        }
        let flat = flat.into_boxed_slice();
        self.node(if and { Node::And(flat) } else { Node::Or(flat) }, text, span)
    }

    pub(crate) fn expr(&mut self, expr: Expr, text: &str, span: &Range<usize>) -> Result<ExprId, ParseError> {
        let expr = match expr {
            Expr::Neg(e) => match self.exprs[e.index()] {
                Expr::Number(n) => Expr::Number(Number::new(-n.get())),
                _ => Expr::Neg(e),
            },
            other => other,
        };
        if let Some(id) = self.expr_ids.get(&expr) {
            return Ok(*id);
        }
        let mut size = Size::above(expr.operands().iter().map(|e| self.expr_sizes[e.index()]));
        if let Expr::Binary(op, l, r) = &expr {
            // A chain a + b + c is one level, however long.
            let rank = |op: Arith| matches!(op, Arith::Add | Arith::Sub);
            if let Expr::Binary(inner, ..) = &self.exprs[l.index()]
                && rank(*inner) == rank(*op)
            {
                size.depth = self.expr_sizes[l.index()].depth.max(self.expr_sizes[r.index()].depth + 1);
            }
        }
        self.expr_sizes.push(size.check(text, span)?);
        self.store(1 + expr.operands().len(), text, span)?;
        let id = ExprId(self.exprs.len() as u32);
        self.exprs.push(expr.clone());
        self.expr_ids.insert(expr, id);
        Ok(id)
    }

    /// The formula with root `root`. `declared` fixes the order of the signals; otherwise they are ordered as
    /// they appear.
    pub(crate) fn finish(
        &self,
        root: NodeId,
        declared: bool,
        labels: &[(NodeId, String)],
        text: &str,
    ) -> Result<Formula, ParseError> {
        let mut compact = Compact::new(self, declared);
        compact.node(root);
        let Compact { nodes, spans, exprs, signals, params, node_map, .. } = compact;
        let labels = labels
            .iter()
            .filter_map(|(id, name)| node_map[id.index()].map(|id| (id, name.clone())))
            .collect();
        let horizon = reach(&nodes, Node::ahead);
        let history = reach(&nodes, Node::behind);
        for (what, value) in [("horizon", horizon), ("history", history)] {
            if value.is_some_and(|v| v > u64::from(u32::MAX)) {
                let span = self.spans[root.index()].clone();
                return Err(ParseError::new(
                    ParseErrorKind::TooLarge,
                    format!("the {what} of the formula does not fit 32 bits"),
                    text,
                    span.start as usize..span.end as usize,
                ));
            }
        }
        let plan = Plan::new(&nodes, &exprs);
        Ok(Formula(Arc::new(Inner {
            text: text.to_owned(),
            nodes,
            spans,
            exprs,
            signals,
            params,
            labels,
            horizon: horizon.map(|h| h as u32),
            history: history.map(|h| h as u32),
            plan,
        })))
    }
}

/// Largest sum of `own` along any path from the root (the last node).
fn reach(nodes: &[Node], own: impl Fn(&Node) -> Option<u32>) -> Option<u64> {
    let mut sums: Vec<Option<u64>> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let below = node.operands().iter().try_fold(0, |m: u64, k| Some(m.max(sums[k.index()]?)));
        sums.push(below.and_then(|b| Some(b + u64::from(own(node)?))));
    }
    sums.pop().flatten()
}

struct Compact<'a> {
    from: &'a Builder,
    nodes: Vec<Node>,
    spans: Vec<Range<u32>>,
    exprs: Vec<Expr>,
    signals: Vec<String>,
    params: Vec<String>,
    node_map: Vec<Option<NodeId>>,
    expr_map: Vec<Option<ExprId>>,
    signal_map: Vec<Option<u32>>,
    param_map: Vec<Option<u32>>,
}

impl<'a> Compact<'a> {
    fn new(from: &'a Builder, declared: bool) -> Self {
        let count = from.signals.list.len();
        Self {
            from,
            nodes: Vec::new(),
            spans: Vec::new(),
            exprs: Vec::new(),
            signals: if declared { from.signals.list.clone() } else { Vec::new() },
            params: Vec::new(),
            node_map: vec![None; from.nodes.len()],
            expr_map: vec![None; from.exprs.len()],
            signal_map: if declared { (0..count as u32).map(Some).collect() } else { vec![None; count] },
            param_map: vec![None; from.params.list.len()],
        }
    }

    /// Depth is limited by [`MAX_DEPTH`].
    fn node(&mut self, id: NodeId) -> NodeId {
        if let Some(done) = self.node_map[id.index()] {
            return done;
        }
        let node = match &self.from.nodes[id.index()] {
            Node::Predicate { lhs, cmp, rhs } => {
                Node::Predicate { lhs: self.expr(*lhs), cmp: *cmp, rhs: self.expr(*rhs) }
            }
            other => other.map(|k| self.node(k)),
        };
        let new = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        self.spans.push(self.from.spans[id.index()].clone());
        self.node_map[id.index()] = Some(new);
        new
    }

    /// Walks long chains with a stack of its own.
    fn expr(&mut self, id: ExprId) -> ExprId {
        let mut stack = vec![id];
        while let Some(&top) = stack.last() {
            if self.expr_map[top.index()].is_some() {
                stack.pop();
                continue;
            }
            let expr = &self.from.exprs[top.index()];
            let open: Vec<ExprId> =
                expr.operands().into_iter().filter(|e| self.expr_map[e.index()].is_none()).collect();
            if !open.is_empty() {
                stack.extend(open.into_iter().rev());
                continue;
            }
            let done = |e: &ExprId| self.expr_map[e.index()].expect("operands are done first");
            let new = match expr {
                Expr::Number(n) => Expr::Number(*n),
                Expr::Signal(s) => {
                    Expr::Signal(rename(*s, &mut self.signal_map, &mut self.signals, &self.from.signals.list))
                }
                Expr::Param(p) => {
                    Expr::Param(rename(*p, &mut self.param_map, &mut self.params, &self.from.params.list))
                }
                Expr::Neg(e) => Expr::Neg(done(e)),
                Expr::Binary(op, l, r) => Expr::Binary(*op, done(l), done(r)),
                Expr::Call(func, args) => Expr::Call(*func, args.iter().map(done).collect()),
            };
            self.expr_map[top.index()] = Some(ExprId(self.exprs.len() as u32));
            self.exprs.push(new);
            stack.pop();
        }
        self.expr_map[id.index()].expect("the stack is empty only when the root is done")
    }
}

fn rename(old: u32, map: &mut [Option<u32>], names: &mut Vec<String>, from: &[String]) -> u32 {
    *map[old as usize].get_or_insert_with(|| {
        names.push(from[old as usize].clone());
        names.len() as u32 - 1
    })
}

/// See [`Formula::normalised`].
pub(crate) fn normalised(f: &Formula, scales: &[(&str, f64)]) -> Result<Formula, Error> {
    let mut scale_of = vec![None; f.signals().len()];
    for (name, scale) in scales {
        let i = f.signals().iter().position(|s| s == name).ok_or_else(|| Error::Unknown {
            what: "signal",
            name: (*name).to_owned(),
            hint: nearest(name, f.signals().iter().map(String::as_str)),
        })?;
        if !(scale.is_finite() && *scale > 0.0) {
            return Err(Error::Scale { signal: (*name).to_owned(), scale: *scale });
        }
        scale_of[i] = Some(*scale);
    }
    rebuilt(f, |b, id, node| {
        let (text, span) = (f.text(), f.span(id));
        Ok(match node {
            Node::Predicate { lhs, cmp, rhs } => {
                let read = below(f.exprs(), [lhs, rhs]);
                let mut found = read.iter().filter_map(|e| match f.exprs()[e.index()] {
                    Expr::Signal(s) => scale_of[s as usize],
                    _ => None,
                });
                match found.next() {
                    None => Node::Predicate { lhs, cmp, rhs },
                    Some(scale) if found.all(|other| other == scale) => {
                        let difference = b.expr(Expr::Binary(Arith::Sub, lhs, rhs), text, &span)?;
                        let scale = b.expr(Expr::Number(Number::new(scale)), text, &span)?;
                        let lhs = b.expr(Expr::Binary(Arith::Div, difference, scale), text, &span)?;
                        let rhs = b.expr(Expr::Number(Number::new(0.0)), text, &span)?;
                        Node::Predicate { lhs, cmp, rhs }
                    }
                    Some(_) => {
                        let message = "this predicate reads signals of different scales";
                        return Err(f.error_at(id, ParseErrorKind::Unsupported, message).into());
                    }
                }
            }
            other => other,
        })
    })
}

/// See [`Formula::decimated`].
pub(crate) fn decimated(f: &Formula, every: u32) -> Result<Formula, Error> {
    rebuilt(f, |_, id, node| {
        let refuse = |kind, message: String| f.error_at(id, kind, message);
        let steps = |n: u32| match n.checked_rem(every) {
            Some(0) => Ok(n / every),
            _ => {
                let message = format!("{n} steps are not a whole multiple of {every}");
                Err(refuse(ParseErrorKind::NotMultipleOfDt, message))
            }
        };
        let shorter = |i: Bounds| -> Result<_, ParseError> {
            Ok(Bounds { a: steps(i.a)?, b: i.b.map(steps).transpose()? })
        };
        Ok(match node {
            Node::Temporal(op, i, c) => Node::Temporal(op, shorter(i)?, c),
            Node::Binary(op, e, i, l, r) => Node::Binary(op, e, shorter(i)?, l, r),
            Node::Step(..) if every != 1 => {
                let message = "an operator of one step has no place among fewer steps".into();
                return Err(refuse(ParseErrorKind::Unsupported, message).into());
            }
            other => other,
        })
    })
}

/// The formula with each node replaced by what `edit` makes of it, over operands that are replaced already.
fn rebuilt(
    f: &Formula,
    mut edit: impl FnMut(&mut Builder, NodeId, Node) -> Result<Node, Error>,
) -> Result<Formula, Error> {
    let text = f.text();
    let mut b = Builder {
        signals: f.signals().iter().collect(),
        params: f.params().iter().collect(),
        ..Builder::default()
    };
    // The expressions are shared already and keep their numbers; what is new comes after them.
    for expr in f.exprs() {
        b.expr(expr.clone(), text, &(0..0))?;
    }
    let mut map: Vec<NodeId> = Vec::with_capacity(f.nodes().len());
    for (i, node) in f.nodes().iter().enumerate() {
        let id = NodeId(i as u32);
        let new = edit(&mut b, id, node.map(|k| map[k.index()]))?;
        map.push(b.node(new, text, &f.span(id))?);
    }
    let labels: Vec<_> = f.0.labels.iter().map(|(id, name)| (map[id.index()], name.clone())).collect();
    Ok(b.finish(map[f.root().index()], true, &labels, text)?)
}
