//! Robustness of recorded traces, offline and batched.

use crate::engine::{self, Job, Layout, Range, Room};
use crate::error::Error;
use crate::explain::Explanation;
use crate::expr::{self, Expr};
use crate::formula::{Formula, NodeId};
use crate::plan::{Op, OpId};
use crate::scalar::Scalar;

/// Samples `[n, t, d]`, row-major: trace, step, signal.
#[derive(Clone, Copy, Debug)]
pub struct Traces<'a, S> {
    /// `n · t · d` values.
    pub data: &'a [S],
    /// Number of traces.
    pub n: usize,
    /// Steps of each trace.
    pub t: usize,
    /// Signals; must be the number of signals of the formula.
    pub d: usize,
    /// Length of each trace where they differ: `n` values in `1..=t`.
    pub lengths: Option<&'a [u32]>,
}

impl<S> Traces<'_, S> {
    pub(crate) fn length(&self, trace: usize) -> usize {
        self.lengths.map_or(self.t, |l| l[trace] as usize)
    }
}

/// The value of one parameter.
#[derive(Clone, Copy, Debug)]
pub enum Param<'a, S> {
    /// The same for all traces.
    All(S),
    /// One value per trace.
    PerTrace(&'a [S]),
}

/// Values of all parameters, in the order of [`Formula::params`].
pub type Params<'a, S> = &'a [Param<'a, S>];

/// What the end of a trace means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Windows are cut at the last sample.
    #[default]
    Truncate,
    /// Only instants whose horizon lies inside the trace have a value.
    Strict,
}

/// What a NaN among the predicate values means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nan {
    /// Results that read it are NaN.
    #[default]
    Propagate,
    /// The call fails with the first one: [`Error::NotANumber`].
    Raise,
}

/// What minimum and maximum are. The smooth ones take β > 0 and approach the true ones as β grows. Their cost per
/// sample does not depend on the window, but for until, since and release, whose smooth form is the flat
/// definition: O(window).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Semantics {
    /// Minimum and maximum.
    #[default]
    True,
    /// ln Σ e^{βy} / β: between the maximum and the maximum + ln(n)/β.
    LogSumExp {
        /// Sharpness.
        beta: f64,
    },
    /// Σ y e^{βy} / Σ e^{βy}: at most the maximum.
    Softmax {
        /// Sharpness.
        beta: f64,
    },
}

/// How to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The end of a trace.
    pub end: End,
    /// NaN.
    pub nan: Nan,
    /// Minimum and maximum, true or smooth.
    pub semantics: Semantics,
    /// Threads, at least 1; the results do not depend on it. With 1 a warm call allocates nothing.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { end: End::default(), nan: Nan::default(), semantics: Semantics::True, threads: 1 }
    }
}

/// Reusable memory. It grows to what the largest call needed and keeps that.
#[derive(Default)]
pub struct Workspace<S> {
    pub(crate) rooms: Vec<Room<S>>,
}

impl<S: Scalar> Workspace<S> {
    /// Empty; the first call fills it.
    pub fn new() -> Self {
        Self { rooms: Vec::new() }
    }
}

/// Robustness of each trace at instant `at`, into `out[n]`. Costs the horizon, not the length of the trace.
///
/// # Errors
/// Wrong sizes, an instant outside a trace, non-finite parameters; under [`End::Strict`] [`Error::Horizon`] and
/// unbounded future operators; under [`Nan::Raise`] [`Error::NotANumber`]. `out` is then unspecified.
pub fn robustness<S: Scalar>(
    f: &Formula,
    x: Traces<S>,
    params: Params<S>,
    at: u32,
    o: &Options,
    w: &mut Workspace<S>,
    out: &mut [S],
) -> Result<(), Error> {
    at_instant(f, x, params, at, &root(f), o, w, out)
}

/// Robustness of each conjunct ([`Formula::conjuncts`], K of them) at instant `at`, into `out[n, K]`. The
/// minimum over K is the robustness of the formula.
///
/// # Errors
/// As [`robustness`].
pub fn breakdown<S: Scalar>(
    f: &Formula,
    x: Traces<S>,
    params: Params<S>,
    at: u32,
    o: &Options,
    w: &mut Workspace<S>,
    out: &mut [S],
) -> Result<(), Error> {
    at_instant(f, x, params, at, &f.0.plan.conjuncts, o, w, out)
}

