//! The stages of a tick, in the order in which [`Controller::tick`] runs them.

use super::estop::Button;
use super::policy::{Ask, PolicyError};
use super::skill::Skill;
use super::tick::{Controller, Due};
use super::watch::Stopwatch;
use crate::action::{ActionFault, DecodeError, Flow, Origin, Refusal, Target};
use crate::device::Device;
use crate::log::entry::{Entry, Stage, TickEntry};
use crate::log::record::Recorder;
use crate::safety::monitors::Change;
use crate::safety::reason::device_fault;
use crate::safety::signals::Inputs;
use crate::safety::{Fault, Level, Phase, Reason};
use crate::state::{Command, MAX_JOINTS};
use crate::timing::clock::Clock;

pub(super) const NO_JOINT: u16 = u16::MAX;
/// Answers in a row that are too late for their sequences before the robot stops.
const TOO_SHORT: u32 = 3;

impl Controller {
    /// Counts deadlines missed in a row: a fault where robot.toml says so.
    pub(super) fn judge_deadline(&mut self, due: Due) {
        self.misses = if due.skipped > 0 { self.misses.saturating_add(1) } else { 0 };
        let running = self.gate.phase() == Phase::Armed && self.gate.level() < Level::SoftStop;
        if let Some(most) = self.most_misses.filter(|most| running && self.misses >= *most) {
            let (value, limit) = (f64::from(self.misses), f64::from(most));
            self.gate.report(Fault { value, limit, ..self.fault(Reason::Deadline, NO_JOINT) });
        }
    }

    /// Reads the device, and keeps what it reported or what the last write did.
    pub(super) fn read(&mut self, device: &mut dyn Device, clock: &dyn Clock) {
        self.device_fault = self.write_fault.take();
        match device.read(&mut self.state) {
            Ok(fresh) => self.fresh = fresh,
            Err(fault) => self.device_fault = Some(fault),
        }
        self.state.estop |= self.estop.as_mut().is_some_and(Button::pressed);
        self.state.t_read_ns = clock.now_ns();
        self.state.t_sensor_ns = self.fresh.stamp_ns;
    }

    /// Control ticks since the policy began.
    pub(super) fn since_begun(&self) -> u64 {
        self.state.tick - self.origin
    }

    /// Whether this tick begins a policy step in which the policy's answers can still be followed.
    pub(super) fn is_policy_tick(&self) -> bool {
        self.is_followed() && self.since_begun().is_multiple_of(self.skill.path.sequence.ticks_per_step())
    }

    pub(super) fn is_followed(&self) -> bool {
        self.gate.phase() == Phase::Armed && self.gate.level() <= Level::Hold && !self.homing
    }

    /// Observation, and the question if one is due. Returns whether the network ran on this thread.
    pub(super) fn think(&mut self, watch: &mut Stopwatch<'_>, log: &mut Recorder) -> bool {
        let tick = self.state.tick;
        let step = self.since_begun() / self.skill.path.sequence.ticks_per_step();
        self.skill.feed_back(step);
        self.skill.feedback.time = self.since_begun() as f64 * self.dt;
        let observed = self.skill.observer.step(&self.state, &self.skill.feedback, &mut self.skill.obs);
        watch.lap(Stage::Observe);
        if let Err(bad) = observed {
            self.report(Reason::ObservationNotFinite, NO_JOINT, bad.index as f64);
            return false;
        }
        log.push(Entry::Obs { tick, values: &self.skill.obs });
        let Skill { asking, planner, path, feedback, obs, .. } = &mut *self.skill;
        let Some(begin) = asking.due(|| path.sequence.remaining(step)) else { return false };
        asking.commit(step, planner);
        let previous = &feedback.action[..asking.actions()];
        let ask = Ask { tick, begin, obs, previous, committed: asking.committed() };
        let ran = planner.ask(&ask, self.state.epoch, step);
        watch.lap(Stage::Infer);
        ran
    }

