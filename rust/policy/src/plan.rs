//! From a graph to what runs: steps over one arena and one block of packed weights.

use std::collections::HashMap;

use crate::eval;
use crate::graph::{Graph, Node, ValueId};
use crate::int8::{self, Quantized};
use crate::isa::Level;
use crate::kernels::attention::Attention;
use crate::kernels::elementwise::Repeat;
use crate::kernels::linear::Packed;
use crate::kernels::{activation, attention, conv, elementwise, gemm, linear, norm, recurrent, shape};
use crate::layout::Layout;
use crate::manifest::Weights;
use crate::memory::{Block, LINE, Span, split, split_two};
use crate::op::{Binary, Op, Reduction, Run, Stride, Unary, Window};
use crate::recurrent::{Cell, CellKind};
use crate::tiles;

/// Where an operand lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Source {
    Arena(Span),
    Weights(Span),
}

/// Where a packed matrix lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Matrix {
    Floats(Span),
    /// Span of the integers, span of the scales.
    Int8(Span, Span),
}

impl Matrix {
    fn of<'a>(self, floats: &'a [f32], integers: &'a [i8]) -> Packed<'a> {
        match self {
            Self::Floats(w) => Packed::Floats(w.of(floats)),
            Self::Int8(q, scale) => Packed::Int8(&integers[q.start..q.start + q.len], scale.of(floats)),
        }
    }

    /// ` int8`, for the names of kernels.
    fn suffix(self) -> &'static str {
        if matches!(self, Self::Int8(..)) { " int8" } else { "" }
    }
}

/// A recurrent layer: its matrices, and where its operands lie.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    cell: Cell,
    r: Matrix,
    candidate: Option<Matrix>,
    bias: Span,
    gates: Source,
    h: Source,
    c: Option<Source>,
    y: Span,
}

/// One kernel call. `y` is always in the arena, and kernels that need only one operand work in place.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Copy {
        x: Source,
        y: Span,
    },
    Linear {
        w: Span,
        bias: Span,
        act: Option<Unary>,
        k: usize,
        n: usize,
        x: Source,
        y: Span,
    },
    /// One row and 8-bit weights.
    Narrow {
        w: Matrix,
        bias: Span,
        act: Option<Unary>,
        k: usize,
        x: Source,
        y: Span,
    },
    Recurrent(Layer),
    Gemm {
        w: Span,
        bias: Span,
        act: Option<Unary>,
        k: usize,
        n: usize,
        x: Source,
        y: Span,
    },
    MatMul {
        batches: Box<[(usize, usize)]>,
        k: usize,
        n: usize,
        x: Source,
        b: Source,
        room: Span,
        y: Span,
    },
    Attention {
        a: Box<Attention>,
        q: Source,
        k: Source,
        v: Source,
        mask: Source,
        room: Span,
        y: Span,
    },
    Map {
        f: Unary,
        y: Span,
    },
    Zip {
        f: Binary,
        b: Source,
        repeat: Repeat,
        swapped: bool,
        y: Span,
    },
    Select {
        c: Source,
        b: Source,
        y: Span,
    },
    LayerNorm {
        scale: Span,
        bias: Span,
        eps: f32,
        y: Span,
    },
    RmsNorm {
        scale: Span,
        eps: f32,
        y: Span,
    },
    Softmax {
        width: usize,
        log: bool,
        y: Span,
    },
    Reduce {
        kind: Reduction,
        width: usize,
        x: Source,
        y: Span,
    },
    Rearrange {
        runs: Box<[Run]>,
        x: Source,
        y: Span,
    },
    GroupNorm {
        channels: usize,
        width: usize,
        scale: Span,
        bias: Span,
        eps: f32,
        y: Span,
    },
    Unfold {
        window: Window,
        x: Source,
        y: Span,
    },
    Conv {
        sizes: conv::Sizes,
        w: Span,
        bias: Span,
        act: Option<Unary>,
        x: Source,
        y: Span,
    },
    Overlap {
        along: Stride,
        channels: usize,
        length: usize,
        out: usize,
        bias: Span,
        x: Source,
        y: Span,
    },
    /// Elementwise steps on one buffer, so many elements at a time.
    Tiled {
        steps: Box<[Step]>,
        tile: usize,
        y: Span,
    },
}

