//! Which action holds at which tick: absolute policy ticks, never list positions or clocks.
//!
//! A [`Chunk`] carries the actions of the policy ticks `first_tick, first_tick + 1, …`. The plan is a ring of those
//! ticks. An accepted chunk enters the plan from now on by the [`Seam`] rule; a refused chunk leaves it as it was. When the plan runs out, the last target is held for `hold_ticks` control ticks and the sequence
//! then reports [`Flow::Exhausted`]; a later chunk takes over by a fade from the held target.

use std::f64::consts::TAU;

use cadenza_policy::manifest::{Channel, ChunkMode, Manifest};

use super::upsample::{Steps, between};
use super::{ActionError, Flow, Seam, Target, bad};
use crate::config::{Late, RunConfig, Upsample};
use crate::robot::{Robot, ticks_per_step};
use crate::state::{Joints, MAX_JOINTS};

/// Decoded actions of one inference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chunk<'a> {
    /// Number of the chunk, growing.
    pub id: u64,
    /// Epoch of the state that it was computed from.
    pub epoch: u32,
    /// Policy tick of that state.
    pub obs_tick: u64,
    /// Policy tick of the first row.
    pub first_tick: u64,
    /// Rows.
    pub rows: usize,
    /// Leading rows that repeat actions which were already committed when the policy was asked.
    pub prefix: usize,
    /// Joint targets, rows × joints, robot order.
    pub values: &'a [f64],
}

/// What happened to an accepted chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Accepted {
    /// Rows that were already in the past.
    pub expired: usize,
    /// A row of the prefix that is not what was committed; the committed action stays.
    pub mismatch: Option<PrefixMismatch>,
}

/// A repeated action that differs from the committed one by more than 1e-4 of the joint's range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrefixMismatch {
    /// Row of the chunk.
    pub row: usize,
    /// Joint, robot order.
    pub joint: usize,
    /// New minus committed, rad.
    pub error: f64,
}

/// Part of a joint's range by which a repeated action may differ from the committed one.
const PREFIX_TOLERANCE: f64 = 1e-4;

/// Why a chunk was refused; the plan is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Computed before the last reset (or for another one).
    #[error("epoch {got}, now {want}")]
    StaleEpoch {
        /// The chunk's.
        got: u32,
        /// The sequence's.
        want: u32,
    },
    /// Not newer than the newest accepted chunk.
    #[error("observed at policy tick {obs_tick}, the newest accepted chunk at {newest}")]
    OutOfOrder {
        /// The chunk's.
        obs_tick: u64,
        /// The newest accepted.
        newest: u64,
    },
    /// Another number of values than rows × joints, no rows, or more rows than the horizon.
    #[error("{got} values, expected {want}")]
    WrongLength {
        /// Values in the chunk.
        got: usize,
        /// Values expected.
        want: usize,
    },
    /// A value is NaN or infinite.
    #[error("row {row} of joint {joint} is not finite")]
    NotFinite {
        /// Row.
        row: usize,
        /// Joint, robot order.
        joint: usize,
    },
    /// All rows are in the past.
    #[error("the last row belongs to policy tick {last}, now {now}")]
    Expired {
        /// Policy tick of the last row.
        last: u64,
        /// Policy tick now.
        now: u64,
    },
    /// Observed in the future, or rows further ahead than the plan holds.
    #[error("policy tick {tick} is too far ahead, now {now}")]
    FromFuture {
        /// The tick in question.
        tick: u64,
        /// Policy tick now.
        now: u64,
    },
}

/// The plan. Allocates nothing after construction.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub(super) n: usize,
    horizon: usize,
    ticks_per_step: u64,
    policy_dt: f64,
    upsample: Upsample,
    seam: Seam,
    fade: usize,
    recovery: usize,
    freeze: u64,
    late: Late,
    hold_ticks: u64,
    /// Control ticks that the first chunk may take beyond `hold_ticks`.
    first_wait: u64,
    discrete: u64,
    angle: u64,
    /// What a repeated action may differ by, for each joint, rad.
    tolerance: Vec<f64>,

    pub(super) epoch: u32,
    /// Observation tick and id of the newest accepted chunk.
    pub(super) newest: Option<(u64, u64)>,
    /// Slot `tick % capacity` holds that tick's action when `ticks` says so.
    pub(super) values: Vec<f64>,
    pub(super) ticks: Vec<Option<u64>>,
    /// Sequences that an ensemble's slot is the mean of.
    pub(super) count: Vec<u32>,
    /// Last tick of the plan.
    pub(super) end: Option<u64>,
    /// What was asked for last.
    pub(super) held: Joints,
    /// Control tick since which no action was valid.
    pub(super) idle_since: Option<u64>,
}

