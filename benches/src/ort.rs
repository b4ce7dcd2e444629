//! onnxruntime through its C interface: one thread, no spinning, input and output bound once.

use std::ffi::{CStr, CString, c_void};
use std::path::Path;
use std::ptr;

use libloading::Library;
use ort_sys::{
    ONNXTensorElementDataType, OrtAllocatorType, OrtApi, OrtApiBase, OrtEnv, OrtIoBinding, OrtLoggingLevel,
    OrtMemType, OrtMemoryInfo, OrtSession, OrtSessionOptions, OrtStatusPtr, OrtValue,
};

/// Version of the interface asked for; every later library still serves it.
const API_VERSION: u32 = 17;

/// A loaded onnxruntime.
pub struct Ort {
    api: *const OrtApi,
    env: *mut OrtEnv,
    version: String,
    /// Never unloaded: onnxruntime keeps threads of its own.
    _library: Library,
}

impl Ort {
    /// Loads `libonnxruntime`.
    ///
    /// # Errors
    /// In words.
    pub fn load(path: &Path) -> Result<Self, String> {
        let at = |error: libloading::Error| format!("{}: {error}", path.display());
        // SAFETY: onnxruntime's initialisers are those of an ordinary library; the symbol has this signature.
        let (library, base) = unsafe {
            let library = Library::new(path).map_err(at)?;
            let entry = library
                .get::<unsafe extern "system" fn() -> *const OrtApiBase>(b"OrtGetApiBase\0")
                .map_err(at)?;
            let base = entry();
            (library, base)
        };
        // SAFETY: the base is a static table of the library, which stays loaded.
        let (api, version) = unsafe {
            let version = CStr::from_ptr(((*base).GetVersionString)()).to_string_lossy().into_owned();
            (((*base).GetApi)(API_VERSION), version)
        };
        if api.is_null() {
            return Err(format!("{}: onnxruntime {version} has no interface {API_VERSION}", path.display()));
        }
        let mut ort = Self { api, env: ptr::null_mut(), version, _library: library };
        let mut env = ptr::null_mut();
        // SAFETY: the name is a C string; `env` is written on success.
        ort.check(unsafe {
            (ort.api().CreateEnv)(OrtLoggingLevel::ORT_LOGGING_LEVEL_ERROR, c"cadenza".as_ptr(), &mut env)
        })?;
        ort.env = env;
        Ok(ort)
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn api(&self) -> &OrtApi {
        // SAFETY: not null (checked), and static in a library that stays loaded.
        unsafe { &*self.api }
    }

    fn check(&self, status: OrtStatusPtr) -> Result<(), String> {
        if status.0.is_null() {
            return Ok(());
        }
        // SAFETY: a status that is not null carries a message until it is released, here.
        unsafe {
            let text = CStr::from_ptr((self.api().GetErrorMessage)(status.0)).to_string_lossy().into_owned();
            (self.api().ReleaseStatus)(status.0);
            Err(text)
        }
    }
}

/// A network with its inputs and outputs.
pub struct Network<'a> {
    ort: &'a Ort,
    session: *mut OrtSession,
    binding: *mut OrtIoBinding,
    inputs: Vec<Box<[f32]>>,
    outputs: Vec<Box<[f32]>>,
}

impl<'a> Network<'a> {
    /// Loads `model`, whose inputs and outputs are `[1, size]` each, by name.
    ///
    /// # Errors
    /// What onnxruntime says.
    pub fn new(
        ort: &'a Ort,
        model: &[u8],
        inputs: &[(&CStr, usize)],
        outputs: &[(&CStr, usize)],
    ) -> Result<Self, String> {
        let api = ort.api();
        let mut options: *mut OrtSessionOptions = ptr::null_mut();
        let mut session = ptr::null_mut();
        let key = CString::new("session.intra_op.allow_spinning").map_err(|e| e.to_string())?;
        // SAFETY: every pointer comes from the call before it, checked; strings are C strings; the model is copied.
        unsafe {
            ort.check((api.CreateSessionOptions)(&mut options))?;
            ort.check((api.SetIntraOpNumThreads)(options, 1))?;
            ort.check((api.SetInterOpNumThreads)(options, 1))?;
            ort.check((api.AddSessionConfigEntry)(options, key.as_ptr(), c"0".as_ptr()))?;
            let data = model.as_ptr().cast::<c_void>();
            let made = (api.CreateSessionFromArray)(ort.env, data, model.len(), options, &mut session);
            (api.ReleaseSessionOptions)(options);
            ort.check(made)?;
        }
        let room = |ports: &[(&CStr, usize)]| ports.iter().map(|&(_, size)| vec![0.0; size].into()).collect();
        let mut network =
            Self { ort, session, binding: ptr::null_mut(), inputs: room(inputs), outputs: room(outputs) };
        let mut memory: *mut OrtMemoryInfo = ptr::null_mut();
        // SAFETY: as above; the bound tensors are the boxes of `network`, which do not move and outlive the binding.
        unsafe {
            ort.check((api.CreateCpuMemoryInfo)(
                OrtAllocatorType::OrtDeviceAllocator,
                OrtMemType::OrtMemTypeDefault,
                &mut memory,
            ))?;
            ort.check((api.CreateIoBinding)(session, &mut network.binding))?;
            for ((name, _), room) in inputs.iter().zip(&mut network.inputs) {
                let input = tensor(ort, memory, room)?;
                ort.check((api.BindInput)(network.binding, name.as_ptr(), input))?;
                (api.ReleaseValue)(input);
            }
            for ((name, _), room) in outputs.iter().zip(&mut network.outputs) {
                let output = tensor(ort, memory, room)?;
                ort.check((api.BindOutput)(network.binding, name.as_ptr(), output))?;
                (api.ReleaseValue)(output);
            }
            (api.ReleaseMemoryInfo)(memory);
        }
        Ok(network)
    }

    /// One inference, the inputs copied in and the outputs copied out, as [`cadenza_policy::Policy::act`] does.
    ///
    /// # Errors
    /// What onnxruntime says.
    pub fn run(&mut self, inputs: &[&[f32]], outputs: &mut [&mut [f32]]) -> Result<(), String> {
        self.inputs.iter_mut().zip(inputs).for_each(|(to, from)| to.copy_from_slice(from));
        // SAFETY: session and binding live; default run options.
        let status = unsafe { (self.ort.api().RunWithBinding)(self.session, ptr::null(), self.binding) };
        self.ort.check(status)?;
        outputs
            .iter_mut()
            .zip(std::hint::black_box(&self.outputs))
            .for_each(|(to, from)| to.copy_from_slice(from));
        Ok(())
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        // SAFETY: both are ours and released once; null is allowed.
        unsafe {
            (self.ort.api().ReleaseIoBinding)(self.binding);
            (self.ort.api().ReleaseSession)(self.session);
        }
    }
}

/// A `[1, n]` tensor over `data`.
///
/// # Safety
/// `data` outlives every use of the tensor; `memory` is CPU memory.
unsafe fn tensor(ort: &Ort, memory: *const OrtMemoryInfo, data: &mut [f32]) -> Result<*mut OrtValue, String> {
    let shape = [1, data.len() as i64];
    let mut value = ptr::null_mut();
    // SAFETY: data and shape have the lengths given; the caller's promise holds for the rest.
    ort.check(unsafe {
        (ort.api().CreateTensorWithDataAsOrtValue)(
            memory,
            data.as_mut_ptr().cast(),
            size_of_val(data),
            shape.as_ptr(),
            shape.len(),
            ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
            &mut value,
        )
    })?;
    Ok(value)
}
