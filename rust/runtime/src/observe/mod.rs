//! From the state to the vector that the network sees.
//!
//! The manifest's terms are compiled once into a flat list of operations; a step then only reads, subtracts, clips,
//! scales and shifts histories. Training and the robot share this code. Conventions of the single sources stand at
//! [`Observer::new`].

mod compile;
pub mod frames;
mod source;

use cadenza_policy::ManifestError;
use cadenza_policy::manifest::{HistoryFill, HistoryOrder, Interleave, Manifest};

use crate::kinematics::Kinematics;
use crate::robot::{Robot, RobotError};
use crate::state::{Joints, MAX_JOINTS, State};
use source::Source;

/// What the loop itself adds to the measured state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feedback {
    /// The network's previous action, graph units, in the order of `action.joints`; after a reset `action.reset` of the
    /// manifest, or zeros.
    pub action: [f32; MAX_JOINTS],
    /// The joint targets that the policy asks for, robot order ([`Decoder::target`](crate::action::Decoder::target)).
    pub target: Joints,
    /// The positions that were sent last, robot order.
    pub executed: Joints,
    /// Time since the policy started, s.
    pub time: f64,
}

impl Feedback {
    /// Feedback of a policy that starts at the joint positions `q`.
    pub fn reset(manifest: &Manifest, q: &Joints) -> Self {
        let mut action = [0.0; MAX_JOINTS];
        if let Some(reset) = &manifest.action.reset {
            for (a, &x) in action.iter_mut().zip(reset) {
                *a = x as f32;
            }
        }
        Self { action, target: *q, executed: *q, time: 0.0 }
    }
}

/// A number of the observation is not finite: no inference on this tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("observation term {term}, component {index} is not finite")]
pub struct NotFinite {
    /// Term, in the manifest's order.
    pub term: usize,
    /// Component of the term.
    pub index: usize,
}

/// Why an observation cannot be computed on a robot.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The observation breaks a rule of the manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Something that the term needs is missing, not known, or unusable.
    #[error("term {term}: {what}")]
    BadTerm {
        /// Term.
        term: String,
        /// What is wrong, with the value and what is known.
        what: String,
    },
    /// An object that the device does not report.
    #[error("term {term} needs object {object}; the device reports {}", if known.is_empty() { "none".into() } else { known.join(", ") })]
    MissingObject {
        /// Term.
        term: String,
        /// Object.
        object: String,
        /// What the device reports.
        known: Vec<String>,
    },
    /// Bundle and robot do not fit.
    #[error(transparent)]
    Robot(#[from] RobotError),
}

/// One compiled term.
#[derive(Clone, Debug)]
struct Op {
    name: String,
    source: Source,
    size: usize,
    offset: Vec<f64>,
    scale: Vec<f64>,
    clip: [f64; 2],
    clip_first: bool,
    /// Place in [`Observer::frame`].
    at: usize,
    length: usize,
    newest_first: bool,
    repeat: bool,
    /// Place of its history in [`Observer::history`], oldest frame first.
    history: usize,
}

/// Computes observations. Allocates nothing after construction.
#[derive(Clone, Debug)]
pub struct Observer {
    ops: Vec<Op>,
    kinematics: Kinematics,
    by_time: bool,
    size: usize,
    /// The newest frame, all terms.
    frame: Vec<f32>,
    history: Vec<f32>,
    fresh: bool,
    /// Names of the objects that the terms read; their places arrive with [`Observer::bind_objects`].
    objects: Vec<String>,
    places: Vec<Option<usize>>,
}

