//! Matrix times vector with 8-bit weights: the same panels as [`super::linear`], a quarter of the bytes. Each output has
//! one scale, applied to its finished sum; inputs, sums and biases stay 32-bit floats.

use crate::isa::{fma, kernel};

/// Output lanes of a full panel.
const LANES: usize = 32;

/// Packs `q` `[k, n]`, row after row, into panels at the end of `out`.
pub(crate) fn pack(q: &[i8], k: usize, n: usize, out: &mut Vec<i8>) {
    for first in (0..n).step_by(LANES) {
        let real = (n - first).min(LANES);
        for row in q.chunks_exact(n).take(k) {
            out.extend(&row[first..first + real]);
            out.extend(std::iter::repeat_n(0, real.next_multiple_of(8) - real));
        }
    }
}

kernel! {
    /// `y = scale⊙(x·Q) + bias` for one row `x`; `q` as [`pack`] made it, an empty `bias` is zeros.
    matvec = matvec_body(q: &[i8], scale: &[f32], bias: &[f32], x: &[f32], y: &mut [f32])
}

#[inline(always)]
fn matvec_body<const F: bool>(q: &[i8], scale: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) {
    let mut q = q;
    let mut biases = bias.chunks(LANES);
    for (out, scale) in y.chunks_mut(LANES).zip(scale.chunks(LANES)) {
        let bias = biases.next().unwrap_or(&[]);
        let width = out.len().next_multiple_of(8);
        let (panel, rest) = q.split_at(x.len() * width);
        q = rest;
        match width {
            32 => strip::<F, 32, 2>(panel, scale, bias, x, out),
            24 => strip::<F, 24, 2>(panel, scale, bias, x, out),
            16 => strip::<F, 16, 4>(panel, scale, bias, x, out),
            _ => strip::<F, 8, 8>(panel, scale, bias, x, out),
        }
    }
}

/// One panel of `W` lanes, `U` inputs at a time.
#[inline(always)]
fn strip<const F: bool, const W: usize, const U: usize>(
    panel: &[i8],
    scale: &[f32],
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
                acc[u][l] = fma::<F>(f32::from(block[u][l]), x[u], acc[u][l]);
            }
        }
    }
    for (row, &x) in tail.iter().zip(rest) {
        for l in 0..W {
            acc[0][l] = fma::<F>(f32::from(row[l]), x, acc[0][l]);
        }
    }
    let mut sum = [0.0f32; W];
    for part in acc {
        for l in 0..W {
            sum[l] += part[l];
        }
    }
    for (i, (y, &s)) in out.iter_mut().zip(scale).enumerate() {
        *y = fma::<F>(sum[i], s, bias.get(i).copied().unwrap_or(0.0));
    }
}
