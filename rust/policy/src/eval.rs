//! Every operation in plain 64-bit arithmetic: folds constants at load, and is the reference of the kernels' tests.

mod conv;

use crate::kernels::attention::Attention;
use crate::op::{Binary, Op, Reduction, Unary};
use crate::recurrent;
use crate::tensor::{DType, Tensor};

/// Evaluates `op`; the output has `shape` and `dtype`, which the caller inferred.
pub(crate) fn apply(op: &Op, inputs: &[&Tensor], dtype: DType, shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    let x = inputs[0].data.as_slice();
    let data = match op {
        Op::Linear(act) => linear(inputs, *act),
        Op::MatMul => matmul(inputs, shape),
        Op::Attention(a) => attention(a, inputs, count),
        Op::Unary(f) => x.iter().map(|&v| unary(*f, v)).collect(),
        Op::Binary(f) => {
            let (a, b) = (sources(&inputs[0].shape, shape), sources(&inputs[1].shape, shape));
            let y = inputs[1].data.as_slice();
            let integer = dtype == DType::Int;
            a.iter().zip(&b).map(|(&i, &j)| binary(*f, x[i], y[j], integer)).collect()
        }
        Op::Where => {
            let pick: Vec<_> = inputs.iter().map(|t| sources(&t.shape, shape)).collect();
            let at = |k: usize, i: usize| inputs[k].data[pick[k][i]];
            (0..count).map(|i| if at(0, i) != 0.0 { at(1, i) } else { at(2, i) }).collect()
        }
        Op::LayerNorm { width, eps } => {
            let (scale, bias) = (&inputs[1].data, &inputs[2].data);
            rows(x, *width, |row, out| {
                let n = row.len() as f64;
                let mean = row.iter().sum::<f64>() / n;
                let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                let r = 1.0 / (var + f64::from(*eps)).sqrt();
                out.extend(row.iter().zip(scale).zip(bias).map(|((v, s), b)| (v - mean) * r * s + b));
            })
        }
        Op::RmsNorm { width, eps } => rows(x, *width, |row, out| {
            let square = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
            let r = 1.0 / (square + f64::from(*eps)).sqrt();
            out.extend(row.iter().zip(&inputs[1].data).map(|(v, s)| v * r * s));
        }),
        Op::GroupNorm { groups, eps } => {
            let (scale, bias) = (&inputs[1].data, &inputs[2].data);
            let width = shape[2..].iter().product::<usize>();
            let mut channel = (0..count).map(|i| i / width % shape[1]);
            rows(x, shape[1] / groups * width, |row, out| {
                let n = row.len() as f64;
                let mean = row.iter().sum::<f64>() / n;
                let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                let r = 1.0 / (var + f64::from(*eps)).sqrt();
                out.extend(row.iter().zip(&mut channel).map(|(v, c)| (v - mean) * r * scale[c] + bias[c]));
            })
        }
        Op::Unfold(window) => conv::unfold(*window, x),
        Op::Conv { groups, act } => {
            let y = conv::conv(inputs, *groups);
            y.into_iter().map(|v| act.map_or(v, |f| unary(f, v))).collect()
        }
        Op::Overlap(along) => conv::overlap(*along, inputs, shape),
        Op::Reduce { kind, width } => rows(x, *width, |row, out| out.push(reduce(*kind, row))),
        Op::Softmax { width, log } => rows(x, *width, |row, out| {
            if *log {
                let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum = row.iter().map(|v| (v - top).exp()).sum::<f64>();
                out.extend(row.iter().map(|v| v - top - sum.ln()));
            } else {
                out.extend(softmax(row));
            }
        }),
        Op::Recurrent(cell) => recurrent::evaluate(*cell, inputs),
        Op::Rearrange(runs) => {
            let mut out = vec![0.0; count];
            for (t, runs) in inputs.iter().zip(runs) {
                for r in runs {
                    out[r.dst..r.dst + r.len].copy_from_slice(&t.data[r.src..r.src + r.len]);
                }
            }
            out
        }
        Op::View => x.to_vec(),
    };
    Tensor { dtype, shape: shape.to_vec(), data }.rounded()
}

