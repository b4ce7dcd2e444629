//! Streaming evaluation: exact verdicts after the horizon, intervals before it, no heap after construction.

use crate::bounds::{Side, Sweep, expr_images, op_images};
use crate::cell::{Ring, State};
use crate::edge::{self, Edge};
use crate::error::{Error, SampleError};
use crate::expr::{Expr, eval_register};
use crate::formula::{Formula, NodeId, ParamId};
use crate::layout::Layout;
use crate::plan::{Op, PredKind};
use crate::scalar::Scalar;
use crate::step;

/// Which instants a monitor judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// Every instant.
    #[default]
    Every,
    /// Only instant 0. Here the unbounded `G F U W R` are allowed below Boolean operators; such a formula closes
    /// with the trace, or as soon as only one value is left (a NaN that comes later is then not seen).
    Start,
}

/// How to monitor.
#[derive(Clone, Debug)]
pub struct MonitorOptions<S> {
    /// Which instants are judged.
    pub at: At,
    /// Whether intervals of the oldest pending instant are computed at each update.
    pub interval: bool,
    /// Known ranges of signals: (name, lowest, highest). They tighten intervals; a sample outside is a fault.
    pub ranges: Vec<(String, S, S)>,
    /// Largest memory of the monitor.
    pub max_bytes: usize,
}

impl<S> Default for MonitorOptions<S> {
    fn default() -> Self {
        Self { at: At::Every, interval: true, ranges: Vec::new(), max_bytes: 64 << 20 }
    }
}

/// A robustness value as a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// ρ > 0
    Satisfied,
    /// ρ < 0
    Violated,
    /// ρ = 0: treat as violated where the robot must be protected.
    Boundary,
    /// A NaN was read; ρ is NaN.
    Fault,
}

impl Truth {
    /// The judgement of a robustness value.
    pub fn of<S: Scalar>(robustness: S) -> Self {
        match robustness.partial_cmp(&S::ZERO) {
            None => Truth::Fault,
            Some(std::cmp::Ordering::Greater) => Truth::Satisfied,
            Some(std::cmp::Ordering::Less) => Truth::Violated,
            Some(std::cmp::Ordering::Equal) => Truth::Boundary,
        }
    }
}

/// A final value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Closed<S> {
    /// The instant.
    pub t: u64,
    /// ρ at `t`; NaN for a fault.
    pub robustness: S,
    /// Its judgement.
    pub truth: Truth,
}

impl<S: Scalar> Closed<S> {
    fn new(t: u64, robustness: S) -> Self {
        Self { t, robustness, truth: Truth::of(robustness) }
    }
}

/// What the robustness of a pending instant can still become, over all futures long enough for the horizon:
/// `lo > 0` is already satisfied, `hi < 0` already violated. [−∞, ∞] once a NaN was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval<S> {
    /// The instant.
    pub t: u64,
    /// Lower bound.
    pub lo: S,
    /// Upper bound.
    pub hi: S,
}

/// What one sample decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict<S> {
    /// Number of resets before this run.
    pub epoch: u32,
    /// Index of the sample in this run.
    pub step: u64,
    /// The instant whose horizon this sample completed.
    pub closed: Option<Closed<S>>,
    /// The oldest instant without a final value, if there is one and intervals are on.
    pub pending: Option<Interval<S>>,
}

/// State of one operation of the plan.
pub(crate) struct Cell<S> {
    pub(crate) ring: Ring<S>,
    /// The value at instant 0, once known.
    pub(crate) first: S,
    pub(crate) state: State<S>,
    /// Steps between a sample and the value that it completes; unused where `late`.
    pub(crate) delay: u64,
    /// Has a value only when the trace ends: an unbounded future operator is below.
    pub(crate) late: bool,
}

/// Evaluates one formula sample by sample.
///
/// [`Monitor::new`] is the only call that allocates. A sample holds one value per signal in the order of
/// [`Formula::signals`]: the declared order, or the order of appearance if no signals were declared. Parameters
/// have no value until [`Monitor::set_param`] gives them one; verdicts are faults until then.
pub struct Monitor<S> {
    formula: Formula,
    at: At,
    ranges: Box<[(S, S)]>,
    params: Box<[S]>,
    registers: Box<[S]>,
    cells: Box<[Cell<S>]>,
    /// Intervals: the sweep and the ranges of expressions and operations.
    sweep: Option<Sweep<S>>,
    edges: Box<[Option<Edge<S>>]>,
    pending: Box<[Interval<S>]>,
    expr_images: Box<[(S, S)]>,
    op_images: Box<[(S, S)]>,
    late: Box<[S]>,
    layout: Layout,
    epoch: u32,
    steps: u64,
    /// The last step, plus one, at which a predicate was NaN.
    bad: u64,
    /// `At::Start`: instant 0 has been reported.
    settled: bool,
    finished: bool,
}

