//! Caps on what a bundle may ask for. They are tested before anything is allocated.

/// Caps on graphs and memory. The defaults are those of the format; a smaller machine may lower them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Nodes of one graph.
    pub nodes: usize,
    /// Tensors of one graph: inputs, constants, results.
    pub tensors: usize,
    /// Dimensions of a tensor.
    pub rank: usize,
    /// One dimension.
    pub dimension: usize,
    /// Elements of one tensor.
    pub elements: usize,
    /// Elements that loading one graph may compute in all: folded constants, broadcasts, lists of copies.
    pub folding: usize,
    /// Inputs, and outputs, of one graph.
    pub ports: usize,
    /// Multiply-adds and single elements that one run of a graph may compute.
    pub work: usize,
    /// Bytes of one function's packed weights.
    pub weights: usize,
    /// Bytes of one function's arena.
    pub arena: usize,
    /// Bytes of one string.
    pub string: usize,
    /// Bytes of all `metadata_props`.
    pub metadata: usize,
    /// Attributes of one node.
    pub attributes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes: 4096,
            tensors: 16_384,
            rank: 6,
            dimension: 65_536,
            elements: 1 << 26,
            folding: 1 << 24,
            ports: 256,
            work: 1 << 34,
            weights: 256 << 20,
            arena: 256 << 20,
            string: 64 << 10,
            metadata: 1 << 20,
            attributes: 64,
        }
    }
}
