//! Functions of one number, applied to a slice in place.

use super::math::{REDUCED, erf, exp, sigmoid, sine, softplus, tanh};
use crate::isa::{fma, kernel};
use crate::op::Unary;

kernel! {
    /// Replaces every element by `f` of it.
    map = map_body(f: Unary, y: &mut [f32])
}

#[inline(always)]
fn each(y: &mut [f32], f: impl Fn(f32) -> f32) {
    for v in y {
        *v = f(*v);
    }
}

/// Sine or cosine; the rare large arguments go to the standard library.
#[inline(always)]
fn each_sine<const F: bool, const QUARTER: u32>(y: &mut [f32], slow: impl Fn(f32) -> f32) {
    if y.iter().fold(true, |small, v| small & (v.abs() <= REDUCED)) {
        each(y, sine::<F, QUARTER>);
    } else {
        each(y, |x| if x.abs() <= REDUCED { sine::<F, QUARTER>(x) } else { slow(x) });
    }
}

#[inline(always)]
fn truth(b: bool) -> f32 {
    if b { 1.0 } else { 0.0 }
}

/// To the range, with NaN passing through.
#[inline(always)]
fn clip(x: f32, lo: f32, hi: f32) -> f32 {
    let x = if x < lo { lo } else { x };
    if x > hi { hi } else { x }
}

#[inline(always)]
fn map_body<const F: bool>(f: Unary, y: &mut [f32]) {
    match f {
        Unary::Neg => each(y, |x| -x),
        Unary::Abs => each(y, f32::abs),
        Unary::Square => each(y, |x| x * x),
        Unary::Cube => each(y, |x| x * x * x),
        Unary::Sqrt => each(y, f32::sqrt),
        Unary::ReciprocalSqrt => each(y, |x| 1.0 / x.sqrt()),
        Unary::Reciprocal => each(y, |x| 1.0 / x),
        Unary::Exp => each(y, exp::<F>),
        Unary::Log => each(y, f32::ln),
        Unary::Sin => each_sine::<F, 0>(y, f32::sin),
        Unary::Cos => each_sine::<F, 1>(y, f32::cos),
        Unary::Floor => each(y, f32::floor),
        Unary::Ceil => each(y, f32::ceil),
        Unary::Round => each(y, f32::round_ties_even),
        Unary::Sign => each(y, |x| truth(x > 0.0) - truth(x < 0.0)),
        Unary::Erf => each(y, erf::<F>),
        Unary::Not => each(y, |x| truth(x == 0.0)),
        Unary::IsNan => each(y, |x| truth(x.is_nan())),
        Unary::Truth => each(y, |x| truth(x != 0.0)),
        Unary::Clip(lo, hi) => each(y, |x| clip(x, lo, hi)),
        Unary::Relu => each(y, |x| if x < 0.0 { 0.0 } else { x }),
        Unary::LeakyRelu(a) => each(y, |x| if x < 0.0 { a * x } else { x }),
        Unary::Elu(a) => each(y, |x| if x < 0.0 { a * (exp::<F>(x) - 1.0) } else { x }),
        Unary::Celu(a) => each(y, |x| if x < 0.0 { a * (exp::<F>(x / a) - 1.0) } else { x }),
        Unary::Selu(a, g) => each(y, |x| g * if x < 0.0 { a * (exp::<F>(x) - 1.0) } else { x }),
        Unary::Sigmoid => each(y, sigmoid::<F>),
        Unary::Tanh => each(y, tanh::<F>),
        Unary::HardSigmoid(a, b) => each(y, |x| clip(fma::<F>(a, x, b), 0.0, 1.0)),
        Unary::HardSwish => each(y, |x| x * clip(fma::<F>(x, 1.0 / 6.0, 0.5), 0.0, 1.0)),
        Unary::Softplus => each(y, softplus::<F>),
        Unary::Softsign => each(y, |x| x / (1.0 + x.abs())),
        Unary::Gelu => each(y, |x| 0.5 * x * (1.0 + erf::<F>(x * std::f32::consts::FRAC_1_SQRT_2))),
        Unary::GeluTanh => each(y, |x| {
            let inner = 0.797_884_6 * fma::<F>(0.044_715 * x * x, x, x);
            0.5 * x * (1.0 + tanh::<F>(inner))
        }),
        Unary::Mish => each(y, |x| x * tanh::<F>(softplus::<F>(x))),
        Unary::Swish(a) => each(y, |x| x * sigmoid::<F>(a * x)),
    }
}
