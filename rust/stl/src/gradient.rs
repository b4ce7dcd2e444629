//! Gradients of robustness with respect to samples and parameters.
//!
//! With true semantics this is a subgradient along the path of the explanation: the earliest instant, then the
//! leftmost operand; in until the smallest t', then its right operand. `abs`, `sqrt` and `norm` have derivative 0
//! at 0, and values of empty windows have none.

use crate::engine::{Job, Layout, Room, run_kept};
use crate::error::Error;
use crate::explain::descend;
use crate::expr::{Arith, Expr, ExprId, Func, eval_sample};
use crate::formula::Formula;
use crate::plan::{Op, OpId, PredKind};
use crate::robustness::{
    End, Options, Param, Params, Semantics, Traces, Workspace, check, check_instant, horizon, length, root,
};
use crate::scalar::Scalar;
use crate::{reverse, smooth};

/// Which values of robustness are differentiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instants {
    /// One instant of each trace.
    At(u32),
    /// Every instant, as [`crate::robustness_trace`].
    Every,
}

/// Vector-Jacobian product. `upstream[n]` (or `[n, T]` for [`Instants::Every`], with T as in
/// [`crate::robustness_trace`]) holds the derivative of a loss with respect to each robustness; its derivatives
/// with respect to the samples are written to `dx[n, t, d]`, with respect to the parameters of each trace to
/// `dparams[n, P]`. Where a robustness is NaN and its upstream is not 0, the derivatives of everything that it
/// may read are NaN.
///
/// # Errors
/// As [`crate::robustness`].
#[allow(clippy::too_many_arguments)]
pub fn gradient<S: Scalar>(
    f: &Formula,
    x: Traces<S>,
    params: Params<S>,
    when: Instants,
    upstream: &[S],
    o: &Options,
    w: &mut Workspace<S>,
    dx: &mut [S],
    dparams: &mut [S],
) -> Result<(), Error> {
    check(f, &x, params, o)?;
    let (from, cols, cut) = match when {
        Instants::At(at) => {
            check_instant(f, &x, at, o)?;
            (i64::from(at), 1, 0)
        }
        Instants::Every => {
            let cut = if o.end == End::Strict { horizon(f)? as usize } else { 0 };
            (0, x.t.saturating_sub(cut), cut)
        }
    };
    length("upstream", x.n * cols, upstream.len())?;
    length("dx", x.data.len(), dx.len())?;
    length("dparams", x.n * params.len(), dparams.len())?;
    dx.fill(S::ZERO);
    dparams.fill(S::ZERO);
    if cols == 0 {
        return Ok(());
    }
    w.rooms.resize_with(w.rooms.len().max(1), Room::default);
    let outputs = root(f);
    let range = (from, from + cols as i64 - 1);
    let layout = Layout { per_trace: cols, per_output: cols, horizon: 0 };
    let (plan, exprs) = (&f.0.plan, &f.0.exprs);
    let job =
        Job { plan, exprs, x, params, outputs: &outputs, range, layout, keep: true, semantics: o.semantics };
    let mut back = Backward::new(&job);
    for trace in 0..x.n {
        let valid = if matches!(when, Instants::At(_)) { 1 } else { x.length(trace).saturating_sub(cut) };
        let upstream = &upstream[trace * cols..][..cols.min(valid)];
        if upstream.iter().all(|g| *g == S::ZERO) {
            continue;
        }
        let dx = &mut dx[trace * x.t * x.d..][..x.t * x.d];
        let dparams = &mut dparams[trace * params.len()..][..params.len()];
        back.trace(&job, trace, &mut w.rooms[0], upstream, dx, dparams);
    }
    Ok(())
}

/// Memory of the way back.
struct Backward<S> {
    results: Vec<S>,
    /// For each operation the derivatives with respect to its values.
    adjoints: Vec<Vec<S>>,
    registers: Vec<S>,
    register_adjoints: Vec<S>,
    choices: reverse::Scratch<S>,
    smooth: smooth::Scratch<S>,
}

impl<S: Scalar> Backward<S> {
    fn new(job: &Job<S>) -> Self {
        Self {
            results: vec![S::ZERO; job.layout.per_trace],
            adjoints: vec![Vec::new(); job.plan.ops.len()],
            registers: vec![S::ZERO; job.exprs.len()],
            register_adjoints: vec![S::ZERO; job.exprs.len()],
            choices: reverse::Scratch::default(),
            smooth: smooth::Scratch::default(),
        }
    }

    fn trace(
        &mut self,
        job: &Job<S>,
        trace: usize,
        room: &mut Room<S>,
        upstream: &[S],
        dx: &mut [S],
        dparams: &mut [S],
    ) {
        run_kept(job, trace, room, &mut self.results);
        let last = job.x.length(trace) as i64 - 1;
        if let (Semantics::True, [result], [g]) = (job.semantics, &self.results[..], upstream)
            && !result.is_nan()
        {
            self.path(job, (trace, last), room, *g, dx, dparams);
            return;
        }
        for (i, adjoint) in self.adjoints.iter_mut().enumerate() {
            let (lo, hi) = room.range(i as OpId);
            adjoint.clear();
            adjoint.resize((hi - lo + 1).max(0) as usize, S::ZERO);
        }
        let root = job.plan.root();
        let first = room.range(root as OpId).0;
        let mut poisoned = false;
        for ((t, g), result) in (job.range.0..).zip(upstream).zip(&self.results) {
            if result.is_nan() {
                poisoned |= *g != S::ZERO;
            } else {
                let slot = &mut self.adjoints[root][(t - first) as usize];
                *slot = *slot + *g;
            }
        }
        for (i, op) in job.plan.ops.iter().enumerate().rev() {
            let (lo, hi) = room.range(i as OpId);
            if let Op::Pred { kind, lhs, rhs } = op {
                for t in lo..=hi {
                    let g = if poisoned { S::NAN } else { self.adjoints[i][(t - lo) as usize] };
                    if g != S::ZERO {
                        self.predicate(job, i, (*kind, *lhs, *rhs), (trace, t as usize), g, dx, dparams);
                    }
                }
            } else if !poisoned && lo <= hi {
                let (below, own) = self.adjoints.split_at_mut(i);
                let both = (room.values(i as OpId).0, &own[0][..]);
                let kid = |k| room.values(k);
                let add = |k: OpId, s: i64, g: S| {
                    let slot = &mut below[k as usize][(s - room.range(k).0) as usize];
                    *slot = *slot + g;
                };
                if job.semantics == Semantics::True {
                    reverse::reverse(op, last, lo, both, kid, &mut self.choices, add);
                } else {
                    smooth::reverse(op, job.semantics, last, lo, both, kid, &mut self.smooth, add);
                }
            }
        }
    }

