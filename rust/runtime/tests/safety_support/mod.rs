//! A robot, a device and a limiter that behave, for the tests of the gate to disturb.
#![allow(dead_code)] // each test binary uses its own part

use std::path::PathBuf;

use cadenza_runtime::device::{DeviceFault, Freshness, Stop};
use cadenza_runtime::robot::*;
use cadenza_runtime::safety::{Fault, Gate, Level, Reason};
use cadenza_runtime::state::{Command, Joints, MAX_JOINTS, State};

pub(crate) const DT: f64 = 0.002;
pub(crate) const DT_NS: i64 = 2_000_000;
pub(crate) const KP: f64 = 100.0;
pub(crate) const KD: f64 = 5.0;

pub(crate) fn limits() -> Limits {
    Limits {
        position: [-1.0, 1.5],
        velocity: 3.0,
        acceleration: 50.0,
        // Two accelerations a tick: the follower below, which has no bound on its jerk, keeps this one.
        jerk: 50_000.0,
        effort: 20.0,
        effort_rate: None,
        temperature: Some(70.0),
    }
}

pub(crate) fn robot(n: usize) -> Robot {
    let motor = Motor { model: None, bus: None, id: None, sign: 1.0, gear: 1.0, offset: 0.0 };
    let gains = Gains { kp_max: 200.0, kd_max: 10.0, kd_damp: 1.0 };
    let joint = |i: usize| Joint {
        name: format!("j{i}"),
        motor: motor.clone(),
        limits: limits(),
        gains,
        home: 0.0,
        wrap: false,
    };
    Robot {
        name: "rig".into(),
        path: PathBuf::new(),
        text: String::new(),
        model: None,
        device: DeviceConfig {
            kind: "null".into(),
            port: None,
            baud: None,
            period: None,
            command_timeout: 0.02,
            on_silence: Stop::Damp,
            on_exit: Stop::Off,
        },
        control_hz: 1.0 / DT,
        imu: Some(ImuConfig { mount_quat: [1.0, 0.0, 0.0, 0.0], source: None }),
        safety: SafetyConfig {
            stale_after: 0.02,
            lost_after: 0.06,
            tilt_max: Some(1.0),
            track_max: 0.6,
            hold_ticks: 25,
            max_consecutive_misses: 5,
            overrun: Overrun::Skip,
            gain_ramp: 0.02,
            authority_ramp: 0.04,
            start: Start::Measured,
            torque_mode: TorqueMode::Gain,
            estop_level: Level::Damp,
            softstop_damp: 0.1,
            softstop_pose: Default::default(),
            estop: Vec::new(),
        },
        frames: Vec::new(),
        joints: (0..n).map(joint).collect(),
        monitors: Vec::new(),
    }
}

/// The braking law of the limiter, joint by joint.
#[derive(Clone)]
pub(crate) struct Follower {
    pub(crate) p: Joints,
    pub(crate) v: Joints,
}

impl Follower {
    pub(crate) fn step(&mut self, target: Option<&Joints>, l: &[Limits], command: &mut Command) {
        let v_safe = |d: f64, a: f64| {
            if d <= 0.0 {
                return 0.0;
            }
            let m = (((1.0 + 8.0 * d / a).sqrt() - 1.0) / 2.0).floor();
            d / (m + 1.0) + a * m / 2.0
        };
        for (i, l) in l.iter().enumerate() {
            let ([lo, hi], a) = (l.position, l.acceleration * DT);
            let wanted = target.map_or(0.0, |t| {
                let e = (t[i].clamp(lo, hi) - self.p[i]) / DT;
                v_safe(e.abs(), a).copysign(e).clamp(-l.velocity, l.velocity)
            });
            let v = wanted.clamp(self.v[i] - a, self.v[i] + a);
            self.v[i] = v.clamp(-v_safe((self.p[i] - lo) / DT, a), v_safe((hi - self.p[i]) / DT, a));
            self.p[i] = (self.p[i] + self.v[i] * DT).clamp(lo, hi);
            (command.q[i], command.dq[i]) = (self.p[i], self.v[i]);
            (command.kp[i], command.kd[i], command.tau[i]) = (KP, KD, 0.0);
        }
    }
}

