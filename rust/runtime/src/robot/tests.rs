use std::path::Path;

use cadenza_policy::manifest::Manifest;
use serde_json::json;

use super::*;
use crate::device::Stop;
use crate::safety::Level;

const TWO: &str = r#"schema = 1
name = "two"
model = "model.xml"
[device]
kind = "feetech"
port = "/dev/ttyACM0"
baud = 1_000_000
period = "4ms"
[rates]
control_hz = 250
[imu]
present = true
source = "torso"
[safety]
stale_after = "40ms"
[[frame]]
name = "tool"
site = "tip"
[[joint]]
name = "shoulder"
motor = { model = "sts3215", id = 1, sign = -1, gear = 2, offset = 0.5 }
limits = { position = [-2, 1.5], velocity = 4.7, acceleration = 50.0, effort = 1.9, temperature = 65.0 }
gains = { kp_max = 20, kd_max = 1.0, kd_damp = 0.5 }
home = -0.25
[[joint]]
name = "wrist"
motor = { id = 2 }
limits = { position = [-1.0, 1.0], velocity = 3.0, acceleration = 30.0, jerk = 500.0, effort = 1.0, effort_rate = 9.0 }
gains = { kp_max = 10.0, kd_max = 0.5, kd_damp = 0.25 }
[[monitor]]
name = "slow"
formula = "G[0,1s] (tool.x < 0.4)"
dt = "8ms"
trip = "violated"
action = "soft_stop"
"#;

fn parse(text: &str) -> Result<Robot, RobotError> {
    Robot::parse(text, Path::new("/robots/two/robot.toml"))
}

/// A robot with the joints `shoulder` and `wrist`, 250 Hz.
pub(crate) fn two_joints() -> Robot {
    parse(TWO).unwrap()
}

/// A bundle for [`two_joints`], which lists the joints the other way round: one policy step is five control ticks.
pub(crate) fn bundle(edit: impl FnOnce(&mut serde_json::Value)) -> Manifest {
    let mut json = serde_json::json!({
        "format": 1, "name": "test", "files": {}, "robot": { "name": "two", "model_sha256": null },
        "rates": { "policy_dt": 0.02, "control_dt": 0.004, "physics_dt": null },
        "joints": [
            { "name": "wrist", "default": 0.25, "kp": 8.0, "kd": 0.25,
              "position": [-0.5, 2.0], "velocity_max": 2.0, "effort_max": null },
            { "name": "shoulder", "default": -0.5, "kp": 30.0, "kd": 2.0,
              "position": null, "velocity_max": 9.0, "effort_max": 1.5 },
        ],
        "observation": { "size": 2, "interleave": "term", "terms": [
            { "name": "q", "source": "joint_pos", "size": 2 } ] },
        "normalizer": { "where": "none" },
        "action": { "kind": "position", "joints": ["wrist", "shoulder"], "scale": { "*": 1.0 } },
        "chunk": { "mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace" },
        "functions": {}, "commands": [
            { "name": "x", "range": [-1.0, 1.0] }, { "name": "y", "range": [-1.0, 1.0] },
            { "name": "z", "range": [0.0, 1.0] } ],
        "in_graph": { "normalize": false, "squash": true, "action_scale": false, "action_offset": false },
        "weights": "f32", "provenance": {},
    });
    edit(&mut json);
    serde_json::from_value(json).unwrap()
}

/// The robot arm6 of the repository.
pub(crate) fn arm6() -> Robot {
    Robot::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../robots/arm6")).unwrap()
}

