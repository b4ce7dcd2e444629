//! Where everything lies in the simulator's memory.

use std::path::PathBuf;

use super::memory::{Numbers, error};
use crate::device::DeviceError;
use crate::robot::Robot;
use crate::state::MAX_OBJECTS;

/// Addresses and indices of a MuJoCo model and its data, as `cadenza.sim.device.sim_handles` collects them.
///
/// Addresses are those of arrays of f64 unless said otherwise; indices count elements of these arrays.
#[derive(Clone, Debug, Default)]
pub struct SimHandles {
    /// The library that made model and data, loaded in this process.
    pub library: PathBuf,
    /// Its `mj_version()`.
    pub version: i32,
    /// Address of `mjModel`.
    pub model: usize,
    /// Address of `mjData`.
    pub data: usize,
    /// `data.qpos`.
    pub qpos: usize,
    /// Its length.
    pub nq: usize,
    /// `data.qvel`.
    pub qvel: usize,
    /// `data.qfrc_actuator`, as long as `qvel`.
    pub qfrc_actuator: usize,
    /// Length of both.
    pub nv: usize,
    /// `data.ctrl`.
    pub ctrl: usize,
    /// Its length.
    pub nu: usize,
    /// `data.sensordata`.
    pub sensordata: usize,
    /// Its length.
    pub nsensordata: usize,
    /// `model.actuator_gainprm`, `nactuator` rows of `prm_row`.
    pub gainprm: usize,
    /// `model.actuator_biasprm`, of the same shape.
    pub biasprm: usize,
    /// Rows of both.
    pub nactuator: usize,
    /// Length of a row of both.
    pub prm_row: usize,
    /// Index in `qpos` of each joint, robot order.
    pub joint_qpos: Vec<usize>,
    /// Index in `qvel` of each joint, robot order.
    pub joint_qvel: Vec<usize>,
    /// Row of each joint's actuator, robot order.
    pub actuator: Vec<usize>,
    /// Index in `ctrl` of each joint's actuator, robot order.
    pub actuator_ctrl: Vec<usize>,
    /// Force limit of each joint's actuator, robot order.
    pub effort: Vec<f64>,
    /// Addresses of the `int` counters of the warnings about a state beyond repair.
    pub warnings: Vec<usize>,
    /// Inertial sensors.
    pub imu: SimImu,
    /// Free joint of the robot's base.
    pub base: Option<SimBase>,
    /// Objects to report, in the order of [`State::objects`](crate::state::State).
    pub objects: Vec<SimObject>,
    /// Time step of the physics, s.
    pub timestep: f64,
}

/// Index in `sensordata` of the first number of each inertial sensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimImu {
    /// Orientation (4 numbers).
    pub quat: Option<usize>,
    /// Angular velocity (3).
    pub gyro: Option<usize>,
    /// Specific force (3).
    pub acc: Option<usize>,
}

/// Indices of a free joint: 7 numbers in `qpos`, 6 in `qvel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimBase {
    /// First index in `qpos`.
    pub qpos: usize,
    /// First index in `qvel`.
    pub qvel: usize,
}

/// A body that is reported as an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimObject {
    /// Name.
    pub name: String,
    /// Address of its row of `data.xpos` (3 numbers).
    pub pos: usize,
    /// Address of its row of `data.xquat` (4 numbers).
    pub quat: usize,
}

impl SimHandles {
    /// Whether the physics step divides the control period, and how often.
    pub(super) fn substeps(&self, control_hz: f64) -> Result<u32, DeviceError> {
        let ratio = 1.0 / (control_hz * self.timestep);
        let whole = ratio.round();
        // 1e-6: both numbers come from decimal text, 1/(500·0.0005) is not exactly 4.
        if !(1.0..=1e6).contains(&whole) || (ratio - whole).abs() > 1e-6 * whole {
            let dt = self.timestep;
            return Err(error(format!(
                "the control period 1/{control_hz} s is {ratio} physics steps of {dt} s, not a whole number"
            )));
        }
        Ok(whole as u32)
    }

