//! Sliding windows over `[step][lane]` buffers. All kernels are exact, touch each sample a constant number of
//! times whatever the window, and treat instants outside the source as absent.

use crate::scalar::Scalar;

/// Minimum or maximum as a type, so that each kernel is compiled once for each.
pub(crate) trait Extremum<S: Scalar> {
    /// The value of an empty window.
    const EMPTY: S;
    fn of(a: S, b: S) -> S;
}

pub(crate) struct Min;
pub(crate) struct Max;

impl<S: Scalar> Extremum<S> for Min {
    const EMPTY: S = S::INFINITY;
    #[inline(always)]
    fn of(a: S, b: S) -> S {
        if a < b { a } else { b }
    }
}

impl<S: Scalar> Extremum<S> for Max {
    const EMPTY: S = S::NEG_INFINITY;
    #[inline(always)]
    fn of(a: S, b: S) -> S {
        if a > b { a } else { b }
    }
}

#[inline(always)]
pub(crate) fn lanes<S: Scalar, E: Extremum<S>, const L: usize>(a: &[S; L], b: &[S; L]) -> [S; L] {
    std::array::from_fn(|i| E::of(a[i], b[i]))
}

/// A width that no buffer reaches: an unbounded window.
pub(crate) const UNBOUNDED: i64 = 1 << 40;

/// For every i, hands `store` the extremum of `src[i+offset .. i+offset+width]`; positions outside `src` are
/// absent. van Herk–Gil–Werman: suffixes of one block backward, prefixes of the next forward.
#[inline(always)]
pub(crate) fn sliding<S: Scalar, E: Extremum<S>, const L: usize>(
    src: &[[S; L]],
    offset: i64,
    width: i64,
    count: usize,
    scratch: &mut [[S; L]],
    mut store: impl FnMut(usize, [S; L]),
) {
    let len = src.len() as i64;
    let empty = [E::EMPTY; L];
    let mut first = 0;
    while first < count {
        let start = offset + first as i64;
        let end = start + width;
        let from = start.clamp(0, len);
        let to = end.clamp(from, len);
        let block = &src[from as usize..to as usize];
        let suffixes = &mut scratch[..block.len()];
        let mut suffix = empty;
        for (out, x) in suffixes.iter_mut().zip(block).rev() {
            suffix = lanes::<S, E, L>(x, &suffix);
            *out = suffix;
        }
        let outputs = width.min((count - first) as i64);
        // Output r joins suffix start+r and prefix end+r−1. In the middle both lie inside the source.
        let mut prefix = empty;
        let edge = |prefix: &mut [S; L], r: i64| {
            let read = end + r - 1;
            if r > 0 && (0..len).contains(&read) {
                *prefix = lanes::<S, E, L>(prefix, &src[read as usize]);
            }
            let at = (start + r).max(from);
            if at < to { lanes::<S, E, L>(&suffixes[(at - from) as usize], prefix) } else { *prefix }
        };
        let middle = 1.max(from - start).max(1 - end).min(outputs);
        let middle_end = (to - start).min(len - end + 1).clamp(middle, outputs);
        for r in 0..middle {
            store(first + r as usize, edge(&mut prefix, r));
        }
        if middle < middle_end {
            let count = (middle_end - middle) as usize;
            let reads = &src[(end + middle - 1) as usize..][..count];
            let parts = &suffixes[(start + middle - from) as usize..][..count];
            for (i, (x, suffix)) in reads.iter().zip(parts).enumerate() {
                prefix = lanes::<S, E, L>(&prefix, x);
                store(first + middle as usize + i, lanes::<S, E, L>(suffix, &prefix));
            }
        }
        for r in middle_end..outputs {
            store(first + r as usize, edge(&mut prefix, r));
        }
        first += outputs as usize;
    }
}

/// As [`sliding`], for elements of any kind and any associative product: hands `store` the fold, in order, of the
/// elements `i + offset .. i + offset + width` for every i below `count`. `windows` is (offset, width, count).
pub(crate) fn folds<E: Copy>(
    len: usize,
    element: impl Fn(usize) -> E,
    (offset, width, count): (i64, i64, usize),
    empty: E,
    product: impl Fn(E, E) -> E,
    suffixes: &mut Vec<E>,
    mut store: impl FnMut(usize, E),
) {
    if suffixes.len() < len {
        suffixes.resize(len, empty);
    }
    let len = len as i64;
    let mut first = 0;
    while first < count {
        let start = offset + first as i64;
        let end = start + width;
        let from = start.clamp(0, len);
        let to = end.clamp(from, len);
        let mut suffix = empty;
        for i in (from..to).rev() {
            suffix = product(element(i as usize), suffix);
            suffixes[(i - from) as usize] = suffix;
        }
        let outputs = width.min((count - first) as i64);
        let mut prefix = empty;
        for r in 0..outputs {
            let read = end + r - 1;
            if r > 0 && (0..len).contains(&read) {
                prefix = product(prefix, element(read as usize));
            }
            let at = (start + r).max(from);
            let fold = if at < to { product(suffixes[(at - from) as usize], prefix) } else { prefix };
            store(first + r as usize, fold);
        }
        first += outputs as usize;
    }
}

