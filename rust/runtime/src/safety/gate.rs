//! The one gate before the motors. It owns the [`Level`]: every other stage only reports faults to it.
//!
//! Once a tick, in this order: [`Gate::input`] judges what was measured, any stage may [`Gate::report`], and
//! [`Gate::output`] has the last word on the command. The gate knows nothing of the limiter: it recomputes everything
//! from what it let through the tick before, so a bug upstream is found here and not at the motor. Whatever comes in,
//! what goes out is finite and inside the limits of the robot.
//!
//! In `Hold` and `SoftStop` the loop lets the limiter hold or brake and the gate checks that like any other command.
//! When [`Gate::altered`] is true, the limiter must be seeded again from [`Gate::sent`] and [`Gate::sent_velocity`].
//!
//! Nothing here allocates after [`Gate::new`], locks or panics.

use super::check::{self, Last, Mismatch};
use super::handover;
use super::ladder::{Event, Ladder};
use super::ring::FaultRing;
use super::{Fault, Level, Phase, Reason, reason};
use crate::device::{DeviceFault, Freshness};
use crate::robot::{Gains, Limits, Robot, SafetyConfig, TorqueMode};
use crate::state::{Command, Imu, Joints, MAX_JOINTS, State};

/// Fresh finite states in a row before the motors may be switched on.
pub const ARM_STATES: u32 = 10;
/// How far outside its range a joint may stand when it is armed, rad: end stops give a little.
pub const ARM_SLACK: f64 = 0.01;
/// How far outside its range a joint may be measured in motion, rad: a joint sags past a target at its limit.
pub const POSITION_SLACK: f64 = 0.05;
/// Part of the velocity limit beyond which a measured velocity is a fault, and for how many ticks in a row.
pub const OVERSPEED: (f64, u8) = (1.2, 3);
/// Ticks in a row without finite measurements after which the motors are damped.
pub const NOT_FINITE_TICKS: u32 = 3;
/// Distance from the pose of a soft stop within which it is reached, rad.
const POSE_WINDOW: f64 = 1e-3;
/// Time of scaled gains after which the loop stops, s.
pub const SATURATED_AFTER: f64 = 0.2;

/// Holds that last until the policy answers again.
const POLICY: [Reason; 4] =
    [Reason::ObservationNotFinite, Reason::PolicyNotFinite, Reason::PolicyLate, Reason::PolicyWrongLength];

const NOBODY: u16 = u16::MAX;

/// The safety gate; see the [module](self).
#[derive(Clone, Debug)]
pub struct Gate {
    pub(super) safety: SafetyConfig,
    pub(super) limits: Vec<Limits>,
    gains: Vec<Gains>,
    dt: f64,
    pub(super) ladder: Ladder,
    tick: u64,
    pub(super) first: Option<Fault>,
    ring: FaultRing,

    // What was measured.
    q: Joints,
    dq: Joints,
    age_ns: i64,
    sequence: Option<u64>,
    changed_ns: i64,
    pub(super) good_states: u32,
    bad_states: u32,
    overspeed: [u8; MAX_JOINTS],
    /// Worst condition at or above SoftStop of the newest input, armed or not.
    pub(super) standing: Option<Fault>,

    // Holds: conditions of this input, other reports of this tick, the policy's, the monitors'.
    held_now: bool,
    pub(super) held_policy: u8,
    pub(super) held_monitors: u64,
    pub(super) policy_ticks: u32,

    // What was sent.
    pub(super) last: Last,
    pub(super) sent: Command,
    altered: bool,
    mismatch: Option<Mismatch>,
    armed_ticks: u64,
    pub(super) authority_ticks: u64,
    saturated_ticks: [u32; MAX_JOINTS],
    /// Stiff ticks since the robot must hold or brake, those of them at rest since it last moved, and how many it has.
    stopping_ticks: u64,
    resting_ticks: u64,
    allowed_ticks: u64,
    /// Where a soft stop ends; NaN for a joint that stays where it came to rest.
    pub(super) pose: Option<Joints>,
}

