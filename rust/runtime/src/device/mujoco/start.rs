//! The state from which a simulation starts, and where the sim device finds everything.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use super::layout::{BODY, FREE, Field, SENSOR};
use super::model::Model;
use super::motor::Motor;
use crate::device::DeviceError;
use crate::device::sim::{SimBase, SimHandles, SimImu, SimObject, error};
use crate::robot::Robot;

/// A model and its data: what the sim device keeps alive.
pub(super) struct Simulation {
    model: Model,
    /// An `mjData`.
    data: NonNull<c_void>,
}

// SAFETY: MuJoCo binds neither to a thread, and the addresses belong to this value alone.
unsafe impl Send for Simulation {}

impl Simulation {
    /// A simulation of `model` in its initial state.
    pub(super) fn new(model: Model) -> Result<Self, DeviceError> {
        // SAFETY: the model lives.
        let data = unsafe { (model.mujoco.call.mj_makeData)(model.model.as_ptr()) };
        let data =
            NonNull::new(data).ok_or_else(|| error("MuJoCo has no memory for the simulation".into()))?;
        Ok(Self { model, data })
    }

    /// Sets the robot's joints to their home positions, and computes what follows from that.
    pub(super) fn start(&mut self, robot: &Robot, motors: &[Motor]) {
        let layout = self.model.layout();
        let at = self.model.array(&layout.jnt_qposadr, self.model.count(&layout.njnt));
        let qpos = self.data(&layout.qpos);
        for (motor, joint) in motors.iter().zip(&robot.joints) {
            // SAFETY: the address of a joint of this model lies inside its data's qpos.
            unsafe { qpos.add(at[motor.joint] as usize).write(joint.home) };
        }
        // SAFETY: both live, and the data were made for the model.
        unsafe { (self.model.mujoco.call.mj_forward)(self.model.model.as_ptr(), self.data.as_ptr()) }
    }

    /// Addresses and indices for the sim device, as `cadenza.sim.device.sim_handles` collects them. Those of `bodies` that
    /// move freely are its objects.
    ///
    /// # Errors
    /// A robot on several free joints, or an inertial sensor of another type.
    pub(super) fn handles(&self, motors: &[Motor], bodies: &[String]) -> Result<SimHandles, DeviceError> {
        let (model, layout) = (&self.model, self.model.layout());
        let (nactuator, njnt) = (model.count(&layout.nactuator), model.count(&layout.njnt));
        let of_joint = |field: &Field<*mut c_int>| -> Vec<usize> {
            let numbers = model.array(field, njnt);
            motors.iter().map(|motor| numbers[motor.joint] as usize).collect()
        };
        let control = model.array(&layout.actuator_ctrladr, nactuator);
        let force = model.array(&layout.actuator_forcerange, nactuator * 2);
        Ok(SimHandles {
            library: model.mujoco.path.clone(),
            version: model.mujoco.version,
            model: model.model.as_ptr().expose_provenance(),
            data: self.data.as_ptr().expose_provenance(),
            qpos: self.data(&layout.qpos).expose_provenance(),
            nq: model.count(&layout.nq),
            qvel: self.data(&layout.qvel).expose_provenance(),
            qfrc_actuator: self.data(&layout.qfrc_actuator).expose_provenance(),
            nv: model.count(&layout.nv),
            ctrl: self.data(&layout.ctrl).expose_provenance(),
            nu: model.count(&layout.nu),
            sensordata: self.data(&layout.sensordata).expose_provenance(),
            nsensordata: model.count(&layout.nsensordata),
            gainprm: model.value(&layout.actuator_gainprm).expose_provenance(),
            biasprm: model.value(&layout.actuator_biasprm).expose_provenance(),
            nactuator,
            prm_row: layout.prm_row,
            joint_qpos: of_joint(&layout.jnt_qposadr),
            joint_qvel: of_joint(&layout.jnt_dofadr),
            actuator: motors.iter().map(|motor| motor.actuator).collect(),
            actuator_ctrl: motors.iter().map(|motor| control[motor.actuator] as usize).collect(),
            effort: motors.iter().map(|motor| force[2 * motor.actuator + 1]).collect(),
            warnings: layout
                .warnings
                .map(|at| self.data.as_ptr().wrapping_byte_add(at).expose_provenance())
                .into(),
            imu: SimImu {
                quat: self.sensor("imu_quat", "framequat", layout.framequat)?,
                gyro: self.sensor("imu_gyro", "gyro", layout.gyro)?,
                acc: self.sensor("imu_accel", "accelerometer", layout.accelerometer)?,
            },
            base: self.base(motors)?,
            objects: bodies.iter().filter_map(|name| self.object(name)).collect(),
            timestep: model.value(&layout.timestep),
        })
    }

    /// The inertial sensor of this name, and where its numbers begin.
    fn sensor(&self, name: &str, wanted: &str, kind: c_int) -> Result<Option<usize>, DeviceError> {
        let (model, layout) = (&self.model, self.model.layout());
        let Some(sensor) = model.find(SENSOR, name) else { return Ok(None) };
        if model.array(&layout.sensor_type, sensor + 1)[sensor] != kind {
            return Err(error(format!("sensor '{name}' must be a {wanted}")));
        }
        Ok(Some(model.array(&layout.sensor_adr, sensor + 1)[sensor] as usize))
    }

    /// The free joint at the root of the tree that the robot's joints belong to.
    fn base(&self, motors: &[Motor]) -> Result<Option<SimBase>, DeviceError> {
        let (model, layout) = (&self.model, self.model.layout());
        let njnt = model.count(&layout.njnt);
        let body = model.array(&layout.jnt_bodyid, njnt);
        let root = model.array(&layout.body_rootid, model.count(&layout.nbody));
        let roots: Vec<_> = motors.iter().map(|motor| root[body[motor.joint] as usize]).collect();
        let free: Vec<_> = self.free().filter(|&joint| roots.contains(&body[joint])).collect();
        match free[..] {
            [] => Ok(None),
            [joint] => Ok(Some(SimBase {
                qpos: model.array(&layout.jnt_qposadr, njnt)[joint] as usize,
                qvel: model.array(&layout.jnt_dofadr, njnt)[joint] as usize,
            })),
            _ => Err(error(format!(
                "the robot's joints hang on {} free joints, must be one at most",
                free.len()
            ))),
        }
    }

    /// The body of this name, if it moves freely.
    fn object(&self, name: &str) -> Option<SimObject> {
        let (model, layout) = (&self.model, self.model.layout());
        let body = model.find(BODY, name)?;
        let of_joint = model.array(&layout.jnt_bodyid, model.count(&layout.njnt));
        self.free().any(|joint| of_joint[joint] as usize == body).then(|| SimObject {
            name: name.to_owned(),
            pos: self.data(&layout.xpos).wrapping_add(3 * body).expose_provenance(),
            quat: self.data(&layout.xquat).wrapping_add(4 * body).expose_provenance(),
        })
    }

    /// The free joints.
    fn free(&self) -> impl Iterator<Item = usize> {
        let layout = self.model.layout();
        let kinds = self.model.array(&layout.jnt_type, self.model.count(&layout.njnt));
        kinds.iter().enumerate().filter_map(|(joint, &kind)| (kind == FREE).then_some(joint))
    }

    fn data<T: Copy>(&self, field: &Field<T>) -> T {
        // SAFETY: the data live, and the layout is that of their version.
        unsafe { field.read(self.data) }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // SAFETY: this library made them, for this model, which is deleted after them.
        unsafe { (self.model.mujoco.call.mj_deleteData)(self.data.as_ptr()) }
    }
}