impl Sequence {
    /// An empty plan for a bundle's chunks on a robot.
    ///
    /// # Errors
    /// [`ActionError::BadValue`] for a horizon, a fade or an up-sampling that cannot work; [`ActionError::Robot`] for rates
    /// that do not divide.
    pub fn new(manifest: &Manifest, robot: &Robot, config: &RunConfig) -> Result<Self, ActionError> {
        let usual = if horizon(manifest)? > 1 { Upsample::Linear } else { Upsample::Hold };
        let upsample = config.upsample.unwrap_or(usual);
        let mut places = Vec::new();
        for (name, channel) in &manifest.action.channels {
            places.push((crate::robot::JointMap::new(robot, &[name])?.places()[0], *channel));
        }
        let tolerance = robot
            .joints
            .iter()
            .map(|j| PREFIX_TOLERANCE * (j.limits.position[1] - j.limits.position[0]))
            .collect();
        let rates = (u64::from(ticks_per_step(manifest)?), u64::from(robot.safety.hold_ticks));
        Self::build(manifest, config, upsample, rates, &places, tolerance)
    }

    /// An empty plan of the actions themselves, in graph units and the network's order; a tick is a policy step. For
    /// simulations without a robot: after `hold_steps` steps without an action the sequence is exhausted.
    ///
    /// # Errors
    /// [`ActionError::BadValue`] for a horizon or a fade that cannot work, and for more actions than fit.
    pub fn of_actions(manifest: &Manifest, config: &RunConfig, hold_steps: u64) -> Result<Self, ActionError> {
        let action = &manifest.action;
        let n = action.joints.len();
        if !(1..=MAX_JOINTS).contains(&n) {
            return Err(bad("action.joints", n, "1 to 64"));
        }
        let place = |name: &String| action.joints.iter().position(|joint| joint == name);
        let places: Vec<_> =
            action.channels.iter().filter_map(|(name, channel)| Some((place(name)?, *channel))).collect();
        let [lo, hi] = action.raw_clip.unwrap_or([-1.0, 1.0]);
        let tolerance = vec![PREFIX_TOLERANCE * (hi - lo); n];
        Self::build(manifest, config, Upsample::Hold, (1, hold_steps), &places, tolerance)
    }

    fn build(
        manifest: &Manifest,
        config: &RunConfig,
        upsample: Upsample,
        (ticks_per_step, hold_ticks): (u64, u64),
        places: &[(usize, Channel)],
        tolerance: Vec<f64>,
    ) -> Result<Self, ActionError> {
        let chunk = &manifest.chunk;
        let horizon = horizon(manifest)?;
        if upsample != Upsample::Hold && horizon < 2 {
            return Err(bad(
                "upsample = linear or cubic with horizon",
                horizon,
                "at least 2, or upsample = hold",
            ));
        }
        let seam = config.seam.unwrap_or(Seam::of(chunk));
        let (fade, recovery) = seam.fades(chunk, horizon)?;
        let (mut discrete, mut angle) = (0, 0);
        for &(joint, channel) in places {
            match channel {
                Channel::Linear => {}
                Channel::Discrete => discrete |= 1 << joint,
                Channel::Angle => angle |= 1 << joint,
            }
        }
        let n = tolerance.len();
        // A chunk may start up to one horizon ahead and is one horizon long.
        let capacity = 2 * horizon + 1;
        Ok(Self {
            n,
            horizon,
            ticks_per_step,
            policy_dt: manifest.rates.policy_dt,
            upsample,
            seam,
            fade,
            recovery,
            freeze: u64::from(config.freeze),
            late: config.late,
            hold_ticks,
            first_wait: 0,
            discrete,
            angle,
            tolerance,
            epoch: 0,
            newest: None,
            values: vec![0.0; capacity * n],
            ticks: vec![None; capacity],
            count: vec![0; capacity],
            end: None,
            held: [0.0; MAX_JOINTS],
            idle_since: None,
        })
    }

    /// Drops the plan; until the first chunk of `epoch` arrives, `q` is held.
    pub fn reset(&mut self, epoch: u32, q: &Joints) {
        self.epoch = epoch;
        self.newest = None;
        self.ticks.fill(None);
        self.end = None;
        self.held = *q;
        self.idle_since = None;
    }

    /// Lets the first chunk of an episode come `ticks` control ticks later than `hold_ticks` allows.
    pub fn wait_for_the_first(&mut self, ticks: u64) {
        self.first_wait = ticks;
    }

    /// Rows of its chunks.
    pub fn horizon(&self) -> usize {
        self.horizon
    }

    /// Control ticks in a policy tick.
    pub fn ticks_per_step(&self) -> u64 {
        self.ticks_per_step
    }