/// No floats.
const NOTHING: Span = Span { start: 0, len: 0 };

/// A graph that is ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) weights: Block,
    /// Packed 8-bit weights.
    pub(crate) integers: Vec<i8>,
    /// Floats of the arena.
    pub(crate) arena: usize,
    pub(crate) inputs: Vec<Span>,
    pub(crate) outputs: Vec<Span>,
    /// Multiplications with an addition in the linear layers.
    pub(crate) macs: usize,
}

impl Plan {
    /// Lays out and packs a legal graph (see [`crate::fuse::legalise`]).
    pub(crate) fn new(graph: &Graph, weights: Weights) -> Self {
        let layout = Layout::new(graph);
        let narrow =
            if weights == Weights::Int8 { int8::chosen(graph) } else { vec![false; graph.nodes.len()] };
        let mut maker = Maker {
            graph,
            layout: &layout,
            narrow,
            steps: vec![],
            weights: vec![],
            integers: vec![],
            packed: HashMap::new(),
            macs: 0,
        };
        graph.nodes.iter().enumerate().for_each(|(i, node)| maker.node(i, node));
        let outputs: Vec<Span> = graph.outputs.iter().map(|&o| maker.output(o)).collect();
        let inputs = graph.inputs.iter().map(|&i| layout.span(graph, i)).collect();
        Self {
            steps: tiles::join(maker.steps),
            weights: Block::new(&maker.weights),
            integers: maker.integers,
            arena: layout.floats,
            inputs,
            outputs,
            macs: maker.macs,
        }
    }

    /// Runs every step.
    pub(crate) fn run(&self, level: Level, arena: &mut [f32]) {
        let weights = self.weights.get();
        for step in &self.steps {
            step.run(level, weights, &self.integers, arena);
        }
    }

    /// Name of every kernel, in the order of execution.
    pub(crate) fn kernels(&self) -> impl Iterator<Item = String> {
        self.steps.iter().map(Step::name)
    }
}

