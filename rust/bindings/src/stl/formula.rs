//! Formulas: reading, printing, combining. Combining goes through the canonical text, so that what is built and what
//! is read cannot differ.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use cadenza_stl::{Binary, Endpoint, Formula, Node, NodeId, ParseOptions, Step, Temporal, parse_file};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::refuse;

/// Everything that makes the same formula again.
#[derive(Clone, Default)]
struct Source {
    /// The property of a file.
    name: Option<String>,
    signals: Option<Vec<String>>,
    dt: Option<f64>,
    inclusive: bool,
    scales: Vec<BTreeMap<String, f64>>,
}

impl Source {
    fn new(
        name: Option<String>,
        signals: Option<Vec<String>>,
        dt: Option<f64>,
        until: &str,
    ) -> PyResult<Self> {
        let inclusive = match until {
            "exclusive" => false,
            "inclusive" => true,
            other => {
                let message = format!("until = '{other}': 'exclusive' or 'inclusive' wanted");
                return Err(PyValueError::new_err(message));
            }
        };
        if let Some(names) = &signals
            && let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name))
        {
            return Err(PyValueError::new_err(format!("signal '{}' is declared twice", twice.1)));
        }
        if let Some(bad) = dt.filter(|dt| !(dt.is_finite() && *dt > 0.0)) {
            return Err(PyValueError::new_err(format!("dt = {bad}: seconds above 0 wanted")));
        }
        Ok(Self { name, signals, dt, inclusive, scales: Vec::new() })
    }

    fn until(&self) -> &'static str {
        if self.inclusive { "inclusive" } else { "exclusive" }
    }

    /// Hands the options of the parser to `read`.
    fn read<T>(
        &self,
        read: impl FnOnce(&ParseOptions<'_>) -> Result<T, cadenza_stl::ParseError>,
    ) -> PyResult<T> {
        let names: Option<Vec<&str>> =
            self.signals.as_ref().map(|names| names.iter().map(String::as_str).collect());
        let until = if self.inclusive { Endpoint::Inclusive } else { Endpoint::Exclusive };
        read(&ParseOptions { dt: self.dt, until, signals: names.as_deref() }).map_err(|e| refuse::text(&e))
    }
}

/// A formula; immutable.
#[pyclass(name = "Formula", module = "cadenza._native", frozen)]
pub(crate) struct PyFormula {
    pub(super) formula: Formula,
    source: Source,
}

/// One node of a formula.
#[pyclass(name = "Node", module = "cadenza._native", frozen, eq, hash, get_all, skip_from_py_object)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct PyNode {
    /// Position in `Formula.nodes`.
    index: usize,
    /// `predicate`, `and`, `always`, `until`, …
    operator: String,
    /// Canonical text.
    text: String,
    /// Its `let` name, if it has one.
    label: Option<String>,
    /// First character, and the one after the last, of its place in `Formula.text`.
    span: (usize, usize),
    /// Positions of its operands.
    operands: Vec<usize>,
}

#[pymethods]
impl PyNode {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        format!("Node({}, {:?})", self.index, self.text)
    }
}

#[pymethods]
impl PyFormula {
    /// Steps of future that it reads; None when unbounded.
    #[getter]
    fn horizon(&self) -> Option<u32> {
        self.formula.horizon()
    }

    /// Steps of past that it reads; None when unbounded.
    #[getter]
    fn history(&self) -> Option<u32> {
        self.formula.history()
    }

