//! The networks of a bundle as the loop sees them: `reset`, `act`.

use std::collections::BTreeMap;

use crate::binding::{self, Feed, Normalizer, State, Supply, keep};
use crate::bundle::Bundle;
use crate::graph::GraphError;
use crate::isa::{Isa, Level};
use crate::limits::Limits;
use crate::manifest::{ChunkMode, Manifest, NormalizerPlace, Weights};
use crate::session::{ActError, Footprint, Port, Session, not_finite};

/// How a bundle is loaded.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Weight format; the manifest's when absent.
    pub weights: Option<Weights>,
    /// Instruction set; the best of this machine when absent.
    pub isa: Option<Isa>,
    /// Caps.
    pub limits: Limits,
}

impl Options {
    /// The instruction set to use, if this machine has it.
    pub(crate) fn level(&self) -> Result<Level, LoadError> {
        match self.isa {
            Some(isa) => Level::of(isa).ok_or(LoadError::Isa(isa)),
            None => Ok(Level::best()),
        }
    }
}

/// Why a bundle cannot be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A graph is refused.
    #[error("{file}: {error}")]
    Graph {
        /// The entry.
        file: String,
        /// Why.
        error: GraphError,
    },
    /// A graph and the manifest name different inputs or outputs.
    #[error("function {function:?}: {kind} {name:?} {why}; the graph has {graph}")]
    Binding {
        /// The function.
        function: String,
        /// Input or output.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What is wrong.
        why: &'static str,
        /// What the graph has, with shapes.
        graph: String,
    },
    /// A graph's tensor has another size than the manifest implies.
    #[error(
        "function {function:?}: {binding} has {got} numbers in the graph {shape:?}, but {expected} in the manifest"
    )]
    Size {
        /// The function.
        function: String,
        /// The binding.
        binding: String,
        /// In the graph.
        got: usize,
        /// Shape in the graph.
        shape: Vec<usize>,
        /// In the manifest.
        expected: usize,
    },
    /// The machine lacks the instruction set that was asked for.
    #[error("this machine has no {0}")]
    Isa(Isa),
    /// The bundle lacks an entry.
    #[error("entry {0:?} is missing")]
    Missing(String),
    /// The function `init` gives no finite value.
    #[error("function \"init\": {0}")]
    Init(ActError),
}

/// The networks of a bundle.
///
/// [`load`](Self::load) allocates all memory; [`reset`](Self::reset), [`act`](Self::act), [`begin`](Self::begin) and
/// [`next`](Self::next) allocate nothing, take no lock and make no system call. When one of them returns an error, the
/// caller's slice and the recurrent state are as before. After `reset`, equal inputs give equal bits.
#[derive(Debug)]
pub struct Policy {
    sessions: BTreeMap<String, Session>,
    step: Session,
    init: Option<Session>,
    step_feeds: Vec<Feed>,
    init_feeds: Vec<Feed>,
    states: Vec<State>,
    normalizer: Option<Normalizer>,
    /// The observation of this call.
    observation: Vec<f32>,
    /// The observation that the current sequence began with (chunk mode `lazy`).
    begun_with: Vec<f32>,
    time: f32,
    noise: Vec<f32>,
    actions: usize,
    joints: usize,
    action_output: usize,
    presquash: Option<usize>,
    takes_previous: bool,
    mode: ChunkMode,
    begun: bool,
    isa: Isa,
}

impl Policy {
    /// Loads every function of a bundle. All memory is allocated here.
    ///
    /// # Errors
    /// The operator, tensor, binding or size that stands in the way.
    pub fn load(bundle: &Bundle, options: &Options) -> Result<Self, LoadError> {
        let m = bundle.manifest();
        let weights = options.weights.unwrap_or(m.weights);
        let level = options.level()?;
        let mut sessions = BTreeMap::new();
        for (name, f) in &m.functions {
            let file = bundle.entry(&f.file).ok_or_else(|| LoadError::Missing(f.file.clone()))?;
            let session = Session::load(file, f, weights, level, &options.limits)
                .map_err(|error| LoadError::Graph { file: f.file.clone(), error })?;
            binding::check(m, name, &session)?;
            sessions.insert(name.clone(), session);
        }
        Self::assemble(m, sessions, level.isa())
    }

