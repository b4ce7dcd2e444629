//! Normalisation by channel: groups of channels, single channels, stored statistics.

use super::{Cx, Outputs};
use crate::graph::{Builder, GraphError, ValueId};
use crate::op::{Binary, Op};
use crate::tensor::{DType, Tensor};

/// Lowers the node if it is of this class.
pub(super) fn lower(b: &mut Builder<'_>, cx: &Cx<'_>) -> Option<Outputs> {
    let result = match cx.op() {
        "GroupNormalization" => group(b, cx),
        "InstanceNormalization" => instance(b, cx),
        "BatchNormalization" => batch(b, cx),
        _ => return None,
    };
    Some(result.map(|id| vec![id]))
}

fn epsilon(cx: &Cx<'_>) -> Result<f32, GraphError> {
    let eps = cx.float("epsilon", 1e-5)?;
    if eps < 0.0 { Err(cx.bad_attribute("epsilon", format!("{eps} is negative"))) } else { Ok(eps) }
}

/// Channels of input 0, `[n, c, …]`.
fn channels(b: &Builder<'_>, cx: &Cx<'_>, rank: usize) -> Result<usize, GraphError> {
    let shape = b.shape(cx.input(0)?);
    let fits = shape.len() >= rank;
    if fits { Ok(shape[1]) } else { Err(cx.bad_shape(format!("{shape:?} has fewer than {rank} dimensions"))) }
}

/// Constant input `index`, with `count` elements in one dimension.
fn vector(b: &Builder<'_>, cx: &Cx<'_>, index: usize, count: usize) -> Result<Vec<f64>, GraphError> {
    let t = cx.constant(b, index)?;
    if t.shape == [count] {
        return Ok(t.data.clone());
    }
    Err(cx.bad_shape(format!("input {index} has the shape {:?} for {count} channels or groups", t.shape)))
}

fn group(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let (c, eps) = (channels(b, cx, 2)?, epsilon(cx)?);
    let asked = cx.int("num_groups", 0);
    let groups = usize::try_from(asked).ok().filter(|&g| g > 0 && c % g == 0);
    let groups = groups
        .ok_or_else(|| cx.bad_attribute("num_groups", format!("{asked} does not divide {c} channels")))?;
    if cx.opset >= 21 && cx.int("stash_type", 1) != 1 {
        return Err(cx.bad_attribute("stash_type", "only 1 (float) is supported"));
    }
    // Before opset 21: one scale and bias for each group.
    let each = if cx.opset < 21 { c / groups } else { 1 };
    let read = |index: usize| {
        let given = vector(b, cx, index, c / each)?;
        Ok::<Vec<f64>, GraphError>((0..c).map(|i| given[i / each]).collect())
    };
    let (scale, bias) = (read(1)?, read(2)?);
    emit(b, cx, groups, eps, scale, bias)
}

fn instance(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let (c, eps) = (channels(b, cx, 3)?, epsilon(cx)?);
    let (scale, bias) = (vector(b, cx, 1, c)?, vector(b, cx, 2, c)?);
    emit(b, cx, c, eps, scale, bias)
}

fn emit(
    b: &mut Builder<'_>,
    cx: &Cx<'_>,
    groups: usize,
    eps: f32,
    scale: Vec<f64>,
    bias: Vec<f64>,
) -> Result<ValueId, GraphError> {
    let mut constant =
        |data: Vec<f64>| b.constant(&cx.name, Tensor { dtype: DType::F32, shape: vec![data.len()], data });
    let inputs = [cx.input(0)?, constant(scale), constant(bias)];
    let shape = b.shape(inputs[0]).to_vec();
    b.emit(&cx.name, Op::GroupNorm { groups, eps }, &inputs, DType::F32, shape)
}

/// `(x − mean)·(scale/√(var + eps)) + bias` as three operations: fusion takes them into the layer before, if there is one.
/// They are never taken into the layer behind, where a large mean would cancel.
fn batch(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let (c, eps) = (channels(b, cx, 2)?, epsilon(cx)?);
    cx.float("momentum", 0.9)?;
    if cx.int("training_mode", 0) != 0 {
        return Err(cx.bad_attribute("training_mode", "only 0 (inference) is supported"));
    }
    let [scale, bias, mean, var] = [1, 2, 3, 4].map(|i| vector(b, cx, i, c));
    let root = var?.into_iter().map(|v| (v + f64::from(eps)).sqrt());
    let factor: Vec<f64> = scale?.into_iter().zip(root).map(|(s, r)| s / r).collect();
    if let Some(i) = factor.iter().position(|f| !f.is_finite()) {
        return Err(cx.bad_shape(format!("channel {i} has no positive variance")));
    }
    let mut y = cx.input(0)?;
    let mut shape = vec![1; b.shape(y).len() - 1];
    shape[0] = c;
    for (f, data) in [(Binary::Sub, mean?), (Binary::Mul, factor), (Binary::Add, bias?)] {
        let t = Tensor { dtype: DType::F32, shape: shape.clone(), data }.rounded();
        let t = b.constant(&cx.name, t);
        y = b.binary(&cx.name, f, y, t)?;
    }
    Ok(y)
}
