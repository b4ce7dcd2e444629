//! The streaming state of one operation: its last values, and its window folded so that a new value costs at
//! most four products whatever the window.

use crate::scalar::Scalar;
use crate::window::Extremum;

/// The last values of an operation, by instant.
pub(crate) struct Ring<S> {
    data: Box<[S]>,
    /// Where the next value goes.
    next: usize,
    /// Values so far; they belong to the instants `0..count`.
    count: u64,
}

impl<S: Scalar> Ring<S> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { data: vec![S::ZERO; capacity.max(1)].into(), next: 0, count: 0 }
    }

    pub(crate) fn reset(&mut self) {
        (self.next, self.count) = (0, 0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    #[inline]
    pub(crate) fn push(&mut self, value: S) {
        self.data[self.next] = value;
        self.next = if self.next + 1 == self.data.len() { 0 } else { self.next + 1 };
        self.count += 1;
    }

    /// The value at `instant`, which must still be held.
    #[inline]
    pub(crate) fn get(&self, instant: u64) -> S {
        let back = (self.count - instant) as usize;
        debug_assert!(back >= 1 && back <= self.data.len(), "instant {instant} of {} is gone", self.count);
        let at = if self.next >= back { self.next - back } else { self.next + self.data.len() - back };
        self.data[at]
    }

    pub(crate) fn newest(&self) -> Option<S> {
        (self.count > 0).then(|| self.get(self.count - 1))
    }

    /// Copies the values from `instant` on.
    pub(crate) fn copy_from(&self, instant: u64, out: &mut [S]) {
        if out.is_empty() {
            return;
        }
        let back = (self.count - instant) as usize;
        debug_assert!(back <= self.data.len());
        let at = if self.next >= back { self.next - back } else { self.next + self.data.len() - back };
        let until_wrap = out.len().min(self.data.len() - at);
        out[..until_wrap].copy_from_slice(&self.data[at..at + until_wrap]);
        let rest = out.len() - until_wrap;
        out[until_wrap..].copy_from_slice(&self.data[..rest]);
    }
}

/// Fold of the last `width` elements under any associative product, in order: van Herk–Gil–Werman with half
/// blocks, the suffixes of one block computed while the next one fills.
pub(crate) struct HalfBlock<E> {
    even: bool,
    identity: E,
    /// Suffix folds of the block before last; overwritten by the elements of the current block.
    older: Box<[E]>,
    /// Elements of the last block, turned into suffix folds from the end.
    old: Box<[E]>,
    /// Position in the current block.
    at: usize,
    prefix: E,
    whole: E,
    suffix: E,
}

impl<E: Copy> HalfBlock<E> {
    pub(crate) fn new(width: u64, identity: E) -> Self {
        let half = (width / 2) as usize;
        Self {
            even: width.is_multiple_of(2),
            identity,
            older: vec![identity; half].into(),
            old: vec![identity; half].into(),
            at: 0,
            prefix: identity,
            whole: identity,
            suffix: identity,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.older.fill(self.identity);
        self.old.fill(self.identity);
        self.at = 0;
        (self.prefix, self.whole, self.suffix) = (self.identity, self.identity, self.identity);
    }

    /// Adds an element and returns the fold of the last `width`.
    #[inline]
    pub(crate) fn push(&mut self, x: E, product: impl Fn(E, E) -> E) -> E {
        let half = self.old.len();
        if half == 0 {
            return x;
        }
        let r = self.at;
        let mirrored = half - 1 - r;
        if r == 0 {
            self.prefix = x;
            self.suffix = self.old[mirrored];
        } else {
            self.prefix = product(self.prefix, x);
            self.suffix = product(self.old[mirrored], self.suffix);
            self.old[mirrored] = self.suffix;
        }
        let mut fold = product(self.whole, self.prefix);
        let from = r + usize::from(self.even);
        if from < half {
            fold = product(self.older[from], fold);
        }
        self.older[r] = x;
        self.at += 1;
        if self.at == half {
            self.at = 0;
            self.whole = self.prefix;
            std::mem::swap(&mut self.older, &mut self.old);
        }
        fold
    }

    /// What [`HalfBlock::push`] would return.
    #[inline]
    pub(crate) fn peek(&self, x: E, product: impl Fn(E, E) -> E) -> E {
        if self.old.is_empty() {
            return x;
        }
        let prefix = if self.at == 0 { x } else { product(self.prefix, x) };
        let fold = product(self.whole, prefix);
        match self.older.get(self.at + usize::from(self.even)) {
            Some(older) => product(*older, fold),
            None => fold,
        }
    }
}

/// The last instant, plus one, at which an operand was NaN; 0 for never.
pub(crate) type Bad = u64;

/// What an operation remembers beside its values.
pub(crate) enum State<S> {
    /// Constants, predicates, folds.
    Point,
    Window {
        block: HalfBlock<S>,
        bad: Bad,
        /// What is known of the window of instant 0, for operators of the future.
        start: S,
    },
    /// An unbounded window of the past; in a monitor of instant 0 also of the future.
    Scan { total: S, bad: Bad },
    Until {
        pairs: HalfBlock<[S; 2]>,
        guard: Option<HalfBlock<S>>,
        bad: [Bad; 2],
        /// What is known of the window of instant 0, for until.
        start: [S; 2],
    },
    /// Unbounded since, as [all of lhs, value] (only the value counts); in a monitor of instant 0 also until.
    UntilScan { total: [S; 2], guard: Option<HalfBlock<S>>, bad: [Bad; 2] },
}

/// (p1,q1)·(p2,q2) = (min(p1,p2), max(q1, min(p1,q2))): q of the fold is until, time ascending.
#[inline(always)]
pub(crate) fn until_product<S: Scalar, A: Extremum<S>, O: Extremum<S>>(x: [S; 2], y: [S; 2]) -> [S; 2] {
    [A::of(x[0], y[0]), O::of(x[1], A::of(x[0], y[1]))]
}

/// (p1,q1)·(p2,q2) = (min(p1,p2), max(min(q1,p2), q2)): q of the fold is since, time ascending.
#[inline(always)]
pub(crate) fn since_product<S: Scalar, A: Extremum<S>, O: Extremum<S>>(x: [S; 2], y: [S; 2]) -> [S; 2] {
    [A::of(x[0], y[0]), O::of(A::of(x[1], y[0]), y[1])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Max, Min};
    use std::cell::Cell;

    #[test]
    fn half_block_folds_in_order_with_four_products() {
        // The interpreter is a thousand times slower: all parities and remainders, and one large width.
        let widths = if cfg!(miri) { 21 } else { 300 };
        for width in (1..=widths).chain([300]) {
            let products = Cell::new(0);
            let mut block = HalfBlock::new(width, [f64::INFINITY, f64::NEG_INFINITY]);
            let mut since = HalfBlock::new(width, [f64::INFINITY, f64::NEG_INFINITY]);
            let mut seen = Vec::new();
            for i in 0..(3 * width + 5) {
                // Two unrelated sawtooths without ties in order.
                let x = [((i * 7919) % 101) as f64 - 50.0, ((i * 104_729) % 97) as f64 - 48.0];
                seen.push(x);
                products.set(0);
                let ahead = block.peek(x, until_product::<f64, Min, Max>);
                let got = block.push(x, |a, b| {
                    products.set(products.get() + 1);
                    until_product::<f64, Min, Max>(a, b)
                });
                assert!(products.get() <= 4, "{} products at width {width}", products.get());
                let window = &seen[seen.len().saturating_sub(width as usize)..];
                let fold = |f: fn([f64; 2], [f64; 2]) -> [f64; 2]| window.iter().copied().reduce(f);
                assert_eq!(Some(got), fold(until_product::<f64, Min, Max>), "width {width}, push {i}");
                assert_eq!(ahead, got, "width {width}, push {i}");
                let got = since.push(x, since_product::<f64, Min, Max>);
                assert_eq!(Some(got), fold(since_product::<f64, Min, Max>), "width {width}, push {i}");
            }
        }
    }
}
