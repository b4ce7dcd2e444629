//! The robot-side command line of Cadenza, without Python.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cadenza_runtime::cli::{Host, main as cli};
use cadenza_runtime::device::{Device, TimeSource};
use cadenza_runtime::robot::Robot;
use cadenza_runtime::timing::usage::Counting;

/// Counts what `bench latency` tells of the heap.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Bare;

impl Host for Bare {
    fn program(&self) -> &str {
        "cadenza-rt"
    }

    fn robot(&self, path: &str) -> Result<PathBuf, String> {
        match Path::new(path) {
            path if path.exists() => Ok(path.to_owned()),
            _ => Err(format!("no robot.toml, and no folder with one, at '{path}'")),
        }
    }

    fn simulate(&self, _: &Robot, _: &Path, _: TimeSource) -> Result<Box<dyn Device>, String> {
        Err("the simulator needs MuJoCo's library: --mujoco-lib PATH, the libmujoco.so of a MuJoCo wheel; where it is \
             installed, python3 -c 'import mujoco, pathlib; \
             print(*pathlib.Path(mujoco.__file__).parent.glob(\"libmujoco.so*\"))' says where it lies"
            .into())
    }
}

fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    cli(&args, &Bare).into()
}
