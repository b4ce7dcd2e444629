//! Operators on single elements.

use super::{Cx, Outputs};
use crate::graph::{Builder, GraphError, ValueId};
use crate::op::{Binary, Op, Unary};
use crate::tensor::{DType, Tensor};

/// Lowers the node if it is of this class.
pub(super) fn lower(b: &mut Builder<'_>, cx: &Cx<'_>) -> Option<Outputs> {
    let result = match cx.op() {
        "Clip" => clip(b, cx),
        "Where" => select(b, cx),
        "Pow" => pow(b, cx),
        "Cast" | "CastLike" => cast(b, cx),
        "Min" => variadic(b, cx, Binary::Min),
        "Max" => variadic(b, cx, Binary::Max),
        _ => match unary(cx) {
            Err(e) => Err(e),
            Ok(Some(f)) => cx.input(0).and_then(|x| b.unary(&cx.name, f, x)),
            Ok(None) => match binary(b, cx) {
                Err(e) => Err(e),
                Ok(Some(f)) => cx.input(0).and_then(|x| b.binary(&cx.name, f, x, cx.input(1)?)),
                Ok(None) => return None,
            },
        },
    };
    Some(result.map(|id| vec![id]))
}

fn unary(cx: &Cx<'_>) -> Result<Option<Unary>, GraphError> {
    Ok(Some(match cx.op() {
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Sqrt" => Unary::Sqrt,
        "Reciprocal" => Unary::Reciprocal,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Round" => Unary::Round,
        "Sign" => Unary::Sign,
        "Erf" => Unary::Erf,
        "Not" => Unary::Not,
        "IsNaN" => Unary::IsNan,
        "Relu" => Unary::Relu,
        "LeakyRelu" => Unary::LeakyRelu(cx.float("alpha", 0.01)?),
        "Elu" => Unary::Elu(cx.float("alpha", 1.0)?),
        "Celu" => Unary::Celu(cx.float("alpha", 1.0)?),
        "Selu" => Unary::Selu(cx.float("alpha", 1.673_263_2)?, cx.float("gamma", 1.050_701)?),
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        "HardSigmoid" => Unary::HardSigmoid(cx.float("alpha", 0.2)?, cx.float("beta", 0.5)?),
        "HardSwish" => Unary::HardSwish,
        "Softplus" => Unary::Softplus,
        "Softsign" => Unary::Softsign,
        "Gelu" => match cx.string("approximate").as_deref() {
            None | Some("none") => Unary::Gelu,
            Some("tanh") => Unary::GeluTanh,
            Some(other) => {
                return Err(cx.bad_attribute("approximate", format!("{other:?} is neither none nor tanh")));
            }
        },
        "Mish" => Unary::Mish,
        "Swish" => Unary::Swish(cx.float("alpha", 1.0)?),
        _ => return Ok(None),
    }))
}

fn binary(b: &Builder<'_>, cx: &Cx<'_>) -> Result<Option<Binary>, GraphError> {
    Ok(Some(match cx.op() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Greater" => Binary::Greater,
        "Less" => Binary::Less,
        "GreaterOrEqual" => Binary::GreaterOrEqual,
        "LessOrEqual" => Binary::LessOrEqual,
        "Equal" => Binary::Equal,
        "And" => Binary::And,
        "Or" => Binary::Or,
        "PRelu" => Binary::PRelu,
        "Mod" => match (cx.int("fmod", 0), b.dtype(cx.input(0)?)) {
            (1, _) => Binary::Fmod,
            (0, DType::Int) => Binary::Modulo,
            (fmod, _) => return Err(cx.bad_attribute("fmod", format!("{fmod} for floats"))),
        },
        _ => return Ok(None),
    }))
}

/// Min and Max of any number of tensors.
fn variadic(b: &mut Builder<'_>, cx: &Cx<'_>, f: Binary) -> Result<ValueId, GraphError> {
    (1..cx.inputs.len()).try_fold(cx.input(0)?, |acc, i| b.binary(&cx.name, f, acc, cx.input(i)?))
}

fn clip(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let mut x = cx.input(0)?;
    if b.dtype(x) == DType::Int {
        // Shape arithmetic, where 32-bit floats would round.
        for (index, f) in [(1, Binary::Max), (2, Binary::Min)] {
            if let Some(bound) = cx.optional(index) {
                x = b.binary(&cx.name, f, x, bound)?;
            }
        }
        return Ok(x);
    }
    let bound = |index: usize, none: f32| -> Result<f32, GraphError> {
        match cx.optional(index) {
            None => Ok(none),
            Some(_) => {
                let t = cx.constant(b, index)?;
                let single = t.data.first().filter(|_| t.data.len() == 1);
                single.map(|&x| x as f32).ok_or_else(|| cx.bad_input(index, "must be one number"))
            }
        }
    };
    let (lo, hi) = (bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?);
    b.unary(&cx.name, Unary::Clip(lo, hi), x)
}

fn select(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let ids = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let shape = b.broadcast(&cx.name, &ids)?;
    b.emit(&cx.name, Op::Where, &ids, b.dtype(ids[1]), shape)
}

/// Powers that have a cheaper and more exact form than the general one.
fn pow(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let (x, y) = (cx.input(0)?, cx.input(1)?);
    let exponent = b
        .as_constant(y)
        .filter(|t| t.data.len() == 1 && t.shape.len() <= b.shape(x).len() && b.dtype(x) == DType::F32);
    let f = match exponent.map(|t| t.data[0]) {
        Some(2.0) => Unary::Square,
        Some(3.0) => Unary::Cube,
        Some(0.5) => Unary::Sqrt,
        Some(-0.5) => Unary::ReciprocalSqrt,
        Some(-1.0) => Unary::Reciprocal,
        _ => return b.binary(&cx.name, Binary::Pow, x, y),
    };
    b.unary(&cx.name, f, x)
}

fn cast(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    // Saturation concerns 8-bit floats only, which are not read.
    cx.int("saturate", 1);
    let to = if cx.op() == "CastLike" {
        b.dtype(cx.input(1)?)
    } else {
        let code = i32::try_from(cx.int("to", 0)).unwrap_or(-1);
        crate::tensor::dtype(code, &cx.name)?
    };
    let shape = b.shape(x).to_vec();
    let half_or_double = cx.op() == "Cast" && matches!(cx.int("to", 0), 10 | 11 | 16);
    if half_or_double && b.as_constant(x).is_none() {
        let why = "half and double precision exist only in constants; export in float";
        return Err(cx.bad_attribute("to", why));
    }
    match (b.dtype(x), to) {
        (DType::F32 | DType::Int, DType::Bool) => b.unary(&cx.name, Unary::Truth, x),
        (DType::F32, DType::Int) => {
            let t = cx.constant(b, 0)?;
            let data = t.data.iter().map(|x| x.trunc()).collect();
            Ok(b.constant(&cx.name, Tensor { dtype: DType::Int, shape, data }))
        }
        _ => b.emit(&cx.name, Op::View, &[x], to, shape),
    }
}
