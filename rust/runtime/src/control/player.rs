//! A bundle without a robot: the same questions, answers and sequences as in the loop, one tick for each policy step.
//!
//! A [`Player`] serves simulations that have no robot.toml (any gymnasium task): it gives the action of each policy step
//! in the network's own units and order. Limiter, gate and monitors belong to a robot and have no place here.

use cadenza_policy::manifest::{ChunkMode, Manifest};
use cadenza_policy::{Bundle, Options, Policy};

use super::asking::Asking;
use super::error::RunError;
use super::planner::Planner;
use super::policy::{Ask, PolicyError, PolicySource};
use crate::action::{Chunk, Flow, Refusal, Sequence};
use crate::config::{Late, RunConfig};
use crate::state::MAX_JOINTS;

/// What has happened since the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlayerCounts {
    /// Times that the policy was asked.
    pub asked: u64,
    /// Answers that entered the plan.
    pub accepted: u64,
    /// Answers that came when all of their actions were in the past.
    pub expired: u64,
    /// Answers that were refused for another reason.
    pub refused: u64,
    /// Actions of accepted answers that were in the past already.
    pub expired_actions: u64,
}

/// Plays one bundle, step by step, on the virtual clock.
pub struct Player {
    planner: Planner,
    sequence: Sequence,
    asking: Asking,
    observation: usize,
    start: Vec<f32>,
    previous: Vec<f32>,
    rows: Vec<f64>,
    epoch: u32,
    step: u64,
    counts: PlayerCounts,
}

impl Player {
    /// Loads the bundle's policy. The knobs of `config` that concern sequences hold: `trigger`, `inject` (a control tick
    /// is one policy step here), `seam`, `freeze`, `late`. After `hold_steps` steps without an action the sequence is
    /// exhausted.
    ///
    /// # Errors
    /// [`RunError`]: networks that cannot be loaded, sequences that cannot be played.
    pub fn new(bundle: &Bundle, config: &RunConfig, hold_steps: u64) -> Result<Self, RunError> {
        let policy = Policy::load(bundle, &Options::default())?;
        Self::of(Box::new(policy), bundle.manifest(), config, hold_steps)
    }

    /// The same with a policy of one's own, whose answers are as the manifest says.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn of(
        policy: Box<dyn PolicySource>,
        manifest: &Manifest,
        config: &RunConfig,
        hold_steps: u64,
    ) -> Result<Self, RunError> {
        if config.late == Late::Fallback {
            let (key, value) = ("late", "fallback".into());
            return Err(RunError::Config { key, value, expected: "drop or last where no robot is" });
        }
        let actions = manifest.action.joints.len();
        let sequence = Sequence::of_actions(manifest, config, hold_steps)?;
        let past = if manifest.chunk.mode == ChunkMode::Open { manifest.chunk.past } else { 0 };
        let answer = (past + sequence.horizon()) * actions;
        let mut planner = match config.inject {
            Some(latency) => Planner::delayed(policy, latency, manifest.rates.policy_dt),
            None => Planner::inline(policy),
        };
        planner.allocate(manifest.observation.size, actions, answer);
        let start: Vec<f32> = match &manifest.action.reset {
            Some(values) => values.iter().map(|&x| x as f32).collect(),
            None => vec![0.0; actions],
        };
        let mut player = Self {
            planner,
            asking: Asking::new(manifest, config, past, answer)?,
            observation: manifest.observation.size,
            previous: start.clone(),
            start,
            rows: vec![0.0; sequence.horizon() * actions],
            sequence,
            epoch: 0,
            step: 0,
            counts: PlayerCounts::default(),
        };
        player.reset();
        Ok(player)
    }

    /// A new episode: no plan, the policy's memory gone, answers under way forgotten.
    pub fn reset(&mut self) {
        self.planner.reset();
        self.epoch = self.epoch.wrapping_add(1);
        let mut held = [0.0; MAX_JOINTS];
        for (held, &start) in held.iter_mut().zip(&self.start) {
            *held = start.into();
        }
        self.sequence.reset(self.epoch, &held);
        self.previous.copy_from_slice(&self.start);
        self.asking.reset();
        self.step = 0;
        self.counts = PlayerCounts::default();
    }

    /// Numbers in an observation.
    pub fn observation_len(&self) -> usize {
        self.observation
    }

    /// Numbers in an action.
    pub fn action_len(&self) -> usize {
        self.asking.actions()
    }

    /// What has happened since the last reset.
    pub fn counts(&self) -> PlayerCounts {
        self.counts
    }

    /// One policy step: asks the policy with `obs` where a question is due, takes what it has answered by now, and writes
    /// the action of this step to `out` (graph units; the last one again where the plan has none).
    ///
    /// # Errors
    /// [`PolicyError`]: a length that does not fit, an observation or an action that is not finite. A simulation has
    /// nothing to protect: it stops there instead of holding.
    pub fn step(&mut self, obs: &[f32], out: &mut [f64]) -> Result<Flow, PolicyError> {
        for (got, want) in [(obs.len(), self.observation), (out.len(), self.asking.actions())] {
            if got != want {
                return Err(PolicyError::WrongLength { got, want });
            }
        }
        let step = self.step;
        self.ask(obs, step);
        self.listen(step)?;
        self.step += 1;
        let target = self.sequence.target(step);
        out.copy_from_slice(&target.q[..self.asking.actions()]);
        Ok(target.flow)
    }

    fn ask(&mut self, obs: &[f32], step: u64) {
        if let Some(row) = self.asking.played_before(step) {
            self.previous.copy_from_slice(row);
        }
        let Some(begin) = self.asking.due(|| self.sequence.remaining(step)) else { return };
        self.asking.commit(step, &self.planner);
        let committed = self.asking.committed();
        let ask = Ask { tick: step, begin, obs, previous: &self.previous, committed };
        self.counts.asked += u64::from(self.planner.ask(&ask, self.epoch, step));
    }

    fn listen(&mut self, now: u64) -> Result<(), PolicyError> {
        while let Some(answer) = self.planner.take(now) {
            answer.outcome?;
            let want = self.asking.answer_len();
            if answer.values.len() != want {
                return Err(PolicyError::WrongLength { got: answer.values.len(), want });
            }
            if let Some(index) = answer.values.iter().position(|x| !x.is_finite()) {
                return Err(PolicyError::NotFinite { what: "action", index });
            }
            let (step, future) = (answer.step, self.asking.future(&answer.values));
            for (row, &value) in self.rows.iter_mut().zip(future) {
                *row = value.into();
            }
            let chunk = Chunk {
                id: self.counts.accepted,
                epoch: answer.epoch,
                obs_tick: step,
                first_tick: step,
                rows: self.sequence.horizon(),
                prefix: answer.prefix,
                values: &self.rows,
            };
            match self.sequence.accept(&chunk, now) {
                Ok(accepted) => {
                    self.counts.accepted += 1;
                    self.counts.expired_actions += accepted.expired as u64;
                    self.asking.answered(step, &answer.values);
                }
                Err(Refusal::Expired { .. }) => self.counts.expired += 1,
                Err(_) => self.counts.refused += 1,
            }
            self.planner.delay(now.saturating_sub(step));
        }
        Ok(())
    }
}
