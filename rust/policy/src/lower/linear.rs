//! Gemm and MatMul: a constant right side is a linear layer, anything else a product of two tensors.

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
    let transposed = (cx.int("transA", 0) != 0, cx.int("transB", 0) != 0);
    let (mut x, w) = (cx.input(0)?, cx.input(1)?);
    if b.shape(x).len() != 2 || b.shape(w).len() != 2 {
        return Err(cx.bad_shape(format!("{:?} times {:?}", b.shape(x), b.shape(w))));
    }
    if transposed.0 {
        x = shape::transpose(b, &cx.name, x, &[1, 0])?;
    }
    if b.as_constant(w).is_none() {
        let w = if transposed.1 { shape::transpose(b, &cx.name, w, &[1, 0])? } else { w };
        let mut y = product(b, cx, x, w)?;
        if alpha != 1.0 {
            let factor = b.constant(&cx.name, Tensor::scalar(alpha));
            y = b.binary(&cx.name, Binary::Mul, y, factor)?;
        }
        return plus(b, cx, y, beta);
    }
    let given = cx.constant(b, 1)?;
    let (rows, columns) = (given.shape[0], given.shape[1]);
    let mut w = if transposed.1 {
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
    plus(b, cx, y, beta)
}

/// `y + beta·C` of a Gemm.
fn plus(b: &mut Builder<'_>, cx: &Cx<'_>, y: ValueId, beta: f64) -> Result<ValueId, GraphError> {
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
    let columns = b.shape(y).last().copied().unwrap_or(0);
    match (b.as_constant(x), b.as_constant(y)) {
        (_, Some(w)) if w.shape.len() == 2 => linear(b, cx, x, y, None),
        (_, Some(w)) if w.shape.len() == 1 => {
            let column = Tensor { shape: vec![w.shape[0], 1], ..(*w).clone() };
            let column = b.constant(&cx.name, column);
            let out = linear(b, cx, x, column, None)?;
            let shape = b.shape(x)[..b.shape(x).len().saturating_sub(1)].to_vec();
            b.emit(&cx.name, Op::View, &[out], DType::F32, shape)
        }
        // A·x = (xᵀ·Aᵀ)ᵀ; transposing a column moves nothing.
        (Some(a), None) if a.shape.len() == 2 && (b.shape(y).len() == 1 || columns == 1) => {
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
        _ => product(b, cx, x, y),
    }
}

/// `x·y` of any two tensors, with numpy's rules: a single dimension is a row on the left and a column on the right.
fn product(b: &mut Builder<'_>, cx: &Cx<'_>, x: ValueId, y: ValueId) -> Result<ValueId, GraphError> {
    let (mut own, mut other) = (b.shape(x).to_vec(), b.shape(y).to_vec());
    if own.is_empty() || other.is_empty() {
        return Err(cx.bad_shape(format!("{own:?} times {other:?}")));
    }
    let (row, column) = (own.len() == 1, other.len() == 1);
    if row {
        own.insert(0, 1);
    }
    if column {
        other.push(1);
    }
    let (m, k, n) = (own[own.len() - 2], own[own.len() - 1], other[other.len() - 1]);
    if other[other.len() - 2] != k || m * k * n == 0 {
        return Err(cx.bad_shape(format!("{:?} times {:?}", b.shape(x), b.shape(y))));
    }
    let left = view(b, cx, x, own.clone())?;
    let right = view(b, cx, y, other.clone())?;
    let mut shape = broadcast(cx, &batch_of(&own), &batch_of(&other))?;
    // Every product has its places listed.
    b.spend(&cx.name, shape.iter().fold(8, |n: usize, &d| n.saturating_mul(d)))?;
    shape.extend([own[own.len() - 2], n]);
    let out = b.emit(&cx.name, Op::MatMul, &[left, right], DType::F32, shape)?;
    let mut shape = broadcast(cx, &batch_of(b.shape(x)), &batch_of(b.shape(y)))?;
    shape.extend((!row).then_some(m));
    shape.extend((!column).then_some(n));
    view(b, cx, out, shape)
}

/// The same elements under another shape, if it is another.
fn view(b: &mut Builder<'_>, cx: &Cx<'_>, x: ValueId, shape: Vec<usize>) -> Result<ValueId, GraphError> {
    if b.shape(x) == shape { Ok(x) } else { b.emit(&cx.name, Op::View, &[x], DType::F32, shape) }
}

/// The dimensions that two lists of batches give together.
fn broadcast(cx: &Cx<'_>, a: &[usize], b: &[usize]) -> Result<Vec<usize>, GraphError> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    let pair = |i| match (at(a, i), at(b, i)) {
        (m, n) if m == n || n == 1 => Ok(m),
        (1, n) => Ok(n),
        _ => Err(cx.bad_shape(format!("the batches {a:?} and {b:?} do not broadcast"))),
    };
    (0..rank).map(pair).collect()
}

/// The dimensions before the matrix.
fn batch_of(shape: &[usize]) -> Vec<usize> {
    shape[..shape.len().saturating_sub(2)].to_vec()
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
