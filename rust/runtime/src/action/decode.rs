//! From the network's numbers to joint positions: clip, scale, offset, clip, by joint name.
//!
//! For each action, `y = clip(raw_clip(r)·scale + offset)`. What `y` means is the action's kind: a position, a position
//! about the joint's default, or a change of the joint target that the measured joint keeps on a leash.

use std::collections::BTreeMap;

use cadenza_policy::manifest::{ActionKind, ActionOffset, ChunkMode, Manifest};

use super::{ActionError, bad};
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
            if lo <= hi { Ok([lo, hi]) } else { Err(bad(key, format!("[{lo}, {hi}]"), "a range")) }
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
                    return Err(bad(format!("action.{key}.{joint}"), value, "a finite number"));
                }
            }
            units.scale.push(scale);
            units.offset.push(offset);
            let clip = clip.get(joint).or_else(|| clip.get("*")).copied().unwrap_or(ANY);
            units.clip.push(range(format!("action.clip.{joint}"), clip)?);
        }
        Ok(units)
    }

    /// The number of action `i` whose `y` this is, clips aside; 0 where the scale is 0.
    fn invert(&self, i: usize, y: f64) -> f64 {
        if self.scale[i] == 0.0 { 0.0 } else { (y - self.offset[i]) / self.scale[i] }
    }

    /// `y` of action `i`.
    fn apply(&self, i: usize, raw: f64) -> f64 {
        let r = raw.max(self.raw_clip[0]).min(self.raw_clip[1]);
        (r * self.scale[i] + self.offset[i]).max(self.clip[i][0]).min(self.clip[i][1])
    }
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
            other => return Err(bad("action.leash", format!("{other:?}"), "a distance above 0")),
        };
        let rows = match chunk.mode {
            ChunkMode::Open => chunk.horizon,
            ChunkMode::None | ChunkMode::Lazy => 1,
        };
        if !(1..=4096).contains(&rows) || chunk.past > 4096 {
            let value = format!("{rows} rows after {}", chunk.past);
            return Err(bad("chunk.horizon", value, "1 to 4096 rows after at most 4096"));
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

    /// The action, graph units, that asks for the positions `q`, when those of the policy step before were `before`: the
    /// reverse of [`decode`](Self::decode), clips aside. Numbers beyond the end of a shorter `out` are left away.
    pub fn encode(&self, q: &Joints, before: &Joints, out: &mut [f32]) {
        for (i, (out, &place)) in out.iter_mut().zip(self.units.map.places()).enumerate() {
            let y = if self.increment { q[place] - before[place] } else { q[place] };
            *out = self.units.invert(i, y) as f32;
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::robot::tests::{arm6, arm6_bundle, bundle, two_joints};

    fn decoder(action: Value) -> Result<Decoder, ActionError> {
        let manifest = bundle(|b| {
            for (key, value) in action.as_object().unwrap() {
                b["action"][key] = value.clone();
            }
        });
        Decoder::new(&manifest, &two_joints())
    }

    /// Decoded shoulder and wrist of one row (wrist first in the bundle).
    fn decode(d: &mut Decoder, raw: [f32; 2], q: [f64; 2]) -> [f64; 2] {
        let mut state = State::new(2);
        state.q[..2].copy_from_slice(&q);
        let mut out = [f64::NAN; 2];
        d.decode(&raw, &state, &mut out).unwrap();
        assert_eq!(d.target()[..2], out);
        out
    }

    #[test]
    fn positions_are_clipped_scaled_offset_and_clipped() {
        let mut d = decoder(json!({ "raw_clip": [-1.0, 1.0], "scale": { "*": 0.5, "wrist": 2.0 },
            "offset": { "shoulder": 0.25 }, "clip": { "wrist": [-0.75, 1.5] } }))
        .unwrap();
        assert_eq!(decode(&mut d, [0.5, 0.5], [0.0; 2]), [0.5, 1.0]);
        assert_eq!(decode(&mut d, [9.0, 9.0], [0.0; 2]), [0.75, 1.5]);
        assert_eq!(decode(&mut d, [-9.0, -9.0], [0.0; 2]), [-0.25, -0.75]);
    }

    #[test]
    fn offsets_may_be_the_defaults() {
        for action in [json!({ "kind": "position_offset" }), json!({ "offset": "default" })] {
            assert_eq!(decode(&mut decoder(action).unwrap(), [0.5, 0.5], [0.0; 2]), [0.0, 0.75]);
        }
    }

    #[test]
    fn increments_move_the_target_on_a_leash_inside_the_range() {
        let mut d =
            decoder(json!({ "kind": "position_increment", "scale": { "*": 0.125 }, "leash": 0.25 })).unwrap();
        d.reset(&[0.5; MAX_JOINTS]);
        assert_eq!(decode(&mut d, [1.0, -1.0], [0.5; 2]), [0.375, 0.625]);
        assert_eq!(decode(&mut d, [1.0, -1.0], [0.5; 2]), [0.25, 0.75]);
        assert_eq!(decode(&mut d, [1.0, -1.0], [0.5; 2]), [0.25, 0.75], "the leash is taut");
        assert_eq!(decode(&mut d, [-1.0, 1.0], [0.5; 2]), [0.375, 0.625], "and lets go at once");
        // The bundle's range of the wrist ends at -0.5, the robot's at 1.0.
        d.reset(&[0.95; MAX_JOINTS]);
        for _ in 0..9 {
            decode(&mut d, [1.0, 0.0], [0.95; 2]);
        }
        assert_eq!(d.target()[1], 1.0);
        assert_eq!(decode(&mut d, [-1.0, 0.0], [0.95; 2])[1], 0.875, "nothing has wound up behind the limit");
    }

    #[test]
    fn an_action_comes_back_from_its_positions() {
        for action in [
            json!({ "scale": { "*": 0.5, "wrist": 2.0 }, "offset": { "shoulder": 0.25 } }),
            json!({ "kind": "position_offset", "scale": { "*": 0.5 } }),
            json!({ "kind": "position_increment", "scale": { "*": 0.5 }, "leash": 9.0 }),
        ] {
            let mut d = decoder(action).unwrap();
            let before = [0.125; MAX_JOINTS];
            d.reset(&before);
            decode(&mut d, [0.25, -0.5], [0.125; 2]);
            let mut back = [9.0; 2];
            d.encode(d.target(), &before, &mut back);
            assert_eq!(back, [0.25, -0.5]);
        }
        let mut back = [9.0; 2];
        decoder(json!({ "scale": { "*": 0.0 } })).unwrap().encode(
            &[0.5; MAX_JOINTS],
            &[0.0; MAX_JOINTS],
            &mut back,
        );
        assert_eq!(back, [0.0; 2], "what moves nothing was nothing");
    }

    #[test]
    fn a_refused_output_leaves_the_target() {
        let mut d =
            decoder(json!({ "kind": "position_increment", "leash": 1.0, "scale": { "*": 1e308 } })).unwrap();
        d.reset(&[0.5; MAX_JOINTS]);
        let (state, mut out) = (State::new(2), [0.0; 2]);
        for (raw, error) in [
            (&[0.0f32][..], DecodeError::WrongLength { got: 1, want: 2 }),
            (&[0.0; 4][..], DecodeError::WrongLength { got: 4, want: 2 }),
            (&[0.0, f32::NAN][..], DecodeError::NotFinite { row: 0, joint: 1 }),
            (&[f32::INFINITY, 0.0][..], DecodeError::NotFinite { row: 0, joint: 0 }),
            (&[9.0, 0.0][..], DecodeError::NotFinite { row: 0, joint: 0 }),
        ] {
            assert_eq!(d.decode(raw, &state, &mut out), Err(error));
            assert_eq!(d.target()[..2], [0.5; 2]);
        }
        assert!(d.decode(&[0.0; 2], &state, &mut [0.0; 3]).is_err());
    }

    #[test]
    fn past_rows_are_skipped_and_the_executed_row_is_the_target() {
        let manifest = bundle(|b| {
            b["action"]["joints"] = json!(["wrist"]);
            b["chunk"] = json!({ "mode": "open", "horizon": 3, "past": 2, "execute": 2,
                                 "on_exhausted": "hold", "seam": "replace" });
        });
        let mut d = Decoder::new(&manifest, &two_joints()).unwrap();
        assert_eq!((d.rows(), d.input_len(), d.output_len(), d.joints()), (3, 5, 6, &[1][..]));
        d.reset(&[0.25; MAX_JOINTS]);
        let mut out = [0.0; 6];
        d.decode(&[8.0, 9.0, 1.0, 2.0, 3.0], &State::new(2), &mut out).unwrap();
        assert_eq!(out, [0.25, 1.0, 0.25, 2.0, 0.25, 3.0], "the shoulder is not the policy's");
        assert_eq!(d.target()[..2], [0.25, 2.0]);
        assert_eq!(
            d.decode(&[8.0, 9.0, 1.0, 2.0, f32::NAN], &State::new(2), &mut out),
            Err(DecodeError::NotFinite { row: 2, joint: 0 })
        );
        assert_eq!(d.target()[..2], [0.25, 2.0]);
    }

    #[test]
    fn what_cannot_be_decoded_is_refused_at_load() {
        for (action, text) in [
            (json!({ "kind": "velocity" }), "action.kind velocity is not supported yet; supported: position"),
            (json!({ "kind": "effort" }), "action.kind effort"),
            (json!({ "kind": "position_increment" }), "action.leash = None"),
            (json!({ "kind": "position_increment", "leash": 0.0 }), "action.leash = Some(0.0)"),
            (json!({ "scale": { "wrist": 1.0 } }), "action.scale.shoulder = absent"),
            (json!({ "scale": { "*": 1.0, "knee": 1.0 } }), "knee: expected a joint of action.joints"),
            (json!({ "clip": { "wrist": [1.0, 0.0] } }), "action.clip.wrist = [1, 0]"),
            (json!({ "raw_clip": [1.0, -1.0] }), "action.raw_clip = [1, -1]"),
            (json!({ "kind": "position_offset", "offset": { "*": 1.0 } }), "action.offset"),
            (json!({ "joints": [] }), "action.joints = []"),
            (json!({ "joints": ["wrist", "knee"] }), "no joint knee"),
        ] {
            let error = decoder(action).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    proptest! {
        /// However the policy pushes, an increment's target stays on its leash and inside the limits.
        #[test]
        fn increments_never_leave(steps in prop::collection::vec(prop::collection::vec(-3.0..3.0f32, 6), 1..40), q in prop::collection::vec(-1.0..1.0f64, 7)) {
            let (robot, manifest) = (arm6(), arm6_bundle());
            let (limits, _) = effective_limits(&robot, &manifest).unwrap();
            let mut d = Decoder::new(&manifest, &robot).unwrap();
            let mut state = State::new(7);
            for (i, l) in limits.iter().enumerate() {
                state.q[i] = q[i].clamp(l.position[0], l.position[1]);
            }
            d.reset(&state.q);
            let mut out = [0.0; 7];
            for raw in &steps {
                d.decode(raw, &state, &mut out).unwrap();
                for (i, l) in limits.iter().enumerate() {
                    prop_assert!((l.position[0]..=l.position[1]).contains(&out[i]));
                    prop_assert!((out[i] - state.q[i]).abs() <= 0.3 + 1e-12);
                }
                prop_assert_eq!(out[6], state.q[6], "the gripper stays");
            }
        }
    }
}
