//! Operators that exist only while folding: they make constants.

use super::{Cx, Outputs};
use crate::graph::{Builder, GraphError};
use crate::tensor::{self, DType, Tensor};

/// Lowers the node if it is of this class.
pub(super) fn lower(b: &mut Builder<'_>, cx: &Cx<'_>) -> Option<Outputs> {
    let result = match cx.op() {
        "Constant" => constant(b, cx),
        "ConstantOfShape" => constant_of_shape(b, cx),
        "Shape" => shape(b, cx),
        "Size" => cx.input(0).map(|x| {
            let count: usize = b.shape(x).iter().product();
            Tensor { dtype: DType::Int, shape: vec![], data: vec![count as f64] }
        }),
        "Range" => range(b, cx),
        _ => return None,
    };
    Some(result.map(|t| vec![b.constant(&cx.name, t)]))
}

fn constant(b: &Builder<'_>, cx: &Cx<'_>) -> Result<Tensor, GraphError> {
    if let Some(a) = cx.attribute("value") {
        let t = a.t.as_ref().ok_or_else(|| cx.bad_attribute("value", "holds no tensor"))?;
        return tensor::read(t, &cx.name, b.limits);
    }
    let finite = |x: f32| {
        if x.is_finite() { Ok(f64::from(x)) } else { Err(cx.bad_attribute("value", format!("{x}"))) }
    };
    if let Some(a) = cx.attribute("value_float") {
        return Ok(Tensor::scalar(finite(a.f)?));
    }
    if let Some(a) = cx.attribute("value_floats") {
        let data = a.floats.iter().map(|&x| finite(x)).collect::<Result<Vec<_>, _>>()?;
        return Ok(Tensor { dtype: DType::F32, shape: vec![data.len()], data });
    }
    if let Some(a) = cx.attribute("value_int") {
        return Ok(Tensor { dtype: DType::Int, shape: vec![], data: vec![a.i as f64] });
    }
    if let Some(v) = cx.ints("value_ints") {
        return Ok(Tensor::ints(v));
    }
    for name in ["value_string", "value_strings", "sparse_value"] {
        if cx.attribute(name).is_some() {
            return Err(cx.bad_attribute(name, "is not read; a constant holds numbers, all of them"));
        }
    }
    Err(cx.bad_attribute("value", "is missing"))
}

fn constant_of_shape(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<Tensor, GraphError> {
    let asked = cx.ints_at(b, 0)?.ok_or_else(|| cx.bad_input(0, "is missing"))?;
    let shape = asked
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| cx.bad_shape(format!("dimension {d}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let count = tensor::elements(&shape, &cx.name, b.limits)?;
    b.spend(&cx.name, count)?;
    let fill = match cx.attribute("value").and_then(|a| a.t.as_ref()) {
        Some(t) => tensor::read(t, &cx.name, b.limits)?,
        None => Tensor::scalar(0.0),
    };
    let [value] = fill.data[..] else { return Err(cx.bad_attribute("value", "is not one number")) };
    Ok(Tensor { dtype: fill.dtype, shape, data: vec![value; count] })
}

fn shape(b: &Builder<'_>, cx: &Cx<'_>) -> Result<Tensor, GraphError> {
    let shape = b.shape(cx.input(0)?);
    let rank = shape.len() as i64;
    let wrap = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
    let (start, end) = (wrap(cx.int("start", 0)), wrap(cx.int("end", rank)));
    Ok(Tensor::ints(shape[start.min(end)..end].iter().map(|&d| d as i64)))
}

fn range(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<Tensor, GraphError> {
    let mut v = [0.0; 3];
    for (i, x) in v.iter_mut().enumerate() {
        *x = cx.constant(b, i)?.data.first().copied().ok_or_else(|| cx.bad_input(i, "is empty"))?;
    }
    let [start, limit, delta] = v;
    let count = ((limit - start) / delta).ceil();
    // A step of 0 gives NaN.
    if count.is_nan() || count > b.limits.dimension as f64 {
        return Err(cx.bad_shape(format!("a range from {start} to {limit} by {delta}")));
    }
    // A negative count is an empty range.
    let count = count as usize;
    b.spend(&cx.name, count)?;
    let data: Vec<f64> = (0..count).map(|i| start + i as f64 * delta).collect();
    let dtype = b.dtype(cx.input(0)?);
    Ok(Tensor { dtype, shape: vec![data.len()], data }.rounded())
}