/// For each element of `to`, the element of `from` that broadcasting puts there.
pub(crate) fn sources(from: &[usize], to: &[usize]) -> Vec<usize> {
    let mut index = vec![0];
    for (axis, &d) in to.iter().enumerate() {
        let own = (axis + from.len()).checked_sub(to.len()).map_or(1, |a| from[a]);
        index =
            index.iter().flat_map(|&i| (0..d).map(move |k| i * own + if own == 1 { 0 } else { k })).collect();
    }
    index
}

fn rows(x: &[f64], width: usize, mut f: impl FnMut(&[f64], &mut Vec<f64>)) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    // Rows without elements: so is the result.
    x.chunks_exact(width.max(1)).for_each(|row| f(row, &mut out));
    out
}

fn linear(inputs: &[&Tensor], act: Option<Unary>) -> Vec<f64> {
    let w = inputs[1];
    let n = w.shape[1];
    rows(&inputs[0].data, w.shape[0], |row, out| {
        let bias = inputs.get(2).map_or_else(|| vec![0.0; n], |b| b.data.clone());
        let y = row.iter().zip(w.data.chunks_exact(n)).fold(bias, |mut y, (x, w)| {
            y.iter_mut().zip(w).for_each(|(y, w)| *y += x * w);
            y
        });
        out.extend(y.into_iter().map(|v| act.map_or(v, |f| unary(f, v))));
    })
}

/// A row without any finite score has no shares.
fn softmax(row: &[f64]) -> Vec<f64> {
    if row.iter().all(|&v| v == f64::NEG_INFINITY) {
        return vec![0.0; row.len()];
    }
    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = row.iter().map(|v| (v - top).exp()).sum::<f64>();
    row.iter().map(|v| (v - top).exp() / sum).collect()
}

/// For each matrix of `to`, the start of the one of `from` that broadcasting puts there.
pub(crate) fn starts(from: &[usize], to: &[usize]) -> Vec<usize> {
    let size: usize = from[from.len() - 2..].iter().product();
    let batch = |s: &[usize]| s[..s.len() - 2].to_vec();
    sources(&batch(from), &batch(to)).into_iter().map(|i| i * size).collect()
}

fn matmul(inputs: &[&Tensor], shape: &[usize]) -> Vec<f64> {
    let (a, b) = (inputs[0], inputs[1]);
    let (m, n) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    let k = a.shape[a.shape.len() - 1];
    let mut out = Vec::new();
    for (i, j) in starts(&a.shape, shape).into_iter().zip(starts(&b.shape, shape)) {
        for r in 0..m {
            let row = &a.data[i + r * k..i + (r + 1) * k];
            out.extend(
                (0..n).map(|c| row.iter().enumerate().map(|(p, x)| x * b.data[j + p * n + c]).sum::<f64>()),
            );
        }
    }
    out
}

fn attention(a: &Attention, inputs: &[&Tensor], count: usize) -> Vec<f64> {
    let (q, k, v) = (&inputs[0].data, &inputs[1].data, &inputs[2].data);
    let mut out = vec![0.0; count];
    for head in 0..a.heads() {
        for r in 0..a.queries {
            let score = |c: usize| {
                let (from, to) = (a.q.starts[head] + r * a.q.row, a.k.starts[head] + c * a.k.row);
                let dot: f64 = (0..a.width).map(|i| q[from + i] * k[to + i * a.k.column]).sum();
                let mask = a
                    .mask
                    .as_ref()
                    .map_or(0.0, |m| inputs[3].data[m.starts[head] + r * m.row + c * m.column]);
                dot * f64::from(a.scale) + mask
            };
            let shares = softmax(&(0..a.keys).map(score).collect::<Vec<_>>());
            for i in 0..a.value_width {
                let at = |c: usize| v[a.v.starts[head] + c * a.v.row + i];
                out[a.y.starts[head] + r * a.y.row + i] =
                    shares.iter().enumerate().map(|(c, s)| s * at(c)).sum();
            }
        }
    }
    out
}

fn reduce(kind: Reduction, row: &[f64]) -> f64 {
    let squares = || row.iter().map(|v| v * v).sum::<f64>();
    match kind {
        Reduction::Sum => row.iter().sum(),
        Reduction::Mean => row.iter().sum::<f64>() / row.len() as f64,
        Reduction::Max => row.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Reduction::Min => row.iter().copied().fold(f64::INFINITY, f64::min),
        Reduction::Prod => row.iter().product(),
        Reduction::L2 => squares().sqrt(),
        Reduction::SumSquare => squares(),
    }
}

