//! Text to formula: one Pratt parser whose items are typed (number or truth value), so that `(x) > 0` and
//! `(x > 0)` both read as they should.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::build::{Builder, MAX_DEPTH};
use crate::error::{ParseError, ParseErrorKind as Kind};
use crate::expr::{Arith, Expr, ExprId, Func, Number};
use crate::formula::{Binary, Bounds, Cmp, Endpoint, Formula, Node, NodeId, Step, Temporal};
use crate::interval;
use crate::lex::{self, Token};

/// Longest formula text in bytes.
const MAX_TEXT: usize = 1 << 20;

/// How a text is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParseOptions<'a> {
    /// Seconds per step; needed for bounds with a unit.
    pub dt: Option<f64>,
    /// What plain `U`, `S`, `R`, `W` mean.
    pub until: Endpoint,
    /// Names of the columns of a sample. `None`: the signals of the formula, in order of appearance.
    pub signals: Option<&'a [&'a str]>,
}

pub(crate) fn formula(text: &str, o: &ParseOptions) -> Result<Formula, ParseError> {
    let mut p = Parser::new(text, o)?;
    p.lets()?;
    if p.at_word("spec") {
        return Err(*p.error(Kind::Syntax, "named properties make a file: read it with parse_file"));
    }
    let root = p.truth(level::IFF)?;
    p.eat(";")?;
    p.expect_end()?;
    p.finish(root)
}

/// Parses a property file: `let` definitions, then `spec NAME: formula;` properties, in order. A file with one
/// formula and no `spec` gives one property with an empty name.
///
/// # Errors
/// [`ParseError`] with the place in the file.
pub fn parse_file(text: &str, o: &ParseOptions) -> Result<Vec<(String, Formula)>, ParseError> {
    let mut p = Parser::new(text, o)?;
    p.lets()?;
    if !p.at_word("spec") {
        let root = p.truth(level::IFF)?;
        p.eat(";")?;
        p.expect_end()?;
        return Ok(vec![(String::new(), p.finish(root)?)]);
    }
    let mut roots: Vec<(String, NodeId)> = Vec::new();
    let mut names = HashSet::new();
    while p.at_word("spec") {
        p.advance()?;
        let (name, span) = p.name("property")?;
        if !names.insert(name.clone()) {
            return Err(*p.error_at(Kind::Syntax, format!("property `{name}` is defined twice"), span));
        }
        p.expect(":")?;
        let root = p.truth(level::IFF)?;
        p.expect(";")?;
        roots.push((name, root));
    }
    p.expect_end()?;
    roots.into_iter().map(|(name, root)| Ok((name, p.finish(root)?))).collect()
}

/// ", did you mean `…`?" for the nearest candidate within edit distance 2, or nothing.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    candidates
        .map(|c| (edit_distance(name, c), c))
        .filter(|(d, _)| *d <= 2)
        .min()
        .map_or_else(String::new, |(_, c)| format!(", did you mean `{c}`?"))
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Binding strengths, weakest first.
mod level {
    pub(super) const IFF: u8 = 1;
    pub(super) const IMPLIES: u8 = 2;
    pub(super) const OR: u8 = 3;
    pub(super) const AND: u8 = 4;
    pub(super) const UNTIL: u8 = 5;
    pub(super) const UNARY: u8 = 6;
    pub(super) const COMPARE: u8 = 7;
    pub(super) const SUM: u8 = 8;
    pub(super) const TERM: u8 = 9;
    pub(super) const NEGATE: u8 = 10;
}

#[derive(Clone, Copy)]
enum Item {
    Number(ExprId),
    Truth(NodeId),
}

#[derive(Clone, Copy)]
enum Infix {
    Iff,
    Xor,
    Implies,
    Or,
    And,
    Temporal(Binary, Endpoint),
    Compare(Cmp),
    Arith(Arith),
}

impl Infix {
    fn level(self) -> u8 {
        match self {
            Infix::Iff | Infix::Xor => level::IFF,
            Infix::Implies => level::IMPLIES,
            Infix::Or => level::OR,
            Infix::And => level::AND,
            Infix::Temporal(..) => level::UNTIL,
            Infix::Compare(_) => level::COMPARE,
            Infix::Arith(Arith::Add | Arith::Sub) => level::SUM,
            Infix::Arith(_) => level::TERM,
        }
    }
}

