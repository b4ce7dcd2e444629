//! Kernels on rows: normalisation, softmax, reductions.

use super::math::exp;
use crate::isa::{fma, kernel};
use crate::op::Reduction;

kernel! {
    /// Rows of `scale.len()` elements, in place: `(x − mean)/√(var + eps)·scale + bias`.
    layer_norm = layer_norm_body(y: &mut [f32], scale: &[f32], bias: &[f32], eps: f32)
}

kernel! {
    /// Rows of `scale.len()` elements, in place: `x/√(mean(x²) + eps)·scale`.
    rms_norm = rms_norm_body(y: &mut [f32], scale: &[f32], eps: f32)
}

kernel! {
    /// Groups of `channels` rows, in place: `(x − mean)/√(var + eps)`, then the scale and bias of each row. The rows of a
    /// sample are as many as `scale` has elements.
    group_norm = group_norm_body(y: &mut [f32], channels: usize, width: usize, scale: &[f32], bias: &[f32], eps: f32)
}

kernel! {
    /// Rows of `width` elements, in place: softmax, or its logarithm.
    softmax = softmax_body(y: &mut [f32], width: usize, log: bool)
}

kernel! {
    /// One row of scores: adds `mask` if it is not empty, and leaves shares that still are to be multiplied by `share`.
    shares = shares_body(row: &mut [f32], mask: &[f32], share: &mut f32)
}

kernel! {
    /// Rows of `width` elements of `x` to one number each.
    reduce = reduce_body(kind: Reduction, width: usize, x: &[f32], y: &mut [f32])
}

/// Sums that run side by side, so that the steps of one do not wait for each other.
const LANES: usize = 32;

/// Σ f(x), in many lanes: fast, and more exact than one long sum.
#[inline(always)]
fn sum<const F: bool>(x: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut acc = [0.0f32; LANES];
    for block in blocks {
        for l in 0..LANES {
            acc[l] = f(block[l], acc[l]);
        }
    }
    let (eights, rest) = rest.as_chunks::<8>();
    for block in eights {
        for l in 0..8 {
            acc[l] = f(block[l], acc[l]);
        }
    }
    for half in [16, 8, 4, 2, 1] {
        for l in 0..half {
            acc[l] += acc[l + half];
        }
    }
    rest.iter().fold(acc[0], |a, &x| f(x, a))
}

/// Mean and 1/√(var + eps). Two passes: one pass over E[x²] − E[x]² would cancel.
#[inline(always)]
fn moments<const F: bool>(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum::<F>(x, |x, a| a + x) / n;
    let var = sum::<F>(x, |x, a| fma::<F>(x - mean, x - mean, a)) / n;
    (mean, 1.0 / (var + eps).sqrt())
}

#[inline(always)]
fn layer_norm_body<const F: bool>(y: &mut [f32], scale: &[f32], bias: &[f32], eps: f32) {
    for row in y.chunks_exact_mut(scale.len()) {
        let (mean, r) = moments::<F>(row, eps);
        for ((y, &s), &b) in row.iter_mut().zip(scale).zip(bias) {
            *y = fma::<F>((*y - mean) * r, s, b);
        }
    }
}

#[inline(always)]
fn group_norm_body<const F: bool>(
    y: &mut [f32],
    channels: usize,
    width: usize,
    scale: &[f32],
    bias: &[f32],
    eps: f32,
) {
    let affine = scale.chunks_exact(channels).zip(bias.chunks_exact(channels)).cycle();
    for (group, (scale, bias)) in y.chunks_exact_mut(channels * width).zip(affine) {
        let (mean, r) = moments::<F>(group, eps);
        for ((row, &s), &b) in group.chunks_exact_mut(width).zip(scale).zip(bias) {
            for y in row {
                *y = fma::<F>((*y - mean) * r, s, b);
            }
        }
    }
}

#[inline(always)]
fn rms_norm_body<const F: bool>(y: &mut [f32], scale: &[f32], eps: f32) {
    let n = scale.len() as f32;
    for row in y.chunks_exact_mut(scale.len()) {
        let r = 1.0 / (sum::<F>(row, |x, a| fma::<F>(x, x, a)) / n + eps).sqrt();
        for (y, &s) in row.iter_mut().zip(scale) {
            *y = *y * r * s;
        }
    }
}

#[inline(always)]
fn softmax_body<const F: bool>(y: &mut [f32], width: usize, log: bool) {
    for row in y.chunks_exact_mut(width) {
        if log {
            let top = largest(row);
            let total = sum::<F>(row, |x, a| a + exp::<F>(x - top)).ln();
            row.iter_mut().for_each(|x| *x = *x - top - total);
        } else {
            let share = softmax_row::<F>(row);
            row.iter_mut().for_each(|x| *x *= share);
        }
    }
}

#[inline(always)]
fn shares_body<const F: bool>(row: &mut [f32], mask: &[f32], share: &mut f32) {
    row.iter_mut().zip(mask).for_each(|(s, m)| *s += m);
    *share = softmax_row::<F>(row);
}

/// The largest element that is not NaN, −∞ when there is none.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let pick = |a: f32, x: f32| if x > a { x } else { a };
    let (blocks, rest) = x.as_chunks::<16>();
    let mut acc = [f32::NEG_INFINITY; 16];
    for block in blocks {
        for l in 0..16 {
            acc[l] = pick(acc[l], block[l]);
        }
    }
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            acc[l] = pick(acc[l], acc[l + half]);
        }
    }
    rest.iter().fold(acc[0], |a, &x| pick(a, x))
}

/// Puts `exp(x − max)` in the place of every element; gives what they are to be multiplied by, one over their sum. A row
/// of −∞, where a mask leaves nothing, becomes zeros; NaN stays NaN.
#[inline(always)]
fn softmax_row<const F: bool>(row: &mut [f32]) -> f32 {
    let top = largest(row);
    if top == f32::NEG_INFINITY && row.iter().all(|&x| x == f32::NEG_INFINITY) {
        row.fill(0.0);
        return 0.0;
    }
    row.iter_mut().for_each(|x| *x = exp::<F>(*x - top));
    1.0 / sum::<F>(row, |x, a| a + x)
}

#[inline(always)]
fn reduce_body<const F: bool>(kind: Reduction, width: usize, x: &[f32], y: &mut [f32]) {
    let pick = |a: f32, b: f32, first: bool| if first || a.is_nan() { a } else { b };
    for (row, y) in x.chunks_exact(width).zip(y) {
        *y = match kind {
            Reduction::Sum => sum::<F>(row, |x, a| a + x),
            Reduction::Mean => sum::<F>(row, |x, a| a + x) / width as f32,
            Reduction::Max => row.iter().copied().fold(f32::NEG_INFINITY, |a, x| pick(a, x, a > x)),
            Reduction::Min => row.iter().copied().fold(f32::INFINITY, |a, x| pick(a, x, a < x)),
            Reduction::Prod => row.iter().product(),
            Reduction::SumSquare => sum::<F>(row, |x, a| fma::<F>(x, x, a)),
            Reduction::L2 => sum::<F>(row, |x, a| fma::<F>(x, x, a)).sqrt(),
        };
    }
}
