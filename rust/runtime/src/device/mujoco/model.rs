//! A compiled model: its arrays, and what is called how.

use std::ffi::{CString, c_int, c_void};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use super::layout::{Field, Layout};
use super::library::{MuJoCo, text_of};

/// An `mjModel`.
pub(super) struct Model {
    pub(super) mujoco: Arc<MuJoCo>,
    pub(super) model: NonNull<c_void>,
}

impl Model {
    /// # Safety
    /// `model` must be an `mjModel` of this library, and becomes this value's own.
    pub(super) unsafe fn new(mujoco: &Arc<MuJoCo>, model: NonNull<c_void>) -> Self {
        Self { mujoco: Arc::clone(mujoco), model }
    }

    pub(super) fn layout(&self) -> &'static Layout {
        self.mujoco.layout
    }

    pub(super) fn value<T: Copy>(&self, field: &Field<T>) -> T {
        // SAFETY: the model lives, and the layout is that of its version.
        unsafe { field.read(self.model) }
    }

    /// A size, which is never negative.
    pub(super) fn count(&self, field: &Field<i64>) -> usize {
        self.value(field) as usize
    }

    /// The array at `field`, which MuJoCo's header says has `len` elements.
    pub(super) fn array<T: Copy>(&self, field: &Field<*mut T>, len: usize) -> &[T] {
        let start = self.value(field);
        if len == 0 {
            return &[]; // of which the address may be null
        }
        // SAFETY: the layout is that of the model's version; the array is initialised and lives with the model.
        unsafe { slice::from_raw_parts(start, len) }
    }

    pub(super) fn array_mut<T: Copy>(&mut self, field: &Field<*mut T>, len: usize) -> &mut [T] {
        let start = self.value(field);
        if len == 0 {
            return &mut [];
        }
        // SAFETY: as in `array`; arrays do not overlap, and this value is the only way to them.
        unsafe { slice::from_raw_parts_mut(start, len) }
    }

    /// The object of this kind and name.
    pub(super) fn find(&self, kind: c_int, name: &str) -> Option<usize> {
        let name = CString::new(name).ok()?;
        // SAFETY: the model lives.
        let id = unsafe { (self.mujoco.call.mj_name2id)(self.model.as_ptr(), kind, name.as_ptr()) };
        usize::try_from(id).ok()
    }

    pub(super) fn name(&self, kind: c_int, id: usize) -> String {
        // SAFETY: the model lives, and owns its names.
        unsafe { text_of((self.mujoco.call.mj_id2name)(self.model.as_ptr(), kind, id as c_int)) }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: this library made it, and nothing of ours points into it any more.
        unsafe { (self.mujoco.call.mj_deleteModel)(self.model.as_ptr()) }
    }
}
