//! Another bundle takes over while the loop runs: stand, walk, recover.
//!
//! It is loaded, proven, checked against the robot and warmed on the caller's thread. What the loop gets is a box that
//! changes hands through a ring, and the bundle before goes back the same way, to be dropped by the caller: the control
//! thread moves two pointers. It takes over at a policy step; until then, and if it is refused, the bundle before goes on.
//! The limiter goes on as it was, and the newcomer's authority grows from the target of that tick.

use std::sync::Arc;

use cadenza_policy::manifest::{CommandSlot, Manifest};
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::RunError;
use super::fallback::Fallback;
use super::planner::Planner;
use super::skill::Skill;
use super::stages::NO_JOINT;
use super::tick::Controller;
use crate::config::RunConfig;
use crate::device::DeviceInfo;
use crate::log::entry::{BundleEntry, Entry};
use crate::log::record::Recorder;
use crate::robot::Robot;
use crate::safety::{Fault, Level, Phase, Reason};
use crate::state::MAX_JOINTS;

/// Bundles that may be under way at once.
const UNDER_WAY: usize = 4;
/// Bundles whose monitors' names the report can tell; with more, the last ones share a place.
const WATCHED: usize = 64;

/// A bundle that may take over. Made by [`Loader::load`](super::Loader::load).
pub struct Successor {
    /// Its own, or that of the bundle before once it has taken over.
    pub(super) skill: Box<Skill>,
    pub(super) bundle: BundleEntry,
    monitors: Arc<[String]>,
    outcome: Option<Result<u64, SwitchRefusal>>,
}

impl Successor {
    /// What a manifest and any planner make. For planners that belong to no bundle.
    ///
    /// # Errors
    /// As for [`Controller::new`].
    pub fn new(
        manifest: &Manifest,
        specification: Option<&str>,
        robot: &Robot,
        device: &DeviceInfo,
        planner: Planner,
        config: &RunConfig,
    ) -> Result<Self, RunError> {
        let bundle = BundleEntry {
            name: manifest.name.clone(),
            sha256: String::new(),
            manifest_json: manifest.to_json(),
            spec_stl: specification.unwrap_or_default().into(),
            late: planner.is_late(),
            fallback: false,
            monitors: Vec::new(),
        };
        Ok(Self::of(Skill::new(manifest, specification, robot, &device.objects, planner, config)?, bundle))
    }

    /// `bundle` is told what watches it.
    pub(super) fn of(skill: Skill, bundle: BundleEntry) -> Self {
        let monitors = skill.monitors.names().map(str::to_owned).collect();
        let bundle = BundleEntry { monitors: skill.monitors.headers(), ..bundle };
        Self { skill: Box::new(skill), bundle, monitors, outcome: None }
    }
}

/// Why a bundle does not take over; the one before goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchRefusal {
    /// Its limits are other ones, and limits change at rest only.
    #[error(
        "its limits are other ones than those in use, and joint {joint} moves or stands outside them: limits change at rest"
    )]
    Limits {
        /// Joint, robot order.
        joint: u16,
    },
    /// The robot is stopping.
    #[error("the robot is at level {}: reset first", level.name())]
    Stopping {
        /// Level.
        level: Level,
    },
    /// Another one was offered before it took over.
    #[error("another bundle was offered before this one took over")]
    Replaced,
    /// The fallback is about to take over.
    #[error("the fallback bundle takes over: offer this one again after it has")]
    FallingBack,
}

/// The caller's end: offers bundles and takes back those that are done.
pub struct Switcher {
    offers: Producer<Box<Successor>>,
    done: Consumer<Box<Successor>>,
    under_way: usize,
}

/// The loop's end.
pub struct Port {
    offers: Consumer<Box<Successor>>,
    done: Producer<Box<Successor>>,
}

/// The two ends of the way for bundles.
pub fn switcher() -> (Switcher, Port) {
    let (offers, offered) = RingBuffer::new(UNDER_WAY);
    let (returned, done) = RingBuffer::new(UNDER_WAY);
    (Switcher { offers, done, under_way: 0 }, Port { offers: offered, done: returned })
}

impl Switcher {
    /// Offers a bundle; a [`Request::Switch`](super::Request::Switch) makes the loop take it.
    ///
    /// # Errors
    /// The bundle comes back when four are under way.
    pub fn offer(&mut self, successor: Successor) -> Result<(), Box<Successor>> {
        if self.under_way == UNDER_WAY {
            return Err(Box::new(successor));
        }
        self.offers.push(Box::new(successor)).map_err(|PushError::Full(successor)| successor)?;
        self.under_way += 1;
        Ok(())
    }

    /// What became of the oldest bundle of which that is known: the tick at which it took over, or why it did not. What is
    /// not needed any more is dropped here.
    pub fn outcome(&mut self) -> Option<Result<u64, SwitchRefusal>> {
        let done = self.done.pop().ok()?;
        self.under_way -= 1;
        done.outcome
    }
}

/// What the loop knows of other bundles.
pub(super) struct Succession {
    port: Option<Port>,
    waiting: Option<Box<Successor>>,
    pub(super) fallback: Fallback,
    /// From which tick on monitors have which names.
    watched: Vec<(u64, Arc<[String]>)>,
}

impl Succession {
    /// Of a run that begins with `first` and may have a fallback.
    pub(super) fn new(first: &Skill, fallback: bool) -> Self {
        let mut watched = Vec::with_capacity(WATCHED);
        watched.push((0, first.monitors.names().map(str::to_owned).collect()));
        Self { port: None, waiting: None, fallback: Fallback::new(fallback), watched }
    }

