//! A bundle before it gets a robot: loaded, proven, and held against what is to be moved.

use cadenza_policy::{Bundle, Options, ParityReport, Policy};

use super::RunError;
use super::explore::exploring;
use super::placement::{Placement, place};
use super::skill::Skill;
use super::switch::Successor;
use crate::config::{PolicyMode, RunConfig};
use crate::device::DeviceInfo;
use crate::log::entry::BundleEntry;
use crate::observe::frames;
use crate::robot::Robot;

/// Inferences before the first tick, so that no page and no branch is cold.
pub(super) const WARM_UP: usize = 100;

/// Loads bundles for a robot, a device and a run's configuration.
#[derive(Clone, Debug)]
pub struct Loader {
    robot: Robot,
    device: DeviceInfo,
    config: RunConfig,
}

/// A bundle that fits.
pub(super) struct Loaded {
    pub(super) skill: Skill,
    pub(super) entry: BundleEntry,
    pub(super) parity: Option<ParityReport>,
    pub(super) placement: Placement,
}

impl Loader {
    pub(super) fn new(robot: &Robot, device: &DeviceInfo, config: &RunConfig) -> Self {
        Self { robot: robot.clone(), device: device.clone(), config: config.clone() }
    }

    /// A bundle that can take over from the one that runs: loaded, its vectors replayed, checked against robot, device and
    /// configuration, and warm. Blocks for as long as that takes; allocates.
    ///
    /// # Errors
    /// As for [`Prepared::new`](super::Prepared::new).
    pub fn load(&self, bundle: &Bundle) -> Result<Successor, RunError> {
        let Loaded { mut skill, entry, .. } = self.check(bundle)?;
        skill.warm_up(WARM_UP);
        Ok(Successor::of(skill, entry))
    }

    /// The run's fallback, if it has one: a bundle that fits, with the limits of `first`, for limits change at rest only.
    pub(super) fn fallback(&self, first: &Skill) -> Result<Option<Successor>, RunError> {
        let Some(path) = &self.config.fallback else { return Ok(None) };
        let error = |why: String| RunError::Fallback { path: path.clone(), why };
        let bundle = Bundle::open(path).map_err(|e| error(e.to_string()))?;
        let successor = self.load(&bundle).map_err(|e| error(e.to_string()))?;
        let differs = first.limits.iter().zip(&successor.skill.limits).position(|(a, b)| a != b);
        match differs.and_then(|i| self.robot.joints.get(i)) {
            None => Ok(Some(successor)),
            Some(joint) => Err(error(format!(
                "its limits of joint {} are other ones than those of the bundle before, so it could not take over in motion",
                joint.name
            ))),
        }
    }

    pub(super) fn check(&self, bundle: &Bundle) -> Result<Loaded, RunError> {
        let Self { robot, device, config } = self;
        let manifest = bundle.manifest();
        let mut policy = Policy::load(bundle, &Options::default())?;
        let parity = match &manifest.parity {
            Some(_) => Some(policy.verify(bundle)?),
            None => None,
        };
        frames::verify(bundle, robot)?;
        match &parity {
            Some(report) if !report.passed => return Err(RunError::Parity { text: report.to_string() }),
            None if device.moves && device.name != "sim" && !config.dry_run => {
                return Err(RunError::NoVectors { device: device.name });
            }
            _ => {}
        }
        let (planner, placement) = place(exploring(policy, manifest, config)?, manifest, robot, config)?;
        let late = config.inject.is_some() || placement.mode() == PolicyMode::Async;
        let specification = bundle.specification();
        let skill = Skill::new(manifest, specification, robot, &device.objects, planner, config)?;
        let entry = BundleEntry {
            name: manifest.name.clone(),
            sha256: bundle.id().iter().map(|b| format!("{b:02x}")).collect(),
            manifest_json: manifest.to_json(),
            spec_stl: specification.unwrap_or_default().into(),
            late,
            fallback: false,
            monitors: skill.monitors.headers(),
        };
        Ok(Loaded { skill, entry, parity, placement })
    }
}
