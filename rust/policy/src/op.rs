//! What a graph computes once shapes are static and ONNX's spellings are gone: a handful of operations.

use crate::kernels::attention::Attention;
use crate::recurrent::Cell;

/// An operation. Inputs and the output stand in [`crate::graph::Node`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    /// `y = act(x·W + b)` for every row of `x`; inputs `x`, `W` `[k, n]`, and `b` `[n]` if there is one.
    Linear(Option<Unary>),
    /// `a·b` for matrices in the last two dimensions, those before them broadcast; nothing needs to be constant.
    MatMul,
    /// Inputs queries, keys, values and, where there is one, the constant mask that is added to the scores.
    Attention(Box<Attention>),
    /// One number in, one out.
    Unary(Unary),
    /// Two numbers in, one out, with numpy's broadcasting.
    Binary(Binary),
    /// `c ? a : b`, broadcasting.
    Where,
    /// Rows of the last `width` elements: `(x − mean)/√(var + eps)·scale + bias`; inputs `x`, `scale`, `bias`.
    LayerNorm { width: usize, eps: f32 },
    /// Rows of the last `width` elements: `x/√(mean(x²) + eps)·scale`; inputs `x`, `scale`.
    RmsNorm { width: usize, eps: f32 },
    /// Groups of neighbouring channels of `x` `[n, c, …]`: `(x − mean)/√(var + eps)`, then scale and bias of each channel;
    /// inputs `x`, `scale` `[c]`, `bias` `[c]`.
    GroupNorm { groups: usize, eps: f32 },
    /// The windows of a 1-D convolution, in the order in which [`Op::Conv`] reads them.
    Unfold(Window),
    /// `y = act(w·windows + b)` `[n, c, length]`; inputs the windows, `w` `[groups, rows, channels]`, and `b` `[c]` if there
    /// is one.
    Conv { groups: usize, act: Option<Unary> },
    /// Adds up the overlapping windows of a transposed convolution: `x` `[n, c·kernel, length]` to `[n, c, …]`, on top of
    /// `b` `[c]` if there is one.
    Overlap(Stride),
    /// Rows of the last `width` elements to one number each.
    Reduce { kind: Reduction, width: usize },
    /// Rows of the last `width` elements: softmax, or its logarithm.
    Softmax { width: usize, log: bool },
    /// GRU or LSTM; inputs and output as [`Cell`] says.
    Recurrent(Cell),
    /// Copies runs of elements, one list for each input: transpose, slice, split, concat, expand, gather …
    Rearrange(Vec<Vec<Run>>),
    /// The same elements in the same order under another shape.
    View,
}

impl Op {
    /// Whether it multiplies by a matrix or sums over a window: what comes before the last of these may have 8-bit
    /// weights.
    pub(crate) fn is_product(&self) -> bool {
        matches!(
            self,
            Self::Linear(_) | Self::MatMul | Self::Attention(_) | Self::Recurrent(_) | Self::Conv { .. }
        )
    }
}

/// How a kernel of one dimension walks along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stride {
    /// Taps of the kernel.
    pub(crate) kernel: usize,
    /// Elements from one window to the next.
    pub(crate) stride: usize,
    /// Elements from one tap to the next.
    pub(crate) dilation: usize,
    /// Zeros before the first element.
    pub(crate) before: usize,
}

/// The windows over an input `[n, c, length]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) along: Stride,
    pub(crate) groups: usize,
    /// Channels of one group.
    pub(crate) channels: usize,
    pub(crate) length: usize,
    /// Number of windows.
    pub(crate) out: usize,
}

/// `len` consecutive elements, from `src` in an input to `dst` in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) src: usize,
    pub(crate) dst: usize,
    pub(crate) len: usize,
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unary {
    Neg,
    Abs,
    Square,
    Cube,
    Sqrt,
    ReciprocalSqrt,
    Reciprocal,
    Exp,
    Log,
    Sin,
    Cos,
    Floor,
    Ceil,
    Round,
    Sign,
    Erf,
    Not,
    IsNan,
    /// Not zero, as 0 or 1.
    Truth,
    Clip(f32, f32),
    Relu,
    LeakyRelu(f32),
    Elu(f32),
    Celu(f32),
    /// Alpha, gamma.
    Selu(f32, f32),
    Sigmoid,
    Tanh,
    /// Alpha, beta.
    HardSigmoid(f32, f32),
    HardSwish,
    Softplus,
    Softsign,
    Gelu,
    GeluTanh,
    Mish,
    /// `x·sigmoid(alpha·x)`.
    Swish(f32),
}

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    /// Sign of the dividend.
    Fmod,
    /// Sign of the divisor (integers only).
    Modulo,
    Min,
    Max,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Equal,
    And,
    Or,
    /// `x < 0 ? slope·x : x`.
    PRelu,
}

impl Binary {
    /// Whether the result is a truth value.
    pub(crate) fn is_truth(self) -> bool {
        use Binary::{And, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, Or};
        matches!(self, Greater | Less | GreaterOrEqual | LessOrEqual | Equal | And | Or)
    }
}

/// A row to one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L2,
    SumSquare,
}

/// Joins consecutive copies; `sources[i]` is where output element `dst + i` comes from.
pub(crate) fn runs(sources: impl IntoIterator<Item = usize>, mut dst: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for src in sources {
        match runs.last_mut() {
            Some(run) if run.src + run.len == src => run.len += 1,
            _ => runs.push(Run { src, dst, len: 1 }),
        }
        dst += 1;
    }
    runs
}
