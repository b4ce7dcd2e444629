//! The command line of the runtime: one implementation for `cadenza-rt` and for the Python front end.
//!
//! Exit codes: 0 as it should be, 1 a fault ended the run, 2 bad input, 3 a replay or the parity differs, 4 a
//! measurement got worse, 70 a bug of ours. Answers go to standard output, errors to standard error as
//! `program: text`.

mod bench;
mod check;
mod doctor;
mod inspect;
mod output;
mod replay;
mod report;
mod run;
mod text;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use cadenza_policy::Bundle;
use clap::error::ErrorKind;
use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::device::{Device, TimeSource};
use crate::log::Log;
use crate::robot::Robot;
use output::Out;

/// What a front end adds to the command line.
pub trait Host {
    /// Name of the program, for help and errors.
    fn program(&self) -> &str;
    /// The robot.toml, or its folder, that the user means.
    ///
    /// # Errors
    /// In words.
    fn robot(&self, name_or_path: &str) -> Result<PathBuf, String>;
    /// A simulation of `robot` for the bundle at `bundle`, stamped by `time`.
    ///
    /// # Errors
    /// In words.
    fn simulate(&self, robot: &Robot, bundle: &Path, time: TimeSource) -> Result<Box<dyn Device>, String>;
}

/// Runs, checks and measures policy bundles on robots.
#[derive(Parser)]
#[command(version, after_help = "Every verb explains itself: PROGRAM run --help")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Doctor(doctor::Args),
    Inspect(inspect::Args),
    Check(check::Args),
    Run(run::Args),
    Replay(replay::Args),
    #[command(subcommand)]
    Bench(bench::Verb),
    Report(report::Args),
}

/// An error with its exit code.
struct Failure {
    text: String,
    code: u8,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        bad(error)
    }
}

/// Bad input: exit code 2.
fn bad(text: impl std::fmt::Display) -> Failure {
    Failure { text: text.to_string(), code: 2 }
}

/// Bad input that is about a file.
fn in_file<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> Failure {
    move |error| bad(format_args!("{}: {error}", path.display()))
}

/// What a verb ends with.
type Outcome = Result<u8, Failure>;

/// Runs one verb: `args` without the program's name (`["run", "walk.cadenza", …]`). Returns the exit code.
pub fn main(args: &[String], host: &dyn Host) -> u8 {
    let program = host.program();
    let mut out = Out::new();
    let code = match parse(args, program) {
        Ok(cli) => {
            // A panic is a bug of ours: it has printed itself, and must not cross into Python.
            let outcome = catch_unwind(AssertUnwindSafe(|| run(cli.verb, host, &mut out)));
            match outcome {
                Ok(Ok(code)) => code,
                Ok(Err(Failure { text, code })) => {
                    output::error(program, text.trim_end());
                    code
                }
                Err(_) => 70,
            }
        }
        Err(error) => refuse(&error, program, &mut out),
    };
    match out.finish() {
        Ok(()) => code,
        Err(error) => {
            output::error(program, &format!("standard output: {error}"));
            2
        }
    }
}

fn run(verb: Verb, host: &dyn Host, out: &mut Out) -> Outcome {
    match verb {
        Verb::Doctor(args) => doctor::run(&args, out),
        Verb::Inspect(args) => inspect::run(&args, out),
        Verb::Check(args) => check::run(&args, host, out),
        Verb::Run(args) => run::run(&args, host, out),
        Verb::Replay(args) => replay::run(&args, out),
        Verb::Bench(verb) => bench::run(&verb, host, out),
        Verb::Report(args) => report::run(&args, out),
    }
}

fn parse(args: &[String], program: &str) -> Result<Cli, clap::Error> {
    let command = named(Cli::command().display_name(program).bin_name(program), program);
    let words = std::iter::once(program.to_owned()).chain(args.iter().cloned());
    let mut matches = command.try_get_matches_from(words)?;
    Cli::from_arg_matches_mut(&mut matches)
}

/// The program's own name in every example.
fn named(command: Command, program: &str) -> Command {
    let help = command.get_after_help().map(|help| help.to_string().replace("PROGRAM", program));
    let command = match help {
        Some(help) => command.after_help(help),
        None => command,
    };
    command.mut_subcommands(|verb| named(verb, program))
}

/// Help and version are answers; everything else is an error.
fn refuse(error: &clap::Error, program: &str, out: &mut Out) -> u8 {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            out.say(text.trim_end());
            0
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::error(program, &format!("which verb?\n\n{}", text.trim_end()));
            2
        }
        _ => {
            output::error(program, text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            2
        }
    }
}

fn open_bundle(path: &Path) -> Result<Bundle, Failure> {
    Ok(Bundle::open(path)?)
}

fn open_robot(name: &str, host: &dyn Host) -> Result<Robot, Failure> {
    Ok(Robot::load(&host.robot(name).map_err(bad)?)?)
}

fn open_log(path: &Path) -> Result<Log, Failure> {
    Log::open(path).map_err(|error| match error {
        crate::log::LogError::Io { .. } => bad(error),
        error => in_file(path)(error),
    })
}
