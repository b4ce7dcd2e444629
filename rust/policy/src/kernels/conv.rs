//! Convolution in one dimension, as a product of packed matrices.
//!
//! The windows of the input are the rows of one matrix, packed in strips of up to 6 neighbouring windows,
//! `[strip][channel · tap][window]`; the weights of a group are the other, in panels of 16 output channels,
//! `[panel][channel · tap][channel out]`. A strip and a panel meet in registers. Panels are the outer loop, so that the
//! weights are read from memory once, whatever the length.

use crate::isa::{fma, kernel};
use crate::op::{Stride, Window};

/// Output channels of a full panel.
const LANES: usize = 16;

/// Most windows of a strip.
const STRIP: usize = 6;

/// First window and width of every strip, as even as possible: short strips leave registers idle.
fn strips(windows: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = windows.div_ceil(STRIP);
    (0..count).map(move |i| {
        let (from, to) = (i * windows / count, (i + 1) * windows / count);
        (from, to - from)
    })
}

/// Packs the weights `[groups, rows, channels]` into panels at the end of `out`.
pub(crate) fn pack(w: &[f32], rows: usize, channels: usize, out: &mut Vec<f32>) {
    for group in w.chunks_exact(rows * channels) {
        for first in (0..channels).step_by(LANES) {
            let real = (channels - first).min(LANES);
            for row in group.chunks_exact(channels) {
                out.extend(&row[first..first + real]);
                out.extend(std::iter::repeat_n(0.0, real.next_multiple_of(8) - real));
            }
        }
    }
}

/// Packs the windows of `x` `[n, c, length]` into strips.
pub(crate) fn unfold(window: Window, x: &[f32], y: &mut [f32]) {
    let mut y = y;
    for group in x.chunks_exact(window.channels * window.length) {
        for (first, width) in strips(window.out) {
            let (strip, rest) = y.split_at_mut(window.channels * window.along.kernel * width);
            y = rest;
            match width {
                6 => fill::<6>(window, first, group, strip),
                5 => fill::<5>(window, first, group, strip),
                4 => fill::<4>(window, first, group, strip),
                3 => fill::<3>(window, first, group, strip),
                2 => fill::<2>(window, first, group, strip),
                _ => fill::<1>(window, first, group, strip),
            }
        }
    }
}

/// One strip of `N` windows, beginning with window `first`.
fn fill<const N: usize>(window: Window, first: usize, x: &[f32], strip: &mut [f32]) {
    let Window { along: Stride { kernel, stride, dilation, before }, length, .. } = window;
    let (rows, _) = strip.as_chunks_mut::<N>();
    for (channel, rows) in x.chunks_exact(length).zip(rows.chunks_exact_mut(kernel)) {
        for (tap, row) in rows.iter_mut().enumerate() {
            // Place of the first window's element in the padded channel.
            let at = first * stride + tap * dilation;
            let inside = at.checked_sub(before).and_then(|i| channel.get(i..i + (N - 1) * stride + 1));
            match inside {
                Some(part) if stride == 1 => row.copy_from_slice(part),
                Some(part) => row.iter_mut().zip(part.iter().step_by(stride)).for_each(|(y, x)| *y = *x),
                None => {
                    for (i, y) in row.iter_mut().enumerate() {
                        let place = (at + i * stride).checked_sub(before);
                        *y = place.and_then(|i| channel.get(i)).copied().unwrap_or(0.0);
                    }
                }
            }
        }
    }
}

/// Sizes of a product of windows and weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) groups: usize,
    /// Channels of a group times taps.
    pub(crate) rows: usize,
    /// Output channels of a group.
    pub(crate) channels: usize,
    /// Windows.
    pub(crate) out: usize,
}

kernel! {
    /// `y = w·x + bias` for every group of every sample; `x` as [`unfold`] and `w` as [`pack`] made them, an empty `bias`
    /// is zeros.
    conv = conv_body(sizes: Sizes, w: &[f32], bias: &[f32], x: &[f32], y: &mut [f32])
}

