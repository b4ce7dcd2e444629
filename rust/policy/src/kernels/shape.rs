//! Copies runs of elements.

use crate::op::Run;

/// Copies every run from `x` to `y`.
pub(crate) fn rearrange(runs: &[Run], x: &[f32], y: &mut [f32]) {
    for r in runs {
        y[r.dst..r.dst + r.len].copy_from_slice(&x[r.src..r.src + r.len]);
    }
}
