use std::f64::consts::TAU;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::robot::tests::{arm6, arm6_bundle, bundle, two_joints};
use crate::state::Object;

/// A bundle with these terms; `observation.size` follows.
fn manifest(interleave: &str, terms: Value) -> Manifest {
    bundle(|b| {
        let size: u64 = terms
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["size"].as_u64().unwrap() * t["history"]["length"].as_u64().unwrap_or(1))
            .sum();
        b["observation"] = json!({ "size": size, "interleave": interleave, "terms": terms });
        b["frames"] = json!([
            { "name": "tool", "chain": [
                { "pos": [0.0, 0.0, 0.1], "quat": [1.0, 0.0, 0.0, 0.0], "joint": "shoulder",
                  "axis": [0.0, 0.0, 1.0], "kind": "hinge", "zero": 0.0 },
                { "pos": [0.5, 0.0, 0.0], "quat": [1.0, 0.0, 0.0, 0.0], "joint": null,
                  "axis": [0.0, 0.0, 1.0], "kind": "hinge", "zero": 0.0 } ] } ]);
    })
}

fn observer(interleave: &str, terms: Value) -> Observer {
    Observer::new(&manifest(interleave, terms), &two_joints()).unwrap()
}

fn refused(term: Value) -> String {
    Observer::new(&manifest("term", json!([term])), &two_joints()).unwrap_err().to_string()
}

/// Something in every field: shoulder first, as in the robot.
fn state() -> State {
    let mut s = State::new(2);
    (s.q[0], s.q[1], s.dq[0], s.dq[1], s.tau[0], s.tau[1]) = (0.5, -0.75, 1.0, 2.0, 3.0, 4.0);
    s.imu.valid = true;
    s.imu.quat = [0.05f64.cos(), 0.0, 0.05f64.sin(), 0.0];
    s.imu.gyro = [0.25, 0.5, 0.75];
    s.imu.acc = [1.0, 2.0, 9.5];
    s.base = crate::state::Base { pos: [1.0, 2.0, 3.0], vel: [0.0, 1.0, 0.0], valid: true };
    (s.user[0], s.user[1], s.user[2]) = (0.3, 0.4, 0.2);
    s
}

fn feedback() -> Feedback {
    let mut f = Feedback::reset(&bundle(|_| ()), &[0.0; MAX_JOINTS]);
    (f.action[0], f.action[1]) = (0.125, -0.25);
    (f.target[0], f.target[1]) = (0.75, -1.0);
    (f.executed[0], f.executed[1]) = (0.5, 1.5);
    f.time = 2.25;
    f
}

fn observe(o: &mut Observer, state: &State) -> Vec<f32> {
    let mut out = vec![f32::NAN; o.size()];
    o.step(state, &feedback(), &mut out).unwrap();
    out
}

#[test]
fn gravity_has_its_golden_value() {
    let mut o = observer("term", json!([{ "name": "g", "source": "projected_gravity", "size": 3 }]));
    let g = observe(&mut o, &state());
    for (g, golden) in g.iter().zip([0.099833417, 0.0, -0.995004165]) {
        assert!((f64::from(*g) - golden).abs() < 1e-7, "{g} {golden}");
    }
}

