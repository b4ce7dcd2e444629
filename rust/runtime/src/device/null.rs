//! A robot without motors that measures what it was last told. It serves dry runs and benches.

use super::{
    Device, DeviceError, DeviceFault, DeviceInfo, Freshness, Stop, TimeSource, check_command, check_hold,
    check_robot,
};
use crate::robot::Robot;
use crate::safety::Level;
use crate::state::{Command, Joints, MAX_JOINTS, State};

const NAME: &str = "null";

/// Ideal tracking within one tick, starting at home.
///
/// A joint with stiffness is where it was told to be; one with damping only moves at the commanded velocity; one with
/// neither stands still. Nothing moves before [`enable`](Device::enable) or after [`stop`](Device::stop).
#[derive(Debug)]
pub struct NullDevice {
    info: DeviceInfo,
    robot: Robot,
    time: TimeSource,
    n: usize,
    dt: f64,
    q: Joints,
    dq: Joints,
    tau: Joints,
    enabled: bool,
    sequence: u64,
}

impl NullDevice {
    /// A robot that stands at home.
    pub fn new(robot: &Robot, time: TimeSource) -> Result<Self, DeviceError> {
        let n = check_robot(NAME, robot)?;
        let mut q = [0.0; MAX_JOINTS];
        for (q, joint) in q.iter_mut().zip(&robot.joints) {
            *q = joint.home;
        }
        Ok(Self {
            info: DeviceInfo { name: NAME, moves: false, objects: Vec::new() },
            robot: robot.clone(),
            time,
            n,
            dt: 1.0 / robot.control_hz,
            q,
            dq: [0.0; MAX_JOINTS],
            tau: [0.0; MAX_JOINTS],
            enabled: false,
            sequence: 0,
        })
    }

    fn rest(&mut self) {
        self.dq = [0.0; MAX_JOINTS];
        self.tau = [0.0; MAX_JOINTS];
    }
}

impl Device for NullDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn connect(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn enable(&mut self, hold: &Command) -> Result<(), DeviceError> {
        check_hold(NAME, &self.robot, &self.q[..self.n], hold)?;
        self.enabled = true;
        Ok(())
    }

    fn read(&mut self, out: &mut State) -> Result<Freshness, DeviceFault> {
        self.sequence += 1;
        out.n = self.n as u16;
        out.q = self.q;
        out.dq = self.dq;
        out.tau = self.tau;
        out.estop = false;
        Ok(Freshness {
            sequence: self.sequence,
            stamp_ns: self.time.now_ns(),
            stale_joints: 0,
            finished: false,
        })
    }

    fn write(&mut self, command: &Command) -> Result<(), DeviceFault> {
        check_command(self.n, command)?;
        if !self.enabled || command.level == Level::Off {
            self.rest();
            return Ok(());
        }
        for i in 0..self.n {
            let (stiff, damped) = (command.kp[i] > 0.0, command.kd[i] > 0.0);
            self.dq[i] = if stiff || damped { command.dq[i] } else { 0.0 };
            self.q[i] = if stiff { command.q[i] } else { self.q[i] + self.dq[i] * self.dt };
            self.tau[i] = command.tau[i];
        }
        Ok(())
    }

    fn stop(&mut self, _how: Stop) -> Result<(), DeviceFault> {
        self.enabled = false;
        self.rest();
        Ok(())
    }
}