    /// One instant: down the path of the explanation, to the one predicate value that decides.
    fn path(
        &mut self,
        job: &Job<S>,
        (trace, last): (usize, i64),
        room: &Room<S>,
        g: S,
        dx: &mut [S],
        dparams: &mut [S],
    ) {
        let mut at = Some((job.plan.root() as OpId, job.range.0));
        while let Some((op, t)) = at {
            match &job.plan.ops[op as usize] {
                Op::Pred { kind, lhs, rhs } => {
                    let place = (trace, t as usize);
                    self.predicate(job, op as usize, (*kind, *lhs, *rhs), place, g, dx, dparams);
                    return;
                }
                inner => at = descend(inner, t, last, room.value(op, t), |k, s| room.value(k, s)),
            }
        }
    }

    /// From a predicate to the samples and parameters it reads.
    #[allow(clippy::too_many_arguments)]
    fn predicate(
        &mut self,
        job: &Job<S>,
        op: usize,
        (kind, lhs, rhs): (PredKind, ExprId, ExprId),
        (trace, t): (usize, usize),
        g: S,
        dx: &mut [S],
        dparams: &mut [S],
    ) {
        let Traces { data, t: steps, d, .. } = job.x;
        let value = |p: usize| match job.params[p] {
            Param::All(value) => value,
            Param::PerTrace(values) => values[trace],
        };
        eval_sample(job.exprs, &data[(trace * steps + t) * d..][..d], value, &mut self.registers);
        let v = &self.registers;
        let difference = v[lhs.index()] - v[rhs.index()];
        let g = match kind {
            PredKind::Difference => g,
            PredKind::Distance => g * sign(difference),
            PredKind::Closeness => S::ZERO - g * sign(difference),
        };
        let below = &job.plan.registers[op];
        let adjoint = &mut self.register_adjoints;
        for e in below {
            adjoint[e.index()] = S::ZERO;
        }
        let add = |adjoint: &mut [S], e: ExprId, g: S| adjoint[e.index()] = adjoint[e.index()] + g;
        add(adjoint, lhs, g);
        add(adjoint, rhs, S::ZERO - g);
        for e in below.iter().rev() {
            let g = adjoint[e.index()];
            if g == S::ZERO {
                continue;
            }
            let own = v[e.index()];
            match &job.exprs[e.index()] {
                Expr::Number(_) => {}
                Expr::Signal(s) => dx[t * d + *s as usize] = dx[t * d + *s as usize] + g,
                Expr::Param(p) => dparams[*p as usize] = dparams[*p as usize] + g,
                Expr::Neg(a) => add(adjoint, *a, S::ZERO - g),
                Expr::Binary(op, a, b) => {
                    let (x, y) = (v[a.index()], v[b.index()]);
                    let (ga, gb) = match op {
                        Arith::Add => (g, g),
                        Arith::Sub => (g, S::ZERO - g),
                        Arith::Mul => (g * y, g * x),
                        Arith::Div => (g / y, S::ZERO - g * own / y),
                    };
                    add(adjoint, *a, ga);
                    add(adjoint, *b, gb);
                }
                Expr::Call(func, args) => {
                    let (a, x) = (args[0], v[args[0].index()]);
                    match func {
                        Func::Abs => add(adjoint, a, g * sign(x)),
                        Func::Sqrt => add(adjoint, a, over(g, own + own)),
                        Func::Sin => add(adjoint, a, g * x.cos()),
                        Func::Cos => add(adjoint, a, S::ZERO - g * x.sin()),
                        Func::Exp => add(adjoint, a, g * own),
                        Func::Norm => args.iter().for_each(|a| add(adjoint, *a, over(g * v[a.index()], own))),
                        // NaN equals nothing: the whole call is then NaN, and so is g.
                        Func::Min | Func::Max => match args.iter().find(|a| v[a.index()] == own) {
                            Some(chosen) => add(adjoint, *chosen, g),
                            None => args.iter().for_each(|a| add(adjoint, *a, g)),
                        },
                    }
                }
            }
        }
    }
}

/// −1, 0 or 1; NaN for NaN.
fn sign<S: Scalar>(x: S) -> S {
    if x > S::ZERO {
        S::ONE
    } else if x < S::ZERO {
        S::ZERO - S::ONE
    } else {
        x * S::ZERO
    }
}

/// `a / b`, 0 where b is 0.
fn over<S: Scalar>(a: S, b: S) -> S {
    if b == S::ZERO { S::ZERO } else { a / b }
}