#[test]
fn each_source_gives_its_numbers() {
    let frame = [0.5 * 0.5f64.cos(), 0.5 * 0.5f64.sin(), 0.1];
    let world = [0.3 - frame[0], 0.4 - frame[1], 0.2 - frame[2]];
    let (s, c) = 0.5f64.sin_cos();
    let turned = [c * world[0] + s * world[1], -s * world[0] + c * world[1], world[2]];
    let soft = (world.iter().map(|x| x * x).sum::<f64>() + 0.1 * 0.1).sqrt();
    let point = json!(["x", "y", "z"]);
    let cases: Vec<(&str, Value, Vec<f64>)> = vec![
        // The bundle lists the wrist first.
        ("joint_pos", json!({}), vec![-1.0, 1.0]),
        ("joint_pos", json!({ "absolute": true }), vec![-0.75, 0.5]),
        ("joint_vel", json!({}), vec![2.0, 1.0]),
        ("joint_effort", json!({}), vec![4.0, 3.0]),
        ("joint_target_error", json!({}), vec![-0.25, 0.25]),
        ("gyro", json!({}), vec![0.25, 0.5, 0.75]),
        ("accelerometer", json!({}), vec![1.0, 2.0, 9.5]),
        ("base_quat", json!({}), state().imu.quat.to_vec()),
        ("base_pos", json!({}), vec![1.0, 2.0, 3.0]),
        ("base_lin_vel", json!({}), vec![0.0, 1.0, 0.0]),
        ("command", json!({}), vec![0.3, 0.4, 0.2]),
        ("command", json!({ "commands": ["z", "x"] }), vec![0.2, 0.3]),
        ("last_action", json!({}), vec![0.125, -0.25]),
        ("prev_executed_action", json!({}), vec![1.5, 0.5]),
        ("phase", json!({ "period": 2.0 }), vec![(TAU / 8.0).sin(), (TAU / 8.0).cos()]),
        ("time", json!({}), vec![2.25]),
        ("constant", json!({ "value": [7.0, 8.0] }), vec![7.0, 8.0]),
        ("frame_pos", json!({ "frame": "tool" }), frame.to_vec()),
        ("frame_pos_error", json!({ "frame": "tool", "target": point }), world.to_vec()),
        ("frame_pos_error", json!({ "frame": "tool", "target": point, "in": "tool" }), turned.to_vec()),
        (
            "frame_pos_error",
            json!({ "frame": "tool", "target": point, "in": "tool", "soft": 0.1 }),
            turned.iter().map(|x| x / soft).collect(),
        ),
        ("target_cylindrical", json!({ "target": point }), vec![0.5, 0.2]),
    ];
    for (source, params, expected) in cases {
        let term = json!({ "name": "t", "source": source, "size": expected.len(), "params": params });
        let got = observe(&mut observer("term", json!([term])), &state());
        let near = got.iter().zip(&expected).all(|(g, e)| (f64::from(*g) - e).abs() < 1e-6);
        assert!(near, "{source} {params}: {got:?} {expected:?}");
    }
}

#[test]
fn base_velocity_is_given_in_the_axes_of_the_body() {
    let mut s = state();
    let r = std::f64::consts::FRAC_1_SQRT_2;
    s.imu.quat = [r, 0.0, 0.0, r];
    let mut o = observer("term", json!([{ "name": "v", "source": "base_lin_vel", "size": 3 }]));
    let v = observe(&mut o, &s);
    assert!((v[0] - 1.0).abs() < 1e-7 && v[1].abs() < 1e-7, "{v:?}");
}

#[test]
fn executed_positions_come_back_in_graph_units() {
    let mut m = manifest("term", json!([{ "name": "a", "source": "prev_executed_action", "size": 2 }]));
    m.action.kind = cadenza_policy::manifest::ActionKind::PositionOffset;
    m.action.scale = [("*".to_owned(), 0.5)].into();
    m.action.offset = cadenza_policy::manifest::ActionOffset::default();
    let mut o = Observer::new(&m, &two_joints()).unwrap();
    assert_eq!(observe(&mut o, &state()), [(1.5 - 0.25) / 0.5, (0.5 + 0.5) / 0.5]);
    m.action.scale = [("*".to_owned(), 0.0)].into();
    assert!(Observer::new(&m, &two_joints()).unwrap_err().to_string().contains("scale 0"));
    m.action.kind = cadenza_policy::manifest::ActionKind::PositionIncrement;
    assert!(Observer::new(&m, &two_joints()).unwrap_err().to_string().contains("PositionIncrement"));
}

#[test]
fn offset_scale_and_clip_have_their_order() {
    let with = |stage| {
        let mut o = observer(
            "term",
            json!([{ "name": "a", "source": "accelerometer", "size": 3, "offset": [0.0, 1.0, 0.5],
                     "scale": 0.5, "clip": [-0.75, 2.0], "clip_stage": stage }]),
        );
        observe(&mut o, &state())
    };
    assert_eq!(with("before_scale"), [0.5, 0.5, 1.0]);
    assert_eq!(with("after_scale"), [0.5, 0.5, 2.0]);
}