/// A loop around the gate: a device that follows its commands exactly and a limiter that obeys.
pub(crate) struct Rig {
    pub(crate) gate: Gate,
    pub(crate) limits: Vec<Limits>,
    pub(crate) state: State,
    pub(crate) fresh: Freshness,
    pub(crate) now: i64,
    pub(crate) target: Joints,
    pub(crate) follower: Follower,
    pub(crate) command: Command,
    /// What this tick's read reports.
    pub(crate) device: Option<DeviceFault>,
    /// The device repeats its last measurement.
    pub(crate) frozen: bool,
}

impl Rig {
    pub(crate) fn new(robot: &Robot) -> Self {
        let limits: Vec<Limits> = robot.joints.iter().map(|j| j.limits).collect();
        let n = limits.len();
        let mut state = State::new(n);
        state.imu.valid = true;
        Self {
            gate: Gate::new(robot, &limits, DT),
            limits,
            state,
            fresh: Freshness::default(),
            now: 0,
            target: [0.0; MAX_JOINTS],
            follower: Follower { p: [0.0; MAX_JOINTS], v: [0.0; MAX_JOINTS] },
            command: Command::off(n),
            device: None,
            frozen: false,
        }
    }

    /// A rig that has been armed and has run long enough for the ramps to end.
    pub(crate) fn running(robot: &Robot) -> Self {
        let mut rig = Self::new(robot);
        rig.arm();
        for _ in 0..30 {
            assert_eq!(rig.tick(), Level::Run);
        }
        rig.gate.drain_faults(|f| panic!("a fault before the test began: {f:?}"));
        rig
    }

    pub(crate) fn arm(&mut self) {
        self.gate.arm().unwrap();
        for _ in 0..10 {
            self.read();
            self.write();
        }
        self.gate.armable(&self.state).unwrap();
        self.enable().unwrap();
    }

    pub(crate) fn enable(&mut self) -> Result<(), cadenza_runtime::safety::ArmRefusal> {
        let hold = self.gate.hold_command();
        self.gate.armed(&hold)
    }

    /// First half of a tick.
    pub(crate) fn read(&mut self) {
        self.now += DT_NS;
        self.state.tick += 1;
        if !self.frozen {
            self.fresh.sequence += 1;
            self.fresh.stamp_ns = self.now;
        }
        let device = self.device.take();
        self.gate.input(&self.state, &self.fresh, device, self.now);
    }

    /// The limiter's part.
    pub(crate) fn limit(&mut self) {
        if self.gate.altered() {
            self.follower = Follower { p: self.gate.sent().q, v: *self.gate.sent_velocity() };
        }
        let follow = self.gate.level() == Level::Run;
        self.follower.step(follow.then_some(&self.target), &self.limits, &mut self.command);
    }

    /// Second half of a tick.
    pub(crate) fn write(&mut self) -> Level {
        self.gate.output(&self.state, &mut self.command);
        if self.command.level <= Level::SoftStop && !self.frozen {
            self.state.q = self.command.q;
            self.state.dq = self.command.dq;
        }
        self.command.level
    }

    /// One tick in which nothing is wrong.
    pub(crate) fn tick(&mut self) -> Level {
        self.read();
        self.limit();
        self.write()
    }

    /// `count` ticks, each disturbed by `f` before it begins; the levels of the commands, run-length encoded.
    pub(crate) fn levels(
        &mut self,
        count: usize,
        mut f: impl FnMut(&mut Self, usize),
    ) -> Vec<(Level, usize)> {
        let mut runs: Vec<(Level, usize)> = Vec::new();
        for i in 0..count {
            f(self, i);
            let level = self.tick();
            match runs.last_mut() {
                Some((last, times)) if *last == level => *times += 1,
                _ => runs.push((level, 1)),
            }
        }
        runs
    }

    pub(crate) fn report(&mut self, reason: Reason) {
        let fault = Fault {
            tick: self.state.tick,
            reason,
            joint: u16::MAX,
            value: 1.0,
            limit: 0.0,
            level: reason.level(),
        };
        self.gate.report(fault);
    }
}
