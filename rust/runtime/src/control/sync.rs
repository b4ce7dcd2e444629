//! What the hand-offs stand on, in one place so that a model checker can stand in for it (`tests/loom.rs`).

use std::cell::UnsafeCell;
pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicU8, Ordering};

/// A place that is reached through raw pointers only; who may reach it is the business of its owner.
pub(super) struct Slot<T>(UnsafeCell<T>);

impl<T> Slot<T> {
    pub(super) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
