//! The rules of the observation: which sources exist, how many numbers each gives and which settings it takes.

use super::rules::{DIMENSION_CAP, finite, known, length, not_empty, ordered, positive, unique};
use super::{Interleave, Manifest, ManifestError, Numbers, Term};

/// What decides the size of a source.
enum Size {
    Is(usize),
    Joints,
    Commands,
    Action,
    Value,
    Free,
}

/// A source: its name, its size, the settings that it needs and those that it may have besides.
type Source = (&'static str, Size, &'static [&'static str], &'static [&'static str]);

const SOURCES: [Source; 22] = [
    ("joint_pos", Size::Joints, &[], &["absolute"]),
    ("joint_vel", Size::Joints, &[], &[]),
    ("joint_effort", Size::Joints, &[], &[]),
    ("joint_target_error", Size::Joints, &[], &[]),
    ("gyro", Size::Is(3), &[], &[]),
    ("accelerometer", Size::Is(3), &[], &[]),
    ("projected_gravity", Size::Is(3), &[], &[]),
    ("base_quat", Size::Is(4), &[], &[]),
    ("base_pos", Size::Is(3), &[], &[]),
    ("base_lin_vel", Size::Is(3), &[], &[]),
    ("command", Size::Commands, &[], &["commands"]),
    ("last_action", Size::Action, &[], &[]),
    ("prev_executed_action", Size::Action, &[], &[]),
    ("phase", Size::Is(2), &["period"], &[]),
    ("time", Size::Is(1), &[], &[]),
    ("constant", Size::Value, &["value"], &[]),
    ("frame_pos", Size::Is(3), &["frame"], &[]),
    ("frame_pos_error", Size::Is(3), &["frame", "target"], &["in", "soft"]),
    ("target_cylindrical", Size::Is(2), &["target"], &[]),
    ("object_pos", Size::Is(3), &["object"], &[]),
    ("object_pos_error", Size::Is(3), &["object", "frame"], &["in"]),
    ("mission.*", Size::Free, &[], &[]),
];

impl Manifest {
    /// Checks the observation alone: sources, sizes, settings, histories, names. Whoever compiles the terms of a
    /// manifest that did not come out of a bundle asks this first.
    ///
    /// # Errors
    /// [`ManifestError`] with the place and the value.
    pub fn validate_observation(&self) -> Result<(), ManifestError> {
        check(self)
    }
}

impl Manifest {
    /// Name of the term that element `i` of the observation belongs to.
    pub fn term_of(&self, i: usize) -> Option<&str> {
        let o = &self.observation;
        let by_time = o.interleave == Interleave::Time;
        let frame: usize = o.terms.iter().map(|t| t.size).sum();
        let mut rest = if by_time { i.checked_rem(frame)? } else { i };
        for term in &o.terms {
            let width = if by_time { term.size } else { term.size * term.history.length };
            if rest < width {
                return (i < o.size).then_some(term.name.as_str());
            }
            rest -= width;
        }
        None
    }
}

/// Checks all terms and the size of the observation.
pub(super) fn check(m: &Manifest) -> Result<(), ManifestError> {
    let o = &m.observation;
    unique("observation.terms", o.terms.iter().map(|t| t.name.as_str()))?;
    let mut total = 0usize;
    for term in &o.terms {
        check_term(m, term)?;
        total = total.saturating_add(term.size.saturating_mul(term.history.length));
    }
    let differs = |t: &&Term| t.history.length != o.terms[0].history.length;
    if o.interleave == Interleave::Time
        && let Some(other) = o.terms.iter().find(differs)
    {
        let (a, b) = (o.terms[0].history.length, other.history.length);
        let why =
            format!("time needs equal histories, but {} has {a} and {} has {b}", o.terms[0].name, other.name);
        return Err(ManifestError::Contradiction { at: "observation.interleave".into(), why });
    }
    if total == 0 {
        return Err(ManifestError::Size { at: "observation.terms".into(), expected: 1, got: 0 });
    }
    if total > DIMENSION_CAP {
        let rule = "is more than 65536, over all terms";
        return Err(ManifestError::Range { at: "observation.size".into(), value: total as f64, rule });
    }
    length("observation.size", total, o.size)
}

fn check_term(m: &Manifest, term: &Term) -> Result<(), ManifestError> {
    let at = |field: &str| format!("observation.terms.{}.{field}", term.name);
    not_empty("observation.terms.name", &term.name)?;
    for (field, x) in [("size", term.size), ("history.length", term.history.length)] {
        if x == 0 || x > DIMENSION_CAP {
            let rule = "is not between 1 and 65536";
            return Err(ManifestError::Range { at: at(field), value: x as f64, rule });
        }
    }
    check_source(m, term)?;
    for (field, numbers) in [("offset", &term.offset), ("scale", &term.scale)] {
        if let Numbers::Each(v) = numbers {
            length(&at(field), term.size, v.len())?;
        }
        (0..term.size).filter_map(|i| numbers.get(i)).try_for_each(|x| finite(&at(field), x))?;
    }
    term.clip.map_or(Ok(()), |clip| ordered(&at("clip"), clip, false))
}

fn check_source(m: &Manifest, term: &Term) -> Result<(), ManifestError> {
    let at = |field: &str| format!("observation.terms.{}.{field}", term.name);
    let contradiction = |field: &str, why: String| Err(ManifestError::Contradiction { at: at(field), why });
    if let Some(name) = term.source.strip_prefix("x-") {
        return not_empty(&at("source"), name);
    }
    let key = match term.source.split_once('.') {
        Some(("mission", name)) if !name.is_empty() => "mission.*",
        _ => term.source.as_str(),
    };
    let Some((_, size, needed, allowed)) = SOURCES.iter().find(|s| s.0 == key) else {
        return known(&at("source"), &term.source, SOURCES.iter().map(|s| s.0).chain(["x-*"]));
    };
    let given = given(term);
    if let Some(missing) = needed.iter().find(|n| !given.contains(n)) {
        return contradiction("params", format!("the source {} needs {missing}", term.source));
    }
    if let Some(extra) = given.iter().find(|g| !needed.contains(g) && !allowed.contains(g)) {
        return contradiction("params", format!("the source {} takes no {extra}", term.source));
    }
    check_params(m, term)?;
    if let Some(joints) = &term.joints {
        if !matches!(size, Size::Joints) {
            return contradiction("joints", format!("the source {} reads no joints", term.source));
        }
        unique(&at("joints"), joints.iter().map(String::as_str))?;
        joints.iter().try_for_each(|j| known(&at("joints"), j, m.joint_names()))?;
    }
    let expected = match size {
        Size::Is(n) => *n,
        Size::Joints => term.joints.as_ref().map_or(m.joints.len(), Vec::len),
        Size::Commands => term.params.commands.as_ref().map_or(m.commands.len(), Vec::len),
        Size::Action => m.action.joints.len(),
        Size::Value => term.params.value.as_ref().map_or(0, Vec::len),
        Size::Free => term.size,
    };
    length(&at("size"), expected, term.size)
}

/// Names of the settings that a term has.
fn given(term: &Term) -> Vec<&'static str> {
    let p = &term.params;
    [
        ("absolute", p.absolute.is_some()),
        ("period", p.period.is_some()),
        ("value", p.value.is_some()),
        ("frame", p.frame.is_some()),
        ("in", p.axes.is_some()),
        ("target", p.target.is_some()),
        ("soft", p.soft.is_some()),
        ("object", p.object.is_some()),
        ("commands", p.commands.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, is)| is.then_some(name))
    .collect()
}

fn check_params(m: &Manifest, term: &Term) -> Result<(), ManifestError> {
    let at = |field: &str| format!("observation.terms.{}.params.{field}", term.name);
    let p = &term.params;
    let frames = || m.frames.iter().map(|f| f.name.as_str());
    let commands = || m.commands.iter().map(|c| c.name.as_str());
    for (field, frame) in [("frame", &p.frame), ("in", &p.axes)] {
        frame.iter().try_for_each(|f| known(&at(field), f, frames()))?;
    }
    p.target.iter().flatten().try_for_each(|c| known(&at("target"), c, commands()))?;
    if let Some(slots) = &p.commands {
        unique(&at("commands"), slots.iter().map(String::as_str))?;
        slots.iter().try_for_each(|c| known(&at("commands"), c, commands()))?;
    }
    for (field, x) in [("period", p.period), ("soft", p.soft)] {
        x.map_or(Ok(()), |x| positive(&at(field), x))?;
    }
    p.value.iter().flatten().try_for_each(|&x| finite(&at("value"), x))?;
    p.object.iter().try_for_each(|o| not_empty(&at("object"), o))
}