    /// Whether a chunk with this head would be accepted at policy tick `now`, values aside.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn admit(
        &self,
        id: u64,
        epoch: u32,
        obs_tick: u64,
        first_tick: u64,
        rows: usize,
        now: u64,
    ) -> Result<(), Refusal> {
        if epoch != self.epoch {
            return Err(Refusal::StaleEpoch { got: epoch, want: self.epoch });
        }
        if rows == 0 || rows > self.horizon {
            return Err(Refusal::WrongLength { got: rows * self.n, want: self.horizon * self.n });
        }
        if obs_tick > now {
            return Err(Refusal::FromFuture { tick: obs_tick, now });
        }
        if first_tick.saturating_sub(now) > self.horizon as u64 {
            return Err(Refusal::FromFuture { tick: first_tick, now });
        }
        if let Some(newest) = self.newest.filter(|&newest| (obs_tick, id) <= newest) {
            return Err(Refusal::OutOfOrder { obs_tick, newest: newest.0 });
        }
        // `first_tick` is at most `now + horizon` here, so this only overflows at the end of time.
        let last = first_tick.saturating_add(rows as u64 - 1);
        if last < now {
            return Err(Refusal::Expired { last, now });
        }
        Ok(())
    }

    /// Whether [`accept`](Self::accept) would take a chunk whose first row belongs to the step of its observation, values
    /// aside.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn admissible(&self, id: u64, epoch: u32, step: u64, rows: usize, now: u64) -> Result<(), Refusal> {
        match self.admit(id, epoch, step, step, rows, now) {
            Err(Refusal::Expired { .. }) if self.late == Late::Last && self.slot(now).is_none() => Ok(()),
            other => other,
        }
    }

    /// Takes a chunk into the plan at policy tick `now`.
    ///
    /// # Errors
    /// The [`Refusal`]; the plan is as it was.
    pub fn accept(&mut self, chunk: &Chunk<'_>, now: u64) -> Result<Accepted, Refusal> {
        let n = self.n;
        let admitted = self.admit(chunk.id, chunk.epoch, chunk.obs_tick, chunk.first_tick, chunk.rows, now);
        let expired = matches!(admitted, Err(Refusal::Expired { .. })) && self.late == Late::Last;
        if !expired {
            admitted?;
        }
        if chunk.values.len() != chunk.rows * n {
            return Err(Refusal::WrongLength { got: chunk.values.len(), want: chunk.rows * n });
        }
        if let Some(i) = chunk.values.iter().position(|x| !x.is_finite()) {
            return Err(Refusal::NotFinite { row: i / n, joint: i % n });
        }
        if expired {
            if self.slot(now).is_some() {
                admitted?;
            }
            self.held[..n].copy_from_slice(&chunk.values[(chunk.rows - 1) * n..]);
            // The policy has spoken: the hold time begins anew.
            self.idle_since = None;
            self.newest = Some((chunk.obs_tick, chunk.id));
            return Ok(Accepted { expired: chunk.rows, mismatch: None });
        }

        let start = now.max(chunk.first_tick);
        let last = chunk.first_tick.saturating_add(chunk.rows as u64 - 1);
        let idle = self.idle_since.is_some();
        let fade = match self.end {
            None => 0,
            Some(_) if idle => self.recovery,
            Some(_) => self.fade,
        };
        // Where the old plan has ended it is extended by its last value; while idle, by what is being held.
        let mut beyond = self.held;
        if let Some(slot) = self.end.filter(|_| !idle).and_then(|end| self.slot(end)) {
            beyond[..n].copy_from_slice(&self.values[slot * n..(slot + 1) * n]);
        }
        // Steps before `open` are decided; the seam begins there.
        let frozen = if self.end.is_some() { now.saturating_add(self.freeze) } else { start };
        let open = start.max(frozen);
        let committed = match self.seam {
            Seam::Prefix => chunk.first_tick.saturating_add(chunk.prefix as u64),
            _ => 0,
        };
        let mut mismatch = None;
        for tick in start..=last {
            let row = (tick - chunk.first_tick) as usize;
            let (planned, slot) = (self.slot(tick).is_some(), self.place(tick));
            let merge = match self.seam {
                Seam::Ensemble(k) if planned && !idle => mean_weight(k, self.count[slot]),
                _ => 1.0,
            };
            let rows = self.values[slot * n..(slot + 1) * n].iter_mut().zip(&chunk.values[row * n..]);
            for (joint, ((value, &new), &beyond)) in rows.zip(&beyond).enumerate() {
                let old = if planned { *value } else { beyond };
                let step = difference(self.angle >> joint & 1 == 1, old, new);
                let position = (tick.max(open) - open) as usize;
                let part = if position < fade { (position + 1) as f64 / (fade + 1) as f64 } else { merge };
                let discrete = self.discrete >> joint & 1 == 1;
                *value = if tick < open || (tick < committed && planned) {
                    if tick >= open && step.abs() > self.tolerance[joint] {
                        mismatch.get_or_insert(PrefixMismatch { row, joint, error: step });
                    }
                    old
                } else if part < 1.0 && !discrete {
                    old + step * part
                } else {
                    new
                };
            }
            self.count[slot] = if merge < 1.0 { self.count[slot].saturating_add(1) } else { 1 };
            self.ticks[slot] = Some(tick);
        }
        let mut end = last;
        if matches!(self.seam, Seam::Ensemble(_)) && !idle {
            end = end.max(self.end.unwrap_or(last));
        }
        // What an older chunk planned for after this one's end is void.
        for tick in &mut self.ticks {
            *tick = tick.filter(|&t| t <= end);
        }
        self.end = Some(end);
        self.newest = Some((chunk.obs_tick, chunk.id));
        Ok(Accepted { expired: (start - chunk.first_tick) as usize, mismatch })
    }

    /// The plan's actions for policy ticks `from, from + 1, …`, as far as `out` has room (rows × joints, robot order); after
    /// its end the last target is repeated. What a policy is handed that must go on from what is committed.
    pub fn committed(&self, from: u64, out: &mut [f64]) {
        let mut row = self.held;
        for (tick, out) in (from..).zip(out.chunks_mut(self.n)) {
            if let Some(slot) = self.slot(tick) {
                row[..self.n].copy_from_slice(&self.values[slot * self.n..(slot + 1) * self.n]);
            }
            out.copy_from_slice(&row[..out.len()]);
        }
    }

    /// Policy ticks from `now` on that the plan still covers.
    pub fn remaining(&self, now: u64) -> u64 {
        self.end.map_or(0, |end| end.saturating_add(1).saturating_sub(now))
    }

    /// What the limiter is asked for at control tick `tick`. Ticks never go back.
    pub fn target(&mut self, tick: u64) -> Target {
        let (step, phase) = (tick / self.ticks_per_step, tick % self.ticks_per_step);
        let Some(here) = self.slot(step) else {
            let since = *self.idle_since.get_or_insert(tick);
            let wait = if self.end.is_none() { self.first_wait } else { 0 };
            let held = tick.saturating_sub(since) < self.hold_ticks + wait;
            let flow = if held { Flow::Hold } else { Flow::Exhausted };
            return Target { flow, q: self.held, dq: [0.0; MAX_JOINTS] };
        };
        self.idle_since = None;
        let beside = |distance: i64| step.checked_add_signed(distance).and_then(|step| self.slot(step));
        let [before, next, after] = [beside(-1), beside(1), beside(2)];
        let phase = phase as f64 / self.ticks_per_step as f64;
        let (mut q, mut dq) = (self.held, [0.0; MAX_JOINTS]);
        for joint in 0..self.n {
            let value = |slot: usize| self.values[slot * self.n + joint];
            let step =
                |from: usize, to: usize| difference(self.angle >> joint & 1 == 1, value(from), value(to));
            let steps = Steps {
                before: before.map(|before| step(before, here)),
                next: next.map(|next| step(here, next)),
                after: next.zip(after).map(|(next, after)| step(next, after)),
            };
            let how = if self.discrete >> joint & 1 == 1 { Upsample::Hold } else { self.upsample };
            let (beyond, slope) = between(how, steps, phase, self.policy_dt);
            (q[joint], dq[joint]) = (value(here) + beyond, slope);
        }
        self.held = q;
        Target { flow: Flow::Run, q, dq }
    }

    fn place(&self, tick: u64) -> usize {
        (tick % self.ticks.len() as u64) as usize
    }

    /// The slot that holds this tick's action, if the plan has one.
    fn slot(&self, tick: u64) -> Option<usize> {
        let slot = self.place(tick);
        (self.ticks[slot] == Some(tick)).then_some(slot)
    }
}

/// Rows of a bundle's chunks.
fn horizon(manifest: &Manifest) -> Result<usize, ActionError> {
    let horizon = match manifest.chunk.mode {
        ChunkMode::Open => manifest.chunk.horizon,
        ChunkMode::None | ChunkMode::Lazy => 1,
    };
    if (1..=4096).contains(&horizon) { Ok(horizon) } else { Err(bad("chunk.horizon", horizon, "1 to 4096")) }
}

/// From one value to another; the shorter way round for an angle.
fn difference(angle: bool, from: f64, to: f64) -> f64 {
    let straight = to - from;
    if angle { straight - TAU * (straight / TAU).round() } else { straight }
}

/// Part of a new value in the mean of `count` older ones and itself, weighted by e^(−k·i), the oldest first.
fn mean_weight(k: f64, count: u32) -> f64 {
    let count = f64::from(count);
    // Σ e^(−k·i) over the older ones.
    let older = if k > 0.0 { (-k * count).exp_m1() / (-k).exp_m1() } else { count };
    let new = (-k * count).exp();
    new / (older + new)
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;