impl<S: Scalar> Monitor<S> {
    /// Prepares everything.
    ///
    /// # Errors
    /// An unbounded future operator where it cannot be monitored, unknown or empty ranges, a formula whose windows
    /// need more than `max_bytes`.
    pub fn new(f: &Formula, o: &MonitorOptions<S>) -> Result<Self, Error> {
        let names = f.signals();
        let mut ranges = vec![(S::NEG_INFINITY, S::INFINITY); names.len()].into_boxed_slice();
        for (name, lo, hi) in &o.ranges {
            let i = names.iter().position(|n| n == name).ok_or_else(|| Error::Unknown {
                what: "signal",
                name: name.clone(),
                hint: crate::parse::nearest(name, names.iter().map(String::as_str)),
            })?;
            if lo.is_nan() || hi.is_nan() || lo > hi {
                return Err(Error::Range { signal: name.clone(), lo: lo.to_f64(), hi: hi.to_f64() });
            }
            ranges[i] = (*lo, *hi);
        }
        let layout = Layout::new::<S>(f, o.at, o.interval, o.max_bytes)?;
        let plan = &f.0.plan;
        let cells: Box<[Cell<S>]> = (0..plan.ops.len()).map(|i| layout.cell(plan, i)).collect();
        let some = |n: usize| if o.interval { n } else { 0 };
        let unknown = (S::NEG_INFINITY, S::INFINITY);
        let mut monitor = Self {
            at: o.at,
            ranges,
            params: vec![S::NAN; f.params().len()].into(),
            // Numbers stay where they are; `evaluate` computes the rest.
            registers: (f.exprs().iter())
                .map(|e| if let Expr::Number(n) = e { S::from_f64(n.get()) } else { S::ZERO })
                .collect(),
            cells,
            sweep: o.interval.then(|| Sweep::new(&layout.sizes)),
            edges: vec![None; some(plan.ops.len())].into(),
            pending: vec![Interval { t: 0, lo: S::ZERO, hi: S::ZERO }; some(layout.pending)].into(),
            expr_images: vec![unknown; some(f.exprs().len())].into(),
            op_images: vec![unknown; some(plan.ops.len())].into(),
            late: vec![S::ZERO; plan.ops.len()].into(),
            layout,
            formula: f.clone(),
            epoch: 0,
            steps: 0,
            bad: 0,
            settled: false,
            finished: false,
        };
        monitor.refresh_images();
        Ok(monitor)
    }

    /// Takes the next sample.
    ///
    /// # Errors
    /// A sample of the wrong length, or a finished monitor; the monitor is then unchanged. A NaN or a value outside
    /// its range is no error: it makes the verdicts that read it faults.
    #[inline] // So that a caller pays for the parts of the verdict that it reads.
    pub fn update(&mut self, sample: &[S]) -> Result<Verdict<S>, SampleError> {
        if self.finished {
            return Err(SampleError::Finished);
        }
        if sample.len() != self.ranges.len() {
            return Err(SampleError::Width { expected: self.ranges.len(), got: sample.len() });
        }
        let n = self.steps;
        let mut closed = self.take(sample).map(|(t, value)| Closed::new(t, value));
        let mut pending = None;
        if self.sweep.is_some() {
            pending = self.oldest_pending();
            if self.layout.late
                && let Some(i) = pending
                && i.lo == i.hi
            {
                self.settled = true;
                closed = Some(Closed::new(0, i.lo));
            }
            pending = pending.filter(|_| !(self.at == At::Start && self.settled));
        }
        Ok(Verdict { epoch: self.epoch, step: n, closed, pending })
    }

    /// Takes a sample of the right length; the instant that it closes, and its value.
    #[inline(never)]
    fn take(&mut self, sample: &[S]) -> Option<(u64, S)> {
        self.evaluate(sample);
        let n = self.steps;
        self.steps += 1;
        self.advance(n, n + 1);
        self.closing(n, n + 1)
    }

    /// Ends the trace: hands every pending instant to `sink`, oldest first, with windows cut at the last sample.
    /// Further calls do nothing until [`Monitor::reset`].
    pub fn finish(&mut self, mut sink: impl FnMut(Closed<S>)) {
        if self.finished {
            return;
        }
        self.finished = true;
        let end = self.steps;
        for n in end..end + self.layout.longest_delay {
            self.advance(n, end);
            if let Some((t, value)) = self.closing(n, end) {
                sink(Closed::new(t, value));
            }
        }
        if self.layout.late && end > 0 && !self.settled {
            self.settled = true;
            let root = self.formula.0.plan.root();
            self.late_values(None);
            let value = self.late[root];
            sink(Closed::new(0, value));
        }
    }

