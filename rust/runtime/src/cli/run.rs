//! `run`: a bundle on a robot.

use std::path::{Path, PathBuf};

use cadenza_policy::{Bundle, Options, Policy};

use super::output::Out;
use super::text::{count, number, row};
use super::{Failure, Host, Outcome, bad, in_file, open_bundle, open_log, open_robot, replay};
use crate::action::Seam;
use crate::config::{Late, PolicyMode, RunConfig, Trigger, Upsample};
use crate::control::{Inbox, Latency, Planner, Prepared, Report, Request, RunError, exploring, replay_on};
use crate::device::mujoco::{SCENE, simulate};
use crate::device::null::NullDevice;
use crate::device::{Device, TimeSource};
use crate::robot::Robot;
use crate::safety::monitors::MonitorReport;

/// Faults shown before the rest is only counted.
const FAULTS: usize = 20;

/// Run a bundle on a robot: every command inside its limits, every fault answered, everything recorded.
///
/// Ctrl-C stops softly, a second one damps. Exit code: 0 ended as it should, 1 a fault ended it.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  PROGRAM run walk.cadenza --robot robots/arm6 --device null --seconds 10 --record run.mcap\n  \
                        PROGRAM run walk.cadenza --robot robots/arm6 --device replay:run.mcap"
)]
pub(super) struct Args {
    /// Bundle.
    bundle: PathBuf,
    /// Robot: a folder with a robot.toml, or the file.
    #[arg(long)]
    robot: String,
    /// sim, null, or replay:LOG (recorded states, commands compared); robot.toml's device when absent.
    #[arg(long)]
    device: Option<String>,
    /// MuJoCo's library, to simulate without Python: the libmujoco.so.X.Y.Z of a wheel.
    #[arg(long, value_name = "PATH")]
    mujoco_lib: Option<PathBuf>,
    /// Length in seconds from arming; until stopped when absent.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// Log file to write (MCAP).
    #[arg(long, value_name = "LOG")]
    record: Option<PathBuf>,
    /// Run on the virtual clock: no sleeping, equal runs give equal logs.
    #[arg(long = "virtual")]
    virtual_clock: bool,
    /// Compute and record everything, switch no motor on.
    #[arg(long)]
    dry_run: bool,
    /// Set an operator command at the start; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Where the policy runs.
    #[arg(long)]
    mode: Option<PolicyMode>,
    /// When the policy is asked for a new sequence: every:STEPS, remaining:STEPS.
    #[arg(long, value_name = "RULE")]
    trigger: Option<Trigger>,
    /// Delay the policy's answers (virtual clock only): const:30ms, const:5ticks, uniform:10ms..60ms, pareto:20ms,1.5,
    /// drop:0.05.
    #[arg(long, value_name = "LAW")]
    inject: Option<Latency>,
    /// How the policy's rate becomes the control rate.
    #[arg(long)]
    upsample: Option<Upsample>,
    /// How a new action sequence takes over: replace, fade, fade:STEPS, ensemble, ensemble:K, prefix.
    #[arg(long, value_name = "RULE")]
    seam: Option<Seam>,
    /// Policy steps that a new sequence may no longer change.
    #[arg(long, value_name = "STEPS")]
    freeze: Option<u32>,
    /// What becomes of a sequence that arrives when all of it is in the past.
    #[arg(long)]
    late: Option<Late>,
    /// Bundle that takes over when a monitor says so, or with --late fallback.
    #[arg(long, value_name = "BUNDLE")]
    fallback: Option<PathBuf>,
    /// Share, 0 to 1, of the exploration noise that the bundle allows.
    #[arg(long, value_name = "SHARE")]
    noise: Option<f64>,
    /// Time of a control tick that the monitors may take on the average, µs; slower ones are stepped more rarely.
    #[arg(long, value_name = "U", allow_negative_numbers = true)]
    monitor_budget_us: Option<f64>,
    /// SCHED_FIFO priority to ask for, 1 to 98.
    #[arg(long, value_name = "P")]
    priority: Option<u8>,
    /// Core to pin the loop to.
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Time before a deadline from which the loop spins, µs.
    #[arg(long, value_name = "U")]
    spin_us: Option<u32>,
    /// Refuse to run when the real-time set-up is degraded.
    #[arg(long)]
    require_rt: bool,
    /// Show the robot in MuJoCo's viewer while it runs (Python front end).
    #[arg(long)]
    viewer: bool,
    /// Stream the run to Foxglove, on this HOST:PORT or PORT (Python front end).
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "127.0.0.1:8765")]
    live: Option<String>,
    /// Run configuration (TOML); options given here win.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args, host: &dyn Host, out: &mut Out) -> Outcome {
    if args.viewer || args.live.is_some() {
        return Err(bad(
            "--viewer and --live belong to the Python front end: pip install 'cadenza[viz]', then cadenza run",
        ));
    }
    let config = config(args)?;
    let bundle = open_bundle(&args.bundle)?;
    let robot = open_robot(&args.robot, host)?;
    let kind = args.device.as_deref().unwrap_or(&robot.device.kind);
    let device = Chosen::new(kind, args.mujoco_lib.as_deref())?;
    if let Some(log) = kind.strip_prefix("replay:") {
        return on_recorded_states(args, &bundle, &robot, Path::new(log), out);
    }
    let prepared = prepare(&args.bundle, &bundle, &robot, device, &config, host)?;
    let inbox = Inbox::script(commands(&prepared, &args.set)?);
    let m = bundle.manifest();
    let clock = if config.virtual_clock { ", virtual clock" } else { "" };
    out.say(format_args!(
        "{} on {}: device {kind}{clock}, control {} Hz, policy {} Hz, parity {}",
        m.name,
        robot.name,
        number(robot.control_hz),
        number(1.0 / m.rates.policy_dt),
        prepared.parity().map_or_else(|| "not proven: no vectors".into(), ToString::to_string)
    ));
    let delay = 1e3 * prepared.limiter_delay();
    out.say(row("policy", prepared.placement()));
    out.say(row("limiter", format!("delays a command by {delay:.1} ms to bound its jerk")));
    if config.seconds.is_none() {
        out.say("until Ctrl-C, which stops softly; a second one damps");
    }
    let report = prepared.run(inbox);
    print(&report, out);
    Ok(report.exit_code)
}

