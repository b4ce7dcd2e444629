//! Keeps every joint inside its position, velocity, acceleration and jerk limits, whatever it is asked for.
//!
//! Each joint follows its target with a braking law: it never moves faster than it can still brake before its target
//! and before the end of its range. A [`Boxcar`] then rounds the corners. For every sequence of inputs (NaN and ±∞ included)
//! and every tick
//!
//! ```text
//! lo ≤ q ≤ hi,   |dq| ≤ velocity,   |ddq| ≤ acceleration,   |dddq| ≤ jerk
//! ```
//!
//! as differences of what was sent. With the target's own velocity given, a ramp is followed without lag of the law; the
//! boxcar's constant [`delay`](Limiter::delay) remains.

use serde::{Deserialize, Serialize};

use super::LimitError;
use super::boxcar::Boxcar;
use crate::robot::Limits;
use crate::state::{Joints, MAX_JOINTS};

/// Largest difference between target and output that does not count as a change, rad.
const SAME: f64 = 1e-9;

/// The limiter of all joints, robot order. Allocates nothing.
#[derive(Clone, Debug)]
pub struct Limiter {
    pub(super) axes: Vec<Axis>,
    dt: f64,
}

/// One joint: its limits, where the law is, and what was sent.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    lo: f64,
    hi: f64,
    /// Largest velocity.
    top: f64,
    /// Largest change of velocity in one tick.
    a: f64,
    pub(super) motion: Motion,
    pub(super) boxcar: Boxcar,
}

/// Where one joint is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Motion {
    /// Position and velocity of the law.
    p: f64,
    v: f64,
    /// The last finite target.
    u: f64,
    /// Position and velocity that were sent.
    q: f64,
    dq: f64,
}

impl Motion {
    fn at(q: f64, dq: f64) -> Self {
        Self { p: q, v: dq, u: q, q, dq }
    }
}

impl Limiter {
    /// A limiter for joints with these limits and a control period of `dt` seconds. It must be [`reset`](Self::reset)
    /// before the first step; until then it stands in the middle of the ranges.
    ///
    /// # Errors
    /// [`LimitError::BadLimits`] for an empty range, for a limit that is not a positive finite number (an infinite jerk is
    /// no bound on it) and for a jerk so small that it would delay motion by more than 500 ticks;
    /// [`LimitError::TooManyJoints`].
    pub fn new(limits: &[Limits], dt: f64) -> Result<Self, LimitError> {
        if limits.len() > MAX_JOINTS {
            return Err(LimitError::TooManyJoints { n: limits.len() });
        }
        let axis = |(joint, l): (usize, &Limits)| {
            let [lo, hi] = l.position;
            let (top, a) = (l.velocity, l.acceleration * dt);
            let positive = |x: f64| x > 0.0 && x.is_finite();
            let inside = lo < hi && positive(hi - lo);
            let boxcar = Boxcar::new(l.acceleration, l.jerk, dt, lo + 0.5 * (hi - lo));
            match boxcar.filter(|_| inside && positive(top) && positive(a) && positive(dt) && l.jerk > 0.0) {
                Some(boxcar) => {
                    Ok(Axis { lo, hi, top, a, motion: Motion::at(lo + 0.5 * (hi - lo), 0.0), boxcar })
                }
                None => Err(LimitError::BadLimits { joint }),
            }
        };
        Ok(Self { axes: limits.iter().enumerate().map(axis).collect::<Result<_, _>>()?, dt })
    }

    /// Starts at rest at the measured position.
    ///
    /// # Errors
    /// [`LimitError::OutsideLimits`] when a joint is measured outside its range, or not as a number; nothing changes.
    pub fn reset(&mut self, q: &Joints) -> Result<(), LimitError> {
        self.admit(q, &[0.0; MAX_JOINTS])?;
        for (joint, axis) in self.axes.iter_mut().enumerate() {
            axis.place(q[joint], 0.0);
        }
        Ok(())
    }

