//! Against what Python makes of the same robot and scene, and with what cannot be simulated.
//!
//! They need a MuJoCo: `CADENZA_MUJOCO_LIB`, or that of the `python3` in the path. Where there is neither they say so, and
//! `tests/runtime/test_sim_native.py` is left to run the same code.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::sync::Arc;

use super::*;
use crate::device::Device;
use crate::state::State;

const PICK: &str = r#"<mujoco><worldbody>
  <body name="cube" pos="0.3 0.1 0.02"><freejoint/><geom type="box" size=".02 .02 .02" mass=".1"/></body>
  <body name="shelf" pos="0.5 0 0.1"><geom type="box" size=".1 .1 .01"/></body>
  <body name="ball" pos="0.3 -0.1 0.03"><freejoint/><geom size=".03" mass=".05"/></body>
</worldbody></mujoco>"#;

/// What Python prints.
fn python(script: &str, args: &[&str]) -> Option<Vec<u8>> {
    let said = Command::new("python3").args(["-c", script]).args(args).output().ok()?;
    said.status.success().then_some(said.stdout)
}

fn library() -> Option<PathBuf> {
    const FIND: &str =
        "import mujoco, pathlib; print(*pathlib.Path(mujoco.__file__).parent.glob('libmujoco.so.*'))";
    let found = std::env::var_os("CADENZA_MUJOCO_LIB")
        .map(PathBuf::from)
        .or_else(|| python(FIND, &[]).map(|path| PathBuf::from(String::from_utf8_lossy(&path).trim())));
    if found.is_none() {
        eprintln!("not tried: neither CADENZA_MUJOCO_LIB nor a python3 with mujoco");
    }
    found
}

fn shipped(robot: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/cadenza/robots").join(robot)
}

/// A copy of arm6 with changes to its model.
fn arm6(changes: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut model = std::fs::read_to_string(shipped("arm6").join("model.xml")).unwrap();
    for (old, new) in changes {
        assert!(model.contains(old), "{old}");
        model = model.replace(old, new);
    }
    std::fs::copy(shipped("arm6").join("robot.toml"), folder.path().join("robot.toml")).unwrap();
    std::fs::write(folder.path().join("model.xml"), model).unwrap();
    folder
}

/// The model as MuJoCo writes it to a file.
fn saved(mujoco: &MuJoCo, model: &Model) -> Vec<u8> {
    type Save = unsafe extern "C" fn(*const c_void, *const i8, *mut c_void, i64);
    // SAFETY: the library is MuJoCo, the model is its own, the buffer is as long as it says.
    unsafe {
        let library = libloading::os::unix::Library::new(&mujoco.path).unwrap();
        let size = library.get::<unsafe extern "C" fn(*const c_void) -> i64>(b"mj_sizeModel\0").unwrap();
        let save = library.get::<Save>(b"mj_saveModel\0").unwrap();
        let mut bytes = vec![0_u8; size(model.model.as_ptr()) as usize];
        save(model.model.as_ptr(), ptr::null(), bytes.as_mut_ptr().cast(), bytes.len() as i64);
        bytes
    }
}

#[test]
fn the_model_is_pythons_byte_for_byte() {
    const SAVE: &str = "\
import sys, mujoco, numpy, cadenza
model = cadenza.load_robot(sys.argv[1]).model(scene=sys.argv[2] or None)
made = numpy.zeros(mujoco.mj_sizeModel(model), numpy.uint8)
mujoco.mj_saveModel(model, None, made)
sys.stdout.buffer.write(made)";
    let Some(library) = library() else { return };
    let mujoco = Arc::new(MuJoCo::open(&library).unwrap());
    let bounded = r#"<motor ctrllimited="true" ctrlrange="-2 2" forcerange="-3 1"/>"#;
    let bounded = arm6(&[(r#"<motor ctrllimited="false"/>"#, bounded)]);
    let cases = [
        (shipped("arm6"), ""),
        (shipped("humanoid29"), ""),
        (shipped("arm6"), PICK),
        (shipped("humanoid29"), PICK),
        (bounded.path().to_owned(), ""),
    ];
    for (path, scene) in cases {
        let Some(expected) = python(SAVE, &[path.to_str().unwrap(), scene]) else {
            return eprintln!("not tried: no python3 with mujoco and cadenza");
        };
        let robot = Robot::load(&path).unwrap();
        let (model, ..) = build(&mujoco, &robot, Some(scene).filter(|s| !s.is_empty())).unwrap();
        let made = saved(&mujoco, &model);
        let differ = made.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert!(
            made.len() == expected.len() && differ == 0,
            "{}: {differ} of {}",
            path.display(),
            made.len()
        );
    }
}

#[test]
fn a_scene_brings_its_free_bodies_as_objects() {
    let Some(library) = library() else { return };
    let robot = Robot::load(&shipped("arm6")).unwrap();
    let mut device = simulate(&library, &robot, Some(PICK), TimeSource::Monotonic).unwrap();
    assert_eq!(device.info().objects, ["cube", "ball"]);
    let mut state = State::new(robot.joints.len());
    device.read(&mut state).unwrap();
    assert_eq!(state.objects[0].pos, [0.3, 0.1, 0.02]);
    assert_eq!(state.objects[1].pos, [0.3, -0.1, 0.03]);
    let home: Vec<f64> = robot.joints.iter().map(|joint| joint.home).collect();
    assert_eq!(state.q[..home.len()], home);
}
