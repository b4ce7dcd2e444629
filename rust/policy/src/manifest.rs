//! What a bundle says about itself: `manifest.json`, format 1.
//!
//! SI units, radians, quaternions `wxyz`. Everything about joints is keyed by joint name; there is no index map
//! anywhere in the file. Unknown keys are refused unless they start with `x-`; duplicate keys, numbers that are not
//! finite and nesting deeper than 32 are refused as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::manifest_error::ManifestError;

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

/// An entry of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Length.
    pub bytes: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

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

/// Observation vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// Σ size · history length.
    pub size: usize,
    /// Order of terms and frames.
    pub interleave: Interleave,
    /// Terms, in order.
    pub terms: Vec<Term>,
}

/// How the histories of several terms are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interleave {
    /// Term by term, each with its whole history.
    Term,
    /// Frame by frame, each with all terms; all history lengths are equal.
    Time,
}

/// One term of the observation: `u = raw − offset`, then clip and scale in the order of `clip_stage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Name, unique in the observation.
    pub name: String,
    /// Where the numbers come from.
    pub source: String,
    /// How many there are, for one frame.
    pub size: usize,
    /// Joints that it reads, for joint sources; all joints of the manifest when absent.
    #[serde(default)]
    pub joints: Option<Vec<String>>,
    /// Subtracted first.
    #[serde(default)]
    pub offset: Numbers,
    /// Factor.
    #[serde(default = "Numbers::one")]
    pub scale: Numbers,
    /// Range.
    #[serde(default)]
    pub clip: Option<[f64; 2]>,
    /// Whether the range is applied before or after the factor.
    #[serde(default)]
    pub clip_stage: ClipStage,
    /// Settings of the source.
    #[serde(default)]
    pub params: TermParams,
    /// History.
    #[serde(default)]
    pub history: History,
}

/// One number for all components, or one for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Numbers {
    /// The same for all.
    All(f64),
    /// One for each.
    Each(Vec<f64>),
}

impl Numbers {
    /// The factor that changes nothing.
    pub fn one() -> Self {
        Self::All(1.0)
    }

    /// Component `i`; `None` past the end of a list.
    pub fn get(&self, i: usize) -> Option<f64> {
        match self {
            Self::All(x) => Some(*x),
            Self::Each(v) => v.get(i).copied(),
        }
    }
}

impl Default for Numbers {
    fn default() -> Self {
        Self::All(0.0)
    }
}

/// When a term's range is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipStage {
    /// `clip(u) · scale`.
    BeforeScale,
    /// `clip(u · scale)`.
    #[default]
    AfterScale,
}

/// Settings of a term's source; each source takes only its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermParams {
    /// `joint_pos`: the raw angle, without subtracting the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute: Option<bool>,
    /// `phase`: period, s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<f64>,
    /// `constant`: its numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Vec<f64>>,
    /// `frame_pos`, `frame_pos_error`: the frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// `frame_pos_error`, `object_pos_error`: the frame whose axes the result is given in; the world when absent.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub axes: Option<String>,
    /// `frame_pos_error`, `target_cylindrical`: the three commands that hold the point, in the world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<[String; 3]>,
    /// `frame_pos_error`: `x/√(|x|² + soft²)` instead of `x`, m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<f64>,
    /// `object_pos`, `object_pos_error`: the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// `command`: the slots, by name; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<String>>,
}

/// History of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Frames kept, at least 1.
    pub length: usize,
    /// Order within the observation.
    pub order: HistoryOrder,
    /// What stands there after a reset.
    pub fill: HistoryFill,
}

impl Default for History {
    fn default() -> Self {
        Self { length: 1, order: HistoryOrder::OldestFirst, fill: HistoryFill::Repeat }
    }
}

/// Order of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryOrder {
    /// Oldest frame first.
    OldestFirst,
    /// Newest frame first.
    NewestFirst,
}

/// What fills a history after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryFill {
    /// The first frame, repeated.
    Repeat,
    /// Zeros.
    Zero,
}

