//! A block of floats at a 64-byte boundary, without `unsafe`: a few more are allocated and the first ones skipped.

/// Floats in a cache line.
pub(crate) const LINE: usize = 16;

/// Aligned floats. The length is fixed.
#[derive(Debug)]
pub(crate) struct Block {
    data: Vec<f32>,
    start: usize,
    len: usize,
}

impl Block {
    /// A block that holds `from`.
    pub(crate) fn new(from: &[f32]) -> Self {
        let len = from.len();
        let mut data = vec![0.0; len + LINE];
        // The offset is at most 15 floats; Miri may answer that it does not know.
        let start = Some(data.as_ptr().align_offset(64)).filter(|&s| s < LINE).unwrap_or(0);
        data[start..start + len].copy_from_slice(from);
        Self { data, start, len }
    }

    /// The floats.
    pub(crate) fn get(&self) -> &[f32] {
        &self.data[self.start..self.start + self.len]
    }

    /// The floats.
    pub(crate) fn get_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..self.start + self.len]
    }
}

/// Part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Span {
    /// No floats.
    pub(crate) const EMPTY: Self = Self { start: 0, len: 0 };

    /// The part of `block`.
    pub(crate) fn of(self, block: &[f32]) -> &[f32] {
        &block[self.start..self.start + self.len]
    }

    /// The part of `block`.
    pub(crate) fn of_mut(self, block: &mut [f32]) -> &mut [f32] {
        &mut block[self.start..self.start + self.len]
    }

    /// Whether the two share a float.
    #[cfg(test)]
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.start < other.start + other.len && other.start < self.start + self.len
    }
}

/// An arena without the spans that are written: the pieces that remain, each with its start.
pub(crate) struct Rest<'a> {
    pieces: [(usize, &'a [f32]); 3],
}

/// Takes `span` out of the arena, to be written while the rest is read.
pub(crate) fn split(arena: &mut [f32], span: Span) -> (&mut [f32], Rest<'_>) {
    let (before, rest) = arena.split_at_mut(span.start);
    let (own, after) = rest.split_at_mut(span.len);
    let end = span.start + span.len;
    (own, Rest { pieces: [(0, before), (end, after), (end, &[])] })
}

/// Takes two spans that do not overlap out of the arena.
pub(crate) fn split_two(arena: &mut [f32], a: Span, b: Span) -> (&mut [f32], &mut [f32], Rest<'_>) {
    let (low, high) = if a.start <= b.start { (a, b) } else { (b, a) };
    let (before, rest) = arena.split_at_mut(low.start);
    let (first, rest) = rest.split_at_mut(low.len);
    let (between, rest) = rest.split_at_mut(high.start - low.start - low.len);
    let (second, after) = rest.split_at_mut(high.len);
    let pieces = [(0, &*before), (low.start + low.len, &*between), (high.start + high.len, &*after)];
    let (first, second) = if a.start <= b.start { (first, second) } else { (second, first) };
    (first, second, Rest { pieces })
}

impl<'a> Rest<'a> {
    /// Another span of the arena, which the planner keeps clear of the ones taken out.
    pub(crate) fn get(&self, span: Span) -> &'a [f32] {
        let [(_, before), (second, between), (third, after)] = self.pieces;
        if span.start < before.len() {
            &before[span.start..span.start + span.len]
        } else if span.start < second + between.len() {
            &between[span.start - second..span.start - second + span.len]
        } else {
            &after[span.start - third..span.start - third + span.len]
        }
    }
}
