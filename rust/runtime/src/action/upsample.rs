//! From the policy's rate to the control rate.

use crate::config::Upsample;

/// Distances between four neighbouring samples of one joint: from the one before to the one that holds, from there to the
/// next, and on to the one after.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) before: Option<f64>,
    pub(super) next: Option<f64>,
    pub(super) after: Option<f64>,
}

/// How far a joint is beyond the sample that holds, and how fast it moves, `phase` (0…1) of the way to the next one, which is
/// due `dt` seconds after it. Without a next sample the last one is held.
pub(super) fn between(how: Upsample, steps: Steps, phase: f64, dt: f64) -> (f64, f64) {
    match (how, steps.next) {
        (Upsample::Linear, Some(d)) => (d * phase, d / dt),
        (Upsample::Cubic, Some(d)) => {
            let here = steps.before.map_or(d, |before| tangent(before, d));
            let there = steps.after.map_or(d, |after| tangent(d, after));
            let (t, t2) = (phase, phase * phase);
            let t3 = t2 * t;
            let x = d * (3.0 * t2 - 2.0 * t3) + here * (t3 - 2.0 * t2 + t) + there * (t3 - t2);
            let v = d * 6.0 * (t - t2) + here * (3.0 * t2 - 4.0 * t + 1.0) + there * (3.0 * t2 - 2.0 * t);
            (x, v / dt)
        }
        _ => (0.0, 0.0),
    }
}

/// Slope of the monotone cubic (Fritsch and Butland 1984) at a sample: the harmonic mean of the slopes beside it, 0 where
/// they differ in sign, so that nothing overshoots.
fn tangent(left: f64, right: f64) -> f64 {
    if left * right > 0.0 { 2.0 * left * right / (left + right) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn steps(before: Option<f64>, next: Option<f64>, after: Option<f64>) -> Steps {
        Steps { before, next, after }
    }

    #[test]
    fn hold_stands_still_and_linear_meets_both_ends() {
        let two = steps(None, Some(2.0), None);
        assert_eq!(between(Upsample::Hold, two, 0.75, 0.04), (0.0, 0.0));
        assert_eq!(between(Upsample::Linear, two, 0.0, 0.04), (0.0, 50.0));
        assert_eq!(between(Upsample::Linear, two, 0.75, 0.04), (1.5, 50.0));
        assert_eq!(between(Upsample::Linear, steps(Some(1.0), None, None), 0.75, 0.04), (0.0, 0.0));
    }

    #[test]
    fn cubic_has_its_golden_values() {
        // Samples 0, 1, 4, 9; PCHIP of the segment from 1 to 4.
        let squares = steps(Some(1.0), Some(3.0), Some(5.0));
        for (phase, value) in [(0.25, 1.503_906_25), (0.5, 2.218_75), (0.75, 3.074_218_75)] {
            assert_eq!(1.0 + between(Upsample::Cubic, squares, phase, 1.0).0, value);
        }
    }

    proptest! {
        /// It meets both samples, never leaves what lies between them, and its slope is its derivative.
        #[test]
        fn cubic_never_overshoots(
            before in prop::option::of(-3.0..3.0f64), d in -3.0..3.0f64, after in prop::option::of(-3.0..3.0f64),
            phase in 0.0..1.0f64,
        ) {
            let s = steps(before, Some(d), after);
            prop_assert_eq!(between(Upsample::Cubic, s, 0.0, 0.02).0, 0.0);
            prop_assert!((between(Upsample::Cubic, s, 1.0, 0.02).0 - d).abs() < 1e-12);
            let (x, v) = between(Upsample::Cubic, s, phase, 0.02);
            prop_assert!(x >= d.min(0.0) - 1e-12 && x <= d.max(0.0) + 1e-12, "{}", x);
            let h = 1e-6;
            let slope = (between(Upsample::Cubic, s, phase + h, 0.02).0 - between(Upsample::Cubic, s, phase - h, 0.02).0)
                / (2.0 * h * 0.02);
            prop_assert!((slope - v).abs() < 1e-4 * (1.0 + v.abs()), "{} {}", slope, v);
        }
    }
}
