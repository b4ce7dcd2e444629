//! The bundle that takes over when the one before fails: a monitor trips, or answers cease.
//!
//! It is loaded, proven and warm before the motors come on, and takes over as any other bundle does (see
//! [`switch`](super::switch)), without an operator and without waiting for a policy step. While it has the robot it hears no commands: they were meant for the
//! policy before. Where there is none, where its own answers cease and where it is refused, the robot stops
//! softly. Once another bundle has the robot again it stands by as before.

use super::stages::NO_JOINT;
use super::switch::Successor;
use super::tick::Controller;
use crate::log::record::Recorder;
use crate::safety::{Fault, Level};

/// The run's fallback.
pub(super) struct Fallback {
    /// Whether the run has one.
    exists: bool,
    /// While another bundle has the robot.
    ready: Option<Box<Successor>>,
    /// While it has the robot: its box, which holds the bundle before.
    lent: Option<Box<Successor>>,
    /// Whether it is to take over from the next tick on.
    pub(super) called: bool,
}

impl Fallback {
    pub(super) fn new(exists: bool) -> Self {
        Self { exists, ready: None, lent: None, called: false }
    }

    /// It stands by.
    pub(super) fn stand_by(&mut self, successor: Box<Successor>) {
        self.ready = Some(successor);
    }

    /// It has the robot; `lender` holds the bundle before.
    pub(super) fn lend(&mut self, lender: Box<Successor>) {
        self.lent = Some(lender);
    }

    /// Another bundle has taken the robot: what that leaves in `taker` is exchanged for the bundle before.
    pub(super) fn return_to(&mut self, taker: &mut Successor) {
        if let Some(mut lender) = self.lent.take() {
            std::mem::swap(&mut lender.skill, &mut taker.skill);
            self.ready = Some(lender);
        }
    }
}

impl Controller {
    /// `successor` is the fallback of a run whose configuration says that there is one.
    pub fn fall_back_on(&mut self, mut successor: Successor) {
        successor.bundle.fallback = true;
        successor.skill.fallback = true;
        self.succession.fallback.stand_by(Box::new(successor));
    }

    /// Whether the fallback can take over.
    pub(super) fn can_fall_back(&self) -> bool {
        self.succession.fallback.exists && !self.skill.fallback && self.gate.level() < Level::SoftStop
    }

    /// The fallback takes over, if it can and is not about to; `fault` says why, and stands if it cannot.
    pub(super) fn fall_back(&mut self, fault: Fault) {
        if !self.can_fall_back() {
            return self.gate.report(fault);
        }
        if !self.succession.falls_back() {
            self.succession.fallback.called = true;
            self.gate.report(Fault { level: Level::Run, ..fault });
        }
    }

    /// Makes the fallback the bundle that takes over next, if the tick before has called it or the gate would soon end
    /// what the policy makes it hold.
    pub(super) fn answer_call(&mut self, log: &mut Recorder) {
        if let Some(reason) = self.gate.end_of_patience().filter(|_| self.skill.late_falls_back)
            && self.can_fall_back()
        {
            self.fall_back(self.fault(reason, NO_JOINT));
        }
        if std::mem::take(&mut self.succession.fallback.called)
            && let Some(fallback) = self.succession.fallback.ready.take()
        {
            self.propose(fallback, log);
        }
    }
}
