//! A robot without a file, and a small physics that looks to the sim device like MuJoCo.

use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use cadenza_runtime::device::sim::{SimBase, SimDevice, SimHandles, SimImu, SimObject};
use cadenza_runtime::device::{DeviceError, Stop, TimeSource};
use cadenza_runtime::robot::{
    DeviceConfig, Gains, ImuConfig, Joint, Limits, Motor, Overrun, Robot, SafetyConfig, Start, TorqueMode,
};
use cadenza_runtime::safety::Level;
use cadenza_runtime::state::Command;

/// Joints `j0`, `j1`, … with efforts 10, 11, …, homes 0.1, 0.2, … and damping gains 1, 2, …
pub(crate) fn robot(n: usize) -> Robot {
    let joint = |i: usize| Joint {
        name: format!("j{i}"),
        motor: Motor { model: None, bus: None, id: None, sign: 1.0, gear: 1.0, offset: 0.0 },
        limits: Limits {
            position: [-3.0, 3.0],
            velocity: 5.0,
            acceleration: 50.0,
            jerk: 5000.0,
            effort: 10.0 + i as f64,
            effort_rate: None,
            temperature: None,
        },
        gains: Gains { kp_max: 1000.0, kd_max: 100.0, kd_damp: 1.0 + i as f64 },
        home: 0.1 * (i + 1) as f64,
        wrap: false,
    };
    Robot {
        name: "test".into(),
        path: PathBuf::new(),
        text: String::new(),
        model: None,
        device: DeviceConfig {
            kind: "sim".into(),
            port: None,
            baud: None,
            period: None,
            command_timeout: 0.02,
            on_silence: Stop::Damp,
            on_exit: Stop::Damp,
        },
        control_hz: 500.0,
        imu: None,
        safety: SafetyConfig {
            stale_after: 0.02,
            lost_after: 0.06,
            tilt_max: None,
            track_max: 0.6,
            hold_ticks: 25,
            max_consecutive_misses: 5,
            overrun: Overrun::Skip,
            gain_ramp: 1.0,
            authority_ramp: 1.0,
            start: Start::Measured,
            torque_mode: TorqueMode::Gain,
            estop_level: Level::Damp,
            softstop_damp: 1.0,
            softstop_pose: Default::default(),
            estop: Vec::new(),
        },
        frames: Vec::new(),
        joints: (0..n).map(joint).collect(),
        monitors: Vec::new(),
    }
}

/// A command at [`Level::Run`] with the same numbers for each joint.
pub(crate) fn command(n: usize, q: f64, dq: f64, kp: f64, kd: f64, tau: f64) -> Command {
    let mut c = Command::off(n);
    c.level = Level::Run;
    c.q[..n].fill(q);
    c.dq[..n].fill(dq);
    c.kp[..n].fill(kp);
    c.kd[..n].fill(kd);
    c.tau[..n].fill(tau);
    c
}

/// Time that a test moves.
pub(crate) fn virtual_time() -> (Arc<AtomicI64>, TimeSource) {
    let ns = Arc::new(AtomicI64::new(0));
    (ns.clone(), TimeSource::Virtual(ns))
}

pub(crate) const DT: f64 = 0.0005;
pub(crate) const INERTIA: f64 = 0.2;
/// Constant load on every joint, N·m.
pub(crate) const LOAD: f64 = -0.6;
const ROW: usize = 10;

/// Independent joints of equal inertia behind a free base that nothing moves.
///
/// Joint i of the robot is number n−1−i here, its control stands one place behind its actuator: no index is another's.
#[derive(Debug)]
pub(crate) struct Physics {
    pub(crate) qpos: Vec<f64>,
    pub(crate) qvel: Vec<f64>,
    pub(crate) force: Vec<f64>,
    pub(crate) ctrl: Vec<f64>,
    pub(crate) sensors: Vec<f64>,
    pub(crate) gain: Vec<f64>,
    pub(crate) bias: Vec<f64>,
    pub(crate) effort: Vec<f64>,
    pub(crate) pos: [f64; 3],
    pub(crate) quat: [f64; 4],
    pub(crate) warnings: [i32; 2],
    pub(crate) steps: u64,
}

impl Physics {
    pub(crate) fn new(n: usize) -> Self {
        let mut qpos = vec![1.0, 2.0, 3.0, 0.5, 0.5, 0.5, 0.5];
        qpos.extend((0..n).rev().map(|i| 0.1 * (i + 1) as f64));
        let mut qvel = vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        qvel.extend(vec![0.0; n]);
        let mut gain = vec![0.0; n * ROW];
        gain.iter_mut().step_by(ROW).for_each(|g| *g = 1.0);
        Self {
            force: vec![0.0; qvel.len()],
            qpos,
            qvel,
            ctrl: vec![0.0; n + 1],
            sensors: (0..11).map(|i| i as f64 * 0.01).collect(),
            gain,
            bias: vec![0.0; n * ROW],
            effort: (0..n).rev().map(|i| 10.0 + i as f64).collect(),
            pos: [7.0, 8.0, 9.0],
            quat: [0.0, 1.0, 0.0, 0.0],
            warnings: [3, 0],
            steps: 0,
        }
    }

    pub(crate) fn joints(&self) -> usize {
        self.effort.len()
    }

