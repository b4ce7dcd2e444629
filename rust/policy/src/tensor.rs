//! Constants of a graph. They are few kinds at run time (32-bit floats), but folding sees integers and truth values
//! too; all are carried as `f64`, which holds each of them exactly (integers up to 2⁵³).

use crate::graph::GraphError;
use crate::limits::Limits;
use crate::onnx::TensorProto;

/// Kind of a tensor's elements after loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DType {
    /// Any float.
    F32,
    /// Any integer.
    Int,
    /// Truth value, 0 or 1.
    Bool,
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f64>,
}

impl Tensor {
    /// A float scalar.
    pub(crate) fn scalar(x: f64) -> Self {
        Self { dtype: DType::F32, shape: vec![], data: vec![x] }
    }

    /// A vector of integers.
    pub(crate) fn ints(v: impl IntoIterator<Item = i64>) -> Self {
        let data: Vec<f64> = v.into_iter().map(|i| i as f64).collect();
        Self { dtype: DType::Int, shape: vec![data.len()], data }
    }

    /// Rounds floats to what 32 bits hold.
    pub(crate) fn rounded(mut self) -> Self {
        if self.dtype == DType::F32 {
            self.data.iter_mut().for_each(|x| *x = f64::from(*x as f32));
        }
        self
    }

    /// The elements as 32-bit floats.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        self.data.iter().map(|&x| x as f32).collect()
    }
}

/// What the code of an ONNX element type means to us.
pub(crate) fn dtype(code: i32, tensor: &str) -> Result<DType, GraphError> {
    match code {
        1 | 10 | 11 | 16 => Ok(DType::F32),
        2..=7 | 12 | 13 => Ok(DType::Int),
        9 => Ok(DType::Bool),
        _ => Err(GraphError::ElementType { tensor: tensor.into(), code }),
    }
}

/// Number of elements of `shape`, within the limits.
pub(crate) fn elements(shape: &[usize], tensor: &str, limits: &Limits) -> Result<usize, GraphError> {
    let too_big =
        |what: String| GraphError::Shape { tensor: tensor.into(), why: what + " is beyond the limits" };
    if shape.len() > limits.rank {
        return Err(too_big(format!("a rank of {}", shape.len())));
    }
    // A dimension of 0 must not hide the others: whoever walks the axes in turn meets them first.
    let room = |n: usize, &d: &usize| n.checked_mul(d.max(1)).filter(|&n| n <= limits.elements);
    if shape.iter().any(|&d| d > limits.dimension) || shape.iter().try_fold(1, room).is_none() {
        return Err(too_big(format!("{shape:?}")));
    }
    Ok(shape.iter().product())
}

/// Reads a tensor; `name` stands in errors.
pub(crate) fn read(t: &TensorProto, name: &str, limits: &Limits) -> Result<Tensor, GraphError> {
    let bad = |why: String| GraphError::Shape { tensor: name.into(), why };
    let shape: Vec<usize> = t
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| bad(format!("dimension {d}"))))
        .collect::<Result<_, _>>()?;
    let count = elements(&shape, name, limits)?;
    let kind = dtype(t.data_type, name)?;
    let data = match &t.raw_data {
        Some(raw) => from_raw(t.data_type, raw, count).ok_or_else(|| {
            bad(format!("{} raw bytes for {count} elements of type {}", raw.len(), t.data_type))
        })?,
        None => from_fields(t),
    };
    if data.len() != count {
        return Err(bad(format!("{} elements for the shape {shape:?}", data.len())));
    }
    let tensor = Tensor { dtype: kind, shape, data }.rounded();
    let data = &tensor.data;
    // Where infinities may be used is checked once the graph is known; a single one may be the bound of a range.
    if let Some(index) = data.iter().position(|&x| x.is_nan() || (x == f64::INFINITY && count > 1)) {
        return Err(GraphError::NonFinite { tensor: name.into(), index, value: data[index] });
    }
    Ok(tensor)
}

fn from_raw(code: i32, raw: &[u8], count: usize) -> Option<Vec<f64>> {
    fn each<const N: usize>(raw: &[u8], count: usize, f: impl Fn([u8; N]) -> f64) -> Option<Vec<f64>> {
        let (chunks, rest) = raw.as_chunks::<N>();
        (chunks.len() == count && rest.is_empty()).then(|| chunks.iter().map(|c| f(*c)).collect())
    }
    match code {
        1 => each(raw, count, |b| f32::from_le_bytes(b).into()),
        2 => each(raw, count, |b: [u8; 1]| b[0].into()),
        3 => each(raw, count, |b| i8::from_le_bytes(b).into()),
        4 => each(raw, count, |b| u16::from_le_bytes(b).into()),
        5 => each(raw, count, |b| i16::from_le_bytes(b).into()),
        6 => each(raw, count, |b| i32::from_le_bytes(b).into()),
        7 => each(raw, count, |b| i64::from_le_bytes(b) as f64),
        9 => each(raw, count, |b: [u8; 1]| f64::from(u8::from(b[0] != 0))),
        10 => each(raw, count, |b| half(u16::from_le_bytes(b))),
        11 => each(raw, count, f64::from_le_bytes),
        12 => each(raw, count, |b| u32::from_le_bytes(b).into()),
        13 => each(raw, count, |b| u64::from_le_bytes(b) as f64),
        16 => each(raw, count, |b| bfloat(u16::from_le_bytes(b))),
        _ => None,
    }
}

fn from_fields(t: &TensorProto) -> Vec<f64> {
    match t.data_type {
        1 => t.float_data.iter().map(|&x| x.into()).collect(),
        7 => t.int64_data.iter().map(|&x| x as f64).collect(),
        9 => t.int32_data.iter().map(|&x| f64::from(u8::from(x != 0))).collect(),
        10 => t.int32_data.iter().map(|&x| half(x as u16)).collect(),
        11 => t.double_data.clone(),
        16 => t.int32_data.iter().map(|&x| bfloat(x as u16)).collect(),
        2..=6 => t.int32_data.iter().map(|&x| x.into()).collect(),
        _ => Vec::new(),
    }
}

/// IEEE half precision.
fn half(bits: u16) -> f64 {
    let (sign, exponent, fraction) = (bits >> 15, u64::from(bits >> 10 & 31), f64::from(bits & 1023));
    // 2^(n − 1023) by its bits: the precision of `powi` is not specified.
    let power = |n: u64| f64::from_bits(n << 52);
    let magnitude = match exponent {
        0 => fraction * power(1023 - 24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1024.0 + fraction) * power(1023 - 25 + e),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

fn bfloat(bits: u16) -> f64 {
    f32::from_bits(u32::from(bits) << 16).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision() {
        assert_eq!(
            [0x3c00, 0xc000, 0x0001, 0x7bff, 0x3555].map(half),
            [1.0, -2.0, 5.960464477539063e-8, 65504.0, 0.333251953125]
        );
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f64::NEG_INFINITY);
        assert_eq!(bfloat(0x3fc0), 1.5);
    }
}
