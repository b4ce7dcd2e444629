//! From the manifest's terms to sources with places instead of names; everything that can be refused is refused here.

use cadenza_policy::manifest::{ActionKind, Manifest, Numbers, Term};

use super::source::Source;
use super::{ObserveError, SOURCES};
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
        self.own_params_only(term)?;
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
            "phase" => match term.params.period {
                Some(period) if period > 0.0 && period.is_finite() => Source::Phase(period),
                other => return Err(bad(term, format!("period = {other:?}, expected a time above 0"))),
            },
            "time" => Source::Time,
            "constant" => match &term.params.value {
                Some(value) => Source::Constant(value.clone()),
                None => return Err(bad(term, "value is missing".into())),
            },
            "frame_pos" => Source::FramePos(self.frame(term, term.params.frame.as_ref(), "frame")?),
            "frame_pos_error" => Source::FramePosError {
                frame: self.frame(term, term.params.frame.as_ref(), "frame")?,
                axes: self.axes(term)?,
                target: self.target(term)?,
                soft: match term.params.soft {
                    Some(soft) if !(soft > 0.0 && soft.is_finite()) => {
                        return Err(bad(term, format!("soft = {soft}, expected a length above 0")));
                    }
                    soft => soft,
                },
            },
            "target_cylindrical" => Source::TargetCylindrical(self.target(term)?),
            "object_pos" => Source::ObjectPos(self.object(term)?),
            "object_pos_error" => Source::ObjectPosError {
                object: self.object(term)?,
                frame: self.frame(term, term.params.frame.as_ref(), "frame")?,
                axes: self.axes(term)?,
            },
            _ => {
                return Err(ObserveError::UnknownTerm {
                    term: term.name.clone(),
                    source_name: term.source.clone(),
                    known: SOURCES.map(str::to_owned).to_vec(),
                });
            }
        };
        if source.size() != term.size || term.size == 0 {
            return Err(ObserveError::WrongSize {
                term: term.name.clone(),
                source_name: term.source.clone(),
                got: term.size,
                want: source.size(),
            });
        }
        Ok(source)
    }

    /// Offset, scale, range and history of a term.
    pub(super) fn numbers(&self, term: &Term) -> Result<(), ObserveError> {
        for (key, numbers) in [("offset", &term.offset), ("scale", &term.scale)] {
            if let Numbers::Each(each) = numbers
                && each.len() != term.size
            {
                return Err(bad(term, format!("{} numbers of {key}, size {}", each.len(), term.size)));
            }
            let wrong = (0..term.size).filter_map(|i| numbers.get(i)).find(|x| !x.is_finite());
            if let Some(x) = wrong {
                return Err(bad(term, format!("{key} = {x} is not finite")));
            }
        }
        match term.clip {
            Some([lo, hi]) if lo <= hi => {}
            None => {}
            Some([lo, hi]) => return Err(bad(term, format!("clip = [{lo}, {hi}] is no range"))),
        }
        if !(1..=10_000).contains(&term.history.length) {
            return Err(bad(term, format!("history of {} frames, expected 1 to 10000", term.history.length)));
        }
        Ok(())
    }

    /// Settings that the source would ignore are mistakes.
    fn own_params_only(&self, term: &Term) -> Result<(), ObserveError> {
        let p = &term.params;
        let given = [
            ("absolute", p.absolute.is_some()),
            ("period", p.period.is_some()),
            ("value", p.value.is_some()),
            ("frame", p.frame.is_some()),
            ("in", p.axes.is_some()),
            ("target", p.target.is_some()),
            ("soft", p.soft.is_some()),
            ("object", p.object.is_some()),
            ("commands", p.commands.is_some()),
        ];
        let own: &[&str] = match term.source.as_str() {
            "joint_pos" => &["absolute"],
            "phase" => &["period"],
            "constant" => &["value"],
            "frame_pos" => &["frame"],
            "frame_pos_error" => &["frame", "in", "target", "soft"],
            "target_cylindrical" => &["target"],
            "object_pos" => &["object"],
            "object_pos_error" => &["object", "frame", "in"],
            "command" => &["commands"],
            _ => &[],
        };
        let stray = given.iter().find(|(key, is)| *is && !own.contains(key));
        let joints = term.joints.is_some() && !term.source.starts_with("joint_");
        match (stray, joints) {
            (Some((key, _)), _) => Err(bad(term, format!("source {} takes no {key}", term.source))),
            (None, true) => Err(bad(term, format!("source {} takes no joints", term.source))),
            (None, false) => Ok(()),
        }
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
        let [x, y, z] =
            term.params.target.as_ref().ok_or_else(|| {
                bad(term, "target is missing: the three commands that hold the point".into())
            })?;
        Ok([self.slot(term, x)?, self.slot(term, y)?, self.slot(term, z)?])
    }

    fn frame(&self, term: &Term, name: Option<&String>, key: &str) -> Result<usize, ObserveError> {
        let name = name.ok_or_else(|| bad(term, format!("{key} is missing")))?;
        self.kinematics.index(name).ok_or_else(|| {
            bad(term, format!("no frame {name}; there are {}", self.kinematics.names().join(", ")))
        })
    }

    fn axes(&self, term: &Term) -> Result<Option<usize>, ObserveError> {
        term.params.axes.as_ref().map(|name| self.frame(term, Some(name), "in")).transpose()
    }

    fn object(&mut self, term: &Term) -> Result<usize, ObserveError> {
        let name = term.params.object.as_ref().ok_or_else(|| bad(term, "object is missing".into()))?;
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

fn bad(term: &Term, what: String) -> ObserveError {
    ObserveError::BadTerm { term: term.name.clone(), what }
}
