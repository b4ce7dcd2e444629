//! From nodes to steps: operands get their places, constants are packed as the kernels read them.

use std::collections::HashMap;

use super::step::{Layer, Matrix, Source, Step};
use crate::eval;
use crate::graph::{Graph, Node, ValueId};
use crate::int8::Quantized;
use crate::kernels::elementwise::Repeat;
use crate::kernels::{conv, gemm, linear};
use crate::layout::Layout;
use crate::memory::{LINE, Span};
use crate::op::Op;
use crate::recurrent::{Cell, CellKind};

/// How a constant stands among the weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Plain,
    /// Panels for one row.
    Vector,
    /// Panels of a convolution.
    Filters,
    /// Panels for many rows.
    Matrix,
}

/// What [`super::Plan::new`] has made so far.
pub(super) struct Maker<'a> {
    pub(super) graph: &'a Graph,
    pub(super) layout: &'a Layout,
    /// For each node, whether its matrix has 8-bit weights.
    pub(super) narrow: Vec<bool>,
    pub(super) steps: Vec<Step>,
    pub(super) weights: Vec<f32>,
    pub(super) integers: Vec<i8>,
    pub(super) packed: HashMap<(ValueId, Form), Span>,
    pub(super) macs: usize,
}

impl Maker<'_> {
    /// Adds the steps of a node.
    pub(super) fn node(&mut self, index: usize, node: &Node) {
        if self.layout.is_view(index) {
            return;
        }
        let y = self.layout.span(self.graph, node.output);
        let input = |i: usize| node.inputs[i];
        match &node.op {
            Op::Linear(act) if self.narrow[index] && y.len == self.graph.values[input(1)].shape[1] => {
                let k = self.graph.values[input(1)].shape[0];
                let x = self.source(input(0));
                let w = self.integers(input(1), 0..y.len);
                let bias = node.inputs.get(2).map_or(Span::EMPTY, |&b| self.constant(b));
                self.macs += y.len * k;
                self.steps.push(Step::Narrow { w, bias, act: *act, k, x, y });
            }
            Op::Recurrent(cell) => self.recurrent(index, *cell, y),
            Op::Linear(act) => {
                let shape = &self.graph.values[input(1)].shape;
                let (k, n) = (shape[0], shape[1]);
                let x = self.source(input(0));
                let bias = |maker: &mut Self| node.inputs.get(2).map_or(Span::EMPTY, |&b| maker.constant(b));
                self.macs += y.len * k;
                if y.len == n {
                    let w = self.store(input(1), Form::Vector, |data, out| linear::pack(&data, k, n, out));
                    let bias = bias(self);
                    self.steps.push(Step::Linear { w, bias, act: *act, k, n, x, y });
                } else {
                    let w = self.store(input(1), Form::Matrix, |data, out| {
                        let start = out.len();
                        out.resize(start + gemm::packed_len(k, n), 0.0);
                        gemm::pack(&data, n, 1, k, n, 1.0, &mut out[start..]);
                    });
                    let bias = bias(self);
                    self.steps.push(Step::Gemm { w, bias, act: *act, k, n, x, y });
                }
            }
            Op::MatMul => {
                let shape = |v: ValueId| self.graph.values[v].shape.as_slice();
                let (to, from) = (shape(node.output), [shape(input(0)), shape(input(1))]);
                let k = from[0][from[0].len() - 1];
                let n = to[to.len() - 1];
                let starts = from.map(|from| eval::starts(from, to));
                let size = y.len / n / starts[0].len() * k;
                // Rows of all batches go through one right side together.
                let together = starts[0].iter().enumerate().all(|(i, &s)| s == i * size)
                    && starts[1].iter().all(|&s| s == 0);
                let batches: Box<[(usize, usize)]> = match together {
                    true => [(0, 0)].into(),
                    false => starts[0].iter().copied().zip(starts[1].iter().copied()).collect(),
                };
                self.macs += y.len * k;
                let (x, b) = (self.source(input(0)), self.source(input(1)));
                let room = self.layout.room(index);
                self.steps.push(Step::MatMul { batches, k, n, x, b, room, y });
            }
            Op::Attention(a) => {
                let (q, k, v) = (self.source(input(0)), self.source(input(1)), self.source(input(2)));
                let mask = node.inputs.get(3).map_or(Source::Weights(Span::EMPTY), |&m| self.source(m));
                self.macs += a.macs();
                let room = self.layout.room(index);
                self.steps.push(Step::Attention { a: a.clone(), q, k, v, mask, room, y });
            }
            Op::Unary(f) => {
                self.place(input(0), y);
                self.steps.push(Step::Map { f: *f, y });
            }
            Op::Binary(f) => {
                let swapped = self.layout.keeps(index) == 1;
                let (own, other) = if swapped { (input(1), input(0)) } else { (input(0), input(1)) };
                self.place(own, y);
                let (from, to) = (&self.graph.values[other].shape, &self.graph.values[node.output].shape);
                let repeat = Repeat::of(from, to).unwrap_or(Repeat::Rows);
                let b = self.source(other);
                self.steps.push(Step::Zip { f: *f, b, repeat, swapped, y });
            }
            Op::Where => {
                self.place(input(1), y);
                let (c, b) = (self.source(input(0)), self.source(input(2)));
                self.steps.push(Step::Select { c, b, y });
            }
            Op::LayerNorm { eps, .. } => {
                self.place(input(0), y);
                let (scale, bias) = (self.constant(input(1)), self.constant(input(2)));
                self.steps.push(Step::LayerNorm { scale, bias, eps: *eps, y });
            }
            Op::RmsNorm { eps, .. } => {
                self.place(input(0), y);
                let scale = self.constant(input(1));
                self.steps.push(Step::RmsNorm { scale, eps: *eps, y });
            }
            Op::GroupNorm { groups, eps } => {
                self.place(input(0), y);
                let (scale, bias) = (self.constant(input(1)), self.constant(input(2)));
                let shape = &self.graph.values[node.output].shape;
                let (channels, width) = (shape[1] / groups, shape[2..].iter().product());
                self.steps.push(Step::GroupNorm { channels, width, scale, bias, eps: *eps, y });
            }
            Op::Unfold(window) => {
                let x = self.source(input(0));
                self.steps.push(Step::Unfold { window: *window, x, y });
            }
            Op::Conv { groups, act } => {
                let (windows, w) = (&self.graph.values[input(0)].shape, &self.graph.values[input(1)].shape);
                let sizes = conv::Sizes { groups: *groups, rows: w[1], channels: w[2], out: windows[2] };
                let x = self.source(input(0));
                let w = self.store(input(1), Form::Filters, |data, out| {
                    conv::pack(&data, sizes.rows, sizes.channels, out);
                });
                let bias = node.inputs.get(2).map_or(Span::EMPTY, |&b| self.constant(b));
                self.macs += y.len * sizes.rows;
                self.steps.push(Step::Conv { sizes, w, bias, act: *act, x, y });
            }
            Op::Overlap(along) => {
                let length = self.graph.values[input(0)].shape[2];
                let shape = &self.graph.values[node.output].shape;
                let (channels, out) = (shape[1], shape[2]);
                let bias = node.inputs.get(1).map_or(Span::EMPTY, |&b| self.constant(b));
                let x = self.source(input(0));
                self.steps.push(Step::Overlap { along: *along, channels, length, out, bias, x, y });
            }
            Op::Softmax { width, log } => {
                self.place(input(0), y);
                self.steps.push(Step::Softmax { width: *width, log: *log, y });
            }
            Op::Reduce { kind, width } => {
                let x = self.source(input(0));
                self.steps.push(Step::Reduce { kind: *kind, width: *width, x, y });
            }
            Op::Rearrange(lists) => {
                for (&x, runs) in node.inputs.iter().zip(lists) {
                    let x = self.source(x);
                    self.steps.push(Step::Rearrange { runs: runs.clone().into(), x, y });
                }
            }
            Op::View => {
                let x = self.source(input(0));
                self.steps.push(Step::Copy { x, y });
            }
        }
    }

    fn recurrent(&mut self, index: usize, cell: Cell, y: Span) {
        let inputs = &self.graph.nodes[index].inputs;
        let (gates, h) = (self.source(inputs[0]), self.source(inputs[3]));
        let c = inputs.get(4).map(|&c| self.source(c));
        let (all, late) = (cell.gates() * cell.hidden, 2 * cell.hidden);
        let split = if cell.kind == CellKind::GruResetFirst { late } else { all };
        let mut part = |columns: std::ops::Range<usize>| {
            if self.narrow[index] {
                self.integers(inputs[1], columns)
            } else {
                self.columns(inputs[1], columns)
            }
        };
        let r = part(0..split);
        let candidate = (split < all).then(|| part(split..all));
        let bias = self.constant(inputs[2]);
        self.macs += cell.macs();
        self.steps.push(Step::Recurrent(Layer { cell, r, candidate, bias, gates, h, c, y }));
    }

    /// Some columns of a matrix.
    fn columns(&mut self, value: ValueId, columns: std::ops::Range<usize>) -> Matrix {
        let shape = &self.graph.values[value].shape;
        let (k, n, wide) = (shape[0], columns.len(), shape[1]);
        let start = self.aligned();
        if let Some(t) = &self.graph.values[value].constant {
            let part: Vec<f32> =
                t.to_f32().chunks_exact(wide).flat_map(|row| row[columns.clone()].to_vec()).collect();
            linear::pack(&part, k, n, &mut self.weights);
        }
        Matrix::Floats(Span { start, len: self.weights.len() - start })
    }

    /// Some columns of a matrix, as integers.
    fn integers(&mut self, value: ValueId, columns: std::ops::Range<usize>) -> Matrix {
        let shape = &self.graph.values[value].shape;
        let (k, n, wide) = (shape[0], columns.len(), shape[1]);
        let (start, scale) = (self.integers.len(), self.aligned());
        if let Some(t) = &self.graph.values[value].constant {
            let part: Vec<f64> =
                t.data.chunks_exact(wide).flat_map(|row| row[columns.clone()].to_vec()).collect();
            let quantized = Quantized::new(&part, n);
            crate::kernels::int8::pack(&quantized.q, k, n, &mut self.integers);
            self.weights.extend(&quantized.scale);
        }
        Matrix::Int8(Span { start, len: self.integers.len() - start }, Span { start: scale, len: n })
    }

    /// Starts a new line of the weights.
    fn aligned(&mut self) -> usize {
        self.weights.resize(self.weights.len().next_multiple_of(LINE), 0.0);
        self.weights.len()
    }

    /// Brings a value to where the step works in place, unless it is there already.
    fn place(&mut self, value: ValueId, y: Span) {
        let x = self.source(value);
        if x != Source::Arena(y) {
            self.steps.push(Step::Copy { x, y });
        }
    }

    fn source(&mut self, value: ValueId) -> Source {
        if self.graph.values[value].constant.is_some() {
            Source::Weights(self.constant(value))
        } else {
            Source::Arena(self.layout.span(self.graph, value))
        }
    }

    fn constant(&mut self, value: ValueId) -> Span {
        self.store(value, Form::Plain, |data, out| out.extend(data))
    }

    fn store(&mut self, value: ValueId, form: Form, put: impl FnOnce(Vec<f32>, &mut Vec<f32>)) -> Span {
        if let Some(&span) = self.packed.get(&(value, form)) {
            return span;
        }
        let start = self.aligned();
        // Callers ask only for values that are constant.
        if let Some(t) = &self.graph.values[value].constant {
            put(t.to_f32(), &mut self.weights);
        }
        let span = Span { start, len: self.weights.len() - start };
        self.packed.insert((value, form), span);
        span
    }

    /// Span of a graph output; a constant one is copied into the arena.
    pub(super) fn output(&mut self, value: ValueId) -> Span {
        let y = self.layout.span(self.graph, value);
        if self.graph.values[value].constant.is_some() {
            let x = self.source(value);
            self.steps.push(Step::Copy { x, y });
        }
        y
    }
}
