//! Sizes of a monitor: delays, how far back each operation's values are read, bytes; computed before anything
//! is allocated.

use crate::bounds::{Sweep, unfinished_reads};
use crate::cell::{HalfBlock, Ring, State};
use crate::edge::Edge;
use crate::engine::{NOTHING, Range, union};
use crate::error::{Error, ParseErrorKind};
use crate::formula::{Formula, NodeId};
use crate::monitor::{At, Cell, Interval};
use crate::plan::{Op, Plan};
use crate::scalar::Scalar;

pub(crate) struct Layout {
    /// Steps between a sample and the value of an operation that it completes.
    delays: Vec<u64>,
    late_ops: Vec<bool>,
    /// Values that each ring holds.
    rings: Vec<usize>,
    /// Instants of each operation in a sweep.
    pub(crate) sizes: Vec<usize>,
    /// Pending instants.
    pub(crate) pending: usize,
    pub(crate) longest_delay: u64,
    /// The formula closes with the trace.
    pub(crate) late: bool,
    pub(crate) bytes: usize,
    /// How far back a sweep reads; `None` below unbounded operators of the past.
    reach: Option<u64>,
}

impl Layout {
    pub(crate) fn new<S: Scalar>(f: &Formula, at: At, interval: bool, limit: usize) -> Result<Self, Error> {
        let plan = &f.0.plan;
        let root = plan.root();
        let late_ops = late(f, at)?;
        let delays = delays(plan, &late_ops);
        let longest_delay =
            delays.iter().zip(&late_ops).filter(|(_, l)| !**l).map(|(d, _)| *d).max().unwrap_or(0);
        let mut lags = streaming_lags(plan, &delays, &late_ops);
        let mut sizes = vec![0; plan.ops.len()];
        let mut reach = Some(0);
        let mut pending = 0;
        if interval {
            let ranges = sweep_ranges(plan, &delays, &late_ops);
            for (i, (lo, hi)) in ranges.into_iter().enumerate() {
                if lo <= hi {
                    sizes[i] = (hi - lo + 1) as usize;
                    lags[i] = lags[i].max((-lo - delays[i] as i64).max(0) as u64);
                    reach = reach.map(|r: u64| r.max((-lo).max(0) as u64));
                }
            }
            // A value that is read there may itself be NaN from anywhere in its history.
            let history = f.history().filter(|_| !late_ops[root]);
            reach = history.and_then(|h| reach.map(|r| r + u64::from(h)));
            pending = if late_ops[root] { 1 } else { delays[root].max(1) as usize };
        }
        let rings: Vec<usize> = lags.iter().map(|lag| *lag as usize + 1).collect();
        let mut layout =
            Self { delays, late_ops, rings, sizes, pending, longest_delay, late: false, bytes: 0, reach };
        layout.late = layout.late_ops[root];
        layout.measure::<S>(f, interval, limit)?;
        Ok(layout)
    }

    /// Adds up the bytes.
    fn measure<S: Scalar>(&mut self, f: &Formula, interval: bool, limit: usize) -> Result<(), Error> {
        let plan = &f.0.plan;
        let pairs = if interval { 2 * (f.exprs().len() + plan.ops.len()) } else { 0 };
        let mut scalars = f.signals().len() * 2 + f.params().len() + f.exprs().len() + pairs;
        let mut fixed = plan.ops.len() * (size_of::<Cell<S>>() + size_of::<S>());
        for (i, op) in plan.ops.iter().enumerate() {
            let window = if self.late_ops[i] { 0 } else { window_scalars(op) };
            scalars = scalars.saturating_add(self.rings[i]).saturating_add(window);
        }
        if interval {
            scalars = scalars.saturating_add(Sweep::<S>::scalars(&self.sizes));
            fixed +=
                plan.ops.len() * (size_of::<Range>() + size_of::<Box<[S]>>() + size_of::<Option<Edge<S>>>());
            fixed = fixed.saturating_add(self.pending.saturating_mul(size_of::<Interval<S>>()));
        }
        self.bytes = scalars.saturating_mul(size_of::<S>()).saturating_add(fixed);
        if self.bytes > limit {
            return Err(Error::TooLarge { operator: widest(f), bytes: self.bytes, limit });
        }
        Ok(())
    }

    /// The empty state of an operation.
    pub(crate) fn cell<S: Scalar>(&self, plan: &Plan, i: usize) -> Cell<S> {
        let (all, any) = (S::INFINITY, S::NEG_INFINITY);
        let late = self.late_ops[i];
        let state = match &plan.ops[i] {
            Op::Const(_) | Op::Pred { .. } | Op::Fold { .. } => State::Point,
            Op::Window { max, bounds, .. } => {
                let empty = if *max { any } else { all };
                match bounds.b {
                    Some(b) => State::Window {
                        block: HalfBlock::new(u64::from(b - bounds.a) + 1, empty),
                        bad: 0,
                        start: empty,
                    },
                    None => State::Scan { total: empty, bad: 0 },
                }
            }
            Op::Until { dual, bounds, .. } => {
                let (left, right) = if *dual { (any, all) } else { (all, any) };
                let guard = (bounds.a > 0 && !late).then(|| HalfBlock::new(u64::from(bounds.a), left));
                match bounds.b {
                    Some(b) => State::Until {
                        pairs: HalfBlock::new(u64::from(b - bounds.a) + 1, [left, right]),
                        guard,
                        bad: [0, 0],
                        start: [left, right],
                    },
                    None => State::UntilScan { total: [left, right], guard, bad: [0, 0] },
                }
            }
        };
        Cell { ring: Ring::new(self.rings[i]), first: S::ZERO, state, delay: self.delays[i], late }
    }

