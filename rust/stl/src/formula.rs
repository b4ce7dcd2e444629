//! The syntax tree: nodes shared by structure, in an order where operands come first.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ParseError, ParseErrorKind};
use crate::expr::{Expr, ExprId};
use crate::parse::{self, ParseOptions, nearest};
use crate::plan::Plan;

/// Index of a node in [`Formula::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// Position in [`Formula::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index of a parameter in [`Formula::params`]; made by [`Formula::param`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(pub(crate) u32);

/// Whether the left operand of until (since, release, weak until) must also hold at the deciding instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// It need not: `U`, `S`, `R`, `W`.
    #[default]
    Exclusive,
    /// It must: `Ui`, `Si`, `Ri`, `Wi`.
    Inclusive,
}

/// A time interval in steps; `b = None` is unbounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// First step.
    pub a: u32,
    /// Last step, included.
    pub b: Option<u32>,
}

impl Bounds {
    pub(crate) const ALL: Bounds = Bounds { a: 0, b: None };
}

/// Comparison of a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cmp {
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `==`
    Eq,
    /// `!=`
    Ne,
}

/// Operators over one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Temporal {
    /// `G`
    Always,
    /// `F`
    Eventually,
    /// `H`
    Historically,
    /// `O`
    Once,
}

/// Operators that look one step ahead or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// `X`: −∞ after the last sample.
    Next,
    /// `wX`: +∞ after the last sample.
    WeakNext,
    /// `Y`: −∞ before the first sample.
    Prev,
    /// `wY`: +∞ before the first sample.
    WeakPrev,
}

/// Binary temporal operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// `U`
    Until,
    /// `R`
    Release,
    /// `W`
    WeakUntil,
    /// `S`
    Since,
}

/// One node of a formula.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// `true` (+∞) or `false` (−∞).
    Const(bool),
    /// `lhs cmp rhs`.
    Predicate {
        /// Left side.
        lhs: ExprId,
        /// Comparison.
        cmp: Cmp,
        /// Right side.
        rhs: ExprId,
    },
    /// Negation.
    Not(NodeId),
    /// Conjunction of two or more operands; none of them is a conjunction.
    And(Box<[NodeId]>),
    /// Disjunction of two or more operands; none of them is a disjunction.
    Or(Box<[NodeId]>),
    /// `lhs -> rhs`.
    Implies(NodeId, NodeId),
    /// `lhs iff rhs`.
    Iff(NodeId, NodeId),
    /// `lhs xor rhs`.
    Xor(NodeId, NodeId),
    /// `G`, `F`, `H`, `O`.
    Temporal(Temporal, Bounds, NodeId),
    /// `X`, `wX`, `Y`, `wY`.
    Step(Step, NodeId),
    /// `U`, `R`, `W`, `S` and their inclusive forms.
    Binary(Binary, Endpoint, Bounds, NodeId, NodeId),
    /// True at the step where the operand becomes true.
    Rise(NodeId),
    /// True at the step where the operand becomes false.
    Fall(NodeId),
}

impl Node {
    /// Operands, left to right.
    pub fn operands(&self) -> Vec<NodeId> {
        match self {
            Node::Const(_) | Node::Predicate { .. } => Vec::new(),
            Node::Not(c) | Node::Temporal(_, _, c) | Node::Step(_, c) | Node::Rise(c) | Node::Fall(c) => {
                vec![*c]
            }
            Node::And(c) | Node::Or(c) => c.to_vec(),
            Node::Implies(l, r) | Node::Iff(l, r) | Node::Xor(l, r) | Node::Binary(_, _, _, l, r) => {
                vec![*l, *r]
            }
        }
    }

    /// The same node over other operands.
    pub(crate) fn map(&self, mut to: impl FnMut(NodeId) -> NodeId) -> Node {
        match self {
            Node::Const(_) | Node::Predicate { .. } => self.clone(),
            Node::Not(c) => Node::Not(to(*c)),
            Node::And(kids) => Node::And(kids.iter().map(|k| to(*k)).collect()),
            Node::Or(kids) => Node::Or(kids.iter().map(|k| to(*k)).collect()),
            Node::Implies(l, r) => Node::Implies(to(*l), to(*r)),
            Node::Iff(l, r) => Node::Iff(to(*l), to(*r)),
            Node::Xor(l, r) => Node::Xor(to(*l), to(*r)),
            Node::Temporal(op, b, c) => Node::Temporal(*op, *b, to(*c)),
            Node::Step(op, c) => Node::Step(*op, to(*c)),
            Node::Binary(op, e, b, l, r) => Node::Binary(*op, *e, *b, to(*l), to(*r)),
            Node::Rise(c) => Node::Rise(to(*c)),
            Node::Fall(c) => Node::Fall(to(*c)),
        }
    }

    /// Steps that the node itself reads ahead of its operands; `None` when unbounded.
    pub(crate) fn ahead(&self) -> Option<u32> {
        match self {
            Node::Temporal(Temporal::Always | Temporal::Eventually, i, _) => i.b,
            Node::Binary(Binary::Until | Binary::Release | Binary::WeakUntil, _, i, _, _) => i.b,
            Node::Step(Step::Next | Step::WeakNext, _) => Some(1),
            _ => Some(0),
        }
    }

    /// Steps that the node itself reads behind its operands; `None` when unbounded.
    pub(crate) fn behind(&self) -> Option<u32> {
        match self {
            Node::Temporal(Temporal::Historically | Temporal::Once, i, _) => i.b,
            Node::Binary(Binary::Since, _, i, _, _) => i.b,
            Node::Step(Step::Prev | Step::WeakPrev, _) | Node::Rise(_) | Node::Fall(_) => Some(1),
            _ => Some(0),
        }
    }
}