    /// Takes what the policy has answered by now into the plan.
    pub(super) fn listen(&mut self, log: &mut Recorder) {
        if !self.is_followed() {
            return;
        }
        let (tick, since) = (self.state.tick, self.since_begun());
        let now = since / self.skill.path.sequence.ticks_per_step();
        while let Some(answer) = self.skill.planner.take(tick) {
            let (step, prefix) = (answer.step, answer.prefix);
            let mut expired = false;
            let fault = match answer.outcome {
                Ok(()) => {
                    let origin = Origin { epoch: answer.epoch, step, prefix };
                    match self.skill.path.accept_from(&answer.values, &self.state, origin, since) {
                        Ok(accepted) => {
                            let (id, values) = (self.answers.accepted, &answer.values);
                            log.push(Entry::Chunk { tick, id, step, prefix: prefix as u32, values });
                            self.answers.accepted += 1;
                            self.answers.expired += accepted.expired as u64;
                            self.skill.asking.answered(step, values);
                            self.skill.feedback.target = *self.skill.path.decoder.target();
                            self.gate.policy_answered();
                            accepted.mismatch.map(|m| (Reason::PrefixMismatch, m.joint as u16, m.error))
                        }
                        Err(ActionFault::Decode(DecodeError::NotFinite { joint, .. })) => {
                            // The decoder counts in the bundle's order, faults in the robot's.
                            let place = self.skill.path.decoder.joints().get(joint);
                            let joint = place.map_or(NO_JOINT, |&place| place as u16);
                            Some((Reason::PolicyNotFinite, joint, f64::NAN))
                        }
                        Err(ActionFault::Decode(DecodeError::WrongLength { got, .. })) => {
                            Some((Reason::PolicyWrongLength, NO_JOINT, got as f64))
                        }
                        Err(ActionFault::Refused(refusal)) => {
                            expired = matches!(refusal, Refusal::Expired { .. });
                            Some((Reason::ChunkRefused, NO_JOINT, now.saturating_sub(step) as f64))
                        }
                    }
                }
                Err(PolicyError::NotFinite { what: "observation", index }) => {
                    Some((Reason::ObservationNotFinite, NO_JOINT, index as f64))
                }
                Err(PolicyError::NotFinite { index, .. }) => {
                    Some((Reason::PolicyNotFinite, NO_JOINT, index as f64))
                }
                Err(PolicyError::WrongLength { got, .. }) => {
                    Some((Reason::PolicyWrongLength, NO_JOINT, got as f64))
                }
                Err(PolicyError::Late) => Some((Reason::PolicyLate, NO_JOINT, 0.0)),
            };
            match fault.map(|(reason, ..)| reason) {
                None | Some(Reason::PrefixMismatch) => {}
                Some(Reason::ChunkRefused) => self.answers.refused += 1,
                Some(_) => self.answers.failed += 1,
            }
            if let Some((reason, joint, value)) = fault {
                let fault = Fault { value, ..self.fault(reason, joint) };
                if expired { self.too_late(fault) } else { self.gate.report(fault) }
            }
            self.judge_delay(now.saturating_sub(step));
        }
    }

    /// An answer came `delay` steps after its question. While sequences are `horizon` long and asked for each s steps, the
    /// plan lasts only if delay ≤ s ≤ horizon − delay; three answers in a row that break this stop the robot.
    fn judge_delay(&mut self, delay: u64) {
        self.skill.planner.delay(delay);
        let horizon = self.skill.path.sequence.horizon() as u64;
        let Some(every) = self.skill.asking.period() else { return };
        let lasts = horizon == 1 || (delay <= every && every + delay <= horizon);
        self.skill.too_short = if lasts { 0 } else { self.skill.too_short + 1 };
        if self.skill.too_short >= TOO_SHORT {
            let (value, limit) = (delay as f64, every.min(horizon.saturating_sub(every)) as f64);
            self.too_late(Fault { value, limit, ..self.fault(Reason::HorizonTooShort, NO_JOINT) });
        }
    }

