//! Evaluates a plan on a tile of traces side by side: each operation on the instants that are read, no others.

use crate::expr::Expr;
use crate::plan::{Op, OpId, Plan};
use crate::predicate;
use crate::robustness::{Param, Semantics, Traces};
use crate::scalar::Scalar;
use crate::smooth::{self, Kid, Part};
use crate::transpose::{Target, scatter};
use crate::window::{Extremum, Max, Min, Scratch, UNBOUNDED, UntilSpan, lanes, since, sliding, until};

/// Steps per block when predicates are evaluated and traces transposed.
pub(crate) const BLOCK: usize = 64;

/// First and last instant; empty if first > last.
pub(crate) type Range = (i64, i64);

/// Calls `f(kid, range)` with the instants of each operand that `op` reads for its instants `lo..=hi`.
pub(crate) fn reads(op: &Op, (lo, hi): Range, mut f: impl FnMut(OpId, Range)) {
    match op {
        Op::Const(_) | Op::Pred { .. } => {}
        Op::Fold { kids, .. } => kids.iter().for_each(|k| f(*k, (lo, hi))),
        Op::Window { past, bounds, kid, .. } => {
            let (a, b) = (i64::from(bounds.a), bounds.b.map_or(UNBOUNDED, i64::from));
            f(*kid, if *past { (lo - b, hi - a) } else { (lo + a, hi + b) });
        }
        Op::Until { past, bounds, lhs, rhs, .. } => {
            let (a, b) = (i64::from(bounds.a), bounds.b.map_or(UNBOUNDED, i64::from));
            f(*lhs, if *past { (lo - b, hi) } else { (lo, hi + b) });
            f(*rhs, if *past { (lo - b, hi - a) } else { (lo + a, hi + b) });
        }
    }
}

/// Smallest range that holds both.
pub(crate) fn union(a: Range, b: Range) -> Range {
    match (a.0 > a.1, b.0 > b.1) {
        (true, _) => b,
        (_, true) => a,
        _ => (a.0.min(b.0), a.1.max(b.1)),
    }
}

pub(crate) const NOTHING: Range = (0, -1);

/// One evaluation: the same for all tiles.
pub(crate) struct Job<'a, S> {
    pub(crate) plan: &'a Plan,
    pub(crate) exprs: &'a [Expr],
    pub(crate) x: Traces<'a, S>,
    pub(crate) params: &'a [Param<'a, S>],
    /// Operations whose values are wanted, and whether with the sign changed.
    pub(crate) outputs: &'a [(OpId, bool)],
    /// The instants of the outputs.
    pub(crate) range: Range,
    pub(crate) layout: Layout,
    /// Whether every operation keeps a buffer of its own, so that all values can be read afterwards.
    pub(crate) keep: bool,
    pub(crate) semantics: Semantics,
}

impl<S> Job<'_, S> {
    /// The buffer of an operation.
    fn slot(&self, op: usize) -> usize {
        if self.keep { op } else { self.plan.slots[op] as usize }
    }

    /// Whether an operation is computed by the fold that reads it.
    fn fuses(&self, op: usize) -> bool {
        !self.keep && self.semantics == Semantics::True && self.plan.fused[op]
    }
}

/// Where results lie: `out[trace · per_trace + output · per_output + instant − first instant]`.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) per_trace: usize,
    pub(crate) per_output: usize,
    /// Instants at the end of each trace that get no value.
    pub(crate) horizon: usize,
}

/// Traces that are evaluated side by side.
pub(crate) const fn lanes_of<S>() -> usize {
    64 / size_of::<S>()
}

/// Evaluates the traces from `first` on for as long as `out` has room; the first trace with a NaN result.
pub(crate) fn run<S: Scalar>(job: &Job<S>, first: usize, out: &mut [S], room: &mut Room<S>) -> Option<usize> {
    if job.x.lengths.is_some() {
        out.fill(S::NAN);
    }
    let smooth = job.semantics != Semantics::True;
    let per_tile = if smooth { 1 } else { lanes_of::<S>() };
    let mut first_nan: Option<usize> = None;
    for (i, out) in out.chunks_mut(per_tile * job.layout.per_trace).enumerate() {
        let used = out.len() / job.layout.per_trace;
        let first = first + i * per_tile;
        let nan = match (used, per_tile) {
            (1, _) => run_tile::<S, 1>(job, first, used, out, room),
            (_, 16) => run_tile::<S, 16>(job, first, used, out, room),
            _ => run_tile::<S, 8>(job, first, used, out, room),
        };
        first_nan = first_nan.or(nan);
    }
    first_nan
}

