//! Which values share memory, and where each lies in the arena.
//!
//! A value lives from the step that writes it to the last step that reads it. Views share the memory of what they look
//! at; a step that may work in place takes over the memory of an operand that dies there. What remains is placed
//! one by one, each into the tightest gap among the buffers that live at the same time.

use crate::graph::{Graph, Node, ValueId};
use crate::kernels::gemm;
use crate::memory::{LINE, Span};
use crate::op::{Op, Run};

/// A piece of memory and the steps between which it must not be touched by others.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    len: usize,
    first: usize,
    last: usize,
    /// Inputs: written by the caller, never by a step.
    fixed: bool,
    /// The buffer that took this one over.
    merged: Option<usize>,
    start: usize,
}

/// Floats that a node needs beside its operands.
fn room(graph: &Graph, node: &Node) -> usize {
    match &node.op {
        Op::MatMul => match graph.values[node.inputs[1]].shape[..] {
            [.., k, n] => gemm::packed_len(k, n),
            _ => 0,
        },
        Op::Attention(a) => a.room(),
        _ => 0,
    }
}

/// What buffers are sorted by before they are placed.
type Key = fn(&Buffer) -> (usize, usize);

/// Memory of a graph's values.
#[derive(Debug)]
pub(crate) struct Layout {
    buffers: Vec<Buffer>,
    /// Buffer of each value and the offset in it.
    homes: Vec<Option<(usize, usize)>>,
    views: Vec<bool>,
    /// Which operand of each node lies where the result goes.
    kept: Vec<usize>,
    /// Buffer for what a node needs only while it runs.
    rooms: Vec<Option<usize>>,
    /// Floats of the arena.
    pub(crate) floats: usize,
}

impl Layout {
    pub(crate) fn new(graph: &Graph) -> Self {
        let mut layout = Self {
            buffers: vec![],
            homes: vec![None; graph.values.len()],
            views: vec![false; graph.nodes.len()],
            kept: vec![0; graph.nodes.len()],
            rooms: vec![None; graph.nodes.len()],
            floats: 0,
        };
        layout.give_homes(graph);
        graph.nodes.iter().enumerate().for_each(|(i, _)| layout.work_in_place(graph, i));
        layout.assign();
        layout
    }

    /// Whether node `index` moves nothing.
    pub(crate) fn is_view(&self, index: usize) -> bool {
        self.views[index]
    }

    /// Which operand of node `index` the result is computed on top of.
    pub(crate) fn keeps(&self, index: usize) -> usize {
        self.kept[index]
    }

    /// What node `index` needs only while it runs.
    pub(crate) fn room(&self, index: usize) -> Span {
        let span = |b: usize| Span { start: self.buffers[b].start, len: self.buffers[b].len };
        self.rooms[index].map_or(Span { start: 0, len: 0 }, span)
    }

    /// Where a value lies.
    pub(crate) fn span(&self, graph: &Graph, value: ValueId) -> Span {
        let (buffer, offset) = self.homes[value].expect("every value that is read or written has a home");
        Span { start: self.buffers[self.owner(buffer)].start + offset, len: graph.values[value].len() }
    }

    fn owner(&self, mut buffer: usize) -> usize {
        while let Some(into) = self.buffers[buffer].merged {
            buffer = into;
        }
        buffer
    }

    fn new_buffer(&mut self, value: ValueId, len: usize, first: usize, fixed: bool) {
        let last = if fixed { usize::MAX } else { first };
        self.buffers.push(Buffer { len, first, last, fixed, merged: None, start: 0 });
        self.homes[value] = Some((self.buffers.len() - 1, 0));
    }

    fn give_homes(&mut self, graph: &Graph) {
        for &input in &graph.inputs {
            self.new_buffer(input, graph.values[input].len(), 0, true);
        }
        for (i, node) in graph.nodes.iter().enumerate() {
            let offset = match &node.op {
                Op::View => Some(0),
                Op::Rearrange(lists) => match lists[..] {
                    [ref runs] => match runs[..] {
                        [Run { src, dst: 0, len }] if len == graph.values[node.output].len() => Some(src),
                        _ => None,
                    },
                    _ => None,
                },
                _ => None,
            };
            match offset.zip(self.homes[node.inputs[0]]) {
                Some((by, (buffer, offset))) => {
                    self.homes[node.output] = Some((buffer, offset + by));
                    self.views[i] = true;
                }
                None => self.new_buffer(node.output, graph.values[node.output].len(), i, false),
            }
            let room = room(graph, node);
            if room > 0 {
                self.rooms[i] = Some(self.buffers.len());
                let (first, last) = (i, i);
                self.buffers.push(Buffer { len: room, first, last, fixed: false, merged: None, start: 0 });
            }
            for (buffer, _) in node.inputs.iter().filter_map(|&v| self.homes[v]) {
                self.buffers[buffer].last = self.buffers[buffer].last.max(i);
            }
        }
        for &output in &graph.outputs {
            match self.homes[output] {
                Some((buffer, _)) => self.buffers[buffer].last = usize::MAX,
                // A constant.
                None => self.new_buffer(output, graph.values[output].len(), 0, true),
            }
        }
    }

