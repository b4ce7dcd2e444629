//! The robot that a policy was trained for: rates, joints, frames.

use serde::{Deserialize, Serialize};

/// The robot that a policy was trained for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobotRef {
    /// Name.
    pub name: String,
    /// SHA-256 of its model file.
    pub model_sha256: Option<String>,
}

/// Periods in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// One inference each.
    pub policy_dt: f64,
    /// One command each; `policy_dt / control_dt` is a whole number.
    pub control_dt: f64,
    /// Physics step of the simulation that it was trained in.
    pub physics_dt: Option<f64>,
}

/// A joint as the policy knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joint {
    /// Name in robot.toml.
    pub name: String,
    /// Default position.
    pub default: f64,
    /// Position gain, N·m/rad.
    pub kp: f64,
    /// Velocity gain, N·m·s/rad.
    pub kd: f64,
    /// Position range in training.
    pub position: Option<[f64; 2]>,
    /// Velocity limit in training, rad/s.
    pub velocity_max: Option<f64>,
    /// Effort limit in training, N·m.
    pub effort_max: Option<f64>,
}

/// A named frame: the product of its links' transforms, starting at the world (or at the floating base).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// Name, as `[[frame]]` in robot.toml.
    pub name: String,
    /// Whether the chain starts at the floating base instead of the world.
    #[serde(default)]
    pub floating: bool,
    /// Links, outwards.
    pub chain: Vec<Link>,
}

/// One step of a frame's chain: a fixed transform, then the motion of one joint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Fixed translation, m.
    pub pos: [f64; 3],
    /// Fixed rotation.
    pub quat: [f64; 4],
    /// Joint that moves after the fixed transform, if any.
    pub joint: Option<String>,
    /// Its axis, a unit vector (ignored without a joint).
    pub axis: [f64; 3],
    /// Its kind.
    pub kind: JointKind,
    /// Joint position at which it does not move the frame (MuJoCo's `qpos0`).
    pub zero: f64,
}

/// How a joint moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JointKind {
    /// Turns about its axis.
    Hinge,
    /// Slides along its axis.
    Slide,
}
