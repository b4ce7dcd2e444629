//! The loop and its handle.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use cadenza_runtime::config::RunConfig;
use cadenza_runtime::control::{Handle, Inbox, Prepared, Report, Request, Snapshot, replay_device};
use cadenza_runtime::device::null::NullDevice;
use cadenza_runtime::device::{Device, TimeSource};
use cadenza_runtime::log::Log;
use numpy::PyArray1;
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::bundle::PyBundle;
use crate::error;
use crate::robot::PyRobot;
use crate::sim::PySimDevice;

/// A bundle, a robot and a device that fit each other. Runs once.
#[pyclass(name = "Runtime", module = "cadenza._native", frozen)]
pub(crate) struct PyRuntime {
    prepared: Mutex<Option<Prepared>>,
}

/// Errors of operator commands: an unknown name is a KeyError.
fn refused(e: cadenza_runtime::control::RunError) -> PyErr {
    match e {
        e @ cadenza_runtime::control::RunError::UnknownCommand { .. } => PyKeyError::new_err(e.to_string()),
        e => PyValueError::new_err(e.to_string()),
    }
}

fn json(report: &Report) -> PyResult<String> {
    serde_json::to_string(report).map_err(error::run)
}

/// The device that Python names: a simulation, `null`, or `replay:LOG`.
fn open(device: &Bound<'_, PyAny>, robot: &PyRobot, time: TimeSource) -> PyResult<Box<dyn Device>> {
    if let Ok(sim) = device.cast::<PySimDevice>() {
        return Ok(Box::new(sim.get().lend(&robot.0, time)?));
    }
    let name: String = device.extract()?;
    if let Some(path) = name.strip_prefix("replay:") {
        let log = Log::open(path.as_ref()).map_err(error::log)?;
        return Ok(Box::new(replay_device(&log, time).map_err(error::run)?));
    }
    match name.as_str() {
        "null" => Ok(Box::new(NullDevice::new(&robot.0, time).map_err(error::run)?)),
        _ => Err(error::run(format!("device '{name}': a SimDevice, 'null' or 'replay:LOG' wanted"))),
    }
}

#[pymethods]
impl PyRuntime {
    #[new]
    fn new(
        bundle: &PyBundle,
        robot: &PyRobot,
        device: &Bound<'_, PyAny>,
        config_json: &str,
    ) -> PyResult<Self> {
        let config: RunConfig = serde_json::from_str(config_json).map_err(error::run)?;
        let time = config.time_source();
        let device = open(device, robot, time.clone())?;
        let prepared = Prepared::new(&bundle.0, &robot.0, device, time, &config).map_err(error::run)?;
        Ok(Self { prepared: Mutex::new(Some(prepared)) })
    }

    /// Starts the loop in its own thread.
    fn start(&self) -> PyResult<PyHandle> {
        let prepared = self.take()?;
        let handle = Mutex::new(prepared.start());
        Ok(PyHandle { handle, switching: Mutex::new(()), report: Mutex::new(None) })
    }

    /// Runs to the end; `commands` are (time in s, name, value). The report as JSON.
    fn run(&self, py: Python<'_>, commands: Vec<(f64, String, f64)>) -> PyResult<String> {
        let prepared = self.take()?;
        let script = commands
            .iter()
            .map(|(time, name, value)| {
                Ok((prepared.tick_at(*time), prepared.command(name, *value).map_err(refused)?))
            })
            .collect::<PyResult<Vec<_>>>()?;
        json(&py.detach(|| prepared.run(Inbox::script(script))))
    }
}

impl PyRuntime {
    fn take(&self) -> PyResult<Prepared> {
        let prepared = self.prepared.lock().ok().and_then(|mut p| p.take());
        prepared.ok_or_else(|| PyRuntimeError::new_err("this runtime has run already: make a new one"))
    }
}

/// A running loop.
#[pyclass(name = "Handle", module = "cadenza._native", frozen)]
pub(crate) struct PyHandle {
    handle: Mutex<Handle>,
    switching: Mutex<()>,
    /// Once the loop has ended; whoever waits gets it.
    report: Mutex<Option<String>>,
}

/// How long a wait sleeps between two looks.
const LOOK: Duration = Duration::from_millis(2);

fn broken<E>(_: E) -> PyErr {
    PyRuntimeError::new_err("the handle is broken")
}

impl PyHandle {
    fn with<T>(&self, f: impl FnOnce(&mut Handle) -> T) -> PyResult<T> {
        self.handle.lock().map(|mut handle| f(&mut handle)).map_err(broken)
    }