    /// Checks every index against the length of its array, so that nothing has to be checked in the loop.
    pub(super) fn check(&self, robot: &Robot) -> Result<(), DeviceError> {
        let n = robot.joints.len();
        let columns = [
            ("joint_qpos", &self.joint_qpos, self.nq),
            ("joint_qvel", &self.joint_qvel, self.nv),
            ("actuator", &self.actuator, self.nactuator),
            ("actuator_ctrl", &self.actuator_ctrl, self.nu),
        ];
        for (what, indices, len) in columns {
            if indices.len() != n {
                return Err(error(format!("{what} names {} joints, {} has {n}", indices.len(), robot.name)));
            }
            for (i, (&index, joint)) in indices.iter().zip(&robot.joints).enumerate() {
                if index >= len {
                    return Err(error(format!("{what} of joint {} is {index}, length {len}", joint.name)));
                }
                if let Some(k) = indices[..i].iter().position(|&other| other == index) {
                    let (a, b) = (&robot.joints[k].name, &joint.name);
                    return Err(error(format!("joints {a} and {b} share {what} {index}")));
                }
            }
        }
        if self.effort.len() != n {
            return Err(error(format!("effort names {} joints, {} has {n}", self.effort.len(), robot.name)));
        }
        for (&model, joint) in self.effort.iter().zip(&robot.joints) {
            let limit = joint.limits.effort;
            let distance = (model - limit).abs();
            if distance.is_nan() || distance > 1e-9 * limit {
                return Err(error(format!(
                    "joint {}: the model's force limit is {model}, robot.toml says {limit}",
                    joint.name
                )));
            }
        }
        if self.prm_row < 3 {
            return Err(error(format!("rows of biasprm have {} numbers, 3 are needed", self.prm_row)));
        }
        let spans = [
            ("IMU orientation", self.imu.quat, 4, self.nsensordata),
            ("gyroscope", self.imu.gyro, 3, self.nsensordata),
            ("accelerometer", self.imu.acc, 3, self.nsensordata),
            ("base position", self.base.map(|b| b.qpos), 7, self.nq),
            ("base velocity", self.base.map(|b| b.qvel), 6, self.nv),
        ];
        for (what, start, width, len) in spans {
            if let Some(start) = start
                && start.checked_add(width).is_none_or(|end| end > len)
            {
                return Err(error(format!("{what} starts at {start}, needs {width} numbers, length {len}")));
            }
        }
        if self.objects.len() > MAX_OBJECTS {
            return Err(error(format!("{} objects, at most {MAX_OBJECTS}", self.objects.len())));
        }
        self.check_imu(robot)
    }

    /// A robot that has an IMU needs all of it: a sensor that silently reads zero would look like free fall.
    fn check_imu(&self, robot: &Robot) -> Result<(), DeviceError> {
        let Some(imu) = &robot.imu else { return Ok(()) };
        let sensors = [
            ("imu_quat", self.imu.quat.is_some() || self.base.is_some()),
            ("imu_gyro", self.imu.gyro.is_some() || self.base.is_some()),
            ("imu_accel", self.imu.acc.is_some()),
        ];
        if let Some((missing, _)) = sensors.iter().find(|(_, present)| !present) {
            return Err(error(format!("robot.toml has an IMU, the model has no sensor {missing}")));
        }
        let from_base = self.imu.quat.is_none() || self.imu.gyro.is_none();
        if from_base && imu.mount_quat != [1.0, 0.0, 0.0, 0.0] {
            let q = imu.mount_quat;
            return Err(error(format!("an IMU mounted at {q:?} needs the sensors imu_quat and imu_gyro")));
        }
        Ok(())
    }

    /// Checks the state that the device starts from, and that every actuator has the gain of the motor law.
    pub(super) fn check_values(
        &self,
        robot: &Robot,
        qpos: &Numbers,
        qvel: &Numbers,
        gainprm: &Numbers,
    ) -> Result<(), DeviceError> {
        for (name, numbers) in [("qpos", qpos), ("qvel", qvel)] {
            if let Some(i) = (0..numbers.len()).find(|&i| !numbers.get(i).is_finite()) {
                return Err(error(format!("{name}[{i}] is {}", numbers.get(i))));
            }
        }
        for (&row, joint) in self.actuator.iter().zip(&robot.joints) {
            let gain = gainprm.get(row * self.prm_row);
            if gain != 1.0 {
                return Err(error(format!(
                    "the actuator of joint {} has gain {gain}, must be 1",
                    joint.name
                )));
            }
        }
        Ok(())
    }
}
