//! The arithmetic inside predicates: a hash-consed list of operations in dependency order, evaluated one
//! register per operation, so a sub-expression shared by several predicates is computed once.

use crate::scalar::Scalar;

/// Index of an arithmetic expression in [`crate::Formula::exprs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExprId(pub(crate) u32);

impl ExprId {
    /// Position in [`crate::Formula::exprs`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A finite constant, compared and hashed by its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number(u64);

impl Number {
    pub(crate) fn new(value: f64) -> Self {
        Self(value.to_bits())
    }

    /// The value.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// Binary arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arith {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
}

/// Functions allowed in predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Func {
    /// Absolute value.
    Abs,
    /// Smallest argument.
    Min,
    /// Largest argument.
    Max,
    /// Square root; NaN below zero.
    Sqrt,
    /// Euclidean norm of the arguments.
    Norm,
    /// Sine of an angle in rad.
    Sin,
    /// Cosine of an angle in rad.
    Cos,
    /// Exponential.
    Exp,
}

impl Func {
    pub(crate) const ALL: [(&'static str, Func); 8] = [
        ("abs", Func::Abs),
        ("min", Func::Min),
        ("max", Func::Max),
        ("sqrt", Func::Sqrt),
        ("norm", Func::Norm),
        ("sin", Func::Sin),
        ("cos", Func::Cos),
        ("exp", Func::Exp),
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|(_, f)| *f)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }

    /// `None` for a function of any number of arguments (at least one).
    pub(crate) fn arity(self) -> Option<usize> {
        match self {
            Func::Min | Func::Max | Func::Norm => None,
            _ => Some(1),
        }
    }
}

/// One arithmetic operation; operands always stand earlier in the list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// A constant.
    Number(Number),
    /// A signal, by index in [`crate::Formula::signals`].
    Signal(u32),
    /// A parameter, by index in [`crate::Formula::params`].
    Param(u32),
    /// Unary minus.
    Neg(ExprId),
    /// Binary arithmetic.
    Binary(Arith, ExprId, ExprId),
    /// A function call.
    Call(Func, Box<[ExprId]>),
}

impl Expr {
    pub(crate) fn operands(&self) -> Vec<ExprId> {
        match self {
            Expr::Number(_) | Expr::Signal(_) | Expr::Param(_) => Vec::new(),
            Expr::Neg(e) => vec![*e],
            Expr::Binary(_, l, r) => vec![*l, *r],
            Expr::Call(_, args) => args.to_vec(),
        }
    }
}

/// Minimum that keeps NaN, unlike `f32::min`.
#[inline(always)]
pub(crate) fn nan_min<S: Scalar>(a: S, b: S) -> S {
    if a.is_nan() || a < b { a } else { b }
}

#[inline(always)]
pub(crate) fn nan_max<S: Scalar>(a: S, b: S) -> S {
    if a.is_nan() || a > b { a } else { b }
}

/// Computes register `e` for `len` values. Registers lie `stride` apart in `regs`; leaves come from `leaf`.
#[inline(always)]
pub(crate) fn eval_register<S: Scalar>(
    expr: &Expr,
    e: usize,
    regs: &mut [S],
    stride: usize,
    len: usize,
    leaf: impl FnOnce(&Expr, &mut [S]),
) {
    let (before, rest) = regs.split_at_mut(e * stride);
    let out = &mut rest[..len];
    let reg = |id: &ExprId| &before[id.index() * stride..][..len];
    match expr {
        Expr::Number(_) | Expr::Signal(_) | Expr::Param(_) => leaf(expr, out),
        Expr::Neg(a) => map(out, reg(a), |x| S::ZERO - x),
        Expr::Binary(op, a, b) => {
            let (a, b) = (reg(a), reg(b));
            match op {
                Arith::Add => zip(out, a, b, |x, y| x + y),
                Arith::Sub => zip(out, a, b, |x, y| x - y),
                Arith::Mul => zip(out, a, b, |x, y| x * y),
                Arith::Div => zip(out, a, b, |x, y| x / y),
            }
        }
        Expr::Call(func, args) => {
            let first = reg(&args[0]);
            match func {
                Func::Abs => map(out, first, S::abs),
                Func::Sqrt => map(out, first, S::sqrt),
                Func::Sin => map(out, first, S::sin),
                Func::Cos => map(out, first, S::cos),
                Func::Exp => map(out, first, S::exp),
                Func::Min | Func::Max => {
                    out.copy_from_slice(first);
                    for arg in &args[1..] {
                        let is_min = *func == Func::Min;
                        for (o, &x) in out.iter_mut().zip(reg(arg)) {
                            *o = if is_min { nan_min(*o, x) } else { nan_max(*o, x) };
                        }
                    }
                }
                Func::Norm => {
                    map(out, first, |x| x * x);
                    for arg in &args[1..] {
                        for (o, &x) in out.iter_mut().zip(reg(arg)) {
                            *o = *o + x * x;
                        }
                    }
                    for o in out {
                        *o = o.sqrt();
                    }
                }
            }
        }
    }
}

/// Computes all registers for one sample.
pub(crate) fn eval_sample<S: Scalar>(
    exprs: &[Expr],
    sample: &[S],
    params: impl Fn(usize) -> S,
    registers: &mut [S],
) {
    for (i, expr) in exprs.iter().enumerate() {
        eval_register(expr, i, registers, 1, 1, |leaf, out| {
            out[0] = match leaf {
                Expr::Number(n) => S::from_f64(n.get()),
                Expr::Signal(s) => sample[*s as usize],
                Expr::Param(p) => params(*p as usize),
                _ => unreachable!("only leaves are loaded"),
            };
        });
    }
}

#[inline(always)]
fn map<S: Scalar>(out: &mut [S], a: &[S], f: impl Fn(S) -> S) {
    for (o, &x) in out.iter_mut().zip(a) {
        *o = f(x);
    }
}

#[inline(always)]
fn zip<S: Scalar>(out: &mut [S], a: &[S], b: &[S], f: impl Fn(S, S) -> S) {
    for ((o, &x), &y) in out.iter_mut().zip(a).zip(b) {
        *o = f(x, y);
    }
}
