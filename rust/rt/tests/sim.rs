//! The simulator as the robot's computer has it: this program, MuJoCo's library, and no Python.
//!
//! Needs `CADENZA_MUJOCO_LIB`, as `make test` sets it, and says so where it is not set.

mod common;

use std::path::PathBuf;

use cadenza_runtime::log::Log;
use common::{JOINTS, Place, program, robot};

fn library() -> Option<PathBuf> {
    let library = std::env::var_os("CADENZA_MUJOCO_LIB").map(PathBuf::from);
    if library.is_none() {
        eprintln!("not tried: CADENZA_MUJOCO_LIB is not set");
    }
    library
}

/// The place's robot with a model: an arm of six joints.
fn modelled() -> Place {
    let place = Place::new();
    let mut bodies = String::new();
    let mut motors = String::new();
    for (i, joint) in JOINTS.iter().enumerate() {
        let axis = ["0 0 1", "0 1 0"][usize::from(i > 0)];
        bodies += &format!(
            r#"<body name="{joint}" pos="0 0 .1"><joint name="{joint}" axis="{axis}" armature=".05"/>
               <geom type="capsule" fromto="0 0 .02 0 0 .08" size=".01" mass=".1"/>"#
        );
        motors += &format!(r#"<motor name="{joint}" joint="{joint}"/>"#);
    }
    bodies += &"</body>".repeat(JOINTS.len());
    place.write(
        "robot/model.xml",
        format!("<mujoco><worldbody>{bodies}</worldbody><actuator>{motors}</actuator></mujoco>"),
    );
    let toml = robot(500.0, &JOINTS).replacen("name = \"desk\"", "name = \"desk\"\nmodel = \"model.xml\"", 1);
    place.write("robot/robot.toml", toml);
    place
}

#[test]
fn a_simulated_run_needs_the_program_and_the_library_only() {
    let Some(library) = library() else { return };
    let place = modelled();
    for log in ["a.mcap", "b.mcap"] {
        let line =
            format!("run walk.cadenza --robot robot --device sim --virtual --seconds 1 --record {log}");
        let mut command = program(place.dir.path());
        command.args(line.split(' ')).arg("--mujoco-lib").arg(&library).env_clear();
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    assert!(place.read("a.mcap") == place.read("b.mcap"), "equal runs, different logs");
    let log = Log::open(&place.at("a.mcap")).unwrap();
    let pan: Vec<f64> = log.states().map(|state| state.unwrap().value.q[0]).collect();
    let span = pan.iter().copied().fold(f64::MIN, f64::max) - pan.iter().copied().fold(f64::MAX, f64::min);
    assert!(pan.len() > 500 && span > 0.01, "{} states, {span} rad", pan.len());
}