/// Observation normaliser: applied exactly once, in the graph or by the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalizer {
    /// Who applies it.
    #[serde(rename = "where")]
    pub place: NormalizerPlace,
    /// Its formula.
    #[serde(default)]
    pub form: NormalizerForm,
    /// Mean, one for each observation.
    #[serde(default)]
    pub mean: Vec<f64>,
    /// Variance or standard deviation, as `form` says.
    #[serde(default)]
    pub spread: Vec<f64>,
    /// ε of the formula.
    #[serde(default)]
    pub eps: f64,
    /// Symmetric range afterwards.
    #[serde(default)]
    pub clip: Option<f64>,
}

/// Who normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormalizerPlace {
    /// The graph.
    Graph,
    /// The engine, before the graph (imports only).
    Runtime,
    /// Nobody.
    None,
}

/// Formula of a normaliser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormalizerForm {
    /// `(x − mean)/√(spread + eps)`.
    #[default]
    SqrtVarPlusEps,
    /// `(x − mean)/(spread + eps)`.
    StdPlusEps,
}

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

/// Action sequence of one inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkSpec {
    /// How the sequence is produced.
    pub mode: ChunkMode,
    /// Future rows.
    pub horizon: usize,
    /// Rows before the future ones (already executed actions).
    #[serde(default)]
    pub past: usize,
    /// Policy steps between two inferences.
    pub execute: usize,
    /// What happens when the sequence runs out.
    pub on_exhausted: OnExhausted,
    /// How two sequences are joined.
    pub seam: Seam,
    /// Length of a fade, policy steps.
    #[serde(default)]
    pub fade_ticks: usize,
}

/// How a sequence is produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkMode {
    /// One action for each inference.
    None,
    /// All at once.
    Open,
    /// Step by step from a recurrent state.
    Lazy,
}

/// What happens when a sequence runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// Hold the last target, then brake.
    Hold,
    /// Damp.
    Damp,
}

/// How two sequences are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seam {
    /// The new one.
    Replace,
    /// From the old to the new over `fade_ticks`.
    Fade,
    /// The new one, whose first actions equal the committed ones.
    Prefix,
}

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

/// How one property of `spec.stl` is watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorSpec {
    /// Property name in `spec.stl`.
    pub name: String,
    /// Seconds of one STL step; a whole multiple of `control_dt`.
    pub dt: f64,
    /// When it trips.
    pub trip: Trip,
    /// What happens then.
    pub action: MonitorAction,
    /// Margin of `at_risk`.
    #[serde(default)]
    pub margin: f64,
    /// Values of the formula's parameters.
    #[serde(default)]
    pub params: BTreeMap<String, f64>,
}

/// When a monitor trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trip {
    /// No future can save it any more.
    Violated,
    /// Its lower bound fell below the margin.
    AtRisk,
    /// It is satisfied.
    Satisfied,
}

/// What a tripped monitor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MonitorAction {
    /// Only a record.
    Log,
    /// Hold the last target.
    Hold,
    /// Brake, hold, damp.
    SoftStop,
    /// Damp.
    Damp,
    /// Motors off.
    Off,
}

/// A slot of the operator command vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSlot {
    /// Name; signals call it `user.<name>`.
    pub name: String,
    /// Values that the policy was trained for; a command outside is refused.
    pub range: [f64; 2],
    /// Value before the operator gives one.
    #[serde(default)]
    pub default: f64,
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

/// Recorded vectors and how close the engine must come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParitySpec {
    /// Entry of the bundle.
    pub file: String,
    /// What computed them.
    pub source: String,
    /// Absolute tolerance.
    pub atol: f64,
    /// Relative tolerance.
    pub rtol: f64,
    /// Largest difference seen at export.
    pub measured: f64,
    /// Error of quantised weights against f32, over all vectors.
    #[serde(default)]
    pub quantization_error: f64,
}

/// Where a bundle comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provenance {
    /// UTC, RFC 3339; from `SOURCE_DATE_EPOCH` when set.
    pub created: String,
    /// Writer's version.
    pub cadenza: String,
    /// Algorithm.
    pub algorithm: String,
    /// Task.
    pub environment: String,
    /// Seed.
    pub seed: u64,
    /// Environment steps.
    pub steps: u64,
    /// Commit.
    pub git: Option<String>,
    /// Whether the work tree had changes.
    pub dirty: bool,
    /// MuJoCo version.
    pub mujoco: Option<String>,
    /// PyTorch version.
    pub torch: Option<String>,
    /// Command line.
    pub command: Option<String>,
}