    /// Goes on from what was sent last, after somebody else (the gate) has sent it. A joint that was sent what this limiter
    /// gave goes on as if nothing had happened. One that was moved by somebody else goes on from there without a bound on its
    /// jerk until it next stands still: its past belongs to another motion.
    ///
    /// # Errors
    /// [`LimitError::OutsideLimits`] or [`LimitError::TooFast`]; nothing changes.
    pub fn seed(&mut self, q: &Joints, dq: &Joints) -> Result<(), LimitError> {
        self.admit(q, dq)?;
        for (joint, axis) in self.axes.iter_mut().enumerate() {
            let ours = (dq[joint] - axis.motion.dq).abs() <= SAME * axis.top;
            if !(ours && q[joint] == axis.motion.q) {
                axis.place(q[joint], dq[joint]);
            }
        }
        Ok(())
    }

    fn admit(&self, q: &Joints, dq: &Joints) -> Result<(), LimitError> {
        for (joint, axis) in self.axes.iter().enumerate() {
            let (q, dq) = (q[joint], dq[joint]);
            if !(axis.lo..=axis.hi).contains(&q) {
                return Err(LimitError::OutsideLimits { joint, q, lo: axis.lo, hi: axis.hi });
            }
            let slow = dq.abs() <= axis.top * (1.0 + 1e-9);
            if !slow {
                return Err(LimitError::TooFast { joint, dq, velocity: axis.top });
            }
        }
        Ok(())
    }

    /// One control tick towards `target`, which itself moves with `velocity`. A target that is not finite repeats the
    /// joint's last one. Returns one bit for each joint whose output differs from its target.
    pub fn step(&mut self, target: &Joints, velocity: &Joints, q: &mut Joints, dq: &mut Joints) -> u64 {
        let mut changed = 0;
        for (joint, axis) in self.axes.iter_mut().enumerate() {
            axis.step(target[joint], velocity[joint], self.dt);
            (q[joint], dq[joint]) = axis.send(self.dt);
            // A target that is not a number is not reached. The boxcar's lag is no change.
            let reached = (axis.motion.p - target[joint]).abs() <= SAME;
            changed |= u64::from(!reached) << joint;
        }
        changed
    }

    /// One control tick towards the nearest point of rest. Returns whether all joints are at rest.
    pub fn brake(&mut self, q: &mut Joints, dq: &mut Joints) -> bool {
        let mut rest = true;
        for (joint, axis) in self.axes.iter_mut().enumerate() {
            let Motion { p, v, .. } = axis.motion;
            let after = braking(v.abs(), axis.a) - v.abs();
            axis.step(p + v.signum() * after * self.dt, 0.0, self.dt);
            let Motion { p, v, .. } = axis.motion;
            // The braking point is only as exact as the position; what is left below rounding is rest.
            if v.abs() <= f64::EPSILON * (1.0 + p.abs()) / self.dt {
                axis.motion.v = 0.0;
            }
            (q[joint], dq[joint]) = axis.send(self.dt);
            rest &= axis.motion.v == 0.0 && axis.boxcar.settled(p);
        }
        rest
    }

    /// Position and velocity that were sent last.
    pub fn last(&self) -> (Joints, Joints) {
        let (mut q, mut dq) = ([0.0; MAX_JOINTS], [0.0; MAX_JOINTS]);
        for (joint, axis) in self.axes.iter().enumerate() {
            (q[joint], dq[joint]) = (axis.motion.q, axis.motion.dq);
        }
        (q, dq)
    }

    /// The longest delay that the jerk bound costs, s.
    pub fn delay(&self) -> f64 {
        self.axes.iter().map(|axis| axis.boxcar.delay()).fold(0.0, f64::max) * self.dt
    }
}

impl Axis {
    /// Moves to `q` with velocity `dq`, whatever was before.
    fn place(&mut self, q: f64, dq: f64) {
        self.motion = Motion::at(q, dq);
        if dq == 0.0 { self.boxcar.fill(q) } else { self.boxcar.bypass(q) }
    }

