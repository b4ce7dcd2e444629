//! Whole ticks at the control rate, with and without the recorder, in blocks that the caller interleaves with others.
//!
//! Each line on the standard input is `plain N` (recorded, no monitors), `recorded N` or `unrecorded N`; the answer is the figures of N ticks, one line.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cadenza_benches::rig::Rig;
use cadenza_benches::samples::Block;
use cadenza_runtime::log::entry::Stage;
use cadenza_runtime::robot::Robot;
use cadenza_runtime::timing::clock::{Clock, MonotonicClock, next_deadline};
use clap::Parser;
use serde::Serialize;

/// Ticks before the first block: the policy's authority has grown to 1.
const WARM_UP: usize = 300;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    bundle: PathBuf,
    /// The same bundle without monitors.
    #[arg(long)]
    plain: PathBuf,
    #[arg(long)]
    robot: PathBuf,
    /// Folder of the logs.
    #[arg(long)]
    record: PathBuf,
}

#[derive(Serialize)]
struct Figures {
    /// Return of the read to entry of the write.
    response: Block,
    infer: Block,
    /// The whole tick but the inference.
    without_network: Block,
    total: Block,
    /// Log entries lost since the start.
    dropped: u64,
}

/// Runs `n` ticks on the grid of `period_ns`, starting one period from now.
fn block(rig: &mut Rig, period_ns: i64, n: usize) -> Result<Figures, String> {
    let mut clock = MonotonicClock::new(0);
    let mut deadline = clock.now_ns() + period_ns;
    let mut times: [Vec<u64>; 4] = std::array::from_fn(|_| Vec::with_capacity(n));
    for _ in 0..n {
        clock.sleep_until(deadline);
        let entry = rig.tick(deadline, &clock);
        let (total, infer) = (entry.stage_ns[Stage::Total as usize], entry.stage_ns[Stage::Infer as usize]);
        let all = [rig.device.response_ns as u64, infer.into(), (total - infer).into(), total.into()];
        times.iter_mut().zip(all).for_each(|(times, t)| times.push(t));
        (deadline, _) = next_deadline(deadline, clock.now_ns(), period_ns);
    }
    rig.running()?;
    let [response, infer, without_network, total] = &mut times;
    Ok(Figures {
        response: Block::of(response),
        infer: Block::of(infer),
        without_network: Block::of(without_network),
        total: Block::of(total),
        dropped: rig.dropped()?,
    })
}

fn started(bundle: &Path, robot: &Path, record: Option<&Path>, period_ns: i64) -> Result<Rig, String> {
    let mut rig = Rig::new(bundle, robot, record)?;
    rig.arm();
    block(&mut rig, period_ns, WARM_UP)?;
    Ok(rig)
}

fn run(args: &Args) -> Result<(), String> {
    let period_ns = Robot::load(&args.robot).map_err(|e| e.to_string())?.control_period_ns();
    let log = |name: &str| args.record.join(name).with_extension("mcap");
    let mut plain = started(&args.plain, &args.robot, Some(&log("plain")), period_ns)?;
    let mut recorded = started(&args.bundle, &args.robot, Some(&log("recorded")), period_ns)?;
    let mut unrecorded = started(&args.bundle, &args.robot, None, period_ns)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let (rig, n) = match line.split_once(' ') {
            Some(("plain", n)) => (&mut plain, n),
            Some(("recorded", n)) => (&mut recorded, n),
            Some(("unrecorded", n)) => (&mut unrecorded, n),
            _ => return Err(format!("{line:?}: plain N, recorded N or unrecorded N")),
        };
        let n = n.parse().map_err(|e| format!("{line:?}: {e}"))?;
        let figures = block(rig, period_ns, n)?;
        println!("{}", serde_json::to_string(&figures).expect("plain data always prints"));
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
