//! Streaming monitors. One sample costs one call: no array is copied, no Python object is made that is not asked for.

use std::collections::BTreeMap;

use cadenza_stl::{At, Closed, Interval, Monitor, MonitorOptions, Truth, Verdict};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::formula::PyFormula;
use super::refuse;
use crate::error;

/// What one sample decided.
#[pyclass(name = "Verdict", module = "cadenza._native", frozen)]
pub(crate) struct PyVerdict(Verdict<f64>);

fn truth(t: Truth) -> &'static str {
    match t {
        Truth::Satisfied => "satisfied",
        Truth::Violated => "violated",
        Truth::Boundary => "boundary",
        Truth::Fault => "fault",
    }
}

fn pair(c: Closed<f64>) -> (u64, f64) {
    (c.t, c.robustness)
}

fn triple(i: Interval<f64>) -> (u64, f64, f64) {
    (i.t, i.lo, i.hi)
}

#[pymethods]
impl PyVerdict {
    /// Number of resets before this run.
    #[getter]
    fn epoch(&self) -> u32 {
        self.0.epoch
    }

    /// Index of the sample in this run.
    #[getter]
    fn step(&self) -> u64 {
        self.0.step
    }

    /// `(t, robustness)` of the instant that the sample closed; None when it closed none.
    #[getter]
    fn closed(&self) -> Option<(u64, f64)> {
        self.0.closed.map(pair)
    }

    /// `satisfied`, `violated`, `boundary` (robustness 0) or `fault` (NaN) of that instant.
    #[getter]
    fn truth(&self) -> Option<&'static str> {
        self.0.closed.map(|c| truth(c.truth))
    }

    /// `(t, lo, hi)`: what the oldest open instant can still become.
    #[getter]
    fn pending(&self) -> Option<(u64, f64, f64)> {
        self.0.pending.map(triple)
    }

    fn __repr__(&self) -> String {
        let closed = self.0.closed.map_or("None".to_owned(), |c| format!("({}, {})", c.t, c.robustness));
        let pending = self.0.pending.map_or("None".to_owned(), |p| format!("({}, {}, {})", p.t, p.lo, p.hi));
        format!("Verdict(step={}, closed={closed}, pending={pending})", self.0.step)
    }
}

/// Evaluates one formula sample by sample.
#[pyclass(name = "Monitor", module = "cadenza._native")]
pub(crate) struct PyMonitor {
    monitor: Monitor<f64>,
    formula: Py<PyFormula>,
    interval: bool,
    sample: Vec<f64>,
}

/// Robustness `[T]` and bounds `[T, 2]`.
type Batch<'py> = (Bound<'py, PyArray1<f64>>, Option<Bound<'py, PyArray2<f64>>>);

/// Samples `[T, D]` as they are where the engine can read them, else converted once.
fn rows<'py>(samples: &Bound<'py, PyAny>, d: usize) -> PyResult<PyReadonlyArray2<'py, f64>> {
    if let Ok(array) = samples.cast::<PyArray2<f64>>()
        && array.is_c_contiguous()
        && array.shape()[1] == d
    {
        return array.try_readonly().map_err(|e| error::borrowed("samples", e));
    }
    let array = samples.py().import("numpy")?.call_method1("asarray", (samples,))?;
    let dtype = array.getattr("dtype")?;
    if !"fiub".contains(dtype.getattr("kind")?.extract::<char>()?) {
        return Err(PyTypeError::new_err(format!("samples have type {dtype}: real numbers wanted")));
    }
    let shape: Vec<usize> = array.getattr("shape")?.extract()?;
    if shape.len() != 2 || shape[1] != d {
        return Err(PyValueError::new_err(format!("samples have shape {shape:?}, expected [T, {d}]")));
    }
    Ok(array.call_method1("astype", ("float64", "C"))?.extract()?)
}

impl PyMonitor {
    /// Numbers of a list or tuple into the sample buffer.
    fn gather<'py>(&mut self, items: impl Iterator<Item = Bound<'py, PyAny>>) -> PyResult<()> {
        self.sample.clear();
        for item in items {
            self.sample.push(item.extract()?);
        }
        Ok(())
    }
}

#[pymethods]
impl PyMonitor {
    #[new]
    #[pyo3(signature = (formula, *, at="every", interval=true, ranges=None, params=None))]
    fn new(
        formula: Bound<'_, PyFormula>,
        at: &str,
        interval: bool,
        ranges: Option<BTreeMap<String, (f64, f64)>>,
        params: Option<BTreeMap<String, f64>>,
    ) -> PyResult<Self> {
        let at = match at {
            "every" => At::Every,
            "start" => At::Start,
            other => return Err(PyValueError::new_err(format!("at = '{other}': 'every' or 'start' wanted"))),
        };
        let ranges = ranges.unwrap_or_default().into_iter().map(|(name, (lo, hi))| (name, lo, hi)).collect();
        let options = MonitorOptions { at, interval, ranges, ..MonitorOptions::default() };
        let own = formula.get();
        let mut monitor = Monitor::new(&own.formula, &options).map_err(refuse::call)?;
        let values = own.ordered(params.unwrap_or_default())?;
        for (name, value) in own.formula.params().iter().zip(values) {
            let id = own.formula.param(name).map_err(refuse::call)?;
            monitor.set_param(id, value).map_err(refuse::call)?;
        }
        let sample = Vec::with_capacity(own.formula.signals().len());
        Ok(Self { monitor, formula: formula.unbind(), interval, sample })
    }

