//! Exploration noise with proven bounds, the same in training and on the robot.
//!
//! ```text
//! uniform w ∈ [−1, 1) ─► low passes y ─► x = Σ c·y ─► tanh(g·x) ─► slew n ─► target += amplitude · margin · n
//! ```
//!
//! Each low pass is a convex combination of values in [−1, 1], and so is their mean x; the slew keeps n between two values
//! of that interval. Hence for every tick |n| ≤ 1, and with the margin slewed as well
//!
//! ```text
//! |offset| ≤ amplitude,   |offset − previous offset| ≤ rate.
//! ```
//!
//! w depends on seed, epoch, tick and the joint's name and on nothing else: a robot with its joints in another order gets the
//! same noise by joint, and a replay the same noise again.

use std::f64::consts::TAU;

use cadenza_policy::manifest::{Manifest, Noise as Allowed};
use serde::{Deserialize, Serialize};

use super::{ActionError, bad};
use crate::robot::{Joint, Limits, Robot};
use crate::state::{Joints, MAX_JOINTS};

/// Number of low passes of a joint.
const POLES: usize = 7;
/// Their corner frequencies, Hz: an octave apart.
const CORNERS: [f64; POLES] = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];
/// Part of the rate that the noise itself may use; the rest is the margin's.
const OWN: f64 = 0.8;
/// Distance from an end of the range, in amplitudes, from which the noise is at its full size.
const BAND: f64 = 2.0;

/// The noise of all joints. Allocates nothing after construction.
#[derive(Clone, Debug)]
pub struct Noise {
    seed: u64,
    colour: Colour,
    joints: Vec<Option<Source>>,
    dt: f64,
}

/// One joint's noise.
#[derive(Clone, Debug)]
struct Source {
    name: u64,
    amplitude: f64,
    /// Largest changes in one tick of n and of the margin.
    slew: [f64; 2],
    range: [f64; 2],
    memory: Memory,
}

/// What a joint's noise remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    y: [f64; POLES],
    n: f64,
    margin: f64,
    offset: f64,
}

/// Spectrum and size of the noise before the slew.
#[derive(Clone, Debug)]
struct Colour {
    poles: Vec<Pole>,
    gain: f64,
}

/// One low pass: what it keeps of its last value, and its weight in the mean.
#[derive(Clone, Copy, Debug)]
struct Pole {
    keep: f64,
    weight: f64,
}

impl Noise {
    /// The noise that a bundle allows, at `share` (0 … 1) of its amplitude; none for 0.
    ///
    /// # Errors
    /// [`ActionError::BadValue`] for a share outside 0 … 1, or above 0 for a bundle that allows none on its targets.
    pub fn new(
        manifest: &Manifest,
        robot: &Robot,
        limits: &[Limits],
        share: f64,
    ) -> Result<Option<Self>, ActionError> {
        if !(0.0..=1.0).contains(&share) {
            return Err(bad("noise", share, "a share of the bundle's noise, 0 to 1"));
        }
        if share == 0.0 {
            return Ok(None);
        }
        let Some(Allowed::Bounded { amplitude, rate, colour, std, seed }) = &manifest.noise else {
            return Err(bad("noise", share, "0: the bundle allows no noise on its targets"));
        };
        let source = |(joint, l): (&Joint, &Limits)| {
            let amplitude = share * amplitude.get(&joint.name).copied().filter(|a| *a > 0.0)?;
            let rate = share * rate.get(&joint.name)?;
            let slew = [OWN * rate / amplitude, (1.0 - OWN) * rate / amplitude];
            let name = fnv1a(&joint.name);
            Some(Source { name, amplitude, slew, range: l.position, memory: Memory::default() })
        };
        let dt = robot.control_dt();
        Ok(Some(Self {
            seed: *seed,
            colour: Colour::new(*colour, *std, dt),
            joints: robot.joints.iter().zip(limits).map(source).collect(),
            dt,
        }))
    }

    /// Starts at no noise.
    pub fn reset(&mut self) {
        for source in self.joints.iter_mut().flatten() {
            source.memory = Memory::default();
        }
    }

