//! Steps of recurrent layers. The state's part of the gates is one matrix-vector product; one loop then applies every
//! nonlinearity and writes the new state. Magnitudes below 1e-30 become 0: subnormal numbers would slow the decay to
//! rest.

use super::linear::Packed;
use super::math::{sigmoid, tanh};
use crate::isa::{Level, fma, kernel};
use crate::recurrent::{Cell, CellKind};

/// What a layer reads.
pub(crate) struct Inputs<'a> {
    /// The input's part of the gates, all steps.
    pub(crate) gates: &'a [f32],
    /// `R`; without the candidate's columns when `candidate` has them.
    pub(crate) r: Packed<'a>,
    /// The candidate's columns, which a GRU that resets first multiplies later.
    pub(crate) candidate: Option<Packed<'a>>,
    /// Bias of `R`.
    pub(crate) bias: &'a [f32],
    /// First state.
    pub(crate) h: &'a [f32],
    /// First cell state; empty for a GRU.
    pub(crate) c: &'a [f32],
}

/// Runs all steps; `y` is laid out as [`Cell`] says.
pub(crate) fn run(level: Level, cell: Cell, x: &Inputs<'_>, y: &mut [f32]) {
    let n = cell.hidden;
    let (states, rest) = y.split_at_mut(cell.states());
    let (c, own) = rest.split_at_mut(cell.cell_state());
    c.copy_from_slice(x.c);
    for (i, gates) in x.gates.chunks_exact(own.len()).enumerate() {
        let (before, after) = states.split_at_mut(i * n);
        // The same row one step earlier.
        let h = match i.checked_sub(cell.batch) {
            Some(earlier) => &before[earlier * n..(earlier + 1) * n],
            None => &x.h[i * n..(i + 1) * n],
        };
        let out = &mut after[..n];
        match cell.kind {
            CellKind::Gru => {
                x.r.times(level, x.bias, h, own);
                gru(level, gates, own, h, out);
            }
            CellKind::GruResetFirst => {
                let (first, late) = own.split_at_mut(2 * n);
                x.r.times(level, &x.bias[..2 * n], h, first);
                reset(level, gates, first, h);
                if let Some(candidate) = x.candidate {
                    candidate.times(level, &x.bias[2 * n..], &first[..n], late);
                }
                blend(level, gates, first, late, h, out);
            }
            CellKind::Lstm => {
                let row = i % cell.batch * n;
                x.r.times(level, x.bias, h, own);
                lstm(level, gates, own, &mut c[row..row + n], out);
            }
        }
    }
}

kernel! {
    /// `own` is `R·h + b`, blocks r, z, n.
    gru = gru_body(gates: &[f32], own: &[f32], h: &[f32], y: &mut [f32])
}

kernel! {
    /// Block r of `own` becomes `σ(r)⊙h`.
    reset = reset_body(gates: &[f32], own: &mut [f32], h: &[f32])
}

kernel! {
    /// The new state from block z of `own` and the candidate's sum `late`.
    blend = blend_body(gates: &[f32], own: &[f32], late: &[f32], h: &[f32], y: &mut [f32])
}

kernel! {
    /// `own` is `R·h + b`, blocks i, f, g, o; `c` is replaced.
    lstm = lstm_body(gates: &[f32], own: &[f32], c: &mut [f32], y: &mut [f32])
}

/// Block `k` of `n` numbers.
#[inline(always)]
fn block(x: &[f32], k: usize, n: usize) -> &[f32] {
    &x[k * n..(k + 1) * n]
}

#[inline(always)]
fn settle(x: f32) -> f32 {
    if x.abs() < 1e-30 { 0.0 } else { x }
}

#[inline(always)]
fn gru_body<const F: bool>(gates: &[f32], own: &[f32], h: &[f32], y: &mut [f32]) {
    let n = y.len();
    let [xr, xz, xn] = [0, 1, 2].map(|k| block(gates, k, n));
    let [or, oz, on] = [0, 1, 2].map(|k| block(own, k, n));
    let h = &h[..n];
    for i in 0..n {
        let r = sigmoid::<F>(xr[i] + or[i]);
        let z = sigmoid::<F>(xz[i] + oz[i]);
        let new = tanh::<F>(fma::<F>(r, on[i], xn[i]));
        y[i] = settle(fma::<F>(h[i] - new, z, new));
    }
}

#[inline(always)]
fn reset_body<const F: bool>(gates: &[f32], own: &mut [f32], h: &[f32]) {
    for ((own, &x), &h) in own.iter_mut().zip(gates).zip(h) {
        *own = sigmoid::<F>(x + *own) * h;
    }
}

#[inline(always)]
fn blend_body<const F: bool>(gates: &[f32], own: &[f32], late: &[f32], h: &[f32], y: &mut [f32]) {
    let n = y.len();
    let (xz, xn, oz, late, h) =
        (block(gates, 1, n), block(gates, 2, n), block(own, 1, n), &late[..n], &h[..n]);
    for i in 0..n {
        let z = sigmoid::<F>(xz[i] + oz[i]);
        let new = tanh::<F>(xn[i] + late[i]);
        y[i] = settle(fma::<F>(h[i] - new, z, new));
    }
}

#[inline(always)]
fn lstm_body<const F: bool>(gates: &[f32], own: &[f32], c: &mut [f32], y: &mut [f32]) {
    let n = y.len();
    let [xi, xf, xg, xo] = [0, 1, 2, 3].map(|k| block(gates, k, n));
    let [oi, of, og, oo] = [0, 1, 2, 3].map(|k| block(own, k, n));
    let c = &mut c[..n];
    for i in 0..n {
        let fresh = sigmoid::<F>(xi[i] + oi[i]) * tanh::<F>(xg[i] + og[i]);
        let cell = settle(fma::<F>(sigmoid::<F>(xf[i] + of[i]), c[i], fresh));
        c[i] = cell;
        y[i] = settle(sigmoid::<F>(xo[i] + oo[i]) * tanh::<F>(cell));
    }
}