impl Gate {
    /// A gate for `robot` with the `limits` that hold in this run (the tighter of robot.toml and bundle), one for each
    /// joint, at a control period of `dt` seconds. Starts disarmed.
    ///
    /// # Panics
    /// When there is not one limit for each joint, or more joints than [`MAX_JOINTS`].
    pub fn new(robot: &Robot, limits: &[Limits], dt: f64) -> Self {
        let n = robot.joints.len();
        assert_eq!(limits.len(), n, "one limit for each joint");
        Self {
            safety: robot.safety.clone(),
            limits: limits.to_vec(),
            gains: robot.joints.iter().map(|j| j.gains).collect(),
            dt,
            ladder: Ladder::new(),
            tick: 0,
            first: None,
            ring: FaultRing::new(),
            q: [0.0; MAX_JOINTS],
            dq: [0.0; MAX_JOINTS],
            age_ns: i64::MAX,
            sequence: None,
            changed_ns: 0,
            good_states: 0,
            bad_states: 0,
            overspeed: [0; MAX_JOINTS],
            standing: None,
            held_now: false,
            held_policy: 0,
            held_monitors: 0,
            policy_ticks: 0,
            last: Last::new(n),
            sent: Command::off(n),
            altered: false,
            mismatch: None,
            armed_ticks: 0,
            authority_ticks: 0,
            pose: handover::stop_pose(robot),
            saturated_ticks: [0; MAX_JOINTS],
            stopping_ticks: 0,
            resting_ticks: 0,
            allowed_ticks: 0,
        }
    }

    /// Level at which the next command must be made.
    pub fn level(&self) -> Level {
        self.ladder.level()
    }

    /// Phase.
    pub fn phase(&self) -> Phase {
        self.ladder.phase()
    }

    /// The fault that latched the ladder; later ones are only counted.
    pub fn first_fault(&self) -> Option<Fault> {
        self.first
    }

    /// How often `reason` was seen, one for each tick and joint or report.
    pub fn count(&self, reason: Reason) -> u64 {
        self.ring.count(reason)
    }