/// The configuration file under the options.
fn config(args: &Args) -> Result<RunConfig, Failure> {
    let mut config = match &args.config {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(in_file(path))?;
            toml::from_str(&text).map_err(|e: toml::de::Error| in_file(path)(e.to_string()))?
        }
        None => RunConfig::default(),
    };
    config.seconds = args.seconds.or(config.seconds);
    config.record = args.record.clone().or(config.record);
    config.virtual_clock |= args.virtual_clock;
    config.dry_run |= args.dry_run;
    config.mode = args.mode.unwrap_or(config.mode);
    config.trigger = args.trigger.or(config.trigger);
    config.inject = args.inject.or(config.inject);
    config.upsample = args.upsample.or(config.upsample);
    config.seam = args.seam.or(config.seam);
    config.freeze = args.freeze.unwrap_or(config.freeze);
    config.late = args.late.unwrap_or(config.late);
    config.fallback = args.fallback.clone().or(config.fallback);
    config.noise = args.noise.unwrap_or(config.noise);
    config.monitor_budget_us = args.monitor_budget_us.or(config.monitor_budget_us);
    config.priority = args.priority.unwrap_or(config.priority);
    config.core = args.core.or(config.core);
    config.spin_us = args.spin_us.unwrap_or(config.spin_us);
    config.require_rt |= args.require_rt;
    Ok(config)
}

/// The device that the user asks for.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    kind: &'a str,
    /// MuJoCo's library, for a simulation without Python.
    mujoco: Option<&'a Path>,
}

impl<'a> Chosen<'a> {
    pub(super) fn new(kind: &'a str, mujoco: Option<&'a Path>) -> Result<Self, Failure> {
        match mujoco {
            Some(path) if kind != "sim" => Err(bad(format_args!(
                "--mujoco-lib {}: only the device 'sim' has a use for it, this is '{kind}'",
                path.display()
            ))),
            _ => Ok(Self { kind, mujoco }),
        }
    }
}

/// Bundle, robot and device put together.
pub(super) fn prepare(
    path: &Path,
    bundle: &Bundle,
    robot: &Robot,
    device: Chosen<'_>,
    config: &RunConfig,
    host: &dyn Host,
) -> Result<Prepared, Failure> {
    prepare_at(path, bundle, robot, device, config, config.time_source(), host)
}

/// The same with a clock of one's own.
pub(super) fn prepare_at(
    path: &Path,
    bundle: &Bundle,
    robot: &Robot,
    device: Chosen<'_>,
    config: &RunConfig,
    time: TimeSource,
    host: &dyn Host,
) -> Result<Prepared, Failure> {
    config.check()?;
    let device: Box<dyn Device> = match device.kind {
        "null" => Box::new(NullDevice::new(robot, time.clone())?),
        "sim" => match device.mujoco {
            Some(library) => Box::new(simulate(library, robot, scene(path, bundle)?, time.clone())?),
            None => host.simulate(robot, path, time.clone()).map_err(bad)?,
        },
        "replay" => return Err(bad("device 'replay' needs a log: --device replay:LOG")),
        other => {
            let known = "there are: sim, null, replay:LOG";
            return Err(bad(format_args!("device '{other}' is not built into this version; {known}")));
        }
    };
    Prepared::new(bundle, robot, device, time, config).map_err(|error| misfit(&error, path, robot))
}