/// Picks the instruction set; the code is the same.
fn run_tile<S: Scalar, const L: usize>(
    job: &Job<S>,
    first: usize,
    used: usize,
    out: &mut [S],
    room: &mut Room<S>,
) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if L > 1 && is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { run_tile_avx2::<S, L>(job, first, used, out, room) };
    }
    run_tile_plain::<S, L>(job, Tile::new(&job.x, first, used, false), out, room)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_tile_avx2<S: Scalar, const L: usize>(
    job: &Job<S>,
    first: usize,
    used: usize,
    out: &mut [S],
    room: &mut Room<S>,
) -> Option<usize> {
    run_tile_plain::<S, L>(job, Tile::new(&job.x, first, used, true), out, room)
}

#[inline(always)]
fn run_tile_plain<S: Scalar, const L: usize>(
    job: &Job<S>,
    tile: Tile<L>,
    out: &mut [S],
    room: &mut Room<S>,
) -> Option<usize> {
    let used = tile.used;
    let layout = job.layout;
    let mut first_nan = None;
    evaluate(job, &tile, room, |output, (from, _), values, kind| {
        let skipped = (from - job.range.0) as usize;
        let target = Target {
            starts: std::array::from_fn(|lane| {
                lane * layout.per_trace + output * layout.per_output + skipped
            }),
            valid: std::array::from_fn(|lane| match lane < used {
                true => tile.lengths[lane].saturating_sub(layout.horizon + from as usize).min(values.len()),
                false => 0,
            }),
            used,
            negate: kind == Output::Negated,
        };
        if kind != Output::Flags {
            scatter(values, &target, out, tile.wide);
            return;
        }
        for lane in 0..used {
            let row = out[target.starts[lane]..].iter_mut().zip(&values[..target.valid[lane]]);
            for (o, _) in row.filter(|(_, v)| v[lane] > S::ZERO) {
                *o = S::NAN;
                let trace = tile.traces[lane];
                first_nan = Some(first_nan.map_or(trace, |f: usize| f.min(trace)));
            }
        }
    });
    first_nan
}

/// Reusable memory of one thread.
#[derive(Default)]
pub(crate) struct Room<S> {
    buffers: Vec<Vec<S>>,
    ranges: Vec<Range>,
    registers: Vec<S>,
    suffix: Vec<S>,
    joined: Vec<S>,
    parts: Vec<Part<S>>,
}

impl<S: Scalar> Room<S> {
    /// The values of an operation after [`run_kept`] and the first of their instants.
    pub(crate) fn values(&self, op: OpId) -> Kid<'_, S> {
        let (lo, hi) = self.ranges[op as usize];
        (&self.buffers[op as usize][..(hi - lo + 1).max(0) as usize], lo)
    }

    /// The value of an operation after [`run_kept`], at an instant that was read.
    pub(crate) fn value(&self, op: OpId, t: i64) -> S {
        self.buffers[op as usize][(t - self.ranges[op as usize].0) as usize]
    }

    /// The instants of an operation that were read.
    pub(crate) fn range(&self, op: OpId) -> Range {
        self.ranges[op as usize]
    }
}

/// Evaluates one trace and keeps the values of all operations in `room`; hands over the result at each instant
/// of the job, NaN if one was read.
pub(crate) fn run_kept<S: Scalar>(job: &Job<S>, trace: usize, room: &mut Room<S>, results: &mut [S]) {
    let tile = Tile::<1>::new(&job.x, trace, 1, false);
    let mut flagged = false;
    evaluate(job, &tile, room, |_, _, values, kind| {
        for (result, value) in results.iter_mut().zip(values) {
            match kind {
                Output::Flags if value[0] > S::ZERO => *result = S::NAN,
                Output::Flags => {}
                _ => *result = value[0],
            }
        }
        flagged |= kind == Output::Flags;
    });
    if flagged {
        // The flags took the place of the values.
        operations(job, &tile, room, Pass::Values);
    }
}