    /// Forgets all samples and starts the next epoch; parameters stay.
    pub fn reset(&mut self) {
        for cell in &mut self.cells {
            step::reset(cell);
        }
        let plan = &self.formula.0.plan;
        for (cell, op) in self.cells.iter_mut().zip(&plan.ops) {
            step::restart(cell, op);
        }
        self.epoch = self.epoch.wrapping_add(1);
        (self.steps, self.bad, self.settled, self.finished) = (0, 0, false, false);
    }

    /// Sets a parameter for the samples to come.
    ///
    /// # Errors
    /// [`Error::Param`] for a value that is not finite or a handle of another formula.
    pub fn set_param(&mut self, i: ParamId, v: S) -> Result<(), Error> {
        let slot = self.params.get_mut(i.0 as usize).filter(|_| v.is_finite());
        let Some(slot) = slot else {
            let name = self.formula.params().get(i.0 as usize);
            return Err(Error::Param {
                name: name.map_or_else(|| i.0.to_string(), Clone::clone),
                value: v.to_f64(),
            });
        };
        *slot = v;
        self.refresh_images();
        Ok(())
    }

    /// Hands the interval of every pending instant to `sink`, oldest first. Costs O(nodes · horizon). Without
    /// [`MonitorOptions::interval`] there are none.
    pub fn pending(&mut self, mut sink: impl FnMut(Interval<S>)) {
        let count = self.pending_instants();
        if self.sweep.is_none() || self.finished || count == (0, 0) {
            return;
        }
        if self.layout.late {
            if let Some(interval) = self.oldest_pending() {
                sink(interval);
            }
            return;
        }
        let (first, end) = count;
        self.intervals(first, end);
        for interval in &self.pending[..(end - first) as usize] {
            sink(*interval);
        }
    }