    fn assemble(m: &Manifest, mut sessions: BTreeMap<String, Session>, isa: Isa) -> Result<Self, LoadError> {
        let step = sessions.remove("step").ok_or_else(|| LoadError::Missing("step.onnx".into()))?;
        let init = sessions.remove("init");
        let states = binding::states(m, &step, init.as_ref())?;
        let step_feeds = binding::feeds(m, "step", &step)?;
        let init_feeds = init.as_ref().map_or(Ok(vec![]), |init| binding::feeds(m, "init", init))?;
        let mode = m.chunk.mode;
        let noise = vec![0.0; binding::noise(&[Some(&step), init.as_ref()])?];
        let binding = if mode == ChunkMode::Open { "actions" } else { "action" };
        let action_output = step.output_index(binding).ok_or_else(|| LoadError::Missing(binding.into()))?;
        let presquash = step.output_index("presquash");
        let normalizer = (m.normalizer.place == NormalizerPlace::Runtime).then(|| Normalizer::new(m));
        let takes_previous = step_feeds.iter().chain(&init_feeds).any(|f| matches!(f, Feed::Previous));
        let mut policy = Self {
            sessions,
            step,
            init,
            step_feeds,
            init_feeds,
            states,
            normalizer,
            observation: vec![0.0; m.observation.size],
            begun_with: vec![0.0; m.observation.size],
            time: 0.0,
            noise,
            actions: binding::rows(m) * m.action.joints.len(),
            joints: m.action.joints.len(),
            action_output,
            presquash,
            takes_previous,
            mode,
            begun: false,
            isa,
        };
        policy.constant_init()?;
        policy.reset();
        Ok(policy)
    }

    /// A function `init` without inputs gives the reset value of its states once and for all.
    fn constant_init(&mut self) -> Result<(), LoadError> {
        let Some(init) = self.init.as_mut().filter(|_| self.init_feeds.is_empty()) else { return Ok(()) };
        init.run().map_err(LoadError::Init)?;
        for state in &mut self.states {
            if let Some(output) = state.init {
                state.reset.copy_from_slice(init.output(output));
            }
        }
        Ok(())
    }

    /// Forgets everything: recurrent states get their initial value, time and noise are zero.
    pub fn reset(&mut self) {
        self.restart();
        self.time = 0.0;
        self.noise.fill(0.0);
    }

    fn restart(&mut self) {
        for state in &mut self.states {
            state.now.copy_from_slice(&state.reset);
        }
        self.begun = false;
    }

    /// Seconds since the start of the episode, for networks with an input `time`. It stays until it is set again.
    pub fn set_time(&mut self, seconds: f32) {
        self.time = seconds;
    }

    /// Unit normals for networks with an input `noise`, to be written before a call; empty when there is no such input.
    /// They stay until they are written again.
    pub fn noise_mut(&mut self) -> &mut [f32] {
        &mut self.noise
    }

    /// Whether a network has an input `time`.
    pub fn takes_time(&self) -> bool {
        self.step_feeds.iter().chain(&self.init_feeds).any(|f| matches!(f, Feed::Time))
    }

    /// One inference (chunk modes `none` and `open`).
    ///
    /// `obs` has the manifest's `observation.size` numbers, `prev` the previous action in graph units (empty is fine
    /// when no network reads it), `out` one action, or `past + horizon` of them row by row.
    ///
    /// # Errors
    /// Wrong lengths, numbers that are not finite, another chunk mode. `out` and the states are as before.
    pub fn act(&mut self, obs: &[f32], prev: &[f32], out: &mut [f32]) -> Result<(), ActError> {
        if self.mode == ChunkMode::Lazy {
            return Err(ActError::Mode);
        }
        self.check_previous(prev, out)?;
        self.observe(obs)?;
        let first = !self.begun && !self.init_feeds.is_empty();
        if first {
            self.start(prev)?;
        }
        let result = self.advance(prev, out);
        self.begun |= result.is_ok();
        if first && result.is_err() {
            // As it was: before the first step, all states have their reset value.
            self.restart();
        }
        result
    }

    /// Runs `init` on the observation; when all is finite, the states get their first values.
    fn start(&mut self, prev: &[f32]) -> Result<(), ActError> {
        // Callers know that there is one: `init_feeds` come from it, and mode lazy demands it.
        let Some(init) = self.init.as_mut() else { return Err(ActError::Mode) };
        let supply = Supply {
            observation: &self.observation,
            previous: prev,
            states: &self.states,
            time: self.time,
            noise: &self.noise,
        };
        binding::write(init, &self.init_feeds, &supply);
        init.run()?;
        for state in &mut self.states {
            match state.init {
                Some(output) => keep(&mut state.now, init.output(output)),
                None => state.now.copy_from_slice(&state.reset),
            }
        }
        Ok(())
    }