    /// The braking law.
    fn step(&mut self, target: f64, velocity: f64, dt: f64) {
        let Self { lo, hi, top, a, motion: Motion { p, v, u, .. }, .. } = *self;
        let u = if target.is_finite() { target.clamp(lo, hi) } else { u };
        let w = if velocity.is_finite() { velocity.clamp(-top, top) } else { 0.0 };
        let e = (u - p) / dt - w;
        let wish = (w + e.signum() * safe_speed(e.abs(), a)).clamp(-top, top);
        let v = wish.clamp(v - a, v + a);
        // Both bounds are safe at once: braking with `a` always suffices from a speed that was safe one tick ago.
        let down = top.min(safe_speed((p - lo) / dt, a));
        let up = top.min(safe_speed((hi - p) / dt, a));
        let v = v.clamp(-down, up);
        // Removes one unit of rounding; the law itself stays inside.
        (self.motion.p, self.motion.v, self.motion.u) = ((p + v * dt).clamp(lo, hi), v, u);
    }

    /// What the motor is sent.
    fn send(&mut self, dt: f64) -> (f64, f64) {
        let (q, dq) = self.boxcar.step(self.motion.p, self.motion.v, dt);
        (self.motion.q, self.motion.dq) = (q.clamp(self.lo, self.hi), dq);
        (self.motion.q, self.motion.dq)
    }
}

/// Largest speed from which braking by `a` each tick still ends within `d`, the distance divided by the tick.
fn safe_speed(d: f64, a: f64) -> f64 {
    if d <= 0.0 {
        return 0.0;
    }
    let m = (((1.0 + 8.0 * d / a).sqrt() - 1.0) / 2.0).floor();
    d / (m + 1.0) + a * m / 2.0
}