    /// Adds the noise of tick `tick` to a target. It shrinks towards an end of the range and, where `strain` says so, with
    /// the joint's tracking error: `strain` is that error over the largest one allowed, robot order. `allowed` scales
    /// all of it, 0 … 1. Changes of both are slewed.
    pub fn add(
        &mut self,
        epoch: u32,
        tick: u64,
        strain: &Joints,
        allowed: f64,
        q: &mut Joints,
        dq: &mut Joints,
    ) {
        let key = mix(mix(mix(self.seed) ^ u64::from(epoch)) ^ tick);
        for (joint, source) in self.joints.iter_mut().enumerate() {
            let Some(source) = source else { continue };
            let wanted = (self.colour.gain * self.colour.step(key, source.name, &mut source.memory.y)).tanh();
            let [lo, hi] = source.range;
            let room = (q[joint] - lo).min(hi - q[joint]) / (BAND * source.amplitude);
            let margin = room.min(1.0 - strain[joint].abs()).min(allowed);
            // A target or an error that is not a number leaves no room.
            let margin = if margin.is_finite() { margin.clamp(0.0, 1.0) } else { 0.0 };
            let m = &mut source.memory;
            m.n += (wanted - m.n).clamp(-source.slew[0], source.slew[0]);
            m.margin += (margin - m.margin).clamp(-source.slew[1], source.slew[1]);
            let before = std::mem::replace(&mut m.offset, source.amplitude * m.margin * m.n);
            q[joint] += m.offset;
            dq[joint] += (m.offset - before) / self.dt;
        }
    }

    pub(super) fn memory(&self) -> Vec<Memory> {
        self.joints.iter().map(|s| s.as_ref().map_or(Memory::default(), |s| s.memory)).collect()
    }

    pub(super) fn restore(&mut self, memory: &[Memory]) {
        for (source, memory) in self.joints.iter_mut().zip(memory) {
            if let Some(source) = source {
                source.memory = *memory;
            }
        }
    }
}

impl Colour {
    /// Power density ∝ f^−`exponent` between the lowest and the highest corner, standard deviation `std` of tanh(g·x).
    fn new(exponent: f64, std: f64, dt: f64) -> Self {
        let keep = CORNERS.map(|f| (-TAU * f * dt).exp());
        let weight = weights(&keep, exponent, dt);
        let poles: Vec<_> =
            keep.into_iter().zip(weight).map(|(keep, weight)| Pole { keep, weight }).collect();
        Self { gain: gain(&poles, std), poles }
    }

    /// The next x, a mean of values in [−1, 1].
    fn step(&self, key: u64, name: u64, y: &mut [f64; POLES]) -> f64 {
        let mut x = 0.0;
        for (index, (pole, y)) in (0u64..).zip(self.poles.iter().zip(y)) {
            let w = uniform(mix(key ^ name.wrapping_add(index)));
            *y = pole.keep * *y + (1.0 - pole.keep) * w;
            x += pole.weight * *y;
        }
        x
    }
}

/// Power of a low pass at frequency `f`, Hz, for white input of power 1.
fn power(keep: f64, f: f64, dt: f64) -> f64 {
    (1.0 - keep).powi(2) / (1.0 - 2.0 * keep * (TAU * f * dt).cos() + keep * keep)
}

/// Weights c ≥ 0 with Σc = 1 whose power Σ c²·H(f)·f^β is as flat as can be: non-negative least squares over c² by
/// multiplicative updates.
fn weights(keep: &[f64; POLES], exponent: f64, dt: f64) -> [f64; POLES] {
    const POINTS: usize = 80;
    let [lowest, highest] = [CORNERS[0], CORNERS[POLES - 1]];
    let rows: Vec<[f64; POLES]> = (0..POINTS)
        .map(|j| {
            let f = lowest * (highest / lowest).powf(j as f64 / (POINTS - 1) as f64);
            keep.map(|k| power(k, f, dt) * f.powf(exponent))
        })
        .collect();
    let mut squares = [1.0; POLES];
    for _ in 0..4000 {
        let (mut up, mut down) = ([0.0; POLES], [0.0; POLES]);
        for row in &rows {
            let sum: f64 = row.iter().zip(&squares).map(|(h, s)| h * s).sum();
            for i in 0..POLES {
                up[i] += row[i];
                down[i] += row[i] * sum;
            }
        }
        for i in 0..POLES {
            squares[i] *= up[i] / down[i];
        }
    }
    let weight = squares.map(f64::sqrt);
    let sum: f64 = weight.iter().sum();
    weight.map(|c| c / sum)
}

/// The g with which tanh(g·x) has standard deviation `std`, x taken as normal.
fn gain(poles: &[Pole], std: f64) -> f64 {
    let sigma = deviation(poles);
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..200 {
        let g = 0.5 * (low + high);
        if spread(g * sigma) < std { low = g } else { high = g }
    }
    0.5 * (low + high)
}

/// Standard deviation of x. Each low pass is driven by its own w, of variance 1/3: variances add.
fn deviation(poles: &[Pole]) -> f64 {
    let variance = |p: &Pole| p.weight * p.weight / 3.0 * (1.0 - p.keep) / (1.0 + p.keep);
    poles.iter().map(variance).sum::<f64>().sqrt()
}

