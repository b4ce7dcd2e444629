//! What a bundle says about itself: `manifest.json`, format 1.
//!
//! SI units, radians, quaternions `wxyz`. Everything about joints is keyed by joint name; there is no index map
//! anywhere in the file. Unknown keys are refused unless they start with `x-`; duplicate keys, numbers that are not
//! finite and nesting deeper than 32 are refused as well.

mod action;
mod chunk;
mod error;
mod function;
mod monitor;
mod normalizer;
mod observation;
mod provenance;
mod read;
mod robot;
mod rules;
mod terms;
mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use action::{Action, ActionKind, ActionOffset, Channel, DefaultWord, Noise, Previous};
pub use chunk::{ChunkMode, ChunkSpec, OnExhausted, Seam};
pub use error::ManifestError;
pub use function::{Carry, CarryInit, Function, InGraph, Weights};
pub use monitor::{CommandSlot, MonitorAction, MonitorSpec, Trip};
pub use normalizer::{Normalizer, NormalizerForm, NormalizerPlace};
pub use observation::{
    ClipStage, History, HistoryFill, HistoryOrder, Interleave, Numbers, Observation, Term, TermParams,
};
pub use provenance::{FileEntry, ParitySpec, Provenance};
pub use robot::{Frame, Joint, JointKind, Link, Rates, RobotRef};

/// Format version that this crate reads and writes.
pub const FORMAT: u32 = 1;

/// Longest `manifest.json`, bytes.
pub const MANIFEST_CAP: usize = 1 << 20;

/// The manifest of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version, 1.
    pub format: u32,
    /// Name of the policy.
    pub name: String,
    /// Every other entry of the bundle; the writer fills it.
    #[serde(default)]
    pub files: BTreeMap<String, FileEntry>,
    /// The robot that it was trained for.
    pub robot: RobotRef,
    /// Periods.
    pub rates: Rates,
    /// Joints of the robot that the policy knows, in the policy's own order.
    pub joints: Vec<Joint>,
    /// Named frames and how they hang on the joints.
    #[serde(default)]
    pub frames: Vec<Frame>,
    /// Observation vector.
    pub observation: Observation,
    /// Observation normaliser.
    pub normalizer: Normalizer,
    /// What the network's output means.
    pub action: Action,
    /// Action sequence.
    pub chunk: ChunkSpec,
    /// Networks.
    pub functions: BTreeMap<String, Function>,
    /// Recurrent state.
    #[serde(default)]
    pub carry: BTreeMap<String, Carry>,
    /// What the graph already does.
    pub in_graph: InGraph,
    /// Exploration noise that the bundle allows.
    #[serde(default)]
    pub noise: Option<Noise>,
    /// One entry for each property of `spec.stl`.
    #[serde(default)]
    pub monitors: Vec<MonitorSpec>,
    /// Operator command vector, in the order of `State::user`.
    #[serde(default)]
    pub commands: Vec<CommandSlot>,
    /// Weight format.
    pub weights: Weights,
    /// Recorded vectors.
    #[serde(default)]
    pub parity: Option<ParitySpec>,
    /// Where it comes from.
    pub provenance: Provenance,
}
