//! Which action holds at which tick: absolute policy ticks, never list positions or clocks.
//!
//! A [`Chunk`] carries the actions of the policy ticks `first_tick, first_tick + 1, …`. The plan is a ring of those
//! ticks. An accepted chunk replaces the plan from now on, over a fade if the bundle asks for one; a refused chunk
//! leaves it as it was. When the plan runs out, the last target is held for `hold_ticks` control ticks and the sequence
//! then reports [`Flow::Exhausted`]; a later chunk takes over by a fade from the held target.

use cadenza_policy::manifest::{Channel, ChunkMode, Manifest, Seam};

use super::upsample::between;
use super::{ActionError, Flow, Target};
use crate::config::Upsample;
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
    /// Joint targets, rows × joints, robot order.
    pub values: &'a [f64],
}

/// What happened to an accepted chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Rows that were already in the past.
    pub expired: usize,
}

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
    fade: usize,
    recovery: usize,
    hold_ticks: u64,
    discrete: u64,

    pub(super) epoch: u32,
    /// Observation tick and id of the newest accepted chunk.
    pub(super) newest: Option<(u64, u64)>,
    /// Slot `tick % capacity` holds that tick's action when `ticks` says so.
    pub(super) values: Vec<f64>,
    pub(super) ticks: Vec<Option<u64>>,
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
    /// [`ActionError::NotSupported`] for seam `prefix` and `angle` channels; [`ActionError::BadValue`] for a horizon, a
    /// fade or an up-sampling that cannot work; [`ActionError::Robot`] for rates that do not divide.
    pub fn new(manifest: &Manifest, robot: &Robot, upsample: Upsample) -> Result<Self, ActionError> {
        let chunk = &manifest.chunk;
        let horizon = match chunk.mode {
            ChunkMode::Open => chunk.horizon,
            ChunkMode::None | ChunkMode::Lazy => 1,
        };
        if !(1..=4096).contains(&horizon) {
            return Err(bad("chunk.horizon", horizon, "1 to 4096"));
        }
        if upsample == Upsample::Linear && horizon < 2 {
            return Err(bad("upsample = linear with horizon", horizon, "a horizon of at least 2, or hold"));
        }
        let usual = (horizon / 2).min(4);
        let fade = match (chunk.seam, chunk.fade_ticks) {
            (Seam::Replace, _) => 0,
            (Seam::Fade, 0) => usual,
            (Seam::Fade, n) if n < horizon => n,
            (Seam::Fade, n) => return Err(bad("chunk.fade_ticks", n, "fewer than the horizon")),
            (Seam::Prefix, _) => {
                return Err(ActionError::NotSupported {
                    what: "chunk.seam",
                    value: "prefix".into(),
                    supported: "replace, fade",
                });
            }
        };
        let mut discrete = 0;
        for (name, channel) in &manifest.action.channels {
            let joint = crate::robot::JointMap::new(robot, &[name])?.places()[0];
            match channel {
                Channel::Linear => {}
                Channel::Discrete => discrete |= 1 << joint,
                Channel::Angle => {
                    return Err(ActionError::NotSupported {
                        what: "action.channels",
                        value: format!("{name} = angle"),
                        supported: "linear, discrete",
                    });
                }
            }
        }
        let n = robot.joints.len();
        // A chunk may start up to one horizon ahead and is one horizon long.
        let capacity = 2 * horizon + 1;
        Ok(Self {
            n,
            horizon,
            ticks_per_step: u64::from(ticks_per_step(manifest)?),
            policy_dt: manifest.rates.policy_dt,
            upsample,
            fade,
            recovery: if fade > 0 { fade } else { usual },
            hold_ticks: u64::from(robot.safety.hold_ticks),
            discrete,
            epoch: 0,
            newest: None,
            values: vec![0.0; capacity * n],
            ticks: vec![None; capacity],
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

    /// Takes a chunk into the plan at policy tick `now`.
    ///
    /// # Errors
    /// The [`Refusal`]; the plan is as it was.
    pub fn accept(&mut self, chunk: &Chunk<'_>, now: u64) -> Result<Accepted, Refusal> {
        self.admit(chunk.id, chunk.epoch, chunk.obs_tick, chunk.first_tick, chunk.rows, now)?;
        let n = self.n;
        if chunk.values.len() != chunk.rows * n {
            return Err(Refusal::WrongLength { got: chunk.values.len(), want: chunk.rows * n });
        }
        if let Some(i) = chunk.values.iter().position(|x| !x.is_finite()) {
            return Err(Refusal::NotFinite { row: i / n, joint: i % n });
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
        for tick in start..=last {
            let (i, row) = ((tick - start) as usize, (tick - chunk.first_tick) as usize * n);
            let (planned, slot) = (self.slot(tick).is_some(), self.place(tick));
            let rows = self.values[slot * n..(slot + 1) * n].iter_mut().zip(&chunk.values[row..row + n]);
            for (joint, ((value, &new), &beyond)) in rows.zip(&beyond).enumerate() {
                let old = if planned { *value } else { beyond };
                let weight = (i + 1) as f64 / (fade + 1) as f64;
                let fading = i < fade && self.discrete >> joint & 1 == 0;
                *value = if fading { old + (new - old) * weight } else { new };
            }
            self.ticks[slot] = Some(tick);
        }
        // What an older chunk planned for after this one's end is void.
        for tick in &mut self.ticks {
            *tick = tick.filter(|&t| t <= last);
        }
        self.end = Some(last);
        self.newest = Some((chunk.obs_tick, chunk.id));
        Ok(Accepted { expired: (start - chunk.first_tick) as usize })
    }

    /// What the limiter is asked for at control tick `tick`. Ticks never go back.
    pub fn target(&mut self, tick: u64) -> Target {
        let (step, phase) = (tick / self.ticks_per_step, tick % self.ticks_per_step);
        let Some(here) = self.slot(step) else {
            let since = *self.idle_since.get_or_insert(tick);
            let held = tick.saturating_sub(since) < self.hold_ticks;
            let flow = if held { Flow::Hold } else { Flow::Exhausted };
            return Target { flow, q: self.held, dq: [0.0; MAX_JOINTS] };
        };
        self.idle_since = None;
        let next = step.checked_add(1).and_then(|next| self.slot(next));
        let phase = phase as f64 / self.ticks_per_step as f64;
        let (mut q, mut dq) = (self.held, [0.0; MAX_JOINTS]);
        for joint in 0..self.n {
            let how = if self.discrete >> joint & 1 == 1 { Upsample::Hold } else { self.upsample };
            let a = self.values[here * self.n + joint];
            let b = next.map(|slot| self.values[slot * self.n + joint]);
            (q[joint], dq[joint]) = between(how, a, b, phase, self.policy_dt);
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

fn bad(key: &str, value: usize, expected: &'static str) -> ActionError {
    ActionError::BadValue { key: key.into(), value: value.to_string(), expected }
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;
