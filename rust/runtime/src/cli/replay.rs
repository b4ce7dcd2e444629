//! `replay`: a log run again, every command compared.

use std::path::{Path, PathBuf};

use cadenza_policy::{Options, Policy};

use super::output::Out;
use super::{Failure, Outcome, bad, in_file, open_bundle, open_log};
use crate::control::{PolicySource, ReplayReport, exploring, replay};
use crate::log::{Log, Topic};

/// Run a log again and compare every command with the recorded one, bit for bit.
///
/// Actions come from the log; with --recompute they are inferred again. Exit code 3 when a command differs.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  PROGRAM replay run.mcap\n  PROGRAM replay run.mcap --recompute walk.cadenza"
)]
pub(super) struct Args {
    /// Log of a run.
    log: PathBuf,
    /// Infer the actions again with the bundle that the log was recorded with.
    #[arg(long, value_name = "BUNDLE")]
    recompute: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Outcome {
    let log = open_log(&args.log)?;
    let policy = args.recompute.as_deref().map(|path| recorded_policy(path, &log)).transpose()?;
    damage(&log, out);
    let report = replay(&log, policy).map_err(in_file(&args.log))?;
    verdict(&log, &args.log, &report, out)
}

/// The networks of the bundle at `path`, which must be the one of the log.
fn recorded_policy(path: &Path, log: &Log) -> Result<Box<dyn PolicySource>, Failure> {
    let bundle = open_bundle(path)?;
    let (id, recorded) = (super::inspect::id(&bundle), &log.header().bundle_sha256);
    if id != *recorded {
        return Err(bad(format_args!(
            "{}: id {id}, but the log was recorded with '{}', id {recorded}; to try another bundle on recorded \
             states: run BUNDLE --robot ROBOT --device replay:LOG",
            path.display(),
            log.header().bundle
        )));
    }
    let policy = Policy::load(&bundle, &Options::default()).map_err(in_file(path))?;
    exploring(policy, bundle.manifest(), &log.header().run).map_err(in_file(path))
}

/// Says what the log lacks.
pub(super) fn damage(log: &Log, out: &mut Out) {
    for sentence in log.damage() {
        out.say(format_args!("incomplete log: {sentence}"));
    }
    for (topic, n) in log.dropped() {
        out.say(format_args!(
            "incomplete log: {n} messages of {} were dropped while recording",
            topic.name()
        ));
    }
}

/// Says how a replay went. Exit code 3 when a command differs.
pub(super) fn verdict(log: &Log, path: &Path, report: &ReplayReport, out: &mut Out) -> Outcome {
    let total = log.len(Topic::Command);
    if total == 0 {
        return Err(in_file(path)("the log holds no command: there is nothing to compare"));
    }
    let Some(d) = &report.difference else {
        out.say(format_args!("{}/{total} commands identical", report.compared));
        return Ok(0);
    };
    let joint = log.header().joints.get(usize::from(d.joint)).map(|j| format!(", joint {}", j.name));
    let text = format!(
        "tick {}{}: {} recorded {:?}, ours {:?}",
        d.tick,
        joint.unwrap_or_default(),
        d.field.name(),
        d.recorded,
        d.ours
    );
    Err(Failure { text: format!("commands differ, first at {text}"), code: 3 })
}
