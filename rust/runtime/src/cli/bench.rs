//! `bench latency`, `bench compare`: how late, how long, and did it get worse?

use std::path::{Path, PathBuf};

use super::output::Out;
use super::run::prepare_at;
use super::{Failure, Host, Outcome, bad, in_file, open_bundle, open_robot};
use crate::config::RunConfig;
use crate::control::Inbox;
use crate::log::entry::Stage;
use crate::timing::bare::PairedClock;
use crate::timing::compare::{CompareError, compare};
use crate::timing::summary::{BARE_WAKE, StageSummary, StatsSummary};

/// Measure the loop, compare two measurements.
#[derive(clap::Subcommand)]
#[command(
    after_help = "Example:\n  PROGRAM bench latency walk.cadenza --robot robots/arm6 --device null --out a.json"
)]
pub(super) enum Verb {
    Latency(Latency),
    Compare(Compare),
}

/// Measure the whole loop in real time: every stage, and a bare sleeper in between.
///
/// Blocks of 64 ticks alternate with 64 bare periods of the same thread, so it takes twice as long as --seconds.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  PROGRAM bench latency walk.cadenza --robot robots/arm6 --device null --seconds 20 --out a.json"
)]
pub(super) struct Latency {
    /// Bundle.
    bundle: PathBuf,
    /// Robot: a folder with a robot.toml, or the file.
    #[arg(long)]
    robot: String,
    /// null or sim.
    #[arg(long, default_value = "null", value_parser = ["null", "sim"])]
    device: String,
    /// Control rate, Hz; must be the robot's.
    #[arg(long, allow_negative_numbers = true)]
    hz: Option<f64>,
    /// Length of the loop, s.
    #[arg(long, value_name = "S", default_value_t = 10.0, allow_negative_numbers = true)]
    seconds: f64,
    /// JSON to write.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Compare two measurements stage by stage, with 95 % intervals. Exit code 4 when a stage got worse.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  PROGRAM bench compare before.json after.json --fail-above 1.10")]
pub(super) struct Compare {
    /// Measurement before.
    before: PathBuf,
    /// Measurement after.
    after: PathBuf,
    /// Largest ratio of medians that is accepted.
    #[arg(long, value_name = "RATIO", default_value_t = 1.10, allow_negative_numbers = true)]
    fail_above: f64,
}

pub(super) fn run(verb: &Verb, host: &dyn Host, out: &mut Out) -> Outcome {
    match verb {
        Verb::Latency(args) => latency(args, host, out),
        Verb::Compare(args) => comparison(args, out),
    }
}

fn latency(args: &Latency, host: &dyn Host, out: &mut Out) -> Outcome {
    let bundle = open_bundle(&args.bundle)?;
    let robot = open_robot(&args.robot, host)?;
    if let Some(hz) = args.hz.filter(|hz| *hz != robot.control_hz) {
        let own = robot.control_hz;
        return Err(bad(format_args!("--hz {hz}: {} runs at {own} Hz", robot.path.display())));
    }
    let config = RunConfig { seconds: Some(args.seconds), ..RunConfig::default() };
    let mut clock = PairedClock::new(robot.control_period_ns(), config.spin_us);
    let time = clock.time_source();
    let prepared = prepare_at(&args.bundle, &bundle, &robot, &args.device, &config, time, host)?;
    let report = prepared.run_on(&mut clock, Inbox::empty());
    if report.exit_code != 0 {
        return Err(Failure {
            text: format!("the run ended early: {}", report.ended),
            code: report.exit_code,
        });
    }
    let mut stats = report.stats;
    stats.stages.insert(0, StageSummary::new(BARE_WAKE, clock.lateness()));
    out.say(stats.table().trim_end());
    if let Some(ratio) = ratio(&stats) {
        out.say(ratio);
    }
    if let Some(path) = &args.out {
        write(path, &stats)?;
        out.say(format_args!(" {}", path.display()));
    }
    Ok(0)
}

/// Wake lateness of the loop against that of the bare sleeper.
fn ratio(stats: &StatsSummary) -> Option<String> {
    let (bare, wake) = (stats.stage(BARE_WAKE)?, stats.stage(Stage::Wake.name())?);
    let of = |a: u64, b: u64| a as f64 / b.max(1) as f64;
    let (p50, p99) = (of(wake.p50, bare.p50), of(wake.p99, bare.p99));
    (bare.count > 0).then(|| format!(" wake lateness / bare wake: p50 {p50:.2}, p99 {p99:.2}"))
}

fn write(path: &Path, stats: &StatsSummary) -> Result<(), Failure> {
    std::fs::write(path, serde_json::to_string(stats)?).map_err(in_file(path))
}

fn comparison(args: &Compare, out: &mut Out) -> Outcome {
    if !(args.fail_above > 0.0 && args.fail_above.is_finite()) {
        return Err(bad(format_args!("--fail-above {}: a ratio above 0", args.fail_above)));
    }
    let read = |path: &Path| std::fs::read_to_string(path).map_err(in_file(path));
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let comparison = compare(&before, &after, args.fail_above).map_err(|error| {
        let which = match &error {
            CompareError::Json { which, .. }
            | CompareError::Schema { which, .. }
            | CompareError::Count { which, .. } => *which,
        };
        in_file(if which == "before" { &args.before } else { &args.after })(error)
    })?;
    out.say(comparison.to_string().trim_end());
    Ok(comparison.exit_code())
}
