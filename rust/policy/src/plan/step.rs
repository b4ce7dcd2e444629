//! One step: a kernel, and where its operands lie.

use crate::isa::Level;
use crate::kernels::attention::Attention;
use crate::kernels::elementwise::Repeat;
use crate::kernels::linear::Packed;
use crate::kernels::{activation, attention, conv, elementwise, gemm, linear, norm, recurrent, shape};
use crate::memory::{Span, split, split_two};
use crate::op::{Binary, Reduction, Run, Stride, Unary, Window};
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
    pub(super) cell: Cell,
    pub(super) r: Matrix,
    pub(super) candidate: Option<Matrix>,
    pub(super) bias: Span,
    pub(super) gates: Source,
    pub(super) h: Source,
    pub(super) c: Option<Source>,
    pub(super) y: Span,
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
impl Step {
    /// Runs it.
    pub(super) fn run(&self, level: Level, weights: &[f32], integers: &[i8], arena: &mut [f32]) {
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
                let (y, gates, h, c) = take!(y, gates, h, c.unwrap_or(Source::Weights(Span::EMPTY)));
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

    /// Name of its kernel.
    pub(super) fn name(&self) -> String {
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