#[test]
fn histories_are_laid_out_as_declared() {
    let steps = |interleave, order: [&str; 2], fill| {
        let history = |i: usize| json!({ "length": 3, "order": order[i], "fill": fill });
        let mut o = observer(
            interleave,
            json!([
                { "name": "v", "source": "joint_vel", "size": 2, "history": history(0) },
                { "name": "e", "source": "joint_effort", "size": 1, "joints": ["wrist"], "history": history(1) },
            ]),
        );
        let mut s = state();
        let mut outs = Vec::new();
        for k in 1..=2 {
            let k = f64::from(k);
            (s.dq[0], s.dq[1], s.tau[1]) = (10.0 * k, 20.0 * k, k);
            outs.push(observe(&mut o, &s));
        }
        o.reset();
        assert_eq!(
            observe(&mut o, &s)[..1],
            if fill == "zero" && order[0] == "oldest_first" { [0.0] } else { [40.0] }
        );
        outs
    };
    let old = ["oldest_first"; 2];
    let [first, second] = &steps("term", old, "repeat")[..] else { panic!() };
    assert_eq!(first[..], [20.0, 10.0, 20.0, 10.0, 20.0, 10.0, 1.0, 1.0, 1.0]);
    assert_eq!(second[..], [20.0, 10.0, 20.0, 10.0, 40.0, 20.0, 1.0, 1.0, 2.0]);
    let [first, second] = &steps("term", old, "zero")[..] else { panic!() };
    assert_eq!(first[..], [0.0, 0.0, 0.0, 0.0, 20.0, 10.0, 0.0, 0.0, 1.0]);
    assert_eq!(second[..], [0.0, 0.0, 20.0, 10.0, 40.0, 20.0, 0.0, 1.0, 2.0]);
    let second = &steps("term", ["newest_first"; 2], "zero")[1];
    assert_eq!(second[..], [40.0, 20.0, 20.0, 10.0, 0.0, 0.0, 2.0, 1.0, 0.0]);
    let second = &steps("time", old, "zero")[1];
    assert_eq!(second[..], [0.0, 0.0, 0.0, 20.0, 10.0, 1.0, 40.0, 20.0, 2.0]);
    let second = &steps("time", ["newest_first", "newest_first"], "repeat")[1];
    assert_eq!(second[..], [40.0, 20.0, 2.0, 20.0, 10.0, 1.0, 20.0, 10.0, 1.0]);
}

#[test]
fn numbers_that_are_not_finite_are_named_and_leave_the_history_alone() {
    let mut o = observer(
        "term",
        json!([
            { "name": "v", "source": "joint_vel", "size": 2, "history": { "length": 2, "order": "oldest_first", "fill": "repeat" } },
            { "name": "w", "source": "gyro", "size": 3, "clip": [-1.0, 1.0] },
        ]),
    );
    let mut out = [0.0; 7];
    let good = state();
    o.step(&good, &feedback(), &mut out).unwrap();
    let mut bad = good;
    bad.dq[1] = 9.0;
    bad.imu.gyro[2] = f64::INFINITY;
    assert_eq!(
        o.step(&bad, &feedback(), &mut out),
        Err(NotFinite { term: 1, index: 2 }),
        "clipping hides nothing"
    );
    assert_eq!(o.term(1), Some("w"));
    bad.imu.gyro[2] = 1e300;
    assert!(o.step(&bad, &feedback(), &mut out).is_ok(), "large and clipped is fine");
    let mut o2 = o.clone();
    bad.imu.valid = false;
    assert_eq!(o2.step(&bad, &feedback(), &mut out), Err(NotFinite { term: 1, index: 0 }), "no IMU");
    bad = good;
    bad.dq[0] = 1e200;
    assert_eq!(
        o.step(&bad, &feedback(), &mut out),
        Err(NotFinite { term: 0, index: 1 }),
        "too large for f32"
    );
    o.step(&good, &feedback(), &mut out).unwrap();
    assert_eq!(out[..4], [9.0, 1.0, 2.0, 1.0], "neither refused state is remembered");
}

