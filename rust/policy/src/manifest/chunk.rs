//! The action sequence of one inference.

use serde::{Deserialize, Serialize};

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
