//! Predicates over a tile: traces are turned into rows of lanes while they are evaluated, in blocks that stay in
//! the first-level cache.

use crate::engine::{BLOCK, Job, Tile};
use crate::expr::{Expr, ExprId, eval_register};
use crate::plan::PredKind;
use crate::robustness::{Param, Traces};
use crate::scalar::Scalar;
use crate::transpose::{self, Columns};

/// Evaluates a predicate for the instants from `lo` on; true if a value was NaN.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn evaluate<S: Scalar, const L: usize>(
    job: &Job<S>,
    tile: &Tile<L>,
    registers: &mut [S],
    op: usize,
    (kind, lhs, rhs): (PredKind, ExprId, ExprId),
    lo: i64,
    out: &mut [[S; L]],
    flags: bool,
) -> bool {
    let mut nan = false;
    let stride = BLOCK * L;
    let constant = |e: ExprId| match &job.exprs[e.index()] {
        leaf @ (Expr::Number(_) | Expr::Param(_)) => Some(leaf),
        _ => None,
    };
    let signal = |e: ExprId| match &job.exprs[e.index()] {
        Expr::Signal(s) => Some(*s as usize),
        _ => None,
    };
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let first = lo as usize + block * BLOCK;
        let len = out.len() * L;
        // A signal against a constant, the common case, goes straight into the result.
        match (kind, signal(lhs), constant(rhs), constant(lhs), signal(rhs)) {
            (PredKind::Difference, Some(s), Some(c), ..) => {
                let c = constant_of(job, tile, c);
                gather(job, tile, s, first, out);
                for row in out.iter_mut() {
                    *row = std::array::from_fn(|lane| row[lane] - c[lane]);
                }
            }
            (PredKind::Difference, _, _, Some(c), Some(s)) => {
                let c = constant_of(job, tile, c);
                gather(job, tile, s, first, out);
                for row in out.iter_mut() {
                    *row = std::array::from_fn(|lane| c[lane] - row[lane]);
                }
            }
            _ => {
                for e in &job.plan.registers[op] {
                    eval_register(&job.exprs[e.index()], e.index(), registers, stride, len, |leaf, reg| {
                        load(job, tile, leaf, first, reg.as_chunks_mut::<L>().0);
                    });
                }
                let l = &registers[lhs.index() * stride..][..len];
                let r = &registers[rhs.index() * stride..][..len];
                let pairs = out.as_flattened_mut().iter_mut().zip(l.iter().zip(r));
                match kind {
                    PredKind::Difference => pairs.for_each(|(o, (l, r))| *o = *l - *r),
                    PredKind::Distance => pairs.for_each(|(o, (l, r))| *o = (*l - *r).abs()),
                    PredKind::Closeness => pairs.for_each(|(o, (l, r))| *o = S::ZERO - (*l - *r).abs()),
                }
            }
        }
        let values = out.as_flattened_mut();
        if flags {
            for v in values {
                *v = if v.is_nan() { S::ONE } else { S::NEG_INFINITY };
            }
        } else if values.iter().fold(false, |nan, v| nan | v.is_nan()) {
            nan = true;
            for v in values.iter_mut().filter(|v| v.is_nan()) {
                *v = S::ZERO;
            }
        }
    }
    nan
}

#[inline(always)]
fn load<S: Scalar, const L: usize>(
    job: &Job<S>,
    tile: &Tile<L>,
    leaf: &Expr,
    first: usize,
    reg: &mut [[S; L]],
) {
    match leaf {
        Expr::Number(_) | Expr::Param(_) => reg.fill(constant_of(job, tile, leaf)),
        Expr::Signal(s) => gather(job, tile, *s as usize, first, reg),
        _ => unreachable!("only leaves are loaded"),
    }
}

/// A number or parameter for each lane.
#[inline(always)]
fn constant_of<S: Scalar, const L: usize>(job: &Job<S>, tile: &Tile<L>, leaf: &Expr) -> [S; L] {
    match leaf {
        Expr::Number(n) => [S::from_f64(n.get()); L],
        Expr::Param(p) => match job.params[*p as usize] {
            Param::All(value) => [value; L],
            Param::PerTrace(values) => tile.traces.map(|n| values[n]),
        },
        _ => unreachable!("neither a number nor a parameter"),
    }
}

/// One column of the traces from step `first` on, turned into rows of lanes.
#[inline(always)]
fn gather<S: Scalar, const L: usize>(
    job: &Job<S>,
    tile: &Tile<L>,
    column: usize,
    first: usize,
    rows: &mut [[S; L]],
) {
    let Traces { data, t, d, .. } = job.x;
    let bases = tile.traces.map(|trace| (trace * t + first) * d);
    transpose::gather(&Columns { data, bases, stride: d, column }, rows, tile.wide);
}
