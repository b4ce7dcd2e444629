//! What a bundle brings to the loop: its policy, what that sees, how its actions become motion, and what watches it.
//!
//! Another bundle takes its place as a whole (see [`switch`](super::switch)); gate, device, operator and log stay.

use cadenza_policy::manifest::{ChunkMode, CommandSlot, Manifest, Noise, Previous};

use super::RunError;
use super::planner::Planner;
use super::policy::Ask;
use crate::action::ActionPath;
use crate::config::{RunConfig, Trigger};
use crate::kinematics::Kinematics;
use crate::observe::{Feedback, Observer};
use crate::robot::{Gain, Limits, Robot, Start, check_bundle, effective_gains, effective_limits};
use crate::safety::monitors::Monitors;
use crate::safety::signals::{SignalTable, Signals};
use crate::state::{Joints, MAX_JOINTS};

/// How long the first answer of a policy that runs elsewhere may take, s.
const FIRST_ANSWER: f64 = 1.0;

/// A bundle on a robot. Allocates nothing after [`Skill::new`].
pub(super) struct Skill {
    pub(super) planner: Planner,
    pub(super) observer: Observer,
    pub(super) path: ActionPath,
    pub(super) monitors: Monitors,
    pub(super) table: SignalTable,
    pub(super) signals: Signals,
    /// Frames for the monitors, which step between two observations as well.
    pub(super) kinematics: Kinematics,
    pub(super) frames: Vec<[f64; 3]>,
    pub(super) gains: Vec<Gain>,
    /// The tighter of robot.toml's and the bundle's.
    pub(super) limits: Vec<Limits>,
    /// Operator commands, in the order of their slots.
    pub(super) commands: Vec<CommandSlot>,
    pub(super) feedback: Feedback,
    pub(super) first_action: [f32; MAX_JOINTS],
    /// Whether the network is told what the robot was sent instead of what it asked for, and what that was a step before.
    pub(super) applied: bool,
    pub(super) sent_before: Joints,
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
}

impl Skill {
    /// A bundle on a robot whose device reports `objects`.
    ///
    /// # Errors
    /// What does not fit: joints, rates, limits, terms, actions, monitors, objects that the device does not report.
    pub(super) fn new(
        manifest: &Manifest,
        specification: Option<&str>,
        robot: &Robot,
        objects: &[String],
        mut planner: Planner,
        config: &RunConfig,
    ) -> Result<Self, RunError> {
        check_bundle(robot, manifest)?;
        let trigger = trigger(manifest, config)?;
        let (limits, _) = effective_limits(robot, manifest)?;
        reachable(robot, &limits)?;
        let (gains, _) = effective_gains(robot, manifest)?;
        let mut observer = Observer::new(manifest, robot)?;
        observer.bind_objects(objects)?;
        // Noise before the squash is the policy's own; see `explore`.
        let own = matches!(manifest.noise, Some(Noise::ClippedGaussianPreTanh { .. }));
        let noise = if own { 0.0 } else { config.noise };
        let mut path = ActionPath::new(manifest, robot, &RunConfig { noise, ..config.clone() })?;
        let (actions, answer) = (manifest.action.joints.len(), path.decoder.input_len());
        planner.allocate(observer.size(), actions, answer);
        if planner.is_late() {
            path.sequence.wait_for_the_first((FIRST_ANSWER * robot.control_hz).ceil() as u64);
        }
        let kinematics = Kinematics::new(&manifest.frames, robot)?;
        let table = SignalTable::new(robot, &manifest.commands, kinematics.names(), objects)?;
        let zero = [0.0; MAX_JOINTS];
        let feedback = Feedback::reset(manifest, &zero);
        Ok(Self {
            planner,
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
            limits,
            commands: manifest.commands.clone(),
            first_action: feedback.action,
            feedback,
            applied: manifest.action.previous == Previous::Applied,
            sent_before: zero,
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
        })
    }

    /// Forgets everything of the episode before and holds `q`; the limiter goes on as it was.
    pub(super) fn begin(&mut self, epoch: u32, q: &Joints) {
        self.path.restart(epoch, q);
        self.planner.reset();
        (self.raw_step, self.since_begun, self.too_short) = (None, 0, 0);
        self.observer.reset();
        self.monitors.reset();
        self.feedback.action = self.first_action;
        self.feedback.target = *q;
        self.feedback.executed = *q;
        self.sent_before = *q;
    }

    /// Runs the policy `times` on zeros, so that no page and no branch is cold, and forgets it.
    pub(super) fn warm_up(&mut self, times: usize) {
        self.obs.fill(0.0);
        let previous = &self.first_action[..self.actions];
        let ask = Ask { tick: 0, begin: true, obs: &self.obs, previous, committed: &[] };
        self.planner.warm_up(times, &ask);
    }

    /// The previous action of the network at policy step `step`: the row of the newest answer that was played in the step
    /// before, or what the robot was sent meanwhile.
    pub(super) fn feed_back(&mut self, step: u64) {
        if step == 0 {
            return;
        }
        if self.applied {
            let (sent, before) = (&self.feedback.executed, &self.sent_before);
            self.path.decoder.encode(sent, before, &mut self.feedback.action[..self.actions]);
            self.sent_before = *sent;
            return;
        }
        let Some(row) = self.raw_step.and_then(|first| (step - 1).checked_sub(first)) else { return };
        let from = (self.past + row as usize) * self.actions;
        if let Some(row) = self.raw.get(from..from + self.actions) {
            self.feedback.action[..self.actions].copy_from_slice(row);
        }
    }

    /// Collects the actions that will be played before an answer to a question of `step` can come.
    pub(super) fn commit(&mut self, step: u64) {
        self.committed.clear();
        let Some(first) = self.raw_step.filter(|_| self.planner.is_late()) else { return };
        let rows = self.raw.len() / self.actions;
        for step in step..step.saturating_add(self.planner.forecast()).min(step + rows as u64) {
            let row = (self.past + step.saturating_sub(first) as usize).min(rows - 1);
            self.committed.extend_from_slice(&self.raw[row * self.actions..(row + 1) * self.actions]);
        }
    }
}

/// Refuses poses of robot.toml that the bundle's tighter range keeps the robot from.
fn reachable(robot: &Robot, limits: &[Limits]) -> Result<(), RunError> {
    for (joint, l) in robot.joints.iter().zip(limits) {
        let home = (robot.safety.start == Start::Home).then_some(("safety.start = home", joint.home));
        let pose = robot.safety.softstop_pose.get(&joint.name).map(|q| ("safety.softstop_pose", *q));
        for (what, q) in [home, pose].into_iter().flatten() {
            let [lo, hi] = l.position;
            if !(lo..=hi).contains(&q) {
                return Err(RunError::Pose { what, joint: joint.name.clone(), q, lo, hi });
            }
        }
    }
    Ok(())
}

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
