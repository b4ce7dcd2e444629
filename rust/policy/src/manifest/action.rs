//! What the network's output means, and the noise that may be added to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the network's output means: `r = raw_clip(network)`, `y = clip(r·scale + offset)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Meaning of `y`.
    pub kind: ActionKind,
    /// Joints that it drives, in the order of the network's output.
    pub joints: Vec<String>,
    /// How a channel may be interpolated; `linear` when absent.
    #[serde(default)]
    pub channels: BTreeMap<String, Channel>,
    /// Range of the network's output.
    #[serde(default)]
    pub raw_clip: Option<[f64; 2]>,
    /// Factor by joint; `*` stands for the joints not named.
    pub scale: BTreeMap<String, f64>,
    /// Offset by joint, or the joints' defaults.
    #[serde(default)]
    pub offset: ActionOffset,
    /// Range of `y` by joint.
    #[serde(default)]
    pub clip: Option<BTreeMap<String, [f64; 2]>>,
    /// `position_increment`: largest distance of the target from the measured joint, rad.
    #[serde(default)]
    pub leash: Option<f64>,
    /// Which vector feeds the network's previous-action input.
    #[serde(default)]
    pub previous: Previous,
    /// Previous action after a reset, graph units; zeros when absent.
    #[serde(default)]
    pub reset: Option<Vec<f64>>,
}

/// Meaning of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Joint position.
    Position,
    /// Joint position about the default.
    PositionOffset,
    /// Change of the joint target in one policy step.
    PositionIncrement,
    /// Joint velocity.
    Velocity,
    /// Joint effort.
    Effort,
}

/// How a channel of an action sequence may be interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// As a number.
    Linear,
    /// Along the shortest arc.
    Angle,
    /// Never: the newest wins.
    Discrete,
}

/// Offset of an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ActionOffset {
    /// The word `default`: the joints' default positions.
    Word(DefaultWord),
    /// By joint; `*` stands for the joints not named.
    Each(BTreeMap<String, f64>),
}

impl Default for ActionOffset {
    fn default() -> Self {
        Self::Each(BTreeMap::new())
    }
}

/// The word `default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultWord {
    /// The joints' default positions.
    Default,
}

/// Which vector is fed back as the previous action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Previous {
    /// The network's output.
    #[default]
    Raw,
    /// What was executed, in graph units.
    Applied,
}

/// Exploration noise that a bundle allows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Noise {
    /// Bounded coloured noise on the joint target.
    Bounded {
        /// Largest amplitude by joint, rad.
        amplitude: BTreeMap<String, f64>,
        /// Largest change in one control tick by joint, rad.
        rate: BTreeMap<String, f64>,
        /// Seed.
        seed: u64,
    },
    /// Symphony's: a clipped normal added before the squash.
    ClippedGaussianPreTanh {
        /// Scale of the normal.
        std: f64,
        /// Clip of the unit normal.
        clip: f64,
    },
}
