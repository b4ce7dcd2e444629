//! Matrix times vector, the work of an MLP.
//!
//! Weights are packed in panels of 32 output lanes, `[out/32][in][32]`; the last panel is as narrow as a multiple of 8
//! allows. A panel keeps 64 accumulators: several inputs at a time, so that the additions of one lane do not wait for
//! each other.

use super::int8;
use crate::isa::{Level, fma, kernel};

/// Output lanes of a full panel.
const LANES: usize = 32;

/// Packs `w` `[k, n]`, row after row, into panels at the end of `out`.
pub(crate) fn pack(w: &[f32], k: usize, n: usize, out: &mut Vec<f32>) {
    for first in (0..n).step_by(LANES) {
        let real = (n - first).min(LANES);
        for row in w.chunks_exact(n).take(k) {
            out.extend(&row[first..first + real]);
            out.extend(std::iter::repeat_n(0.0, real.next_multiple_of(8) - real));
        }
    }
}

kernel! {
    /// `y = x·W + bias` for one row `x`; `w` as [`pack`] made it, an empty `bias` is zeros.
    matvec = matvec_body(w: &[f32], bias: &[f32], x: &[f32], y: &mut [f32])
}

#[inline(always)]
fn matvec_body<const F: bool>(w: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) {
    let mut w = w;
    let mut biases = bias.chunks(LANES);
    for out in y.chunks_mut(LANES) {
        let bias = biases.next().unwrap_or(&[]);
        let width = out.len().next_multiple_of(8);
        let (panel, rest) = w.split_at(x.len() * width);
        w = rest;
        match width {
            32 => strip::<F, 32, 2>(panel, bias, x, out),
            24 => strip::<F, 24, 2>(panel, bias, x, out),
            16 => strip::<F, 16, 4>(panel, bias, x, out),
            _ => strip::<F, 8, 8>(panel, bias, x, out),
        }
    }
}

/// One panel of `W` lanes, `U` inputs at a time.
#[inline(always)]
fn strip<const F: bool, const W: usize, const U: usize>(
    panel: &[f32],
    bias: &[f32],
    x: &[f32],
    out: &mut [f32],
) {
    let mut acc = [[0.0f32; W]; U];
    let (groups, rest) = x.as_chunks::<U>();
    let (rows, _) = panel.as_chunks::<W>();
    let (blocks, tail) = rows.as_chunks::<U>();
    for (block, x) in blocks.iter().zip(groups) {
        for u in 0..U {
            for l in 0..W {
                acc[u][l] = fma::<F>(block[u][l], x[u], acc[u][l]);
            }
        }
    }
    for (row, &x) in tail.iter().zip(rest) {
        for l in 0..W {
            acc[0][l] = fma::<F>(row[l], x, acc[0][l]);
        }
    }
    let mut sum = [0.0f32; W];
    for part in acc {
        for l in 0..W {
            sum[l] += part[l];
        }
    }
    for (s, b) in sum.iter_mut().zip(bias) {
        *s += b;
    }
    for (y, s) in out.iter_mut().zip(sum) {
        *y = s;
    }
}

/// A packed matrix and how it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Packed<'a> {
    /// As [`pack`] made it.
    Floats(&'a [f32]),
    /// As [`super::int8::pack`] made it, with the scale of each output.
    Int8(&'a [i8], &'a [f32]),
}

impl Packed<'_> {
    /// `y = x·W + bias` for one row `x`.
    pub(crate) fn times(self, level: Level, bias: &[f32], x: &[f32], y: &mut [f32]) {
        match self {
            Self::Floats(w) => matvec(level, w, bias, x, y),
            Self::Int8(q, scale) => int8::matvec(level, q, scale, bias, x, y),
        }
    }
}