/// A reaching bundle for [`arm6`]: six joints moved by increments at 25 Hz, the gripper left alone.
pub(crate) fn arm6_bundle() -> Manifest {
    let names = ["wrist_roll", "shoulder_pan", "forearm_roll", "elbow_flex", "wrist_flex", "shoulder_lift"];
    let joints: Vec<_> = names
        .map(|name| {
            json!({ "name": name, "default": 0.1, "kp": 20.0, "kd": 1.0, "position": null,
                    "velocity_max": null, "effort_max": null })
        })
        .into();
    let link = |pos: [f64; 3], joint: &str, axis: [f64; 3]| json!({ "pos": pos, "quat": [1.0, 0.0, 0.0, 0.0], "joint": joint, "axis": axis, "kind": "hinge", "zero": 0.0 });
    let turret = link([0.0, 0.0, 0.06], "shoulder_pan", [0.0, 0.0, 1.0]);
    let lift = link([0.0, 0.0, 0.06], "shoulder_lift", [0.0, 1.0, 0.0]);
    let elbow = link([0.0, 0.0, 0.3], "elbow_flex", [0.0, 1.0, 0.0]);
    bundle(|b| {
        b["rates"] = json!({ "policy_dt": 0.04, "control_dt": 0.002, "physics_dt": 0.002 });
        b["joints"] = json!(joints);
        b["frames"] = json!([
            { "name": "turret", "chain": [turret] }, { "name": "tool", "chain": [turret, lift, elbow] } ]);
        b["observation"] = json!({ "size": 38, "interleave": "term", "terms": [
            { "name": "q", "source": "joint_pos", "size": 6, "history": { "length": 2, "order": "newest_first", "fill": "repeat" } },
            { "name": "dq", "source": "joint_vel", "size": 6, "scale": 0.1 },
            { "name": "lag", "source": "joint_target_error", "size": 6 },
            { "name": "action", "source": "last_action", "size": 6 },
            { "name": "goal", "source": "frame_pos_error", "size": 3,
              "params": { "frame": "tool", "in": "turret", "target": ["x", "y", "z"], "soft": 0.05 } },
            { "name": "where", "source": "target_cylindrical", "size": 2, "params": { "target": ["x", "y", "z"] } },
            { "name": "tool", "source": "frame_pos", "size": 3, "params": { "frame": "tool" } } ] });
        b["action"] = json!({ "kind": "position_increment", "joints": names, "raw_clip": [-1.0, 1.0],
                              "scale": { "*": 0.1, "wrist_roll": 0.2 }, "leash": 0.3 });
    })
}

/// `TWO` with one piece replaced, which must be refused.
fn refused(from: &str, to: &str) -> RobotError {
    assert_eq!(TWO.matches(from).count(), 1, "{from}");
    parse(&TWO.replace(from, to)).unwrap_err()
}

#[test]
fn every_field_arrives() {
    let robot = two_joints();
    assert_eq!(robot.name, "two");
    assert_eq!(robot.text, TWO);
    assert_eq!(robot.model.as_deref(), Some(Path::new("/robots/two/model.xml")));
    assert_eq!(robot.device.baud, Some(1_000_000));
    assert_eq!(robot.device.period, Some(0.004));
    assert_eq!((robot.device.on_silence, robot.device.on_exit), (Stop::Hold, Stop::Off));
    assert_eq!((robot.control_dt(), robot.control_period_ns()), (0.004, 4_000_000));
    let imu = ImuConfig { mount_quat: [1.0, 0.0, 0.0, 0.0], source: Some("torso".into()) };
    assert_eq!(robot.imu, Some(imu));
    assert_eq!((robot.safety.stale_after, robot.safety.hold_ticks), (0.04, 25));
    assert!((robot.safety.lost_after - 0.12).abs() < 1e-15);
    assert_eq!(robot.safety.estop_level, Level::Damp);
    assert_eq!(robot.frames, [FrameConfig { name: "tool".into(), site: "tip".into() }]);
    assert_eq!(robot.joint_index("wrist"), Some(1));
    assert_eq!(robot.joint_index("knee"), None);
    let [shoulder, wrist] = &robot.joints[..] else { panic!("{} joints", robot.joints.len()) };
    assert_eq!((shoulder.motor.sign, shoulder.motor.gear, shoulder.motor.offset), (-1.0, 2.0, 0.5));
    assert_eq!((shoulder.home, wrist.home), (-0.25, 0.0));
    assert_eq!((shoulder.limits.jerk, wrist.limits.jerk), (5000.0, 500.0));
    assert_eq!(wrist.limits.effort_rate, Some(9.0));
    assert_eq!(robot.monitors[0].spec.dt, 0.008);
    assert_eq!(robot.monitors[0].formula, "G[0,1s] (tool.x < 0.4)");
}

#[test]
fn private_keys_pass_and_change_nothing() {
    let with = TWO.replace("[device]\n", "x-note = [1, nan]\n[device]\nx-lab = { any = true }\n");
    let robot = parse(&with).unwrap();
    assert_eq!(Robot { text: TWO.into(), ..robot }, two_joints());
}

