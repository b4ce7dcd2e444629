//! The latest value, handed from one thread to another without a lock and without waiting.
//!
//! Three slots and one atomic byte: the writer owns one slot, the reader owns one, and the third changes hands. The
//! byte holds the index of that third slot and whether it carries a value that the reader has not seen. Publishing and
//! reading are one atomic swap each, so neither side ever waits, and no side ever touches a slot that the other owns:
//! a torn value cannot be read. Values that the reader was too slow for are lost, the newest never is.

use super::sync::{Arc, AtomicU8, Ordering, UnsafeCell};

const INDEX: u8 = 0b011;
const FRESH: u8 = 0b100;

struct Shared<T> {
    slots: [UnsafeCell<T>; 3],
    /// Index of the slot that nobody owns, and [`FRESH`].
    back: AtomicU8,
}

// SAFETY: a slot is reached only through the index that its owner holds. Indices move only by `swap` on `back`, which
// keeps the three of {writer, back, reader} a permutation of 0, 1, 2, so no slot has two owners; the release half of
// the giving swap and the acquire half of the taking one order the accesses. `T: Send` because the value moves over.
unsafe impl<T: Send> Sync for Shared<T> {}

/// The writing end; see [`latest`].
pub struct Writer<T> {
    shared: Arc<Shared<T>>,
    own: u8,
}

/// The reading end; see [`latest`].
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    own: u8,
}

/// The two ends of a latest-value buffer. The only place that allocates.
pub fn latest<T: Clone>(initial: T) -> (Writer<T>, Reader<T>) {
    let slots = [initial.clone(), initial.clone(), initial].map(UnsafeCell::new);
    let shared = Arc::new(Shared { slots, back: AtomicU8::new(1) });
    (Writer { shared: shared.clone(), own: 0 }, Reader { shared, own: 2 })
}

impl<T> Writer<T> {
    /// Publishes the value that `fill` leaves in the slot. The slot holds some earlier value when `fill` gets it.
    pub fn publish_with(&mut self, fill: impl FnOnce(&mut T)) {
        // SAFETY: `own` is this end's slot (see `Shared`), and `&mut self` makes this the only use of it.
        self.shared.slots[self.own as usize].with_mut(|slot| fill(unsafe { &mut *slot }));
        self.own = self.shared.back.swap(self.own | FRESH, Ordering::AcqRel) & INDEX;
    }

    /// Publishes `value`.
    pub fn publish(&mut self, value: T) {
        self.publish_with(|slot| *slot = value);
    }
}

impl<T> Reader<T> {
    /// Whether a value has been published since the last [`read`](Self::read).
    pub fn is_fresh(&self) -> bool {
        self.shared.back.load(Ordering::Relaxed) & FRESH != 0
    }

    /// The newest value, and the initial one before the first was published.
    pub fn read(&mut self) -> &T {
        if self.is_fresh() {
            self.own = self.shared.back.swap(self.own, Ordering::AcqRel) & INDEX;
        }
        // SAFETY: `own` is this end's slot (see `Shared`); the borrow of `self` keeps it until the next swap.
        self.shared.slots[self.own as usize].with(|slot| unsafe { &*slot })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_newest_value_wins_and_stays() {
        let (mut writer, mut reader) = latest(0);
        assert_eq!((*reader.read(), reader.is_fresh()), (0, false));
        for i in 1..=5 {
            writer.publish(i);
        }
        assert!(reader.is_fresh());
        assert_eq!((*reader.read(), *reader.read(), reader.is_fresh()), (5, 5, false));
        writer.publish(6);
        assert_eq!(*reader.read(), 6);
    }

    /// Every order of publishes and reads up to twelve steps: the reader sees the newest, the slots stay a permutation.
    #[test]
    fn every_order_of_steps_keeps_the_slots_apart() {
        for order in 0u32..1 << 12 {
            let (mut writer, mut reader) = latest(0);
            let mut newest = 0;
            for bit in 0..12 {
                if order >> bit & 1 == 1 {
                    newest += 1;
                    writer.publish(newest);
                } else {
                    assert_eq!(*reader.read(), newest);
                }
                let back = writer.shared.back.load(Ordering::Relaxed) & INDEX;
                assert_eq!(1 << writer.own | 1 << back | 1 << reader.own, 0b111);
            }
        }
    }

    #[test]
    fn two_threads_never_see_a_torn_or_an_older_value() {
        const COUNT: u64 = if cfg!(miri) { 200 } else { 200_000 };
        let value = |i: u64| -> [u64; 32] { std::array::from_fn(|k| i.wrapping_mul(2 * k as u64 + 1)) };
        let (mut writer, mut reader) = latest(value(0));
        let writing = thread::spawn(move || (1..=COUNT).for_each(|i| writer.publish(value(i))));
        let mut last = 0;
        while last < COUNT {
            let seen = *reader.read();
            assert_eq!(seen, value(seen[0]), "torn");
            assert!(seen[0] >= last, "{} after {last}", seen[0]);
            last = seen[0];
        }
        writing.join().unwrap();
    }
}
