//! Convolutions of one dimension. A convolution becomes the windows of its input and one product; a transposed one a
//! product for each input element, whose windows are then added up where they overlap.

use super::{Cx, Outputs};
use crate::graph::{Builder, GraphError, ValueId};
use crate::op::{Op, Stride, Window};
use crate::tensor::{DType, Tensor};

/// Lowers the node if it is of this class.
pub(super) fn lower(b: &mut Builder<'_>, cx: &Cx<'_>) -> Option<Outputs> {
    let result = match cx.op() {
        "Conv" => conv(b, cx),
        "ConvTranspose" => transposed(b, cx),
        _ => return None,
    };
    Some(result.map(|id| vec![id]))
}

/// What the two have in common.
struct Common {
    x: ValueId,
    samples: usize,
    channels: usize,
    length: usize,
    weights: std::sync::Arc<Tensor>,
    groups: usize,
    stride: usize,
    dilation: usize,
    kernel: usize,
    padding: Padding,
}

/// What the attributes say of the padding.
enum Padding {
    Given {
        before: usize,
        after: usize,
    },
    /// As many as the length asks for; whether an odd one stands at the end.
    Same {
        upper: bool,
    },
}

impl Common {
    fn read(b: &Builder<'_>, cx: &Cx<'_>) -> Result<Self, GraphError> {
        let x = cx.input(0)?;
        let weights = cx.constant(b, 1)?;
        let dimensions = b.shape(x).len().max(weights.shape.len());
        if dimensions > 3 {
            let op = format!("{} in {} dimensions", cx.op(), dimensions - 2);
            return Err(cx.unsupported(&op, "; convolutions have one: keep vision outside the tick"));
        }
        let (&[samples, channels, length], &[first, second, kernel]) = (b.shape(x), &weights.shape[..])
        else {
            return Err(cx.bad_shape(format!("{:?} convolved with {:?}", b.shape(x), weights.shape)));
        };
        if [samples, channels, length, first, second, kernel].contains(&0) {
            return Err(cx.bad_shape(format!("{:?} convolved with {:?}", b.shape(x), weights.shape)));
        }
        if let Some(shape) = cx.ints("kernel_shape").filter(|s| *s != [kernel as i64]) {
            return Err(
                cx.bad_attribute("kernel_shape", format!("{shape:?}, but the weights have {kernel} taps"))
            );
        }
        let positive = |name: &str, default: i64, given: Option<i64>| {
            let n = given.unwrap_or(default);
            let fits = usize::try_from(n).ok().filter(|&n| n > 0 && n <= b.limits.dimension);
            fits.ok_or_else(|| cx.bad_attribute(name, format!("{n} is not a positive number")))
        };
        let one = |name: &str| match cx.ints(name).as_deref() {
            None => positive(name, 1, None),
            Some(&[n]) => positive(name, 1, Some(n)),
            Some(other) => Err(cx.bad_attribute(name, format!("{other:?} for one dimension"))),
        };
        let groups = positive("group", 1, Some(cx.int("group", 1)))?;
        let (stride, dilation) = (one("strides")?, one("dilations")?);
        let pads = cx.ints("pads");
        let padding = match cx.string("auto_pad").as_deref() {
            None | Some("NOTSET") => {
                let given = pads.clone().unwrap_or_else(|| vec![0, 0]);
                let size = |n: i64| usize::try_from(n).ok().filter(|&n| n <= b.limits.dimension);
                match given[..] {
                    [before, after] => {
                        size(before).zip(size(after)).map(|(before, after)| Padding::Given { before, after })
                    }
                    _ => None,
                }
                .ok_or_else(|| cx.bad_attribute("pads", format!("{given:?} for one dimension")))?
            }
            Some("VALID") => Padding::Given { before: 0, after: 0 },
            Some("SAME_UPPER") => Padding::Same { upper: true },
            Some("SAME_LOWER") => Padding::Same { upper: false },
            Some(other) => return Err(cx.bad_attribute("auto_pad", format!("{other:?} is not known"))),
        };
        Ok(Self { x, samples, channels, length, weights, groups, stride, dilation, kernel, padding })
    }