/// A parsed formula. Cloning is cheap; the tree never changes.
#[derive(Clone)]
pub struct Formula(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) text: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) spans: Vec<Range<u32>>,
    pub(crate) exprs: Vec<Expr>,
    pub(crate) signals: Vec<String>,
    pub(crate) params: Vec<String>,
    pub(crate) labels: Vec<(NodeId, String)>,
    pub(crate) horizon: Option<u32>,
    pub(crate) history: Option<u32>,
    pub(crate) plan: Plan,
}

impl Formula {
    /// Parses one formula, with `let` definitions before it if wanted.
    ///
    /// # Errors
    /// [`ParseError`] with the place in the text; see [`ParseErrorKind`].
    pub fn parse(text: &str, o: &ParseOptions) -> Result<Self, ParseError> {
        parse::formula(text, o)
    }

    /// Future steps that a value needs; `None` when unbounded.
    pub fn horizon(&self) -> Option<u32> {
        self.0.horizon
    }

    /// Past steps that a value needs; `None` when unbounded.
    pub fn history(&self) -> Option<u32> {
        self.0.history
    }

    /// Columns of a sample: the declared signals in declared order, or, if none were declared, the signals of
    /// the formula in the order in which they first appear.
    pub fn signals(&self) -> &[String] {
        &self.0.signals
    }

    /// Parameters in the order in which they first appear, without the `$`.
    pub fn params(&self) -> &[String] {
        &self.0.params
    }

    /// The handle of parameter `name` (without the `$`).
    ///
    /// # Errors
    /// [`Error::Unknown`] with the nearest name.
    pub fn param(&self, name: &str) -> Result<ParamId, Error> {
        let params = &self.0.params;
        params.iter().position(|p| p == name).map(|i| ParamId(i as u32)).ok_or_else(|| Error::Unknown {
            what: "parameter",
            name: name.to_owned(),
            hint: nearest(name, params.iter().map(String::as_str)),
        })
    }

    /// Nodes; operands stand before the nodes that use them, the last one is the formula.
    pub fn nodes(&self) -> &[Node] {
        &self.0.nodes
    }

    /// Arithmetic expressions; operands stand before the expressions that use them.
    pub fn exprs(&self) -> &[Expr] {
        &self.0.exprs
    }

    /// The node of the whole formula.
    pub fn root(&self) -> NodeId {
        NodeId(self.0.nodes.len() as u32 - 1)
    }

    /// Children of the top conjunction; the whole formula if it is not one. The minimum of their robustness is
    /// the robustness of the formula.
    pub fn conjuncts(&self) -> Vec<NodeId> {
        match self.0.nodes.last() {
            Some(Node::And(kids)) => kids.to_vec(),
            _ => vec![self.root()],
        }
    }

    /// The `let` name of a node.
    pub fn label(&self, id: NodeId) -> Option<&str> {
        self.0.labels.iter().find(|(n, _)| *n == id).map(|(_, l)| l.as_str())
    }

    /// The formula with each predicate that reads a signal of `scales` divided by that signal's scale, so that
    /// conjuncts in different units compare: `f > g` becomes `(f - g) / scale > 0`.
    ///
    /// # Errors
    /// An unknown signal, a scale that is not finite and positive, a predicate of signals with different scales.
    pub fn normalised(&self, scales: &[(&str, f64)]) -> Result<Formula, Error> {
        crate::build::normalised(self, scales)
    }

    /// The formula for traces of which only each `every`-th sample is kept: bounds are divided by `every`, so that they
    /// stay the same times.
    ///
    /// # Errors
    /// A bound that is not a whole multiple of `every`, and an operator that looks one step ahead or back, with its
    /// place in the text.
    pub fn decimated(&self, every: u32) -> Result<Formula, Error> {
        crate::build::decimated(self, every)
    }

    /// Bytes of [`Formula::text`] that a node was first written in.
    pub fn span(&self, id: NodeId) -> Range<usize> {
        let s = &self.0.spans[id.index()];
        s.start as usize..s.end as usize
    }

    /// The text that was parsed.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Canonical text of one node.
    pub fn node_text(&self, id: NodeId) -> String {
        crate::print::node_text(self, id)
    }

    /// The first unbounded future operator as an error; the whole formula if there is none.
    pub(crate) fn unbounded_future(&self) -> ParseError {
        let i = self.0.nodes.iter().position(|n| n.ahead().is_none());
        self.error_at(
            i.map_or(self.root(), |i| NodeId(i as u32)),
            ParseErrorKind::UnboundedFuture,
            "an unbounded future operator has no value before the trace ends: give it a bound",
        )
    }

    pub(crate) fn error_at(
        &self,
        id: NodeId,
        kind: ParseErrorKind,
        message: impl Into<String>,
    ) -> ParseError {
        ParseError::new(kind, message, &self.0.text, self.span(id))
    }
}

/// Structure, signals and parameters; spans and labels do not count.
impl PartialEq for Formula {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        a.nodes == b.nodes && a.exprs == b.exprs && a.signals == b.signals && a.params == b.params
    }
}

impl Eq for Formula {}

/// Canonical text: ASCII operators, bounds in steps, as few parentheses as possible.
impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.node_text(self.root()))
    }
}

impl fmt::Debug for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Formula({self})")
    }
}
