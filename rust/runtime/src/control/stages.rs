//! The stages of a tick, in the order in which [`Controller::tick`] runs them.

use super::policy::{Ask, PolicyError};
use super::tick::{Controller, Due};
use super::watch::Stopwatch;
use crate::action::{ActionFault, DecodeError, Flow, Origin};
use crate::config::Trigger;
use crate::device::Device;
use crate::log::entry::{Entry, Stage, TickEntry};
use crate::log::record::Recorder;
use crate::safety::monitors::Change;
use crate::safety::reason::device_fault;
use crate::safety::signals::Inputs;
use crate::safety::{Fault, Level, Phase, Reason};
use crate::state::{Command, MAX_JOINTS};
use crate::timing::clock::Clock;

const NO_JOINT: u16 = u16::MAX;
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
        self.state.t_read_ns = clock.now_ns();
        self.state.t_sensor_ns = self.fresh.stamp_ns;
    }

    /// Control ticks since the motors came on.
    pub(super) fn since_armed(&self) -> u64 {
        self.state.tick - self.armed_at
    }

    /// Whether this tick begins a policy step in which the policy's answers can still be followed.
    pub(super) fn is_policy_tick(&self) -> bool {
        self.is_followed() && self.since_armed().is_multiple_of(self.path.sequence.ticks_per_step())
    }

    fn is_followed(&self) -> bool {
        self.gate.phase() == Phase::Armed && self.gate.level() <= Level::Hold
    }

    /// Observation, and the question if one is due. Returns whether the network ran on this thread.
    pub(super) fn think(&mut self, watch: &mut Stopwatch<'_>, log: &mut Recorder) -> bool {
        let tick = self.state.tick;
        let step = self.since_armed() / self.path.sequence.ticks_per_step();
        self.feed_back(step);
        self.feedback.time = self.since_armed() as f64 * self.dt;
        let observed = self.observer.step(&self.state, &self.feedback, &mut self.obs);
        watch.lap(Stage::Observe);
        if let Err(bad) = observed {
            self.report(Reason::ObservationNotFinite, NO_JOINT, bad.index as f64);
            return false;
        }
        log.push(Entry::Obs { tick, values: &self.obs });
        let begin = match self.trigger {
            Trigger::Every(n) => self.since_begun.is_multiple_of(n),
            Trigger::Remaining(n) => self.raw_step.is_none() || self.path.sequence.remaining(step) <= n,
        };
        self.since_begun = if begin { 1 } else { self.since_begun + 1 };
        if !begin && !self.lazy {
            return false;
        }
        self.commit(step);
        let previous = &self.feedback.action[..self.actions];
        let ask = Ask { tick, begin, obs: &self.obs, previous, committed: &self.committed };
        let ran = self.planner.ask(&ask, self.state.epoch, step);
        watch.lap(Stage::Infer);
        ran
    }

    /// The row of the newest answer that was played in the step before this one is the network's previous action.
    fn feed_back(&mut self, step: u64) {
        let Some(row) = self.raw_step.and_then(|first| (step.checked_sub(1)?).checked_sub(first)) else {
            return;
        };
        let from = (self.past + row as usize) * self.actions;
        if let Some(row) = self.raw.get(from..from + self.actions) {
            self.feedback.action[..self.actions].copy_from_slice(row);
        }
    }

    /// Collects the actions that will be played before an answer to a question of `step` can come.
    fn commit(&mut self, step: u64) {
        self.committed.clear();
        let Some(first) = self.raw_step.filter(|_| self.planner.is_late()) else { return };
        let rows = self.raw.len() / self.actions;
        for step in step..step.saturating_add(self.planner.forecast()).min(step + rows as u64) {
            let row = (self.past + step.saturating_sub(first) as usize).min(rows - 1);
            self.committed.extend_from_slice(&self.raw[row * self.actions..(row + 1) * self.actions]);
        }
    }

    /// Takes what the policy has answered by now into the plan.
    pub(super) fn listen(&mut self, log: &mut Recorder) {
        if !self.is_followed() {
            return;
        }
        let (tick, since) = (self.state.tick, self.since_armed());
        let now = since / self.path.sequence.ticks_per_step();
        while let Some(answer) = self.planner.take(tick) {
            let (step, prefix) = (answer.step, answer.prefix);
            let fault = match answer.outcome {
                Ok(()) => {
                    let origin = Origin { epoch: answer.epoch, step, prefix };
                    match self.path.accept_from(&answer.values, &self.state, origin, since) {
                        Ok(accepted) => {
                            let (id, values) = (self.chunks, &answer.values);
                            log.push(Entry::Chunk { tick, id, step, prefix: prefix as u32, values });
                            self.chunks += 1;
                            self.raw.copy_from_slice(values);
                            self.raw_step = Some(step);
                            self.feedback.target = *self.path.decoder.target();
                            self.gate.policy_answered();
                            accepted.mismatch.map(|m| (Reason::PrefixMismatch, m.joint as u16, m.error))
                        }
                        Err(ActionFault::Decode(DecodeError::NotFinite { joint, .. })) => {
                            // The decoder counts in the bundle's order, faults in the robot's.
                            let place = self.path.decoder.joints().get(joint);
                            let joint = place.map_or(NO_JOINT, |&place| place as u16);
                            Some((Reason::PolicyNotFinite, joint, f64::NAN))
                        }
                        Err(ActionFault::Decode(DecodeError::WrongLength { got, .. })) => {
                            Some((Reason::PolicyWrongLength, NO_JOINT, got as f64))
                        }
                        Err(ActionFault::Refused(_)) => {
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
            if let Some((reason, joint, value)) = fault {
                self.report(reason, joint, value);
            }
            self.judge_delay(now.saturating_sub(step));
        }
    }

    /// An answer came `delay` steps after its question. While sequences are `horizon` long and asked for each s steps, the
    /// plan lasts only if delay ≤ s ≤ horizon − delay; three answers in a row that break this stop the robot.
    fn judge_delay(&mut self, delay: u64) {
        self.planner.delay(delay);
        let horizon = self.path.sequence.horizon() as u64;
        let Trigger::Every(every) = self.trigger else { return };
        let lasts = horizon == 1 || (delay <= every && every + delay <= horizon);
        self.too_short = if lasts { 0 } else { self.too_short + 1 };
        if self.too_short >= TOO_SHORT {
            let (value, limit) = (delay as f64, every.min(horizon.saturating_sub(every)) as f64);
            self.gate.report(Fault { value, limit, ..self.fault(Reason::HorizonTooShort, NO_JOINT) });
        }
    }

    /// What the joints should do: the plan, with the policy's authority growing from the pose at arming.
    pub(super) fn choose_target(&mut self) {
        if self.gate.phase() != Phase::Armed || self.gate.level() != Level::Run {
            self.target.dq = [0.0; MAX_JOINTS];
            return;
        }
        let mut target = self.path.sequence.target(self.since_armed());
        if target.flow == Flow::Exhausted {
            self.report(Reason::PolicyExhausted, NO_JOINT, 0.0);
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
        self.path.disturb(self.since_armed(), &strain, authority, &mut target);
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
            let _ = self.path.limiter.seed(&self.gate.sent().q, self.gate.sent_velocity());
        }
        let (q, dq) = (&mut self.command.q, &mut self.command.dq);
        let clamped = if self.gate.level() <= Level::Hold {
            self.path.limiter.step(&self.target.q, &self.target.dq, q, dq)
        } else {
            self.path.limiter.brake(q, dq);
            0
        };
        let mut command = self.command;
        self.stiffen(&mut command);
        self.command = command;
        clamped
    }

    /// The bundle's gains, capped by robot.toml; no feed-forward.
    pub(super) fn stiffen(&self, command: &mut Command) {
        for (i, gain) in self.gains.iter().enumerate() {
            (command.kp[i], command.kd[i], command.tau[i]) = (gain.kp, gain.kd, 0.0);
        }
    }

    /// Steps the monitors whose instant this is; one that trips reports to the gate.
    pub(super) fn monitor(&mut self, log: &mut Recorder) {
        if self.gate.phase() != Phase::Armed {
            return;
        }
        self.kinematics.update(&self.state.q, &self.state.base, &self.state.imu.quat);
        for (i, position) in self.frames.iter_mut().enumerate() {
            *position = self.kinematics.pose(i).0;
        }
        let inputs = Inputs {
            state: &self.state,
            sent: self.gate.sent(),
            frames: &self.frames,
            age_ns: self.gate.age_ns(),
            level: self.gate.level(),
        };
        self.table.fill(&inputs, &mut self.signals);
        let gate = &mut self.gate;
        self.monitors.step(self.state.tick, &self.signals, |verdict, change| {
            log.push(Entry::Verdict(verdict));
            match change {
                Change::Same => {}
                Change::Tripped(fault) => gate.report(fault),
                Change::Cleared => gate.monitor_cleared(verdict.monitor),
            }
        });
    }

    /// Sends the command. Nothing changes it after the gate.
    pub(super) fn write(&mut self, device: &mut dyn Device) {
        if !self.dry_run
            && let Err(fault) = device.write(&self.command)
        {
            self.write_fault = Some(fault);
        }
        self.feedback.executed = self.command.q;
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
            authority: self.gate.authority(),
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
    fn fault(&self, reason: Reason, joint: u16) -> Fault {
        Fault { tick: self.state.tick, reason, joint, value: 0.0, limit: 0.0, level: reason.level() }
    }

    fn report(&mut self, reason: Reason, joint: u16, value: f64) {
        self.gate.report(Fault { value, ..self.fault(reason, joint) });
    }
}
