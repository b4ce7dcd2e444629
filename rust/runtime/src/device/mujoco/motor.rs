//! The motor law: each `<motor>` becomes a servo that MuJoCo evaluates at every physics step.
//!
//! The same edit as `cadenza.sim.motor` makes before compiling: gain 1, affine bias (0, −kp, −kd), force range ± effort,
//! so that `ctrl = tau + kp·q* + kd·dq*` gives `tau + kp·(q* − q) + kd·(dq* − dq)`. A run starts with the largest gains.

use std::path::Path;

use super::layout::{ACTUATOR, AFFINE_BIAS, FIXED_GAIN, HINGE, JOINT, NO_BIAS, NO_DYNAMICS, ON_JOINT, SLIDE};
use super::model::Model;
use crate::device::DeviceError;
use crate::device::sim::error;
use crate::robot::{Joint, Robot};

/// Numbers of a row of `actuator_gear`.
const GEAR: usize = 6;

/// A joint of the robot in the model.
pub(super) struct Motor {
    pub(super) joint: usize,
    pub(super) actuator: usize,
}

/// Makes servos of the robot's motors; robot order.
///
/// # Errors
/// A joint that the model lacks, or that is no hinge or slide; one without a `<motor>` of its name, or with more than one
/// actuator; a motor with a gear, a delay, or dynamics.
pub(super) fn servos(model: &mut Model, robot: &Robot, path: &Path) -> Result<Vec<Motor>, DeviceError> {
    robot.joints.iter().map(|joint| servo(model, joint, robot, path)).collect()
}

fn servo(model: &mut Model, joint: &Joint, robot: &Robot, path: &Path) -> Result<Motor, DeviceError> {
    let refuse = |what: String| error(format!("{}: {what}", path.display()));
    let name = &joint.name;
    let id = model
        .find(JOINT, name)
        .ok_or_else(|| refuse(format!("no joint '{name}', which {} names", robot.path.display())))?;
    let layout = model.layout();
    let kind = model.array(&layout.jnt_type, model.count(&layout.njnt))[id];
    if kind != HINGE && kind != SLIDE {
        return Err(refuse(format!("joint '{name}' is neither hinge nor slide")));
    }
    let actuator = driver(model, id, name).map_err(refuse)?;
    if let Some(odd) = oddity(model, actuator) {
        return Err(refuse(format!("actuator '{name}' is not a plain <motor> with gear 1: it has {odd}")));
    }
    let (n, row) = (model.count(&layout.nactuator), layout.prm_row);
    let control = model.array(&layout.actuator_ctrladr, n)[actuator] as usize;
    let controls = model.count(&layout.nu);
    let bias = [0.0, -joint.gains.kp_max, -joint.gains.kd_max];
    let effort = joint.limits.effort;
    model.array_mut(&layout.actuator_biastype, n)[actuator] = AFFINE_BIAS;
    model.array_mut(&layout.actuator_biasprm, n * row)[actuator * row..][..3].copy_from_slice(&bias);
    model.array_mut(&layout.actuator_forcelimited, n)[actuator] = 1;
    model.array_mut(&layout.actuator_forcerange, n * 2)[actuator * 2..][..2]
        .copy_from_slice(&[-effort, effort]);
    model.array_mut(&layout.actuator_ctrllimited, controls)[control] = 0;
    Ok(Motor { joint: id, actuator })
}

/// The one actuator of a joint, called as the joint is.
fn driver(model: &Model, joint: usize, name: &str) -> Result<usize, String> {
    let layout = model.layout();
    let n = model.count(&layout.nactuator);
    let kinds = model.array(&layout.actuator_trntype, n);
    let targets = model.array(&layout.actuator_trnid, n * 2);
    let mut found = (0..n).filter(|&a| kinds[a] == ON_JOINT && targets[2 * a] == joint as i32);
    match (found.next(), found.count()) {
        (None, _) => Err(format!("joint '{name}' has no <motor>")),
        (Some(a), 0) if model.name(ACTUATOR, a) == name => Ok(a),
        (Some(a), 0) => {
            let called = model.name(ACTUATOR, a);
            Err(format!("actuator '{called}' drives joint '{name}'; motors are named as their joint"))
        }
        (Some(_), more) => Err(format!("joint '{name}' has {} actuators, must have one", more + 1)),
    }
}

/// What makes an actuator anything but a plain motor.
fn oddity(model: &Model, actuator: usize) -> Option<String> {
    let layout = model.layout();
    let n = model.count(&layout.nactuator);
    let int = |field| model.array(field, n)[actuator];
    let gain = model.array(&layout.actuator_gainprm, n * layout.prm_row)[actuator * layout.prm_row];
    let output = int(&layout.actuator_outadr) as usize;
    let gear = model.array(&layout.actuator_gear, (output + 1) * GEAR)[output * GEAR];
    let delay = model.array(&layout.actuator_delay, n)[actuator];
    let problems = [
        (int(&layout.actuator_gaintype) != FIXED_GAIN, "a gain that varies".to_owned()),
        (int(&layout.actuator_biastype) != NO_BIAS, "a bias".to_owned()),
        (int(&layout.actuator_dyntype) != NO_DYNAMICS, "dynamics".to_owned()),
        (gain != 1.0, format!("gain {gain}")),
        (gear != 1.0, format!("gear {gear}")),
        (delay != 0.0, format!("a delay of {delay} s")),
    ];
    problems.into_iter().find_map(|(odd, what)| odd.then_some(what))
}
