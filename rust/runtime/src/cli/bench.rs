//! `bench latency`, `bench compare`: how late, how long, and did it get worse?

use std::path::{Path, PathBuf};

use super::output::Out;
use super::run::{Chosen, prepare_at};
use super::{Failure, Host, Outcome, bad, in_file, open_bundle, open_robot};
use crate::config::RunConfig;
use crate::control::{Inbox, Report};
use crate::report::bench_html;
use crate::timing::bare::PairedClock;
use crate::timing::compare::{CompareError, compare};
use crate::timing::host;
use crate::timing::measurement::{BenchConfig, Measurement};
use crate::timing::stress::{BusyThreads, ColdClock, Eviction, MAX_BYTES, MAX_THREADS};

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
/// Blocks of 64 ticks alternate with 64 bare periods of the same thread, so it takes twice as long as --seconds. With
/// --evict as many ticks follow on cold caches, each after a pause in which the memory is touched.
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
    /// MuJoCo's library, to simulate without Python: the libmujoco.so.X.Y.Z of a wheel.
    #[arg(long, value_name = "PATH")]
    mujoco_lib: Option<PathBuf>,
    /// Control rate, Hz; must be the robot's.
    #[arg(long, allow_negative_numbers = true)]
    hz: Option<f64>,
    /// Length of the loop, s.
    #[arg(long, value_name = "S", default_value_t = 10.0, allow_negative_numbers = true)]
    seconds: f64,
    /// JSON to write.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Page with charts to write.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Busy threads beside the loop.
    #[arg(long, value_name = "N", default_value_t = 0)]
    stress: usize,
    /// Measure cold caches as well: memory to touch before each tick, such as 64MiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    evict: Option<usize>,
}

/// `64MiB`, `512KiB`, `1GiB`, or bytes.
fn size(text: &str) -> Result<usize, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let (digits, shift) = units
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
        .unwrap_or((text, 0));
    let bytes = digits.trim().parse::<usize>().ok().and_then(|n| n.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if (1..=MAX_BYTES).contains(&bytes) => Ok(bytes),
        _ => Err(format!("'{text}': a size such as 64MiB, at most {} GiB", MAX_BYTES >> 30)),
    }
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
    let device = Chosen::new(&args.device, args.mujoco_lib.as_deref())?;
    let bundle = open_bundle(&args.bundle)?;
    let robot = open_robot(&args.robot, host)?;
    if let Some(hz) = args.hz.filter(|hz| *hz != robot.control_hz) {
        let own = robot.control_hz;
        return Err(bad(format_args!("--hz {hz}: {} runs at {own} Hz", robot.path.display())));
    }
    if args.stress > MAX_THREADS {
        return Err(bad(format_args!("--stress {}: at most {MAX_THREADS} threads", args.stress)));
    }
    let eviction = args
        .evict
        .map(Eviction::new)
        .transpose()
        .map_err(|error| bad(format_args!("--evict {}: {error}", args.evict.unwrap_or_default())))?;
    let config = RunConfig { seconds: Some(args.seconds), ..RunConfig::default() };
    let load_before = host::load();
    let busy = BusyThreads::start(args.stress)
        .map_err(|error| bad(format_args!("--stress {}: {error}", args.stress)))?;
    let mut clock = PairedClock::new(robot.control_period_ns(), config.spin_us);
    let time = clock.time_source();
    let prepared = prepare_at(&args.bundle, &bundle, &robot, device, &config, time, host)?;
    let about = BenchConfig {
        bundle: bundle.manifest().name.clone(),
        robot: robot.name.clone(),
        device: args.device.clone(),
        control_hz: robot.control_hz,
        seconds: args.seconds,
        placement: prepared.placement().to_string(),
        stress: args.stress,
        evict_bytes: args.evict.unwrap_or(0),
        spin_us: config.spin_us,
    };
    let report = whole(prepared.run_on(&mut clock, Inbox::empty()))?;
    let mut measured = Measurement::new(about, load_before, report.stats, clock.lateness());
    if let Some(eviction) = eviction {
        let mut clock = ColdClock::new(robot.control_period_ns(), config.spin_us, eviction);
        let time = clock.time_source();
        let prepared = prepare_at(&args.bundle, &bundle, &robot, device, &config, time, host)?;
        measured.add_cold(whole(prepared.run_on(&mut clock, Inbox::empty()))?.stats);
    }
    drop(busy);
    out.say(measured.table().trim_end());
    if let Some(path) = &args.out {
        write(path, &serde_json::to_string(&measured)?, out)?;
    }
    if let Some(path) = &args.html {
        write(path, &bench_html(&measured)?, out)?;
    }
    Ok(0)
}

/// The report of a run that ended as it should.
fn whole(report: Report) -> Result<Report, Failure> {
    if report.exit_code == 0 {
        return Ok(report);
    }
    Err(Failure { text: format!("the run ended early: {}", report.ended), code: report.exit_code })
}

fn write(path: &Path, text: &str, out: &mut Out) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(in_file(path))?;
    out.say(format_args!(" {}", path.display()));
    Ok(())
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