#[test]
fn an_unknown_key_is_refused_with_its_place() {
    let error = refused("port = ", "prot = ");
    let RobotError::Syntax { at, message } = &error else { panic!("{error}") };
    assert_eq!((at.line, at.column), (6, 1));
    assert!(message.contains("unknown field `prot`"), "{message}");
    assert!(error.to_string().starts_with("/robots/two/robot.toml:6:1: "));
    assert!(refused("offset = 0.5", "ofset = 0.5").to_string().contains("`ofset`"));
    assert!(matches!(refused("site = \"tip\"", "site = \"tip\"\nsite = \"a\""), RobotError::Syntax { .. }));
}

#[test]
fn mandatory_limits_are_mandatory() {
    for (from, key) in [
        ("velocity = 4.7, ", "velocity"),
        ("acceleration = 50.0, ", "acceleration"),
        ("effort = 1.9, ", "effort"),
    ] {
        let error = refused(from, "");
        let RobotError::Syntax { at, message } = &error else { panic!("{error}") };
        assert_eq!((at.line, message.as_str()), (22, format!("missing field `{key}`").as_str()));
    }
    assert!(
        refused("gains = { kp_max = 20, kd_max = 1.0, kd_damp = 0.5 }\n", "").to_string().contains("`gains`")
    );
}

#[test]
fn numbers_out_of_their_range_are_refused_with_place_and_value() {
    let at = |line, column| Place { path: "/robots/two/robot.toml".into(), line, column };
    let joint = || "shoulder".to_owned();
    assert_eq!(
        refused("[-2, 1.5]", "[1.5, 1.5]"),
        RobotError::BadRange { at: at(22, 23), joint: joint(), key: "position", lo: 1.5, hi: 1.5 }
    );
    assert_eq!(
        refused("velocity = 4.7", "velocity = nan"),
        RobotError::NotFinite { at: at(22, 45), key: "joint[0].limits.velocity".into(), value: "nan".into() }
    );
    assert!(
        matches!(refused("offset = 0.5", "offset = 1e999"), RobotError::NotFinite { value, .. } if value == "1e999")
    );
    assert!(matches!(refused("[-2, 1.5]", "[-inf, 1.5]"), RobotError::NotFinite { .. }));
    assert_eq!(
        refused("velocity = 4.7", "velocity = -4.7"),
        RobotError::NotPositive { at: at(22, 45), joint: joint(), key: "velocity", value: -4.7 }
    );
    assert_eq!(
        refused("sign = -1", "sign = 0.9"),
        RobotError::DirectionNotUnit { at: at(21, 45), joint: joint(), value: 0.9 }
    );
    assert_eq!(
        refused("gear = 2", "gear = 0"),
        RobotError::NotPositive { at: at(21, 56), joint: joint(), key: "gear", value: 0.0 }
    );
    assert_eq!(
        refused("home = -0.25", "home = 2"),
        RobotError::HomeOutside { at: at(24, 8), joint: joint(), home: 2.0, lo: -2.0, hi: 1.5 }
    );
    assert!(matches!(
        refused("position = [-1.0, 1.0]", "position = [0.5, 1.0]"),
        RobotError::HomeOutside { home: 0.0, .. }
    ));
    assert!(matches!(
        refused("kp_max = 20", "kp_max = -1"),
        RobotError::BadValue { key: "gains.kp_max", .. }
    ));
    assert!(matches!(refused("schema = 1", "schema = 2"), RobotError::BadValue { key: "schema", .. }));
    assert!(matches!(refused("control_hz = 250", "control_hz = 0"), RobotError::BadValue { .. }));
    assert!(matches!(refused("kind = \"feetech\"", "kind = \"lego\""), RobotError::BadValue { .. }));
    assert!(matches!(
        refused("dt = \"8ms\"", "dt = \"6ms\""),
        RobotError::BadValue { key: "monitor.dt", .. }
    ));
    assert!(matches!(
        refused("present = true", "present = true\nmount_quat = [1, 1, 0, 0]"),
        RobotError::BadValue { key: "imu.mount_quat", .. }
    ));
    let stale = refused("stale_after = \"40ms\"", "stale_after = \"40ms\"\nlost_after = \"30ms\"");
    assert_eq!(
        stale.to_string(),
        "/robots/two/robot.toml:16:14: safety.lost_after = 0.03 s: expected a time not below stale_after"
    );
}

