//! `check`: a bundle proven against its own vectors, and against a robot.

use std::path::PathBuf;

use cadenza_policy::manifest::Manifest;
use cadenza_policy::{Bundle, Options, Policy};

use super::inspect::{Timing, id, time};
use super::output::Out;
use super::run::misfit;
use super::text::{number, row};
use super::{Failure, Host, Outcome, bad, in_file, open_bundle, open_robot};
use crate::config::RunConfig;
use crate::control::{Controller, Planner, RunError};
use crate::device::DeviceInfo;
use crate::observe::frames::verify as verify_frames;
use crate::observe::{ObserveError, Observer};
use crate::robot::{Robot, effective_gains, effective_limits, mismatches, ticks_per_step};
use crate::safety::MonitorError;
use crate::state::MAX_OBJECTS;

/// Prove a bundle: checksums, the recorded vectors, and with --robot whether it fits that robot: joints, frames, rates,
/// limits, gains, sources, and the observations rebuilt from recorded sensors.
///
/// Exit code: 0 all is well, 2 the bundle is damaged or does not fit, 3 the vectors differ.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  PROGRAM check walk.cadenza --robot robots/arm6")]
pub(super) struct Args {
    /// Bundle.
    bundle: PathBuf,
    /// Robot: a folder with a robot.toml, or the file.
    #[arg(long)]
    robot: Option<String>,
}

pub(super) fn run(args: &Args, host: &dyn Host, out: &mut Out) -> Outcome {
    let bundle = open_bundle(&args.bundle)?;
    out.say(row("bundle", format!("{}, id {}", bundle.manifest().name, id(&bundle))));
    out.say(row("checksums", format!("{} entries ok", bundle.entries().count())));
    let mut policy = Policy::load(&bundle, &Options::default()).map_err(in_file(&args.bundle))?;
    parity(args, &bundle, &mut policy, out)?;
    let timing = time(&mut policy).map_err(in_file(&args.bundle))?;
    delay(bundle.manifest(), &timing, out)?;
    if let Some(name) = &args.robot {
        let robot = open_robot(name, host)?;
        all_fits(args, bundle.manifest(), &robot)?;
        frames(&bundle, &robot, out)
            .map_err(|error| Failure { code: 3, ..misfit(&error, &args.bundle, &robot) })?;
        fit(&bundle, &robot, out).map_err(|error| misfit(&error, &args.bundle, &robot))?;
    }
    Ok(0)
}

fn parity(args: &Args, bundle: &Bundle, policy: &mut Policy, out: &mut Out) -> Result<(), Failure> {
    let Some(spec) = &bundle.manifest().parity else {
        out.say(row("parity", "no vectors: runs in simulation, replay and dry runs only"));
        return Ok(());
    };
    let report = policy.verify(bundle).map_err(in_file(&args.bundle))?;
    if !report.passed {
        return Err(Failure { text: format!("{}: parity: {report}", args.bundle.display()), code: 3 });
    }
    let text = format!(
        "{n}/{n} max |d| {:.1e} (tol {} + {}·|y|)",
        report.measured,
        number(spec.atol),
        number(spec.rtol),
        n = report.vectors
    );
    out.say(row("parity", text));
    Ok(())
}

/// Refuses a bundle that does not fit the robot, with everything that does not.
fn all_fits(args: &Args, m: &Manifest, robot: &Robot) -> Result<(), Failure> {
    let mut found: Vec<String> = mismatches(robot, m).iter().map(ToString::to_string).collect();
    for error in Observer::unsuitable(m, robot).iter().map(ToString::to_string) {
        if !found.contains(&error) {
            found.push(error);
        }
    }
    let on = format!("{} on {}", args.bundle.display(), robot.path.display());
    match &found[..] {
        [] => Ok(()),
        [one] => Err(bad(format_args!("{on}: {one}"))),
        all => Err(bad(format_args!("{on}: {} mismatches\n  {}", all.len(), all.join("\n  ")))),
    }
}

