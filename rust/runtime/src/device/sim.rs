//! MuJoCo as a robot: steps the physics through the library that made model and data, without Python.
//!
//! One `write` is one control period of physics. The motor law `tau + kp·(q* − q) + kd·(dq* − dq)` is evaluated by MuJoCo
//! itself at every physics step: each joint's actuator has gain 1 and the affine bias `(0, −kp, −kd)`, so its control is
//! `tau + kp·q* + kd·dq*`, and MuJoCo clamps the result to the effort limit.
//!
//! After `mj_step` positions and velocities are those of the new instant, while what MuJoCo derives from them (efforts,
//! sensors, object poses) belongs to the beginning of the last physics step, as in every loop around `mj_step`.

mod handles;
mod memory;

use std::any::Any;
use std::fmt;

pub use handles::{SimBase, SimHandles, SimImu, SimObject};
pub use memory::StepFn;
pub(super) use memory::error;
use memory::{Engine, Numbers, Warnings};

use super::{
    Device, DeviceError, DeviceFault, DeviceInfo, Freshness, Stop, TimeSource, check_command, check_hold,
    check_robot,
};
use crate::robot::Robot;
use crate::safety::Level;
use crate::state::{Base, Command, Imu, Joints, MAX_JOINTS, Object, State};

const NAME: &str = "sim";

/// What drives the joints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Drive {
    /// Commands.
    Commands,
    /// Stiffness around the position at which the robot was stopped.
    Hold,
    /// Damping only.
    Damp,
    /// Nothing.
    Off,
}

/// A simulated robot.
///
/// Until [`enable`](Device::enable) the simulation stands still, as a robot on its stand or an arm on its brakes does.
/// Then physics advances by one control period with every `write`, also while the motors are off (then the robot falls),
/// and never with `read`. Every read is a measurement. [`stop`](Device::stop) only takes force
/// away: it never switches motors on that are off, and `Hold` keeps the gains of the last command.
///
/// A state that is not finite, or a warning by which MuJoCo says that its state is beyond repair, is
/// [`DeviceFault::Diverged`]; the device stays in this fault.
pub struct SimDevice {
    info: DeviceInfo,
    robot: Robot,
    time: TimeSource,
    substeps: u32,
    engine: Engine,
    handles: SimHandles,
    qpos: Numbers,
    qvel: Numbers,
    qfrc_actuator: Numbers,
    ctrl: Numbers,
    sensordata: Numbers,
    biasprm: Numbers,
    objects: Vec<(Numbers, Numbers)>,
    warnings: Warnings,
    drive: Drive,
    /// Position of [`Drive::Hold`], and the gains that are in force.
    hold: Joints,
    kp: Joints,
    kd: Joints,
    sequence: u64,
    /// Whether the motors have been on.
    released: bool,
    fault: Option<DeviceFault>,
    /// The owner of all this memory; dropped last.
    _keep_alive: Box<dyn Any + Send>,
}

// SAFETY: the pointers lead to memory that is not bound to a thread: MuJoCo has no thread-local state in `mj_step`, and the
// caller of the constructor promised that nobody else touches it.
unsafe impl Send for SimDevice {}