    /// The policy's answers come too late or not at all.
    fn too_late(&mut self, fault: Fault) {
        if self.skill.late_falls_back { self.fall_back(fault) } else { self.gate.report(fault) }
    }

    /// What the joints should do: the plan, with the policy's authority growing from the pose at arming.
    pub(super) fn choose_target(&mut self) {
        if self.gate.phase() != Phase::Armed || self.gate.level() != Level::Run {
            self.target.dq = [0.0; MAX_JOINTS];
            return;
        }
        if let Some(home) = self.home.filter(|_| self.homing) {
            self.target = Target { flow: Flow::Hold, q: home, dq: [0.0; MAX_JOINTS] };
            return;
        }
        let mut target = self.skill.path.sequence.target(self.since_begun());
        if target.flow == Flow::Exhausted {
            self.too_late(self.fault(Reason::PolicyExhausted, NO_JOINT));
        }
        let authority = self.gate.authority();
        if authority < 1.0 {
            for i in 0..self.state.joints() {
                target.q[i] = self.anchor[i] + authority * (target.q[i] - self.anchor[i]);
                target.dq[i] *= authority;
            }
        }
        let (sent, most) = (&self.gate.sent().q, self.gate.track_max());
        let mut strain = [0.0; MAX_JOINTS];
        for i in 0..self.state.joints() {
            strain[i] = (sent[i] - self.state.q[i]) / most;
        }
        self.skill.path.disturb(self.since_begun(), &strain, authority, &mut target);
        self.target = target;
    }

    /// Turns the target into a command that the joints can follow. Returns the joints that were held back.
    pub(super) fn limit(&mut self) -> u64 {
        let n = self.state.joints();
        if self.gate.phase() != Phase::Armed {
            self.command = Command::off(n);
            return 0;
        }
        if self.gate.altered() {
            // A seed outside the limits changes nothing here, and the gate refuses what follows from it.
            let _ = self.skill.path.limiter.seed(&self.gate.sent().q, self.gate.sent_velocity());
        }
        let (q, dq) = (&mut self.command.q, &mut self.command.dq);
        let limiter = &mut self.skill.path.limiter;
        self.braked &= self.gate.level() == Level::SoftStop;
        let clamped = match (self.gate.level(), self.gate.stop_pose()) {
            (Level::Run | Level::Hold, _) => limiter.step(&self.target.q, &self.target.dq, q, dq),
            // A target that is not a number leaves the joint where it is.
            (_, Some(pose)) if self.braked => limiter.step(pose, &[0.0; MAX_JOINTS], q, dq),
            _ => {
                self.braked = limiter.brake(q, dq);
                0
            }
        };
        let mut command = self.command;
        self.stiffen(&mut command);
        self.command = command;
        clamped
    }

    /// The bundle's gains, capped by robot.toml; no feed-forward.
    pub(super) fn stiffen(&self, command: &mut Command) {
        for (i, gain) in self.skill.gains.iter().enumerate() {
            (command.kp[i], command.kd[i], command.tau[i]) = (gain.kp, gain.kd, 0.0);
        }
    }

