#![no_main]
//! Text → robot: no panic, bounded, and what is accepted can be put behind a gate and a limiter, or is refused there with
//! words.

use std::path::Path;

use cadenza_runtime::action::Limiter;
use cadenza_runtime::robot::{Limits, Robot};
use cadenza_runtime::safety::Gate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let robot = match Robot::parse(text, Path::new("robot.toml")) {
        Ok(robot) => robot,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(Robot::parse(text, Path::new("robot.toml")).as_ref(), Ok(&robot));
    let limits: Vec<Limits> = robot.joints.iter().map(|j| j.limits).collect();
    let _ = Limiter::new(&limits, robot.control_dt());
    let gate = Gate::new(&robot, &limits, robot.control_dt());
    assert!(gate.hold_command().is_finite());
});
