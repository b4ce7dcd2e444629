//! The observation vector: its terms and their histories.

use serde::{Deserialize, Serialize};

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