impl Observer {
    /// Compiles the observation of a bundle for a robot.
    ///
    /// | source | numbers | meaning |
    /// |---|---|---|
    /// | `joint_pos` | joints | measured position minus the joint's default; with `absolute` the position itself |
    /// | `joint_vel`, `joint_effort` | joints | as measured |
    /// | `joint_target_error` | joints | the policy's joint target minus the measured position |
    /// | `gyro`, `accelerometer` | 3 | body axes |
    /// | `projected_gravity` | 3 | direction of gravity in body axes, (0, 0, −1) when upright |
    /// | `base_quat` | 4 | wxyz, body → world |
    /// | `base_pos` | 3 | world |
    /// | `base_lin_vel` | 3 | in body axes |
    /// | `command` | slots | operator commands `commands`, or all |
    /// | `last_action` | actions | the network's previous action, graph units |
    /// | `prev_executed_action` | actions | the positions that were sent last, in graph units |
    /// | `phase` | 2 | sin, cos of 2π·time/`period` |
    /// | `time` | 1 | since the policy started, s |
    /// | `constant` | `value` | itself |
    /// | `frame_pos` | 3 | position of `frame` in the world |
    /// | `frame_pos_error` | 3 | the point given by the commands `target` minus `frame`'s position, in the axes of the frame `in`; with `soft` each divided by √(its length² + soft²) |
    /// | `target_cylindrical` | 2 | distance from the vertical axis and height of the point given by the commands `target` |
    /// | `object_pos` | 3 | position of `object` in the world |
    /// | `object_pos_error` | 3 | position of `object` minus `frame`'s, in the axes of the frame `in` |
    ///
    /// # Errors
    /// [`ObserveError`].
    pub fn new(manifest: &Manifest, robot: &Robot) -> Result<Self, ObserveError> {
        manifest.validate_observation()?;
        let kinematics = Kinematics::new(&manifest.frames, robot)?;
        let mut compiler = compile::Compiler::new(manifest, robot, &kinematics)?;
        let mut ops = Vec::with_capacity(manifest.observation.terms.len());
        let (mut at, mut history) = (0, 0);
        for term in &manifest.observation.terms {
            let source = compiler.source(term)?;
            let (size, length) = (term.size, term.history.length);
            let each = |numbers: &cadenza_policy::manifest::Numbers| {
                (0..size).map(|i| numbers.get(i).unwrap_or(0.0)).collect::<Vec<f64>>()
            };
            ops.push(Op {
                name: term.name.clone(),
                source,
                size,
                offset: each(&term.offset),
                scale: each(&term.scale),
                clip: term.clip.unwrap_or([f64::NEG_INFINITY, f64::INFINITY]),
                clip_first: term.clip_stage == cadenza_policy::manifest::ClipStage::BeforeScale,
                at,
                length,
                newest_first: term.history.order == HistoryOrder::NewestFirst,
                repeat: term.history.fill == HistoryFill::Repeat,
                history,
            });
            at += size;
            history += size * length;
        }
        let by_time = manifest.observation.interleave == Interleave::Time;
        let objects = compiler.objects;
        Ok(Self {
            ops,
            kinematics,
            by_time,
            size: history,
            frame: vec![0.0; at],
            history: vec![0.0; history],
            fresh: true,
            places: vec![None; objects.len()],
            objects,
        })
    }

    /// Everything that keeps the observation of a bundle from being computed on a robot, term by term: what
    /// [`new`](Self::new) refuses, and sensors of the base on a robot whose robot.toml has no `[imu]`.
    pub fn unsuitable(manifest: &Manifest, robot: &Robot) -> Vec<ObserveError> {
        let mut found = Vec::new();
        for term in &manifest.observation.terms {
            let mut one = manifest.clone();
            one.observation.terms = vec![term.clone()];
            one.observation.size = term.size * term.history.length;
            let refused = Self::new(&one, robot).err();
            let inertial = ["gyro", "accelerometer", "projected_gravity", "base_quat", "base_lin_vel"]
                .contains(&&*term.source);
            let blind = (inertial && robot.imu.is_none()).then(|| ObserveError::BadTerm {
                term: term.name.clone(),
                what: format!("the source {} needs an IMU; robot.toml has no [imu]", term.source),
            });
            for error in refused.into_iter().chain(blind) {
                if !found.contains(&error) {
                    found.push(error);
                }
            }
        }
        found
    }

