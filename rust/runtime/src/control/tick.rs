//! One tick: what the robot is, what the policy wants, what the limits allow, what the motors are told.

use cadenza_policy::manifest::Manifest;

use super::RunError;
use super::estop::Button;
use super::planner::Planner;
use super::request::Inbox;
use super::skill::Skill;
use super::switch::Succession;
use super::watch::Stopwatch;
use crate::action::{Flow, LimitError, Target};
use crate::config::RunConfig;
use crate::device::{Device, DeviceError, DeviceFault, DeviceInfo, Freshness};
use crate::log::entry::{Stage, TickEntry};
use crate::log::record::Recorder;
use crate::robot::{Overrun, Robot, Start};
use crate::safety::arming::ArmRefusal;
use crate::safety::gate::Gate;
use crate::safety::{Fault, Monitors, Phase};
use crate::state::{Command, Joints, MAX_JOINTS, State};
use crate::timing::clock::Clock;
use crate::timing::summary::AnswerSummary;

/// Faults kept for the report.
const FAULTS: usize = 256;

/// When a tick happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// When it was due, ns of the loop's clock.
    pub deadline_ns: i64,
    /// Periods skipped before it.
    pub skipped: u32,
}

/// Why the motors did not come on.
#[derive(Debug)]
pub enum Refusal {
    /// The gate's checks.
    Check(ArmRefusal),
    /// The limiter cannot start where the robot stands.
    Limits(LimitError),
    /// The device.
    Device(DeviceError),
}

impl Refusal {
    /// In words, with the joint's name.
    pub fn describe(&self, joints: &[String]) -> String {
        let (text, joint) = match self {
            Self::Check(refusal) => (refusal.to_string(), refusal.joint()),
            Self::Limits(error) => (error.to_string(), None),
            Self::Device(error) => (error.to_string(), None),
        };
        match joint.and_then(|j| joints.get(usize::from(j))) {
            Some(name) => format!("the motors stay off: {name}: {text}"),
            None => format!("the motors stay off: {text}"),
        }
    }
}

/// Everything between a device's state and its command. Allocates nothing after [`Controller::new`].
pub struct Controller {
    /// The bundle that has the robot.
    pub(super) skill: Box<Skill>,
    /// Bundles that may take its place.
    pub(super) succession: Succession,
    pub(super) gate: Gate,
    pub(super) state: State,
    pub(super) command: Command,
    /// What the sequence asked for last: what Hold holds.
    pub(super) target: Target,
    /// Where the joints stood when the policy began: its authority grows from there.
    pub(super) anchor: Joints,
    /// Where the robot is moved before the policy begins, if it is.
    pub(super) home: Option<Joints>,
    pub(super) homing: bool,
    /// Whether a soft stop has come to rest.
    pub(super) braked: bool,
    pub(super) estop: Option<Button>,
    pub(super) fresh: Freshness,
    /// What the last write reported; the next input judges it.
    pub(super) write_fault: Option<DeviceFault>,
    /// What the device reported of this tick, or of the write before it.
    pub(super) device_fault: Option<DeviceFault>,
    /// Ticks in a row before which a deadline was missed, and how many of them are a fault (if any number is).
    pub(super) misses: u32,
    pub(super) most_misses: Option<u32>,
    /// Tick at which the motors came on.
    pub(super) armed_at: u64,
    /// Tick at which the first policy began since then, and the one of now.
    pub(super) begun_at: u64,
    pub(super) origin: u64,
    /// What became of the policy's answers.
    pub(super) answers: AnswerSummary,
    /// Tick at which the operator asked for motors on.
    pub(super) asked_at: u64,
    pub(super) dt: f64,
    pub(super) dry_run: bool,
    pub(super) record_every: u64,
    pub(super) stopping: bool,
    pub(super) refusal: Option<Refusal>,
    pub(super) faults: Vec<Fault>,
}

