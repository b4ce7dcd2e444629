//! MuJoCo's library: opened by path, known by version, its functions by name.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::layout::{self, Layout, Version};
use crate::device::DeviceError;
use crate::device::sim::error;

/// A pointer to one of MuJoCo's own structures.
pub(super) type Opaque = *mut c_void;
/// A zero-terminated text.
pub(super) type Text = *const c_char;

/// What is called when MuJoCo gives up, or warns.
type Handler = unsafe extern "C" fn(Text);

macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Signatures as in mujoco.h, equal in all versions that have a layout.
        #[allow(non_snake_case, reason = "the names of mujoco.h")]
        #[derive(Debug)]
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            /// # Safety
            /// `library` must be a MuJoCo with these signatures.
            unsafe fn load(library: &Library) -> Result<Self, libloading::Error> {
                // SAFETY: the caller's promise.
                unsafe { Ok(Self { $($name: *library.get(concat!(stringify!($name), "\0").as_bytes())?,)* }) }
            }
        }
    };
}

functions! {
    mj_parseXML(Text, *const c_void, *mut c_char, c_int) -> Opaque;
    mj_parseXMLString(Text, *const c_void, *mut c_char, c_int) -> Opaque;
    mj_compile(Opaque, *const c_void) -> Opaque;
    mj_deleteSpec(Opaque);
    mjs_addFrame(Opaque, Opaque) -> Opaque;
    mjs_attach(Opaque, Opaque, Text, Text) -> Opaque;
    mjs_findBody(Opaque, Text) -> Opaque;
    mjs_firstChild(Opaque, c_int, c_int) -> Opaque;
    mjs_nextChild(Opaque, Opaque, c_int) -> Opaque;
    mjs_getError(Opaque) -> Text;
    mjs_getName(Opaque) -> *const c_void;
    mjs_getString(*const c_void) -> Text;
    mjs_setName(Opaque, Text) -> c_int;
    mj_deleteModel(Opaque);
    mj_id2name(Opaque, c_int, c_int) -> Text;
    mj_name2id(Opaque, c_int, Text) -> c_int;
    mj_makeData(Opaque) -> Opaque;
    mj_deleteData(Opaque);
    mj_forward(Opaque, Opaque);
}

/// MuJoCo in this process.
pub(super) struct MuJoCo {
    /// Absolute, as it was opened.
    pub(super) path: PathBuf,
    pub(super) version: c_int,
    pub(super) layout: &'static Layout,
    pub(super) call: Functions,
    /// Keeps the code loaded.
    _library: Library,
}

impl MuJoCo {
    /// Opens the library at `path`.
    ///
    /// # Errors
    /// No library, one that is not MuJoCo, or a version whose layout is not known.
    pub(super) fn open(path: &Path) -> Result<Self, DeviceError> {
        // Absolute: a bare name would be looked for among the system's libraries.
        let path = std::path::absolute(path).map_err(|e| error(format!("{}: {e}", path.display())))?;
        let shown = path.display();
        // SAFETY: the user asks for this library's code to run in this process.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(|e| error(cause(&e)))?;
        let foreign = |e: libloading::Error| error(format!("{shown} is not MuJoCo: {}", cause(&e)));
        // SAFETY: every MuJoCo has this function with this signature.
        let version = unsafe {
            let version = library.get::<unsafe extern "C" fn() -> c_int>(b"mj_version\0").map_err(foreign)?;
            version()
        };
        let layout = layout::of(version).ok_or_else(|| {
            let (version, known) = (Version(version), layout::known());
            error(format!("{shown} is MuJoCo {version}; this program knows {known}"))
        })?;
        // SAFETY: its version is one of those for which the signatures were taken.
        let call = unsafe { Functions::load(&library) }.map_err(foreign)?;
        // SAFETY: these variables are pointers to functions of this signature, or null.
        unsafe {
            answer(&library, b"mju_user_error\0", give_up).map_err(foreign)?;
            answer(&library, b"mju_user_warning\0", warn).map_err(foreign)?;
        }
        Ok(Self { path, version, layout, call, _library: library })
    }
}

/// The loader's own words, path included; libloading's `Display` leaves them to the source.
fn cause(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Puts `handler` where MuJoCo looks for one, unless somebody in this process answers already.
///
/// # Safety
/// `variable` must be a `void (*)(const char*)` of `library`.
unsafe fn answer(library: &Library, variable: &[u8], handler: Handler) -> Result<(), libloading::Error> {
    // SAFETY: the caller's promise; MuJoCo reads the variable only while one of its functions runs.
    unsafe {
        let place = *library.get::<*mut Option<Handler>>(variable)?;
        (*place).get_or_insert(handler);
    }
    Ok(())
}

/// MuJoCo cannot go on after an error, and must not return from here: its own handler would end the process, too, but
/// writes to the working directory and to standard output.
unsafe extern "C" fn give_up(text: Text) {
    // SAFETY: MuJoCo hands over a zero-terminated text.
    say("error", unsafe { text_of(text) }.as_str());
    std::process::exit(2)
}

unsafe extern "C" fn warn(text: Text) {
    // SAFETY: as above.
    say("warning", unsafe { text_of(text) }.as_str());
}

fn say(what: &str, text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "MuJoCo {what}: {text}");
}

/// A copy of a text of MuJoCo's; empty when there is none.
///
/// # Safety
/// `text` must be null or zero-terminated.
pub(super) unsafe fn text_of(text: Text) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
