//! From the network's numbers to joint positions: clip, scale, offset, clip, by joint name.
//!
//! For each action, `y = clip(raw_clip(r)·scale + offset)`. What `y` means is the action's kind: a position, a position
//! about the joint's default, or a change of the joint target that the measured joint keeps on a leash.

use std::collections::BTreeMap;

use cadenza_policy::manifest::{ActionKind, ActionOffset, ChunkMode, Manifest};

use super::ActionError;
use crate::robot::{JointMap, Robot, effective_limits};
use crate::state::{Joints, MAX_JOINTS, State};

/// Why a network output is refused. The decoder is unchanged afterwards.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The output has another size than the manifest says.
    #[error("the policy returned {got} numbers, expected {want}")]
    WrongLength {
        /// Numbers returned.
        got: usize,
        /// Numbers expected.
        want: usize,
    },
    /// A number is NaN or infinite, or becomes so in the units of the joint.
    #[error("row {row}, action {joint} is not finite")]
    NotFinite {
        /// Row of the output, future rows from 0.
        row: usize,
        /// Place in `action.joints`.
        joint: usize,
    },
}

/// Units of the actions: one entry for each joint of `action.joints`.
#[derive(Clone, Debug)]
pub(crate) struct Units {
    pub(crate) map: JointMap,
    pub(crate) scale: Vec<f64>,
    pub(crate) offset: Vec<f64>,
    clip: Vec<[f64; 2]>,
    raw_clip: [f64; 2],
}

const ANY: [f64; 2] = [f64::NEG_INFINITY, f64::INFINITY];

impl Units {
    pub(crate) fn new(manifest: &Manifest, robot: &Robot) -> Result<Self, ActionError> {
        let action = &manifest.action;
        let map = JointMap::new(robot, &action.joints)?;
        if map.is_empty() {
            return Err(bad("action.joints", "[]", "at least one joint"));
        }
        let known = |key: &str| key == "*" || action.joints.iter().any(|j| j == key);
        let empty = BTreeMap::new();
        let clip = action.clip.as_ref().unwrap_or(&empty);
        let given = match &action.offset {
            ActionOffset::Each(each) => Some(each),
            ActionOffset::Word(_) => None,
        };
        let keys = action.scale.keys().chain(clip.keys()).chain(given.into_iter().flat_map(BTreeMap::keys));
        if let Some(key) = keys.into_iter().find(|k| !known(k)) {
            return Err(bad("action: joint", key, "a joint of action.joints, or *"));
        }
        let default = match action.kind {
            ActionKind::PositionOffset if given.is_some_and(|g| !g.is_empty()) => {
                return Err(bad(
                    "action.offset",
                    "by joint",
                    "the joints' defaults, for kind position_offset",
                ));
            }
            ActionKind::PositionOffset => true,
            _ => given.is_none(),
        };

        let mut units = Self {
            map,
            scale: Vec::new(),
            offset: Vec::new(),
            clip: Vec::new(),
            raw_clip: action.raw_clip.unwrap_or(ANY),
        };
        let range = |key: String, [lo, hi]: [f64; 2]| {
            // NaN fails as well.
            if lo <= hi { Ok([lo, hi]) } else { Err(bad(key, &format!("[{lo}, {hi}]"), "a range")) }
        };
        range("action.raw_clip".into(), units.raw_clip)?;
        for joint in &action.joints {
            let scale = action.scale.get(joint).or_else(|| action.scale.get("*")).copied();
            let scale = scale.ok_or_else(|| bad(format!("action.scale.{joint}"), "absent", "a factor"))?;
            let offset = if default {
                let own = manifest.joints.iter().find(|j| j.name == *joint).map(|j| j.default);
                own.ok_or_else(|| bad(format!("action.joints: {joint}"), "unknown", "a joint of joints"))?
            } else {
                given.and_then(|g| g.get(joint).or_else(|| g.get("*"))).copied().unwrap_or(0.0)
            };
            for (key, value) in [("scale", scale), ("offset", offset)] {
                if !value.is_finite() {
                    return Err(bad(format!("action.{key}.{joint}"), &value.to_string(), "a finite number"));
                }
            }
            units.scale.push(scale);
            units.offset.push(offset);
            let clip = clip.get(joint).or_else(|| clip.get("*")).copied().unwrap_or(ANY);
            units.clip.push(range(format!("action.clip.{joint}"), clip)?);
        }
        Ok(units)
    }

    /// `y` of action `i`.
    fn apply(&self, i: usize, raw: f64) -> f64 {
        let r = raw.max(self.raw_clip[0]).min(self.raw_clip[1]);
        (r * self.scale[i] + self.offset[i]).max(self.clip[i][0]).min(self.clip[i][1])
    }
}

fn bad(key: impl Into<String>, value: &str, expected: &'static str) -> ActionError {
    ActionError::BadValue { key: key.into(), value: value.to_owned(), expected }
}