    /// Tells which objects the device reports, in the order of `State::objects`. Until then, terms that need an object
    /// are not finite.
    ///
    /// # Errors
    /// [`ObserveError::MissingObject`]; nothing is bound.
    pub fn bind_objects<S: AsRef<str>>(&mut self, known: &[S]) -> Result<(), ObserveError> {
        let find = |name: &String| known.iter().position(|k| k.as_ref() == name);
        if let Some(i) = self.objects.iter().position(|name| find(name).is_none()) {
            let term = self.ops.iter().find(|o| o.source.object() == Some(i));
            return Err(ObserveError::MissingObject {
                term: term.map_or_else(String::new, |o| o.name.clone()),
                object: self.objects[i].clone(),
                known: known.iter().map(|k| k.as_ref().to_owned()).collect(),
            });
        }
        self.places = self.objects.iter().map(find).collect();
        Ok(())
    }

    /// Numbers in an observation.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Name of a term, for messages about [`NotFinite`].
    pub fn term(&self, term: usize) -> Option<&str> {
        self.ops.get(term).map(|o| o.name.as_str())
    }

    /// The frames at the last step.
    pub fn kinematics(&self) -> &Kinematics {
        &self.kinematics
    }

    /// The histories, and whether the next step fills them: what an exact resume of a training run needs.
    pub fn histories(&self) -> (&[f32], bool) {
        (&self.history, self.fresh)
    }

    /// Goes on with the histories of another observer for the same manifest. Returns whether they fitted.
    pub fn set_histories(&mut self, histories: &[f32], fresh: bool) -> bool {
        if histories.len() != self.history.len() {
            return false;
        }
        self.history.copy_from_slice(histories);
        self.fresh = fresh;
        true
    }

    /// Forgets the histories; the next step fills them.
    pub fn reset(&mut self) {
        self.fresh = true;
    }

    /// Computes one observation into `out`, which holds [`size`](Self::size) numbers.
    ///
    /// # Errors
    /// [`NotFinite`]; the histories are as they were. Numbers beyond the end of a shorter `out` are left away.
    pub fn step(&mut self, state: &State, feedback: &Feedback, out: &mut [f32]) -> Result<(), NotFinite> {
        self.kinematics.update(&state.q, &state.base, &state.imu.quat);
        let view = source::View { state, feedback, kinematics: &self.kinematics, objects: &self.places };
        for (term, op) in self.ops.iter().enumerate() {
            let frame = &mut self.frame[op.at..op.at + op.size];
            op.source
                .read(&view, |index, raw| {
                    let number = op.number(index, raw);
                    frame[index] = number;
                    number.is_finite() && raw.is_finite()
                })
                .map_err(|index| NotFinite { term, index })?;
        }
        for op in &self.ops {
            let new = &self.frame[op.at..op.at + op.size];
            let history = &mut self.history[op.history..op.history + op.size * op.length];
            if self.fresh {
                for old in history.chunks_exact_mut(op.size) {
                    if op.repeat { old.copy_from_slice(new) } else { old.fill(0.0) }
                }
            }
            history.copy_within(op.size.., 0);
            history[op.size * (op.length - 1)..].copy_from_slice(new);
        }
        self.fresh = false;
        self.write(out);
        Ok(())
    }

    fn write(&self, out: &mut [f32]) {
        let mut out = out.iter_mut();
        let mut put = |op: &Op, k: usize| {
            let k = if op.newest_first { op.length - 1 - k } else { k };
            let at = op.history + k * op.size;
            // The history first: `zip` takes from its left side before it finds the right side ended.
            for (&x, o) in self.history[at..at + op.size].iter().zip(out.by_ref()) {
                *o = x;
            }
        };
        if self.by_time {
            for k in 0..self.ops.first().map_or(0, |o| o.length) {
                self.ops.iter().for_each(|op| put(op, k));
            }
        } else {
            for op in &self.ops {
                (0..op.length).for_each(|k| put(op, k));
            }
        }
    }
}

impl Op {
    fn number(&self, index: usize, raw: f64) -> f32 {
        let clip = |x: f64| x.max(self.clip[0]).min(self.clip[1]);
        let u = raw - self.offset[index];
        let scale = self.scale[index];
        (if self.clip_first { clip(u) * scale } else { clip(u * scale) }) as f32
    }
}

#[cfg(test)]
mod tests;
