//! The observation normaliser.

use serde::{Deserialize, Serialize};

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