/// Why each trace has its robustness at instant `at`: the path from the formula to the one predicate value that
/// decides it. Among equals the earliest instant and the leftmost operand are named.
///
/// # Errors
/// As [`robustness`]. Always of the true semantics.
pub fn explain<S: Scalar>(
    f: &Formula,
    x: Traces<S>,
    params: Params<S>,
    at: u32,
    o: &Options,
    w: &mut Workspace<S>,
) -> Result<Vec<Explanation<S>>, Error> {
    check(f, &x, params, o)?;
    check_instant(f, &x, at, o)?;
    w.rooms.resize_with(w.rooms.len().max(1), Room::default);
    let range = (i64::from(at), i64::from(at));
    let layout = Layout { per_trace: 1, per_output: 1, horizon: 0 };
    let job = Job {
        plan: &f.0.plan,
        exprs: &f.0.exprs,
        x,
        params,
        outputs: &root(f),
        range,
        layout,
        keep: true,
        semantics: Semantics::True,
    };
    Ok((0..x.n).map(|trace| crate::explain::explain(f, &job, trace, &mut w.rooms[0])).collect())
}

pub(crate) fn root(f: &Formula) -> [(OpId, bool); 1] {
    [(f.0.plan.root() as OpId, false)]
}

/// Every trace has a value at `at`.
pub(crate) fn check_instant<S: Scalar>(
    f: &Formula,
    x: &Traces<S>,
    at: u32,
    o: &Options,
) -> Result<(), Error> {
    for trace in 0..x.n {
        let length = x.length(trace);
        if at as usize >= length {
            return Err(Error::Instant { at, trace, length });
        }
        if o.end == End::Strict {
            let horizon = horizon(f)?;
            if at as usize + horizon as usize >= length {
                return Err(Error::Horizon { at, horizon, trace, length });
            }
        }
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn at_instant<S: Scalar>(
    f: &Formula,
    x: Traces<S>,
    params: Params<S>,
    at: u32,
    outputs: &[(OpId, bool)],
    o: &Options,
    w: &mut Workspace<S>,
    out: &mut [S],
) -> Result<(), Error> {
    check(f, &x, params, o)?;
    check_instant(f, &x, at, o)?;
    let at = i64::from(at);
    let k = outputs.len();
    run(f, x, params, outputs, (at, at), Layout { per_trace: k, per_output: 1, horizon: 0 }, o, w, out)
}

/// Robustness of each trace at every instant, into `out[n, t]`; under [`End::Strict`] into
/// `out[n, max(0, t − horizon)]`. Instants beyond a shorter trace are NaN.
///
/// # Errors
/// As [`robustness`].
pub fn robustness_trace<S: Scalar>(
    f: &Formula,
    x: Traces<S>,
    params: Params<S>,
    o: &Options,
    w: &mut Workspace<S>,
    out: &mut [S],
) -> Result<(), Error> {
    check(f, &x, params, o)?;
    let horizon = if o.end == End::Strict { horizon(f)? as usize } else { 0 };
    let cols = x.t.saturating_sub(horizon);
    let layout = Layout { per_trace: cols, per_output: cols, horizon };
    run(f, x, params, &root(f), (0, cols as i64 - 1), layout, o, w, out)
}

/// Robustness of every node ([`Formula::nodes`], M of them) at every instant, into `out[n, M, t]`, always with
/// windows cut at the end of the trace.
///
/// # Errors
/// As [`robustness`].
pub fn node_values<S: Scalar>(
    f: &Formula,
    x: Traces<S>,
    params: Params<S>,
    w: &mut Workspace<S>,
    out: &mut [S],
) -> Result<(), Error> {
    let o = Options::default();
    check(f, &x, params, &o)?;
    let outputs = &f.0.plan.of_node;
    let layout = Layout { per_trace: outputs.len() * x.t, per_output: x.t, horizon: 0 };
    run(f, x, params, outputs, (0, x.t as i64 - 1), layout, &o, w, out)
}

pub(crate) fn horizon(f: &Formula) -> Result<u32, Error> {
    f.horizon().ok_or_else(|| f.unbounded_future().into())
}

pub(crate) fn check<S: Scalar>(
    f: &Formula,
    x: &Traces<S>,
    params: Params<S>,
    o: &Options,
) -> Result<(), Error> {
    let names = f.signals();
    if x.d != names.len() {
        return Err(Error::Width { expected: names.len(), names: names.join(", "), got: x.d });
    }
    length("x", x.n.saturating_mul(x.t).saturating_mul(x.d), x.data.len())?;
    if x.n > 0 && x.t == 0 {
        return Err(Error::EmptyTrace { trace: 0 });
    }
    if let Some(lengths) = x.lengths {
        length("lengths", x.n, lengths.len())?;
        for (trace, &length) in lengths.iter().enumerate() {
            if length == 0 {
                return Err(Error::EmptyTrace { trace });
            }
            if length as usize > x.t {
                return Err(Error::Ragged { trace, length, steps: x.t });
            }
        }
    }
    length("params", f.params().len(), params.len())?;
    for (name, param) in f.params().iter().zip(params) {
        let values = match param {
            Param::All(value) => std::slice::from_ref(value),
            Param::PerTrace(values) => {
                length("a parameter", x.n, values.len())?;
                values
            }
        };
        if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
            return Err(Error::Param { name: name.clone(), value: bad.to_f64() });
        }
    }
    if let Semantics::LogSumExp { beta } | Semantics::Softmax { beta } = o.semantics
        && !(S::from_f64(beta).is_finite() && S::from_f64(beta) > S::ZERO)
    {
        return Err(Error::Beta { beta });
    }
    length("threads", o.threads.max(1), o.threads)
}

pub(crate) fn length(what: &'static str, expected: usize, got: usize) -> Result<(), Error> {
    if expected == got { Ok(()) } else { Err(Error::Length { what, expected, got }) }
}

#[allow(clippy::too_many_arguments)]
fn run<S: Scalar>(
    f: &Formula,
    x: Traces<S>,
    params: Params<S>,
    outputs: &[(OpId, bool)],
    range: Range,
    layout: Layout,
    o: &Options,
    w: &mut Workspace<S>,
    out: &mut [S],
) -> Result<(), Error> {
    length("out", x.n * layout.per_trace, out.len())?;
    if out.is_empty() {
        return Ok(());
    }
    let job = Job {
        plan: &f.0.plan,
        exprs: &f.0.exprs,
        x,
        params,
        outputs,
        range,
        layout,
        keep: outputs != root(f),
        semantics: o.semantics,
    };
    let per_tile = engine::lanes_of::<S>();
    let tiles = x.n.div_ceil(per_tile);
    let threads = o.threads.min(tiles);
    w.rooms.resize_with(w.rooms.len().max(threads), Room::default);
    let first_nan = if threads == 1 {
        engine::run(&job, 0, out, &mut w.rooms[0])
    } else {
        let per_thread = tiles.div_ceil(threads) * per_tile;
        std::thread::scope(|scope| {
            let parts = out.chunks_mut(per_thread * layout.per_trace).zip(&mut w.rooms).enumerate();
            let handles: Vec<_> = parts
                .map(|(i, (out, room))| {
                    let job = &job;
                    scope.spawn(move || engine::run(job, i * per_thread, out, room))
                })
                .collect();
            // A worker cannot panic on any input; if it did, the panic goes on here.
            handles
                .into_iter()
                .filter_map(|h| h.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
                .min()
        })
    };
    match (o.nan, first_nan) {
        (Nan::Raise, Some(trace)) => Err(blame(f, &job, trace)),
        _ => Ok(()),
    }
}

/// The first NaN predicate value of a trace as an error.
fn blame<S: Scalar>(f: &Formula, job: &Job<S>, trace: usize) -> Error {
    let mut registers = vec![S::ZERO; job.exprs.len()];
    let x = &job.x;
    for step in 0..x.length(trace) {
        let row = &x.data[(trace * x.t + step) * x.d..][..x.d];
        let params = |p: usize| match job.params[p] {
            Param::All(value) => value,
            Param::PerTrace(values) => values[trace],
        };
        expr::eval_sample(job.exprs, row, params, &mut registers);
        for (i, op) in job.plan.ops.iter().enumerate() {
            let Op::Pred { lhs, rhs, .. } = op else { continue };
            if (registers[lhs.index()] - registers[rhs.index()]).is_nan() {
                let culprit = job.plan.registers[i].iter().find_map(|e| match job.exprs[e.index()] {
                    Expr::Signal(s) if row[s as usize].is_nan() => Some(f.signals()[s as usize].clone()),
                    _ => None,
                });
                let node = NodeId(job.plan.node_of[i]);
                return Error::NotANumber {
                    trace,
                    step,
                    signal: culprit.unwrap_or_else(|| f.node_text(node)),
                };
            }
        }
    }
    unreachable!("a flagged trace has a NaN predicate value")
}
