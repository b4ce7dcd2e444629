//! The whole loop on motors that do nothing, taken apart so that a benchmark can step it.

use std::path::Path;

use cadenza_policy::{Bundle, Options, Policy};
use cadenza_runtime::config::RunConfig;
use cadenza_runtime::control::{Controller, Due, Inbox, Planner, Request};
use cadenza_runtime::device::null::NullDevice;
use cadenza_runtime::device::{Device, DeviceError, DeviceFault, DeviceInfo, Freshness, Stop, TimeSource};
use cadenza_runtime::log::entry::TickEntry;
use cadenza_runtime::log::{LogHeader, Recorder};
use cadenza_runtime::robot::Robot;
use cadenza_runtime::safety::{Level, Phase};
use cadenza_runtime::state::{Command, State};
use cadenza_runtime::timing::clock::{Clock, monotonic_ns};
use cadenza_runtime::timing::sched::RtReport;

/// The null device with an upright IMU; it notes how long the loop took from the state to the command.
pub struct Timed {
    inner: NullDevice,
    read_ns: i64,
    /// From the return of the last read to the entry of the write that answered it, ns.
    pub response_ns: i64,
}

impl Device for Timed {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    fn connect(&mut self) -> Result<(), DeviceError> {
        self.inner.connect()
    }

    fn enable(&mut self, hold: &Command) -> Result<(), DeviceError> {
        self.inner.enable(hold)
    }

    fn read(&mut self, out: &mut State) -> Result<Freshness, DeviceFault> {
        let fresh = self.inner.read(out);
        out.imu.valid = true;
        out.imu.quat = [1.0, 0.0, 0.0, 0.0];
        out.imu.acc = [0.0, 0.0, 9.81];
        self.read_ns = monotonic_ns();
        fresh
    }

    fn write(&mut self, command: &Command) -> Result<(), DeviceFault> {
        self.response_ns = monotonic_ns() - self.read_ns;
        self.inner.write(command)
    }

    fn stop(&mut self, how: Stop) -> Result<(), DeviceFault> {
        self.inner.stop(how)
    }
}

/// A loop that is stepped from outside.
pub struct Rig {
    controller: Controller,
    /// The motors.
    pub device: Timed,
    log: Recorder,
    inbox: Inbox,
}

impl Rig {
    /// The loop of a bundle on a robot; recorded when `record` is given.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn new(bundle: &Path, robot: &Path, record: Option<&Path>) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let bundle = Bundle::open(bundle).map_err(|e| text(&e))?;
        let robot = Robot::load(robot).map_err(|e| text(&e))?;
        let policy = Policy::load(&bundle, &Options::default()).map_err(|e| text(&e))?;
        let mut inner = NullDevice::new(&robot, TimeSource::Monotonic).map_err(|e| text(&e))?;
        inner.connect().map_err(|e| text(&e))?;
        let config = RunConfig::default();
        let manifest = bundle.manifest();
        let (spec, info) = (bundle.specification(), inner.info().clone());
        let controller =
            Controller::new(manifest, spec, &robot, &info, Planner::inline(Box::new(policy)), &config);
        let mut controller = controller.map_err(|e| text(&e))?;
        controller.warm_up(100);
        let log = match record {
            Some(path) => Recorder::start(path, LogHeader::new(&robot, &config, &RtReport::default())),
            None => Recorder::off(),
        };
        let device = Timed { inner, read_ns: 0, response_ns: 0 };
        Ok(Self { controller, device, log, inbox: Inbox::empty() })
    }

    /// Asks for the motors.
    pub fn arm(&mut self) {
        self.controller.obey(Request::Arm, &mut self.device, &mut self.log);
    }

    /// One tick.
    pub fn tick(&mut self, deadline_ns: i64, clock: &dyn Clock) -> TickEntry {
        let due = Due { deadline_ns, skipped: 0 };
        self.controller.tick(due, &mut self.device, clock, &mut self.inbox, &mut self.log)
    }

    /// Whether the policy drives, without a fault so far.
    ///
    /// # Errors
    /// What it does instead.
    pub fn running(&self) -> Result<(), String> {
        let gate = self.controller.gate();
        match (gate.phase(), gate.level(), gate.first_fault()) {
            (Phase::Armed, Level::Run, None) => Ok(()),
            (phase, level, fault) => {
                let refusal = self.controller.refusal();
                Err(format!("the loop is {phase:?} at level {level:?}; fault {fault:?}, refusal {refusal:?}"))
            }
        }
    }

    /// Log entries lost so far.
    ///
    /// # Errors
    /// Why nothing is recorded any more.
    pub fn dropped(&self) -> Result<u64, String> {
        let status = self.log.status();
        match status.error {
            Some(error) => Err(error),
            None => Ok(status.dropped.iter().map(|(_, n)| n).sum()),
        }
    }
}
