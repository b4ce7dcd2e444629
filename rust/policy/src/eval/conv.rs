//! Convolutions in plain arithmetic. Windows lie here as `[sample · group, row, window]`; the kernel packs them its own way,
//! and nothing but the product reads them.

use crate::op::{Stride, Window};
use crate::tensor::Tensor;

/// The windows of `x` `[n, c, length]`.
pub(super) fn unfold(window: Window, x: &[f64]) -> Vec<f64> {
    let Window { along, channels, length, out, .. } = window;
    let mut y = Vec::with_capacity(x.len() * along.kernel);
    for row in x.chunks_exact(channels * length).flat_map(|group| group.chunks_exact(length)) {
        for tap in 0..along.kernel {
            y.extend((0..out).map(|w| {
                let at = (w * along.stride + tap * along.dilation).checked_sub(along.before);
                at.and_then(|i| row.get(i)).copied().unwrap_or(0.0)
            }));
        }
    }
    y
}

/// The product of windows and weights `[groups, rows, channels]`, plus a bias for each channel.
pub(super) fn conv(inputs: &[&Tensor], groups: usize) -> Vec<f64> {
    let (out, rows, channels) = (inputs[0].shape[2], inputs[1].shape[1], inputs[1].shape[2]);
    let mut y = Vec::new();
    for (i, x) in inputs[0].data.chunks_exact(rows * out).enumerate() {
        let group = i % groups;
        let w = &inputs[1].data[group * rows * channels..][..rows * channels];
        for m in 0..channels {
            let bias = inputs.get(2).map_or(0.0, |b| b.data[group * channels + m]);
            y.extend(
                (0..out).map(|p| bias + (0..rows).map(|r| w[r * channels + m] * x[r * out + p]).sum::<f64>()),
            );
        }
    }
    y
}

/// Overlapping windows `[n, c · kernel, length]` added up to `shape` `[n, c, out]`.
pub(super) fn overlap(along: Stride, inputs: &[&Tensor], shape: &[usize]) -> Vec<f64> {
    let (length, channels, out) = (inputs[0].shape[2], shape[1], shape[2]);
    let mut y = vec![0.0; shape.iter().product()];
    for (c, y) in y.chunks_exact_mut(out).enumerate() {
        y.fill(inputs.get(1).map_or(0.0, |b| b.data[c % channels]));
        for tap in 0..along.kernel {
            for i in 0..length {
                let at = (i * along.stride + tap * along.dilation).checked_sub(along.before);
                if let Some(y) = at.and_then(|at| y.get_mut(at)) {
                    *y += inputs[0].data[(c * along.kernel + tap) * length + i];
                }
            }
        }
    }
    y
}
