//! Views of the simulator's own memory, and its step function.

use std::ffi::{c_int, c_void};
use std::path::Path;
use std::ptr;

use libloading::os::unix::Library;

use super::{NAME, SimHandles};
use crate::device::DeviceError;

/// `mj_step(const mjModel*, mjData*)`.
pub type StepFn = unsafe extern "C" fn(*const c_void, *mut c_void);

/// An array of f64 that belongs to the simulator. Indices are checked when the device is built.
#[derive(Debug)]
pub(super) struct Numbers {
    start: *mut f64,
    len: usize,
}

impl Numbers {
    /// # Safety
    /// `address` must be that of `len` initialised f64 that live as long as this view, and nobody else may touch them
    /// during a call of its methods.
    pub(super) unsafe fn new(what: &str, address: usize, len: usize) -> Result<Self, DeviceError> {
        if len > 0 && (address == 0 || !address.is_multiple_of(align_of::<f64>())) {
            return Err(error(format!("{what} has the address {address:#x}")));
        }
        Ok(Self { start: ptr::with_exposed_provenance_mut(address), len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, i: usize) -> f64 {
        assert!(i < self.len);
        // SAFETY: in bounds; validity is promised by the caller of `new`.
        unsafe { self.start.add(i).read() }
    }

    pub(super) fn set(&mut self, i: usize, value: f64) {
        assert!(i < self.len);
        // SAFETY: as in `get`; nobody else touches the array meanwhile.
        unsafe { self.start.add(i).write(value) }
    }

    pub(super) fn array<const N: usize>(&self, at: usize) -> [f64; N] {
        std::array::from_fn(|i| self.get(at + i))
    }

    pub(super) fn is_finite(&self) -> bool {
        (0..self.len).all(|i| self.get(i).is_finite())
    }
}

/// Counters of the warnings that the simulator raises when its state is beyond repair.
#[derive(Debug)]
pub(super) struct Warnings {
    counters: Vec<(*const c_int, c_int)>,
}

impl Warnings {
    /// # Safety
    /// Each address must be that of an initialised `int` that lives as long as this view.
    pub(super) unsafe fn new(addresses: &[usize]) -> Result<Self, DeviceError> {
        let mut counters = Vec::with_capacity(addresses.len());
        for &address in addresses {
            if address == 0 || !address.is_multiple_of(align_of::<c_int>()) {
                return Err(error(format!("a warning counter has the address {address:#x}")));
            }
            let counter: *const c_int = ptr::with_exposed_provenance(address);
            // SAFETY: promised by the caller.
            counters.push((counter, unsafe { counter.read() }));
        }
        Ok(Self { counters })
    }

    /// Whether a warning was raised since the device was built.
    pub(super) fn raised(&self) -> bool {
        // SAFETY: promised by the caller of `new`.
        self.counters.iter().any(|&(counter, start)| unsafe { counter.read() } != start)
    }
}

/// The simulator: its step function, its model and its data.
#[derive(Debug)]
pub(super) struct Engine {
    step: StepFn,
    model: *const c_void,
    data: *mut c_void,
    /// Keeps the library loaded for as long as `step` may be called.
    _library: Option<Library>,
}

impl Engine {
    /// Takes the step function of the instance of MuJoCo that is already loaded in this process.
    ///
    /// # Safety
    /// As for [`Engine::with_step`]; `handles.library` must be MuJoCo.
    pub(super) unsafe fn load(handles: &SimHandles) -> Result<Self, DeviceError> {
        let library = open_loaded(&handles.library)?;
        let path = handles.library.display();
        // SAFETY: the signatures are those of mujoco.h, unchanged since MuJoCo 2.
        let (version, step) = unsafe {
            let version = library.get::<unsafe extern "C" fn() -> c_int>(c"mj_version".to_bytes_with_nul());
            let step = library.get::<StepFn>(c"mj_step".to_bytes_with_nul());
            match (version, step) {
                (Ok(version), Ok(step)) => (version(), *step),
                (Err(e), _) | (_, Err(e)) => return Err(error(format!("{path} is not MuJoCo: {e}"))),
            }
        };
        if version != handles.version {
            let made = handles.version;
            return Err(error(format!("{path} is MuJoCo {version}, model and data were made by {made}")));
        }
        // SAFETY: the caller's promise.
        let mut engine = unsafe { Self::with_step(handles, step)? };
        engine._library = Some(library);
        Ok(engine)
    }

    /// # Safety
    /// `handles.model` and `handles.data` must be what `step` expects, alive as long as this, and nobody else may touch
    /// them during [`Engine::step`].
    pub(super) unsafe fn with_step(handles: &SimHandles, step: StepFn) -> Result<Self, DeviceError> {
        if handles.model == 0 || handles.data == 0 {
            let (model, data) = (handles.model, handles.data);
            return Err(error(format!("model has the address {model:#x}, data {data:#x}")));
        }
        Ok(Self {
            step,
            model: ptr::with_exposed_provenance(handles.model),
            data: ptr::with_exposed_provenance_mut(handles.data),
            _library: None,
        })
    }

    /// Advances the physics by one of its time steps.
    pub(super) fn step(&mut self) {
        // SAFETY: promised by the caller of the constructor.
        unsafe { (self.step)(self.model, self.data) }
    }
}

/// A library that this process has loaded already: another copy would have its own globals.
fn open_loaded(path: &Path) -> Result<Library, DeviceError> {
    // SAFETY: with RTLD_NOLOAD no initialiser runs; it only takes a reference to what is there.
    unsafe { Library::open(Some(path), libc::RTLD_NOW | libc::RTLD_NOLOAD) }
        .map_err(|_| error(format!("{} is not loaded in this process", path.display())))
}

pub(in crate::device) fn error(what: String) -> DeviceError {
    DeviceError::Config { device: NAME, what }
}