    /// The report if the loop has ended.
    fn ended(&self) -> PyResult<Option<String>> {
        let mut report = self.report.lock().map_err(broken)?;
        if report.is_none()
            && let Some(ended) = self.with(|handle| handle.wait(Some(Duration::ZERO)))?
        {
            *report = Some(json(&ended)?);
        }
        Ok(report.clone())
    }

    fn ask(&self, request: Request) -> PyResult<()> {
        self.with(|handle| handle.request(request))?.map_err(error::run)
    }
}

#[pymethods]
impl PyHandle {
    fn arm(&self) -> PyResult<()> {
        self.ask(Request::Arm)
    }

    fn disarm(&self) -> PyResult<()> {
        self.ask(Request::Disarm)
    }

    fn reset(&self) -> PyResult<()> {
        self.ask(Request::Reset)
    }

    fn stop(&self) -> PyResult<()> {
        self.ask(Request::Stop)
    }

    fn estop(&self) -> PyResult<()> {
        self.ask(Request::Estop)
    }

    /// Sets an operator command.
    fn command(&self, name: &str, value: f64) -> PyResult<()> {
        let request = self.with(|handle| handle.command(name, value))?.map_err(refused)?;
        self.ask(request)
    }

    /// Gives the robot to another bundle; the tick at which it took over.
    #[pyo3(signature = (bundle, timeout=5.0))]
    fn switch(&self, py: Python<'_>, bundle: &PyBundle, timeout: f64) -> PyResult<u64> {
        let until = Instant::now().checked_add(seconds(timeout)?);
        // One at a time. One that was not waited for may still be under way: outcomes come in order, the last is this one's.
        py.detach(|| {
            let _turn = self.switching.lock();
            let loader = self.with(|handle| handle.loader().clone())?;
            let successor = loader.load(&bundle.0).map_err(error::run)?;
            self.with(|handle| handle.switch(successor))?.map_err(error::run)?;
            loop {
                match self.with(|handle| handle.switched().map(|outcome| (outcome, handle.under_way())))? {
                    Some((_, 1..)) => {}
                    Some((Ok(tick), 0)) => return Ok(tick),
                    Some((Err(refusal), 0)) => return Err(PyValueError::new_err(refusal.to_string())),
                    None if until.is_some_and(|until| Instant::now() >= until) => {
                        return Err(PyTimeoutError::new_err(format!("no policy step within {timeout} s")));
                    }
                    None => std::thread::sleep(LOOK),
                }
            }
        })
    }

    /// The newest tick, as the fields of `cadenza.runtime.Snapshot`.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Snapshot { tick, level, phase, authority, n, q, dq, command, base, fallback, fault } =
            self.with(Handle::snapshot)?;
        let d = PyDict::new(py);
        d.set_item("tick", tick)?;
        d.set_item("level", level.name())?;
        d.set_item("phase", phase.name())?;
        d.set_item("authority", authority)?;
        d.set_item("q", PyArray1::from_slice(py, &q[..n]))?;
        d.set_item("dq", PyArray1::from_slice(py, &dq[..n]))?;
        d.set_item("command", PyArray1::from_slice(py, &command[..n]))?;
        let base = base.map(|(pos, quat)| PyArray1::from_vec(py, [&pos[..], &quat].concat()));
        d.set_item("base", base)?;
        d.set_item("fallback", fallback)?;
        d.set_item("fault", fault.map(|f| f.reason.name()))?;
        Ok(d)
    }

    /// Waits for the end; the report as JSON.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<String> {
        let until = timeout.map(seconds).transpose()?.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            // Nothing is locked while it sleeps: other threads may stop the loop meanwhile.
            if let Some(report) = py.detach(|| self.ended())? {
                return Ok(report);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(PyTimeoutError::new_err("the loop still runs"));
            }
            py.check_signals()?;
            py.detach(|| std::thread::sleep(LOOK));
        }
    }
}

fn seconds(t: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(t).map_err(|_| PyValueError::new_err(format!("timeout {t} s")))
}

/// The run's knobs at their defaults, as JSON.
#[pyfunction]
fn default_run_config() -> PyResult<String> {
    serde_json::to_string(&RunConfig::default()).map_err(error::run)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyRuntime>()?;
    module.add_class::<PyHandle>()?;
    module.add_function(wrap_pyfunction!(default_run_config, module)?)
}
