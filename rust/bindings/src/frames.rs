//! Observations built from recorded sensors, by the code that builds them on the robot.

use std::collections::BTreeMap;

use cadenza_policy::{Manifest, Recorded};
use cadenza_runtime::observe::frames::Frames;
use numpy::ndarray::Array3;
use numpy::{IntoPyArray, PyArray3, PyReadonlyArray3, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::error;
use crate::robot::PyRobot;

/// Observations `[S, K, n]` from sensors by name, each `[S, K, ·]`, joints in the manifest's order; each sequence starts
/// with a reset.
#[pyfunction]
fn observe_frames<'py>(
    py: Python<'py>,
    manifest_json: &str,
    robot: &PyRobot,
    frames: BTreeMap<String, PyReadonlyArray3<'py, f32>>,
) -> PyResult<Bound<'py, PyArray3<f32>>> {
    let manifest: Manifest = serde_json::from_str(manifest_json).map_err(error::bundle)?;
    let tensors = frames
        .iter()
        .map(|(name, array)| {
            let data = array.as_array().iter().copied().collect();
            (name.clone(), Recorded { shape: array.shape().to_vec(), data })
        })
        .collect();
    let frames = Frames::new(&manifest, &robot.0, &tensors).map_err(error::bundle)?;
    let mut all = Vec::new();
    let rows = frames.rebuild(|_, _, observation| {
        all.extend_from_slice(observation);
        Ok(())
    });
    rows.map_err(error::bundle)?;
    let shape = (frames.sequences, frames.steps, manifest.observation.size);
    Ok(Array3::from_shape_vec(shape, all).map_err(error::bundle)?.into_pyarray(py))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(observe_frames, module)?)
}
