//! Times of many calls, and the memory traffic that makes a call cold.

use std::time::Instant;

use serde::Serialize;

/// Median and 99th percentile of a block, ns.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Block {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl Block {
    /// Of these times; sorts them.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(times: &mut [u64]) -> Self {
        times.sort_unstable();
        let at = |q: f64| times[((times.len() as f64 * q).ceil() as usize).clamp(1, times.len()) - 1] as f64;
        Self { p50: at(0.5), p99: at(0.99) }
    }

    /// Times `calls` calls one by one; `before` runs unmeasured before each.
    pub fn measure(calls: usize, mut before: impl FnMut(), mut call: impl FnMut(usize)) -> Self {
        let mut times: Vec<u64> = (0..calls.max(1))
            .map(|i| {
                before();
                let start = Instant::now();
                call(i);
                start.elapsed().as_nanos() as u64
            })
            .collect();
        Self::of(&mut times)
    }
}

/// 64 MiB: more than the caches of the machines in question.
const FLUSH: usize = 64 << 20;
const LINE: usize = 64;

/// Memory that drives everything else out of the caches when it is touched.
pub struct Flush(Vec<u8>);

impl Flush {
    /// Allocates it.
    pub fn new() -> Self {
        Self(vec![1; FLUSH])
    }

    /// Writes to every line.
    pub fn touch(&mut self) {
        for line in self.0.chunks_mut(LINE) {
            line[0] = line[0].wrapping_add(1);
        }
        std::hint::black_box(&mut self.0);
    }
}

impl Default for Flush {
    fn default() -> Self {
        Self::new()
    }
}

/// The floor of a network at batch 1: every weight is read once and added to one of many sums.
pub fn sum(weights: &[f32]) -> f32 {
    with_avx2(weights, |w| w)
}

/// The same with 8-bit weights, which are made 32-bit floats before they are added.
pub fn widen(weights: &[i8]) -> f32 {
    with_avx2(weights, f32::from)
}

#[inline(always)]
fn with_avx2<T: Copy>(weights: &[T], float: impl Fn(T) -> f32) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has AVX2.
        return unsafe { avx2(weights, float) };
    }
    lanes(weights, float)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<T: Copy>(weights: &[T], float: impl Fn(T) -> f32) -> f32 {
    lanes(weights, float)
}

/// 64 independent sums hide the latency of the addition; what is left is the memory.
#[inline(always)]
fn lanes<T: Copy>(weights: &[T], float: impl Fn(T) -> f32) -> f32 {
    let mut sums = [0.0f32; 64];
    let (blocks, rest) = weights.as_chunks::<64>();
    for block in blocks {
        for (s, w) in sums.iter_mut().zip(block) {
            *s += float(*w);
        }
    }
    sums.into_iter().chain(rest.iter().map(|w| float(*w))).sum()
}
