//! When a policy is asked, what it is told of its own actions, and what it answered last.

use cadenza_policy::manifest::{ChunkMode, Manifest};

use super::RunError;
use super::planner::Planner;
use crate::config::{RunConfig, Trigger};

/// The questions to one policy. Allocates nothing after [`Asking::new`].
pub(super) struct Asking {
    trigger: Trigger,
    /// Asked between two beginnings as well, because it decodes step by step.
    lazy: bool,
    /// Policy steps since the last beginning.
    since_begun: u64,
    /// The newest accepted answer: rows × actions, graph units, and the policy step of its first future row.
    answer: Vec<f32>,
    first: Option<u64>,
    /// Its rows before the future ones.
    past: usize,
    /// Numbers in one row.
    actions: usize,
    /// Actions that are handed back to the policy.
    committed: Vec<f32>,
}

impl Asking {
    /// A policy whose answers have `past` rows before the future ones and `len` numbers in all.
    ///
    /// # Errors
    /// [`RunError::Config`]: a trigger that the bundle's sequences cannot follow.
    pub(super) fn new(
        manifest: &Manifest,
        config: &RunConfig,
        past: usize,
        len: usize,
    ) -> Result<Self, RunError> {
        Ok(Self {
            trigger: trigger(manifest, config)?,
            lazy: manifest.chunk.mode == ChunkMode::Lazy,
            since_begun: 0,
            answer: vec![0.0; len],
            first: None,
            past,
            actions: manifest.action.joints.len(),
            committed: Vec::with_capacity(len),
        })
    }

    /// A new episode.
    pub(super) fn reset(&mut self) {
        (self.first, self.since_begun) = (None, 0);
    }

    /// Numbers in an answer.
    pub(super) fn answer_len(&self) -> usize {
        self.answer.len()
    }

    /// Numbers in one row of it.
    pub(super) fn actions(&self) -> usize {
        self.actions
    }

    /// The future rows of an answer.
    pub(super) fn future<'a>(&self, answer: &'a [f32]) -> &'a [f32] {
        &answer[self.past * self.actions..]
    }

    /// The row of the newest answer that was played in the policy step before `step`.
    pub(super) fn played_before(&self, step: u64) -> Option<&[f32]> {
        let row = step.checked_sub(1)?.checked_sub(self.first?)?;
        let from = (self.past + row as usize) * self.actions;
        self.answer.get(from..from + self.actions)
    }

    /// Whether the policy is asked in this step, and then whether it begins anew. `remaining` counts the steps that the
    /// plan still covers.
    pub(super) fn due(&mut self, remaining: impl FnOnce() -> u64) -> Option<bool> {
        let begin = match self.trigger {
            Trigger::Every(n) => self.since_begun.is_multiple_of(n),
            Trigger::Remaining(n) => self.first.is_none() || remaining() <= n,
        };
        self.since_begun = if begin { 1 } else { self.since_begun + 1 };
        (begin || self.lazy).then_some(begin)
    }

    /// Steps from one beginning to the next, where they are fixed.
    pub(super) fn period(&self) -> Option<u64> {
        if let Trigger::Every(n) = self.trigger { Some(n) } else { None }
    }

    /// Collects the actions that will be played before an answer of `planner` to a question of `step` can come.
    pub(super) fn commit(&mut self, step: u64, planner: &Planner) {
        self.committed.clear();
        let Some(first) = self.first.filter(|_| planner.is_late()) else { return };
        let rows = self.answer.len() / self.actions;
        for step in step..step.saturating_add(planner.forecast()).min(step + rows as u64) {
            let row = (self.past + step.saturating_sub(first) as usize).min(rows - 1);
            self.committed.extend_from_slice(&self.answer[row * self.actions..(row + 1) * self.actions]);
        }
    }

    /// What [`Asking::commit`] collected.
    pub(super) fn committed(&self) -> &[f32] {
        &self.committed
    }

    /// Keeps an answer that was accepted; its first future row belongs to policy step `step`.
    pub(super) fn answered(&mut self, step: u64, answer: &[f32]) {
        self.answer.copy_from_slice(answer);
        self.first = Some(step);
    }
}

/// When the policy is asked: by the run's rule, or each `chunk.execute` steps.
fn trigger(manifest: &Manifest, config: &RunConfig) -> Result<Trigger, RunError> {
    let chunk = &manifest.chunk;
    let trigger = config.trigger.unwrap_or(Trigger::Every(chunk.execute as u64));
    let refuse = |expected| Err(RunError::Config { key: "trigger", value: trigger.to_string(), expected });
    match (chunk.mode, trigger) {
        (ChunkMode::None, Trigger::Every(1)) => Ok(trigger),
        (ChunkMode::None, _) => refuse("every:1 for a bundle of single actions (chunk.execute = 1)"),
        (_, Trigger::Every(0)) => refuse("at least one step"),
        (ChunkMode::Open, Trigger::Every(n)) if n > chunk.horizon as u64 => {
            refuse("at most chunk.horizon steps: the sequence would run out")
        }
        (ChunkMode::Open, Trigger::Remaining(n)) if n >= chunk.horizon as u64 => {
            refuse("fewer steps than chunk.horizon")
        }
        (ChunkMode::Lazy, Trigger::Remaining(_)) => {
            refuse("every:STEPS for a sequence that is decoded step by step")
        }
        _ => Ok(trigger),
    }
}