impl Controller {
    /// One tick against `device`; its command has left when this returns.
    pub fn tick(
        &mut self,
        due: Due,
        device: &mut dyn Device,
        clock: &dyn Clock,
        inbox: &mut Inbox,
        log: &mut Recorder,
    ) -> TickEntry {
        let mut watch = Stopwatch::start(clock, due.deadline_ns);
        self.judge_deadline(due);
        self.read(device, clock);
        log.stamp(self.state.t_read_ns, self.state.t_sensor_ns);
        watch.lap(Stage::Read);
        inbox.drain(self.state.tick, |request| self.obey(request, device, log));
        self.gate.input(&self.state, &self.fresh, self.device_fault, self.state.t_read_ns);
        self.arm_when_ready(device);
        self.begin_when_home();
        self.answer_call(log);
        self.switch_when_asked();
        watch.lap(Stage::Gate);
        let inferred = self.is_policy_tick() && self.think(&mut watch, log);
        self.listen(log);
        self.choose_target();
        watch.lap(Stage::Sequence);
        let clamped = self.limit();
        watch.lap(Stage::Limit);
        self.monitor(log);
        watch.lap(Stage::Monitor);
        self.gate.output(&self.state, &mut self.command);
        watch.lap(Stage::Gate);
        self.write(device);
        watch.lap(Stage::Write);
        let entry = self.record(due, inferred, clamped, &mut watch, log);
        self.state.tick += 1;
        entry
    }

    /// The loop of a bundle on a robot, disarmed. Nothing is allocated after this.
    ///
    /// # Errors
    /// What does not fit: joints, rates, limits, terms, actions, monitors, objects that the device does not report.
    pub fn new(
        manifest: &Manifest,
        specification: Option<&str>,
        robot: &Robot,
        device: &DeviceInfo,
        planner: Planner,
        config: &RunConfig,
    ) -> Result<Self, RunError> {
        let skill = Skill::new(manifest, specification, robot, &device.objects, planner, config)?;
        Ok(Self::around(Box::new(skill), robot, config))
    }

    /// The loop around what a bundle brings.
    pub(super) fn around(skill: Box<Skill>, robot: &Robot, config: &RunConfig) -> Self {
        let n = robot.joints.len();
        let zero = [0.0; MAX_JOINTS];
        let mut state = State::new(n);
        for (user, slot) in state.user.iter_mut().zip(&skill.commands) {
            *user = slot.default;
        }
        let mut home = zero;
        for (home, joint) in home.iter_mut().zip(&robot.joints) {
            *home = joint.home;
        }
        let mut controller = Self {
            gate: Gate::new(robot, &skill.limits, robot.control_dt()),
            succession: Succession::new(&skill, config.fallback.is_some()),
            skill,
            state,
            command: Command::off(n),
            target: Target { flow: Flow::Hold, q: zero, dq: zero },
            anchor: zero,
            home: (robot.safety.start == Start::Home).then_some(home),
            homing: false,
            braked: false,
            estop: None,
            fresh: Freshness::default(),
            write_fault: None,
            device_fault: None,
            misses: 0,
            most_misses: match robot.safety.overrun {
                Overrun::Skip => None,
                Overrun::Fault => Some(robot.safety.max_consecutive_misses.max(1)),
            },
            armed_at: 0,
            begun_at: 0,
            origin: 0,
            answers: AnswerSummary::default(),
            asked_at: 0,
            dt: robot.control_dt(),
            dry_run: config.dry_run,
            record_every: u64::from(config.record_every.max(1)),
            stopping: false,
            refusal: None,
            faults: Vec::with_capacity(FAULTS),
        };
        controller.tell_slowed();
        controller
    }

    /// The newest state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The command that left last.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// The gate: level, phase, faults.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The monitors of the bundle that has the robot.
    pub fn monitors(&self) -> &Monitors {
        &self.skill.monitors
    }

    /// The first faults of the run, in order.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Why the motors did not come on at the last request.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Seconds since the policy began, after the move home if there is one; 0 before.
    pub fn armed_seconds(&self) -> f64 {
        let begun = self.gate.phase() == Phase::Armed && !self.homing;
        if begun { (self.state.tick - self.begun_at) as f64 * self.dt } else { 0.0 }
    }

    /// Part of the policy in the motion, 0…1.
    pub fn authority(&self) -> f64 {
        if self.homing { 0.0 } else { self.gate.authority() }
    }

    /// Presses of `button` are emergency stops from now on.
    pub fn obey_button(&mut self, button: Button) {
        self.estop = Some(button);
    }

    /// Whether the device has nothing more to give.
    pub fn finished(&self) -> bool {
        self.fresh.finished
    }

    /// Whether the operator has asked for a stop.
    pub fn stopping(&self) -> bool {
        self.stopping
    }

    /// Runs the policy `times` on zeros, so that no page and no branch is cold, and forgets it.
    pub fn warm_up(&mut self, times: usize) {
        self.skill.warm_up(times);
    }
}