    /// Every reason that was seen, with its count.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.iter().map(|&r| (r, self.count(r))).filter(|(_, count)| *count > 0)
    }

    /// Hands out the faults since the last call, oldest first. A condition that lasts appears once, when it begins.
    pub fn drain_faults(&mut self, f: impl FnMut(&Fault)) {
        self.ring.drain(f);
    }

    /// Faults that were dropped because nobody drained them.
    pub fn dropped_faults(&self) -> u64 {
        self.ring.dropped()
    }

    /// Largest allowed distance of a sent from a measured position, rad.
    pub fn track_max(&self) -> f64 {
        self.safety.track_max
    }

    /// Age of the oldest joint at the newest input, ns.
    pub fn age_ns(&self) -> i64 {
        self.age_ns
    }

    /// The last command that left the gate.
    pub fn sent(&self) -> &Command {
        &self.sent
    }

    /// Velocity of the positions that were sent: what the limiter continues from, rad/s.
    pub fn sent_velocity(&self) -> &Joints {
        &self.last.velocity
    }

    /// Whether the last command left with other positions than it came with, so that the limiter must be seeded again.
    pub fn altered(&self) -> bool {
        self.altered
    }

    /// What was wrong with the last command that failed a check.
    pub fn mismatch(&self) -> Option<Mismatch> {
        self.mismatch
    }

    /// Part of the policy in the motion, 0 when armed, growing smoothly to 1 over `authority_ramp`.
    pub fn authority(&self) -> f64 {
        self.ramp(self.safety.authority_ramp, self.authority_ticks)
    }

    /// Judges what was measured at this tick. `fresh` is the device's word on the newest state (the previous word
    /// again when the read failed), `device_fault` what the read or the last write reported, `now_ns` the loop's clock.
    pub fn input(
        &mut self,
        state: &State,
        fresh: &Freshness,
        device_fault: Option<DeviceFault>,
        now_ns: i64,
    ) {
        self.tick = state.tick;
        self.standing = None;
        self.held_now = false;
        let new = self.sequence != Some(fresh.sequence);
        let on_time = self.judge_age(fresh, now_ns);
        let finite = self.judge_finite(state);
        if !on_time || !finite || device_fault.is_some() {
            self.good_states = 0;
        } else if new {
            self.good_states = self.good_states.saturating_add(1);
        }
        if state.estop {
            self.see(Reason::Estop, NOBODY, 1.0, 0.0, self.safety.estop_level.max(Level::SoftStop));
        }
        if let Some(fault) = device_fault {
            let (reason, joint, value, limit) = reason::device_fault(fault);
            self.see(reason, joint, value, limit, reason.level());
        }
        self.judge_posture(state);
        self.judge_joints(state);
        self.judge_policy();
        self.settle();
    }

    /// Age of the oldest joint, and of the newest measurement in case the device's stamps cannot be trusted.
    fn judge_age(&mut self, fresh: &Freshness, now_ns: i64) -> bool {
        if self.sequence.replace(fresh.sequence) != Some(fresh.sequence) {
            self.changed_ns = now_ns;
        }
        self.age_ns = now_ns.saturating_sub(fresh.stamp_ns.min(self.changed_ns));
        let silent = fresh.stale_joints.trailing_zeros() as usize;
        let joint = if silent < self.limits.len() { silent as u16 } else { NOBODY };
        let SafetyConfig { stale_after, lost_after, .. } = self.safety;
        let age = self.age_ns as f64 * 1e-9;
        // Whole nanoseconds, so that an age of exactly the limit is still allowed.
        if self.age_ns > (lost_after * 1e9).round() as i64 {
            self.see(Reason::StateLost, joint, age, lost_after, Level::Damp);
        } else if self.age_ns > (stale_after * 1e9).round() as i64 {
            self.see(Reason::StateStale, joint, age, stale_after, Level::Hold);
        } else {
            return true;
        }
        false
    }

    /// Keeps the finite part of the measurement and judges the rest.
    fn judge_finite(&mut self, state: &State) -> bool {
        let n = self.limits.len();
        let bad = first_not_finite(state, n).or_else(|| {
            // The tilt cannot be judged without an IMU.
            (self.safety.tilt_max.is_some() && !state.imu.valid).then_some((NOBODY, f64::NAN))
        });
        for i in 0..n {
            if state.q[i].is_finite() && state.dq[i].is_finite() {
                (self.q[i], self.dq[i]) = (state.q[i], state.dq[i]);
            }
        }
        let Some((joint, value)) = bad else {
            self.bad_states = 0;
            return true;
        };
        self.bad_states = self.bad_states.saturating_add(1);
        if self.bad_states >= NOT_FINITE_TICKS {
            self.see(Reason::StateNotFiniteRepeated, joint, value, 0.0, Level::Damp);
        } else {
            self.see(Reason::StateNotFinite, joint, value, 0.0, Level::Hold);
        }
        false
    }

    fn judge_posture(&mut self, state: &State) {
        if let (Some(tilt), Some(max)) = (tilt(&state.imu), self.safety.tilt_max)
            && tilt > max
        {
            self.see(Reason::Tilt, NOBODY, tilt, max, Level::Damp);
        }
    }

    fn judge_joints(&mut self, state: &State) {
        let stiff = self.phase() == Phase::Armed && self.level() <= Level::SoftStop;
        for i in 0..self.limits.len() {
            let (l, joint) = (self.limits[i], i as u16);
            if let Some(max) = l.temperature
                && f64::from(state.temp[i]) > max
            {
                self.see(Reason::Temperature, joint, f64::from(state.temp[i]), max, Level::SoftStop);
            }
            let (q, [lo, hi]) = (state.q[i], l.position);
            if q < lo - POSITION_SLACK || q > hi + POSITION_SLACK {
                let limit = if q < lo { lo } else { hi };
                self.see(Reason::PositionMeasured, joint, q, limit, Level::SoftStop);
            }
            let fastest = OVERSPEED.0 * l.velocity;
            self.overspeed[i] =
                if state.dq[i].abs() > fastest { self.overspeed[i].saturating_add(1) } else { 0 };
            if self.overspeed[i] >= OVERSPEED.1 {
                self.see(Reason::VelocityMeasured, joint, state.dq[i], fastest, Level::Damp);
            }
            let error = self.sent.q[i] - q;
            if stiff && error.abs() > self.safety.track_max {
                self.see(Reason::Tracking, joint, error, self.safety.track_max, Level::SoftStop);
            }
        }
    }

    /// A policy that keeps the robot holding for longer than `hold_ticks` is a fault.
    fn judge_policy(&mut self) {
        self.policy_ticks = if self.held_policy == 0 { 0 } else { self.policy_ticks.saturating_add(1) };
        if self.policy_ticks > self.safety.hold_ticks && self.level() < Level::SoftStop {
            let reason = POLICY[self.held_policy.trailing_zeros() as usize];
            let (value, limit) = (f64::from(self.policy_ticks), f64::from(self.safety.hold_ticks));
            self.see(reason, NOBODY, value, limit, Level::SoftStop);
        }
    }

    /// Why the policy keeps the robot holding, at the last tick before that is a fault.
    pub fn end_of_patience(&self) -> Option<Reason> {
        let over = self.held_policy != 0 && self.policy_ticks >= self.safety.hold_ticks;
        (over && self.level() < Level::SoftStop).then(|| POLICY[self.held_policy.trailing_zeros() as usize])
    }

    /// A condition of this input: kept for arming and reset, a fault when the motors are on.
    fn see(&mut self, reason: Reason, joint: u16, value: f64, limit: f64, level: Level) {
        let fault = Fault { tick: self.tick, reason, joint, value, limit, level };
        if level >= Level::SoftStop && self.standing.is_none_or(|s| s.level < level) {
            self.standing = Some(fault);
        }
        if self.phase() == Phase::Armed {
            self.held_now |= level == Level::Hold;
            self.ring.count_and_push_first(fault);
            self.escalate(fault);
        }
    }

    /// Takes a fault from any stage. A fault of level Run is recorded and nothing more. One of level Hold holds for
    /// this tick, or until [`policy_answered`](Self::policy_answered) if it is the policy's, or until
    /// [`monitor_cleared`](Self::monitor_cleared) if it is a monitor's. From SoftStop on it latches.
    pub fn report(&mut self, fault: Fault) {
        self.ring.count_and_push(fault);
        if fault.level == Level::Hold && self.phase() == Phase::Armed {
            match (fault.reason, POLICY.iter().position(|r| *r == fault.reason)) {
                (_, Some(bit)) => self.held_policy |= 1 << bit,
                (Reason::Monitor, None) if fault.joint < 64 => self.held_monitors |= 1 << fault.joint,
                _ => self.held_now = true,
            }
        }
        self.escalate(fault);
        self.settle();
    }

    /// The policy gave a good answer: ends the holds that a bad or a missing one began.
    pub fn policy_answered(&mut self) {
        self.held_policy = 0;
        self.settle();
    }

    /// Monitor `index` no longer trips: ends the hold that it began.
    pub fn monitor_cleared(&mut self, index: u16) {
        if index < 64 {
            self.held_monitors &= !(1 << index);
        }
        self.settle();
    }

    fn escalate(&mut self, fault: Fault) {
        let before = self.ladder;
        self.apply(Event::Fault(fault.level));
        if self.ladder.latched() && !before.latched() {
            self.first = Some(fault);
        }
        if self.level() == Level::SoftStop && before.level() < Level::SoftStop {
            self.must_rest_within(self.stopping_time());
        }
    }

    /// How long a soft stop may move.
    fn stopping_time(&self) -> f64 {
        let way = if self.pose.is_some() { check::crossing_time(&self.limits) } else { 0.0 };
        check::braking_time(&self.last, &self.limits) + way
    }

    pub(super) fn settle(&mut self) {
        let before = self.level();
        self.apply(Event::Hold(self.held_now || self.held_policy != 0 || self.held_monitors != 0));
        if before == Level::Run && self.level() == Level::Hold {
            self.must_rest_within(check::crossing_time(&self.limits));
        }
    }

    fn must_rest_within(&mut self, time: f64) {
        self.stopping_ticks = 0;
        self.resting_ticks = 0;
        self.allowed_ticks = (time / self.dt).ceil() as u64;
    }

    /// Applies an event that the ladder never refuses.
    fn apply(&mut self, event: Event) {
        if let Ok(next) = self.ladder.next(event) {
            self.ladder = next;
        }
    }

    /// The last word on `command`, which is sent as it leaves here.
    pub fn output(&mut self, state: &State, command: &mut Command) {
        self.altered = false;
        let at_rest = self.resting_ticks as f64 * self.dt >= self.safety.softstop_damp;
        if self.level() == Level::SoftStop && self.resting_ticks > 0 && at_rest {
            self.apply(Event::Rested);
        }
        match self.level() {
            Level::Run | Level::Hold | Level::SoftStop => self.stiff(command),
            Level::Damp => check::damp(command, &self.q, &self.limits, &self.gains),
            Level::Off => *command = Command::off(self.limits.len()),
        }
        command.tick = state.tick;
        command.epoch = state.epoch;
        command.level = self.level();
        self.sent = *command;
    }

    fn stiff(&mut self, command: &mut Command) {
        let verdict = check::check(command, &self.last, &self.limits, &self.gains, self.dt)
            .and_then(|()| self.braked(command));
        match verdict {
            Ok(()) => {
                if self.safety.torque_mode == TorqueMode::Target {
                    self.move_targets(command);
                }
                self.last.accept(command, self.dt);
                if self.altered && self.level() >= Level::Hold {
                    // The gate itself has moved the joint: the time to come to rest begins anew.
                    self.must_rest_within(match self.level() {
                        Level::Hold => check::crossing_time(&self.limits),
                        _ => self.stopping_time(),
                    });
                }
            }
            Err(mismatch) => {
                self.altered = true;
                self.last.freeze();
                *command = self.last.command;
                self.mismatch = Some(mismatch);
                let Mismatch { joint, value, limit, .. } = mismatch;
                let (tick, reason) = (self.tick, Reason::GateMismatch);
                let fault = Fault { tick, reason, joint, value, limit, level: Level::SoftStop };
                self.ring.count_and_push_first(fault);
                self.escalate(fault);
            }
        }
        self.scale(command);
        self.armed_ticks += 1;
        self.authority_ticks += 1;
        if self.level() >= Level::Hold {
            self.stopping_ticks += 1;
            let resting = match self.pose.filter(|_| self.stopping_ticks < self.allowed_ticks) {
                Some(pose) => self.rests_at(&pose, POSE_WINDOW),
                None => self.last.at_rest(&self.limits),
            };
            self.resting_ticks = if resting { self.resting_ticks + 1 } else { 0 };
        }
    }

    /// A soft stop must have come to rest when twice the braking time is over, a hold when any last target is reached.
    fn braked(&self, command: &Command) -> Result<(), Mismatch> {
        if self.level() >= Level::Hold && self.stopping_ticks >= self.allowed_ticks {
            return check::check_rest(command, &self.last, &self.limits, self.dt);
        }
        Ok(())
    }

    fn move_targets(&mut self, command: &mut Command) {
        for i in 0..self.limits.len() {
            let (q, dq, before) = (self.q[i], self.dq[i], command.q[i]);
            check::move_target(command, &self.last, i, q, dq, &self.limits[i], self.dt);
            if command.q[i] != before {
                self.altered = true;
                self.last.moved |= 1 << i;
            }
        }
    }

    /// Gain ramp after arming, then the torque estimate.
    fn scale(&mut self, command: &mut Command) {
        let ramp = self.ramp(self.safety.gain_ramp, self.armed_ticks);
        for i in 0..self.limits.len() {
            command.kp[i] *= ramp;
            if self.safety.torque_mode == TorqueMode::Off {
                continue;
            }
            let effort = self.limits[i].effort;
            let scaled = check::scale_gains(command, i, self.q[i], self.dq[i], effort);
            self.saturated_ticks[i] = if scaled { self.saturated_ticks[i].saturating_add(1) } else { 0 };
            let time = f64::from(self.saturated_ticks[i]) * self.dt;
            if time > SATURATED_AFTER {
                let (tick, reason, joint) = (self.tick, Reason::TorqueSaturated, i as u16);
                let (value, limit, level) = (time, SATURATED_AFTER, Level::SoftStop);
                let fault = Fault { tick, reason, joint, value, limit, level };
                self.ring.count_and_push_first(fault);
                self.escalate(fault);
            }
        }
    }

    /// 0 → 1 over `length` seconds, `ticks` after its beginning, with no corner at either end.
    fn ramp(&self, length: f64, ticks: u64) -> f64 {
        let x = if length > 0.0 { (ticks as f64 * self.dt / length).min(1.0) } else { 1.0 };
        if self.phase() == Phase::Armed { x * x * (3.0 - 2.0 * x) } else { 0.0 }
    }

    /// What holds the robot where it was measured, at rest, with damping and no stiffness.
    pub fn hold_command(&self) -> Command {
        let mut command = Command::off(self.limits.len());
        for (i, (l, g)) in self.limits.iter().zip(&self.gains).enumerate() {
            command.q[i] = self.q[i].clamp(l.position[0], l.position[1]);
            command.kd[i] = g.kd_damp.min(g.kd_max);
        }
        command
    }

    /// Whether `hold`, coming from rest, passes every check.
    pub(super) fn check_hold(&self, hold: &Command) -> Result<(), Mismatch> {
        let rest = Last { command: *hold, ..Last::new(self.limits.len()) };
        check::check(hold, &rest, &self.limits, &self.gains, self.dt)
    }

    /// The motors are on, holding `hold`: the command of the first tick is checked against it.
    pub(super) fn seed(&mut self, hold: &Command) {
        self.last = Last { command: *hold, ..Last::new(self.limits.len()) };
        self.sent = *hold;
        self.altered = true;
        (self.armed_ticks, self.authority_ticks) = (0, 0);
        self.policy_ticks = 0;
        (self.held_now, self.held_policy, self.held_monitors) = (false, 0, 0);
        self.overspeed = [0; MAX_JOINTS];
        self.saturated_ticks = [0; MAX_JOINTS];
        self.stopping_ticks = 0;
        self.resting_ticks = 0;
    }

    /// Reports a fault that has no joint and no number.
    pub(super) fn report_operator(&mut self, reason: Reason, level: Level) {
        self.report(Fault { tick: self.tick, reason, joint: NOBODY, value: 1.0, limit: 0.0, level });
    }
}