#[test]
fn durations_need_a_unit() {
    for wrong in ["\"40\"", "40", "\"40 min\"", "\"-1ms\"", "\"infs\"", "\"ms\""] {
        let error = refused("stale_after = \"40ms\"", &format!("stale_after = {wrong}"));
        assert!(matches!(error, RobotError::Syntax { .. }), "{wrong}: {error}");
    }
    let zero = refused("stale_after = \"40ms\"", "stale_after = \"0ms\"");
    assert!(matches!(zero, RobotError::BadValue { key: "safety.stale_after", .. }));
    assert_eq!(parse(&TWO.replace("\"40ms\"", "\"40000us\"")).unwrap().safety.stale_after, 0.04);
}

#[test]
fn names_and_ids_are_unique() {
    let twice = refused("name = \"wrist\"", "name = \"shoulder\"");
    assert!(matches!(&twice, RobotError::DuplicateJoint { at, name } if at.line == 26 && name == "shoulder"));
    let id = refused("id = 2", "id = 1");
    assert!(
        matches!(&id, RobotError::DuplicateMotorId { id: 1, a, b, .. } if a == "shoulder" && b == "wrist")
    );
    assert!(parse(&TWO.replace("id = 2", "id = 1, bus = \"can1\"")).is_ok(), "another bus has its own ids");
    let frame = refused("[[monitor]]", "[[frame]]\nname = \"tool\"\nsite = \"b\"\n[[monitor]]");
    assert!(matches!(frame, RobotError::DuplicateName { what: "frame", .. }));
}

#[test]
fn the_number_of_joints_is_bounded() {
    let (head, joints) = TWO.split_at(TWO.find("[[joint]]").unwrap());
    let joints = joints.split_at(joints.find("[[monitor]]").unwrap()).0;
    let many: String = (0..33)
        .map(|i| {
            joints
                .replace("\"shoulder\"", &format!("\"s{i}\""))
                .replace("\"wrist\"", &format!("\"w{i}\""))
                .replace("id = 1", &format!("id = {}", 2 * i))
                .replace("id = 2", &format!("id = {}", 2 * i + 1))
        })
        .collect();
    assert_eq!(parse(&format!("{head}{many}")).unwrap_err(), RobotError::TooManyJoints { n: 66, max: 64 });
    assert!(parse(&format!("joint = []\n{head}")).unwrap_err().to_string().contains("at least one joint"));
}

#[test]
fn arm6_is_a_robot() {
    let robot = arm6();
    assert_eq!(check_bundle(&robot, &arm6_bundle()), Ok(()));
    assert_eq!(robot.joints.len(), 7);
    assert_eq!(robot.control_hz, 500.0);
    let home: Vec<f64> = robot.joints.iter().map(|j| j.home).collect();
    assert_eq!(home[..6], [0.0, 0.2, 1.5, 0.0, 0.8, 0.0]);
    for joint in &robot.joints[..6] {
        let [lo, hi] = joint.limits.position;
        assert!(lo <= joint.home - 0.3 && joint.home + 0.3 <= hi, "{}: training starts there", joint.name);
    }
    let error = Robot::load(&robot.path.with_file_name("nothing.toml")).unwrap_err();
    assert!(matches!(&error, RobotError::Read { path, .. } if path.ends_with("nothing.toml")), "{error}");
}

#[test]
fn the_tighter_limit_holds_and_the_looser_bundle_is_reported() {
    let robot = two_joints();
    let (limits, looser) = effective_limits(&robot, &bundle(|_| ())).unwrap();
    assert_eq!((limits[1].position, limits[1].velocity, limits[1].effort), ([-0.5, 1.0], 2.0, 1.0));
    assert_eq!((limits[0].position, limits[0].velocity, limits[0].effort), ([-2.0, 1.5], 4.7, 1.5));
    assert_eq!(limits[0].acceleration, 50.0);
    let note = |joint: &str, key, bundle, robot| Looser { joint: joint.into(), key, bundle, robot };
    assert_eq!(looser, [note("wrist", "position", 2.0, 1.0), note("shoulder", "velocity", 9.0, 4.7)]);

    let below = bundle(|b| b["joints"][0]["position"] = json!([-3.0, 0.5]));
    let (limits, looser) = effective_limits(&robot, &below).unwrap();
    assert_eq!(limits[1].position, [-1.0, 0.5]);
    assert_eq!(looser[0], note("wrist", "position", -3.0, -1.0));

    for (key, value) in
        [("position", json!([1.0, 2.0])), ("velocity_max", json!(0.0)), ("effort_max", json!(-1.0))]
    {
        let error = effective_limits(&robot, &bundle(|b| b["joints"][0][key] = value)).unwrap_err();
        assert!(matches!(&error, RobotError::EmptyLimits { joint, .. } if joint == "wrist"), "{error}");
    }
}