    /// Whether the fallback is about to take over.
    pub(super) fn falls_back(&self) -> bool {
        self.fallback.called || self.waiting.as_ref().is_some_and(|next| next.bundle.fallback)
    }

    /// Names of the monitors at `tick`.
    pub(super) fn watched_at(&self, tick: u64) -> &[String] {
        self.watched.iter().rev().find(|(from, _)| *from <= tick).map_or(&[], |(_, names)| names)
    }

    fn give_back(&mut self, mut successor: Box<Successor>, outcome: Result<u64, SwitchRefusal>) {
        successor.outcome = Some(outcome);
        if let Some(port) = &mut self.port
            && let Err(PushError::Full(successor)) = port.done.push(successor)
        {
            // No more are offered than there are places; memory is never freed on this thread.
            std::mem::forget(successor);
        }
    }
}

impl Controller {
    /// Bundles come through `port` from now on.
    pub fn switch_by(&mut self, port: Port) {
        self.succession.port = Some(port);
    }

    /// Takes the next bundle that was offered; it begins when it can.
    pub(super) fn ask_to_switch(&mut self, log: &mut Recorder) {
        if let Some(Ok(next)) = self.succession.port.as_mut().map(|port| port.offers.pop()) {
            self.propose(next, log);
        }
    }

    /// `next` takes over when it can, in place of another one that waits; but the fallback gives way to none.
    pub(super) fn propose(&mut self, next: Box<Successor>, log: &mut Recorder) {
        log.push(Entry::Bundle { tick: self.state.tick, bundle: &next.bundle });
        if self.succession.falls_back() {
            return self.refuse(next, SwitchRefusal::FallingBack);
        }
        if let Some(before) = self.succession.waiting.replace(next) {
            self.refuse(before, SwitchRefusal::Replaced);
        }
    }

    /// The bundle that waits takes over, if this is a tick for it.
    pub(super) fn switch_when_asked(&mut self) {
        let armed = self.gate.phase() == Phase::Armed;
        let stopping = armed && self.gate.level() >= Level::SoftStop;
        // What the fallback takes the robot from does not matter any more.
        let is_fallback = self.succession.waiting.as_ref().is_some_and(|next| next.bundle.fallback);
        let is_time = self.is_policy_tick() || (is_fallback && self.is_followed());
        if armed && !stopping && !is_time {
            return;
        }
        let Some(mut next) = self.succession.waiting.take() else { return };
        if stopping {
            return self.refuse(next, SwitchRefusal::Stopping { level: self.gate.level() });
        }
        match self.take_over(&mut next, armed) {
            Ok(()) => {
                let (tick, names) = (self.state.tick, next.monitors.clone());
                let watched = &mut self.succession.watched;
                if watched.len() < watched.capacity() {
                    watched.push((tick, names));
                } else if let Some(last) = watched.last_mut() {
                    // What is replaced goes back with the bundle: nothing is freed here.
                    next.monitors = std::mem::replace(&mut last.1, names);
                }
                if next.bundle.fallback {
                    self.succession.fallback.lend(next);
                } else {
                    self.succession.fallback.return_to(&mut next);
                    self.succession.give_back(next, Ok(tick));
                }
                self.report(Reason::BundleSwitched, NO_JOINT, 0.0);
                self.tell_slowed();
            }
            Err(refusal) => self.refuse(next, refusal),
        }
    }

    fn refuse(&mut self, successor: Box<Successor>, refusal: SwitchRefusal) {
        let joint = if let SwitchRefusal::Limits { joint } = refusal { joint } else { NO_JOINT };
        let fault = self.fault(Reason::BundleRefused, joint);
        if successor.bundle.fallback {
            self.succession.fallback.stand_by(successor);
            return self.gate.report(Fault { level: Level::SoftStop, ..fault });
        }
        self.succession.give_back(successor, Err(refusal));
        self.gate.report(fault);
    }

    /// Exchanges the bundles. Nothing has changed when it fails.
    fn take_over(&mut self, next: &mut Successor, armed: bool) -> Result<(), SwitchRefusal> {
        let (old, new) = (&mut self.skill, &mut next.skill);
        if old.limits == new.limits {
            std::mem::swap(&mut old.path.limiter, &mut new.path.limiter);
        } else {
            self.gate.adopt(&new.limits).map_err(|joint| SwitchRefusal::Limits { joint })?;
            // At rest inside the new limits, as the gate has seen; while disarmed arming starts the limiter.
            let _ = new.path.limiter.reset(&self.gate.sent().q);
        }
        let before = self.state.user;
        for (slot, command) in new.commands.iter().enumerate() {
            let named = |c: &CommandSlot| !new.fallback && c.name == command.name;
            let kept = old.commands.iter().position(named).map(|at| before[at]);
            let [lo, hi] = command.range;
            self.state.user[slot] = kept.map_or(command.default, |value| value.max(lo).min(hi));
        }
        std::mem::swap(old, new);
        if armed {
            self.gate.hand_over();
            self.origin = self.state.tick;
            self.anchor = self.target.q;
            self.target.dq = [0.0; MAX_JOINTS];
            self.skill.begin(self.state.epoch, &self.anchor);
            self.skill.feedback.executed = self.command.q;
            self.skill.sent_before = self.command.q;
        }
        Ok(())
    }
}
