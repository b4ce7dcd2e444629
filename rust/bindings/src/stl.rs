//! Signal Temporal Logic: formulas, offline robustness, streaming monitors.

use std::collections::BTreeMap;

use cadenza_stl::{
    At, Endpoint, Formula, Monitor, MonitorOptions, Options, Param, ParseError, ParseOptions, Scalar, Traces,
    Workspace, parse_file as parse_properties, robustness, robustness_trace,
};
use numpy::{
    Element, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray3, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error;

/// `StlError` with the attributes of `stl.ParseError`: message, text, start, end, line, column.
fn parse_error(py: Python<'_>, e: &ParseError) -> PyErr {
    let error = error::stl(e);
    let value = error.value(py);
    let set = |name: &str, x: usize| value.setattr(name, x);
    let fields = [("start", e.start), ("end", e.end), ("line", e.line), ("column", e.column)];
    let done = fields.iter().try_for_each(|(name, x)| set(name, *x));
    match done
        .and_then(|()| value.setattr("message", &e.message))
        .and_then(|()| value.setattr("text", &e.text))
    {
        Ok(()) => error,
        Err(other) => other,
    }
}

fn options<'a>(dt: Option<f64>, until: &str, signals: Option<&'a [&'a str]>) -> PyResult<ParseOptions<'a>> {
    let until = match until {
        "exclusive" => Endpoint::Exclusive,
        "inclusive" => Endpoint::Inclusive,
        other => {
            return Err(PyValueError::new_err(format!(
                "until = '{other}': 'exclusive' or 'inclusive' wanted"
            )));
        }
    };
    Ok(ParseOptions { dt, until, signals })
}

/// A formula; immutable.
#[pyclass(name = "Formula", module = "cadenza._native", frozen)]
pub(crate) struct PyFormula(Formula);

#[pymethods]
impl PyFormula {
    /// Steps of future that it reads; None when unbounded.
    #[getter]
    fn horizon(&self) -> Option<u32> {
        self.0.horizon()
    }

    /// Steps of past that it reads; None when unbounded.
    #[getter]
    fn history(&self) -> Option<u32> {
        self.0.history()
    }

    /// Signals, in the order of the columns of a sample.
    #[getter]
    fn signals(&self) -> Vec<String> {
        self.0.signals().to_vec()
    }

    /// Names of the parameters `$name`.
    #[getter]
    fn params(&self) -> Vec<String> {
        self.0.params().to_vec()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    /// Robustness `[N]` at instant `at` of traces `[N, T, D]` (float64).
    #[pyo3(signature = (x, params, at=0))]
    fn robustness<'py>(
        &self,
        py: Python<'py>,
        x: PyReadonlyArray3<'py, f64>,
        params: BTreeMap<String, f64>,
        at: u32,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        self.at(py, &x, &params, at)
    }

    /// The same in float32.
    #[pyo3(signature = (x, params, at=0))]
    fn robustness32<'py>(
        &self,
        py: Python<'py>,
        x: PyReadonlyArray3<'py, f32>,
        params: BTreeMap<String, f64>,
        at: u32,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        self.at(py, &x, &params, at)
    }

    /// Robustness `[N, T]` at every instant of traces `[N, T, D]` (float64).
    fn robustness_trace<'py>(
        &self,
        py: Python<'py>,
        x: PyReadonlyArray3<'py, f64>,
        params: BTreeMap<String, f64>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        self.every(py, &x, &params)
    }

    /// The same in float32.
    fn robustness_trace32<'py>(
        &self,
        py: Python<'py>,
        x: PyReadonlyArray3<'py, f32>,
        params: BTreeMap<String, f64>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.every(py, &x, &params)
    }
}

/// A number that both STL and NumPy know.
trait Real: Scalar + Element + Send + Sync {
    fn of(x: f64) -> Self;
}

impl Real for f64 {
    fn of(x: f64) -> Self {
        x
    }
}

impl Real for f32 {
    fn of(x: f64) -> Self {
        x as f32
    }
}