/// One pass over all operations that are read; true if a predicate was NaN.
#[inline(always)]
fn operations<S: Scalar, const L: usize>(
    job: &Job<S>,
    tile: &Tile<L>,
    room: &mut Room<S>,
    pass: Pass,
) -> bool {
    let mut nan = false;
    for i in 0..job.plan.ops.len() {
        if room.ranges[i].0 <= room.ranges[i].1 && !job.fuses(i) {
            nan |= operation(job, tile, room, i, pass);
        }
    }
    nan
}

/// The traces of one tile; unused lanes repeat the last trace.
#[derive(Clone, Copy)]
pub(crate) struct Tile<const L: usize> {
    pub(crate) traces: [usize; L],
    pub(crate) lengths: [usize; L],
    used: usize,
    /// The processor has AVX2, and the code around is compiled for it.
    pub(crate) wide: bool,
}

impl<const L: usize> Tile<L> {
    pub(crate) fn new<S>(x: &Traces<S>, first: usize, used: usize, wide: bool) -> Self {
        let traces = std::array::from_fn(|i| first + i.min(used - 1));
        Self { traces, lengths: traces.map(|n| x.length(n)), used, wide }
    }

    fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    fn ragged(&self) -> bool {
        self.lengths.iter().any(|l| *l != self.lengths[0])
    }
}

/// What a pass computes.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    /// Robustness, with 0 for a predicate that is NaN.
    Values,
    /// 1 where a NaN predicate value is read, −∞ elsewhere.
    Flags,
}

/// What an output's buffer holds.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Output {
    Values,
    /// Values with the sign changed.
    Negated,
    /// Comes after the values where a predicate was NaN: results with a positive flag are NaN.
    Flags,
}

/// Evaluates one tile and hands `sink(output, instants, values, kind)` the results.
#[inline(always)]
pub(crate) fn evaluate<S: Scalar, const L: usize>(
    job: &Job<S>,
    tile: &Tile<L>,
    room: &mut Room<S>,
    mut sink: impl FnMut(usize, Range, &[[S; L]], Output),
) {
    prepare(job, tile, room);
    let mut nan = false;
    for pass in [Pass::Values, Pass::Flags] {
        if pass == Pass::Flags && !nan {
            break;
        }
        nan |= operations(job, tile, room, pass);
        for (position, (op, negated)) in job.outputs.iter().enumerate() {
            let slot = job.slot(*op as usize);
            let (lo, hi) = room.ranges[*op as usize];
            let (from, to) = (job.range.0.max(lo), job.range.1.min(hi));
            if from > to {
                continue;
            }
            let values = &room.buffers[slot].as_chunks::<L>().0[(from - lo) as usize..=(to - lo) as usize];
            let kind = match (pass, negated) {
                (Pass::Flags, _) => Output::Flags,
                (Pass::Values, false) => Output::Values,
                (Pass::Values, true) => Output::Negated,
            };
            sink(position, (from, to), values, kind);
        }
    }
}

/// Ranges of all operations, and buffers for them.
fn prepare<S: Scalar, const L: usize>(job: &Job<S>, tile: &Tile<L>, room: &mut Room<S>) {
    let last = tile.longest() as i64 - 1;
    let ops = &job.plan.ops;
    room.ranges.clear();
    room.ranges.resize(ops.len(), NOTHING);
    for (op, _) in job.outputs {
        room.ranges[*op as usize] = (job.range.0, job.range.1.min(last));
    }
    for i in (0..ops.len()).rev() {
        let own = room.ranges[i];
        if own.0 <= own.1 {
            let ranges = &mut room.ranges;
            reads(&ops[i], own, |kid, (lo, hi)| {
                let wanted = (lo.max(0), hi.min(last));
                ranges[kid as usize] = union(ranges[kid as usize], wanted);
            });
        }
    }
    room.buffers.resize_with(room.buffers.len().max(ops.len()), Vec::new);
    let longest = room.ranges.iter().map(|r| r.1 - r.0 + 1).max().unwrap_or(0).max(0) as usize;
    grow(&mut room.suffix, longest * L);
    grow(&mut room.joined, longest * L);
    grow(&mut room.registers, job.exprs.len() * BLOCK * L);
}

fn grow<S: Scalar>(v: &mut Vec<S>, len: usize) {
    if v.len() < len {
        v.resize(len, S::ZERO);
    }
}