/// One number through a function.
pub(crate) fn unary(f: Unary, x: f64) -> f64 {
    let truth = |b: bool| f64::from(u8::from(b));
    let w = |a: f32| f64::from(a);
    match f {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Square => x * x,
        Unary::Cube => x * x * x,
        Unary::Sqrt => x.sqrt(),
        Unary::ReciprocalSqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Sign => truth(x > 0.0) - truth(x < 0.0),
        Unary::Erf => erf(x),
        Unary::Not => truth(x == 0.0),
        Unary::IsNan => truth(x.is_nan()),
        Unary::Truth => truth(x != 0.0),
        Unary::Clip(lo, hi) => {
            let x = if x < w(lo) { w(lo) } else { x };
            if x > w(hi) { w(hi) } else { x }
        }
        Unary::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Unary::LeakyRelu(a) => {
            if x < 0.0 {
                w(a) * x
            } else {
                x
            }
        }
        Unary::Elu(a) => {
            if x < 0.0 {
                w(a) * x.exp_m1()
            } else {
                x
            }
        }
        Unary::Celu(a) => {
            if x < 0.0 {
                w(a) * (x / w(a)).exp_m1()
            } else {
                x
            }
        }
        Unary::Selu(a, g) => w(g) * if x < 0.0 { w(a) * x.exp_m1() } else { x },
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Tanh => x.tanh(),
        Unary::HardSigmoid(a, b) => (w(a) * x + w(b)).clamp(0.0, 1.0),
        Unary::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Unary::Softplus => softplus(x),
        Unary::Softsign => x / (1.0 + x.abs()),
        Unary::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Unary::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Unary::Mish => x * softplus(x).tanh(),
        Unary::Swish(a) => x / (1.0 + (-w(a) * x).exp()),
    }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Two numbers through a function; integers divide towards zero.
pub(crate) fn binary(f: Binary, a: f64, b: f64, integer: bool) -> f64 {
    let truth = |b: bool| f64::from(u8::from(b));
    match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div if integer => (a / b).trunc(),
        Binary::Div => a / b,
        Binary::Pow => a.powf(b),
        Binary::Fmod => a % b,
        Binary::Modulo => a - b * (a / b).floor(),
        Binary::Min => {
            if a < b || a.is_nan() {
                a
            } else {
                b
            }
        }
        Binary::Max => {
            if a > b || a.is_nan() {
                a
            } else {
                b
            }
        }
        Binary::Greater => truth(a > b),
        Binary::Less => truth(a < b),
        Binary::GreaterOrEqual => truth(a >= b),
        Binary::LessOrEqual => truth(a <= b),
        Binary::Equal => truth(a == b),
        Binary::And => truth(a != 0.0 && b != 0.0),
        Binary::Or => truth(a != 0.0 || b != 0.0),
        Binary::PRelu => {
            if a < 0.0 {
                a * b
            } else {
                a
            }
        }
    }
}

/// Error function: Taylor series up to 3, continued fraction beyond.
pub(crate) fn erf(x: f64) -> f64 {
    let z = x.abs();
    if z.is_nan() {
        return x;
    }
    let tail = std::f64::consts::FRAC_2_SQRT_PI / 2.0 * (-z * z).exp();
    let value = if z < 3.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..80 {
            let n = f64::from(n);
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        std::f64::consts::FRAC_2_SQRT_PI * sum
    } else if z < 6.0 {
        let fraction = (1..=60).rev().fold(z, |f, k| z + f64::from(k) / 2.0 / f);
        1.0 - tail / fraction
    } else {
        1.0
    };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_function_against_tables() {
        // Abramowitz and Stegun, table 7.1, and erfc(4) = 1.541725790028e-8.
        for (x, y) in [(0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650), (-1.5, -0.9661051465)] {
            assert!((erf(x) - y).abs() < 1e-10, "{x}");
        }
        assert!((1.0 - erf(4.0) - 1.541725790028e-8).abs() < 1e-15);
        assert!((erf(3.0 - 1e-9) - erf(3.0)).abs() < 1e-12);
    }

    #[test]
    fn broadcasting() {
        assert_eq!(sources(&[2, 1], &[2, 3]), [0, 0, 0, 1, 1, 1]);
        assert_eq!(sources(&[3], &[2, 3]), [0, 1, 2, 0, 1, 2]);
        assert_eq!(sources(&[], &[2]), [0, 0]);
    }
}