impl PyFormula {
    /// Values in the order of the formula's parameters; missing and extra names are errors.
    fn values<S: Real>(&self, given: &BTreeMap<String, f64>) -> PyResult<Vec<Param<'static, S>>> {
        let known = self.0.params();
        if let Some(extra) = given.keys().find(|name| !known.contains(name)) {
            return Err(error::stl(format!("the formula has no parameter ${extra}; it has {known:?}")));
        }
        known
            .iter()
            .map(|name| {
                given
                    .get(name)
                    .map(|x| Param::All(S::of(*x)))
                    .ok_or_else(|| error::stl(format!("parameter ${name} has no value")))
            })
            .collect()
    }

    fn at<'py, S: Real>(
        &self,
        py: Python<'py>,
        x: &PyReadonlyArray3<'py, S>,
        params: &BTreeMap<String, f64>,
        at: u32,
    ) -> PyResult<Bound<'py, PyArray1<S>>> {
        let params = self.values::<S>(params)?;
        let &[n, t, d] = x.shape() else { return Err(PyValueError::new_err("traces must be [N, T, D]")) };
        let out = PyArray1::zeros(py, n, false);
        {
            let (mut out, data) = (out.readwrite(), x.as_slice()?);
            let out = out.as_slice_mut()?;
            let traces = Traces { data, n, t, d, lengths: None };
            py.detach(|| {
                robustness(&self.0, traces, &params, at, &Options::default(), &mut Workspace::new(), out)
            })
            .map_err(error::stl)?;
        }
        Ok(out)
    }

    fn every<'py, S: Real>(
        &self,
        py: Python<'py>,
        x: &PyReadonlyArray3<'py, S>,
        params: &BTreeMap<String, f64>,
    ) -> PyResult<Bound<'py, PyArray2<S>>> {
        let params = self.values::<S>(params)?;
        let &[n, t, d] = x.shape() else { return Err(PyValueError::new_err("traces must be [N, T, D]")) };
        let out = PyArray2::zeros(py, [n, t], false);
        {
            let (mut out, data) = (out.readwrite(), x.as_slice()?);
            let out = out.as_slice_mut()?;
            let traces = Traces { data, n, t, d, lengths: None };
            py.detach(|| {
                robustness_trace(&self.0, traces, &params, &Options::default(), &mut Workspace::new(), out)
            })
            .map_err(error::stl)?;
        }
        Ok(out)
    }
}

/// Parses one formula.
#[pyfunction]
#[pyo3(signature = (text, signals=None, dt=None, until="exclusive"))]
fn parse_formula(
    py: Python<'_>,
    text: &str,
    signals: Option<Vec<String>>,
    dt: Option<f64>,
    until: &str,
) -> PyResult<PyFormula> {
    let names: Option<Vec<&str>> = signals.as_ref().map(|names| names.iter().map(String::as_str).collect());
    let options = options(dt, until, names.as_deref())?;
    Formula::parse(text, &options).map(PyFormula).map_err(|e| parse_error(py, &e))
}

/// Parses the properties `spec NAME: formula;` of a text.
#[pyfunction]
#[pyo3(signature = (text, dt=None, until="exclusive"))]
fn parse_spec(
    py: Python<'_>,
    text: &str,
    dt: Option<f64>,
    until: &str,
) -> PyResult<Vec<(String, PyFormula)>> {
    let properties = parse_properties(text, &options(dt, until, None)?).map_err(|e| parse_error(py, &e))?;
    Ok(properties.into_iter().map(|(name, formula)| (name, PyFormula(formula))).collect())
}

/// A verdict as Python sees it: closed `(t, robustness)` and pending `(t, lo, hi)`, each None when there is none.
type PyVerdict = (Option<(u64, f64)>, Option<(u64, f64, f64)>);

/// Evaluates one formula sample by sample.
#[pyclass(name = "Monitor", module = "cadenza._native")]
pub(crate) struct PyMonitor(Monitor<f64>);

#[pymethods]
impl PyMonitor {
    #[new]
    #[pyo3(signature = (formula, at="every", interval=true, ranges=None, params=None))]
    fn new(
        formula: &PyFormula,
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
        let mut monitor = Monitor::new(&formula.0, &options).map_err(error::stl)?;
        let params = params.unwrap_or_default();
        formula.values::<f64>(&params)?;
        for (name, value) in params {
            let id = formula.0.param(&name).map_err(error::stl)?;
            monitor.set_param(id, value).map_err(error::stl)?;
        }
        Ok(Self(monitor))
    }

    /// One sample, in the order of the formula's signals.
    fn update(&mut self, sample: PyReadonlyArray1<'_, f64>) -> PyResult<PyVerdict> {
        let verdict = self.0.update(sample.as_slice()?).map_err(error::stl)?;
        Ok((verdict.closed.map(|c| (c.t, c.robustness)), verdict.pending.map(|p| (p.t, p.lo, p.hi))))
    }

    /// The end of the trace: robustness of every instant still pending, `(t, robustness)`.
    fn finish(&mut self) -> Vec<(u64, f64)> {
        let mut closed = Vec::new();
        self.0.finish(|c| closed.push((c.t, c.robustness)));
        closed
    }

    /// Forgets the run.
    fn reset(&mut self) {
        self.0.reset();
    }

    /// Number of resets.
    #[getter]
    fn epoch(&self) -> u32 {
        self.0.epoch()
    }

    /// Steps between a sample and the verdict that it completes.
    #[getter]
    fn delay(&self) -> u32 {
        self.0.delay()
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyFormula>()?;
    module.add_class::<PyMonitor>()?;
    module.add_function(wrap_pyfunction!(parse_formula, module)?)?;
    module.add_function(wrap_pyfunction!(parse_spec, module)?)
}