impl Step {
    fn run(&self, level: Level, weights: &[f32], integers: &[i8], arena: &mut [f32]) {
        macro_rules! take {
            ($y:expr, $($x:expr),+) => {{
                let (y, rest) = split(arena, $y);
                let get = |source| match source {
                    Source::Arena(span) => rest.get(span),
                    Source::Weights(span) => span.of(weights),
                };
                (y, $(get($x)),+)
            }};
        }
        macro_rules! take_two {
            ($y:expr, $room:expr, $($x:expr),+) => {{
                let (y, room, rest) = split_two(arena, $y, $room);
                let get = |source| match source {
                    Source::Arena(span) => rest.get(span),
                    Source::Weights(span) => span.of(weights),
                };
                (y, room, $(get($x)),+)
            }};
        }
        match *self {
            Step::Copy { x, y } => {
                let (y, x) = take!(y, x);
                y.copy_from_slice(x);
            }
            Step::Linear { w, bias, act, x, y, .. } => {
                let (y, x) = take!(y, x);
                linear::matvec(level, w.of(weights), bias.of(weights), x, y);
                if let Some(f) = act {
                    activation::map(level, f, y);
                }
            }
            Step::Narrow { w, bias, act, x, y, .. } => {
                let (y, x) = take!(y, x);
                w.of(weights, integers).times(level, bias.of(weights), x, y);
                if let Some(f) = act {
                    activation::map(level, f, y);
                }
            }
            Step::Recurrent(ref layer) => {
                let Layer { cell, r, candidate, bias, gates, h, c, y } = *layer;
                let (y, gates, h, c) = take!(y, gates, h, c.unwrap_or(Source::Weights(NOTHING)));
                let inputs = recurrent::Inputs {
                    gates,
                    r: r.of(weights, integers),
                    candidate: candidate.map(|m| m.of(weights, integers)),
                    bias: bias.of(weights),
                    h,
                    c,
                };
                recurrent::run(level, cell, &inputs, y);
            }
            Step::Gemm { w, bias, act, k, n, x, y } => {
                let (y, x) = take!(y, x);
                gemm::gemm(level, x, w.of(weights), bias.of(weights), act, k, n, y);
            }
            Step::MatMul { ref batches, k, n, x, b, room, y } => {
                let (y, room, x, b) = take_two!(y, room, x, b);
                gemm::matmul(level, batches, x, b, k, n, room, y);
            }
            Step::Attention { ref a, q, k, v, mask, room, y } => {
                let (y, room, q, k, v, mask) = take_two!(y, room, q, k, v, mask);
                attention::attention(level, a, q, k, v, mask, room, y);
            }
            Step::Map { f, y } => activation::map(level, f, y.of_mut(arena)),
            Step::Zip { f, b, repeat, swapped, y } => {
                let (y, b) = take!(y, b);
                elementwise::zip(level, f, y, b, repeat, swapped);
            }
            Step::Select { c, b, y } => {
                let (y, c, b) = take!(y, c, b);
                elementwise::select(level, c, y, b);
            }
            Step::LayerNorm { scale, bias, eps, y } => {
                norm::layer_norm(level, y.of_mut(arena), scale.of(weights), bias.of(weights), eps);
            }
            Step::RmsNorm { scale, eps, y } => norm::rms_norm(level, y.of_mut(arena), scale.of(weights), eps),
            Step::GroupNorm { channels, width, scale, bias, eps, y } => {
                let y = y.of_mut(arena);
                norm::group_norm(level, y, channels, width, scale.of(weights), bias.of(weights), eps);
            }
            Step::Unfold { window, x, y } => {
                let (y, x) = take!(y, x);
                conv::unfold(window, x, y);
            }
            Step::Conv { sizes, w, bias, act, x, y } => {
                let (y, x) = take!(y, x);
                conv::conv(level, sizes, w.of(weights), bias.of(weights), x, y);
                if let Some(f) = act {
                    activation::map(level, f, y);
                }
            }
            Step::Overlap { along, channels, length, out, bias, x, y } => {
                let (y, x) = take!(y, x);
                conv::overlap(along, channels, bias.of(weights), length, out, x, y);
            }
            Step::Softmax { width, log, y } => norm::softmax(level, y.of_mut(arena), width, log),
            Step::Reduce { kind, width, x, y } => {
                let (y, x) = take!(y, x);
                norm::reduce(level, kind, width, x, y);
            }
            Step::Rearrange { ref runs, x, y } => {
                let (y, x) = take!(y, x);
                shape::rearrange(runs, x, y);
            }
            Step::Tiled { ref steps, tile, y } => {
                for from in (0..y.len).step_by(tile) {
                    for step in steps {
                        tiles::part(step, from, tile.min(y.len - from)).run(level, weights, integers, arena);
                    }
                }
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Step::Copy { y, .. } => format!("copy {}", y.len),
            Step::Linear { k, n, act: None, .. } => format!("linear {k}x{n}"),
            Step::Linear { k, n, act: Some(f), .. } => format!("linear {k}x{n} {f:?}").to_lowercase(),
            Step::Narrow { w, act, k, y, .. } => {
                let act = act.map_or(String::new(), |f| format!(" {f:?}").to_lowercase());
                format!("linear {k}x{}{act}{}", y.len, w.suffix())
            }
            Step::Recurrent(Layer { cell, r, .. }) => {
                let kind = if cell.kind == CellKind::Lstm { "lstm" } else { "gru" };
                let steps = if cell.length > 1 { format!("x{}", cell.length) } else { String::new() };
                format!("{kind} {}{steps}{}", cell.hidden, r.suffix())
            }
            Step::Gemm { k, n, act, y, .. } => {
                let act = act.map_or(String::new(), |f| format!(" {f:?}").to_lowercase());
                format!("gemm {}x{k}x{n}{act}", y.len / n)
            }
            Step::MatMul { batches, k, n, y, .. } => {
                format!("matmul {}x{}x{k}x{n}", batches.len(), y.len / n / batches.len())
            }
            Step::Attention { a, .. } => {
                let mask = if a.mask.is_some() { " mask" } else { "" };
                format!("attention {}x{}x{}x{}{mask}", a.heads(), a.queries, a.keys, a.width)
            }
            Step::Map { f, y } => format!("{f:?} {}", y.len).to_lowercase(),
            Step::Zip { f, y, .. } => format!("{f:?} {}", y.len).to_lowercase(),
            Step::Select { y, .. } => format!("where {}", y.len),
            Step::LayerNorm { scale, .. } => format!("layernorm {}", scale.len),
            Step::RmsNorm { scale, .. } => format!("rmsnorm {}", scale.len),
            Step::GroupNorm { scale, .. } => format!("groupnorm {}", scale.len),
            Step::Unfold { y, .. } => format!("unfold {}", y.len),
            Step::Conv { sizes, act, .. } => {
                let act = act.map_or_else(String::new, |f| format!(" {f:?}").to_lowercase());
                format!("conv {}x{}x{}{act}", sizes.rows, sizes.groups * sizes.channels, sizes.out)
            }
            Step::Overlap { y, .. } => format!("overlap {}", y.len),
            Step::Softmax { width, .. } => format!("softmax {width}"),
            Step::Reduce { kind, width, .. } => format!("reduce{kind:?} {width}").to_lowercase(),
            Step::Rearrange { y, .. } => format!("rearrange {}", y.len),
            Step::Tiled { steps, .. } => {
                let names: Vec<String> = steps.iter().map(Step::name).collect();
                format!("tiled({})", names.join(", "))
            }
        }
    }
}

/// How a constant stands among the weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Plain,
    /// Panels for one row.
    Vector,
    /// Panels of a convolution.
    Filters,
    /// Panels for many rows.
    Matrix,
}

