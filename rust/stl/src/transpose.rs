//! Traces into rows of lanes and back. Where the processor has AVX2, in square blocks that stay in registers: a
//! walk from trace to trace for every single step costs more than the kernels between the two turns.

use crate::engine::BLOCK;
use crate::scalar::Scalar;

/// One column of several traces: element `step` of a lane stands at `bases[lane] + step · stride + column`.
pub struct Columns<'a, S, const L: usize> {
    pub(crate) data: &'a [S],
    pub(crate) bases: [usize; L],
    pub(crate) stride: usize,
    pub(crate) column: usize,
}

/// `rows[step][lane]` = the element of that step and lane. `wide`: the processor has what [`Turn`] asks for.
#[inline(always)]
pub(crate) fn gather<S: Scalar, const L: usize>(from: &Columns<S, L>, rows: &mut [[S; L]], wide: bool) {
    // SAFETY: `wide` says that the processor has AVX2.
    let done = if wide { unsafe { S::gather(from, rows) } } else { 0 };
    let rows = &mut rows[done..];
    if rows.is_empty() {
        return;
    }
    for (lane, base) in from.bases.into_iter().enumerate() {
        let column = &from.data[base + done * from.stride + from.column..];
        for (row, x) in rows.iter_mut().zip(column.chunks(from.stride)) {
            row[lane] = x[0];
        }
    }
}

/// Where the values of each lane go, and how many of them; 0 for a lane that is not used.
pub struct Target<const L: usize> {
    pub(crate) starts: [usize; L],
    pub(crate) valid: [usize; L],
    /// Lanes that are used, the first ones.
    pub(crate) used: usize,
    pub(crate) negate: bool,
}

/// `out[start of lane + step]` = the value of that step and lane.
#[inline(always)]
pub(crate) fn scatter<S: Scalar, const L: usize>(rows: &[[S; L]], to: &Target<L>, out: &mut [S], wide: bool) {
    let shortest = to.valid[..to.used].iter().copied().min().unwrap_or(0);
    // SAFETY: `wide` says that the processor has AVX2.
    let done = if wide { unsafe { S::scatter(&rows[..shortest], to, out) } } else { 0 };
    // In blocks, so that the rows stay in the first-level cache while they are turned.
    for (block, rows) in rows[done..].chunks(BLOCK).enumerate() {
        let skipped = done + block * BLOCK;
        for lane in 0..to.used {
            let valid = to.valid[lane].saturating_sub(skipped).min(rows.len());
            let row = out[to.starts[lane] + skipped..].iter_mut().zip(&rows[..valid]);
            if to.negate {
                row.for_each(|(o, v)| *o = S::ZERO - v[lane]);
            } else {
                row.for_each(|(o, v)| *o = v[lane]);
            }
        }
    }
}

/// The turns in registers. They do as many whole blocks as they can and return the number of steps done.
///
/// # Safety
/// On x86-64 the processor must have AVX2.
pub trait Turn: Sized {
    #[doc(hidden)]
    unsafe fn gather<const L: usize>(from: &Columns<Self, L>, rows: &mut [[Self; L]]) -> usize;
    #[doc(hidden)]
    unsafe fn scatter<const L: usize>(rows: &[[Self; L]], to: &Target<L>, out: &mut [Self]) -> usize;
}

macro_rules! turn {
    ($t:ty, $module:ident) => {
        impl Turn for $t {
            #[inline(always)]
            unsafe fn gather<const L: usize>(from: &Columns<Self, L>, rows: &mut [[Self; L]]) -> usize {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the caller knows that the processor has AVX2.
                return unsafe {
                    match (from.stride, from.column) {
                        (1, _) => $module::gather::<L, 1, 0>(from, rows),
                        (2, 0) => $module::gather::<L, 2, 0>(from, rows),
                        (2, _) => $module::gather::<L, 2, 1>(from, rows),
                        _ => 0,
                    }
                };
                #[cfg(not(target_arch = "x86_64"))]
                {
                    let _ = (from, rows);
                    0
                }
            }
            #[inline(always)]
            unsafe fn scatter<const L: usize>(rows: &[[Self; L]], to: &Target<L>, out: &mut [Self]) -> usize {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                return unsafe { $module::scatter(rows, to, out) };
                #[cfg(not(target_arch = "x86_64"))]
                {
                    let _ = (rows, to, out);
                    0
                }
            }
        }
    };
}

