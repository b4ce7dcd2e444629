//! A simulation made without Python: MuJoCo's library, a robot's model, the scene of a bundle.
//!
//! It is the simulation that `cadenza.runtime.SimDevice.of` makes, bit for bit: the same steps in the same order, through
//! the library that a MuJoCo wheel brings. MuJoCo has no accessors for most fields of its structures, so that this works
//! with the versions in `layouts.rs` only.
//!
//! When MuJoCo itself gives up, as it does for a model that needs more memory than it declares, the process ends with its
//! words on standard error and exit code 2: MuJoCo offers no way back.

mod layout;
mod layouts;
mod library;
mod model;
mod motor;
mod spec;
mod start;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use super::sim::{SimDevice, error};
use super::{DeviceError, TimeSource};
use crate::robot::Robot;
use library::MuJoCo;
use model::Model;
use motor::Motor;
use spec::Spec;
use start::Simulation;

/// Name of the bundle's entry with the scene.
pub const SCENE: &str = "x-scene.xml";

/// Simulates `robot` at its home position.
///
/// # Arguments
/// `library` is the path of a wheel's `libmujoco.so.X.Y.Z`. `scene` is MJCF of what stands around the robot: the bodies of
/// its world are added to the robot's, and those with a free joint become the objects that the device reports.
///
/// # Errors
/// A library that is not MuJoCo, or of a version whose layout is not known; a robot without a model; a model or scene that
/// MuJoCo refuses; a joint without a plain `<motor>` of its name; and what [`SimDevice::new`] refuses.
pub fn simulate(
    library: &Path,
    robot: &Robot,
    scene: Option<&str>,
    time: TimeSource,
) -> Result<SimDevice, DeviceError> {
    let mujoco = Arc::new(MuJoCo::open(library)?);
    let (model, motors, bodies) = build(&mujoco, robot, scene)?;
    let mut simulation = Simulation::new(model)?;
    simulation.start(robot, &motors);
    let handles = simulation.handles(&motors, &bodies)?;
    // SAFETY: the addresses are those of a live model and its data, which go with the device and are nobody else's.
    unsafe { SimDevice::new(handles, robot, Box::new(simulation), time) }
}

/// The robot's model with the motor law and the scene, its motors, and the names of the scene's bodies.
fn build(
    mujoco: &Arc<MuJoCo>,
    robot: &Robot,
    scene: Option<&str>,
) -> Result<(Model, Vec<Motor>, Vec<String>), DeviceError> {
    let path = robot
        .model
        .as_deref()
        .ok_or_else(|| error(format!("{}: no model, which simulation needs", robot.path.display())))?;
    let mut spec = Spec::of_robot(mujoco, path)?;
    let bodies = match scene {
        Some(xml) => spec.attach(&Spec::of_scene(mujoco, xml)?)?,
        None => Vec::new(),
    };
    let mut model = spec.compile()?;
    let motors = motor::servos(&mut model, robot, path)?;
    Ok((model, motors, bodies))
}
