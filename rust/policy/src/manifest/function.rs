//! The networks: their files, bindings and recurrent states.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Entry of the bundle.
    pub file: String,
    /// Leading dimension.
    pub batch: usize,
    /// Graph input → binding.
    pub inputs: BTreeMap<String, String>,
    /// Graph output → binding.
    pub outputs: BTreeMap<String, String>,
}

/// A recurrent state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carry {
    /// Shape.
    pub shape: Vec<usize>,
    /// Value after a reset.
    pub init: CarryInit,
}

/// Value of a recurrent state after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CarryInit {
    /// Zeros.
    Zeros,
    /// What the function `init` gives.
    Init,
}

/// What the graph already does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InGraph {
    /// Normalises the observation.
    pub normalize: bool,
    /// Squashes the action.
    pub squash: bool,
    /// Scales the action.
    pub action_scale: bool,
    /// Offsets the action.
    pub action_offset: bool,
}

/// Weight format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// 32-bit floats.
    #[default]
    F32,
    /// 8-bit integers with one scale for each output.
    Int8,
}