#[test]
fn objects_are_bound_by_name_and_refused_when_missing() {
    let mut o = observer(
        "term",
        json!([
            { "name": "p", "source": "object_pos", "size": 3, "params": { "object": "cube" } },
            { "name": "e", "source": "object_pos_error", "size": 3, "params": { "object": "cube", "frame": "tool" } },
        ]),
    );
    let mut s = state();
    s.objects[1] = Object { pos: [1.0, 2.0, 3.0], valid: true, ..s.objects[1] };
    let mut out = [0.0; 6];
    assert_eq!(o.step(&s, &feedback(), &mut out), Err(NotFinite { term: 0, index: 0 }), "not bound yet");
    let error = o.bind_objects(&["ball"]).unwrap_err().to_string();
    assert_eq!(error, "term p needs object cube; the device reports ball");
    o.bind_objects(&["ball", "cube"]).unwrap();
    o.step(&s, &feedback(), &mut out).unwrap();
    assert_eq!(out[..3], [1.0, 2.0, 3.0]);
    assert!((out[3] - (1.0 - 0.5 * 0.5f32.cos())).abs() < 1e-6 && (out[5] - 2.9).abs() < 1e-6);
    s.objects[1].valid = false;
    assert!(o.step(&s, &feedback(), &mut out).is_err(), "not seen");
}

/// The rules of the manifest itself are the policy crate's and tested there; here is what needs the robot.
#[test]
fn terms_that_cannot_be_computed_are_refused() {
    for (term, text) in [
        (json!({ "name": "h", "source": "height_scan", "size": 3 }), "height_scan"),
        (json!({ "name": "t", "source": "gyro", "size": 4 }), "observation.terms.t.size"),
        (
            json!({ "name": "t", "source": "x-lidar", "size": 4 }),
            "term t: the source x-lidar has no provider",
        ),
        (json!({ "name": "t", "source": "mission.phase", "size": 1 }), "mission.phase has no provider"),
        (
            json!({ "name": "t", "source": "frame_pos", "size": 3, "params": { "frame": "foot" } }),
            "observation.terms.t.params.frame",
        ),
        (json!({ "name": "t", "source": "target_cylindrical", "size": 2 }), "needs target"),
    ] {
        let name = term["source"].to_string();
        let error = refused(term);
        assert!(error.contains(text), "{name}: {error}");
    }
    let mut m = manifest("term", json!([{ "name": "t", "source": "time", "size": 1 }]));
    m.observation.size = 2;
    assert!(matches!(Observer::new(&m, &two_joints()), Err(ObserveError::Manifest(_))));
}

proptest! {
    /// Another order of `[[joint]]` changes nothing that the network sees.
    #[test]
    fn a_permuted_robot_gives_the_same_observation(
        order in Just((0..7).collect::<Vec<usize>>()).prop_shuffle(), numbers in prop::collection::vec(-2.0..2.0f64, 35),
    ) {
        let (robot, manifest) = (arm6(), arm6_bundle());
        let mut permuted = robot.clone();
        permuted.joints = order.iter().map(|&i| robot.joints[i].clone()).collect();
        let (mut s1, mut s2) = (State::new(7), State::new(7));
        let mut f1 = Feedback::reset(&manifest, &s1.q);
        let mut f2 = f1;
        for (new, &old) in order.iter().enumerate() {
            for (k, (a, b)) in [(&mut s1.q, &mut s2.q), (&mut s1.dq, &mut s2.dq), (&mut s1.tau, &mut s2.tau),
                                (&mut f1.target, &mut f2.target), (&mut f1.executed, &mut f2.executed)]
                .into_iter().enumerate()
            {
                a[old] = numbers[7 * k + old];
                b[new] = numbers[7 * k + old];
            }
        }
        let run = |robot: &Robot, s: &State, f: &Feedback| {
            let mut o = Observer::new(&manifest, robot).unwrap();
            let mut out = vec![0.0f32; o.size()];
            o.step(s, f, &mut out).unwrap();
            out.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(&robot, &s1, &f1), run(&permuted, &s2, &f2));
    }
}
