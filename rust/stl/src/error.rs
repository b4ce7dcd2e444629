//! Every way a call can be refused. Variants carry the numbers.

use std::fmt;
use std::ops::Range;

/// What is wrong with a formula text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// The text does not follow the grammar.
    Syntax,
    /// A number where a truth value is needed, or the reverse.
    Type,
    /// A signal that was not declared.
    UnknownSignal,
    /// A time bound that is negative, not finite, too large or out of order.
    BadBound,
    /// A bound with a time unit, but no `dt`.
    NeedsDt,
    /// A bound that is not a whole number of steps.
    NotMultipleOfDt,
    /// Nested deeper than 256.
    TooDeep,
    /// More than 65,536 nodes, 1 MiB of text, or a horizon beyond 32 bits.
    TooLarge,
    /// An unbounded future operator where a bound is needed.
    UnboundedFuture,
    /// A construct that the called function cannot handle.
    Unsupported,
}

/// A message about one place in a formula text. `Display` shows the line with a caret under the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub kind: ParseErrorKind,
    /// The message, without the excerpt.
    pub message: String,
    /// The whole text.
    pub text: String,
    /// First byte of the place.
    pub start: usize,
    /// Byte after the place.
    pub end: usize,
    /// Line of the place, from 1.
    pub line: usize,
    /// Column of the place in characters, from 1.
    pub column: usize,
}

impl ParseError {
    pub(crate) fn new(
        kind: ParseErrorKind,
        message: impl Into<String>,
        text: &str,
        span: Range<usize>,
    ) -> Self {
        let start = span.start.min(text.len());
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Self {
            kind,
            message: message.into(),
            text: text.to_owned(),
            start,
            end: span.end.clamp(start, text.len()),
            line: 1 + before.matches('\n').count(),
            column: 1 + text[line_start..start].chars().count(),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Long lines are shown around the place only.
        const BEFORE: usize = 60;
        const AFTER: usize = 40;
        let line = self.text.split('\n').nth(self.line - 1).unwrap_or("").trim_end_matches('\r');
        let at = self.column - 1;
        let from = at.saturating_sub(BEFORE);
        let shown: String = line
            .chars()
            .skip(from)
            .take(BEFORE + AFTER)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let marked = self.text[self.start..self.end].split('\n').next().unwrap_or("").chars().count();
        let carets = marked.clamp(1, (shown.chars().count() + 1).saturating_sub(at - from).max(1));
        if self.line > 1 {
            write!(f, "line {}: ", self.line)?;
        }
        writeln!(f, "{}", self.message)?;
        writeln!(f, "  {shown}")?;
        write!(f, "  {}{}", " ".repeat(at - from), "^".repeat(carets))
    }
}

impl std::error::Error for ParseError {}

/// Why an evaluation or a monitor was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A trace without samples.
    #[error("trace {trace} has no samples")]
    EmptyTrace {
        /// Index of the trace.
        trace: usize,
    },
    /// The number of columns is not the number of signals.
    #[error("the formula has {expected} signals ({names}) but the data have {got} columns")]
    Width {
        /// Signals of the formula.
        expected: usize,
        /// Their names.
        names: String,
        /// Columns of the data.
        got: usize,
    },
    /// A slice has the wrong length.
    #[error("{what} has {got} elements, expected {expected}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Expected number of elements.
        expected: usize,
        /// Actual number of elements.
        got: usize,
    },
    /// A ragged length beyond the data.
    #[error("trace {trace} has length {length}, the data hold {steps} steps")]
    Ragged {
        /// Index of the trace.
        trace: usize,
        /// Its declared length.
        length: u32,
        /// Steps in the data.
        steps: usize,
    },
    /// The instant lies outside a trace.
    #[error("instant {at} is outside trace {trace} of length {length}")]
    Instant {
        /// The instant asked for.
        at: u32,
        /// Index of the trace.
        trace: usize,
        /// Length of the trace.
        length: usize,
    },
    /// `end = strict`: the trace ends before the horizon of the instant.
    #[error("instant {at} needs {horizon} further steps, trace {trace} has length {length}")]
    Horizon {
        /// The instant asked for.
        at: u32,
        /// Horizon of the formula in steps.
        horizon: u32,
        /// Index of the trace.
        trace: usize,
        /// Length of the trace.
        length: usize,
    },
    /// A predicate value is NaN and NaN was to be refused.
    #[error("trace {trace}, step {step}: {signal} makes a predicate NaN")]
    NotANumber {
        /// Index of the trace.
        trace: usize,
        /// The step.
        step: usize,
        /// The signal, or the predicate where no signal is NaN.
        signal: String,
    },
    /// A name that the formula does not have.
    #[error("the formula has no {what} `{name}`{hint}")]
    Unknown {
        /// `signal` or `parameter`.
        what: &'static str,
        /// The name.
        name: String,
        /// ", did you mean …?" or empty.
        hint: String,
    },
    /// A parameter value that is not finite.
    #[error("parameter ${name} must be finite, got {value}")]
    Param {
        /// The parameter.
        name: String,
        /// The refused value.
        value: f64,
    },
    /// A scale that is not finite and positive.
    #[error("the scale of {signal} must be finite and positive, got {scale}")]
    Scale {
        /// The signal.
        signal: String,
        /// The refused scale.
        scale: f64,
    },
    /// A declared signal range that is empty or NaN.
    #[error("range of {signal} is [{lo}, {hi}]")]
    Range {
        /// The signal.
        signal: String,
        /// Lower end.
        lo: f64,
        /// Upper end.
        hi: f64,
    },
    /// A monitor larger than its limit.
    #[error("the monitor needs {bytes} bytes, the limit is {limit}; its widest operator is {operator}")]
    TooLarge {
        /// The operator with the widest interval.
        operator: String,
        /// Bytes needed.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A sharpness that is not finite and positive.
    #[error("beta must be finite and positive, got {beta}")]
    Beta {
        /// The refused value.
        beta: f64,
    },
    /// A δ outside its range.
    #[error("variable {variable} has δ = {delta}, outside {min}..={max}")]
    Delta {
        /// Index of the variable.
        variable: usize,
        /// The refused δ.
        delta: i64,
        /// Least δ.
        min: i64,
        /// Greatest δ.
        max: i64,
    },
    /// The formula itself cannot be used this way.
    #[error(transparent)]
    Formula(#[from] ParseError),
}

/// Why a monitor refused a sample. The monitor is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The sample does not have one value per signal.
    #[error("the sample has {got} values, the formula has {expected} signals")]
    Width {
        /// Number of signals.
        expected: usize,
        /// Number of values.
        got: usize,
    },
    /// `finish` was called; `reset` starts a new run.
    #[error("the monitor is finished; reset it first")]
    Finished,
}