#[test]
fn gains_are_the_bundles_under_the_robots_caps() {
    let robot = two_joints();
    let (gains, caps) = effective_gains(&robot, &bundle(|_| ())).unwrap();
    assert_eq!(gains, [Gain { kp: 20.0, kd: 1.0 }, Gain { kp: 8.0, kd: 0.25 }]);
    let cap = |key, bundle, cap| GainCap { joint: "shoulder".into(), key, bundle, cap };
    assert_eq!(caps, [cap("kp", 30.0, 20.0), cap("kd", 2.0, 1.0)]);

    let alone = bundle(|b| drop(b["joints"].as_array_mut().unwrap().pop()));
    assert_eq!(effective_gains(&robot, &alone).unwrap().0[0], Gain { kp: 20.0, kd: 1.0 });
    let negative = effective_gains(&robot, &bundle(|b| b["joints"][0]["kd"] = json!(-1.0)));
    assert_eq!(negative.unwrap_err(), RobotError::BadGain { joint: "wrist".into(), key: "kd", value: -1.0 });
}

#[test]
fn a_bundle_for_another_robot_is_refused() {
    let robot = two_joints();
    assert_eq!(check_bundle(&robot, &bundle(|_| ())), Ok(()));
    let slower = bundle(|b| b["rates"]["control_dt"] = json!(0.005));
    assert_eq!(check_bundle(&robot, &slower), Err(RobotError::ControlPeriod { bundle: 0.005, robot: 0.004 }));
    let uneven = bundle(|b| b["rates"]["policy_dt"] = json!(0.021));
    let error = RobotError::RateNotDivisible { policy_dt: 0.021, control_dt: 0.004 };
    assert_eq!(check_bundle(&robot, &uneven), Err(error));
    let knee = bundle(|b| b["joints"][1]["name"] = json!("knee"));
    assert!(
        matches!(check_bundle(&robot, &knee), Err(RobotError::MissingJoint { name, .. }) if name == "knee")
    );
    let knee = bundle(|b| b["action"]["joints"] = json!(["knee"]));
    assert!(
        matches!(check_bundle(&robot, &knee), Err(RobotError::MissingJoint { known, .. }) if known.len() == 2)
    );
    let camera = bundle(|b| b["frames"] = json!([{ "name": "camera", "chain": [] }]));
    let error = check_bundle(&robot, &camera).unwrap_err();
    assert_eq!(error.to_string(), "robot.toml names no frame camera; it names tool");
    assert_eq!(
        check_bundle(&robot, &bundle(|b| b["frames"] = json!([{ "name": "tool", "chain": [] }]))),
        Ok(())
    );
}

#[test]
fn a_policy_step_is_a_whole_number_of_control_periods() {
    let steps = |policy: f64, control: f64| {
        ticks_per_step(&bundle(|b| {
            b["rates"] = json!({"policy_dt": policy, "control_dt": control, "physics_dt": null})
        }))
    };
    assert_eq!(steps(0.02, 0.004), Ok(5));
    assert_eq!(steps(0.04, 0.002), Ok(20));
    assert_eq!(steps(0.1, 1.0 / 30.0), Ok(3));
    for (policy, control) in [(0.02, 0.0), (0.0, 0.004), (0.004, 0.02), (-0.02, 0.004), (0.02, -0.004)] {
        assert!(steps(policy, control).is_err(), "{policy} {control}");
    }
}

proptest::proptest! {
    /// Whatever the text, reading it ends in a robot or an error.
    #[test]
    fn damaged_text_never_panics(start in 0usize..TWO.len(), length in 0usize..40, with in "[ -~\n\u{e4}]{0,12}") {
        let end = (start + length).min(TWO.len());
        let text = format!("{}{with}{}", &TWO[..start], &TWO[end..]);
        let _ = parse(&text);
    }
}