    /// One sample, in the order of the formula's signals: a list, tuple or float64 array is read in place.
    fn update(&mut self, sample: &Bound<'_, PyAny>) -> PyResult<PyVerdict> {
        if let Ok(array) = sample.cast::<PyArray1<f64>>() {
            let array = array.try_readonly().map_err(|e| error::borrowed("sample", e))?;
            if let Ok(slice) = array.as_slice() {
                return self.monitor.update(slice).map(PyVerdict).map_err(error::stl);
            }
            self.sample.clear();
            self.sample.extend(array.as_array().iter());
        } else if let Ok(list) = sample.cast::<PyList>() {
            self.gather(list.iter())?;
        } else if let Ok(tuple) = sample.cast::<PyTuple>() {
            self.gather(tuple.iter())?;
        } else {
            self.sample = sample
                .extract()
                .map_err(|_| PyTypeError::new_err("a sample is a sequence of real numbers, one a signal"))?;
        }
        self.monitor.update(&self.sample).map(PyVerdict).map_err(error::stl)
    }

    /// Samples `[T, D]`: robustness `[T]` that each of them closed (NaN where none), and bounds `[T, 2]` of the oldest
    /// open instant after each (NaN where none; None without intervals).
    fn update_batch<'py>(&mut self, py: Python<'py>, samples: &Bound<'py, PyAny>) -> PyResult<Batch<'py>> {
        let samples = rows(samples, self.formula.get().formula.signals().len())?;
        let (t, d) = (samples.shape()[0], samples.shape()[1]);
        let data = samples.as_slice()?;
        let out = PyArray1::<f64>::zeros(py, t, false);
        let bounds = self.interval.then(|| PyArray2::<f64>::zeros(py, [t, 2], false));
        {
            let mut closed = out.readwrite();
            let closed = closed.as_slice_mut()?;
            let mut pending = bounds.as_ref().map(|b| b.readwrite());
            let mut pending = pending.as_mut().map(|b| b.as_slice_mut()).transpose()?;
            let monitor = &mut self.monitor;
            py.detach(|| {
                for i in 0..t {
                    let verdict = monitor.update(&data[i * d..][..d])?;
                    closed[i] = verdict.closed.map_or(f64::NAN, |c| c.robustness);
                    if let Some(pending) = &mut pending {
                        let (lo, hi) = verdict.pending.map_or((f64::NAN, f64::NAN), |p| (p.lo, p.hi));
                        pending[2 * i..][..2].copy_from_slice(&[lo, hi]);
                    }
                }
                Ok::<_, cadenza_stl::SampleError>(())
            })
            .map_err(error::stl)?;
        }
        Ok((out, bounds))
    }

    /// The end of the trace: `(t, robustness)` of every instant still open.
    fn finish(&mut self) -> Vec<(u64, f64)> {
        let mut closed = Vec::new();
        self.monitor.finish(|c| closed.push(pair(c)));
        closed
    }

    /// Forgets the run; parameters stay.
    fn reset(&mut self) {
        self.monitor.reset();
    }

    /// `(t, lo, hi)` of every open instant, oldest first; empty without intervals.
    fn pending(&mut self) -> Vec<(u64, f64, f64)> {
        let mut open = Vec::new();
        self.monitor.pending(|i| open.push(triple(i)));
        open
    }

    /// Sets parameter `$name` for the samples to come.
    fn set_param(&mut self, name: &str, value: f64) -> PyResult<()> {
        let id = self.formula.get().formula.param(name).map_err(refuse::call)?;
        self.monitor.set_param(id, value).map_err(refuse::call)
    }

    /// The newest final value of a node, by its canonical text; None before there is one.
    fn node_value(&self, node: &str) -> PyResult<Option<f64>> {
        let own = self.formula.get();
        let mut ids = own.node_ids().into_iter();
        match ids.find(|id| own.formula.node_text(*id) == node) {
            Some(id) => Ok(self.monitor.node_value(id)),
            None => Err(error::stl(format!("the formula has no node `{node}`; Formula.nodes lists them"))),
        }
    }

    /// The formula.
    #[getter]
    fn formula(&self, py: Python<'_>) -> Py<PyFormula> {
        self.formula.clone_ref(py)
    }

    /// Number of resets.
    #[getter]
    fn epoch(&self) -> u32 {
        self.monitor.epoch()
    }

    /// Samples between an instant and its final value; None if it closes only at the end.
    #[getter]
    fn delay(&self) -> Option<u32> {
        self.formula.get().formula.horizon()
    }

    /// Bytes that the monitor holds.
    #[getter]
    fn memory_bytes(&self) -> usize {
        self.monitor.memory_bytes()
    }
}
