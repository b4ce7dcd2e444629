//! What a recurrent layer is: GRU or LSTM over the gates that a linear layer has computed from its input.
//!
//! An ONNX `GRU` or `LSTM`, or torch's cell written out, becomes a linear layer for the input's part of the gates (all
//! steps at once) and a [`Cell`] for the rest. Gates stand in torch's order: r, z, n, or i, f, g, o.

use crate::eval::unary;
use crate::op::Unary;
use crate::tensor::Tensor;

/// How the gates make a new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellKind {
    /// `n = tanh(xₙ + r⊙(R·h)ₙ)`: torch, and ONNX with `linear_before_reset`.
    Gru,
    /// `n = tanh(xₙ + Rₙ·(r⊙h))`.
    GruResetFirst,
    /// `c' = f⊙c + i⊙g`, `h' = o⊙tanh(c')`.
    Lstm,
}

/// A layer of `batch` rows of `hidden` numbers over `length` steps.
///
/// Inputs: the gates `[length, batch, gates·hidden]` from the layer's input, `R` `[hidden, gates·hidden]`, its bias, the
/// first state `[batch, hidden]` and, for an LSTM, the first cell state. The output holds, one after the other, the
/// states of all steps, the last cell state, and room to work in; views give its parts their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) kind: CellKind,
    pub(crate) length: usize,
    pub(crate) batch: usize,
    pub(crate) hidden: usize,
}

impl Cell {
    /// Blocks of `hidden` numbers before the nonlinearities.
    pub(crate) fn gates(self) -> usize {
        if self.kind == CellKind::Lstm { 4 } else { 3 }
    }

    /// Numbers of one state, all rows.
    pub(crate) fn state(self) -> usize {
        self.batch * self.hidden
    }

    /// Numbers of the states of all steps.
    pub(crate) fn states(self) -> usize {
        self.length * self.state()
    }

    /// Numbers of the cell state.
    pub(crate) fn cell_state(self) -> usize {
        if self.kind == CellKind::Lstm { self.state() } else { 0 }
    }

    /// Numbers of the output.
    pub(crate) fn output(self) -> usize {
        self.states() + self.cell_state() + self.gates() * self.hidden
    }

    /// Multiplications with an addition.
    pub(crate) fn macs(self) -> usize {
        self.states() * self.gates() * self.hidden
    }
}

/// The output in 64-bit arithmetic, its room to work in as zeros.
pub(crate) fn evaluate(cell: Cell, inputs: &[&Tensor]) -> Vec<f64> {
    let [gates, r, bias, h0] = [0, 1, 2, 3].map(|i| inputs[i].data.as_slice());
    let (n, wide) = (cell.hidden, cell.gates() * cell.hidden);
    let product = |h: &[f64], column: usize| {
        bias[column] + h.iter().zip(r.chunks_exact(wide)).map(|(h, row)| h * row[column]).sum::<f64>()
    };
    let (sigmoid, tanh) = (|x| unary(Unary::Sigmoid, x), f64::tanh);
    let (mut h, mut c) = (h0.to_vec(), inputs.get(4).map_or(vec![], |t| t.data.clone()));
    let mut out = Vec::with_capacity(cell.output());
    for step in gates.chunks_exact(cell.batch * wide) {
        for (row, x) in step.chunks_exact(wide).enumerate() {
            let old = h[row * n..(row + 1) * n].to_vec();
            let own: Vec<f64> = (0..wide).map(|column| product(&old, column)).collect();
            let gate = |k: usize, i: usize| x[k * n + i] + own[k * n + i];
            let reset: Vec<f64> = (0..n).map(|i| sigmoid(gate(0, i)) * old[i]).collect();
            for i in 0..n {
                h[row * n + i] = if cell.kind == CellKind::Lstm {
                    let c = &mut c[row * n + i];
                    *c = sigmoid(gate(1, i)) * *c + sigmoid(gate(0, i)) * tanh(gate(2, i));
                    sigmoid(gate(3, i)) * tanh(*c)
                } else {
                    let own = match cell.kind {
                        CellKind::GruResetFirst => product(&reset, 2 * n + i),
                        _ => sigmoid(gate(0, i)) * own[2 * n + i],
                    };
                    let new = tanh(x[2 * n + i] + own);
                    new + sigmoid(gate(1, i)) * (old[i] - new)
                };
            }
        }
        out.extend_from_slice(&h);
    }
    out.extend(c);
    out.resize(cell.output(), 0.0);
    out
}
