//! The stages of a tick, in the order in which [`Controller::tick`] runs them.

use super::policy::PolicyError;
use super::tick::{Controller, Due};
use super::watch::Stopwatch;
use crate::action::{ActionFault, DecodeError, Flow};
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

    /// Whether the policy is asked on this tick: once in each policy step, while its answer can still be followed.
    pub(super) fn is_policy_tick(&self) -> bool {
        self.gate.phase() == Phase::Armed
            && self.gate.level() <= Level::Hold
            && self.since_armed().is_multiple_of(self.path.sequence.ticks_per_step())
    }

    /// Observation, inference, acceptance. Returns whether the network ran.
    pub(super) fn think(&mut self, watch: &mut Stopwatch<'_>, log: &mut Recorder) -> bool {
        let tick = self.state.tick;
        self.feedback.time = self.since_armed() as f64 * self.dt;
        let observed = self.observer.step(&self.state, &self.feedback, &mut self.obs);
        watch.lap(Stage::Observe);
        if let Err(bad) = observed {
            self.report(Reason::ObservationNotFinite, NO_JOINT, bad.index as f64);
            return false;
        }
        log.push(Entry::Obs { tick, values: &self.obs });
        let answer = self.policy.act(tick, &self.obs, &self.feedback.action[..self.actions], &mut self.raw);
        watch.lap(Stage::Infer);
        let since = self.since_armed();
        match answer {
            Ok(()) => match self.path.accept(&self.raw, &self.state, since) {
                Ok(_) => {
                    self.gate.policy_answered();
                    log.push(Entry::Chunk { tick, id: self.chunks, values: &self.raw });
                    self.chunks += 1;
                    let newest = self.raw.len() - self.actions;
                    self.feedback.action[..self.actions].copy_from_slice(&self.raw[newest..]);
                    self.feedback.target = *self.path.decoder.target();
                }
                Err(ActionFault::Decode(DecodeError::NotFinite { joint, .. })) => {
                    // The decoder counts in the bundle's order, faults in the robot's.
                    let joint = self.path.decoder.joints().get(joint).map_or(NO_JOINT, |&place| place as u16);
                    self.report(Reason::PolicyNotFinite, joint, f64::NAN);
                }
                Err(ActionFault::Decode(DecodeError::WrongLength { got, .. })) => {
                    self.report(Reason::PolicyWrongLength, NO_JOINT, got as f64);
                }
                Err(_) => self.report(Reason::PolicyLate, NO_JOINT, 0.0),
            },
            Err(PolicyError::NotFinite { what: "observation", index }) => {
                self.report(Reason::ObservationNotFinite, NO_JOINT, index as f64);
            }
            Err(PolicyError::NotFinite { index, .. }) => {
                self.report(Reason::PolicyNotFinite, NO_JOINT, index as f64);
            }
            Err(PolicyError::WrongLength { got, .. }) => {
                self.report(Reason::PolicyWrongLength, NO_JOINT, got as f64);
            }
            Err(PolicyError::Late) => self.report(Reason::PolicyLate, NO_JOINT, 0.0),
        }
        true
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
