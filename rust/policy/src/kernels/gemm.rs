//! Matrix products of more than one row: the work of token networks and of batches.
//!
//! The right side is packed in panels of 16 columns, `[n/16][k][16]`; the last panel is 8 wide where that is enough. Up
//! to six rows by one panel stay in registers while `k` runs. Rows of the left side are read where they lie: packing
//! them, or cutting `k` into blocks, was measured to gain nothing.

use super::activation::map;
use crate::isa::{Level, fma, kernel};
use crate::op::Unary;

/// Columns of a panel.
pub(crate) const LANES: usize = 16;
/// Most rows of a tile.
pub(crate) const ROWS: usize = 6;

/// What the sums of a tile start from, and what they do not fall below: a bias, and the activation that costs nothing.
pub(crate) struct Ends {
    pub(crate) start: [f32; LANES],
    pub(crate) low: f32,
}

impl Ends {
    /// The sums as they are.
    pub(crate) const PLAIN: Self = Self { start: [0.0; LANES], low: f32::NEG_INFINITY };
}

/// Columns of the panel that starts at column `first` of `n`: how many are real, and how many it has.
pub(crate) fn panel_width(first: usize, n: usize) -> (usize, usize) {
    let real = (n - first).min(LANES);
    (real, if real <= LANES / 2 { LANES / 2 } else { LANES })
}

/// Floats of a packed `[k, n]`.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    k * (n / LANES * LANES + if n.is_multiple_of(LANES) { 0 } else { panel_width(n / LANES * LANES, n).1 })
}

/// Rows of the next tile when `left` remain: even shares, because short tiles are slow.
pub(crate) fn tile_rows(left: usize) -> usize {
    left.div_ceil(left.div_ceil(ROWS))
}

/// Packs the matrix whose element `[p, j]` is `scale·w[p·row + j·column]` into panels that fill `out`.
pub(crate) fn pack(w: &[f32], row: usize, column: usize, k: usize, n: usize, scale: f32, out: &mut [f32]) {
    let mut out = out;
    for first in (0..n).step_by(LANES) {
        let (real, lanes) = panel_width(first, n);
        let (panel, rest) = out.split_at_mut(k * lanes);
        out = rest;
        let w = &w[first * column..];
        if real < lanes {
            panel.fill(0.0);
        }
        if column == 1 && real == LANES {
            let (lines, _) = panel.as_chunks_mut::<LANES>();
            for (p, line) in lines.iter_mut().enumerate() {
                for (to, from) in line.iter_mut().zip(&w[p * row..p * row + LANES]) {
                    *to = from * scale;
                }
            }
        } else {
            for l in 0..real {
                let w = &w[l * column..];
                for (p, line) in panel.chunks_exact_mut(lanes).enumerate() {
                    line[l] = w[p * row] * scale;
                }
            }
        }
    }
}

/// `max(start + x·panel, low)` for `R` rows of `x`, `stride` apart, and a panel of `N` columns, `U` inputs at a time.
#[inline(always)]
fn tile<const F: bool, const R: usize, const N: usize, const U: usize>(
    x: &[f32],
    stride: usize,
    panel: &[f32],
    ends: &Ends,
    y: &mut [f32],
    line: usize,
) {
    let (panel, _) = panel.as_chunks::<N>();
    let (blocks, tail) = panel.as_chunks::<U>();
    let rows: [&[f32]; R] = std::array::from_fn(|i| &x[i * stride..i * stride + panel.len()]);
    let parts = rows.map(|r| r.as_chunks::<U>());
    let heads: [&[[f32; U]]; R] = std::array::from_fn(|i| &parts[i].0[..blocks.len()]);
    let mut acc = [[[0.0f32; N]; R]; U];
    for row in &mut acc[0] {
        row.copy_from_slice(&ends.start[..N]);
    }
    for (p, block) in blocks.iter().enumerate() {
        for u in 0..U {
            for i in 0..R {
                let a = heads[i][p][u];
                for l in 0..N {
                    acc[u][i][l] = fma::<F>(a, block[u][l], acc[u][i][l]);
                }
            }
        }
    }
    let tails: [&[f32]; R] = std::array::from_fn(|i| &parts[i].1[..tail.len()]);
    for (p, row) in tail.iter().enumerate() {
        for i in 0..R {
            for l in 0..N {
                acc[0][i][l] = fma::<F>(tails[i][p], row[l], acc[0][i][l]);
            }
        }
    }
    for i in 0..R {
        let y = &mut y[i * line..i * line + N];
        for l in 0..N {
            let mut sum = acc[0][i][l];
            for part in &acc[1..] {
                sum += part[i][l];
            }
            y[l] = if sum < ends.low { ends.low } else { sum };
        }
    }
}

