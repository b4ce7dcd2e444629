//! A constant for each channel, times or plus, right after a layer that has weights for each channel: it goes into them.
//! BatchNormalization is three of these. What stands *before* a layer stays where it is, because a large mean would cancel.

use super::{Uses, both, constant, replace};
use crate::graph::{Graph, ValueId};
use crate::op::{Binary, Op};
use crate::tensor::{DType, Tensor};

/// `layer(x) ∘ c` becomes the layer with other weights.
pub(super) fn channels(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    let node = &graph.nodes[index];
    let Op::Binary(f) = node.op else { return false };
    let orders = match f {
        Binary::Add | Binary::Mul => 2,
        Binary::Sub | Binary::Div => 1,
        _ => return false,
    };
    let found = both(node)[..orders].iter().find_map(|&(layer, c)| {
        let (producer, shape) = (uses.only(graph, layer)?, &graph.values[layer].shape);
        let axis = match producer.op {
            Op::Linear(None) | Op::LayerNorm { .. } | Op::RmsNorm { .. } => shape.len() - 1,
            Op::Conv { act: None, .. } | Op::GroupNorm { .. } | Op::Overlap(_) => 1,
            _ => return None,
        };
        let mut inputs = producer.inputs.clone();
        if let Op::Overlap(_) = producer.op {
            let product = uses.only(graph, inputs[0])?;
            let Op::Conv { act: None, .. } = product.op else { return None };
            inputs.insert(1, product.inputs[1]);
        }
        // A norm over more than the last axis has more weights than channels.
        let whole = match producer.op {
            Op::LayerNorm { width, .. } | Op::RmsNorm { width, .. } => width == shape[axis],
            _ => true,
        };
        let same = whole && *shape == graph.values[node.output].shape;
        let c = per_channel(graph, c, shape, axis).filter(|_| same)?;
        Some((producer.op.clone(), inputs, c))
    });
    let Some((op, inputs, c)) = found else { return false };
    let Some(mut inputs) = rewritten(graph, f, &op, inputs, &c) else { return false };
    if let (Op::Overlap(_), Some(product)) = (&op, uses.producer[inputs[0]]) {
        graph.nodes[product].inputs[1] = inputs.remove(1);
    }
    replace(graph, index, op, inputs)
}

/// The constant `value`, one number for each channel of `axis`.
fn per_channel(graph: &Graph, value: ValueId, shape: &[usize], axis: usize) -> Option<Vec<f64>> {
    let t = graph.values[value].constant.as_ref()?;
    let missing = shape.len().checked_sub(t.shape.len())?;
    let single = t.data.len() == 1;
    let fits = t.shape.iter().enumerate().all(|(a, &d)| d == 1 || (a + missing == axis && d == shape[axis]));
    fits.then(|| (0..shape[axis]).map(|c| t.data[if single { 0 } else { c }]).collect())
}

/// Inputs of the layer with `c` in its weights (those of a transposed convolution stand in the product before it, and come
/// as its second input); `None` when a weight would overflow or there is no place for it.
fn rewritten(
    graph: &mut Graph,
    f: Binary,
    op: &Op,
    mut inputs: Vec<ValueId>,
    c: &[f64],
) -> Option<Vec<ValueId>> {
    let scales = matches!(f, Binary::Mul | Binary::Div);
    let apply = |x: f64, c: f64| match f {
        Binary::Mul => x * c,
        Binary::Div => x / c,
        Binary::Sub => x - c,
        _ => x + c,
    };
    if scales {
        let w = graph.values[inputs[1]].constant.clone()?;
        // Elements of one channel lie apart by the last dimension, where a transposed convolution has a column for each
        // tap; a convolution has blocks of them.
        let last = *w.shape.last()?;
        let block = if let [_, rows, each] = w.shape[..] { rows * each } else { w.data.len() };
        let taps = if let Op::Overlap(along) = op { along.kernel } else { 1 };
        let channel = |i: usize| (i / block * last + i % last) / taps;
        let data = w.data.iter().enumerate().map(|(i, &x)| apply(x, c[channel(i)])).collect();
        inputs[1] = stored(graph, Tensor { dtype: DType::F32, shape: w.shape.clone(), data })?;
    }
    match inputs.get(2) {
        Some(&bias) => {
            let bias = graph.values[bias].constant.clone()?;
            let data = bias.data.iter().zip(c).map(|(&x, &c)| apply(x, c)).collect();
            inputs[2] = stored(graph, Tensor { dtype: DType::F32, shape: vec![c.len()], data })?;
        }
        None if scales => {}
        None if matches!(op, Op::RmsNorm { .. }) => return None,
        None => {
            let data = c.iter().map(|&c| apply(0.0, c)).collect();
            inputs.push(stored(graph, Tensor { dtype: DType::F32, shape: vec![c.len()], data })?);
        }
    }
    Some(inputs)
}

/// A new constant, unless a number is beyond what 32 bits hold.
fn stored(graph: &mut Graph, t: Tensor) -> Option<ValueId> {
    let t = t.rounded();
    t.data.iter().all(|x| x.is_finite()).then(|| constant(graph, t))
}

/// A function of one number right after a convolution.
pub(super) fn conv_activation(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    let Op::Unary(f) = graph.nodes[index].op else { return false };
    let Some(conv) = uses.only(graph, graph.nodes[index].inputs[0]) else { return false };
    let Op::Conv { groups, act: None } = conv.op else { return false };
    let inputs = conv.inputs.clone();
    replace(graph, index, Op::Conv { groups, act: Some(f) }, inputs)
}
