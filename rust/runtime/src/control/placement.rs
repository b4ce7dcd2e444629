//! Where a policy runs: on the control thread if it is quick there even with cold caches, else on a thread of its own.

use std::fmt;
use std::time::Instant;

use cadenza_policy::manifest::{ChunkMode, Manifest};

use super::RunError;
use super::planner::Planner;
use super::policy::{Ask, PolicySource};
use crate::action::Decoder;
use crate::config::{PolicyMode, RunConfig};
use crate::robot::Robot;

/// Part of the control period that a cold inference may take on the control thread.
const SHARE: f64 = 0.25;
/// A policy whose slowest hot inference takes less than this part of that is quick when it is cold as well: cold inferences
/// take 2 to 4 times as long as hot ones.
const CLEAR: f64 = 0.1;
/// Inferences timed.
const HOT: usize = 100;
const COLD: usize = 200;
/// What is touched between two cold inferences, bytes: more than the caches hold.
const EVICTED: usize = 32 << 20;

/// Where a policy runs, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    place: Place,
    /// The slowest inference measured before the run, s.
    slowest: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
enum Place {
    Inline,
    Thread,
    Delayed(String),
}

impl Placement {
    /// The mode that a log of this run says, so that a replay knows whether answers may be late.
    pub(super) fn mode(&self) -> PolicyMode {
        match self.place {
            Place::Thread => PolicyMode::Async,
            Place::Inline | Place::Delayed(_) => PolicyMode::Inline,
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Inline => f.write_str("on the control thread")?,
            Place::Thread => f.write_str("on a thread of its own")?,
            Place::Delayed(latency) => write!(f, "on the control thread, answers delayed by {latency}")?,
        }
        match self.slowest {
            Some(s) => write!(f, " (slowest inference before the run {:.3} ms)", 1e3 * s),
            None => Ok(()),
        }
    }
}

/// Puts a policy where the run's configuration, or its own speed, says.
///
/// # Errors
/// [`RunError::HorizonTooShort`] for a policy that is too slow for its own sequences; what does not fit the robot.
pub(super) fn place(
    mut policy: Box<dyn PolicySource>,
    manifest: &Manifest,
    robot: &Robot,
    config: &RunConfig,
) -> Result<(Planner, Placement), RunError> {
    let inline = |policy, slowest| (Planner::inline(policy), Placement { place: Place::Inline, slowest });
    if let Some(latency) = config.inject {
        let place = Place::Delayed(latency.to_string());
        return Ok((
            Planner::delayed(policy, latency, robot.control_dt()),
            Placement { place, slowest: None },
        ));
    }
    // On the virtual clock time stands still while the policy computes. A sequence that is decoded step by step is asked at
    // every step for its next action: it belongs where the steps are.
    let here =
        config.mode == PolicyMode::Inline || config.virtual_clock || manifest.chunk.mode == ChunkMode::Lazy;
    if here {
        return Ok(inline(policy, None));
    }
    let answer = Decoder::new(manifest, robot)?.input_len();
    let mut bench = Bench::new(manifest, answer);
    let allowed = SHARE * robot.control_dt();
    let mut slowest = bench.slowest(policy.as_mut(), HOT, false);
    if config.mode == PolicyMode::Auto && slowest < CLEAR * allowed {
        return Ok(inline(policy, Some(slowest)));
    }
    slowest = bench.slowest(policy.as_mut(), COLD, true);
    policy.reset();
    if config.mode == PolicyMode::Auto && slowest < allowed {
        return Ok(inline(policy, Some(slowest)));
    }
    let (step, horizon) = (manifest.rates.policy_dt, manifest.chunk.horizon as u64);
    let (delay, every) = ((slowest / step) as u64, manifest.chunk.execute as u64);
    if delay > every || every + delay > horizon {
        return Err(RunError::HorizonTooShort { latency: slowest, delay, every, horizon });
    }
    let planner = Planner::threaded(policy, every as f64 * step);
    Ok((planner, Placement { place: Place::Thread, slowest: Some(slowest) }))
}

/// Times inferences on zeros.
struct Bench {
    obs: Vec<f32>,
    previous: Vec<f32>,
    out: Vec<f32>,
    evicted: Vec<u8>,
}

impl Bench {
    fn new(manifest: &Manifest, answer: usize) -> Self {
        Self {
            obs: vec![0.0; manifest.observation.size],
            previous: vec![0.0; manifest.action.joints.len()],
            out: vec![0.0; answer],
            evicted: vec![0; EVICTED],
        }
    }

    /// Time of the slowest but one in a thousand of `times` inferences, s.
    fn slowest(&mut self, policy: &mut dyn PolicySource, times: usize, cold: bool) -> f64 {
        let mut all: Vec<f64> = (0..times)
            .map(|_| {
                if cold {
                    self.evicted.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
                    std::hint::black_box(&self.evicted);
                }
                let ask =
                    Ask { tick: 0, begin: true, obs: &self.obs, previous: &self.previous, committed: &[] };
                let start = Instant::now();
                // Zeros are a finite observation; what the policy says to them does not matter.
                let _ = policy.act(&ask, &mut self.out);
                start.elapsed().as_secs_f64()
            })
            .collect();
        all.sort_by(f64::total_cmp);
        all[(0.999 * (times - 1) as f64).round() as usize]
    }
}
