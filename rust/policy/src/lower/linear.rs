//! Gemm and MatMul with one constant side.

use super::{Cx, Outputs, shape};
use crate::graph::{Builder, GraphError, ValueId};
use crate::op::{Binary, Op};
use crate::tensor::{DType, Tensor};

/// Lowers the node if it is of this class.
pub(super) fn lower(b: &mut Builder<'_>, cx: &Cx<'_>) -> Option<Outputs> {
    let result = match cx.op() {
        "Gemm" => gemm(b, cx),
        "MatMul" => matmul(b, cx),
        _ => return None,
    };
    Some(result.map(|id| vec![id]))
}

fn gemm(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let (alpha, beta) = (f64::from(cx.float("alpha", 1.0)?), f64::from(cx.float("beta", 1.0)?));
    if cx.int("transA", 0) != 0 {
        return Err(cx.bad_attribute("transA", "only 0 is supported"));
    }
    let x = cx.input(0)?;
    if b.as_constant(cx.input(1)?).is_none() {
        return Err(cx.unsupported("Gemm of two computed tensors", ""));
    }
    let given = cx.constant(b, 1)?;
    let [rows, columns] = given.shape[..] else {
        return Err(cx.bad_shape(format!("the matrix has the shape {:?}", given.shape)));
    };
    let mut w = if cx.int("transB", 0) != 0 {
        let data = (0..rows * columns).map(|i| given.data[i % rows * columns + i / rows]).collect();
        Tensor { dtype: DType::F32, shape: vec![columns, rows], data }
    } else {
        (*given).clone()
    };
    w.data.iter_mut().for_each(|v| *v *= alpha);
    b.spend(&cx.name, w.data.len())?;
    let n = w.shape[1];
    let w = b.constant(&cx.name, w.rounded());
    let bias = cx
        .optional(2)
        .and_then(|c| b.as_constant(c))
        .filter(|c| c.data.len() == 1 || c.shape.last() == Some(&n));
    let bias = bias.filter(|c| c.data.len() == 1 || c.data.len() == n).map(|c| {
        let data = (0..n).map(|i| c.data[i % c.data.len()] * beta).collect();
        Tensor { dtype: DType::F32, shape: vec![n], data }.rounded()
    });
    if let Some(bias) = bias {
        let bias = b.constant(&cx.name, bias);
        return linear(b, cx, x, w, Some(bias));
    }
    let y = linear(b, cx, x, w, None)?;
    let Some(c) = cx.optional(2) else { return Ok(y) };
    let factor = b.constant(&cx.name, Tensor::scalar(beta));
    let c = if beta == 1.0 { c } else { b.binary(&cx.name, Binary::Mul, c, factor)? };
    let sum = b.binary(&cx.name, Binary::Add, y, c)?;
    if b.shape(sum) != b.shape(y) {
        return Err(cx.bad_shape(format!("C {:?} does not broadcast to {:?}", b.shape(c), b.shape(y))));
    }
    Ok(sum)
}

fn matmul(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let (x, y) = (cx.input(0)?, cx.input(1)?);
    match (b.as_constant(x), b.as_constant(y)) {
        (_, Some(w)) => match w.shape[..] {
            [_, _] => linear(b, cx, x, y, None),
            [k] => {
                let column = Tensor { shape: vec![k, 1], ..(*w).clone() };
                let column = b.constant(&cx.name, column);
                let out = linear(b, cx, x, column, None)?;
                let shape = b.shape(x)[..b.shape(x).len() - 1].to_vec();
                b.emit(&cx.name, Op::View, &[out], DType::F32, shape)
            }
            _ => Err(cx.unsupported("MatMul with a constant of more than two dimensions", "")),
        },
        // A·x = (xᵀ·Aᵀ)ᵀ
        (Some(a), None) if a.shape.len() == 2 => {
            let rank = b.shape(y).len();
            let swap = |rank: usize| {
                let mut axes: Vec<usize> = (0..rank).collect();
                axes.swap(rank - 1, rank - 2);
                axes
            };
            let a = shape::transpose(b, &cx.name, x, &swap(2))?;
            if rank < 2 {
                return linear(b, cx, y, a, None);
            }
            let columns = shape::transpose(b, &cx.name, y, &swap(rank))?;
            let out = linear(b, cx, columns, a, None)?;
            shape::transpose(b, &cx.name, out, &swap(rank))
        }
        _ => Err(cx.unsupported("MatMul of two computed tensors", "; attention is not")),
    }
}

/// `x·w + bias` over the last dimension of `x`.
fn linear(
    b: &mut Builder<'_>,
    cx: &Cx<'_>,
    x: ValueId,
    w: ValueId,
    bias: Option<ValueId>,
) -> Result<ValueId, GraphError> {
    let (k, n) = (b.shape(w)[0], b.shape(w)[1]);
    let mut shape = b.shape(x).to_vec();
    match shape.last_mut() {
        Some(last) if *last == k && k > 0 && n > 0 => *last = n,
        _ => return Err(cx.bad_shape(format!("{shape:?} times {:?}", b.shape(w)))),
    }
    let inputs: Vec<_> = [x, w].into_iter().chain(bias).collect();
    b.emit(&cx.name, Op::Linear(None), &inputs, DType::F32, shape)
}
