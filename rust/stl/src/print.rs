//! Canonical text of a formula, with as few parentheses as the grammar allows.

use std::fmt::Write;

use crate::expr::{Arith, Expr, ExprId};
use crate::formula::{Binary, Bounds, Cmp, Endpoint, Formula, Node, NodeId, Step, Temporal};
use crate::lex::is_plain_name;

/// Binding strength of the rules of the grammar; a node is put in parentheses where a stronger rule is needed.
mod level {
    pub(super) const IFF: u8 = 1;
    pub(super) const IMPLIES: u8 = 2;
    pub(super) const OR: u8 = 3;
    pub(super) const AND: u8 = 4;
    pub(super) const UNTIL: u8 = 5;
    pub(super) const UNARY: u8 = 6;
    pub(super) const SUM: u8 = 1;
    pub(super) const TERM: u8 = 2;
    pub(super) const FACTOR: u8 = 3;
}

pub(crate) fn node_text(f: &Formula, id: NodeId) -> String {
    let mut p = Printer { f, out: String::new() };
    p.node(id, 0);
    p.out
}

/// The operator of a node without its operands, as `G[0,3]` or `and`; the whole text of a predicate.
pub(crate) fn head(f: &Formula, id: NodeId) -> String {
    let mut p = Printer { f, out: String::new() };
    match &f.nodes()[id.index()] {
        Node::Const(_) | Node::Predicate { .. } => p.node(id, 0),
        Node::Not(_) => p.out.push_str("not"),
        Node::And(_) => p.out.push_str("and"),
        Node::Or(_) => p.out.push_str("or"),
        Node::Implies(..) => p.out.push_str("->"),
        Node::Iff(..) => p.out.push_str("iff"),
        Node::Xor(..) => p.out.push_str("xor"),
        Node::Temporal(op, bounds, _) => {
            p.out.push(op.letter());
            p.bounds(*bounds);
        }
        Node::Step(op, _) => p.out.push_str(op.word()),
        Node::Binary(op, endpoint, bounds, ..) => {
            p.out.push_str(op.word(*endpoint));
            p.bounds(*bounds);
        }
        Node::Rise(_) => p.out.push_str("rise"),
        Node::Fall(_) => p.out.push_str("fall"),
    }
    p.out
}

impl Temporal {
    fn letter(self) -> char {
        match self {
            Temporal::Always => 'G',
            Temporal::Eventually => 'F',
            Temporal::Historically => 'H',
            Temporal::Once => 'O',
        }
    }
}

impl Step {
    fn word(self) -> &'static str {
        match self {
            Step::Next => "X",
            Step::WeakNext => "wX",
            Step::Prev => "Y",
            Step::WeakPrev => "wY",
        }
    }
}

impl Binary {
    fn word(self, endpoint: Endpoint) -> &'static str {
        match (self, endpoint) {
            (Binary::Until, Endpoint::Exclusive) => "U",
            (Binary::Until, Endpoint::Inclusive) => "Ui",
            (Binary::Release, Endpoint::Exclusive) => "R",
            (Binary::Release, Endpoint::Inclusive) => "Ri",
            (Binary::WeakUntil, Endpoint::Exclusive) => "W",
            (Binary::WeakUntil, Endpoint::Inclusive) => "Wi",
            (Binary::Since, Endpoint::Exclusive) => "S",
            (Binary::Since, Endpoint::Inclusive) => "Si",
        }
    }
}

struct Printer<'a> {
    f: &'a Formula,
    out: String,
}