impl fmt::Debug for SimDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDevice")
            .field("robot", &self.robot.name)
            .field("drive", &self.drive)
            .field("sequence", &self.sequence)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl SimDevice {
    /// Takes over a MuJoCo model and its data.
    ///
    /// # Errors
    /// The library is not loaded in this process or is another version; the physics step does not divide the control
    /// period; sizes, indices or addresses that cannot be; a model whose actuators are not the motor law with the robot's
    /// efforts; a state that is not finite.
    ///
    /// # Safety
    /// `handles` must describe one live `mjModel` and one live `mjData` made for it, with the sizes that it states, and a
    /// library that is MuJoCo. `keep_alive` must keep both alive, and while the device lives nobody else may read or
    /// write them.
    pub unsafe fn new(
        handles: SimHandles,
        robot: &Robot,
        keep_alive: Box<dyn Any + Send>,
        time: TimeSource,
    ) -> Result<Self, DeviceError> {
        // SAFETY: the caller's promise.
        unsafe {
            let engine = Engine::load(&handles)?;
            Self::build(engine, handles, robot, keep_alive, time)
        }
    }

    /// The same with another physics behind it: `step` takes the place of `mj_step`.
    ///
    /// # Errors
    /// As for [`SimDevice::new`], less the library.
    ///
    /// # Safety
    /// As for [`SimDevice::new`]; `step` must accept `handles.model` and `handles.data`.
    pub unsafe fn with_step(
        handles: SimHandles,
        step: StepFn,
        robot: &Robot,
        keep_alive: Box<dyn Any + Send>,
        time: TimeSource,
    ) -> Result<Self, DeviceError> {
        // SAFETY: the caller's promise.
        unsafe {
            let engine = Engine::with_step(&handles, step)?;
            Self::build(engine, handles, robot, keep_alive, time)
        }
    }

    /// # Safety
    /// As for [`SimDevice::new`].
    unsafe fn build(
        engine: Engine,
        handles: SimHandles,
        robot: &Robot,
        keep_alive: Box<dyn Any + Send>,
        time: TimeSource,
    ) -> Result<Self, DeviceError> {
        check_robot(NAME, robot)?;
        handles.check(robot)?;
        let substeps = handles.substeps(robot.control_hz)?;
        let h = &handles;
        let Some(parameters) = h.nactuator.checked_mul(h.prm_row) else {
            return Err(error(format!("{} actuators with {} parameters", h.nactuator, h.prm_row)));
        };
        // SAFETY: the caller's promise.
        let (qpos, qvel, qfrc_actuator, ctrl, sensordata, gainprm, biasprm, warnings) = unsafe {
            (
                Numbers::new("qpos", h.qpos, h.nq)?,
                Numbers::new("qvel", h.qvel, h.nv)?,
                Numbers::new("qfrc_actuator", h.qfrc_actuator, h.nv)?,
                Numbers::new("ctrl", h.ctrl, h.nu)?,
                Numbers::new("sensordata", h.sensordata, h.nsensordata)?,
                Numbers::new("actuator_gainprm", h.gainprm, parameters)?,
                Numbers::new("actuator_biasprm", h.biasprm, parameters)?,
                Warnings::new(&h.warnings)?,
            )
        };
        let mut objects = Vec::with_capacity(h.objects.len());
        for o in &h.objects {
            // SAFETY: the caller's promise.
            objects.push(unsafe { (Numbers::new(&o.name, o.pos, 3)?, Numbers::new(&o.name, o.quat, 4)?) });
        }
        h.check_values(robot, &qpos, &qvel, &gainprm)?;
        let names = h.objects.iter().map(|o| o.name.clone()).collect();
        Ok(Self {
            info: DeviceInfo { name: NAME, moves: true, objects: names },
            robot: robot.clone(),
            time,
            substeps,
            engine,
            handles,
            qpos,
            qvel,
            qfrc_actuator,
            ctrl,
            sensordata,
            biasprm,
            objects,
            warnings,
            drive: Drive::Off,
            hold: [0.0; MAX_JOINTS],
            kp: [0.0; MAX_JOINTS],
            kd: [0.0; MAX_JOINTS],
            sequence: 0,
            released: false,
            fault: None,
            _keep_alive: keep_alive,
        })
    }

    /// Physics steps in one control period.
    pub fn substeps(&self) -> u32 {
        self.substeps
    }

    fn joints(&self) -> usize {
        self.robot.joints.len()
    }

    fn positions(&self) -> Joints {
        let mut q = [0.0; MAX_JOINTS];
        for (q, &i) in q.iter_mut().zip(&self.handles.joint_qpos) {
            *q = self.qpos.get(i);
        }
        q
    }

    /// The motor law of one joint: `u − kp·q − kd·dq`.
    fn set_motor(&mut self, i: usize, u: f64, kp: f64, kd: f64) {
        let bias = self.handles.actuator[i] * self.handles.prm_row;
        self.ctrl.set(self.handles.actuator_ctrl[i], u);
        self.biasprm.set(bias, 0.0);
        self.biasprm.set(bias + 1, -kp);
        self.biasprm.set(bias + 2, -kd);
    }

    fn drive(&mut self, command: &Command) {
        let off = self.drive == Drive::Commands && command.level == Level::Off;
        let drive = if off { Drive::Off } else { self.drive };
        if off {
            // A hold that follows must not stiffen what is limp.
            (self.kp, self.kd) = ([0.0; MAX_JOINTS], [0.0; MAX_JOINTS]);
        }
        for i in 0..self.joints() {
            let (u, kp, kd) = match drive {
                Drive::Commands => {
                    let (kp, kd) = (command.kp[i], command.kd[i]);
                    (self.kp[i], self.kd[i]) = (kp, kd);
                    (command.tau[i] + kp * command.q[i] + kd * command.dq[i], kp, kd)
                }
                Drive::Hold => (self.kp[i] * self.hold[i], self.kp[i], self.kd[i]),
                Drive::Damp => (0.0, 0.0, self.robot.joints[i].gains.kd_damp),
                Drive::Off => (0.0, 0.0, 0.0),
            };
            self.set_motor(i, u, kp, kd);
        }
    }

    fn diverged(&self) -> Option<DeviceFault> {
        let bad = |i: &usize| {
            let (q, dq) = (self.handles.joint_qpos[*i], self.handles.joint_qvel[*i]);
            !(self.qpos.get(q).is_finite() && self.qvel.get(dq).is_finite())
        };
        if let Some(i) = (0..self.joints()).find(bad) {
            return Some(DeviceFault::Diverged { joint: i as u16 });
        }
        let lost = self.warnings.raised() || !self.qpos.is_finite() || !self.qvel.is_finite();
        lost.then_some(DeviceFault::Diverged { joint: u16::MAX })
    }

    fn imu(&self) -> Option<Imu> {
        self.robot.imu.as_ref()?;
        let SimImu { quat, gyro, acc } = self.handles.imu;
        let base = self.handles.base;
        let sensor = |at: Option<usize>| at.map(|at| self.sensordata.array(at));
        Some(Imu {
            quat: quat.map(|at| self.sensordata.array(at)).or(base.map(|b| self.qpos.array(b.qpos + 3)))?,
            // A free joint turns in the body's own axes.
            gyro: sensor(gyro).or(base.map(|b| self.qvel.array(b.qvel + 3)))?,
            acc: sensor(acc)?,
            valid: true,
        })
    }
}