#[inline(always)]
fn conv_body<const F: bool>(sizes: Sizes, w: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) {
    let Sizes { groups, rows, channels, out } = sizes;
    let samples = x.chunks_exact(groups * rows * out).zip(y.chunks_exact_mut(groups * channels * out));
    for (x, y) in samples {
        let mut panels = w;
        let parts = x.chunks_exact(rows * out).zip(y.chunks_exact_mut(channels * out)).enumerate();
        for (group, (x, y)) in parts {
            let bias = if bias.is_empty() { bias } else { &bias[group * channels..][..channels] };
            let mut biases = bias.chunks(LANES);
            for y in y.chunks_mut(LANES * out) {
                let bias = biases.next().unwrap_or(&[]);
                let width = (y.len() / out).next_multiple_of(8);
                let (panel, rest) = panels.split_at(rows * width);
                panels = rest;
                match width {
                    LANES => meet::<F, LANES>(panel, bias, x, y, rows, out),
                    _ => meet::<F, 8>(panel, bias, x, y, rows, out),
                }
            }
        }
    }
}

/// One panel of `W` channels with every strip.
#[inline(always)]
fn meet<const F: bool, const W: usize>(
    panel: &[f32],
    bias: &[f32],
    x: &[f32],
    y: &mut [f32],
    rows: usize,
    out: usize,
) {
    let mut x = x;
    // Through memory: turned while they are in registers, the sums would not stay there.
    let mut tile = [[0.0f32; W]; STRIP];
    for (first, width) in strips(out) {
        let (strip, rest) = x.split_at(rows * width);
        x = rest;
        match width {
            6 => products::<F, W, 6>(panel, strip, &mut tile),
            5 => products::<F, W, 5>(panel, strip, &mut tile),
            4 => products::<F, W, 4>(panel, strip, &mut tile),
            3 => products::<F, W, 3>(panel, strip, &mut tile),
            2 => products::<F, W, 2>(panel, strip, &mut tile),
            _ => products::<F, W, 1>(panel, strip, &mut tile),
        }
        for (l, channel) in y.chunks_exact_mut(out).enumerate() {
            let bias = bias.get(l).copied().unwrap_or(0.0);
            for (y, sums) in channel[first..first + width].iter_mut().zip(&tile) {
                *y = sums[l] + bias;
            }
        }
    }
}

/// `W` channels of `N` windows.
#[inline(always)]
fn products<const F: bool, const W: usize, const N: usize>(
    panel: &[f32],
    strip: &[f32],
    tile: &mut [[f32; W]; STRIP],
) {
    let mut acc = [[0.0f32; W]; N];
    let (weights, _) = panel.as_chunks::<W>();
    let (windows, _) = strip.as_chunks::<N>();
    for (w, x) in weights.iter().zip(windows) {
        for n in 0..N {
            for l in 0..W {
                acc[n][l] = fma::<F>(w[l], x[n], acc[n][l]);
            }
        }
    }
    tile[..N].copy_from_slice(&acc);
}

/// Adds up overlapping windows: `x` `[c · kernel, length]` for each sample, `y` `[c, out]`.
pub(crate) fn overlap(
    along: Stride,
    channels: usize,
    bias: &[f32],
    length: usize,
    out: usize,
    x: &[f32],
    y: &mut [f32],
) {
    let windows = x.chunks_exact(along.kernel * length);
    for (c, (y, x)) in y.chunks_exact_mut(out).zip(windows).enumerate() {
        y.fill(bias.get(c % channels).copied().unwrap_or(0.0));
        for (tap, row) in x.chunks_exact(length).enumerate() {
            let start = tap * along.dilation;
            // The first window whose element lies inside.
            let skip = along.before.saturating_sub(start).div_ceil(along.stride);
            let place = start + skip * along.stride - along.before.min(start + skip * along.stride);
            let targets = y.get_mut(place..).unwrap_or_default().iter_mut().step_by(along.stride);
            targets.zip(row.iter().skip(skip)).for_each(|(y, x)| *y += x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_cover_every_window_once() {
        for windows in 1..60 {
            let mut next = 0;
            for (first, width) in strips(windows) {
                assert!(first == next && (1..=STRIP).contains(&width), "{windows}");
                next += width;
            }
            assert_eq!(next, windows);
        }
    }
}