/// Turns network outputs into joint targets in robot order. Allocates nothing after construction.
#[derive(Clone, Debug)]
pub struct Decoder {
    units: Units,
    increment: bool,
    leash: f64,
    /// Effective position range of each driven joint.
    range: Vec<[f64; 2]>,
    n: usize,
    rows: usize,
    past: usize,
    execute: usize,
    /// Targets after the executed rows of the last output.
    pub(super) target: Joints,
}

impl Decoder {
    /// Units, kind and joints of a bundle's action.
    ///
    /// # Errors
    /// [`ActionError::NotSupported`] for the kinds `velocity` and `effort`, [`ActionError::BadValue`],
    /// [`ActionError::Robot`] for joints and limits that do not fit the robot.
    pub fn new(manifest: &Manifest, robot: &Robot) -> Result<Self, ActionError> {
        let (action, chunk) = (&manifest.action, &manifest.chunk);
        let increment = match action.kind {
            ActionKind::Position | ActionKind::PositionOffset => false,
            ActionKind::PositionIncrement => true,
            ActionKind::Velocity | ActionKind::Effort => {
                let value = if action.kind == ActionKind::Velocity { "velocity" } else { "effort" };
                return Err(ActionError::NotSupported {
                    what: "action.kind",
                    value: value.into(),
                    supported: "position, position_offset, position_increment",
                });
            }
        };
        let leash = match action.leash {
            Some(leash) if leash > 0.0 => leash,
            None if !increment => f64::INFINITY,
            other => return Err(bad("action.leash", &format!("{other:?}"), "a distance above 0")),
        };
        let rows = match chunk.mode {
            ChunkMode::Open => chunk.horizon,
            ChunkMode::None | ChunkMode::Lazy => 1,
        };
        if !(1..=4096).contains(&rows) || chunk.past > 4096 {
            let value = format!("{rows} rows after {}", chunk.past);
            return Err(bad("chunk.horizon", &value, "1 to 4096 rows after at most 4096"));
        }
        if chunk.execute == 0 {
            return Err(bad("chunk.execute", "0", "at least 1"));
        }
        let units = Units::new(manifest, robot)?;
        let (limits, _) = effective_limits(robot, manifest)?;
        let range = units.map.places().iter().map(|&i| limits[i].position).collect();
        let mut target = [0.0; MAX_JOINTS];
        for (t, joint) in target.iter_mut().zip(&robot.joints) {
            *t = joint.home;
        }
        let (n, past, execute) = (robot.joints.len(), chunk.past, chunk.execute.min(rows));
        Ok(Self { units, increment, leash, range, n, rows, past, execute, target })
    }

    /// Starts at the measured position. Joints that the policy does not drive stay there.
    pub fn reset(&mut self, q: &Joints) {
        self.target = *q;
    }

    /// Future rows in one output.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in one output, past rows included.
    pub fn input_len(&self) -> usize {
        (self.past + self.rows) * self.units.map.len()
    }

    /// Numbers in the decoded rows: rows × joints of the robot.
    pub fn output_len(&self) -> usize {
        self.rows * self.n
    }

    /// Robot index of each action.
    pub fn joints(&self) -> &[usize] {
        self.units.map.places()
    }

    /// The joint targets that the policy asks for now, robot order: those after the executed rows of the last output.
    pub fn target(&self) -> &Joints {
        &self.target
    }

    /// Decodes one output `raw` (rows × actions, graph units, past rows first) into `out` (rows × joints, robot order).
    ///
    /// An increment moves the target of the row before, at most `leash` away from the measured joint and inside the
    /// joint's range, so that a blocked joint cannot wind it up.
    ///
    /// # Errors
    /// [`DecodeError`], also for an `out` of another length; the target is unchanged, `out` is unspecified.
    pub fn decode(&mut self, raw: &[f32], state: &State, out: &mut [f64]) -> Result<(), DecodeError> {
        let actions = self.units.map.len();
        if raw.len() != self.input_len() {
            return Err(DecodeError::WrongLength { got: raw.len(), want: self.input_len() });
        }
        if out.len() != self.output_len() {
            return Err(DecodeError::WrongLength { got: out.len(), want: self.output_len() });
        }
        let mut target = self.target;
        let mut executed = target;
        let future = raw[self.past * actions..].chunks_exact(actions);
        for (row, (raw, out)) in future.zip(out.chunks_exact_mut(self.n)).enumerate() {
            for (joint, (&raw, &place)) in raw.iter().zip(self.units.map.places()).enumerate() {
                let raw = f64::from(raw);
                let y = self.units.apply(joint, raw);
                if !raw.is_finite() || !y.is_finite() {
                    return Err(DecodeError::NotFinite { row, joint });
                }
                target[place] = if self.increment {
                    let [lo, hi] = self.range[joint];
                    let q = state.q[place];
                    // `max` and `min` pass over a measurement that is not a number; the gate deals with that one.
                    (target[place] + y).max(q - self.leash).min(q + self.leash).clamp(lo, hi)
                } else {
                    y
                };
            }
            out.copy_from_slice(&target[..self.n]);
            if row + 1 == self.execute {
                executed = target;
            }
        }
        self.target = executed;
        Ok(())
    }
}