    /// Signals, in the order of the columns of a sample.
    #[getter]
    fn signals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.formula.signals())
    }

    /// Whether that order was declared, and not only found in the text.
    #[getter]
    fn declared(&self) -> bool {
        self.source.signals.is_some()
    }

    /// Names of the parameters `$name`.
    #[getter]
    fn params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.formula.params())
    }

    /// The text that it was read from.
    #[getter]
    fn text(&self) -> &str {
        self.formula.text()
    }

    /// Nodes, operands before the nodes that use them; the last one is the formula.
    #[getter]
    fn nodes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.all_nodes())
    }

    /// Operands of the top conjunction, or the whole formula: the least of their robustness is the formula's.
    #[getter]
    fn conjuncts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let nodes = self.all_nodes();
        PyTuple::new(py, self.formula.conjuncts().into_iter().map(|id| nodes[id.index()].clone()))
    }

    /// The formula with each predicate divided by the scale of the signals that it reads.
    fn normalise(&self, scales: BTreeMap<String, f64>) -> PyResult<Self> {
        let borrowed: Vec<(&str, f64)> = scales.iter().map(|(name, scale)| (name.as_str(), *scale)).collect();
        let formula = self.formula.normalised(&borrowed).map_err(refuse::call)?;
        let mut source = self.source.clone();
        source.scales.push(scales);
        Ok(Self { formula, source })
    }

    fn __str__(&self) -> String {
        self.formula.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Formula({:?})", self.formula.to_string())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.formula.nodes(), self.formula.signals()).hash(&mut hasher);
        hasher.finish()
    }

    /// Same structure, signals and parameters.
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().formula == self.formula)
    }

    fn __bool__(&self) -> PyResult<bool> {
        Err(PyTypeError::new_err(
            "a formula has no truth value: combine formulas with & | ~ >> instead of and, or, not; write a chain \
             `a < x < b` as (a < x) & (x < b)",
        ))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let source = &slf.get().source;
        let restore = slf.py().import("cadenza._native")?.getattr("restore_formula")?;
        let args = (
            slf.get().formula.text(),
            source.name.clone(),
            source.signals.clone(),
            source.dt,
            source.until(),
            source.scales.clone(),
        );
        Ok((restore, args.into_pyobject(slf.py())?.into_any()))
    }

    fn __and__(&self, other: PyRef<'_, Self>) -> PyResult<Self> {
        self.with("and", &other)
    }

    fn __or__(&self, other: PyRef<'_, Self>) -> PyResult<Self> {
        self.with("or", &other)
    }

    fn __rshift__(&self, other: PyRef<'_, Self>) -> PyResult<Self> {
        self.with("->", &other)
    }

    fn __invert__(&self) -> PyResult<Self> {
        self.under("not")
    }

    /// `self iff other`.
    fn iff(&self, other: PyRef<'_, Self>) -> PyResult<Self> {
        self.with("iff", &other)
    }

    /// `self xor other`.
    fn xor(&self, other: PyRef<'_, Self>) -> PyResult<Self> {
        self.with("xor", &other)
    }

    /// `self U[a,b] other`; `Ui` when inclusive.
    #[pyo3(signature = (other, a=0, b=None, inclusive=false))]
    fn until(&self, other: PyRef<'_, Self>, a: u64, b: Option<u64>, inclusive: bool) -> PyResult<Self> {
        self.bounded("U", &other, a, b, inclusive)
    }

    /// `self R[a,b] other`; `Ri` when inclusive.
    #[pyo3(signature = (other, a=0, b=None, inclusive=false))]
    fn release(&self, other: PyRef<'_, Self>, a: u64, b: Option<u64>, inclusive: bool) -> PyResult<Self> {
        self.bounded("R", &other, a, b, inclusive)
    }

    /// `self W[a,b] other`, also called unless; `Wi` when inclusive.
    #[pyo3(signature = (other, a=0, b=None, inclusive=false))]
    fn weak_until(&self, other: PyRef<'_, Self>, a: u64, b: Option<u64>, inclusive: bool) -> PyResult<Self> {
        self.bounded("W", &other, a, b, inclusive)
    }

    /// `self S[a,b] other`; `Si` when inclusive.
    #[pyo3(signature = (other, a=0, b=None, inclusive=false))]
    fn since(&self, other: PyRef<'_, Self>, a: u64, b: Option<u64>, inclusive: bool) -> PyResult<Self> {
        self.bounded("S", &other, a, b, inclusive)
    }

    /// `operator self`, where operator is the word of a unary one, as `always`.
    fn under(&self, operator: &str) -> PyResult<Self> {
        combine(&format!("{operator}({})", self.formula), &[self])
    }
}

impl PyFormula {
    fn all_nodes(&self) -> Vec<PyNode> {
        let f = &self.formula;
        let ids = self.node_ids();
        let nodes = f.nodes().iter().zip(ids).enumerate();
        nodes
            .map(|(index, (node, id))| {
                let span = f.span(id);
                PyNode {
                    index,
                    operator: operator(node).to_owned(),
                    text: f.node_text(id),
                    label: f.label(id).map(str::to_owned),
                    span: (refuse::characters(f.text(), span.start), refuse::characters(f.text(), span.end)),
                    operands: node.operands().into_iter().map(NodeId::index).collect(),
                }
            })
            .collect()
    }

    /// Ids in the order of the nodes: each node is the root or an operand of another one.
    pub(super) fn node_ids(&self) -> Vec<NodeId> {
        let f = &self.formula;
        let mut ids = vec![f.root(); f.nodes().len()];
        for operand in f.nodes().iter().flat_map(Node::operands) {
            ids[operand.index()] = operand;
        }
        ids
    }

    fn with(&self, operator: &str, other: &Self) -> PyResult<Self> {
        combine(&format!("({}) {operator} ({})", self.formula, other.formula), &[self, other])
    }

