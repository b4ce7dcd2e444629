//! One tick: what the robot is, what the policy wants, what the limits allow, what the motors are told.

use cadenza_policy::manifest::{ChunkMode, Manifest, Previous};

use super::RunError;
use super::planner::Planner;
use super::policy::Ask;
use super::request::Inbox;
use super::watch::Stopwatch;
use crate::action::{ActionPath, Flow, LimitError, Target};
use crate::config::{RunConfig, Trigger};
use crate::device::{Device, DeviceError, DeviceFault, DeviceInfo, Freshness};
use crate::kinematics::Kinematics;
use crate::log::entry::{Stage, TickEntry};
use crate::log::record::Recorder;
use crate::observe::{Feedback, Observer};
use crate::robot::{Gain, Overrun, Robot, Start, check_bundle, effective_gains, effective_limits};
use crate::safety::arming::ArmRefusal;
use crate::safety::gate::Gate;
use crate::safety::monitors::Monitors;
use crate::safety::signals::{SignalTable, Signals};
use crate::safety::{Fault, Phase};
use crate::state::{Command, Joints, MAX_JOINTS, State};
use crate::timing::clock::Clock;

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
    pub(super) planner: Planner,
    pub(super) observer: Observer,
    pub(super) path: ActionPath,
    pub(super) gate: Gate,
    pub(super) monitors: Monitors,
    pub(super) table: SignalTable,
    pub(super) signals: Signals,
    /// Frames for the monitors, which step between two observations as well.
    pub(super) kinematics: Kinematics,
    pub(super) frames: Vec<[f64; 3]>,
    pub(super) gains: Vec<Gain>,
    pub(super) state: State,
    pub(super) command: Command,
    pub(super) feedback: Feedback,
    pub(super) first_action: [f32; MAX_JOINTS],
    pub(super) obs: Vec<f32>,
    /// The newest accepted answer: rows × actions, graph units, and the policy step of its first future row.
    pub(super) raw: Vec<f32>,
    pub(super) raw_step: Option<u64>,
    /// Its rows before the future ones.
    pub(super) past: usize,
    /// Actions that are handed back to the policy.
    pub(super) committed: Vec<f32>,
    /// When the policy is asked.
    pub(super) trigger: Trigger,
    /// Whether it is asked between two beginnings as well, because it decodes step by step.
    pub(super) lazy: bool,
    /// Policy steps since the last beginning.
    pub(super) since_begun: u64,
    /// Answers in a row whose delay the sequences cannot cover.
    pub(super) too_short: u32,
    /// Numbers in one row of an action.
    pub(super) actions: usize,
    /// What the sequence asked for last: what Hold holds.
    pub(super) target: Target,
    /// Where the joints stood when the motors came on: the policy's authority grows from there.
    pub(super) anchor: Joints,
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
    /// Actions accepted.
    pub(super) chunks: u64,
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
        mut planner: Planner,
        config: &RunConfig,
    ) -> Result<Self, RunError> {
        check_bundle(robot, manifest)?;
        refuse_unbuilt(manifest, robot)?;
        let trigger = trigger(manifest, config)?;
        let (limits, _) = effective_limits(robot, manifest)?;
        let (gains, _) = effective_gains(robot, manifest)?;
        let mut observer = Observer::new(manifest, robot)?;
        observer.bind_objects(&device.objects)?;
        let mut path = ActionPath::new(manifest, robot, config)?;
        let (actions, answer) = (manifest.action.joints.len(), path.decoder.input_len());
        planner.allocate(observer.size(), actions, answer);
        if planner.is_late() {
            path.sequence.wait_for_the_first((FIRST_ANSWER * robot.control_hz).ceil() as u64);
        }
        let kinematics = Kinematics::new(&manifest.frames, robot)?;
        let table = SignalTable::new(robot, &manifest.commands, kinematics.names(), &device.objects)?;
        let n = robot.joints.len();
        let mut state = State::new(n);
        for (user, slot) in state.user.iter_mut().zip(&manifest.commands) {
            *user = slot.default;
        }
        let zero = [0.0; MAX_JOINTS];
        let feedback = Feedback::reset(manifest, &zero);
        Ok(Self {
            planner,
            gate: Gate::new(robot, &limits, robot.control_dt()),
            monitors: Monitors::new(
                specification,
                &manifest.monitors,
                &robot.monitors,
                &table,
                robot.control_dt(),
            )?,
            signals: table.signals(),
            table,
            frames: vec![[0.0; 3]; kinematics.len()],
            kinematics,
            gains,
            state,
            command: Command::off(n),
            first_action: feedback.action,
            feedback,
            obs: vec![0.0; observer.size()],
            raw: vec![0.0; answer],
            raw_step: None,
            past: answer / actions - path.decoder.rows(),
            committed: Vec::with_capacity(answer),
            trigger,
            lazy: manifest.chunk.mode == ChunkMode::Lazy,
            since_begun: 0,
            too_short: 0,
            actions,
            observer,
            path,
            target: Target { flow: Flow::Hold, q: zero, dq: zero },
            anchor: zero,
            fresh: Freshness::default(),
            write_fault: None,
            device_fault: None,
            misses: 0,
            most_misses: match robot.safety.overrun {
                Overrun::Skip => None,
                Overrun::Fault => Some(robot.safety.max_consecutive_misses.max(1)),
            },
            armed_at: 0,
            chunks: 0,
            dt: robot.control_dt(),
            dry_run: config.dry_run,
            record_every: u64::from(config.record_every.max(1)),
            stopping: false,
            refusal: None,
            faults: Vec::with_capacity(FAULTS),
        })
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

    /// Names of the monitors, in the order of their indices.
    pub fn monitor_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.monitors.names()
    }

    /// The first faults of the run, in order.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Why the motors did not come on at the last request.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Seconds since the motors came on; 0 before.
    pub fn armed_seconds(&self) -> f64 {
        if self.gate.phase() == Phase::Armed { self.since_armed() as f64 * self.dt } else { 0.0 }
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
        self.obs.fill(0.0);
        let previous = &self.first_action[..self.actions];
        let ask = Ask { tick: 0, begin: true, obs: &self.obs, previous, committed: &[] };
        self.planner.warm_up(times, &ask);
    }
}

