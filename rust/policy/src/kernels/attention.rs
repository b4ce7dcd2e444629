//! Attention, `softmax(scale·q·kᵀ + mask)·v`, for every head by itself.
//!
//! Keys and values of a head are packed once in a call. Six queries at a time get their scores, the softmax runs over
//! these rows while they are near, and only the result is divided by the sums: no matrix of all scores exists.

use super::gemm::{Ends, LANES, ROWS, pack, packed_len, panel_width, products, tile_rows};
use super::norm;
use crate::isa::Level;

/// Where the rows of every head lie: element `[head, r, c]` at `starts[head] + r·row + c·column`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    pub(crate) starts: Box<[usize]>,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// Sizes and places of an attention. A head is any pair of query and key blocks: batches and groups are unrolled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attention {
    /// Rows of the queries, and of keys and values.
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    /// Length of a query or key, and of a value.
    pub(crate) width: usize,
    pub(crate) value_width: usize,
    pub(crate) scale: f32,
    /// Queries, values, mask and result have a `column` of 1.
    pub(crate) q: Heads,
    pub(crate) k: Heads,
    pub(crate) v: Heads,
    pub(crate) mask: Option<Heads>,
    pub(crate) y: Heads,
}

impl Attention {
    /// Heads.
    pub(crate) fn heads(&self) -> usize {
        self.q.starts.len()
    }

    /// Floats of a row of scores, in whole panels.
    fn line(&self) -> usize {
        self.keys.next_multiple_of(LANES)
    }

    /// Floats that a call needs beside its operands.
    pub(crate) fn room(&self) -> usize {
        packed_len(self.width, self.keys) + packed_len(self.keys, self.value_width) + ROWS * self.line()
    }

    /// Multiply-adds.
    pub(crate) fn macs(&self) -> usize {
        self.heads() * self.queries * self.keys * (self.width + self.value_width)
    }
}

/// All heads. `mask` is empty when there is none; `room` has [`Attention::room`] floats.
#[allow(clippy::too_many_arguments)] // Five matrices.
pub(crate) fn attention(
    level: Level,
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    mask: &[f32],
    room: &mut [f32],
    y: &mut [f32],
) {
    let line = a.line();
    let (keys, room) = room.split_at_mut(packed_len(a.width, a.keys));
    let (values, scores) = room.split_at_mut(packed_len(a.keys, a.value_width));
    let (mut packed_k, mut packed_v) = (None, None);
    for head in 0..a.heads() {
        // Heads of one group share keys and values.
        let start = a.k.starts[head];
        if packed_k != Some(start) {
            pack(&k[start..], a.k.column, a.k.row, a.width, a.keys, a.scale, keys);
            packed_k = Some(start);
        }
        let start = a.v.starts[head];
        if packed_v != Some(start) {
            pack(&v[start..], a.v.row, 1, a.keys, a.value_width, 1.0, values);
            packed_v = Some(start);
        }
        let (q, y) = (&q[a.q.starts[head]..], &mut y[a.y.starts[head]..]);
        let mut done = 0;
        while done < a.queries {
            let count = tile_rows(a.queries - done);
            let mut panels = &*keys;
            for first in (0..a.keys).step_by(LANES) {
                let (_, lanes) = panel_width(first, a.keys);
                let (panel, rest) = panels.split_at(a.width * lanes);
                panels = rest;
                let (q, scores) = (&q[done * a.q.row..], &mut scores[first..]);
                products(level, count, lanes, q, a.q.row, panel, &Ends::PLAIN, scores, line);
            }
            let mut shares = [0.0; ROWS];
            for (i, share) in shares[..count].iter_mut().enumerate() {
                // Whole panels are faster, and -∞ has no share.
                let row = &mut scores[i * line..(i + 1) * line];
                row[a.keys..].fill(f32::NEG_INFINITY);
                let from = a.mask.as_ref().map_or(0, |m| m.starts[head] + (done + i) * m.row);
                let mask = if a.mask.is_some() { &mask[from..from + a.keys] } else { &[] };
                norm::shares(level, row, mask, share);
            }
            let mut panels = &*values;
            let mut near = [0.0; ROWS * LANES];
            for first in (0..a.value_width).step_by(LANES) {
                let (width, lanes) = panel_width(first, a.value_width);
                let (panel, rest) = panels.split_at(a.keys * lanes);
                panels = rest;
                products(level, count, lanes, scores, line, panel, &Ends::PLAIN, &mut near, LANES);
                for (i, (row, share)) in near.chunks_exact(LANES).zip(&shares[..count]).enumerate() {
                    let from = (done + i) * a.y.row + first;
                    for (y, x) in y[from..from + width].iter_mut().zip(row) {
                        *y = x * share;
                    }
                }
            }
            done += count;
        }
    }
}