/// Standard deviation of tanh(s·z) for a unit normal z, by the trapezoid rule.
fn spread(s: f64) -> f64 {
    let (step, most) = (0.01, 900);
    let density = |z: f64| (-0.5 * z * z).exp() / TAU.sqrt();
    let sum: f64 = (-most..=most)
        .map(|i| {
            let z = f64::from(i) * step;
            density(z) * (s * z).tanh().powi(2)
        })
        .sum();
    (sum * step).sqrt()
}

/// Splitmix64's step.
pub(crate) fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 53 bits as a number in [−1, 1).
fn uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// 64-bit FNV-1a of a joint's name.
pub(crate) fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// No strain on any joint.
pub(super) const RELAXED: Joints = [0.0; MAX_JOINTS];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::robot::tests::{bundle, two_joints};

    fn noise(amplitude: f64, rate: f64, robot: &Robot) -> Noise {
        let both = |x: f64| json!({ "wrist": x, "shoulder": x });
        let manifest = bundle(|b| {
            b["noise"] =
                json!({ "kind": "bounded", "amplitude": both(amplitude), "rate": both(rate), "seed": 7 });
        });
        let limits: Vec<Limits> = robot.joints.iter().map(|j| j.limits).collect();
        Noise::new(&manifest, robot, &limits, 1.0).unwrap().unwrap()
    }

    #[test]
    fn the_driver_has_its_golden_values() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(fnv1a("left_knee"), 0x1ae9_d3be_fe1d_7c42);
        let w = |epoch: u64, tick: u64, pole: u64| {
            uniform(mix(mix(mix(mix(7) ^ epoch) ^ tick) ^ fnv1a("left_knee").wrapping_add(pole)))
        };
        let golden = [0.475140378382918, -0.8219683288313524, -0.6194825479978223];
        for (tick, value) in (0..).zip(golden) {
            assert!((w(0, tick, 0) - value).abs() < 1e-15, "{tick}");
        }
        assert!((w(0, 0, 1) - 0.497156286310956).abs() < 1e-15);
        assert!((w(1, 0, 0) - 0.9175703377443383).abs() < 1e-15);
    }

    #[test]
    fn the_filtered_noise_has_its_golden_values() {
        let poles: Vec<Pole> = [(0.5, 0.4), (1.0, 0.3), (2.0, 0.2), (4.0, 0.1)]
            .map(|(f, weight)| Pole { keep: (-TAU * f * 0.01f64).exp(), weight })
            .into();
        assert!((deviation(&poles) - 0.05507451591092327).abs() < 1e-15);
        let rate: f64 = poles.iter().map(|p| 2.0 * p.weight * (1.0 - p.keep)).sum();
        assert!((rate - 0.1529631513479476).abs() < 1e-15);
        let colour = Colour { poles, gain: 1.0 };
        let mut y = [0.0; POLES];
        let golden = [0.025382905615414106, -0.02082857700331265, -0.04171198209755933, -0.07455641683797151];
        for (tick, value) in (0..).zip(golden) {
            let x = colour.step(mix(mix(mix(7)) ^ tick), fnv1a("left_knee"), &mut y);
            assert!((x - value).abs() < 1e-14, "{tick}: {x}");
        }
    }

    #[test]
    fn the_spectrum_falls_as_asked_and_the_size_is_as_asked() {
        for (exponent, slope) in [(0.0, -0.06), (0.5, -0.49), (1.0, -1.0), (1.5, -1.51)] {
            let colour = Colour::new(exponent, 0.3, 0.01);
            let points: Vec<(f64, f64)> = (0..200)
                .map(|i| {
                    let f = 0.25 * 16f64.powf(f64::from(i) / 199.0);
                    let sum: f64 =
                        colour.poles.iter().map(|p| p.weight * p.weight * power(p.keep, f, 0.01)).sum();
                    (f.ln(), sum.ln())
                })
                .collect();
            let mean = |f: fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / 200.0;
            let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
            let up: f64 = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
            let down: f64 = points.iter().map(|p| (p.0 - mx).powi(2)).sum();
            assert!((up / down - slope).abs() < 0.03, "{exponent}: {}", up / down);
            assert!((spread(colour.gain * deviation(&colour.poles)) - 0.3).abs() < 1e-9);
        }
        assert!((spread(0.3) - 0.2774).abs() < 1e-4 && (spread(0.5) - 0.41655).abs() < 1e-4);
    }

    #[test]
    fn a_share_without_permission_is_refused() {
        let robot = two_joints();
        let limits: Vec<Limits> = robot.joints.iter().map(|j| j.limits).collect();
        let plain = bundle(|_| {});
        assert!(Noise::new(&plain, &robot, &limits, 0.0).unwrap().is_none());
        for (share, text) in [(0.5, "allows no noise"), (1.5, "1.5"), (f64::NAN, "NaN"), (-0.1, "-0.1")] {
            let error = Noise::new(&plain, &robot, &limits, share).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// The proof's bounds for any target, error and permission; every share of both is used.
        #[test]
        fn noise_keeps_amplitude_and_rate(
            amplitude in 1e-3..0.5f64, relative in 1e-3..0.5f64, wild: bool, mut seed: u64, start in 0u64..1_000_000,
        ) {
            let robot = two_joints();
            let rate = relative * amplitude;
            let mut noise = noise(amplitude, rate, &robot);
            let mut before = [0.0; 2];
            for tick in start..start + 400 {
                seed = mix(seed);
                let any = |k: u64| if wild { 4.0 * uniform(mix(seed ^ k)) } else { 0.0 };
                let target = match seed % 50 { 0 if wild => f64::NAN, 1 if wild => f64::INFINITY, _ => any(1) };
                let (mut q, mut dq) = ([target; MAX_JOINTS], [0.0; MAX_JOINTS]);
                noise.add(3, tick, &[any(2); MAX_JOINTS], 1.0 - any(3).abs(), &mut q, &mut dq);
                for joint in 0..2 {
                    let offset = noise.joints[joint].as_ref().unwrap().memory.offset;
                    prop_assert!(offset.abs() <= amplitude);
                    let change = (offset - before[joint]).abs();
                    prop_assert!(change <= rate * (1.0 + 1e-12), "{} {}", change, rate);
                    prop_assert!((dq[joint] - (offset - before[joint]) / 0.004).abs() < 1e-9);
                    before[joint] = offset;
                }
                prop_assert!(q[2].to_bits() == target.to_bits() && dq[2] == 0.0, "only the robot's joints");
            }
            prop_assert!(wild || before != [0.0; 2]);
        }

        /// Noise belongs to a joint's name, an epoch and a tick.
        #[test]
        fn noise_follows_the_joint_s_name(epoch: u32, from in 0u64..1_000_000_000) {
            let robot = two_joints();
            let mut swapped = robot.clone();
            swapped.joints.swap(0, 1);
            let (mut a, mut b) = (noise(0.1, 0.01, &robot), noise(0.1, 0.01, &swapped));
            let mut other = noise(0.1, 0.01, &robot);
            let mut differs = false;
            for tick in from..from + 50 {
                let [mut qa, mut qb, mut qc] = [[0.5; MAX_JOINTS]; 3];
                let mut dq = [0.0; MAX_JOINTS];
                a.add(epoch, tick, &RELAXED, 1.0, &mut qa, &mut dq);
                b.add(epoch, tick, &RELAXED, 1.0, &mut qb, &mut dq);
                other.add(epoch.wrapping_add(1), tick, &RELAXED, 1.0, &mut qc, &mut dq);
                prop_assert_eq!(qa[0].to_bits(), qb[1].to_bits());
                prop_assert_eq!(qa[1].to_bits(), qb[0].to_bits());
                differs |= qa[0] != qc[0];
            }
            prop_assert!(differs);
        }
    }

    /// The bounds are used, not only kept: noise that hardly moves would keep them as well.
    #[test]
    fn noise_reaches_its_bounds() {
        let robot = two_joints();
        let mut slow = noise(0.1, 1e-4, &robot);
        let mut large = noise(0.1, 1.0, &robot);
        let (mut steepest, mut widest, mut sum, mut before) = (0.0f64, 0.0f64, 0.0, 0.0);
        for tick in 0..40_000 {
            let (mut q, mut dq) = ([0.5; MAX_JOINTS], [0.0; MAX_JOINTS]);
            slow.add(0, tick, &RELAXED, 1.0, &mut q, &mut dq);
            steepest = steepest.max((q[0] - 0.5 - before).abs());
            before = q[0] - 0.5;
            let mut q = [0.5; MAX_JOINTS];
            large.add(0, tick, &RELAXED, 1.0, &mut q, &mut dq);
            widest = widest.max((q[0] - 0.5).abs());
            sum += (q[0] - 0.5).powi(2);
        }
        // The margin is settled, so that the noise has its own share of the rate.
        assert!(steepest > 0.999 * OWN * 1e-4, "{steepest}");
        assert!(widest > 0.08, "{widest}");
        let std = (sum / 40_000.0f64).sqrt() / 0.1;
        assert!((std - 0.3).abs() < 0.05, "{std}");
    }
}