/// How long the first answer of a policy that runs elsewhere may take, s.
const FIRST_ANSWER: f64 = 1.0;

/// When the policy is asked: by the run's rule, or each `chunk.execute` steps.
pub(super) fn trigger(manifest: &Manifest, config: &RunConfig) -> Result<Trigger, RunError> {
    let chunk = &manifest.chunk;
    let trigger = config.trigger.unwrap_or(Trigger::Every(chunk.execute as u64));
    let refuse = |expected| Err(RunError::Config { key: "trigger", value: trigger.to_string(), expected });
    match (chunk.mode, trigger) {
        (ChunkMode::None, Trigger::Every(1)) => Ok(trigger),
        (ChunkMode::None, _) => refuse("every:1 for a bundle of single actions (chunk.execute = 1)"),
        (_, Trigger::Every(0)) => refuse("at least one step"),
        (ChunkMode::Open, Trigger::Every(n)) if n > chunk.horizon as u64 => {
            refuse("at most chunk.horizon steps: the sequence would run out")
        }
        (ChunkMode::Open, Trigger::Remaining(n)) if n >= chunk.horizon as u64 => {
            refuse("fewer steps than chunk.horizon")
        }
        (ChunkMode::Lazy, Trigger::Remaining(_)) => {
            refuse("every:STEPS for a sequence that is decoded step by step")
        }
        _ => Ok(trigger),
    }
}

/// Refuses what the formats know and this loop does not do yet: to ignore it would move the robot in another way than
/// the bundle or robot.toml says.
fn refuse_unbuilt(manifest: &Manifest, robot: &Robot) -> Result<(), RunError> {
    let refuse = |key, value: String, expected| Err(RunError::Config { key, value, expected });
    if robot.safety.start == Start::Home {
        return refuse("safety.start", "home".into(), "measured: a move home is not built yet");
    }
    if manifest.action.previous == Previous::Applied {
        return refuse("action.previous", "applied".into(), "raw: the applied action is not fed back yet");
    }
    Ok(())
}