    fn bounded(&self, word: &str, other: &Self, a: u64, b: Option<u64>, inclusive: bool) -> PyResult<Self> {
        let end = b.map_or("inf".to_owned(), |b| b.to_string());
        let suffix = if inclusive { "i" } else { "" };
        self.with(&format!("{word}{suffix}[{a},{end}]"), other)
    }

    /// The part of this formula that `text` says, with the same signals.
    pub(super) fn part(&self, text: &str) -> PyResult<Self> {
        combine(text, &[self])
    }
}

/// A formula from canonical texts: signals in the order in which the operands have them. The order counts as declared
/// if an operand declares all of them.
fn combine(text: &str, operands: &[&PyFormula]) -> PyResult<PyFormula> {
    let mut signals: Vec<String> = Vec::new();
    for name in operands.iter().flat_map(|f| f.formula.signals()) {
        if !signals.contains(name) {
            signals.push(name.clone());
        }
    }
    let declared = operands.iter().any(|f| f.source.signals.is_some() && f.formula.signals() == signals);
    let mut source = Source { signals: Some(signals), ..Source::default() };
    let formula = source.read(|o| Formula::parse(text, o))?;
    if !declared {
        source.signals = None;
    }
    Ok(PyFormula { formula, source })
}

fn operator(node: &Node) -> &'static str {
    match node {
        Node::Const(true) => "true",
        Node::Const(false) => "false",
        Node::Predicate { .. } => "predicate",
        Node::Not(_) => "not",
        Node::And(_) => "and",
        Node::Or(_) => "or",
        Node::Implies(..) => "implies",
        Node::Iff(..) => "iff",
        Node::Xor(..) => "xor",
        Node::Temporal(Temporal::Always, ..) => "always",
        Node::Temporal(Temporal::Eventually, ..) => "eventually",
        Node::Temporal(Temporal::Historically, ..) => "historically",
        Node::Temporal(Temporal::Once, ..) => "once",
        Node::Step(Step::Next, _) => "next",
        Node::Step(Step::WeakNext, _) => "weak_next",
        Node::Step(Step::Prev, _) => "prev",
        Node::Step(Step::WeakPrev, _) => "weak_prev",
        Node::Binary(Binary::Until, ..) => "until",
        Node::Binary(Binary::Release, ..) => "release",
        Node::Binary(Binary::WeakUntil, ..) => "weak_until",
        Node::Binary(Binary::Since, ..) => "since",
        Node::Rise(_) => "rise",
        Node::Fall(_) => "fall",
    }
}

/// Parses one formula.
#[pyfunction]
#[pyo3(signature = (text, signals=None, dt=None, until="exclusive"))]
fn parse_formula(
    text: &str,
    signals: Option<Vec<String>>,
    dt: Option<f64>,
    until: &str,
) -> PyResult<PyFormula> {
    let source = Source::new(None, signals, dt, until)?;
    let formula = source.read(|o| Formula::parse(text, o))?;
    Ok(PyFormula { formula, source })
}

/// Parses the properties `spec NAME: formula;` of a text; a text of one formula without a name gives the name "".
#[pyfunction]
#[pyo3(signature = (text, signals=None, dt=None, until="exclusive"))]
fn parse_properties(
    text: &str,
    signals: Option<Vec<String>>,
    dt: Option<f64>,
    until: &str,
) -> PyResult<Vec<(String, PyFormula)>> {
    let source = Source::new(None, signals, dt, until)?;
    let properties = source.read(|o| parse_file(text, o))?;
    Ok(properties
        .into_iter()
        .map(|(name, formula)| {
            let source = Source { name: (!name.is_empty()).then(|| name.clone()), ..source.clone() };
            (name, PyFormula { formula, source })
        })
        .collect())
}

/// What pickles hold.
#[pyfunction]
fn restore_formula(
    text: &str,
    name: Option<String>,
    signals: Option<Vec<String>>,
    dt: Option<f64>,
    until: &str,
    scales: Vec<BTreeMap<String, f64>>,
) -> PyResult<PyFormula> {
    let formula = match &name {
        None => parse_formula(text, signals, dt, until)?,
        Some(name) => parse_properties(text, signals, dt, until)?
            .into_iter()
            .find_map(|(other, formula)| (other == *name).then_some(formula))
            .ok_or_else(|| PyValueError::new_err(format!("no property {name}")))?,
    };
    scales.into_iter().try_fold(formula, |formula, scales| formula.normalise(scales))
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyFormula>()?;
    module.add_class::<PyNode>()?;
    module.add_function(wrap_pyfunction!(parse_formula, module)?)?;
    module.add_function(wrap_pyfunction!(parse_properties, module)?)?;
    module.add_function(wrap_pyfunction!(restore_formula, module)?)
}
