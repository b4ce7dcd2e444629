//! `doctor`: how real-time this machine is.

use super::output::Out;
use super::{Outcome, bad};
use crate::timing::doctor::doctor;
use crate::timing::sched::RtRequest;

/// Say how real-time this machine is: what it grants, how late it wakes, what would help.
///
/// Exit code: 0 usable at this rate, 1 degraded, 2 unusable.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  PROGRAM doctor --hz 500 --core 1")]
pub(super) struct Args {
    /// Rate to test, Hz.
    #[arg(long, default_value_t = 500.0, allow_negative_numbers = true)]
    hz: f64,
    /// Length of the wake-up test, s.
    #[arg(long, default_value_t = 2.0, allow_negative_numbers = true)]
    seconds: f64,
    /// Core to pin to.
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// SCHED_FIFO priority to ask for.
    #[arg(long, value_name = "P", default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=98))]
    priority: u8,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Outcome {
    if !(1.0..=1e4).contains(&args.hz) {
        return Err(bad(format_args!("--hz {}: 1 to 10000 Hz", args.hz)));
    }
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(bad(format_args!("--seconds {}: above 0, at most 3600", args.seconds)));
    }
    let request = RtRequest { priority: args.priority, core: args.core, spin_us: 0 };
    let report = doctor(args.hz, args.seconds, &request);
    if args.json {
        out.say(serde_json::to_string_pretty(&report)?);
    } else {
        out.say(report.to_string().trim_end());
    }
    Ok(report.exit_code())
}