/// Computes operation `i`; true if a predicate was NaN.
#[inline(always)]
fn operation<S: Scalar, const L: usize>(
    job: &Job<S>,
    tile: &Tile<L>,
    room: &mut Room<S>,
    i: usize,
    pass: Pass,
) -> bool {
    let slot = |op: usize| job.slot(op);
    let op = &job.plan.ops[i];
    let (lo, hi) = room.ranges[i];
    let count = (hi - lo + 1) as usize;
    let mut buffer = std::mem::take(&mut room.buffers[slot(i)]);
    grow(&mut buffer, count * L);
    let out = &mut buffer.as_chunks_mut::<L>().0[..count];
    let flags = pass == Pass::Flags;
    let mut nan = false;
    if tile.ragged() {
        mask_kids(tile, room, op, flags, slot);
        if let Op::Fold { kids, .. } = op {
            for k in kids.iter().filter(|k| job.fuses(**k as usize)) {
                mask_kids(tile, room, &job.plan.ops[*k as usize], flags, slot);
            }
        }
    }
    let Room { buffers, ranges, suffix, joined, registers, parts } = room;
    let kid = |k: OpId| {
        let (lo, hi) = ranges[k as usize];
        let all = buffers[slot(k as usize)].as_chunks::<L>().0;
        (if lo > hi { &all[..0] } else { &all[..(hi - lo + 1) as usize] }, lo)
    };
    let mut scratch =
        Scratch { suffix: suffix.as_chunks_mut::<L>().0, joined: joined.as_chunks_mut::<L>().0 };
    if job.semantics != Semantics::True && !flags && smooth::applies(op) {
        let last = tile.longest() as i64 - 1;
        let kid = |k| {
            let (values, first) = kid(k);
            (values.as_flattened(), first)
        };
        smooth::evaluate(op, job.semantics, last, lo, out.as_flattened_mut(), kid, parts);
        room.buffers[slot(i)] = buffer;
        return false;
    }
    match op {
        Op::Const(value) => {
            let value = if *value && !flags { S::INFINITY } else { S::NEG_INFINITY };
            out.fill([value; L]);
        }
        Op::Pred { kind, lhs, rhs } => {
            nan = predicate::evaluate(job, tile, registers, i, (*kind, *lhs, *rhs), lo, out, flags);
        }
        Op::Fold { max, kids } => {
            let operand = |k: &OpId| {
                let (from, first) = kid(*k);
                &from[(lo - first) as usize..][..count]
            };
            let (fused, plain) = (|k: &&OpId| job.fuses(**k as usize), |k: &&OpId| !job.fuses(**k as usize));
            let max = *max || flags;
            if max {
                fold::<S, Max, L>(out, kids.iter().filter(plain).map(operand));
            } else {
                fold::<S, Min, L>(out, kids.iter().filter(plain).map(operand));
            }
            for k in kids.iter().filter(fused) {
                let op = &job.plan.ops[*k as usize];
                if max {
                    window::<S, L>(op, kid, lo, count, flags, scratch.suffix, |i, v| {
                        out[i] = lanes::<S, Max, L>(&out[i], &v);
                    });
                } else {
                    window::<S, L>(op, kid, lo, count, flags, scratch.suffix, |i, v| {
                        out[i] = lanes::<S, Min, L>(&out[i], &v);
                    });
                }
            }
        }
        Op::Window { .. } => {
            window::<S, L>(op, kid, lo, count, flags, scratch.suffix, |i, v| out[i] = v);
        }
        Op::Until { dual, past, inclusive, bounds, lhs, rhs } => {
            let ((p, p_first), (q, q_first)) = (kid(*lhs), kid(*rhs));
            let (a, b) = (i64::from(bounds.a), bounds.b.map(i64::from));
            if flags {
                let (offset, width) = extent(*past, a, b);
                sliding::<S, Max, L>(q, lo + offset - q_first, width, count, scratch.suffix, |i, v| {
                    out[i] = v
                });
                let (offset, width) = lhs_extent(*past, *inclusive, b);
                if width > 0 {
                    sliding::<S, Max, L>(p, lo + offset - p_first, width, count, scratch.suffix, |i, v| {
                        out[i] = lanes::<S, Max, L>(&out[i], &v);
                    });
                }
            } else {
                let edge = if *past { 0 } else { tile.longest() as i64 - 1 };
                let span =
                    UntilSpan { lhs: p_first, rhs: q_first, out: lo, a, b, edge, inclusive: *inclusive };
                match (*past, *dual) {
                    (false, false) => until::<S, Min, Max, L>(p, q, span, out, &mut scratch),
                    (false, true) => until::<S, Max, Min, L>(p, q, span, out, &mut scratch),
                    (true, false) => {
                        since::<S, Min, Max, L>(p, q, span, S::NEG_INFINITY, out, &mut scratch);
                    }
                    (true, true) => since::<S, Max, Min, L>(p, q, span, S::INFINITY, out, &mut scratch),
                }
            }
        }
    }
    room.buffers[slot(i)] = buffer;
    nan
}