turn!(f32, single);
turn!(f64, double);

/// The two turns for one type, in blocks of `$side` steps and lanes: a row of a block is one register. `turned`
/// swaps rows and columns; `picked` takes every second value of two registers, which leaves them in `ORDER`.
#[cfg(target_arch = "x86_64")]
macro_rules! blocks {
    ($t:ty, $register:ty, $side:literal, $load:ident, $store:ident, $zero:ident, $sub:ident) => {
        #[target_feature(enable = "avx2")]
        #[inline]
        fn load(from: &[$t]) -> $register {
            let from = &from[..$side];
            // SAFETY: the slice has the length of a register.
            unsafe { $load(from.as_ptr()) }
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        fn store(value: $register, to: &mut [$t]) {
            let to = &mut to[..$side];
            // SAFETY: the slice has the length of a register.
            unsafe { $store(to.as_mut_ptr(), value) }
        }

        #[target_feature(enable = "avx2")]
        pub(super) fn gather<const L: usize, const STRIDE: usize, const COLUMN: usize>(
            from: &Columns<$t, L>,
            rows: &mut [[$t; L]],
        ) -> usize {
            let whole = rows.len() / $side;
            for (block, rows) in rows.chunks_exact_mut($side).enumerate() {
                for (group, bases) in from.bases.chunks_exact($side).enumerate() {
                    let mut square = [$zero(); $side];
                    for (row, base) in square.iter_mut().zip(bases) {
                        let at = &from.data[base + block * $side * STRIDE..];
                        *row = load(at);
                        if STRIDE == 2 {
                            *row = picked::<COLUMN>(*row, load(&at[$side..]));
                        }
                    }
                    let square = turned(square);
                    for (position, column) in square.into_iter().enumerate() {
                        let step = if STRIDE == 2 { ORDER[position] } else { position };
                        store(column, &mut rows[step][group * $side..]);
                    }
                }
            }
            whole * $side
        }

        #[target_feature(enable = "avx2")]
        pub(super) fn scatter<const L: usize>(rows: &[[$t; L]], to: &Target<L>, out: &mut [$t]) -> usize {
            let whole = rows.len() / $side * $side;
            for (long, rows) in rows[..whole].chunks(BLOCK).enumerate() {
                for first in (0..to.used).step_by($side) {
                    let lanes = first..to.used.min(first + $side);
                    for (block, rows) in rows.chunks_exact($side).enumerate() {
                        let mut square = [$zero(); $side];
                        for (register, row) in square.iter_mut().zip(rows) {
                            *register = load(&row[first..]);
                            if to.negate {
                                *register = $sub($zero(), *register);
                            }
                        }
                        let square = turned(square);
                        for (value, lane) in square.into_iter().zip(lanes.clone()) {
                            store(value, &mut out[to.starts[lane] + long * BLOCK + block * $side..]);
                        }
                    }
                }
            }
            whole
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod single {
    use super::{BLOCK, Columns, Target};
    use std::arch::x86_64::*;

    const ORDER: [usize; 8] = [0, 1, 4, 5, 2, 3, 6, 7];

    blocks!(f32, __m256, 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_setzero_ps, _mm256_sub_ps);

    #[target_feature(enable = "avx2")]
    #[inline]
    fn picked<const COLUMN: usize>(a: __m256, b: __m256) -> __m256 {
        if COLUMN == 0 { _mm256_shuffle_ps::<0x88>(a, b) } else { _mm256_shuffle_ps::<0xdd>(a, b) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn turned(r: [__m256; 8]) -> [__m256; 8] {
        let mut pairs = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut fours = [_mm256_setzero_ps(); 8];
        for half in [0, 4] {
            for i in 0..2 {
                let (a, b) = (pairs[half + i], pairs[half + i + 2]);
                fours[half + 2 * i] = _mm256_shuffle_ps::<0x44>(a, b);
                fours[half + 2 * i + 1] = _mm256_shuffle_ps::<0xee>(a, b);
            }
        }
        let mut out = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            out[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
            out[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
        }
        out
    }
}

#[cfg(target_arch = "x86_64")]
mod double {
    use super::{BLOCK, Columns, Target};
    use std::arch::x86_64::*;

    const ORDER: [usize; 4] = [0, 2, 1, 3];

    blocks!(f64, __m256d, 4, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_setzero_pd, _mm256_sub_pd);

    #[target_feature(enable = "avx2")]
    #[inline]
    fn picked<const COLUMN: usize>(a: __m256d, b: __m256d) -> __m256d {
        if COLUMN == 0 { _mm256_unpacklo_pd(a, b) } else { _mm256_unpackhi_pd(a, b) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn turned(r: [__m256d; 4]) -> [__m256d; 4] {
        let (a, b) = (_mm256_unpacklo_pd(r[0], r[1]), _mm256_unpackhi_pd(r[0], r[1]));
        let (c, d) = (_mm256_unpacklo_pd(r[2], r[3]), _mm256_unpackhi_pd(r[2], r[3]));
        [
            _mm256_permute2f128_pd::<0x20>(a, c),
            _mm256_permute2f128_pd::<0x20>(b, d),
            _mm256_permute2f128_pd::<0x31>(a, c),
            _mm256_permute2f128_pd::<0x31>(b, d),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length, stride and column, with and without registers, against one element at a time.
    fn turns<S: Scalar, const L: usize>() {
        #[cfg(target_arch = "x86_64")]
        let wides = if is_x86_feature_detected!("avx2") { &[false, true][..] } else { &[false][..] };
        #[cfg(not(target_arch = "x86_64"))]
        let wides = &[false][..];
        for stride in 1..4 {
            for steps in [0, 1, 3, 4, 7, 8, 9, 17, 64, 71] {
                let data: Vec<S> = (0..steps * stride * L).map(|i| S::from_f64(i as f64)).collect();
                let bases = std::array::from_fn(|lane| (L - 1 - lane) * steps * stride);
                for (column, &wide) in (0..stride).flat_map(|c| wides.iter().map(move |w| (c, w))) {
                    let mut rows = vec![[S::NAN; L]; steps];
                    let columns = Columns { data: &data, bases, stride, column };
                    gather(&columns, &mut rows, wide);
                    for (step, row) in rows.iter().enumerate() {
                        for (lane, v) in row.iter().enumerate() {
                            assert_eq!(*v, data[bases[lane] + step * stride + column]);
                        }
                    }
                    for (used, negate) in [(1, true), (L - 3, false), (L, true)] {
                        let valid =
                            std::array::from_fn(
                                |lane| if lane < used { steps - lane % 2 * (steps / 3) } else { 0 },
                            );
                        let starts = std::array::from_fn(|lane| lane * steps);
                        let mut out = vec![S::NAN; L * steps];
                        scatter(&rows, &Target { starts, valid, used, negate }, &mut out, wide);
                        for (i, v) in out.iter().enumerate() {
                            let (lane, step) = (i / steps, i % steps);
                            let expected = if negate { S::ZERO - rows[step][lane] } else { rows[step][lane] };
                            let written = step < valid[lane];
                            assert!(if written { *v == expected } else { v.is_nan() }, "{lane} {step}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn turned_traces_keep_their_values() {
        turns::<f32, 16>();
        turns::<f64, 8>();
    }
}