    /// Whether a sweep after `steps` samples can read the NaN at step `bad − 1`.
    pub(crate) fn may_read_nan(&self, bad: u64, steps: u64) -> bool {
        bad > 0 && self.reach.is_none_or(|reach| steps - bad <= reach)
    }
}

/// The operator with the widest interval: the one to make narrower.
fn widest(f: &Formula) -> String {
    let ops = f.0.plan.ops.iter().zip(&f.0.plan.node_of);
    let node = ops
        .max_by_key(|(op, _)| match op {
            Op::Window { bounds, .. } | Op::Until { bounds, .. } => bounds.b.unwrap_or(bounds.a),
            _ => 0,
        })
        .map_or(f.root(), |(_, node)| NodeId(*node));
    let mut text = f.node_text(node);
    if let Some((cut, _)) = text.char_indices().nth(60) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// Scalars of an operation's window.
fn window_scalars(op: &Op) -> usize {
    let (bounds, per_element, guard) = match op {
        Op::Window { bounds, .. } => (bounds, 1, 0),
        Op::Until { bounds, .. } => (bounds, 2, bounds.a as usize),
        _ => return 0,
    };
    bounds.b.map_or(0, |b| (b - bounds.a) as usize + 1) * per_element + guard
}

/// Operations with an unbounded future operator in them; an error where one is not at the top.
fn late(f: &Formula, at: At) -> Result<Vec<bool>, Error> {
    let plan = &f.0.plan;
    let mut late = vec![false; plan.ops.len()];
    for (i, op) in plan.ops.iter().enumerate() {
        let mut below = None;
        op.each_kid(|k| {
            if late[k as usize] {
                below = Some(k);
            }
        });
        let own = match op {
            Op::Window { past: false, bounds, .. } | Op::Until { past: false, bounds, .. } => {
                bounds.b.is_none()
            }
            _ => false,
        };
        if own && at == At::Every {
            return Err(f.unbounded_future().into());
        }
        if let Some(k) = below
            && !matches!(op, Op::Fold { .. })
        {
            return Err(f
                .error_at(
                    NodeId(plan.node_of[k as usize]),
                    ParseErrorKind::UnboundedFuture,
                    "an unbounded future operator below another temporal operator cannot be monitored: give it a bound",
                )
                .into());
        }
        late[i] = own || below.is_some();
    }
    Ok(late)
}

fn delays(plan: &Plan, late: &[bool]) -> Vec<u64> {
    let mut delays = Vec::with_capacity(plan.ops.len());
    for (i, op) in plan.ops.iter().enumerate() {
        let mut delay: u64 = 0;
        op.each_kid(|k| delay = delay.max(delays[k as usize]));
        if let Op::Window { past: false, bounds, .. } | Op::Until { past: false, bounds, .. } = op {
            delay += bounds.b.map_or(0, u64::from);
        }
        delays.push(if late[i] { 0 } else { delay });
    }
    delays
}

/// How many instants behind its newest value each operation is read while streaming.
fn streaming_lags(plan: &Plan, delays: &[u64], late: &[bool]) -> Vec<u64> {
    let mut lags = vec![0; plan.ops.len()];
    for (i, op) in plan.ops.iter().enumerate() {
        let mut read = |k: u32, lag: u64| lags[k as usize] = lag.max(lags[k as usize]);
        let behind = |k: u32, delay: u64| delay - delays[k as usize].min(delay);
        match op {
            Op::Const(_) | Op::Pred { .. } => {}
            Op::Fold { kids, .. } => {
                kids.iter().filter(|_| !late[i]).for_each(|k| read(*k, behind(*k, delays[i])))
            }
            Op::Window { past, bounds, kid, .. } => read(*kid, if *past { u64::from(bounds.a) } else { 0 }),
            Op::Until { past, bounds, lhs, rhs, .. } => {
                let joint = delays[*lhs as usize].max(delays[*rhs as usize]);
                let width = bounds.b.map_or(0, |b| u64::from(b - bounds.a) + 1);
                let (left, right) = match (*past, bounds.a) {
                    (true, a) => (u64::from(a), u64::from(a)),
                    (false, 0) => (0, 0),
                    (false, _) => (width, 0),
                };
                read(*lhs, behind(*lhs, joint) + left);
                read(*rhs, behind(*rhs, joint) + right);
            }
        }
    }
    lags
}

/// For each operation the instants, relative to the last sample, that sweeps may ask for.
fn sweep_ranges(plan: &Plan, delays: &[u64], late: &[bool]) -> Vec<Range> {
    let open = |i: usize| (1 - delays[i] as i64, 0);
    let mut ranges = vec![NOTHING; plan.ops.len()];
    let root = plan.root();
    if !late[root] {
        ranges[root] = open(root);
    }
    for (i, op) in plan.ops.iter().enumerate() {
        if late[i] {
            op.each_kid(|k| {
                if late[k as usize] {
                    return;
                }
                let mut range = open(k as usize);
                if let Op::Until { lhs, rhs, .. } = op {
                    range.0 = range.0.min(open(*lhs as usize).0).min(open(*rhs as usize).0);
                }
                ranges[k as usize] = union(ranges[k as usize], range);
            });
        }
    }
    for i in (0..plan.ops.len()).rev() {
        let done = 1 - delays[i] as i64;
        let open = (ranges[i].0.max(done), ranges[i].1);
        if !late[i] && open.0 <= open.1 {
            unfinished_reads(&plan.ops[i], done, open, |kid, range| {
                ranges[kid as usize] = union(ranges[kid as usize], range);
            });
        }
    }
    ranges
}
