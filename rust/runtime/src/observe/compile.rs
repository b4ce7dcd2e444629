//! From the manifest's terms to sources with places instead of names. The manifest's own rules have been checked
//! before; what is refused here needs the robot, or does not exist in this runtime.

use cadenza_policy::manifest::{ActionKind, Manifest, Term};

use super::ObserveError;
use super::source::Source;
use crate::action::Units;
use crate::kinematics::Kinematics;
use crate::robot::{JointMap, Robot};
use crate::state::{MAX_OBJECTS, MAX_USER};

pub(super) struct Compiler<'a> {
    manifest: &'a Manifest,
    robot: &'a Robot,
    kinematics: &'a Kinematics,
    /// Objects that the terms read, each once.
    pub(super) objects: Vec<String>,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(
        manifest: &'a Manifest,
        robot: &'a Robot,
        kinematics: &'a Kinematics,
    ) -> Result<Self, ObserveError> {
        let n = manifest.commands.len();
        if n > MAX_USER {
            let what = format!("{n} commands, at most {MAX_USER}");
            return Err(ObserveError::BadTerm { term: "commands".into(), what });
        }
        Ok(Self { manifest, robot, kinematics, objects: Vec::new() })
    }

    /// The source of a term, with the size that the manifest says.
    pub(super) fn source(&mut self, term: &Term) -> Result<Source, ObserveError> {
        let source = match term.source.as_str() {
            "joint_pos" => {
                let joints = self.joints(term)?;
                let absolute = term.params.absolute == Some(true);
                Source::JointPos(
                    joints
                        .iter()
                        .map(|&(place, joint)| {
                            let default = self.manifest.joints[joint].default;
                            (place, if absolute { 0.0 } else { default })
                        })
                        .collect(),
                )
            }
            "joint_vel" => Source::JointVel(self.places(term)?),
            "joint_effort" => Source::JointEffort(self.places(term)?),
            "joint_target_error" => Source::JointTargetError(self.places(term)?),
            "gyro" => Source::Gyro,
            "accelerometer" => Source::Accelerometer,
            "projected_gravity" => Source::ProjectedGravity,
            "base_quat" => Source::BaseQuat,
            "base_pos" => Source::BasePos,
            "base_lin_vel" => Source::BaseLinVel,
            "command" => Source::Command(match &term.params.commands {
                None => (0..self.manifest.commands.len()).collect(),
                Some(names) => names.iter().map(|n| self.slot(term, n)).collect::<Result<_, _>>()?,
            }),
            "last_action" => Source::LastAction(self.manifest.action.joints.len()),
            "prev_executed_action" => self.executed(term)?,
            "phase" => Source::Phase(needed(term, "period", term.params.period)?),
            "time" => Source::Time,
            "constant" => Source::Constant(needed(term, "value", term.params.value.clone())?),
            "frame_pos" => Source::FramePos(self.frame(term, term.params.frame.as_ref(), "frame")?),
            "frame_pos_error" => Source::FramePosError {
                frame: self.frame(term, term.params.frame.as_ref(), "frame")?,
                axes: self.axes(term)?,
                target: self.target(term)?,
                soft: term.params.soft,
            },
            "target_cylindrical" => Source::TargetCylindrical(self.target(term)?),
            "object_pos" => Source::ObjectPos(self.object(term)?),
            "object_pos_error" => Source::ObjectPosError {
                object: self.object(term)?,
                frame: self.frame(term, term.params.frame.as_ref(), "frame")?,
                axes: self.axes(term)?,
            },
            // In the format, but for a provider that does not exist yet: `mission.*`, `x-*`.
            other => return Err(bad(term, format!("the source {other} has no provider in this runtime"))),
        };
        // Both crates say how many numbers a source gives; a tick must never find them to differ.
        if source.size() != term.size {
            return Err(bad(term, format!("size {}, its source gives {}", term.size, source.size())));
        }
        Ok(source)
    }

    /// Robot index and manifest index of each joint of a term.
    fn joints(&self, term: &Term) -> Result<Vec<(usize, usize)>, ObserveError> {
        let known: Vec<&String> = self.manifest.joints.iter().map(|j| &j.name).collect();
        let names: Vec<&String> = term.joints.as_ref().map_or(known.clone(), |j| j.iter().collect());
        let map = JointMap::new(self.robot, &names)?;
        names
            .iter()
            .zip(map.places())
            .map(|(name, &place)| match known.iter().position(|k| k == name) {
                Some(joint) => Ok((place, joint)),
                None => Err(bad(term, format!("joint {name} is not among the bundle's joints"))),
            })
            .collect()
    }

    fn places(&self, term: &Term) -> Result<Vec<usize>, ObserveError> {
        Ok(self.joints(term)?.into_iter().map(|(place, _)| place).collect())
    }

    fn slot(&self, term: &Term, name: &str) -> Result<usize, ObserveError> {
        let commands = &self.manifest.commands;
        commands.iter().position(|c| c.name == name).ok_or_else(|| {
            let known: Vec<&str> = commands.iter().map(|c| c.name.as_str()).collect();
            bad(term, format!("no command {name}; there are {}", known.join(", ")))
        })
    }

    fn target(&self, term: &Term) -> Result<[usize; 3], ObserveError> {
        let [x, y, z] = needed(term, "target", term.params.target.as_ref())?;
        Ok([self.slot(term, x)?, self.slot(term, y)?, self.slot(term, z)?])
    }

    fn frame(&self, term: &Term, name: Option<&String>, key: &str) -> Result<usize, ObserveError> {
        let name = needed(term, key, name)?;
        self.kinematics.index(name).ok_or_else(|| {
            bad(term, format!("no frame {name}; there are {}", self.kinematics.names().join(", ")))
        })
    }

    fn axes(&self, term: &Term) -> Result<Option<usize>, ObserveError> {
        term.params.axes.as_ref().map(|name| self.frame(term, Some(name), "in")).transpose()
    }

    fn object(&mut self, term: &Term) -> Result<usize, ObserveError> {
        let name = needed(term, "object", term.params.object.as_ref())?;
        if let Some(i) = self.objects.iter().position(|o| o == name) {
            return Ok(i);
        }
        if self.objects.len() == MAX_OBJECTS {
            return Err(bad(term, format!("more than {MAX_OBJECTS} objects")));
        }
        self.objects.push(name.clone());
        Ok(self.objects.len() - 1)
    }

    /// What was sent, in the units of the graph: the inverse of the decoder.
    fn executed(&self, term: &Term) -> Result<Source, ObserveError> {
        if !matches!(self.manifest.action.kind, ActionKind::Position | ActionKind::PositionOffset) {
            let what = format!(
                "{:?} actions cannot be told from the position that was sent",
                self.manifest.action.kind
            );
            return Err(bad(term, what));
        }
        let units = Units::new(self.manifest, self.robot).map_err(|e| bad(term, e.to_string()))?;
        let mut actions = Vec::with_capacity(units.scale.len());
        for ((&place, &offset), &scale) in units.map.places().iter().zip(&units.offset).zip(&units.scale) {
            if scale == 0.0 {
                return Err(bad(term, "an action with scale 0 cannot be told from what was sent".into()));
            }
            actions.push((place, offset, scale));
        }
        Ok(Source::PrevExecuted(actions))
    }
}

/// A setting without which the manifest would have been refused.
fn needed<T>(term: &Term, key: &str, value: Option<T>) -> Result<T, ObserveError> {
    value.ok_or_else(|| bad(term, format!("{key} is missing")))
}

fn bad(term: &Term, what: String) -> ObserveError {
    ObserveError::BadTerm { term: term.name.clone(), what }
}
