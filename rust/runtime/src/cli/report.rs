//! `report`: a log as one HTML page.

use std::path::PathBuf;

use super::output::Out;
use super::{Outcome, in_file, open_log};
use crate::report::html;

/// Turn a log into one HTML page: joints, levels, robustness, times.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  PROGRAM report run.mcap -o report.html")]
pub(super) struct Args {
    /// Log of a run.
    log: PathBuf,
    /// Page to write; beside the log when absent.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Outcome {
    let log = open_log(&args.log)?;
    let page = html(&log).map_err(in_file(&args.log))?;
    let path = args.output.clone().unwrap_or_else(|| args.log.with_extension("html"));
    std::fs::write(&path, page).map_err(in_file(&path))?;
    out.say(path.display());
    Ok(0)
}