    /// Steps the monitors whose instant this is; one that trips reports to the gate.
    pub(super) fn monitor(&mut self, log: &mut Recorder) {
        if self.gate.phase() != Phase::Armed || self.homing {
            return;
        }
        self.skill.kinematics.update(&self.state.q, &self.state.base, &self.state.imu.quat);
        for (i, position) in self.skill.frames.iter_mut().enumerate() {
            *position = self.skill.kinematics.pose(i).0;
        }
        let inputs = Inputs {
            state: &self.state,
            sent: self.gate.sent(),
            frames: &self.skill.frames,
            age_ns: self.gate.age_ns(),
            level: self.gate.level(),
            exhausted: self.target.flow == Flow::Exhausted,
        };
        self.skill.table.fill(&inputs, &mut self.skill.signals);
        let (can, fallback, mut called) = (self.can_fall_back(), self.skill.fallback, false);
        let gate = &mut self.gate;
        self.skill.monitors.step(self.state.tick, &self.skill.signals, |verdict, change| {
            log.push(Entry::Verdict(verdict));
            match change {
                Change::Same => {}
                Change::Tripped(fault) => gate.report(fault),
                // What the fallback was called for may last a while.
                Change::FallBack(fault) if can || fallback => {
                    called |= can;
                    gate.report(Fault { level: Level::Run, ..fault });
                }
                Change::FallBack(fault) => gate.report(fault),
                Change::Cleared => gate.monitor_cleared(verdict.monitor),
            }
        });
        self.succession.fallback.called |= called && !self.succession.falls_back();
    }

    /// Reports each monitor of the bundle that is stepped more rarely than its property asks for.
    pub(super) fn tell_slowed(&mut self) {
        let slowed = self.skill.monitors.slowed(self.state.tick);
        slowed.for_each(|fault| self.gate.report(fault));
    }

    /// Sends the command. Nothing changes it after the gate.
    pub(super) fn write(&mut self, device: &mut dyn Device) {
        if !self.dry_run
            && let Err(fault) = device.write(&self.command)
        {
            self.write_fault = Some(fault);
        }
        self.skill.feedback.executed = self.command.q;
    }

    /// Hands the tick to the recorder and says how it went.
    pub(super) fn record(
        &mut self,
        due: Due,
        inferred: bool,
        clamped: u64,
        watch: &mut Stopwatch<'_>,
        log: &mut Recorder,
    ) -> TickEntry {
        log.push(Entry::State(&self.state));
        log.push(Entry::Command(&self.command));
        self.record_faults(log);
        watch.lap(Stage::Record);
        let entry = TickEntry {
            tick: self.state.tick,
            deadline_ns: due.deadline_ns,
            stage_ns: watch.stage_ns,
            skipped: due.skipped,
            inferred,
            flow: self.target.flow,
            level: self.gate.level(),
            phase: self.gate.phase(),
            clamped,
            authority: self.authority(),
            age_ns: self.gate.age_ns(),
        };
        if entry.tick.is_multiple_of(self.record_every) {
            log.push(Entry::Tick(&entry));
        }
        entry
    }

    /// Hands what went wrong to the recorder and to the report.
    pub(super) fn record_faults(&mut self, log: &mut Recorder) {
        // A replay needs every report of the device; the gate gives a lasting one once, and none while disarmed.
        let mut untold = self.device_fault.map(|fault| {
            let (reason, joint, value, limit) = device_fault(fault);
            Fault { value, limit, ..self.fault(reason, joint) }
        });
        self.gate.drain_faults(|fault| {
            untold = untold.filter(|device| device.reason != fault.reason);
            log.push(Entry::Event(fault));
            if self.faults.len() < self.faults.capacity() {
                self.faults.push(*fault);
            }
        });
        if let Some(fault) = untold {
            log.push(Entry::Event(&fault));
        }
    }

    /// The loop panicked: whatever else is wrong, the log and the report say so.
    pub(super) fn panicked(&mut self, log: &mut Recorder) {
        self.report(Reason::Panic, NO_JOINT, 0.0);
        self.record_faults(log);
    }

    /// A fault of this tick at its reason's own level.
    pub(super) fn fault(&self, reason: Reason, joint: u16) -> Fault {
        Fault { tick: self.state.tick, reason, joint, value: 0.0, limit: 0.0, level: reason.level() }
    }

    pub(super) fn report(&mut self, reason: Reason, joint: u16, value: f64) {
        self.gate.report(Fault { value, ..self.fault(reason, joint) });
    }
}
