//! Joints are matched by name: another order in robot.toml or in the bundle gives every joint the very same commands.

use std::sync::{Arc, Mutex};

use cadenza_policy::manifest::Manifest;
use cadenza_runtime::control::{PolicyError, Request};
use cadenza_runtime::device::fault::{Injection, Trouble};
use proptest::prelude::*;
use serde_json::json;

use crate::rig::{Act, HOME, Parts, Rig, injection, manifest, toml};

/// Joints in the bundle's own order, which the tests permute.
const BUNDLE: [&str; 3] = ["wrist", "pan", "lift"];

fn permuted(order: [usize; 3]) -> Manifest {
    manifest(|m| {
        let joints = order.map(|i| m["joints"][i].clone());
        m["joints"] = json!(joints);
        m["action"]["joints"] = json!(order.map(|i| BUNDLE[i]));
        m["action"]["kind"] = json!("position_increment");
        m["action"]["scale"] = json!({ "*": 0.1, "pan": 0.15 });
        m["action"]["leash"] = json!(0.3);
    })
}

/// Commands of pan, lift and wrist with their level: q, dq, kp, kd as bits.
type Trace = Vec<(u8, [[u64; 4]; 3])>;

/// The policy sees and moves every joint by its own name, whatever the order.
fn run(
    robot: [usize; 3],
    bundle: [usize; 3],
    wish: &[[f32; 3]],
    trouble: Option<(u64, usize)>,
) -> (Trace, usize) {
    let parts = Parts { text: toml(robot, ""), manifest: permuted(bundle), ..Parts::default() };
    let wish = wish.to_vec();
    let seen = Arc::new(Mutex::new(0));
    let count = seen.clone();
    let policy = Act(move |tick: u64, obs: &[f32], out: &mut [f32]| -> Result<(), PolicyError> {
        let row = wish[(tick / 10) as usize % wish.len()];
        for (place, joint) in bundle.into_iter().enumerate() {
            // Position, velocity and last action of the joint, each from its own term.
            let felt = 0.3 * (obs[place] - HOME[joint]) + 0.01 * obs[3 + place] + 0.1 * obs[6 + place];
            out[place] = row[joint] - felt;
        }
        *count.lock().unwrap() += 1;
        Ok(())
    });
    let place = |name: usize| robot.iter().position(|&i| i == name).unwrap();
    let injections: Vec<Injection> = trouble
        .iter()
        .map(|&(at, joint)| injection(at, 2, Trouble::NotFinite { joint: place(joint) }))
        .collect();
    let mut rig = Rig::new(&parts, &injections, &[(350, Request::Stop)], policy);
    let mut trace = Vec::new();
    for _ in 0..450 {
        rig.tick();
        let c = rig.controller.command();
        let of = |name: usize| [c.q, c.dq, c.kp, c.kd].map(|a| a[place(name)].to_bits());
        trace.push((c.level as u8, [0, 1, 2].map(of)));
    }
    let answers = *seen.lock().unwrap();
    (trace, answers)
}

fn order() -> impl Strategy<Value = [usize; 3]> {
    Just([0, 1, 2]).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn commands_by_name_do_not_depend_on_any_order(
        robot in order(),
        bundle in order(),
        wish in prop::collection::vec(prop::array::uniform3(-1.5f32..1.5), 3..12),
        trouble in prop::option::of((100u64..300, 0usize..3)),
    ) {
        let (plain, answers) = run([0, 1, 2], [0, 1, 2], &wish, trouble);
        prop_assert!(answers > 30);
        let moved = plain.iter().map(|(_, q)| q[0][0]).collect::<std::collections::HashSet<_>>().len();
        prop_assert!(moved > 20, "the robot moves: {moved}");
        prop_assert_eq!(run(robot, bundle, &wish, trouble).0, plain);
    }
}