    /// Bytes that the monitor holds.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.layout.bytes
    }

    /// Samples between an instant and its final value: the horizon; `u32::MAX` if it closes only at the end.
    pub fn delay(&self) -> u32 {
        self.formula.horizon().unwrap_or(u32::MAX)
    }

    /// The newest final value of a node (at an instant [`Formula::horizon`] of the node behind the last sample);
    /// `None` before there is one.
    pub fn node_value(&self, id: NodeId) -> Option<S> {
        let (op, negated) = *self.formula.0.plan.of_node.get(id.index())?;
        let value = self.cells[op as usize].ring.newest()?;
        Some(if negated { S::ZERO - value } else { value })
    }

    /// The formula.
    pub fn formula(&self) -> &Formula {
        &self.formula
    }

    /// Number of resets.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    fn evaluate(&mut self, sample: &[S]) {
        for (i, expr) in self.formula.exprs().iter().enumerate() {
            match expr {
                Expr::Number(_) => {}
                Expr::Param(p) => self.registers[i] = self.params[*p as usize],
                Expr::Signal(s) => {
                    let (value, (lo, hi)) = (sample[*s as usize], self.ranges[*s as usize]);
                    self.registers[i] = if lo <= value && value <= hi { value } else { S::NAN };
                }
                _ => eval_register(expr, i, &mut self.registers, 1, 1, |_, _| {
                    unreachable!("leaves are loaded above")
                }),
            }
        }
    }

    /// Lets every operation take its values for step `n` of a trace of `end` samples.
    fn advance(&mut self, n: u64, end: u64) {
        let plan = &self.formula.0.plan;
        for (i, op) in plan.ops.iter().enumerate() {
            let (below, rest) = self.cells.split_at_mut(i);
            let cell = &mut rest[0];
            match op {
                Op::Const(value) if n < end => {
                    cell.ring.push(if *value { S::INFINITY } else { S::NEG_INFINITY });
                }
                Op::Pred { kind, lhs, rhs } if n < end => {
                    let (l, r) = (self.registers[lhs.index()], self.registers[rhs.index()]);
                    let value = match kind {
                        PredKind::Difference => l - r,
                        PredKind::Distance => (l - r).abs(),
                        PredKind::Closeness => S::ZERO - (l - r).abs(),
                    };
                    if value.is_nan() {
                        self.bad = n + 1;
                    }
                    cell.ring.push(value);
                }
                Op::Const(_) | Op::Pred { .. } => {}
                _ => {
                    let value = step::step(op, below, cell, n, end);
                    if let Some(value) = value {
                        cell.ring.push(value);
                    }
                }
            }
            if cell.ring.count() == 1
                && let Some(first) = cell.ring.newest()
            {
                cell.first = first;
            }
        }
    }

    /// The instant that step `n` closed, and its value.
    #[inline]
    fn closing(&mut self, n: u64, end: u64) -> Option<(u64, S)> {
        let root = &self.cells[self.formula.0.plan.root()];
        if root.late || n < root.delay {
            return None;
        }
        let t = n - root.delay;
        if t >= end || (self.at == At::Start && t > 0) {
            return None;
        }
        self.settled = true;
        root.ring.newest().map(|value| (t, value))
    }

    /// First pending instant and the one after the last.
    fn pending_instants(&self) -> (u64, u64) {
        let root = &self.cells[self.formula.0.plan.root()];
        match self.at {
            At::Start if self.settled || self.steps == 0 => (0, 0),
            At::Start => (0, 1),
            At::Every if root.ring.count() == self.steps => (0, 0),
            At::Every => (root.ring.count(), self.steps),
        }
    }

    fn oldest_pending(&mut self) -> Option<Interval<S>> {
        let (first, end) = self.pending_instants();
        if first == end {
            return None;
        }
        if self.layout.late {
            return Some(self.late_interval());
        }
        let plan = &self.formula.0.plan;
        edge::refresh(plan, &self.cells, &self.op_images, &mut self.edges);
        Some(match self.edges[plan.root()] {
            Some(Edge { bad: true, .. }) => Interval { t: first, lo: S::NEG_INFINITY, hi: S::INFINITY },
            Some(Edge { lo, hi, .. }) => Interval { t: first, lo, hi },
            None => {
                self.intervals(first, first + 1);
                self.pending[0]
            }
        })
    }

    /// Intervals of the instants `first..end` into `self.pending`.
    fn intervals(&mut self, first: u64, end: u64) {
        let plan = &self.formula.0.plan;
        let root = plan.root();
        let Some(sweep) = &mut self.sweep else { return };
        sweep.clear();
        sweep.want(root, (first as i64, end as i64 - 1));
        sweep.spread(plan, &self.cells);
        let flags = self.layout.may_read_nan(self.bad, self.steps);
        for side in [Side::Lo, Side::Hi, Side::Flags] {
            if side == Side::Flags && !flags {
                continue;
            }
            sweep.run(plan, &self.cells, &self.op_images, side);
            for (t, slot) in (first..end).zip(&mut self.pending) {
                let value = sweep.value(root, t as i64);
                match side {
                    Side::Lo => (slot.t, slot.lo) = (t, value),
                    Side::Hi => slot.hi = value,
                    Side::Flags if value > S::ZERO => (slot.lo, slot.hi) = (S::NEG_INFINITY, S::INFINITY),
                    Side::Flags => {}
                }
            }
        }
    }

    fn late_interval(&mut self) -> Interval<S> {
        let root = self.formula.0.plan.root();
        if let Some(sweep) = &mut self.sweep {
            sweep.clear();
            step::late_wants(&self.formula.0.plan, &self.cells, self.steps, sweep);
            sweep.spread(&self.formula.0.plan, &self.cells);
        }
        let flags = self.late_side(Side::Flags, root);
        if flags > S::ZERO {
            return Interval { t: 0, lo: S::NEG_INFINITY, hi: S::INFINITY };
        }
        Interval { t: 0, lo: self.late_side(Side::Lo, root), hi: self.late_side(Side::Hi, root) }
    }

    fn late_side(&mut self, side: Side, root: usize) -> S {
        if let Some(sweep) = &mut self.sweep {
            sweep.run(&self.formula.0.plan, &self.cells, &self.op_images, side);
        }
        self.late_values(Some(side));
        self.late[root]
    }

    /// Values at instant 0 of the operations that close with the trace: final ones, or one side of the interval.
    fn late_values(&mut self, side: Option<Side>) {
        let plan = &self.formula.0.plan;
        let open = side.and_then(|side| self.sweep.as_ref().map(|sweep| (side, sweep)));
        for i in 0..plan.ops.len() {
            if self.cells[i].late {
                let (below, rest) = self.late.split_at_mut(i);
                let images = &self.op_images;
                rest[0] = step::late_value(&plan.ops[i], &self.cells, i, below, open, images, self.steps);
            }
        }
    }

    /// A formula that closes with the trace may close at any sample, and absent samples know no range: it keeps
    /// [−∞, ∞] for everything unknown.
    fn refresh_images(&mut self) {
        if self.sweep.is_some() && !self.layout.late {
            expr_images(self.formula.exprs(), &self.ranges, &self.params, &mut self.expr_images);
            op_images(&self.formula.0.plan, &self.expr_images, &mut self.op_images);
        }
    }
}