/// Observations rebuilt from the recorded sensors.
fn frames(bundle: &Bundle, robot: &Robot, out: &mut Out) -> Result<(), RunError> {
    let text = match verify_frames(bundle, robot)? {
        None => {
            "none recorded: order, scale and history of the observation are as the manifest says".to_owned()
        }
        Some(r) => format!(
            "{n}/{n} observations rebuilt from sensors, max |d| {:.1e}",
            r.measured,
            n = r.observations
        ),
    };
    out.say(row("sensors", text));
    Ok(())
}

/// The rule for the delay d of an answer, the steps s between two and the horizon H: d ≤ s ≤ H − d.
fn delay(m: &Manifest, timing: &Timing, out: &mut Out) -> Result<(), Failure> {
    let (seconds, chunk) = (timing.p99 as f64 / 1e9, &m.chunk);
    // An answer within the control period is followed at once.
    let d = if seconds <= m.rates.control_dt { 0 } else { (seconds / m.rates.policy_dt).ceil() as usize };
    let (s, h) = (chunk.execute, chunk.horizon);
    let text = format!(
        "inference p99 {:.1} us = {d} policy steps; d={d} s={s} H={h}, d <= s <= H-d",
        timing.p99 as f64 / 1e3
    );
    if d > s || s + d > h {
        return Err(bad(format_args!("too slow for its chunks: {text} does not hold")));
    }
    out.say(row("delay", format!("{text} holds")));
    Ok(())
}

fn fit(bundle: &Bundle, robot: &Robot, out: &mut Out) -> Result<(), RunError> {
    let m = bundle.manifest();
    let (objects, monitors) = build(bundle, robot)?;
    let n = m.joints.len();
    out.say(row("joints", format!("matched by name {n}/{n}, {} has {}", robot.name, robot.joints.len())));
    let ticks = ticks_per_step(m)?;
    out.say(row("rates", format!("control {} Hz, {ticks} ticks in a policy step", number(robot.control_hz))));
    let (_, looser) = effective_limits(robot, m)?;
    out.say(row("limits", format!("bundle looser on {}, robot's kept", looser.len())));
    for l in &looser {
        let text = format!("{} {}: {} -> {}", l.joint, l.key, number(l.bundle), number(l.robot));
        out.say(row("", text));
    }
    let (_, caps) = effective_gains(robot, m)?;
    out.say(row("gains", format!("{} capped by the robot", caps.len())));
    for c in &caps {
        out.say(row("", format!("{} {}: {} -> {}", c.joint, c.key, number(c.bundle), number(c.cap))));
    }
    out.say(row("monitors", format!("{} compile", monitors.len())));
    for name in &monitors {
        out.say(row("", name));
    }
    if !objects.is_empty() {
        out.say(row("objects", format!("the device must report: {}", objects.join(", "))));
    }
    Ok(())
}

/// Builds the whole loop without a device or networks. Which objects a device reports is only known when it is
/// connected, so those that the bundle needs count as reported. Returns them, and the names of the monitors.
fn build(bundle: &Bundle, robot: &Robot) -> Result<(Vec<String>, Vec<String>), RunError> {
    let (m, specification) = (bundle.manifest(), bundle.specification());
    let mut info = DeviceInfo { name: "check", moves: false, objects: Vec::new() };
    loop {
        let planner = Planner::recorded([], false);
        let error = match Controller::new(m, specification, robot, &info, planner, &RunConfig::default()) {
            Ok(controller) => {
                return Ok((info.objects, controller.monitors().names().map(str::to_owned).collect()));
            }
            Err(error) => error,
        };
        match missing_object(&error) {
            Some(object) if info.objects.len() < MAX_OBJECTS && info.objects.iter().all(|o| o != object) => {
                info.objects.push(object.to_owned());
            }
            _ => return Err(error),
        }
    }
}

/// The object whose absence is all that `error` is about.
fn missing_object(error: &RunError) -> Option<&str> {
    match error {
        RunError::Observe(ObserveError::MissingObject { object, .. }) => Some(object),
        RunError::Monitor(MonitorError::ObjectNotReported { signal, .. }) => {
            signal.strip_prefix("object.")?.rsplit_once('.').map(|(object, _)| object)
        }
        _ => None,
    }
}