/// Braking path of speed `v ≥ 0`, this tick included, divided by the tick: the inverse of [`safe_speed`].
fn braking(v: f64, a: f64) -> f64 {
    let m = (v / a).floor();
    (m + 1.0) * v - a * m * (m + 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(position: [f64; 2], velocity: f64, acceleration: f64) -> Limits {
        Limits {
            position,
            velocity,
            acceleration,
            jerk: f64::INFINITY,
            effort: 1.0,
            effort_rate: None,
            temperature: None,
        }
    }

    fn all(x: f64) -> Joints {
        [x; MAX_JOINTS]
    }

    #[test]
    fn safe_speed_has_its_golden_values() {
        for (d, v) in [(0.1, 0.1), (0.3, 0.25), (0.6, 0.4), (1.0, 0.533333333333), (5.0, 1.314285714286)] {
            assert!((safe_speed(d, 0.2) - v).abs() < 1e-12, "{d}");
        }
        assert!((braking(1.0, 0.2) - 3.0).abs() < 1e-12);
        assert!((braking(0.5, 0.2) - 0.9).abs() < 1e-12);
        assert_eq!(safe_speed(-1.0, 0.2), 0.0);
    }

    #[test]
    fn a_step_has_its_golden_course() {
        let mut limiter = Limiter::new(&[limits([-1.0, 1.0], 1.0, 200.0)], 1e-3).unwrap();
        limiter.reset(&all(0.0)).unwrap();
        let golden = [
            0.0002, 0.0006, 0.0012, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.0088, 0.0094, 0.0098,
            0.01, 0.01,
        ];
        let (mut q, mut dq) = (all(0.0), all(0.0));
        for (tick, expected) in golden.into_iter().enumerate() {
            let changed = limiter.step(&all(0.01), &all(0.0), &mut q, &mut dq);
            assert!((q[0] - expected).abs() < 1e-12, "tick {tick}: {} {expected}", q[0]);
            assert_eq!(changed, u64::from(tick < 13));
        }
    }

    #[test]
    fn a_step_with_bounded_jerk_has_its_golden_course() {
        let l = Limits { jerk: 100_000.0, ..limits([-1.0, 1.0], 1.0, 200.0) };
        let mut limiter = Limiter::new(&[l], 1e-3).unwrap();
        limiter.reset(&all(0.0)).unwrap();
        assert_eq!(limiter.delay(), 1.5e-3);
        let golden = [
            0.00005, 0.0002, 0.0005, 0.001, 0.0017, 0.00255, 0.0035, 0.0045, 0.0055, 0.0065, 0.00745, 0.0083,
            0.009, 0.0095, 0.0098, 0.00995, 0.01,
        ];
        let (mut q, mut dq) = (all(0.0), all(0.0));
        for (tick, expected) in golden.into_iter().enumerate() {
            let before = q[0];
            limiter.step(&all(0.01), &all(0.0), &mut q, &mut dq);
            assert!((q[0] - expected).abs() < 1e-12, "tick {tick}: {} {expected}", q[0]);
            assert!((dq[0] - (q[0] - before) / 1e-3).abs() < 1e-9);
        }
    }

    #[test]
    fn a_joint_that_somebody_moved_is_bounded_in_jerk_again_once_it_has_stood_still() {
        let l = Limits { jerk: 10_000.0, ..limits([-2.0, 2.0], 3.0, 60.0) };
        let mut limiter = Limiter::new(&[l, l], 2e-3).unwrap();
        limiter.reset(&all(0.0)).unwrap();
        let (mut q, mut dq) = (all(0.0), all(0.0));
        for _ in 0..40 {
            limiter.step(&all(1.0), &all(0.0), &mut q, &mut dq);
        }
        let mut alone = limiter.clone();
        // Somebody holds the first joint back; the second goes on as if nothing had happened.
        q[0] -= 1e-3;
        dq[0] = 0.5;
        limiter.seed(&q, &dq).unwrap();
        let (mut q2, mut dq2) = (q, dq);
        for tick in 0..600 {
            alone.step(&all(1.0), &all(0.0), &mut q2, &mut dq2);
            let before = dq[0];
            limiter.step(&all(1.0), &all(0.0), &mut q, &mut dq);
            assert_eq!((q[1].to_bits(), dq[1].to_bits()), (q2[1].to_bits(), dq2[1].to_bits()), "tick {tick}");
            assert!((dq[0] - before).abs() <= 60.0 * 2e-3 * (1.0 + 1e-9));
        }
        assert_eq!((q[0], dq[0]), (1.0, 0.0));
        let (mut hardest, mut acceleration) = (0.0f64, 0.0);
        for _ in 0..600 {
            let before = dq[0];
            limiter.step(&all(-1.0), &all(0.0), &mut q, &mut dq);
            let now = (dq[0] - before) / 2e-3;
            hardest = hardest.max((now - acceleration).abs() / 2e-3);
            acceleration = now;
        }
        // Half of the limit: the acceleration is never reversed in one tick here.
        assert!((hardest - 5_000.0).abs() < 1e-3, "{hardest}");
    }

    #[test]
    fn a_ramp_with_its_velocity_is_followed_without_lag() {
        let mut limiter = Limiter::new(&[limits([-9.0, 9.0], 6.0, 200.0)], 1e-3).unwrap();
        limiter.reset(&all(0.0)).unwrap();
        let (mut q, mut dq) = (all(0.0), all(0.0));
        let mut lag = 0.0;
        for tick in 1..400 {
            let target = 5e-3 * f64::from(tick);
            limiter.step(&all(target), &all(5.0), &mut q, &mut dq);
            lag = target - q[0];
        }
        assert!(lag.abs() < 1e-12, "{lag}");
        assert!((dq[0] - 5.0).abs() < 1e-9);
    }

    #[test]
    fn a_ramp_without_its_velocity_lags_as_computed() {
        let mut limiter = Limiter::new(&[limits([-9.0, 9.0], 6.0, 200.0)], 1e-3).unwrap();
        limiter.reset(&all(0.0)).unwrap();
        let (mut q, mut dq) = (all(0.0), all(0.0));
        for tick in 1..800 {
            limiter.step(&all(5e-3 * f64::from(tick)), &all(0.0), &mut q, &mut dq);
        }
        let lag = 5e-3 * 799.0 - q[0];
        assert!((lag - 0.060).abs() < 2e-3, "{lag}");
    }

    #[test]
    fn a_joint_outside_its_range_is_refused_and_nothing_moves() {
        let mut limiter = Limiter::new(&[limits([-1.0, 1.0], 1.0, 10.0); 2], 2e-3).unwrap();
        limiter.reset(&all(0.5)).unwrap();
        let mut q = all(0.0);
        q[1] = 1.5;
        let refused = LimitError::OutsideLimits { joint: 1, q: 1.5, lo: -1.0, hi: 1.0 };
        assert_eq!(limiter.reset(&q), Err(refused));
        assert!(limiter.reset(&all(f64::NAN)).is_err());
        let fast = LimitError::TooFast { joint: 0, dq: 2.0, velocity: 1.0 };
        assert_eq!(limiter.seed(&all(0.0), &all(2.0)), Err(fast));
        assert_eq!(limiter.last().0[..2], [0.5, 0.5]);
    }

    #[test]
    fn limits_without_inside_are_refused() {
        for l in [
            limits([1.0, 1.0], 1.0, 1.0),
            limits([f64::NAN, 1.0], 1.0, 1.0),
            limits([0.0, f64::INFINITY], 1.0, 1.0),
            limits([0.0, 1.0], 0.0, 1.0),
            limits([0.0, 1.0], 1.0, f64::NAN),
            Limits { jerk: 0.0, ..limits([0.0, 1.0], 1.0, 1.0) },
            Limits { jerk: f64::NAN, ..limits([0.0, 1.0], 1.0, 1.0) },
            Limits { jerk: 1e-9, ..limits([0.0, 1.0], 1.0, 1.0) },
        ] {
            assert_eq!(Limiter::new(&[l], 1e-3).unwrap_err(), LimitError::BadLimits { joint: 0 });
        }
        assert!(Limiter::new(&[limits([0.0, 1.0], 1.0, 1.0)], 0.0).is_err());
    }

    #[test]
    fn going_on_from_what_was_sent_is_seamless() {
        let l = [limits([-2.0, 2.0], 3.0, 60.0)];
        let mut whole = Limiter::new(&l, 2e-3).unwrap();
        whole.reset(&all(0.0)).unwrap();
        let (mut q, mut dq) = (all(0.0), all(0.0));
        for _ in 0..40 {
            whole.step(&all(1.0), &all(0.0), &mut q, &mut dq);
        }
        let mut resumed = Limiter::new(&l, 2e-3).unwrap();
        resumed.seed(&q, &dq).unwrap();
        let (mut q2, mut dq2) = (all(0.0), all(0.0));
        for _ in 0..400 {
            whole.step(&all(1.0), &all(0.0), &mut q, &mut dq);
            resumed.step(&all(1.0), &all(0.0), &mut q2, &mut dq2);
            assert_eq!((q[0].to_bits(), dq[0].to_bits()), (q2[0].to_bits(), dq2[0].to_bits()));
        }
    }

    /// What a hostile policy may ask for.
    fn target(shape: u8, random: f64, tick: usize) -> f64 {
        match shape {
            0 => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 9.0 * random][tick % 4],
            1 => {
                if (tick / 37).is_multiple_of(2) {
                    1e9
                } else {
                    -1e9
                }
            }
            2 => 3.0 * (tick as f64 * 0.004 * (1.0 + random.abs())).sin(),
            3 => 2.0 * random,
            _ => {
                if (tick / 500).is_multiple_of(2) {
                    1.0
                } else {
                    0.2 * random
                }
            }
        }
    }

    /// splitmix64, for input streams longer than proptest likes to hold.
    fn uniform(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    use std::sync::Mutex;
    /// Largest ratios seen over the whole suite: velocity, acceleration, jerk.
    static SEEN: Mutex<[f64; 3]> = Mutex::new([0.0; 3]);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// The proof's bounds, for hostile inputs, with braking thrown in.
        #[test]
        fn nothing_leaves_its_limits(
            seed: u64, shape in 0u8..5, start in -0.9..0.9f64, top in 0.1..30.0f64, acc in 1.0..900.0f64,
            dt in 5e-4..2e-2f64, brakes: bool, taps in 1..40u32,
        ) {
            let mut rng = seed;
            let jerk = 2.0 * acc / (f64::from(taps) * dt) * (1.0 + 1e-9);
            let l = Limits { jerk, ..limits([-1.0, 1.0], top, acc) };
            let mut limiter = Limiter::new(&[l], dt).unwrap();
            limiter.reset(&all(start)).unwrap();
            prop_assert_eq!(limiter.delay(), f64::from(taps - 1) / 2.0 * dt);
            let (mut q, mut dq) = (all(start), all(0.0));
            let (mut fastest, mut hardest, mut sharpest, mut acceleration) = (0.0f64, 0.0f64, 0.0f64, 0.0);
            for tick in 0..2000 {
                let before = (q[0], dq[0]);
                if brakes && tick % 400 > 330 {
                    limiter.brake(&mut q, &mut dq);
                } else {
                    let w = match tick % 3 { 0 => 0.0, 1 => top * uniform(&mut rng), _ => f64::NAN };
                    limiter.step(&all(target(shape, uniform(&mut rng), tick)), &all(w), &mut q, &mut dq);
                }
                prop_assert!((-1.0..=1.0).contains(&q[0]), "tick {}: {}", tick, q[0]);
                // Judged by what the motor sees: the positions, not the law's own velocity.
                let v = (q[0] - before.0) / dt;
                prop_assert!((v - dq[0]).abs() <= 1e-12 / dt, "{} {}", v, dq[0]);
                fastest = fastest.max(dq[0].abs() / top);
                hardest = hardest.max((dq[0] - before.1).abs() / (acc * dt));
                let now = (dq[0] - before.1) / dt;
                sharpest = sharpest.max((now - acceleration).abs() / dt / jerk);
                acceleration = now;
            }
            prop_assert!(fastest <= 1.0 + 1e-9, "{}", fastest);
            prop_assert!(hardest <= 1.0 + 1e-6, "{}", hardest);
            prop_assert!(sharpest <= 1.0 + 1e-6, "{}", sharpest);
            let mut seen = SEEN.lock().unwrap();
            *seen = [seen[0].max(fastest), seen[1].max(hardest), seen[2].max(sharpest)];
        }

        /// An idle joint is sent the very same bits for ever.
        #[test]
        fn idle_stays_idle(start in -1.0..1.0f64, dt in 5e-4..2e-2f64) {
            let l = Limits { jerk: 2000.0, ..limits([-1.0, 1.0], 2.0, 20.0) };
            let mut limiter = Limiter::new(&[l], dt).unwrap();
            limiter.reset(&all(start)).unwrap();
            let (mut q, mut dq) = (all(0.0), all(0.0));
            for _ in 0..50 {
                let changed = limiter.step(&all(start), &all(0.0), &mut q, &mut dq);
                prop_assert_eq!((q[0].to_bits(), dq[0], changed), (start.to_bits(), 0.0, 0));
                prop_assert!(limiter.brake(&mut q, &mut dq));
                prop_assert_eq!(q[0].to_bits(), start.to_bits());
            }
        }

        /// Braking ends at rest after the computed number of ticks and on the computed path.
        #[test]
        fn braking_takes_the_shortest_path(speed in -3.0..3.0f64, acc in 5.0..200.0f64) {
            let dt = 2e-3;
            let mut limiter = Limiter::new(&[limits([-9.0, 9.0], 3.0, acc)], dt).unwrap();
            limiter.seed(&all(0.0), &all(speed)).unwrap();
            let (mut q, mut dq) = (all(0.0), all(0.0));
            let mut ticks = 1;
            while !limiter.brake(&mut q, &mut dq) {
                ticks += 1;
                prop_assert!(ticks < 10_000);
            }
            let a = acc * dt;
            let path: f64 = (1..10_000).map(|k| (speed.abs() - a * f64::from(k)).max(0.0) * dt).sum();
            prop_assert!((q[0].abs() - path).abs() < 1e-9, "{} {}", q[0], path);
            prop_assert!(f64::from(ticks) <= (speed.abs() / a).ceil() + 3.0, "{} ticks", ticks);
        }
    }

    /// The bounds are not only kept but used: a limiter that crawls would keep them as well.
    #[test]
    fn the_bounds_are_attained() {
        nothing_leaves_its_limits();
        let seen = *SEEN.lock().unwrap();
        assert!(seen.iter().all(|ratio| *ratio > 0.999), "{seen:?}");
    }
}
