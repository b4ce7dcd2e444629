//! A bundle's manifest held against the robot: joints, rates, frames, limits, gains.

use cadenza_policy::manifest::{Joint, Manifest};

use super::{JointMap, Limits, Robot, RobotError};

/// A limit of the bundle that is looser than the robot's; the robot's holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Looser {
    /// Joint.
    pub joint: String,
    /// `position`, `velocity` or `effort`.
    pub key: &'static str,
    /// What the bundle allows.
    pub bundle: f64,
    /// What the robot allows.
    pub robot: f64,
}

/// Gains of a joint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// Position gain, N·m/rad.
    pub kp: f64,
    /// Velocity gain, N·m·s/rad.
    pub kd: f64,
}

/// A gain of the bundle that the robot capped.
#[derive(Clone, Debug, PartialEq)]
pub struct GainCap {
    /// Joint.
    pub joint: String,
    /// `kp` or `kd`.
    pub key: &'static str,
    /// What the bundle asks for.
    pub bundle: f64,
    /// What the robot allows.
    pub cap: f64,
}

/// Whether a bundle may act on a robot at all.
///
/// # Errors
/// The first of [`mismatches`].
pub fn check_bundle(robot: &Robot, manifest: &Manifest) -> Result<(), RobotError> {
    mismatches(robot, manifest).into_iter().next().map_or(Ok(()), Err)
}

/// Everything in which a bundle does not fit a robot: joints and frames that the robot lacks, another control period, a
/// policy step that is no whole number of periods, limits that have nothing in common with the robot's, gains that
/// are none.
pub fn mismatches(robot: &Robot, manifest: &Manifest) -> Vec<RobotError> {
    let mut found = Vec::new();
    let mut note = |error: RobotError| {
        if !found.contains(&error) {
            found.push(error);
        }
    };
    let chains = manifest.frames.iter().flat_map(|f| &f.chain).filter_map(|link| link.joint.as_ref());
    let names = manifest.joints.iter().map(|j| &j.name).chain(&manifest.action.joints).chain(chains);
    names.filter_map(|name| JointMap::new(robot, &[name]).err()).for_each(&mut note);
    let (bundle, own) = (manifest.rates.control_dt, robot.control_dt());
    let same = (bundle - own).abs() <= 1e-9 * own;
    if !same {
        note(RobotError::ControlPeriod { bundle, robot: own });
    }
    ticks_per_step(manifest).err().into_iter().for_each(&mut note);
    for frame in manifest.frames.iter().filter(|f| robot.frames.iter().all(|own| own.name != f.name)) {
        let known = robot.frames.iter().map(|f| f.name.clone()).collect();
        note(RobotError::MissingFrame { name: frame.name.clone(), known });
    }
    for joint in &manifest.joints {
        let Some(i) = robot.joint_index(&joint.name) else { continue };
        let mut limits = robot.joints[i].limits;
        tighten(&mut limits, joint, &mut Vec::new()).err().into_iter().for_each(&mut note);
        let gains = [("kp", joint.kp), ("kd", joint.kd)];
        gains.into_iter().filter_map(|(key, x)| gain(joint, key, x).err()).for_each(&mut note);
    }
    found
}

/// Control periods in a policy step.
///
/// # Errors
/// [`RobotError::RateNotDivisible`] when that is not a whole number (relative slack 1e-9).
pub fn ticks_per_step(manifest: &Manifest) -> Result<u32, RobotError> {
    let (policy_dt, control_dt) = (manifest.rates.policy_dt, manifest.rates.control_dt);
    let ratio = policy_dt / control_dt;
    let whole = ratio.round();
    if control_dt > 0.0 && (1.0..=1e6).contains(&whole) && (ratio - whole).abs() <= 1e-9 * whole {
        Ok(whole as u32)
    } else {
        Err(RobotError::RateNotDivisible { policy_dt, control_dt })
    }
}

/// The tighter of the robot's and the bundle's limits, robot order, and where the bundle is the looser one.
///
/// # Errors
/// [`RobotError::MissingJoint`]; [`RobotError::EmptyLimits`] when the two have nothing in common.
pub fn effective_limits(
    robot: &Robot,
    manifest: &Manifest,
) -> Result<(Vec<Limits>, Vec<Looser>), RobotError> {
    let map = joints(robot, manifest)?;
    let mut limits: Vec<Limits> = robot.joints.iter().map(|j| j.limits).collect();
    let mut looser = Vec::new();
    for (joint, &i) in manifest.joints.iter().zip(map.places()) {
        tighten(&mut limits[i], joint, &mut looser)?;
    }
    Ok((limits, looser))
}

/// Tightens a robot's limits to those of a bundle's joint, noting where the bundle is the looser one.
fn tighten(own: &mut Limits, joint: &Joint, looser: &mut Vec<Looser>) -> Result<(), RobotError> {
    let mut note = |key, bundle, robot| looser.push(Looser { joint: joint.name.clone(), key, bundle, robot });
    let empty =
        |key, robot, bundle| RobotError::EmptyLimits { joint: joint.name.clone(), key, robot, bundle };
    if let Some([lo, hi]) = joint.position {
        if lo < own.position[0] {
            note("position", lo, own.position[0]);
        }
        if hi > own.position[1] {
            note("position", hi, own.position[1]);
        }
        let both = [lo.max(own.position[0]), hi.min(own.position[1])];
        if !(lo < hi && both[0] < both[1]) {
            return Err(empty("position", own.position, [lo, hi]));
        }
        own.position = both;
    }
    let bounds =
        [("velocity", joint.velocity_max, &mut own.velocity), ("effort", joint.effort_max, &mut own.effort)];
    for (key, bundle, own) in bounds {
        let Some(bundle) = bundle else { continue };
        let positive = bundle > 0.0;
        if !positive {
            return Err(empty(key, [-*own, *own], [-bundle, bundle]));
        }
        if bundle > *own {
            note(key, bundle, *own);
        }
        *own = own.min(bundle);
    }
    Ok(())
}

/// A gain that is one.
fn gain(joint: &Joint, key: &'static str, value: f64) -> Result<f64, RobotError> {
    if value >= 0.0 && value.is_finite() {
        return Ok(value);
    }
    Err(RobotError::BadGain { joint: joint.name.clone(), key, value })
}

/// The bundle's gains under the robot's caps, robot order, and where a cap bit. A joint that the bundle does not know
/// is held with its caps.
///
/// # Errors
/// [`RobotError::MissingJoint`], [`RobotError::BadGain`].
pub fn effective_gains(robot: &Robot, manifest: &Manifest) -> Result<(Vec<Gain>, Vec<GainCap>), RobotError> {
    let map = joints(robot, manifest)?;
    let mut gains: Vec<Gain> =
        robot.joints.iter().map(|j| Gain { kp: j.gains.kp_max, kd: j.gains.kd_max }).collect();
    let mut caps = Vec::new();
    for (joint, &i) in manifest.joints.iter().zip(map.places()) {
        let own = &mut gains[i];
        for (key, bundle, own) in [("kp", joint.kp, &mut own.kp), ("kd", joint.kd, &mut own.kd)] {
            gain(joint, key, bundle)?;
            if bundle > *own {
                caps.push(GainCap { joint: joint.name.clone(), key, bundle, cap: *own });
            }
            *own = own.min(bundle);
        }
    }
    Ok((gains, caps))
}

fn joints(robot: &Robot, manifest: &Manifest) -> Result<JointMap, RobotError> {
    let names: Vec<&String> = manifest.joints.iter().map(|j| &j.name).collect();
    JointMap::new(robot, &names)
}
