//! One function of a bundle, ready to run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::fuse;
use crate::graph::{Graph, GraphError};
use crate::int8;
use crate::isa::Level;
use crate::limits::Limits;
use crate::manifest::{self, Weights};
use crate::memory::{Block, LINE, Span};
use crate::plan::Plan;
use crate::policy::{LoadError, Options};

/// What a number belongs to, in [`ActError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Port {
    /// The observation.
    Observation,
    /// The previous action.
    PreviousAction,
    /// The caller's slice for the action.
    Action,
    /// An input of the function, by its index in [`Session::inputs`].
    Input(usize),
    /// An output of the function, by its index in [`Session::outputs`].
    Output(usize),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Observation => f.write_str("observation"),
            Self::PreviousAction => f.write_str("previous action"),
            Self::Action => f.write_str("action"),
            Self::Input(i) => write!(f, "input {i}"),
            Self::Output(i) => write!(f, "output {i}"),
        }
    }
}

/// Why a step gave no action. `Copy`, without heap memory: it can cross a real-time loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActError {
    /// A slice of the wrong length.
    #[error("{port}: {got} numbers, but {expected} are needed")]
    Length {
        /// Which.
        port: Port,
        /// Needed.
        expected: usize,
        /// Given.
        got: usize,
    },
    /// NaN or infinity going in.
    #[error("{port}: element {index} is not finite")]
    NonFiniteInput {
        /// Where.
        port: Port,
        /// Which element.
        index: usize,
    },
    /// NaN or infinity coming out.
    #[error("{port}: element {index} is not finite")]
    NonFiniteOutput {
        /// Where.
        port: Port,
        /// Which element.
        index: usize,
    },
    /// [`Policy::next`](crate::Policy::next) before [`Policy::begin`](crate::Policy::begin).
    #[error("next was called before begin")]
    NotBegun,
    /// A call that the bundle's chunk mode does not have: `act` is for `none` and `open`, `begin` and `next` for `lazy`.
    #[error("the bundle's chunk mode has no such call")]
    Mode,
}

/// An input or output of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Name in the graph.
    pub name: String,
    /// What the manifest binds it to.
    pub binding: String,
    /// Shape.
    pub shape: Vec<usize>,
}

impl PortInfo {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements, which never happens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One function of a bundle: write the inputs, [`run`](Self::run), read the outputs. Nothing here allocates.
#[derive(Debug)]
pub struct Session {
    plan: Plan,
    arena: Block,
    level: Level,
    inputs: Vec<PortInfo>,
    outputs: Vec<PortInfo>,
}

impl Session {
    /// Loads the function `f` from its ONNX file.
    pub(crate) fn load(
        file: &[u8],
        f: &manifest::Function,
        weights: Weights,
        level: Level,
        limits: &Limits,
    ) -> Result<Self, GraphError> {
        let mut graph = Graph::build(file, f.batch, limits)?;
        if weights == Weights::Int8 {
            int8::round(&mut graph);
        }
        fuse::fuse(&mut graph);
        Self::plan(graph, f, weights, level, limits)
    }

    /// Loads a bare ONNX file, without a bundle around it. A leading dimension that the file leaves open becomes `batch`.
    ///
    /// # Errors
    /// The operator, tensor or size that stands in the way, or the instruction set that the machine lacks.
    pub fn from_onnx(file: &[u8], batch: usize, options: &Options) -> Result<Self, LoadError> {
        let level = options.level()?;
        let f = manifest::Function {
            file: "graph".into(),
            batch: batch.max(1),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
        };
        let graph = |error| LoadError::Graph { file: f.file.clone(), error };
        Self::load(file, &f, options.weights.unwrap_or(Weights::F32), level, &options.limits).map_err(graph)
    }

    /// Plans a graph that was built, and perhaps fused, before.
    pub(crate) fn plan(
        mut graph: Graph,
        f: &manifest::Function,
        weights: Weights,
        level: Level,
        limits: &Limits,
    ) -> Result<Self, GraphError> {
        fuse::legalise(&mut graph, limits.folding)?;
        let packed = packed_bytes(&graph);
        if packed > limits.weights {
            let why = format!("the weights take {packed} bytes, more than {}", limits.weights);
            return Err(GraphError::Shape { tensor: f.file.clone(), why });
        }
        let plan = Plan::new(&graph, weights);
        let bytes = plan.arena.saturating_mul(4);
        if bytes > limits.arena {
            let why = format!("the arena takes {bytes} bytes, more than {}", limits.arena);
            return Err(GraphError::Shape { tensor: f.file.clone(), why });
        }
        let port = |name: &String, id: usize, bindings: &BTreeMap<String, String>| PortInfo {
            name: name.clone(),
            binding: bindings.get(name).cloned().unwrap_or_default(),
            shape: graph.values[id].shape.clone(),
        };
        let inputs = graph.inputs.iter().map(|&i| port(&graph.values[i].name, i, &f.inputs)).collect();
        let outputs =
            graph.output_names.iter().zip(&graph.outputs).map(|(n, &i)| port(n, i, &f.outputs)).collect();
        let arena = Block::new(&vec![0.0; plan.arena]);
        Ok(Self { plan, arena, level, inputs, outputs })
    }