kernel! {
    /// `max(start + x·panel, low)` for up to six rows of `x`, `stride` apart, written `line` apart; the panel has `lanes`
    /// columns, 16 or 8. Few rows or columns leave room for more sums, so that the additions of one do not wait for each other.
    #[allow(clippy::too_many_arguments)] // Two strided matrices and a panel.
    products = products_body(
        rows: usize,
        lanes: usize,
        x: &[f32],
        stride: usize,
        panel: &[f32],
        ends: &Ends,
        y: &mut [f32],
        line: usize,
    )
}

#[inline(always)]
#[allow(clippy::too_many_arguments)] // Two strided matrices and a panel.
fn products_body<const F: bool>(
    rows: usize,
    lanes: usize,
    x: &[f32],
    stride: usize,
    panel: &[f32],
    ends: &Ends,
    y: &mut [f32],
    line: usize,
) {
    match (lanes, rows) {
        (LANES, 6) => tile::<F, 6, 16, 1>(x, stride, panel, ends, y, line),
        (LANES, 5) => tile::<F, 5, 16, 1>(x, stride, panel, ends, y, line),
        (LANES, 4) => tile::<F, 4, 16, 1>(x, stride, panel, ends, y, line),
        (LANES, 3) => tile::<F, 3, 16, 2>(x, stride, panel, ends, y, line),
        (LANES, 2) => tile::<F, 2, 16, 2>(x, stride, panel, ends, y, line),
        (LANES, _) => tile::<F, 1, 16, 4>(x, stride, panel, ends, y, line),
        (_, 6) => tile::<F, 6, 8, 2>(x, stride, panel, ends, y, line),
        (_, 5) => tile::<F, 5, 8, 2>(x, stride, panel, ends, y, line),
        (_, 4) => tile::<F, 4, 8, 2>(x, stride, panel, ends, y, line),
        (_, 3) => tile::<F, 3, 8, 4>(x, stride, panel, ends, y, line),
        (_, 2) => tile::<F, 2, 8, 4>(x, stride, panel, ends, y, line),
        _ => tile::<F, 1, 8, 8>(x, stride, panel, ends, y, line),
    }
}

/// `y = act(x·W + bias)` for `x` `[rows, k]` and `y` `[rows, n]`; `w` as [`pack`] made it, an empty `bias` is zeros.
#[allow(clippy::too_many_arguments)] // Three matrices, a row, and what says how they fit.
pub(crate) fn gemm(
    level: Level,
    x: &[f32],
    w: &[f32],
    bias: &[f32],
    act: Option<Unary>,
    k: usize,
    n: usize,
    y: &mut [f32],
) {
    let rows = y.len() / n;
    let (low, act) = match act {
        Some(Unary::Relu) => (0.0, None),
        other => (f32::NEG_INFINITY, other),
    };
    let mut w = w;
    // For activations, and for columns that are narrower than their panel.
    let mut near = [0.0; ROWS * LANES];
    for first in (0..n).step_by(LANES) {
        let (width, lanes) = panel_width(first, n);
        let (panel, rest) = w.split_at(k * lanes);
        w = rest;
        let mut ends = Ends { low, ..Ends::PLAIN };
        if !bias.is_empty() {
            ends.start[..width].copy_from_slice(&bias[first..first + width]);
        }
        let mut done = 0;
        while done < rows {
            let count = tile_rows(rows - done);
            let (x, y) = (&x[done * k..], &mut y[done * n + first..]);
            done += count;
            if act.is_none() && width == lanes {
                products(level, count, lanes, x, k, panel, &ends, y, n);
                continue;
            }
            let near = &mut near[..count * LANES];
            products(level, count, lanes, x, k, panel, &ends, near, LANES);
            if let Some(f) = act {
                map(level, f, near);
            }
            for (i, row) in near.chunks_exact(LANES).enumerate() {
                y[i * n..i * n + width].copy_from_slice(&row[..width]);
            }
        }
    }
}

/// One product for each pair of starts in `batches`: `x` `[rows, k]` from the first, `b` `[k, n]` from the second; the
/// results follow each other in `y`. `room` holds the packed right side.
#[allow(clippy::too_many_arguments)] // Three matrices, and what says how they fit.
pub(crate) fn matmul(
    level: Level,
    batches: &[(usize, usize)],
    x: &[f32],
    b: &[f32],
    k: usize,
    n: usize,
    room: &mut [f32],
    y: &mut [f32],
) {
    let size = y.len() / batches.len();
    let mut packed = None;
    for (&(from, right), y) in batches.iter().zip(y.chunks_exact_mut(size)) {
        if packed != Some(right) {
            pack(&b[right..], n, 1, k, n, 1.0, room);
            packed = Some(right);
        }
        gemm(level, &x[from..], room, &[], None, k, n, y);
    }
}