/// Angle between the body's z axis and the world's, rad; `None` without an IMU or with a quaternion of length 0.
pub fn tilt(imu: &Imu) -> Option<f64> {
    let [w, x, y, z] = imu.quat;
    let up = (w * w - x * x - y * y + z * z) / (w * w + x * x + y * y + z * z);
    (imu.valid && up.is_finite()).then(|| up.clamp(-1.0, 1.0).acos())
}

/// The first measured number that is not finite and the joint that it belongs to. An orientation of length 0 is not a
/// measurement either.
fn first_not_finite(state: &State, n: usize) -> Option<(u16, f64)> {
    for i in 0..n {
        let joint = [state.q[i], state.dq[i], state.tau[i], f64::from(state.temp[i])];
        if let Some(&value) = joint.iter().find(|x| !x.is_finite()) {
            return Some((i as u16, value));
        }
    }
    let bad = |values: &[f64]| values.iter().copied().find(|x| !x.is_finite());
    let Imu { quat, gyro, acc, valid } = &state.imu;
    let mut value = bad(&state.user);
    if *valid {
        let flat = tilt(&state.imu).is_none().then_some(f64::NAN);
        value = value.or(bad(quat)).or(bad(gyro)).or(bad(acc)).or(flat);
    }
    if state.base.valid {
        value = value.or(bad(&state.base.pos)).or(bad(&state.base.vel));
    }
    for object in state.objects.iter().filter(|o| o.valid) {
        value = value.or(bad(&object.pos)).or(bad(&object.quat));
    }
    value.map(|value| (NOBODY, value))
}
