//! What the operator asks for, and how an episode begins.

use super::request::Request;
use super::tick::{Controller, Refusal};
use crate::action::{Flow, Target};
use crate::device::{Device, Stop};
use crate::log::entry::Entry;
use crate::log::record::Recorder;
use crate::safety::{ArmRefusal, Level, Phase};
use crate::state::{Joints, MAX_JOINTS};

/// How long arming waits for good states in a row, s. A measurement that is bad now and then must not keep it waiting for
/// ever.
const ARM_PATIENCE: f64 = 2.0;
/// Distance from home within which the robot is at home, rad.
const HOME_WINDOW: f64 = 1e-6;

impl Controller {
    /// Does what the operator asks: in a tick, or between two.
    pub fn obey(&mut self, request: Request, device: &mut dyn Device, log: &mut Recorder) {
        log.push(Entry::Request { tick: self.state.tick, request });
        match request {
            Request::Arm => match self.gate.arm() {
                Ok(()) => (self.refusal, self.asked_at) = (None, self.state.tick),
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
                    self.skill.monitors.reset();
                }
            }
            Request::Switch => self.ask_to_switch(log),
            // Meant for the policy before.
            Request::Command { .. } if self.skill.fallback => {}
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
            Err(refusal) if refusal.is_waiting() && self.waited() < ARM_PATIENCE => return,
            Err(refusal) => Some(Refusal::Check(refusal)),
            Ok(()) => self.begin(device).err(),
        };
        if self.refusal.is_some() {
            self.gate.disarm();
        }
    }

    /// Time since the operator asked for motors on, s.
    fn waited(&self) -> f64 {
        (self.state.tick - self.asked_at) as f64 * self.dt
    }

    /// A new episode: everything forgets the one before. The device comes last of those that may say no.
    fn begin(&mut self, device: &mut dyn Device) -> Result<(), Refusal> {
        let mut hold = self.gate.hold_command();
        self.stiffen(&mut hold);
        self.gate.armed(&hold).map_err(Refusal::Check)?;
        let mut start = self.state;
        start.epoch += 1;
        start.q = hold.q;
        self.skill.path.reset(&start).map_err(Refusal::Limits)?;
        if !self.dry_run {
            device.enable(&hold).map_err(Refusal::Device)?;
        }
        self.state.epoch = start.epoch;
        self.armed_at = self.state.tick;
        self.homing = self.home.is_some();
        self.give_to_policy(&hold.q);
        Ok(())
    }

    /// The policy begins once the robot rests at home.
    pub(super) fn begin_when_home(&mut self) {
        let Some(home) = self.home.filter(|_| self.homing && self.gate.phase() == Phase::Armed) else {
            return;
        };
        if self.gate.level() == Level::Run && self.gate.rests_at(&home, HOME_WINDOW) {
            self.homing = false;
            self.gate.hand_over();
            self.give_to_policy(&home);
        }
    }

    /// The policy begins at this tick, and its authority grows from `q`.
    fn give_to_policy(&mut self, q: &Joints) {
        (self.begun_at, self.origin) = (self.state.tick, self.state.tick);
        self.anchor = *q;
        self.skill.begin(self.state.epoch, q);
        self.target = Target { flow: Flow::Hold, q: *q, dq: [0.0; MAX_JOINTS] };
    }
}
