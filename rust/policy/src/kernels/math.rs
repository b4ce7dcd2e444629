//! Elementary functions in 32-bit floats, without branches or tables, so that loops over them vectorise.
//!
//! The polynomials are our own near-minimax fits (iterated least squares on Chebyshev nodes). Bars, tested against
//! `f64`: exp relative 2e-7; tanh, sigmoid, erf, sin and cos absolute 3e-7. Infinities and NaN come out as IEEE says.

use crate::isa::fma;

/// Adding and subtracting this rounds to the nearest integer, half to even.
const MAGIC: f32 = 12_582_912.0;

/// Horner's rule, highest power first.
#[inline(always)]
fn horner<const F: bool, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut y = c[0];
    for &k in &c[1..] {
        y = fma::<F>(y, x, k);
    }
    y
}

/// eˣ.
#[inline(always)]
pub(crate) fn exp<const F: bool>(x: f32) -> f32 {
    // Beyond these the result is infinite, or rounds to zero.
    let z = if x > 89.0 { 89.0 } else { x };
    let z = if z < -104.0 { -104.0 } else { z };
    let t = fma::<F>(z, std::f32::consts::LOG2_E, MAGIC);
    let n = t - MAGIC;
    let r = fma::<F>(n, -0.693_145_75, z);
    let r = fma::<F>(n, -1.428_606_8e-6, r);
    let q = horner::<F, 5>(r, [0.001_394_121_4, 0.008_363_235, 0.041_666_374, 0.166_665_76, 0.5]);
    let p = 1.0 + fma::<F>(r * r, q, r);
    // 2ⁿ in two factors, so that it may be subnormal or, for n = 128, reach infinity.
    let n = (t.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    let half = n >> 1;
    let two = |k: i32| f32::from_bits(((k + 127) << 23) as u32);
    p * two(half) * two(n - half)
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<const F: bool>(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let q = horner::<F, 5>(z, [-0.006_113_139, 0.021_010_036, -0.053_854_056, 0.133_327_95, -0.333_333_28]);
    let small = fma::<F>(x * z, q, x);
    let large = 1.0 - 2.0 / (exp::<F>(a + a) + 1.0);
    (if a < 0.625 { small } else { large }).copysign(x)
}

/// 1/(1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid<const F: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<F>(-x))
}

/// Error function.
#[inline(always)]
pub(crate) fn erf<const F: bool>(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let c = [
        7.889_119e-5,
        -8.020_841e-4,
        0.005_189_535,
        -0.026_854_444,
        0.112_836,
        -0.376_126_26,
        std::f32::consts::FRAC_2_SQRT_PI,
    ];
    let small = x * horner::<F, 7>(z, c);
    // ln erfc on [1, 4]; erfc(4) is below half an ulp of 1.
    let t = if a > 4.0 { 4.0 } else { a };
    let c = [
        1.599_819_1e-6,
        -4.529_809e-5,
        5.902_031_6e-4,
        -0.004_727_689,
        0.026_327_522,
        -0.109_909_73,
        -0.632_013_44,
        -1.130_119_7,
        2.910_253_5e-4,
    ];
    let large = 1.0 - exp::<F>(horner::<F, 9>(t, c));
    let large = if a.is_nan() { a } else { large };
    if a < 1.0 { small } else { large.copysign(x) }
}

/// ln(1 + eˣ).
#[inline(always)]
pub(crate) fn softplus<const F: bool>(x: f32) -> f32 {
    let y = exp::<F>(-x.abs());
    // ln(1 + y) = 2·artanh(y/(2 + y)) for y in [0, 1].
    let s = y / (2.0 + y);
    let z = s * s;
    let q = horner::<F, 4>(z, [0.134_445_1, 0.141_152_6, 0.200_039_04, 0.333_333_2]);
    let log1p = 2.0 * fma::<F>(s * z, q, s);
    (if x < 0.0 { 0.0 } else { x }) + log1p
}

/// Largest argument whose reduction is exact; beyond it the standard library computes.
pub(crate) const REDUCED: f32 = 8192.0;

/// Sine for |x| ≤ [`REDUCED`], or cosine when `QUARTER` is 1.
#[inline(always)]
pub(crate) fn sine<const F: bool, const QUARTER: u32>(x: f32) -> f32 {
    let t = fma::<F>(x, std::f32::consts::FRAC_2_PI, MAGIC);
    let n = t - MAGIC;
    // π/2 in three parts; the first two have 11 bits, so that their products with n are exact.
    let r = fma::<F>(n, -1.570_312_5, x);
    let r = fma::<F>(n, -4.837_513e-4, r);
    let r = fma::<F>(n, -7.549_79e-8, r);
    let z = r * r;
    let sin = fma::<F>(r * z, horner::<F, 3>(z, [-1.958_7e-4, 0.008_332_744, -0.166_666_64]), r);
    let q = horner::<F, 3>(z, [2.454_703_1e-5, -0.001_388_829_9, 0.041_666_664]);
    let cos = fma::<F>(z * z, q, fma::<F>(z, -0.5, 1.0));
    let quadrant = t.to_bits().wrapping_add(QUARTER);
    let y = if quadrant & 1 == 0 { sin } else { cos };
    f32::from_bits(y.to_bits() ^ ((quadrant & 2) << 30))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval;
    use crate::op::Unary;

    type Pair = (fn(f32) -> f32, fn(f32) -> f32);

    /// Largest error of both instantiations over a million points of `[lo, hi]`.
    fn worst((a, b): Pair, exact: impl Fn(f64) -> f64, lo: f64, hi: f64, relative: bool) -> f64 {
        let mut worst = 0.0f64;
        for i in 0..1_000_000 {
            let x = (lo + (hi - lo) * f64::from(i) / 999_999.0) as f32;
            let y = exact(x.into());
            for f in [a, b] {
                let e = (f64::from(f(x)) - y).abs() / if relative { y.abs() } else { 1.0 };
                worst = if e.is_nan() { f64::INFINITY } else { worst.max(e) };
            }
        }
        worst
    }

    #[test]
    #[cfg_attr(miri, ignore = "a million points take hours under Miri")]
    fn accuracy_bars() {
        let e = worst((exp::<true>, exp::<false>), f64::exp, -87.3, 88.7, true);
        assert!(e <= 2e-7, "exp {e:e}");
        let e = worst((tanh::<true>, tanh::<false>), f64::tanh, -10.0, 10.0, false);
        assert!(e <= 3e-7, "tanh {e:e}");
        let exact = |x| eval::unary(Unary::Sigmoid, x);
        let e = worst((sigmoid::<true>, sigmoid::<false>), exact, -30.0, 30.0, false);
        assert!(e <= 3e-7, "sigmoid {e:e}");
        let e = worst((erf::<true>, erf::<false>), eval::erf, -5.0, 5.0, false);
        assert!(e <= 3e-7, "erf {e:e}");
        let exact = |x| eval::unary(Unary::Softplus, x);
        let e = worst((softplus::<true>, softplus::<false>), exact, -20.0, 1.0, false);
        assert!(e <= 3e-7, "softplus {e:e}");
        for range in [10.0, 8192.0] {
            let e = worst((sine::<true, 0>, sine::<false, 0>), f64::sin, -range, range, false);
            assert!(e <= 3e-7, "sin to {range}: {e:e}");
            let e = worst((sine::<true, 1>, sine::<false, 1>), f64::cos, -range, range, false);
            assert!(e <= 3e-7, "cos to {range}: {e:e}");
        }
    }

    #[test]
    fn infinities_and_nan() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        fn check<const F: bool>(inf: f32, nan: f32) {
            assert_eq!(
                [exp::<F>(inf), exp::<F>(-inf), exp::<F>(-200.0), exp::<F>(100.0)],
                [inf, 0.0, 0.0, inf]
            );
            assert_eq!([tanh::<F>(inf), tanh::<F>(-inf), tanh::<F>(1e30)], [1.0, -1.0, 1.0]);
            assert_eq!([sigmoid::<F>(inf), sigmoid::<F>(-inf)], [1.0, 0.0]);
            assert_eq!([erf::<F>(inf), erf::<F>(-inf)], [1.0, -1.0]);
            assert_eq!([softplus::<F>(inf), softplus::<F>(-inf)], [inf, 0.0]);
            assert!(
                [exp::<F>(nan), tanh::<F>(nan), sigmoid::<F>(nan), erf::<F>(nan), softplus::<F>(nan)]
                    .iter()
                    .all(|y| y.is_nan())
            );
            assert!(tanh::<F>(-0.0).is_sign_negative() && exp::<F>(-88.5) > 0.0);
        }
        check::<true>(inf, nan);
        check::<false>(inf, nan);
    }
}