/// Hands `store` the `count` values of a window from instant `lo` on.
#[inline(always)]
fn window<'a, S: Scalar, const L: usize>(
    op: &Op,
    kid: impl Fn(OpId) -> (&'a [[S; L]], i64),
    lo: i64,
    count: usize,
    flags: bool,
    suffix: &mut [[S; L]],
    store: impl FnMut(usize, [S; L]),
) {
    let Op::Window { max, past, bounds, kid: k } = op else { return };
    let (from, first) = kid(*k);
    let (offset, width) = extent(*past, i64::from(bounds.a), bounds.b.map(i64::from));
    let offset = lo + offset - first;
    if *max || flags {
        sliding::<S, Max, L>(from, offset, width, count, suffix, store);
    } else {
        sliding::<S, Min, L>(from, offset, width, count, suffix, store);
    }
}

/// Offset and width of a window relative to its instant.
pub(crate) fn extent(past: bool, a: i64, b: Option<i64>) -> (i64, i64) {
    match (past, b) {
        (false, Some(b)) => (a, b - a + 1),
        (false, None) => (a, UNBOUNDED),
        (true, Some(b)) => (-b, b - a + 1),
        (true, None) => (1 - a - UNBOUNDED, UNBOUNDED),
    }
}

/// Offset and width of the window in which until reads its left operand.
pub(crate) fn lhs_extent(past: bool, inclusive: bool, b: Option<i64>) -> (i64, i64) {
    let width = b.map_or(UNBOUNDED, |b| b + i64::from(inclusive));
    (if past { 1 - width } else { 0 }, width)
}

/// The extremum of the operands, two at a time.
#[inline(always)]
fn fold<'a, S: Scalar, E: Extremum<S>, const L: usize>(
    out: &mut [[S; L]],
    mut kids: impl Iterator<Item = &'a [[S; L]]>,
) {
    match (kids.next(), kids.next()) {
        (Some(a), Some(b)) => {
            for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
                *o = lanes::<S, E, L>(a, b);
            }
        }
        (Some(only), None) => out.copy_from_slice(only),
        (None, _) => out.fill([E::EMPTY; L]),
    }
    while let Some(a) = kids.next() {
        match kids.next() {
            Some(b) => {
                for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
                    *o = lanes::<S, E, L>(o, &lanes::<S, E, L>(a, b));
                }
            }
            None => {
                for (o, a) in out.iter_mut().zip(a) {
                    *o = lanes::<S, E, L>(o, a);
                }
            }
        }
    }
}

/// Traces of different lengths in one tile: beyond its own end a lane holds what an absent sample is to the
/// operator that reads it.
fn mask_kids<S: Scalar, const L: usize>(
    tile: &Tile<L>,
    room: &mut Room<S>,
    op: &Op,
    flags: bool,
    slot: impl Fn(usize) -> usize,
) {
    let mut mask = |k: OpId, max: bool| {
        let empty = if max || flags { S::NEG_INFINITY } else { S::INFINITY };
        let (lo, hi) = room.ranges[k as usize];
        let buffer = room.buffers[slot(k as usize)].as_chunks_mut::<L>().0;
        for (lane, length) in tile.lengths.into_iter().enumerate() {
            let end = (hi - lo + 1).max(0);
            let from = (length as i64 - lo).clamp(0, end);
            for row in &mut buffer[from as usize..end as usize] {
                row[lane] = empty;
            }
        }
    };
    match op {
        Op::Window { max, kid, .. } => mask(*kid, *max),
        // Beyond the end an absent right operand decides alone; the left one matters to the flags only.
        Op::Until { dual, lhs, rhs, .. } => {
            mask(*rhs, !*dual);
            if flags {
                mask(*lhs, true);
            }
        }
        _ => {}
    }
}