    /// Lets node `index` take over the memory of an operand, if one dies there.
    fn work_in_place(&mut self, graph: &Graph, index: usize) {
        let node = &graph.nodes[index];
        let candidates: &[usize] = match node.op {
            _ if self.views[index] => return,
            Op::Unary(_) | Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::Softmax { .. } => &[0],
            Op::GroupNorm { .. } => &[0],
            Op::Binary(_) => &[0, 1],
            Op::Where => &[1],
            _ => return,
        };
        let len = graph.values[node.output].len();
        let full = |c: usize| graph.values[node.inputs[c]].len() == len;
        // Without a dying operand, one that has the result's size is copied first.
        self.kept[index] = candidates.iter().copied().find(|&c| full(c)).unwrap_or(candidates[0]);
        for &c in candidates.iter().filter(|&&c| full(c)) {
            let Some((buffer, 0)) = self.homes[node.inputs[c]] else { continue };
            let buffer = self.owner(buffer);
            let shared = |o: usize| {
                o != c && self.homes[node.inputs[o]].is_some_and(|(other, _)| self.owner(other) == buffer)
            };
            let b = self.buffers[buffer];
            if b.fixed || b.last != index || b.len != len || (0..node.inputs.len()).any(shared) {
                continue;
            }
            let Some((own, 0)) = self.homes[node.output] else { continue };
            self.buffers[own].merged = Some(buffer);
            self.buffers[buffer].last = self.buffers[own].last;
            self.kept[index] = c;
            return;
        }
    }

    /// Places every buffer. No one order is best for all graphs, so a few are tried: by size for nets of many sizes, by
    /// time for long chains of equal ones.
    fn assign(&mut self) {
        let own: Vec<usize> = (0..self.buffers.len()).filter(|&b| self.buffers[b].merged.is_none()).collect();
        let keys: [Key; 4] = [
            |b| (usize::MAX - b.len, b.first),
            |b| (b.first, usize::MAX - b.len),
            |b| (usize::MAX - b.last, usize::MAX - b.len),
            |b| (usize::MAX - (b.last - b.first), usize::MAX - b.len),
        ];
        let mut best: Option<(usize, Vec<usize>)> = None;
        for key in keys {
            let mut order = own.clone();
            // Inputs first: they are never free.
            order.sort_by_key(|&b| (!self.buffers[b].fixed, key(&self.buffers[b])));
            let floats = self.place(&order);
            if best.as_ref().is_none_or(|(least, _)| floats < *least) {
                best = Some((floats, order));
            }
        }
        if let Some((_, order)) = best {
            self.floats = self.place(&order);
        }
    }

    /// Places the buffers in this order, each into the tightest gap; gives the size of the arena.
    fn place(&mut self, order: &[usize]) -> usize {
        let room = |len: usize| len.next_multiple_of(LINE);
        let mut floats = 0;
        for (i, &b) in order.iter().enumerate() {
            let own = self.buffers[b];
            let mut taken: Vec<(usize, usize)> = order[..i]
                .iter()
                .map(|&p| self.buffers[p])
                .filter(|p| own.fixed || p.fixed || (own.first <= p.last && p.first <= own.last))
                .map(|p| (p.start, p.start + room(p.len)))
                .collect();
            taken.sort_unstable();
            let (mut at, mut best) = (0, None);
            for (start, end) in taken {
                let gap = start.saturating_sub(at);
                if gap >= room(own.len) && best.is_none_or(|(size, _)| gap < size) {
                    best = Some((gap, at));
                }
                at = at.max(end);
            }
            let start = best.map_or(at, |(_, at)| at);
            self.buffers[b].start = start;
            floats = floats.max(start + room(own.len));
        }
        floats
    }

    /// Whether two buffers that live at the same time overlap.
    #[cfg(test)]
    pub(crate) fn has_conflict(&self) -> bool {
        let alive: Vec<&Buffer> = self.buffers.iter().filter(|b| b.merged.is_none() && b.len > 0).collect();
        let span = |b: &Buffer| Span { start: b.start, len: b.len };
        alive.iter().enumerate().any(|(i, a)| {
            alive[..i].iter().any(|b| {
                (a.fixed || b.fixed || (a.first <= b.last && b.first <= a.last)) && span(a).overlaps(span(b))
            })
        })
    }

    /// The most floats that live at the same time, in whole cache lines: no layout needs fewer.
    #[cfg(test)]
    pub(crate) fn live_peak(&self) -> usize {
        let alive =
            |b: &Buffer, step: usize| b.merged.is_none() && (b.fixed || (b.first <= step && step <= b.last));
        let room = |step: usize| {
            self.buffers
                .iter()
                .filter(|b| alive(b, step))
                .map(|b| b.len.next_multiple_of(LINE))
                .sum::<usize>()
        };
        (0..self.views.len().max(1)).map(room).max().unwrap_or(0)
    }
}