impl Printer<'_> {
    fn node(&mut self, id: NodeId, needed: u8) {
        let node = &self.f.nodes()[id.index()];
        let own = match node {
            Node::Iff(..) | Node::Xor(..) => level::IFF,
            Node::Implies(..) => level::IMPLIES,
            Node::Or(_) => level::OR,
            Node::And(_) => level::AND,
            Node::Binary(..) => level::UNTIL,
            _ => level::UNARY,
        };
        if own < needed {
            self.out.push('(');
        }
        match node {
            Node::Const(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Node::Predicate { lhs, cmp, rhs } => {
                self.expr(*lhs, 0);
                self.out.push_str(match cmp {
                    Cmp::Lt => " < ",
                    Cmp::Le => " <= ",
                    Cmp::Gt => " > ",
                    Cmp::Ge => " >= ",
                    Cmp::Eq => " == ",
                    Cmp::Ne => " != ",
                });
                self.expr(*rhs, 0);
            }
            Node::Not(c) => self.prefix("not ", *c),
            Node::And(kids) => self.chain(kids, " and ", level::UNTIL),
            Node::Or(kids) => self.chain(kids, " or ", level::AND),
            Node::Implies(l, r) => {
                self.node(*l, level::OR);
                self.out.push_str(" -> ");
                self.node(*r, level::IMPLIES);
            }
            Node::Iff(l, r) | Node::Xor(l, r) => {
                self.node(*l, level::IFF);
                self.out.push_str(if matches!(node, Node::Iff(..)) { " iff " } else { " xor " });
                self.node(*r, level::IMPLIES);
            }
            Node::Temporal(op, bounds, c) => {
                self.out.push(op.letter());
                self.bounds(*bounds);
                self.prefix(" ", *c);
            }
            Node::Step(op, c) => {
                self.out.push_str(op.word());
                self.prefix(" ", *c);
            }
            Node::Binary(op, endpoint, bounds, l, r) => {
                self.node(*l, level::UNARY);
                self.out.push(' ');
                self.out.push_str(op.word(*endpoint));
                self.bounds(*bounds);
                self.out.push(' ');
                self.node(*r, level::UNARY);
            }
            Node::Rise(c) | Node::Fall(c) => {
                self.out.push_str(if matches!(node, Node::Rise(_)) { "rise(" } else { "fall(" });
                self.node(*c, 0);
                self.out.push(')');
            }
        }
        if own < needed {
            self.out.push(')');
        }
    }

    fn prefix(&mut self, op: &str, c: NodeId) {
        self.out.push_str(op);
        self.node(c, level::UNARY);
    }

    fn chain(&mut self, kids: &[NodeId], op: &str, needed: u8) {
        for (i, kid) in kids.iter().enumerate() {
            if i > 0 {
                self.out.push_str(op);
            }
            self.node(*kid, needed);
        }
    }

    fn bounds(&mut self, i: Bounds) {
        match i.b {
            None if i.a == 0 => Ok(()),
            None => write!(self.out, "[{},inf]", i.a),
            Some(b) => write!(self.out, "[{},{b}]", i.a),
        }
        .expect("writing to a string does not fail");
    }

    fn expr(&mut self, id: ExprId, needed: u8) {
        // Left-associative chains may be long: walk down their left side without recursion.
        let exprs = self.f.exprs();
        let level_of = |e: &Expr| match e {
            Expr::Binary(Arith::Add | Arith::Sub, ..) => level::SUM,
            Expr::Binary(..) => level::TERM,
            _ => level::FACTOR,
        };
        let mut spine = Vec::new();
        let (mut at, mut need) = (id, needed);
        while let Expr::Binary(op, l, r) = &exprs[at.index()] {
            let own = level_of(&exprs[at.index()]);
            let parens = own < need;
            if parens {
                self.out.push('(');
            }
            spine.push((*op, *r, own, parens));
            (at, need) = (*l, own);
        }
        match &exprs[at.index()] {
            Expr::Number(n) => self.out.push_str(&number_text(n.get())),
            Expr::Signal(s) => {
                let name = &self.f.signals()[*s as usize];
                if is_plain_name(name) {
                    self.out.push_str(name);
                } else {
                    let _ = write!(self.out, "`{name}`");
                }
            }
            Expr::Param(p) => {
                self.out.push('$');
                self.out.push_str(&self.f.params()[*p as usize]);
            }
            Expr::Neg(e) => {
                self.out.push('-');
                self.expr(*e, level::FACTOR);
            }
            Expr::Call(func, args) => {
                self.out.push_str(func.name());
                self.out.push('(');
                for (i, arg) in args.iter().enumerate() {
                    if i > 0 {
                        self.out.push_str(", ");
                    }
                    self.expr(*arg, 0);
                }
                self.out.push(')');
            }
            Expr::Binary(..) => unreachable!("the loop above passes every binary operation"),
        }
        for (op, r, own, parens) in spine.into_iter().rev() {
            self.out.push_str(match op {
                Arith::Add => " + ",
                Arith::Sub => " - ",
                Arith::Mul => " * ",
                Arith::Div => " / ",
            });
            self.expr(r, own + 1);
            if parens {
                self.out.push(')');
            }
        }
    }
}

/// The shorter of the two exact decimal forms.
pub(crate) fn number_text(x: f64) -> String {
    let (plain, scientific) = (format!("{x}"), format!("{x:e}"));
    if plain.len() <= scientific.len() + 4 { plain } else { scientific }
}