/// What stands around the robot in the simulation that the policy was trained in.
fn scene<'a>(path: &Path, bundle: &'a Bundle) -> Result<Option<&'a str>, Failure> {
    let text = bundle.entry(SCENE).map(std::str::from_utf8).transpose();
    text.map_err(|error| bad(format_args!("{}: {SCENE}: {error}", path.display())))
}

/// An error of bundle and robot together, with the names of both. A parity that differs has its own exit code.
pub(super) fn misfit(error: &RunError, bundle: &Path, robot: &Robot) -> Failure {
    let code = if matches!(error, RunError::Parity { .. }) { 3 } else { 2 };
    Failure { text: format!("{} on {}: {error}", bundle.display(), robot.path.display()), code }
}

/// `--set name=value` as requests at the start.
fn commands(prepared: &Prepared, set: &[String]) -> Result<Vec<(u64, Request)>, Failure> {
    set.iter()
        .map(|text| {
            let (name, value) =
                text.split_once('=').ok_or_else(|| bad(format_args!("--set {text}: expected NAME=VALUE")))?;
            let value: f64 = value
                .trim()
                .parse()
                .map_err(|_| bad(format_args!("--set {text}: '{value}' is not a number")))?;
            let request =
                prepared.command(name.trim(), value).map_err(|e| bad(format_args!("--set {text}: {e}")))?;
            Ok((0, request))
        })
        .collect()
}

/// `--device replay:LOG`: what this bundle on this robot makes of recorded states, against the recorded commands.
fn on_recorded_states(args: &Args, bundle: &Bundle, robot: &Robot, path: &Path, out: &mut Out) -> Outcome {
    if args.seconds.is_some() || args.record.is_some() || !args.set.is_empty() {
        return Err(bad("with --device replay:LOG, length and commands come from the log and nothing is \
                        recorded: leave out --seconds, --set and --record"));
    }
    let log = open_log(path)?;
    replay::damage(&log, out);
    let policy = Policy::load(bundle, &Options::default()).map_err(in_file(&args.bundle))?;
    let misfit = |error: RunError| misfit(&error, &args.bundle, robot);
    let policy = exploring(policy, bundle.manifest(), &log.header().run).map_err(misfit)?;
    let planner = Planner::inline(policy);
    let report =
        replay_on(&log, robot, bundle.manifest(), bundle.specification(), planner).map_err(misfit)?;
    replay::verdict(&log, path, &report, out)
}

fn print(report: &Report, out: &mut Out) {
    if report.ticks > 0 {
        if report.rt.policy.is_empty() {
            out.say(row("level", "virtual clock"));
        } else {
            out.say(row("level", report.rt.level()));
        }
    }
    if let Some(seconds) = report.armed_s {
        out.say(row("armed", format!("at {seconds:.3} s")));
    }
    for failure in &report.rt.failures {
        out.say(row("degraded", failure));
    }
    if report.ticks > 0 {
        out.say(report.table.trim_end());
    }
    for m in &report.monitors {
        let least =
            m.least.map_or_else(|| "nothing decided".into(), |x| format!("robustness at least {x:.4}"));
        let n = count(m.closed as usize, "instant");
        let MonitorReport { name, violated, trips, .. } = m;
        let step = 1e3 * m.dt;
        let text = format!("{name}: {least}, {n} each {step:.1} ms, {violated} violated, {trips} trips");
        out.say(row("monitor", text));
    }
    for fault in report.faults.iter().take(FAULTS) {
        out.say(row("event", fault));
    }
    if let Some(more) = report.faults.len().checked_sub(FAULTS).filter(|&n| n > 0) {
        out.say(row("", format!("and {more} more")));
    }
    let record = &report.record;
    if let Some(path) = &record.path {
        let text = match &record.error {
            Some(error) => format!("{}: recording stopped: {error}", path.display()),
            None => format!("{}: {} messages, {} bytes", path.display(), record.written, record.bytes),
        };
        out.say(row("log", text));
        for (topic, n) in &record.dropped {
            out.say(row("", format!("{n} messages of {} were dropped", topic.name())));
        }
    }
    out.say(row("ended", format!("{} · level {} · {} ticks", report.ended, report.level, report.ticks)));
}
