//! Hashes, recorded vectors and origin.

use serde::{Deserialize, Serialize};

/// An entry of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Length.
    pub bytes: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
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
