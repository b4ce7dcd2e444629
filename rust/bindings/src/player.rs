//! A bundle's sequences for simulations without a robot.

use std::sync::Mutex;

use cadenza_runtime::config::RunConfig;
use cadenza_runtime::control::Player;
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::bundle::PyBundle;
use crate::error;

/// Plays a bundle's action sequences, one tick for each policy step.
#[pyclass(name = "Player", module = "cadenza._native", frozen)]
pub(crate) struct PyPlayer(Mutex<Player>);

impl PyPlayer {
    fn with<T>(&self, f: impl FnOnce(&mut Player) -> T) -> PyResult<T> {
        self.0
            .lock()
            .map(|mut player| f(&mut player))
            .map_err(|_| PyRuntimeError::new_err("the player is broken"))
    }
}

#[pymethods]
impl PyPlayer {
    #[new]
    fn new(bundle: &PyBundle, config_json: &str, hold_steps: u64) -> PyResult<Self> {
        let config: RunConfig = serde_json::from_str(config_json).map_err(error::run)?;
        Player::new(&bundle.0, &config, hold_steps).map(|player| Self(Mutex::new(player))).map_err(error::run)
    }

    /// A new episode.
    fn reset(&self) -> PyResult<()> {
        self.with(Player::reset)
    }

    /// One policy step: the action `[actions]` in graph units, and `run`, `hold` or `exhausted`.
    fn step<'py>(
        &self,
        py: Python<'py>,
        obs: PyReadonlyArray1<'py, f32>,
    ) -> PyResult<(Bound<'py, PyArray1<f64>>, &'static str)> {
        let obs = obs.as_slice().map_err(|e| PyValueError::new_err(e.to_string()))?.to_vec();
        let (action, flow) = py
            .detach(|| {
                self.with(|player| {
                    let mut out = vec![0.0; player.action_len()];
                    player.step(&obs, &mut out).map(|flow| (out, flow))
                })
            })?
            .map_err(error::run)?;
        Ok((PyArray1::from_vec(py, action), flow.name()))
    }

    /// Numbers in an observation and in an action.
    #[getter]
    fn sizes(&self) -> PyResult<(usize, usize)> {
        self.with(|player| (player.observation_len(), player.action_len()))
    }

    /// What has happened since the last reset.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = self.with(|player| player.counts())?;
        let d = PyDict::new(py);
        d.set_item("asked", counts.asked)?;
        d.set_item("accepted", counts.accepted)?;
        d.set_item("expired", counts.expired)?;
        d.set_item("refused", counts.refused)?;
        d.set_item("expired_actions", counts.expired_actions)?;
        Ok(d)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyPlayer>()
}