struct Maker<'a> {
    graph: &'a Graph,
    layout: &'a Layout,
    /// For each node, whether its matrix has 8-bit weights.
    narrow: Vec<bool>,
    steps: Vec<Step>,
    weights: Vec<f32>,
    integers: Vec<i8>,
    packed: HashMap<(ValueId, Form), Span>,
    macs: usize,
}

impl Maker<'_> {
    fn node(&mut self, index: usize, node: &Node) {
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
                let bias = node.inputs.get(2).map_or(NOTHING, |&b| self.constant(b));
                self.macs += y.len * k;
                self.steps.push(Step::Narrow { w, bias, act: *act, k, x, y });
            }
            Op::Recurrent(cell) => self.recurrent(index, *cell, y),
            Op::Linear(act) => {
                let shape = &self.graph.values[input(1)].shape;
                let (k, n) = (shape[0], shape[1]);
                let x = self.source(input(0));
                let bias = |maker: &mut Self| node.inputs.get(2).map_or(NOTHING, |&b| maker.constant(b));
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
                let mask = node.inputs.get(3).map_or(Source::Weights(NOTHING), |&m| self.source(m));
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
                let repeat = repeat(from, to).unwrap_or(Repeat::Rows);
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
                let bias = node.inputs.get(2).map_or(NOTHING, |&b| self.constant(b));
                self.macs += y.len * sizes.rows;
                self.steps.push(Step::Conv { sizes, w, bias, act: *act, x, y });
            }
            Op::Overlap(along) => {
                let length = self.graph.values[input(0)].shape[2];
                let shape = &self.graph.values[node.output].shape;
                let (channels, out) = (shape[1], shape[2]);
                let bias = node.inputs.get(1).map_or(NOTHING, |&b| self.constant(b));
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
    fn output(&mut self, value: ValueId) -> Span {
        let y = self.layout.span(self.graph, value);
        if self.graph.values[value].constant.is_some() {
            let x = self.source(value);
            self.steps.push(Step::Copy { x, y });
        }
        y
    }
}

/// How an operand of shape `from` lies against a result of shape `to`; `None` when no loop of ours does that.
pub(crate) fn repeat(from: &[usize], to: &[usize]) -> Option<Repeat> {
    let own: Vec<usize> =
        std::iter::repeat_n(1, to.len().saturating_sub(from.len())).chain(from.iter().copied()).collect();
    let count: usize = own.iter().product();
    let total: usize = to.iter().product();
    if count == 1 {
        return Some(Repeat::Each(total));
    }
    let trailing = own.iter().zip(to).skip_while(|(d, _)| **d == 1).all(|(a, b)| a == b);
    if trailing {
        return Some(Repeat::Rows);
    }
    let leading = own.iter().zip(to).rev().skip_while(|(d, _)| **d == 1).all(|(a, b)| a == b);
    leading.then(|| Repeat::Each(total / count))
}