/// Where the operands and results of an until stand on the time axis: absolute first instants.
#[derive(Clone, Copy)]
pub(crate) struct UntilSpan {
    /// First instant of the left operand's buffer.
    pub(crate) lhs: i64,
    /// First instant of the right operand's buffer.
    pub(crate) rhs: i64,
    /// First instant of the results.
    pub(crate) out: i64,
    pub(crate) a: i64,
    /// `None`: unbounded.
    pub(crate) b: Option<i64>,
    /// Where an unbounded window ends: the last instant of the trace, or for since the first instant to read.
    pub(crate) edge: i64,
    pub(crate) inclusive: bool,
}

/// ρ(t) = min(min p over [t, t+a−1], (p U q)(t+a), max q over [t+a, t+b]) with (p U q)(t) = max(q, min(p, next)).
/// `A` is the extremum over p (minimum), `O` the one over q (maximum); they change places for release.
#[inline(always)]
pub(crate) fn until<S: Scalar, A: Extremum<S>, O: Extremum<S>, const L: usize>(
    p: &[[S; L]],
    q: &[[S; L]],
    s: UntilSpan,
    out: &mut [[S; L]],
    scratch: &mut Scratch<S, L>,
) {
    let count = out.len() as i64;
    let first = s.out + s.a;
    let last = s.b.map_or(s.edge, |b| (s.out + count - 1 + b).min(s.edge));
    if count == 0 || first > last {
        out.fill([O::EMPTY; L]);
        return;
    }
    let q = joined::<S, A, L>(p, q, s, first, last, scratch.joined);
    let held = &p[(first - s.lhs) as usize..][..q.len()];
    let (kept, empty) = out.split_at_mut(q.len().min(out.len()));
    empty.fill([O::EMPTY; L]);
    let mut value = [O::EMPTY; L];
    for (q, p) in q[kept.len()..].iter().zip(&held[kept.len()..]).rev() {
        value = lanes::<S, O, L>(q, &lanes::<S, A, L>(p, &value));
    }
    for ((out, q), p) in kept.iter_mut().zip(q).zip(held).rev() {
        value = lanes::<S, O, L>(q, &lanes::<S, A, L>(p, &value));
        *out = value;
    }
    if s.a > 0 {
        sliding::<S, A, L>(p, s.out - s.lhs, s.a, out.len(), scratch.suffix, |i, v| {
            out[i] = lanes::<S, A, L>(&out[i], &v);
        });
    }
    if let Some(b) = s.b {
        sliding::<S, O, L>(q, 0, b - s.a + 1, out.len(), scratch.suffix, |i, v| {
            out[i] = lanes::<S, A, L>(&out[i], &v);
        });
    }
}

/// Since: the mirror image of [`until`]. `before` is (p S q) at the instant before the first one read.
#[inline(always)]
pub(crate) fn since<S: Scalar, A: Extremum<S>, O: Extremum<S>, const L: usize>(
    p: &[[S; L]],
    q: &[[S; L]],
    s: UntilSpan,
    before: S,
    out: &mut [[S; L]],
    scratch: &mut Scratch<S, L>,
) {
    let count = out.len() as i64;
    let first = s.b.map_or(s.edge, |b| (s.out - b).max(0));
    let last = s.out + count - 1 - s.a;
    if count == 0 || first > last {
        out.fill([O::EMPTY; L]);
        return;
    }
    let q = joined::<S, A, L>(p, q, s, first, last, scratch.joined);
    let held = &p[(first - s.lhs) as usize..][..q.len()];
    // The last results are those of the last pairs; pairs before them count, results before them are empty.
    let kept = q.len().min(out.len());
    let early = q.len() - kept;
    let (empty, out_kept) = out.split_at_mut(count as usize - kept);
    empty.fill([O::EMPTY; L]);
    let mut value = [before; L];
    for (q, p) in q[..early].iter().zip(held) {
        value = lanes::<S, O, L>(q, &lanes::<S, A, L>(p, &value));
    }
    for ((out, q), p) in out_kept.iter_mut().zip(&q[early..]).zip(&held[early..]) {
        value = lanes::<S, O, L>(q, &lanes::<S, A, L>(p, &value));
        *out = value;
    }
    if s.a > 0 {
        let offset = s.out - s.a + 1 - s.lhs;
        sliding::<S, A, L>(p, offset, s.a, out.len(), scratch.suffix, |i, v| {
            out[i] = lanes::<S, A, L>(&out[i], &v);
        });
    }
    if let Some(b) = s.b {
        sliding::<S, O, L>(q, s.out - b - first, b - s.a + 1, out.len(), scratch.suffix, |i, v| {
            out[i] = lanes::<S, A, L>(&out[i], &v);
        });
    }
}

/// q over [first, last]; for the inclusive forms min(p, q).
#[inline(always)]
fn joined<'a, S: Scalar, A: Extremum<S>, const L: usize>(
    p: &[[S; L]],
    q: &'a [[S; L]],
    s: UntilSpan,
    first: i64,
    last: i64,
    room: &'a mut [[S; L]],
) -> &'a [[S; L]] {
    let count = (last - first + 1) as usize;
    let q = &q[(first - s.rhs) as usize..][..count];
    if !s.inclusive {
        return q;
    }
    let p = &p[(first - s.lhs) as usize..][..count];
    let room = &mut room[..count];
    for ((out, p), q) in room.iter_mut().zip(p).zip(q) {
        *out = lanes::<S, A, L>(p, q);
    }
    room
}

/// Room for one kernel call, at least as long as its sources.
pub(crate) struct Scratch<'a, S, const L: usize> {
    pub(crate) suffix: &'a mut [[S; L]],
    pub(crate) joined: &'a mut [[S; L]],
}
