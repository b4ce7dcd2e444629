//! Against what Python makes of the same robot and scene, and with what cannot be simulated.
//!
//! They need MuJoCo: `CADENZA_MUJOCO_LIB`, as `make test` sets it, and a `python3` with the same MuJoCo and cadenza. Where
//! it is not set they say so; `tests/runtime/test_sim_native.py` runs the same code in any case.

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

fn library() -> Option<PathBuf> {
    let library = std::env::var_os("CADENZA_MUJOCO_LIB").map(PathBuf::from);
    if library.is_none() {
        eprintln!("not tried: CADENZA_MUJOCO_LIB is not set");
    }
    library
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
        let python = Command::new("python3").args(["-c", SAVE]).arg(&path).arg(scene).output().unwrap();
        let expected = python.stdout;
        assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
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

#[test]
fn what_cannot_be_simulated_is_refused_with_its_name() {
    let Some(library) = library() else { return };
    let motor = r#"<motor name="elbow_flex""#;
    let second = format!(r#"<motor name="other" joint="elbow_flex"/>{motor}"#);
    let sensor = r#"</actuator><sensor><gyro name="imu_quat" site="turret"/></sensor>"#;
    let cases = [
        (r#"<mujoco model="arm6">"#, "<mujoco", "model.xml: XML parse error"),
        (motor, r#"<motor name="elbow""#, "actuator 'elbow' drives joint 'elbow_flex'"),
        (motor, r#"<motor gear="2" name="elbow_flex""#, "gear 2"),
        (motor, r#"<motor delay="0.01" nsample="10" name="elbow_flex""#, "a delay of 0.01 s"),
        (motor, r#"<position name="elbow_flex""#, "a bias"),
        (motor, &second, "joint 'elbow_flex' has 2 actuators"),
        ("elbow_flex", "elbow", "no joint 'elbow_flex'"),
        ("</actuator>", sensor, "sensor 'imu_quat' must be a framequat"),
        (r#"timestep="0.002""#, r#"timestep="0.003""#, "0.003 s, not a whole number"),
    ];
    let refused = |folder: &Path, scene: Option<&str>, words: &str| {
        let robot = Robot::load(folder).unwrap();
        let text = simulate(&library, &robot, scene, TimeSource::Monotonic).unwrap_err().to_string();
        assert!(text.contains(words), "{words}: {text}");
    };
    for (old, new, words) in cases {
        refused(arm6(&[(old, new)]).path(), None, words);
    }
    let world = |body: &str| format!("<mujoco><worldbody>{body}</worldbody></mujoco>");
    let scenes = [
        ("<mujoco><worldbody>".to_owned(), "scene: XML parse error"),
        (world(r#"<body name="turret"/>"#), "scene: the robot has a body 'turret' already"),
        (world(r#"<body pos="1 0 0"/>"#), "scene: a body that stands in the world has no name"),
        (world("<!-- \0 -->"), "scene: byte 24 is zero"),
    ];
    for (scene, words) in &scenes {
        refused(&shipped("arm6"), Some(scene), words);
    }
    let crowd: String = (0..17)
        .map(|i| format!(r#"<body name="b{i}" pos="{i} 0 5"><freejoint/><geom size=".1"/></body>"#))
        .collect();
    refused(&shipped("arm6"), Some(&world(&crowd)), "17 objects, at most 16");
    let folder = arm6(&[]);
    std::fs::remove_file(folder.path().join("model.xml")).unwrap();
    refused(folder.path(), None, "model.xml");
    let toml = std::fs::read_to_string(folder.path().join("robot.toml")).unwrap();
    std::fs::write(folder.path().join("robot.toml"), toml.replace("model = \"model.xml\"", "")).unwrap();
    refused(folder.path(), None, "robot.toml: no model, which simulation needs");
}

#[test]
fn libraries_that_are_not_a_known_mujoco_are_refused() {
    let robot = Robot::load(&shipped("arm6")).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc"));
    let libc = libc.expect("the C library is loaded");
    let cases = [
        ("/nowhere/libmujoco.so", "/nowhere/libmujoco.so: cannot open shared object file"),
        (env!("CARGO_MANIFEST_DIR"), "directory"),
        (concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "Cargo.toml: "),
        (libc, "is not MuJoCo"),
    ];
    for (path, words) in cases {
        let text = simulate(Path::new(path), &robot, None, TimeSource::Monotonic).unwrap_err().to_string();
        assert!(text.contains(words), "{path}: {text}");
    }
    assert!(layout::of(5_001_000).is_none() && layout::of(0).is_none());
    assert_eq!(layout::known(), "3.17.0, 4.0.0");
}

#[test]
fn a_floating_robot_has_one_base() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let toml = folder.path().join("robot.toml");
    let mut text = "schema = 1\nname = \"two\"\nmodel = \"model.xml\"\n[device]\nkind = \"sim\"\n\
                    [rates]\ncontrol_hz = 500.0\n"
        .to_owned();
    for joint in ["left", "right"] {
        text += &format!(
            "[[joint]]\nname = \"{joint}\"\nlimits = {{ position = [-1.0, 1.0], velocity = 4.0, acceleration = 60.0, \
             effort = 4.0 }}\ngains = {{ kp_max = 10.0, kd_max = 1.0, kd_damp = 1.0 }}\n"
        );
    }
    std::fs::write(&toml, text).unwrap();
    let limb = |name: &str, inner: &str| {
        format!(r#"<body pos="0 0 1"><joint name="{name}"/><geom size=".1"/>{inner}</body>"#)
    };
    let floating = |inner: &str| format!(r#"<body pos="0 0 2"><freejoint/><geom size=".1"/>{inner}</body>"#);
    let simulated = |bodies: &str| {
        let motors = r#"<motor name="left" joint="left"/><motor name="right" joint="right"/>"#;
        let model = format!("<mujoco><worldbody>{bodies}</worldbody><actuator>{motors}</actuator></mujoco>");
        std::fs::write(folder.path().join("model.xml"), model).unwrap();
        let robot = Robot::load(&toml).unwrap();
        let mut device = simulate(&library, &robot, None, TimeSource::Monotonic)?;
        let mut state = State::new(2);
        device.read(&mut state).unwrap();
        Ok::<_, DeviceError>(state.base)
    };
    let (left, right) = (limb("left", ""), limb("right", ""));
    assert!(!simulated(&format!("{left}{right}")).unwrap().valid);
    let base = simulated(&floating(&limb("left", &right))).unwrap();
    assert!(base.valid && base.pos == [0.0, 0.0, 2.0], "{base:?}");
    let two = simulated(&(floating(&left) + &floating(&right))).unwrap_err().to_string();
    assert!(two.contains("hang on 2 free joints"), "{two}");
    let ball =
        simulated(&format!(r#"{left}<body><joint name="right" type="ball"/><geom size=".1"/></body>"#));
    let ball = ball.unwrap_err().to_string();
    assert!(ball.contains("joint 'right' is neither hinge nor slide"), "{ball}");
}