    fn step(&mut self) {
        for k in 0..self.joints() {
            let (q, v) = (self.qpos[7 + k], self.qvel[6 + k]);
            let bias = &self.bias[k * ROW..];
            let law = self.gain[k * ROW] * self.ctrl[k + 1] + bias[0] + bias[1] * q + bias[2] * v;
            let force = law.clamp(-self.effort[k], self.effort[k]);
            self.force[6 + k] = force;
            self.qvel[6 + k] = v + DT * (force + LOAD) / INERTIA;
            self.qpos[7 + k] = q + DT * self.qvel[6 + k];
        }
        self.steps += 1;
    }

    pub(crate) fn handles(&mut self) -> SimHandles {
        let n = self.joints();
        SimHandles {
            library: PathBuf::from("/nowhere/libmujoco.so"),
            version: 0,
            model: 8,
            data: std::ptr::from_mut(self).expose_provenance(),
            qpos: self.qpos.as_mut_ptr().expose_provenance(),
            nq: self.qpos.len(),
            qvel: self.qvel.as_mut_ptr().expose_provenance(),
            qfrc_actuator: self.force.as_mut_ptr().expose_provenance(),
            nv: self.qvel.len(),
            ctrl: self.ctrl.as_mut_ptr().expose_provenance(),
            nu: self.ctrl.len(),
            sensordata: self.sensors.as_mut_ptr().expose_provenance(),
            nsensordata: self.sensors.len(),
            gainprm: self.gain.as_mut_ptr().expose_provenance(),
            biasprm: self.bias.as_mut_ptr().expose_provenance(),
            nactuator: n,
            prm_row: ROW,
            joint_qpos: (0..n).rev().map(|k| 7 + k).collect(),
            joint_qvel: (0..n).rev().map(|k| 6 + k).collect(),
            actuator: (0..n).rev().collect(),
            actuator_ctrl: (0..n).rev().map(|k| k + 1).collect(),
            effort: self.effort.iter().rev().copied().collect(),
            warnings: self.warnings.each_mut().map(|w| std::ptr::from_mut(w).expose_provenance()).to_vec(),
            imu: SimImu { quat: Some(1), gyro: Some(5), acc: Some(8) },
            base: Some(SimBase { qpos: 0, qvel: 0 }),
            objects: vec![SimObject {
                name: "cup".into(),
                pos: self.pos.as_mut_ptr().expose_provenance(),
                quat: self.quat.as_mut_ptr().expose_provenance(),
            }],
            timestep: DT,
        }
    }
}

/// In the place of `mj_step`.
pub(crate) unsafe extern "C" fn step(_model: *const c_void, data: *mut c_void) {
    // SAFETY: `data` is the `Physics` whose handles were given to the device; no other reference exists during a call.
    unsafe { (*data.cast::<Physics>()).step() }
}

/// Frees the physics with the device, and says so.
struct Owner {
    physics: *mut Physics,
    dropped: Arc<AtomicBool>,
}

// SAFETY: the physics is plain memory without a thread.
unsafe impl Send for Owner {}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `Rig::new`, freed only here.
        drop(unsafe { Box::from_raw(self.physics) });
        self.dropped.store(true, Ordering::Release);
    }
}

/// A sim device and the physics inside it.
pub(crate) struct Rig {
    pub(crate) device: SimDevice,
    pub(crate) time: Arc<AtomicI64>,
    pub(crate) dropped: Arc<AtomicBool>,
    physics: *mut Physics,
}

impl Rig {
    pub(crate) fn new(n: usize) -> Self {
        Self::with(&robot(n), |_| {}, |_| {}).expect("a sound rig")
    }

    pub(crate) fn with_imu(n: usize) -> Self {
        let mut robot = robot(n);
        robot.imu = Some(ImuConfig { mount_quat: [1.0, 0.0, 0.0, 0.0], source: None });
        Self::with(&robot, |_| {}, |_| {}).expect("a sound rig")
    }

    /// Changes physics and handles before the device sees them.
    pub(crate) fn with(
        robot: &Robot,
        physics: impl FnOnce(&mut Physics),
        change: impl FnOnce(&mut SimHandles),
    ) -> Result<Self, DeviceError> {
        let mut p = Box::new(Physics::new(robot.joints.len()));
        physics(&mut p);
        let p = Box::into_raw(p);
        let dropped = Arc::new(AtomicBool::new(false));
        let owner = Box::new(Owner { physics: p, dropped: dropped.clone() });
        // SAFETY: just made; the device does not exist yet.
        let mut handles = unsafe { (*p).handles() };
        change(&mut handles);
        let (time, source) = virtual_time();
        // SAFETY: the handles describe the physics, which `owner` keeps; changed handles are either refused or still
        // inside the same arrays. Tests look at the physics only between calls.
        let device = unsafe { SimDevice::with_step(handles, step, robot, owner, source)? };
        Ok(Self { device, time, dropped, physics: p })
    }

    pub(crate) fn physics(&self) -> &Physics {
        // SAFETY: kept by the device, which is not running while `self` is borrowed.
        unsafe { &*self.physics }
    }

    pub(crate) fn physics_mut(&mut self) -> &mut Physics {
        // SAFETY: as above.
        unsafe { &mut *self.physics }
    }
}
