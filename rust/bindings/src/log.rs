//! Logs: columns by name, and the report page.

use std::collections::HashMap;
use std::path::PathBuf;

use cadenza_runtime::control::FaultReport;
use cadenza_runtime::log::entry::VerdictEntry;
use cadenza_runtime::log::{Log, LogError, Watched};
use cadenza_runtime::report;
use cadenza_runtime::state::Joints;
use numpy::ndarray::Array2;
use numpy::{PyArray1, PyArray2};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error;

/// A bundle, its first tick, the first one of the next, and name and formula of each of its monitors.
type Span = (String, u64, Option<u64>, Vec<(String, String)>);

/// A log in memory.
#[pyclass(name = "Log", module = "cadenza._native", frozen)]
pub(crate) struct PyLog(Log);

/// Rows `[ticks, joints]`.
fn rows<'py>(py: Python<'py>, rows: &[Joints], n: usize) -> Bound<'py, PyArray2<f64>> {
    let flat = rows.iter().flat_map(|row| row[..n].iter().copied()).collect();
    PyArray2::from_owned_array(py, Array2::from_shape_vec((rows.len(), n), flat).unwrap_or_default())
}

#[pymethods]
impl PyLog {
    #[new]
    fn new(path: PathBuf) -> PyResult<Self> {
        Log::open(&path).map(Self).map_err(error::log)
    }

    /// What the log says before its first message, as JSON: robot, joints, rates, commands, monitors, run.
    #[getter]
    fn header(&self) -> PyResult<String> {
        serde_json::to_string(self.0.header()).map_err(error::log)
    }

    /// Statistics of the run as JSON; None when it was killed.
    #[getter]
    fn stats(&self) -> PyResult<Option<String>> {
        self.0.stats().map(|s| serde_json::to_string(s).map_err(error::log)).transpose()
    }

    /// What could not be read, one sentence each.
    #[getter]
    fn damage(&self) -> Vec<String> {
        self.0.damage().to_vec()
    }

    /// Arrays `[ticks, joints]` by name: `q`, `dq`, `tau` measured, `command`, `command_velocity` sent;
    /// `level` `[ticks]` of each command, and the control ticks of both, `state_tick` and `command_tick`.
    fn joints<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let n = self.0.header().joints.len();
        let states = self.0.states().collect::<Result<Vec<_>, LogError>>().map_err(error::log)?;
        let commands = self.0.commands().collect::<Result<Vec<_>, LogError>>().map_err(error::log)?;
        let d = PyDict::new(py);
        let column = |f: fn(&cadenza_runtime::state::State) -> Joints| -> Vec<Joints> {
            states.iter().map(|s| f(&s.value)).collect()
        };
        d.set_item("q", rows(py, &column(|s| s.q), n))?;
        d.set_item("dq", rows(py, &column(|s| s.dq), n))?;
        d.set_item("tau", rows(py, &column(|s| s.tau), n))?;
        let sent: Vec<Joints> = commands.iter().map(|c| c.value.q).collect();
        let velocity: Vec<Joints> = commands.iter().map(|c| c.value.dq).collect();
        d.set_item("command", rows(py, &sent, n))?;
        d.set_item("command_velocity", rows(py, &velocity, n))?;
        let levels: Vec<u8> = commands.iter().map(|c| c.value.level as u8).collect();
        d.set_item("level", PyArray1::from_vec(py, levels))?;
        let ticks = states.iter().map(|s| s.value.tick).collect();
        d.set_item("state_tick", PyArray1::<u64>::from_vec(py, ticks))?;
        let ticks = commands.iter().map(|c| c.value.tick).collect();
        d.set_item("command_tick", PyArray1::<u64>::from_vec(py, ticks))?;
        Ok(d)
    }

    /// Verdicts of the monitors as columns `tick`, `monitor` (index), `step`, `closed` (robustness of the instant that
    /// closed, NaN where none did), `lo`, `hi`.
    fn verdicts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let verdicts = self.0.verdicts().collect::<Result<Vec<_>, LogError>>().map_err(error::log)?;
        let whole = |f: fn(&VerdictEntry) -> u64| verdicts.iter().map(|v| f(&v.value)).collect();
        let real = |f: fn(&VerdictEntry) -> f64| verdicts.iter().map(|v| f(&v.value)).collect();
        let d = PyDict::new(py);
        d.set_item("tick", PyArray1::<u64>::from_vec(py, whole(|v| v.tick)))?;
        d.set_item("monitor", PyArray1::<u64>::from_vec(py, whole(|v| v.monitor.into())))?;
        d.set_item("step", PyArray1::<u64>::from_vec(py, whole(|v| v.step)))?;
        d.set_item("closed", PyArray1::<f64>::from_vec(py, real(|v| v.closed.unwrap_or(f64::NAN))))?;
        d.set_item("lo", PyArray1::<f64>::from_vec(py, real(|v| v.lo)))?;
        d.set_item("hi", PyArray1::<f64>::from_vec(py, real(|v| v.hi)))?;
        Ok(d)
    }

    /// The monitors of each bundle that had the robot: `bundle`, its ticks `from` … `until` (None for the last one), and
    /// `(name, formula)` of each in the order of their indices.
    fn watched(&self) -> PyResult<Vec<Span>> {
        let watched = self.0.watched().map_err(error::log)?.into_iter();
        let row = |Watched { bundle, from, until, monitors }| {
            (bundle, from, until, monitors.into_iter().map(|m| (m.name, m.formula)).collect())
        };
        Ok(watched.map(row).collect())
    }

    /// Faults in order as JSON: `[{"tick", "reason", "subject", "value", "limit", "level"}]`.
    fn events(&self) -> PyResult<String> {
        let header = self.0.header();
        let joints: Vec<String> = header.joints.iter().map(|j| j.name.clone()).collect();
        let watched = self.0.watched().map_err(error::log)?;
        let faults = self
            .0
            .events()
            .map(|e| {
                e.map(|e| FaultReport::new(&e.value, &joints, &Watched::names_at(&watched, e.value.tick)))
            })
            .collect::<Result<Vec<_>, LogError>>()
            .map_err(error::log)?;
        serde_json::to_string(&faults).map_err(error::log)
    }

    /// Messages that the recorder dropped, by topic; topics that lost none are absent.
    fn dropped(&self) -> HashMap<&'static str, u64> {
        self.0.dropped().iter().map(|&(topic, n)| (topic.name(), n)).collect()
    }

    /// The report: one self-contained HTML page.
    fn html(&self) -> PyResult<String> {
        report::html(&self.0).map_err(error::log)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyLog>()
}
