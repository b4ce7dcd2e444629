//! What the operator asks for, and how an episode begins.

use super::request::Request;
use super::tick::{Controller, Refusal};
use crate::device::{Device, Stop};
use crate::log::entry::Entry;
use crate::log::record::Recorder;
use crate::safety::{ArmRefusal, Phase};
use crate::state::MAX_JOINTS;

impl Controller {
    /// Does what the operator asks: in a tick, or between two.
    pub fn obey(&mut self, request: Request, device: &mut dyn Device, log: &mut Recorder) {
        log.push(Entry::Request { tick: self.state.tick, request });
        match request {
            Request::Arm => match self.gate.arm() {
                Ok(()) => self.refusal = None,
                // The motors are on already, or about to come on.
                Err(ArmRefusal::Phase { .. }) => {}
                Err(refusal) => self.refusal = Some(Refusal::Check(refusal)),
            },
            Request::Stop => {
                self.stopping = true;
                self.gate.stop();
            }
            Request::Estop => self.gate.estop(),
            Request::Disarm => {
                self.gate.disarm();
                // Motors that we never switched on are not ours to switch off.
                if !self.dry_run {
                    self.write_fault = device.stop(Stop::Off).err();
                }
            }
            Request::Reset => {
                // Refused while the cause stands; the next snapshot still shows the latch.
                if self.gate.reset().is_ok() {
                    self.monitors.reset();
                }
            }
            Request::Command { slot, value } => {
                if let (Some(user), true) = (self.state.user.get_mut(usize::from(slot)), value.is_finite()) {
                    *user = value;
                }
            }
        }
    }

    /// Switches the motors on when the gate agrees, holding the measured pose.
    pub(super) fn arm_when_ready(&mut self, device: &mut dyn Device) {
        if self.gate.phase() != Phase::Arming {
            return;
        }
        self.refusal = match self.gate.armable(&self.state) {
            Err(refusal) if refusal.is_waiting() => return,
            Err(refusal) => Some(Refusal::Check(refusal)),
            Ok(()) => self.begin(device).err(),
        };
        if self.refusal.is_some() {
            self.gate.disarm();
        }
    }

    /// A new episode: everything forgets the one before. The device comes last of those that may say no.
    fn begin(&mut self, device: &mut dyn Device) -> Result<(), Refusal> {
        let mut hold = self.gate.hold_command();
        self.stiffen(&mut hold);
        self.gate.armed(&hold).map_err(Refusal::Check)?;
        let mut start = self.state;
        start.epoch += 1;
        start.q = hold.q;
        self.path.reset(&start).map_err(Refusal::Limits)?;
        if !self.dry_run {
            device.enable(&hold).map_err(Refusal::Device)?;
        }
        self.state.epoch = start.epoch;
        self.armed_at = self.state.tick;
        self.anchor = hold.q;
        self.planner.reset();
        (self.raw_step, self.since_begun, self.too_short) = (None, 0, 0);
        self.observer.reset();
        self.monitors.reset();
        self.feedback.action = self.first_action;
        self.feedback.target = hold.q;
        self.feedback.executed = hold.q;
        self.target.q = hold.q;
        self.target.dq = [0.0; MAX_JOINTS];
        Ok(())
    }
}
