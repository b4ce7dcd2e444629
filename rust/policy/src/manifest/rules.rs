//! The rules that a single value, list or name must keep, and how their errors are worded.

use std::collections::BTreeSet;

use super::ManifestError;

pub(super) type Checked = Result<(), ManifestError>;

/// Largest horizon, history or dimension.
pub(super) const DIMENSION_CAP: usize = 65_536;

pub(super) fn not_empty(at: &str, text: &str) -> Checked {
    if text.is_empty() {
        return Err(ManifestError::Contradiction { at: at.into(), why: "empty".into() });
    }
    Ok(())
}

pub(super) fn sha256(at: &str, text: &str) -> Checked {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(());
    }
    let why = format!("{text:?} is not a SHA-256 in lower-case hexadecimal");
    Err(ManifestError::Contradiction { at: at.into(), why })
}

pub(super) fn finite(at: &str, value: f64) -> Checked {
    range(at, value, value.is_finite(), "is not finite")
}

pub(super) fn positive(at: &str, value: f64) -> Checked {
    range(at, value, value.is_finite() && value > 0.0, "is not positive")
}

pub(super) fn at_least_zero(at: &str, value: f64) -> Checked {
    range(at, value, value.is_finite() && value >= 0.0, "is negative or not finite")
}

pub(super) fn range(at: &str, value: f64, holds: bool, rule: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(ManifestError::Range { at: at.into(), value, rule }) }
}

/// `[lo, hi]` with `lo < hi`, or `lo <= hi` when not strict.
pub(super) fn ordered(at: &str, [lo, hi]: [f64; 2], strict: bool) -> Checked {
    finite(at, lo)?;
    finite(at, hi)?;
    range(at, lo, lo < hi || (lo == hi && !strict), "is not below the upper end of its range")
}

pub(super) fn whole(at: &str, dt: f64, unit: f64) -> Checked {
    let ratio = dt / unit;
    let holds = ratio.round() >= 1.0 && (ratio - ratio.round()).abs() <= 1e-9 * ratio;
    range(at, dt, holds, "is not a whole multiple of rates.control_dt")
}

pub(super) fn unit(at: &str, v: &[f64]) -> Checked {
    let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    range(at, norm, (norm - 1.0).abs() <= 1e-6, "is the length, not 1")
}

pub(super) fn length(at: &str, expected: usize, got: usize) -> Checked {
    if expected == got { Ok(()) } else { Err(ManifestError::Size { at: at.into(), expected, got }) }
}

pub(super) fn unique<'a>(at: &str, names: impl Iterator<Item = &'a str>) -> Checked {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(ManifestError::Repeated { at: at.into(), name: name.into() });
        }
    }
    Ok(())
}

pub(super) fn known<'a>(at: &str, name: &str, names: impl Iterator<Item = &'a str>) -> Checked {
    let names: Vec<&str> = names.collect();
    if names.contains(&name) {
        return Ok(());
    }
    Err(ManifestError::Unknown { at: at.into(), name: name.into(), known: names.join(", ") })
}
