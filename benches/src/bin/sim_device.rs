//! The sim device alone: its commands and measurements at home, without the loop around them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use cadenza_runtime::device::mujoco::simulate;
use cadenza_runtime::device::{Device, TimeSource};
use cadenza_runtime::robot::Robot;
use cadenza_runtime::safety::Level;
use cadenza_runtime::state::{Command, State};
use clap::Parser;
use serde::Serialize;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    robot: PathBuf,
    #[arg(long)]
    mujoco_lib: PathBuf,
    /// Control ticks.
    #[arg(long)]
    ticks: u64,
}

#[derive(Serialize)]
struct Output {
    /// Process CPU time of the ticks.
    cpu_s: f64,
}

fn cpu_seconds() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the structure, and this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut now) };
    now.tv_sec as f64 + 1e-9 * now.tv_nsec as f64
}

fn run() -> Result<Output, Box<dyn std::error::Error>> {
    let args = Args::parse();
    let robot = Robot::load(&args.robot)?;
    let mut device = simulate(&args.mujoco_lib, &robot, None, TimeSource::Virtual(Arc::default()))?;
    device.connect()?;
    let n = robot.joints.len();
    let mut command = Command { level: Level::Run, ..Command::off(n) };
    for (i, joint) in robot.joints.iter().enumerate() {
        let gains = &joint.gains;
        (command.q[i], command.kp[i], command.kd[i]) = (joint.home, gains.kp_max, gains.kd_max);
    }
    let mut state = State::new(n);
    device.read(&mut state).map_err(|fault| format!("{fault:?}"))?;
    device.enable(&command)?;
    let start = cpu_seconds();
    for _ in 0..args.ticks {
        device.write(&command).map_err(|fault| format!("{fault:?}"))?;
        device.read(&mut state).map_err(|fault| format!("{fault:?}"))?;
    }
    Ok(Output { cpu_s: cpu_seconds() - start })
}

fn main() -> ExitCode {
    cadenza_benches::finish(run())
}
