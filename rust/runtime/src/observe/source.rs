//! Where the numbers of a term come from, and how each source is read.

use crate::kinematics::{Kinematics, rotate_back};
use crate::observe::Feedback;
use crate::state::{Object, State};

/// A compiled source: names have become places.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Robot index and default of each joint.
    JointPos(Vec<(usize, f64)>),
    JointVel(Vec<usize>),
    JointEffort(Vec<usize>),
    JointTargetError(Vec<usize>),
    Gyro,
    Accelerometer,
    ProjectedGravity,
    BaseQuat,
    BasePos,
    BaseLinVel,
    /// Slots of the operator command vector.
    Command(Vec<usize>),
    /// Number of actions.
    LastAction(usize),
    /// Robot index, offset and scale of each action.
    PrevExecuted(Vec<(usize, f64, f64)>),
    /// Period.
    Phase(f64),
    Time,
    Constant(Vec<f64>),
    FramePos(usize),
    FramePosError {
        frame: usize,
        axes: Option<usize>,
        target: [usize; 3],
        soft: Option<f64>,
    },
    TargetCylindrical([usize; 3]),
    ObjectPos(usize),
    ObjectPosError {
        object: usize,
        frame: usize,
        axes: Option<usize>,
    },
}

/// What a source may read.
pub(super) struct View<'a> {
    pub(super) state: &'a State,
    pub(super) feedback: &'a Feedback,
    pub(super) kinematics: &'a Kinematics,
    /// Place of each object in `State::objects`.
    pub(super) objects: &'a [Option<usize>],
}

impl Source {
    /// Numbers that the source gives.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::JointPos(v) => v.len(),
            Self::JointVel(v) | Self::JointEffort(v) | Self::JointTargetError(v) | Self::Command(v) => {
                v.len()
            }
            Self::PrevExecuted(v) => v.len(),
            Self::LastAction(n) => *n,
            Self::Constant(v) => v.len(),
            Self::Time => 1,
            Self::Phase(_) | Self::TargetCylindrical(_) => 2,
            Self::BaseQuat => 4,
            _ => 3,
        }
    }

    /// Object that the source reads.
    pub(super) fn object(&self) -> Option<usize> {
        match self {
            Self::ObjectPos(object) | Self::ObjectPosError { object, .. } => Some(*object),
            _ => None,
        }
    }

    /// Hands each number to `put` until that returns false; the index then is the error. What the device does not
    /// report is NaN.
    pub(super) fn read(&self, view: &View<'_>, mut put: impl FnMut(usize, f64) -> bool) -> Result<(), usize> {
        let (state, feedback) = (view.state, view.feedback);
        let mut all =
            |numbers: &mut dyn Iterator<Item = f64>| match numbers.enumerate().find(|&(i, x)| !put(i, x)) {
                None => Ok(()),
                Some((index, _)) => Err(index),
            };
        match self {
            Self::JointPos(joints) => all(&mut joints.iter().map(|&(i, default)| state.q[i] - default)),
            Self::JointVel(joints) => all(&mut joints.iter().map(|&i| state.dq[i])),
            Self::JointEffort(joints) => all(&mut joints.iter().map(|&i| state.tau[i])),
            Self::JointTargetError(joints) => {
                all(&mut joints.iter().map(|&i| feedback.target[i] - state.q[i]))
            }
            Self::Gyro => all(&mut known(state.imu.valid, state.imu.gyro).into_iter()),
            Self::Accelerometer => all(&mut known(state.imu.valid, state.imu.acc).into_iter()),
            Self::ProjectedGravity => {
                let [w, x, y, z] = state.imu.quat;
                let g = [2.0 * (w * y - x * z), -2.0 * (y * z + w * x), -(1.0 - 2.0 * (x * x + y * y))];
                all(&mut known(state.imu.valid, g).into_iter())
            }
            Self::BaseQuat => all(&mut known(state.imu.valid, state.imu.quat).into_iter()),
            Self::BasePos => all(&mut known(state.base.valid, state.base.pos).into_iter()),
            Self::BaseLinVel => {
                let body = rotate_back(&state.imu.quat, &state.base.vel);
                all(&mut known(state.base.valid && state.imu.valid, body).into_iter())
            }
            Self::Command(slots) => all(&mut slots.iter().map(|&i| state.user[i])),
            Self::LastAction(n) => all(&mut feedback.action[..*n].iter().map(|&a| f64::from(a))),
            Self::PrevExecuted(actions) => {
                all(&mut actions.iter().map(|&(i, offset, scale)| (feedback.executed[i] - offset) / scale))
            }
            Self::Phase(period) => {
                let (sin, cos) = (std::f64::consts::TAU * (feedback.time / period).fract()).sin_cos();
                all(&mut [sin, cos].into_iter())
            }
            Self::Time => all(&mut [feedback.time].into_iter()),
            Self::Constant(numbers) => all(&mut numbers.iter().copied()),
            Self::FramePos(frame) => all(&mut view.kinematics.pose(*frame).0.into_iter()),
            Self::FramePosError { frame, axes, target, soft } => {
                let mut error = view.error(target.map(|i| state.user[i]), *frame, *axes);
                if let Some(soft) = soft {
                    let length = (error.iter().map(|x| x * x).sum::<f64>() + soft * soft).sqrt();
                    error = error.map(|x| x / length);
                }
                all(&mut error.into_iter())
            }
            Self::TargetCylindrical(target) => {
                let [x, y, z] = target.map(|i| state.user[i]);
                all(&mut [x.hypot(y), z].into_iter())
            }
            Self::ObjectPos(object) => all(&mut view.object(*object).into_iter()),
            Self::ObjectPosError { object, frame, axes } => {
                all(&mut view.error(view.object(*object), *frame, *axes).into_iter())
            }
        }
    }
}

impl View<'_> {
    /// `point` minus the frame's position, in the axes of another frame or of the world.
    fn error(&self, point: [f64; 3], frame: usize, axes: Option<usize>) -> [f64; 3] {
        let at = self.kinematics.pose(frame).0;
        let error = [point[0] - at[0], point[1] - at[1], point[2] - at[2]];
        match axes {
            None => error,
            Some(axes) => rotate_back(&self.kinematics.pose(axes).1, &error),
        }
    }

    fn object(&self, object: usize) -> [f64; 3] {
        let seen: Option<&Object> = self.objects[object].and_then(|i| self.state.objects.get(i));
        match seen {
            Some(object) => known(object.valid, object.pos),
            None => [f64::NAN; 3],
        }
    }
}

/// What was measured, or NaN.
fn known<const N: usize>(valid: bool, numbers: [f64; N]) -> [f64; N] {
    if valid { numbers } else { [f64::NAN; N] }
}
