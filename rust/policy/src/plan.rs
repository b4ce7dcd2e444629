//! From a graph to what runs: steps over one arena and one block of packed weights.

mod pack;
mod step;

use self::pack::Maker;
pub(crate) use self::step::{Source, Step};
use std::collections::HashMap;

use crate::graph::Graph;
use crate::int8;
use crate::isa::Level;
use crate::layout::Layout;
use crate::manifest::Weights;
use crate::memory::{Block, Span};
use crate::tiles;

/// A graph that is ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) weights: Block,
    /// Packed 8-bit weights.
    pub(crate) integers: Vec<i8>,
    /// Floats of the arena.
    pub(crate) arena: usize,
    pub(crate) inputs: Vec<Span>,
    pub(crate) outputs: Vec<Span>,
    /// Multiplications with an addition in the linear layers.
    pub(crate) macs: usize,
}

impl Plan {
    /// Lays out and packs a legal graph (see [`crate::fuse::legalise`]).
    pub(crate) fn new(graph: &Graph, weights: Weights) -> Self {
        let layout = Layout::new(graph);
        let narrow =
            if weights == Weights::Int8 { int8::chosen(graph) } else { vec![false; graph.nodes.len()] };
        let mut maker = Maker {
            graph,
            layout: &layout,
            narrow,
            steps: vec![],
            weights: vec![],
            integers: vec![],
            packed: HashMap::new(),
            macs: 0,
        };
        graph.nodes.iter().enumerate().for_each(|(i, node)| maker.node(i, node));
        let outputs: Vec<Span> = graph.outputs.iter().map(|&o| maker.output(o)).collect();
        let inputs = graph.inputs.iter().map(|&i| layout.span(graph, i)).collect();
        Self {
            steps: tiles::join(maker.steps),
            weights: Block::new(&maker.weights),
            integers: maker.integers,
            arena: layout.floats,
            inputs,
            outputs,
            macs: maker.macs,
        }
    }

    /// Runs every step.
    pub(crate) fn run(&self, level: Level, arena: &mut [f32]) {
        let weights = self.weights.get();
        for step in &self.steps {
            step.run(level, weights, &self.integers, arena);
        }
    }

    /// Name of every kernel, in the order of execution.
    pub(crate) fn kernels(&self) -> impl Iterator<Item = String> {
        self.steps.iter().map(Step::name)
    }
}
