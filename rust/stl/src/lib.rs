//! Signal Temporal Logic (STL): parse a formula, evaluate it on recorded traces, monitor it sample by sample.
//!
//! An STL formula says what a trajectory must do and when; its *robustness* says by how much it does: positive
//! is satisfied, negative is violated, and no change of the signals smaller than that can change the answer.
//! Time is discrete, one step is one sample. There is one semantics: the offline evaluation of a trace and the
//! monitor's verdicts on the same samples are the same numbers, in `f32` or `f64`.
//!
//! # Contract
//! - [`Formula::parse`] never panics; whatever is wrong comes back as a [`ParseError`] with the place in the text.
//!   Nesting, size and bounds are limited, so that parsing needs bounded time and stack.
//! - [`robustness`] and [`robustness_trace`] allocate only to grow the [`Workspace`]; with a warm one and one thread
//!   they do not allocate. Their time does not depend on the widths of the windows (but see [`Semantics`]). They
//!   fail on sizes that do not fit, never on the values.
//! - [`Monitor::new`] allocates everything; [`Monitor::update`], [`Monitor::finish`], [`Monitor::pending`],
//!   [`Monitor::set_param`] and [`Monitor::reset`] touch no heap, take no lock and do not panic. An update
//!   costs at most a few operations per node, whatever the windows; with intervals it may cost up to the sum of the
//!   horizons while the first windows of nested operators fill, and in a monitor of the start.
//! - [`breakdown`] and [`node_values`] are as [`robustness`]; [`explain`], [`gradient`] and [`decompose`] allocate their
//!   results and fail on what they document, never by panic.
//! - NaN is never lost: a result is NaN (a verdict [`Truth::Fault`]) exactly if a predicate value that it reads is.
//!
//! # Example
//! ```
//! use cadenza_stl::{Formula, Monitor, MonitorOptions, Options, ParseOptions, Traces, Truth, Workspace, robustness};
//!
//! // Within 0.1 s of every sample the gap must be above 0.2 m again. Steps of 20 ms.
//! let options = ParseOptions { dt: Some(0.02), signals: Some(&["gap", "speed"]), ..Default::default() };
//! let formula = Formula::parse("F[0,0.1s](gap > 0.2) and speed < 2", &options)?;
//! assert_eq!(formula.to_string(), "F[0,5] gap > 0.2 and speed < 2");
//! assert_eq!(formula.horizon(), Some(5));
//!
//! // Offline: one trace of three samples, two signals.
//! let data = [0.1, 1.0, 0.5, 1.0, 0.1, 1.0];
//! let traces = Traces { data: &data, n: 1, t: 3, d: 2, lengths: None };
//! let mut rho = [0.0];
//! robustness(&formula, traces, &[], 0, &Options::default(), &mut Workspace::new(), &mut rho)?;
//! assert_eq!(rho, [0.3]);
//!
//! // Online: the interval says what can still become of the oldest pending instant.
//! let mut monitor = Monitor::<f64>::new(&formula, &MonitorOptions::default())?;
//! let verdict = monitor.update(&[0.1, 3.0])?;
//! assert!(verdict.closed.is_none());
//! assert!(verdict.pending.is_some_and(|p| p.hi < 0.0), "too fast: violated whatever comes");
//! monitor.finish(|closed| assert_eq!(closed.truth, Truth::Violated));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! More examples, each a program of a screen: checking a log, a training loss, a live monitor, a plan from a formula
//! (`cargo run -p cadenza-stl --example 03_live_monitor`; the others are `01_log_check`, `02_training_loss` and
//! `04_decomposition`). The grammar and the semantics of every operator are in the project's documentation. Windows are written in
//! steps (`G[0,10]`) or in time (`G[0,200ms]`, which needs `dt`); `U` does not require its left side at the
//! deciding instant, `Ui` does; `X` is strong; windows are cut at the end of the trace.

mod bounds;
mod build;
mod cell;
mod decompose;
mod edge;
mod engine;
mod error;
mod explain;
mod expr;
mod formula;
mod gradient;
mod interval;
mod layout;
mod lex;
mod monitor;
mod nnf;
mod parse;
mod plan;
mod predicate;
mod print;
mod reverse;
mod robustness;
mod scalar;
mod smooth;
mod step;
mod transpose;
mod window;

pub use decompose::{
    Allocation, Branch, Chain, DecomposeOptions, Goal, Hold, Reach, Region, Time, Variable, Visit, decompose,
};
pub use error::{Error, ParseError, ParseErrorKind, SampleError};
pub use explain::Explanation;
pub use expr::{Arith, Expr, ExprId, Func, Number};
pub use formula::{Binary, Bounds, Cmp, Endpoint, Formula, Node, NodeId, ParamId, Step, Temporal};
pub use gradient::{Instants, gradient};
pub use monitor::{At, Closed, Interval, Monitor, MonitorOptions, Truth, Verdict};
pub use parse::{ParseOptions, parse_file};
pub use robustness::{
    End, Nan, Options, Param, Params, Semantics, Traces, Workspace, breakdown, explain, node_values,
    robustness, robustness_trace,
};
pub use scalar::Scalar;
