//! What the loop sends while a policy on another thread takes a tenth of a second for each sequence: commands that go back
//! or repeat, ticks on hold, achieved rate.
//!
//! Every row of the policy's answers is the control tick that it belongs to, in small steps: a command that is not above
//! the one before it is an action that was played again.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cadenza_policy::Bundle;
use cadenza_runtime::action::Flow;
use cadenza_runtime::config::{RunConfig, Trigger};
use cadenza_runtime::control::{Ask, Controller, Due, Inbox, Planner, PolicyError, PolicySource, Request};
use cadenza_runtime::device::null::NullDevice;
use cadenza_runtime::device::{Device, DeviceError, DeviceFault, DeviceInfo, Freshness, Stop, TimeSource};
use cadenza_runtime::log::Recorder;
use cadenza_runtime::robot::Robot;
use cadenza_runtime::state::{Command, State};
use cadenza_runtime::timing::clock::{Clock, MonotonicClock, next_deadline};
use cadenza_runtime::timing::sched::{RtRequest, enter};
use clap::Parser;
use serde::Serialize;

/// Calls of a policy before its first question, which are not slow.
const WARM_UP: u64 = 100;
/// Distance of two rows, rad.
const STEP: f64 = 1e-3;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    bundle: PathBuf,
    #[arg(long)]
    robot: PathBuf,
    #[arg(long)]
    seconds: f64,
    /// Fastest and slowest inference, ms.
    #[arg(long, num_args = 2, default_values_t = [100.0, 150.0])]
    inference_ms: Vec<f64>,
    /// Time that sending a command takes, ms.
    #[arg(long)]
    send_ms: f64,
    /// Steps left in the plan at which the policy is asked.
    #[arg(long, default_value_t = 25)]
    remaining: u64,
}

/// Answers after a while, drawn evenly from a range.
struct Slow {
    calls: u64,
    random: u64,
    range: [f64; 2],
}

impl PolicySource for Slow {
    fn reset(&mut self) {}

    fn act(&mut self, ask: &Ask<'_>, out: &mut [f32]) -> Result<(), PolicyError> {
        self.calls += 1;
        for (row, out) in (ask.tick..).zip(out.iter_mut()) {
            *out = (row as f64 * STEP) as f32;
        }
        if self.calls > WARM_UP {
            self.random =
                self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let share = (self.random >> 11) as f64 / (1_u64 << 53) as f64;
            let [lo, hi] = self.range;
            std::thread::sleep(Duration::from_secs_f64((lo + share * (hi - lo)) / 1e3));
        }
        Ok(())
    }
}

/// The null device behind a slow line.
struct Line {
    inner: NullDevice,
    send: Duration,
}

impl Device for Line {
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
        self.inner.read(out)
    }

    fn write(&mut self, command: &Command) -> Result<(), DeviceFault> {
        std::thread::sleep(self.send);
        self.inner.write(command)
    }

    fn stop(&mut self, how: Stop) -> Result<(), DeviceFault> {
        self.inner.stop(how)
    }
}

#[derive(Serialize)]
struct Output {
    level: String,
    /// Commands since the first action.
    sent: u64,
    /// Time that they took, s.
    seconds: f64,
    /// Commands that are not above the one before, while the plan had an action.
    repeated: u64,
    /// Ticks without an action.
    held: u64,
}

fn run(args: &Args) -> Result<Output, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let bundle = Bundle::open(&args.bundle).map_err(|e| text(&e))?;
    let robot = Robot::load(&args.robot).map_err(|e| text(&e))?;
    let inner = NullDevice::new(&robot, TimeSource::Monotonic).map_err(|e| text(&e))?;
    let mut device = Line { inner, send: Duration::from_secs_f64(args.send_ms / 1e3) };
    device.connect().map_err(|e| text(&e))?;
    let config = RunConfig { trigger: Some(Trigger::Remaining(args.remaining)), ..RunConfig::default() };
    let slow = Slow { calls: 0, random: 7, range: [args.inference_ms[0], args.inference_ms[1]] };
    let planner = Planner::threaded(Box::new(slow), robot.control_dt());
    let info = device.info().clone();
    let controller =
        Controller::new(bundle.manifest(), bundle.specification(), &robot, &info, planner, &config);
    let mut controller = controller.map_err(|e| text(&e))?;
    let (mut log, mut inbox) = (Recorder::off(), Inbox::empty());
    let guard = enter(&RtRequest { priority: 80, core: None, spin_us: 0 });
    let mut clock = MonotonicClock::new(0);
    controller.obey(Request::Arm, &mut device, &mut log);
    let period = robot.control_period_ns();
    let (mut deadline, mut skipped) = (clock.now_ns() + period, 0);
    let (mut start, mut end) = (None, clock.now_ns());
    let (mut sent, mut repeated, mut held, mut last) = (0, 0, 0, f64::NEG_INFINITY);
    while start.is_none_or(|start| ((end - start) as f64) < args.seconds * 1e9) {
        clock.sleep_until(deadline);
        let due = Due { deadline_ns: deadline, skipped };
        let entry = controller.tick(due, &mut device, &clock, &mut inbox, &mut log);
        end = clock.now_ns();
        (deadline, skipped) = next_deadline(deadline, end, period);
        let command = controller.command().q[0];
        if start.is_some() {
            sent += 1;
            match entry.flow {
                Flow::Run => repeated += u64::from(command <= last),
                Flow::Hold | Flow::Exhausted => held += 1,
            }
        } else if entry.flow == Flow::Run {
            start = Some(end);
        }
        last = command;
        if let Some(fault) = controller.gate().first_fault() {
            return Err(format!("the loop stopped: {fault:?}"));
        }
    }
    let seconds = (end - start.unwrap_or(end)) as f64 / 1e9;
    Ok(Output { level: guard.report().level(), sent, seconds, repeated, held })
}

fn main() -> ExitCode {
    cadenza_benches::finish(run(&Args::parse()))
}