pub(crate) struct Parser<'a> {
    pub(crate) text: &'a str,
    pub(crate) o: &'a ParseOptions<'a>,
    pub(crate) token: Token,
    pub(crate) span: Range<usize>,
    /// End of the token before `span`.
    last: usize,
    nesting: u32,
    lets: HashMap<String, NodeId>,
    b: Builder,
}

/// Errors travel boxed inside the parser: the recursion then needs little stack.
pub(crate) type Res<T> = Result<T, Box<ParseError>>;

impl From<Box<ParseError>> for ParseError {
    fn from(e: Box<ParseError>) -> Self {
        *e
    }
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, o: &'a ParseOptions<'a>) -> Res<Self> {
        if text.len() > MAX_TEXT {
            let message = format!("the text has {} bytes, the limit is {MAX_TEXT}", text.len());
            return Err(Box::new(ParseError::new(Kind::TooLarge, message, text, 0..0)));
        }
        let mut b = Builder::default();
        b.signals = o.signals.unwrap_or_default().iter().collect();
        let (token, span) = lex::token(text, 0)?;
        Ok(Self { text, o, token, span, last: 0, nesting: 0, lets: HashMap::new(), b })
    }

    fn finish(&self, root: NodeId) -> Result<Formula, ParseError> {
        let mut labels: Vec<_> = self.lets.iter().map(|(name, id)| (*id, name.clone())).collect();
        // Two names of one node: the first in the alphabet, not in the hash table.
        labels.sort_unstable();
        self.b.finish(root, self.o.signals.is_some(), &labels, self.text)
    }

    pub(crate) fn error(&self, kind: Kind, message: impl Into<String>) -> Box<ParseError> {
        self.error_at(kind, message, self.span.clone())
    }

    pub(crate) fn error_at(
        &self,
        kind: Kind,
        message: impl Into<String>,
        span: Range<usize>,
    ) -> Box<ParseError> {
        Box::new(ParseError::new(kind, message, self.text, span))
    }

    fn unexpected(&self, wanted: &str) -> Box<ParseError> {
        let found = match &self.token {
            Token::End => "the end of the text".to_owned(),
            _ => format!("`{}`", &self.text[self.span.clone()]),
        };
        self.error(Kind::Syntax, format!("expected {wanted}, found {found}"))
    }

    pub(crate) fn advance(&mut self) -> Res<()> {
        self.last = self.span.end;
        (self.token, self.span) = lex::token(self.text, self.span.end)?;
        Ok(())
    }

    pub(crate) fn at(&self, symbol: &str) -> bool {
        matches!(&self.token, Token::Symbol(s) if *s == symbol)
    }

    fn at_word(&self, word: &str) -> bool {
        matches!(&self.token, Token::Word(w) if w == word)
    }

    pub(crate) fn eat(&mut self, symbol: &str) -> Res<bool> {
        let found = self.at(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(crate) fn expect(&mut self, symbol: &str) -> Res<()> {
        if self.eat(symbol)? { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
    }

    fn expect_end(&self) -> Res<()> {
        if self.token == Token::End {
            Ok(())
        } else {
            Err(self.unexpected("an operator or the end of the text"))
        }
    }

    fn name(&mut self, what: &str) -> Res<(String, Range<usize>)> {
        match &self.token {
            Token::Word(w) if !lex::is_reserved(w) => {
                let found = (w.clone(), self.span.clone());
                self.advance()?;
                Ok(found)
            }
            _ => Err(self.unexpected(&format!("the name of a {what}"))),
        }
    }

    fn lets(&mut self) -> Res<()> {
        while self.at_word("let") {
            self.advance()?;
            let (name, span) = self.name("definition")?;
            if self.lets.contains_key(&name) {
                return Err(self.error_at(Kind::Syntax, format!("`{name}` is defined twice"), span));
            }
            if self.b.signals.get(&name).is_some() {
                return Err(self.error_at(Kind::Syntax, format!("`{name}` is already a signal"), span));
            }
            self.expect("=")?;
            let id = self.truth(level::IFF)?;
            self.expect(";")?;
            self.lets.insert(name, id);
        }
        Ok(())
    }

    fn truth(&mut self, min: u8) -> Res<NodeId> {
        let (item, span) = self.parse(min)?;
        self.as_truth(item, span)
    }

    fn as_truth(&self, item: Item, span: Range<usize>) -> Res<NodeId> {
        match item {
            Item::Truth(id) => Ok(id),
            Item::Number(_) => {
                let text = &self.text[span.clone()];
                let what = if text.len() <= 40 { text } else { "x" };
                let message = format!("a formula is needed here, not a number: write `{what} > 0`");
                Err(self.error_at(Kind::Type, message, span))
            }
        }
    }

    fn as_number(&self, item: Item, span: Range<usize>) -> Res<ExprId> {
        match item {
            Item::Number(id) => Ok(id),
            Item::Truth(_) => {
                Err(self.error_at(Kind::Type, "a number is needed here, not a truth value", span))
            }
        }
    }

    fn deeper(&mut self, span: &Range<usize>) -> Res<()> {
        // Each level of the printed tree costs at most one operator and one parenthesis.
        self.nesting += 1;
        if self.nesting > 2 * MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH}");
            return Err(self.error_at(Kind::TooDeep, message, span.clone()));
        }
        Ok(())
    }

    /// An item made of operators that bind at least as strongly as `min`.
    fn parse(&mut self, min: u8) -> Res<(Item, Range<usize>)> {
        let start = self.span.start;
        let mut left = self.prefix()?;
        let mut left_span = start..self.last;
        // The strongest level whose operators may still follow: comparisons and until do not associate.
        let mut max = u8::MAX;
        while let Some(op) = self.infix() {
            let own = op.level();
            if own < min {
                break;
            }
            if own > max {
                let message = match op {
                    Infix::Temporal(..) => "binary temporal operators do not associate: add parentheses",
                    _ => "this comparison needs parentheses",
                };
                return Err(self.error(Kind::Syntax, message));
            }
            let op_span = self.span.clone();
            self.advance()?;
            self.deeper(&op_span)?;
            left = self.after_infix(op, left, left_span)?;
            self.nesting -= 1;
            left_span = start..self.last;
            if matches!(op, Infix::Temporal(..) | Infix::Compare(_)) {
                max = own - 1;
            }
        }
        Ok((left, left_span))
    }

    fn infix(&self) -> Option<Infix> {
        use Endpoint::Inclusive;
        let plain = self.o.until;
        Some(match &self.token {
            Token::Symbol(s) => match *s {
                "<->" => Infix::Iff,
                "->" => Infix::Implies,
                "||" | "|" => Infix::Or,
                "&&" | "&" => Infix::And,
                "<" => Infix::Compare(Cmp::Lt),
                "<=" => Infix::Compare(Cmp::Le),
                ">" => Infix::Compare(Cmp::Gt),
                ">=" => Infix::Compare(Cmp::Ge),
                "==" => Infix::Compare(Cmp::Eq),
                "!=" => Infix::Compare(Cmp::Ne),
                "+" => Infix::Arith(Arith::Add),
                "-" => Infix::Arith(Arith::Sub),
                "*" => Infix::Arith(Arith::Mul),
                "/" => Infix::Arith(Arith::Div),
                _ => return None,
            },
            Token::Word(w) => match w.as_str() {
                "iff" => Infix::Iff,
                "xor" => Infix::Xor,
                "implies" => Infix::Implies,
                "or" => Infix::Or,
                "and" => Infix::And,
                "U" | "until" => Infix::Temporal(Binary::Until, plain),
                "Ui" | "until_incl" => Infix::Temporal(Binary::Until, Inclusive),
                "W" | "unless" | "weak_until" => Infix::Temporal(Binary::WeakUntil, plain),
                "Wi" => Infix::Temporal(Binary::WeakUntil, Inclusive),
                "R" | "release" => Infix::Temporal(Binary::Release, plain),
                "Ri" => Infix::Temporal(Binary::Release, Inclusive),
                "S" | "since" => Infix::Temporal(Binary::Since, plain),
                "Si" | "since_incl" => Infix::Temporal(Binary::Since, Inclusive),
                _ => return None,
            },
            _ => return None,
        })
    }

    fn after_infix(&mut self, op: Infix, left: Item, left_span: Range<usize>) -> Res<Item> {
        let start = left_span.start;
        match op {
            Infix::Arith(arith) => {
                let l = self.as_number(left, left_span)?;
                let (item, span) = self.parse(op.level() + 1)?;
                let r = self.as_number(item, span)?;
                let expr = self.b.expr(Expr::Binary(arith, l, r), self.text, &(start..self.last))?;
                Ok(Item::Number(expr))
            }
            Infix::Compare(cmp) => {
                let l = self.as_number(left, left_span)?;
                let (item, span) = self.parse(level::SUM)?;
                let r = self.as_number(item, span.clone())?;
                let first =
                    self.b.node(Node::Predicate { lhs: l, cmp, rhs: r }, self.text, &(start..self.last))?;
                let Some(Infix::Compare(cmp)) = self.infix() else { return Ok(Item::Truth(first)) };
                self.advance()?;
                let (item, last) = self.parse(level::SUM)?;
                let third = self.as_number(item, last)?;
                let node = Node::Predicate { lhs: r, cmp, rhs: third };
                let second = self.b.node(node, self.text, &(span.start..self.last))?;
                let both = self.b.chain(true, vec![first, second], self.text, &(start..self.last))?;
                Ok(Item::Truth(both))
            }
            Infix::And | Infix::Or => {
                let and = matches!(op, Infix::And);
                let mut kids = vec![self.as_truth(left, left_span)?];
                loop {
                    kids.push(self.truth(op.level() + 1)?);
                    match self.infix() {
                        Some(Infix::And) if and => self.advance()?,
                        Some(Infix::Or) if !and => self.advance()?,
                        _ => break,
                    }
                }
                Ok(Item::Truth(self.b.chain(and, kids, self.text, &(start..self.last))?))
            }
            Infix::Iff | Infix::Xor | Infix::Implies | Infix::Temporal(..) => {
                let l = self.as_truth(left, left_span)?;
                let bounds = match op {
                    Infix::Temporal(..) => self.bounds()?,
                    _ => Bounds::ALL,
                };
                // Implication associates to the right, the others to the left or not at all.
                let r = self.truth(op.level() + u8::from(!matches!(op, Infix::Implies)))?;
                let node = match op {
                    Infix::Iff => Node::Iff(l, r),
                    Infix::Xor => Node::Xor(l, r),
                    Infix::Temporal(binary, endpoint) => Node::Binary(binary, endpoint, bounds, l, r),
                    _ => Node::Implies(l, r),
                };
                Ok(Item::Truth(self.b.node(node, self.text, &(start..self.last))?))
            }
        }
    }

    fn bounds(&mut self) -> Res<Bounds> {
        if self.at("[") { interval::parse(self) } else { Ok(Bounds::ALL) }
    }

    fn prefix(&mut self) -> Res<Item> {
        let span = self.span.clone();
        match std::mem::replace(&mut self.token, Token::End) {
            Token::Number(value) => {
                if !value.is_finite() {
                    return Err(self.error(Kind::Syntax, "this number is too large"));
                }
                self.advance()?;
                self.leaf(Expr::Number(Number::new(value)), &span)
            }
            Token::Signal(name) => {
                self.advance()?;
                self.signal(name, &span)
            }
            Token::Param(name) => {
                self.advance()?;
                let index = self.b.params.get_or_push(name);
                self.leaf(Expr::Param(index), &span)
            }
            Token::Word(word) => {
                self.advance()?;
                self.word(word, span)
            }
            Token::Symbol("(") => {
                self.advance()?;
                self.deeper(&span)?;
                let (item, _) = self.parse(level::IFF)?;
                self.nesting -= 1;
                self.expect(")")?;
                Ok(item)
            }
            Token::Symbol("-") => {
                self.advance()?;
                self.deeper(&span)?;
                let (item, operand) = self.parse(level::NEGATE)?;
                self.nesting -= 1;
                let id = self.as_number(item, operand)?;
                Ok(Item::Number(self.b.expr(Expr::Neg(id), self.text, &(span.start..self.last))?))
            }
            Token::Symbol("!" | "~") => {
                self.advance()?;
                self.unary(span, Node::Not)
            }
            other => {
                self.token = other;
                Err(self.unexpected("a formula"))
            }
        }
    }

    fn leaf(&mut self, expr: Expr, span: &Range<usize>) -> Res<Item> {
        Ok(Item::Number(self.b.expr(expr, self.text, span)?))
    }

    fn unary(&mut self, span: Range<usize>, make: impl FnOnce(NodeId) -> Node) -> Res<Item> {
        self.deeper(&span)?;
        let id = self.truth(level::UNARY)?;
        self.nesting -= 1;
        Ok(Item::Truth(self.b.node(make(id), self.text, &(span.start..self.last))?))
    }

    /// A word that was just passed, at `span`.
    fn word(&mut self, word: String, span: Range<usize>) -> Res<Item> {
        let temporal = match word.as_str() {
            "G" | "always" | "globally" => Some(Temporal::Always),
            "F" | "eventually" => Some(Temporal::Eventually),
            "H" | "historically" => Some(Temporal::Historically),
            "O" | "once" => Some(Temporal::Once),
            _ => None,
        };
        if let Some(op) = temporal {
            let bounds = self.bounds()?;
            return self.unary(span, |c| Node::Temporal(op, bounds, c));
        }
        match word.as_str() {
            "not" => return self.unary(span, Node::Not),
            "X" | "next" | "s_next" => return self.unary(span, |c| Node::Step(Step::Next, c)),
            "wX" | "wnext" => return self.unary(span, |c| Node::Step(Step::WeakNext, c)),
            "Y" | "prev" | "s_prev" => return self.unary(span, |c| Node::Step(Step::Prev, c)),
            "wY" | "wprev" => return self.unary(span, |c| Node::Step(Step::WeakPrev, c)),
            "rise" | "fall" => {
                self.expect("(")?;
                self.deeper(&span)?;
                let id = self.truth(level::IFF)?;
                self.nesting -= 1;
                self.expect(")")?;
                let node = if word == "rise" { Node::Rise(id) } else { Node::Fall(id) };
                return Ok(Item::Truth(self.b.node(node, self.text, &(span.start..self.last))?));
            }
            "true" | "false" => {
                return Ok(Item::Truth(self.b.node(Node::Const(word == "true"), self.text, &span)?));
            }
            _ => {}
        }
        if lex::is_reserved(&word) {
            let message =
                format!("`{word}` is a word of the language; a signal of that name needs backticks");
            return Err(self.error_at(Kind::Syntax, message, span));
        }
        if self.at("(") {
            let Some(func) = Func::from_name(&word) else {
                let hint = nearest(&word, Func::ALL.iter().map(|(n, _)| *n));
                return Err(self.error_at(Kind::Syntax, format!("no function `{word}`{hint}"), span));
            };
            return self.call(func, span);
        }
        if let Some(id) = self.lets.get(&word) {
            return Ok(Item::Truth(*id));
        }
        self.signal(word, &span)
    }

    fn call(&mut self, func: Func, span: Range<usize>) -> Res<Item> {
        self.expect("(")?;
        self.deeper(&span)?;
        let mut args = Vec::new();
        loop {
            let (item, arg) = self.parse(level::IFF)?;
            args.push(self.as_number(item, arg)?);
            if !self.eat(",")? {
                break;
            }
        }
        self.nesting -= 1;
        self.expect(")")?;
        let span = span.start..self.last;
        if let Some(arity) = func.arity()
            && args.len() != arity
        {
            let message = format!("{} takes {arity} argument, not {}", func.name(), args.len());
            return Err(self.error_at(Kind::Type, message, span));
        }
        Ok(Item::Number(self.b.expr(Expr::Call(func, args.into()), self.text, &span)?))
    }

    fn signal(&mut self, name: String, span: &Range<usize>) -> Res<Item> {
        let index = match self.o.signals {
            None => self.b.signals.get_or_push(name),
            Some(declared) => match self.b.signals.get(&name) {
                Some(i) => i,
                None => {
                    let lets = self.lets.keys().map(String::as_str);
                    let hint = nearest(&name, declared.iter().copied().chain(lets));
                    return Err(self.error_at(
                        Kind::UnknownSignal,
                        format!("no signal `{name}`{hint}"),
                        span.clone(),
                    ));
                }
            },
        };
        self.leaf(Expr::Signal(index), span)
    }
}