    /// Elements that one window spans.
    fn span(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    fn mismatch(&self, b: &Builder<'_>, cx: &Cx<'_>) -> GraphError {
        cx.bad_shape(format!(
            "{:?} in {} groups does not fit weights of {:?}",
            b.shape(self.x),
            self.groups,
            self.weights.shape
        ))
    }

    /// The bias, one for each of `channels`.
    fn bias(&self, b: &mut Builder<'_>, cx: &Cx<'_>, channels: usize) -> Result<Option<ValueId>, GraphError> {
        let Some(id) = cx.optional(2) else { return Ok(None) };
        let bias = cx.constant(b, 2)?;
        if bias.shape != [channels] {
            return Err(cx.bad_shape(format!("a bias of {:?} for {channels} channels", bias.shape)));
        }
        Ok(Some(id))
    }
}

/// Splits an odd number of zeros.
fn halves(total: usize, upper: bool) -> usize {
    if upper { total / 2 } else { total.div_ceil(2) }
}

fn conv(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let c = Common::read(b, cx)?;
    let (outputs, own) = (c.weights.shape[0], c.weights.shape[1]);
    if c.channels != own * c.groups || outputs % c.groups != 0 {
        return Err(c.mismatch(b, cx));
    }
    let span = c.span();
    let (before, after) = match c.padding {
        Padding::Given { before, after } => (before, after),
        Padding::Same { upper } => {
            let windows = c.length.div_ceil(c.stride);
            let total = ((windows - 1) * c.stride + span).saturating_sub(c.length);
            let before = halves(total, upper);
            (before, total - before)
        }
    };
    let Some(room) = (c.length + before + after).checked_sub(span) else {
        return Err(cx.bad_shape(format!("{} taps do not fit a length of {}", c.kernel, c.length)));
    };
    let along = Stride { kernel: c.kernel, stride: c.stride, dilation: c.dilation, before };
    // [channels out, channels of a group, taps] to [group, channel and tap, channel out].
    let (rows, each) = (own * c.kernel, outputs / c.groups);
    let from = |g: usize, r: usize, m: usize| (g * each + m) * rows + r;
    let w = rearranged(b, cx, &c, [c.groups, rows, each], from)?;
    let bias = c.bias(b, cx, outputs)?;
    product(
        b,
        cx,
        &c,
        Window { along, groups: c.groups, channels: own, length: c.length, out: room / c.stride + 1 },
        w,
        bias,
    )
}

fn transposed(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let c = Common::read(b, cx)?;
    let (inputs, each) = (c.weights.shape[0], c.weights.shape[1]);
    if c.channels != inputs || inputs % c.groups != 0 {
        return Err(c.mismatch(b, cx));
    }
    let extra = match cx.ints("output_padding").as_deref() {
        None => 0,
        Some(&[n]) if (0..c.stride.max(c.dilation) as i64).contains(&n) => n as usize,
        Some(other) => {
            let why =
                format!("{other:?} is not below the stride {} or the dilation {}", c.stride, c.dilation);
            return Err(cx.bad_attribute("output_padding", why));
        }
    };
    let asked = match cx.ints("output_shape").as_deref() {
        None => None,
        Some(&[n]) if n > 0 && n <= b.limits.dimension as i64 => Some(n as usize),
        Some(other) => return Err(cx.bad_attribute("output_shape", format!("{other:?} for one dimension"))),
    };
    let full = (c.length - 1) * c.stride + c.span() + extra;
    let (before, out) = match (&c.padding, asked) {
        (Padding::Given { before, after }, None) => {
            let out = full.checked_sub(before + after).filter(|&n| n > 0);
            let why = || cx.bad_attribute("pads", format!("[{before}, {after}] leave nothing of {full}"));
            (*before, out.ok_or_else(why)?)
        }
        // What is too much is cut off, as if it had been padded.
        (padding, asked) => {
            let out = asked.unwrap_or(full.min(c.length * c.stride));
            let upper = matches!(padding, Padding::Same { upper: true });
            (halves(full.saturating_sub(out), upper), out)
        }
    };
    // One product for each element: [channels, channels out, taps] to [group, channel, channel out and tap].
    let (rows, columns) = (inputs / c.groups, each * c.kernel);
    let w = rearranged(b, cx, &c, [c.groups, rows, columns], |g, r, m| (g * rows + r) * columns + m)?;
    let one = Stride { kernel: 1, stride: 1, dilation: 1, before: 0 };
    let window = Window { along: one, groups: c.groups, channels: rows, length: c.length, out: c.length };
    let products = product(b, cx, &c, window, w, None)?;
    let outputs = each * c.groups;
    let bias = c.bias(b, cx, outputs)?;
    let along = Stride { kernel: c.kernel, stride: c.stride, dilation: c.dilation, before };
    let inputs: Vec<_> = std::iter::once(products).chain(bias).collect();
    b.emit(&cx.name, Op::Overlap(along), &inputs, DType::F32, vec![c.samples, outputs, out])
}

/// The weights in the order of the product; `from` says which element comes where.
fn rearranged(
    b: &mut Builder<'_>,
    cx: &Cx<'_>,
    c: &Common,
    shape: [usize; 3],
    from: impl Fn(usize, usize, usize) -> usize,
) -> Result<ValueId, GraphError> {
    b.spend(&cx.name, c.weights.data.len())?;
    let [groups, rows, each] = shape;
    let mut data = Vec::with_capacity(c.weights.data.len());
    for g in 0..groups {
        for r in 0..rows {
            data.extend((0..each).map(|m| c.weights.data[from(g, r, m)]));
        }
    }
    Ok(b.constant(&cx.name, Tensor { dtype: DType::F32, shape: shape.to_vec(), data }))
}

/// Windows, then their product with the weights.
fn product(
    b: &mut Builder<'_>,
    cx: &Cx<'_>,
    c: &Common,
    window: Window,
    w: ValueId,
    bias: Option<ValueId>,
) -> Result<ValueId, GraphError> {
    let Window { groups, channels, out, along, .. } = window;
    // Rank 3, so that a long one is refused by its elements and not by a dimension.
    let shape = vec![c.samples * groups, channels * along.kernel, out];
    let windows = b.emit(&cx.name, Op::Unfold(window), &[c.x], DType::F32, shape)?;
    let outputs = groups * b.shape(w)[2];
    let inputs: Vec<_> = [windows, w].into_iter().chain(bias).collect();
    let op = Op::Conv { groups, act: None };
    b.emit(&cx.name, op, &inputs, DType::F32, vec![c.samples, outputs, out])
}