    /// Starts a sequence from an observation (chunk mode `lazy`): runs `init`.
    ///
    /// # Errors
    /// As for [`act`](Self::act).
    pub fn begin(&mut self, obs: &[f32]) -> Result<(), ActError> {
        if self.mode != ChunkMode::Lazy {
            return Err(ActError::Mode);
        }
        self.observe(obs)?;
        self.start(&[])?;
        std::mem::swap(&mut self.observation, &mut self.begun_with);
        self.begun = true;
        Ok(())
    }

    /// The next action of a sequence (chunk mode `lazy`).
    ///
    /// # Errors
    /// As for [`act`](Self::act), and [`ActError::NotBegun`].
    pub fn next(&mut self, prev: &[f32], out: &mut [f32]) -> Result<(), ActError> {
        if self.mode != ChunkMode::Lazy {
            return Err(ActError::Mode);
        }
        if !self.begun {
            return Err(ActError::NotBegun);
        }
        self.check_previous(prev, out)?;
        self.advance(prev, out)
    }

    /// Runs `step` and, when all is finite, hands out the action and the states.
    fn advance(&mut self, prev: &[f32], out: &mut [f32]) -> Result<(), ActError> {
        let lazy = self.mode == ChunkMode::Lazy;
        let supply = Supply {
            observation: if lazy { &self.begun_with } else { &self.observation },
            previous: prev,
            states: &self.states,
            time: self.time,
            noise: &self.noise,
        };
        binding::write(&mut self.step, &self.step_feeds, &supply);
        self.step.run()?;
        out.copy_from_slice(self.step.output(self.action_output));
        for state in &mut self.states {
            keep(&mut state.now, self.step.output(state.step));
        }
        Ok(())
    }

    fn check_previous(&self, prev: &[f32], out: &[f32]) -> Result<(), ActError> {
        let joints = self.previous_len();
        if prev.len() != joints && (self.takes_previous || !prev.is_empty()) {
            return Err(ActError::Length { port: Port::PreviousAction, expected: joints, got: prev.len() });
        }
        if out.len() != self.actions {
            return Err(ActError::Length { port: Port::Action, expected: self.actions, got: out.len() });
        }
        match not_finite(prev) {
            Some(index) => Err(ActError::NonFiniteInput { port: Port::PreviousAction, index }),
            None => Ok(()),
        }
    }

    /// Checks and, if the engine has to, normalises an observation.
    fn observe(&mut self, obs: &[f32]) -> Result<(), ActError> {
        let (port, expected) = (Port::Observation, self.observation.len());
        if obs.len() != expected {
            return Err(ActError::Length { port, expected, got: obs.len() });
        }
        if let Some(index) = not_finite(obs) {
            return Err(ActError::NonFiniteInput { port, index });
        }
        self.observation.copy_from_slice(obs);
        if let Some(n) = &self.normalizer {
            n.apply(&mut self.observation);
        }
        Ok(())
    }

    /// Numbers of one observation.
    pub fn observation_len(&self) -> usize {
        self.observation.len()
    }

    /// Numbers that [`act`](Self::act) or [`next`](Self::next) writes.
    pub fn action_len(&self) -> usize {
        self.actions
    }

    /// Numbers of a previous action.
    pub fn previous_len(&self) -> usize {
        self.joints
    }

    /// A function of the bundle, to be run by itself.
    pub fn function(&mut self, name: &str) -> Option<&mut Session> {
        match name {
            "step" => Some(&mut self.step),
            "init" => self.init.as_mut(),
            _ => self.sessions.get_mut(name),
        }
    }

    /// What the last call of `step` gave for the binding `presquash`: the action before its last tanh. `None` when the bundle
    /// has no such output.
    pub fn presquash(&self) -> Option<&[f32]> {
        self.presquash.map(|output| self.step.output(output))
    }

    /// Whether a network reads the previous action.
    pub fn takes_previous(&self) -> bool {
        self.takes_previous
    }

    /// How `begin`, `next` and `act` may be called.
    pub fn mode(&self) -> ChunkMode {
        self.mode
    }

    /// Recurrent state `index`, in the order of the manifest's `carry`.
    pub(crate) fn state(&self, index: usize) -> &[f32] {
        &self.states[index].now
    }

    /// Instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Memory and work.
    pub fn footprint(&self) -> Footprint {
        let mut total = Footprint::default();
        let all = [Some(&self.step), self.init.as_ref()].into_iter().flatten().chain(self.sessions.values());
        all.for_each(|s| s.footprint(&mut total));
        total
    }
}
