//! What happens to an action on its way to the motor: units, sequence, limits.
//!
//! ```text
//! network output ─► Decoder (units, joints) ─► Sequence (which action holds now) ─► Noise (exploration, if allowed)
//!                ─► Limiter (what the joint can do)
//! ```
//!
//! [`ActionPath`] strings them together for the control tick and for batched training alike. Nothing here
//! allocates after construction; nothing panics on bad input.

mod boxcar;
mod decode;
mod limiter;
mod noise;
mod path;
mod seam;
mod sequence;
mod snapshot;
mod upsample;

pub(crate) use decode::Units;
pub use decode::{DecodeError, Decoder};
pub use limiter::Limiter;
pub use noise::Noise;
pub(crate) use noise::{fnv1a, mix};
pub use path::{ActionFault, ActionPath, Motion, Origin};
pub use seam::{NotASeam, Seam};
pub use sequence::{Accepted, Chunk, PrefixMismatch, Refusal, Sequence};
pub use snapshot::{PathSnapshot, WrongSnapshot};

use crate::robot::RobotError;
use crate::state::Joints;

/// How a sequence stands at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flow {
    /// A valid action covers this tick.
    Run = 0,
    /// None does: the last target is held.
    Hold = 1,
    /// The hold time is over: the gate must brake.
    Exhausted = 2,
}

impl Flow {
    /// Name in front ends.
    pub const fn name(self) -> &'static str {
        match self {
            Flow::Run => "run",
            Flow::Hold => "hold",
            Flow::Exhausted => "exhausted",
        }
    }
}

/// What the limiter is asked for at one control tick, robot order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// How the sequence stands.
    pub flow: Flow,
    /// Target positions.
    pub q: Joints,
    /// Velocity of the target, for feed-forward; 0 where it is held.
    pub dq: Joints,
}

/// Why a limiter cannot be made or started.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// More joints than fit.
    #[error("{n} joints, at most {}", crate::state::MAX_JOINTS)]
    TooManyJoints {
        /// Found.
        n: usize,
    },
    /// Limits without inside, or not finite.
    #[error("limits of joint {joint} (or the control period) are empty, not positive or not finite")]
    BadLimits {
        /// Joint, robot order.
        joint: usize,
    },
    /// A joint stands outside its range.
    #[error("joint {joint} is at {q}, outside [{lo}, {hi}]")]
    OutsideLimits {
        /// Joint, robot order.
        joint: usize,
        /// Where it is.
        q: f64,
        /// Lower end.
        lo: f64,
        /// Upper end.
        hi: f64,
    },
    /// A joint is said to move faster than it may.
    #[error("joint {joint} moves at {dq}, at most {velocity}")]
    TooFast {
        /// Joint, robot order.
        joint: usize,
        /// Its velocity.
        dq: f64,
        /// Its limit.
        velocity: f64,
    },
}

/// Why a bundle's actions cannot be played on a robot.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ActionError {
    /// Bundle and robot do not fit.
    #[error(transparent)]
    Robot(#[from] RobotError),
    /// The limits are unusable.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// Something that the format knows and this version does not play.
    #[error("{what} {value} is not supported yet; supported: {supported}")]
    NotSupported {
        /// What it is about.
        what: &'static str,
        /// The value.
        value: String,
        /// What can be used instead.
        supported: &'static str,
    },
    /// A number of `action` or `chunk` is missing or unusable.
    #[error("{key} = {value}: expected {expected}")]
    BadValue {
        /// Key in the manifest, with the joint.
        key: String,
        /// The value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

fn bad(key: impl Into<String>, value: impl ToString, expected: &'static str) -> ActionError {
    ActionError::BadValue { key: key.into(), value: value.to_string(), expected }
}
