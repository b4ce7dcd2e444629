//! How late the loop wakes, and how late a thread wakes that does nothing else: blocks of 64 of both, in turn, on one
//! thread with the loop's own scheduling class.

use std::path::PathBuf;
use std::process::ExitCode;

use cadenza_benches::rig::Rig;
use cadenza_benches::samples::Block;
use cadenza_runtime::robot::Robot;
use cadenza_runtime::timing::clock::{Clock, MonotonicClock, next_deadline};
use cadenza_runtime::timing::sched::{RtRequest, enter};
use clap::Parser;
use serde::Serialize;

/// Wake-ups in a block.
const BLOCK: usize = 64;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    bundle: PathBuf,
    #[arg(long)]
    robot: PathBuf,
    /// Log of the loop.
    #[arg(long)]
    record: PathBuf,
    /// The loop's spin before each deadline, µs; the bare sleeper never spins.
    #[arg(long, default_value_t = 0)]
    spin_us: u32,
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Blocks of each kind in a round.
    #[arg(long, default_value_t = 8)]
    blocks: usize,
}

#[derive(Serialize)]
struct Output {
    /// What the operating system granted.
    level: String,
    period_ns: i64,
    rounds: Vec<Round>,
}

#[derive(Serialize)]
struct Round {
    bare: Block,
    wake: Block,
}

/// 64 wake-ups from one period from now on; `tick` gets each deadline. Appends how late each was.
fn block(
    clock: &mut MonotonicClock,
    period_ns: i64,
    late: &mut Vec<u64>,
    mut tick: impl FnMut(i64, &MonotonicClock),
) {
    let mut deadline = clock.now_ns() + period_ns;
    for _ in 0..BLOCK {
        clock.sleep_until(deadline);
        late.push((clock.now_ns() - deadline).unsigned_abs());
        tick(deadline, clock);
        (deadline, _) = next_deadline(deadline, clock.now_ns(), period_ns);
    }
}

fn run(args: &Args) -> Result<Output, String> {
    let period_ns = Robot::load(&args.robot).map_err(|e| e.to_string())?.control_period_ns();
    let mut rig = Rig::new(&args.bundle, &args.robot, Some(&args.record))?;
    let guard = enter(&RtRequest { priority: 80, core: None, spin_us: args.spin_us });
    let (mut sleeping, mut looping) = (MonotonicClock::new(0), MonotonicClock::new(args.spin_us));
    rig.arm();
    let size = args.blocks.max(1) * BLOCK;
    let (mut bare, mut wake) = (Vec::with_capacity(size), Vec::with_capacity(size));
    // The first round is thrown away: everything is cold in it.
    let mut rounds = Vec::with_capacity(args.rounds + 1);
    for _ in 0..=args.rounds {
        bare.clear();
        wake.clear();
        for _ in 0..args.blocks.max(1) {
            block(&mut looping, period_ns, &mut wake, |deadline, clock| {
                rig.tick(deadline, clock);
            });
            block(&mut sleeping, period_ns, &mut bare, |_, _| ());
        }
        rounds.push(Round { bare: Block::of(&mut bare), wake: Block::of(&mut wake) });
    }
    rounds.remove(0);
    rig.running()?;
    Ok(Output { level: guard.report().level(), period_ns, rounds })
}

fn main() -> ExitCode {
    cadenza_benches::finish(run(&Args::parse()))
}