    /// Inputs, in the order of the graph.
    pub fn inputs(&self) -> &[PortInfo] {
        &self.inputs
    }

    /// Outputs, in the order of the graph.
    pub fn outputs(&self) -> &[PortInfo] {
        &self.outputs
    }

    /// The input bound to `binding`.
    pub fn input_index(&self, binding: &str) -> Option<usize> {
        self.inputs.iter().position(|p| p.binding == binding)
    }

    /// The output bound to `binding`.
    pub fn output_index(&self, binding: &str) -> Option<usize> {
        self.outputs.iter().position(|p| p.binding == binding)
    }

    /// Input `i`, to be written before [`run`](Self::run). It keeps its contents between runs.
    ///
    /// # Panics
    /// If there is no input `i`.
    pub fn input_mut(&mut self, i: usize) -> &mut [f32] {
        self.plan.inputs[i].of_mut(self.arena.get_mut())
    }

    /// Output `i` of the last [`run`](Self::run).
    ///
    /// # Panics
    /// If there is no output `i`.
    pub fn output(&self, i: usize) -> &[f32] {
        self.plan.outputs[i].of(self.arena.get())
    }

    /// Names of the kernels, in the order of execution.
    pub fn kernels(&self) -> Vec<String> {
        self.plan.kernels().collect()
    }

    /// Computes the outputs.
    ///
    /// # Errors
    /// NaN or infinity in an input (nothing was computed) or in an output (do not use the outputs).
    pub fn run(&mut self) -> Result<(), ActError> {
        let arena = self.arena.get();
        if let Some((i, index)) = first_bad(&self.plan.inputs, arena) {
            return Err(ActError::NonFiniteInput { port: Port::Input(i), index });
        }
        self.plan.run(self.level, self.arena.get_mut());
        match first_bad(&self.plan.outputs, self.arena.get()) {
            Some((i, index)) => Err(ActError::NonFiniteOutput { port: Port::Output(i), index }),
            None => Ok(()),
        }
    }

    /// Plan, for the footprint.
    pub(crate) fn footprint(&self, total: &mut Footprint) {
        total.weight_bytes += 4 * self.plan.weights.get().len() + self.plan.integers.len();
        total.arena_bytes += 4 * self.plan.arena;
        total.macs += self.plan.macs;
        total.kernels.extend(self.plan.kernels());
    }

    /// Fills everything but the inputs with NaN, to prove that nothing stale is read.
    #[cfg(test)]
    pub(crate) fn poison(&mut self) {
        let kept: Vec<Vec<f32>> = self.plan.inputs.iter().map(|s| s.of(self.arena.get()).to_vec()).collect();
        self.arena.get_mut().fill(f32::NAN);
        for (s, data) in self.plan.inputs.iter().zip(kept) {
            s.of_mut(self.arena.get_mut()).copy_from_slice(&data);
        }
    }
}

/// Most bytes that the constants of a graph take once they are packed: rows are padded to whole vectors.
fn packed_bytes(graph: &Graph) -> usize {
    let read = graph.nodes.iter().flat_map(|n| &n.inputs);
    let used: BTreeSet<usize> = read.chain(&graph.outputs).copied().collect();
    let padded = |shape: &[usize]| match shape.split_last() {
        Some((last, rest)) => rest.iter().product::<usize>().saturating_mul(last.next_multiple_of(LINE)),
        None => LINE,
    };
    let constants = used.iter().map(|&v| &graph.values[v]).filter(|v| v.constant.is_some());
    constants.fold(0usize, |sum, v| sum.saturating_add(padded(&v.shape).saturating_mul(4)))
}

/// First element that is not finite: which span, and where in it.
fn first_bad(spans: &[Span], arena: &[f32]) -> Option<(usize, usize)> {
    spans.iter().enumerate().find_map(|(i, s)| Some((i, not_finite(s.of(arena))?)))
}

/// First element that is not finite.
pub(crate) fn not_finite(x: &[f32]) -> Option<usize> {
    // This loop vectorises; the search that follows need not.
    let clean = x.iter().fold(true, |ok, v| ok & v.is_finite());
    if clean { None } else { x.iter().position(|v| !v.is_finite()) }
}

/// What a policy takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Footprint {
    /// Bytes of packed weights, all functions.
    pub weight_bytes: usize,
    /// Bytes of arenas, all functions.
    pub arena_bytes: usize,
    /// Multiply-adds of one run of every function.
    pub macs: usize,
    /// Kernels in the order of execution.
    pub kernels: Vec<String>,
}
