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

/// An arena without one span.
pub(crate) struct Rest<'a> {
    before: &'a [f32],
    after: &'a [f32],
    end: usize,
}

/// Takes `span` out of the arena, to be written while the rest is read.
pub(crate) fn split(arena: &mut [f32], span: Span) -> (&mut [f32], Rest<'_>) {
    let (before, rest) = arena.split_at_mut(span.start);
    let (own, after) = rest.split_at_mut(span.len);
    (own, Rest { before, after, end: span.start + span.len })
}

impl<'a> Rest<'a> {
    /// Another span of the arena, which the planner keeps clear of the one taken out.
    pub(crate) fn get(&self, span: Span) -> &'a [f32] {
        if span.start < self.before.len() {
            &self.before[span.start..span.start + span.len]
        } else {
            &self.after[span.start - self.end..span.start - self.end + span.len]
        }
    }
}