impl Device for SimDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn connect(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn enable(&mut self, hold: &Command) -> Result<(), DeviceError> {
        if self.fault.is_some() {
            return Err(DeviceError::Io { device: NAME, what: "the simulated physics diverged".into() });
        }
        check_hold(NAME, &self.robot, &self.positions()[..self.joints()], hold)?;
        (self.kp, self.kd) = (hold.kp, hold.kd);
        self.drive = Drive::Commands;
        self.released = true;
        Ok(())
    }

    fn read(&mut self, out: &mut State) -> Result<Freshness, DeviceFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.sequence += 1;
        let stamp_ns = self.time.now_ns();
        out.n = self.joints() as u16;
        out.estop = false;
        for i in 0..self.joints() {
            let dof = self.handles.joint_qvel[i];
            out.q[i] = self.qpos.get(self.handles.joint_qpos[i]);
            out.dq[i] = self.qvel.get(dof);
            out.tau[i] = self.qfrc_actuator.get(dof);
        }
        if let Some(imu) = self.imu() {
            out.imu = imu;
        }
        if let Some(base) = self.handles.base {
            out.base = Base { pos: self.qpos.array(base.qpos), vel: self.qvel.array(base.qvel), valid: true };
        }
        for (object, (pos, quat)) in out.objects.iter_mut().zip(&self.objects) {
            *object = Object { pos: pos.array(0), quat: quat.array(0), stamp_ns, valid: true };
        }
        Ok(Freshness { sequence: self.sequence, stamp_ns, stale_joints: 0, finished: false })
    }

    fn write(&mut self, command: &Command) -> Result<(), DeviceFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        check_command(self.joints(), command)?;
        if !self.released {
            return Ok(());
        }
        self.drive(command);
        for _ in 0..self.substeps {
            self.engine.step();
        }
        self.fault = self.diverged();
        self.fault.map_or(Ok(()), Err)
    }

    fn stop(&mut self, how: Stop) -> Result<(), DeviceFault> {
        let wanted = match how {
            Stop::Hold => Drive::Hold,
            Stop::Damp => Drive::Damp,
            Stop::Off => Drive::Off,
        };
        if wanted == Drive::Hold && self.drive == Drive::Commands {
            self.hold = self.positions();
        }
        self.drive = self.drive.max(wanted);
        Ok(())
    }
}
