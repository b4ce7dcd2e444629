//! What a bundle brings to the loop: its policy, what that sees, how its actions become motion, and what watches it.
//!
//! Another bundle takes its place as a whole (see [`switch`](super::switch)); gate, device, operator and log stay.

use cadenza_policy::manifest::{CommandSlot, Manifest, Noise, Previous};

use super::RunError;
use super::asking::Asking;
use super::planner::Planner;
use super::policy::Ask;
use crate::action::ActionPath;
use crate::config::{Late, RunConfig};
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
    pub(super) asking: Asking,
    /// Whether it is the run's fallback, and whether the fallback takes over when answers are too late.
    pub(super) fallback: bool,
    pub(super) late_falls_back: bool,
    /// Answers in a row whose delay the sequences cannot cover.
    pub(super) too_short: u32,
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
        let past = answer / actions - path.decoder.rows();
        let asking = Asking::new(manifest, config, past, answer)?;
        planner.allocate(observer.size(), actions, answer);
        if planner.is_late() {
            path.sequence.wait_for_the_first((FIRST_ANSWER * robot.control_hz).ceil() as u64);
        }
        let kinematics = Kinematics::new(&manifest.frames, robot)?;
        let table = SignalTable::new(robot, &manifest.commands, kinematics.names(), objects)?;
        let (specs, own) = (&manifest.monitors, &robot.monitors);
        let mut monitors = Monitors::new(specification, specs, own, &table, robot.control_dt())?;
        // On the virtual clock time stands still while the monitors compute.
        if let Some(budget) = config.monitor_budget_us.filter(|_| !config.virtual_clock) {
            monitors.keep_within(budget)?;
        }
        let zero = [0.0; MAX_JOINTS];
        let feedback = Feedback::reset(manifest, &zero);
        Ok(Self {
            planner,
            monitors,
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
            asking,
            fallback: false,
            late_falls_back: config.late == Late::Fallback,
            too_short: 0,
            observer,
            path,
        })
    }

    /// Forgets everything of the episode before and holds `q`; the limiter goes on as it was.
    pub(super) fn begin(&mut self, epoch: u32, q: &Joints) {
        self.path.restart(epoch, q);
        self.planner.reset();
        self.asking.reset();
        self.too_short = 0;
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
        let previous = &self.first_action[..self.asking.actions()];
        let ask = Ask { tick: 0, begin: true, obs: &self.obs, previous, committed: &[] };
        self.planner.warm_up(times, &ask);
    }

    /// The previous action of the network at policy step `step`: the row of the newest answer that was played in the step
    /// before, or what the robot was sent meanwhile.
    pub(super) fn feed_back(&mut self, step: u64) {
        if step == 0 {
            return;
        }
        let actions = self.asking.actions();
        if self.applied {
            let (sent, before) = (&self.feedback.executed, &self.sent_before);
            self.path.decoder.encode(sent, before, &mut self.feedback.action[..actions]);
            self.sent_before = *sent;
        } else if let Some(row) = self.asking.played_before(step) {
            self.feedback.action[..actions].copy_from_slice(row);
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
