//! Operators on rows: normalisation, softmax, reductions. Axes that are not trailing are moved to the end first.

use super::{Cx, Outputs, shape};
use crate::graph::{Builder, GraphError, ValueId};
use crate::op::{Binary, Op, Reduction};
use crate::tensor::{DType, Tensor};

/// Lowers the node if it is of this class.
pub(super) fn lower(b: &mut Builder<'_>, cx: &Cx<'_>) -> Option<Outputs> {
    let result = match cx.op() {
        "LayerNormalization" | "RMSNormalization" => normalization(b, cx),
        "Softmax" => softmax(b, cx, false),
        "LogSoftmax" => softmax(b, cx, true),
        "ReduceSum" => reduce(b, cx, Reduction::Sum, 13),
        "ReduceMean" => reduce(b, cx, Reduction::Mean, 18),
        "ReduceMax" => reduce(b, cx, Reduction::Max, 18),
        "ReduceMin" => reduce(b, cx, Reduction::Min, 18),
        "ReduceProd" => reduce(b, cx, Reduction::Prod, 18),
        "ReduceL2" => reduce(b, cx, Reduction::L2, 18),
        "ReduceSumSquare" => reduce(b, cx, Reduction::SumSquare, 18),
        _ => return None,
    };
    Some(result.map(|id| vec![id]))
}

fn normalization(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let layer = cx.op() == "LayerNormalization";
    let x = cx.input(0)?;
    let shape = b.shape(x).to_vec();
    let axis = cx.axis(cx.int("axis", -1), shape.len())?;
    let eps = cx.float("epsilon", 1e-5)?;
    if eps < 0.0 {
        return Err(cx.bad_attribute("epsilon", format!("{eps} is negative")));
    }
    if cx.int("stash_type", 1) != 1 {
        return Err(cx.bad_attribute("stash_type", "only 1 (float) is supported"));
    }
    let width: usize = shape[axis..].iter().product();
    let mut filled = |value: f64| {
        b.constant(&cx.name, Tensor { dtype: DType::F32, shape: vec![width], data: vec![value; width] })
    };
    let (ones, zeros) = (filled(1.0), filled(0.0));
    // Scale and bias that are computed are operations of their own.
    let [scale, bias] = [1, 2].map(|i| cx.optional(i).filter(|_| layer || i == 1));
    let fixed = [scale, bias].into_iter().flatten().all(|id| b.as_constant(id).is_some());
    let own = |b: &mut Builder<'_>, index: usize, id: Option<ValueId>, none: ValueId| match id {
        Some(_) if fixed => row(b, cx, index, &shape[axis..]),
        _ => Ok(none),
    };
    cx.input(1)?;
    let mut inputs = vec![x, own(b, 1, scale, ones)?];
    if layer {
        inputs.push(own(b, 2, bias, zeros)?);
    }
    let op = if layer { Op::LayerNorm { width, eps } } else { Op::RmsNorm { width, eps } };
    let mut y = b.emit(&cx.name, op, &inputs, DType::F32, shape.clone())?;
    for (f, id) in [(Binary::Mul, scale), (Binary::Add, bias)] {
        if let Some(id) = id.filter(|_| !fixed) {
            y = b.binary(&cx.name, f, y, id)?;
        }
    }
    if b.shape(y) != shape {
        return Err(cx.bad_shape(format!("the scale or bias does not broadcast to {:?}", &shape[axis..])));
    }
    Ok(y)
}

/// Constant input `index`, broadcast to `shape` and flattened.
fn row(b: &mut Builder<'_>, cx: &Cx<'_>, index: usize, shape: &[usize]) -> Result<ValueId, GraphError> {
    let t = cx.constant(b, index)?;
    let fits = t.shape.len() <= shape.len()
        && t.shape.iter().rev().zip(shape.iter().rev()).all(|(&own, &d)| own == d || own == 1);
    if !fits {
        return Err(cx.bad_shape(format!("{:?} does not broadcast to {shape:?}", t.shape)));
    }
    b.spend(&cx.name, shape.iter().product())?;
    let data: Vec<f64> = crate::eval::sources(&t.shape, shape).into_iter().map(|i| t.data[i]).collect();
    Ok(b.constant(&cx.name, Tensor { dtype: DType::F32, shape: vec![data.len()], data }))
}

fn softmax(b: &mut Builder<'_>, cx: &Cx<'_>, log: bool) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let shape = b.shape(x).to_vec();
    // Before opset 13: axis 1 by default, and everything from it on is one row.
    let flat = cx.opset < 13;
    let axis = cx.axis(cx.int("axis", if flat { 1 } else { -1 }), shape.len())?;
    if flat {
        let op = Op::Softmax { width: shape[axis..].iter().product(), log };
        return b.emit(&cx.name, op, &[x], DType::F32, shape);
    }
    let op = Op::Softmax { width: shape[axis], log };
    let mut order: Vec<usize> = (0..shape.len()).collect();
    let last = order.len() - 1;
    order.swap(axis, last);
    let moved = shape::transpose(b, &cx.name, x, &order)?;
    let moved_shape = b.shape(moved).to_vec();
    let y = b.emit(&cx.name, op, &[moved], DType::F32, moved_shape)?;
    shape::transpose(b, &cx.name, y, &order)
}

fn reduce(b: &mut Builder<'_>, cx: &Cx<'_>, kind: Reduction, since: i64) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let shape = b.shape(x).to_vec();
    let keep = cx.int("keepdims", 1) != 0;
    let noop = cx.int("noop_with_empty_axes", 0) != 0;
    let axes = match cx.axes(b, 1, since)? {
        Some(axes) if !axes.is_empty() => {
            axes.into_iter().map(|a| cx.axis(a, shape.len())).collect::<Result<Vec<_>, _>>()?
        }
        _ if noop => return Ok(x),
        _ => (0..shape.len()).collect(),
    };
    let (gone, kept): (Vec<usize>, Vec<usize>) = (0..shape.len()).partition(|a| axes.contains(a));
    let width = gone.iter().map(|&a| shape[a]).product();
    let order: Vec<usize> = kept.iter().chain(&gone).copied().collect();
    let rows = shape::transpose(b, &cx.name, x, &order)?;
    let out: Vec<usize> = if keep {
        (0..shape.len()).map(|a| if axes.contains(&a) { 1 } else { shape[a] }).collect()
    } else {
        kept.iter().map(|&a| shape[a]).collect()
    };
    if width == 0 {
        // Shape arithmetic only: tensors that are computed have no empty axis.
        let value = match kind {
            Reduction::Prod => 1.0,
            Reduction::Sum | Reduction::L2 | Reduction::SumSquare => 0.0,
            _ => return Err(cx.bad_shape("an empty row has no such reduction")),
        };
        let count = crate::tensor::elements(&out, &cx.name, b.limits)?;
        b.spend(&cx.name, count)?;
        let t = Tensor { dtype: b.dtype(x), shape: out, data: vec![value; count] };
        return Ok(b.constant(&cx.name, t));
    }
    b.emit(&cx.name, Op::Reduce { kind, width }, &[rows], b.dtype(x), out)
}
