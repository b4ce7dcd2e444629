//! From the policy's rate to the control rate.

use crate::config::Upsample;

/// Value and slope of a joint `phase` (0…1) of the way from sample `a` to the next one, `step` seconds later. Without a
/// next sample the last one is held.
pub(super) fn between(how: Upsample, a: f64, next: Option<f64>, phase: f64, step: f64) -> (f64, f64) {
    match (how, next) {
        (Upsample::Linear, Some(b)) => (a + (b - a) * phase, (b - a) / step),
        _ => (a, 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hold_stands_still_and_linear_meets_both_ends() {
        assert_eq!(between(Upsample::Hold, 1.0, Some(3.0), 0.75, 0.04), (1.0, 0.0));
        assert_eq!(between(Upsample::Linear, 1.0, Some(3.0), 0.0, 0.04), (1.0, 50.0));
        assert_eq!(between(Upsample::Linear, 1.0, Some(3.0), 0.75, 0.04), (2.5, 50.0));
        assert_eq!(between(Upsample::Linear, 1.0, None, 0.75, 0.04), (1.0, 0.0));
    }
}
