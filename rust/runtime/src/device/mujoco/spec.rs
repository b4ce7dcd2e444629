//! A model being put together: parsed, joined with a scene, compiled.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::layout::{BODY, element};
use super::library::{MuJoCo, Opaque, Text, text_of};
use super::model::Model;
use crate::device::DeviceError;
use crate::device::sim::error;

/// Room for MuJoCo's account of what is wrong with a text.
const ERROR: usize = 1024;

/// Keeps the scene's joints and shapes apart from the robot's; its bodies keep their names.
const PREFIX: &CStr = c"scene/";

/// `mj_parseXML`, `mj_parseXMLString`.
type Parser = unsafe extern "C" fn(Text, *const c_void, *mut c_char, c_int) -> Opaque;

/// An `mjSpec`.
pub(super) struct Spec {
    mujoco: Arc<MuJoCo>,
    spec: NonNull<c_void>,
    /// Named in errors.
    source: String,
}

impl Spec {
    /// Reads the robot's MJCF file.
    pub(super) fn of_robot(mujoco: &Arc<MuJoCo>, path: &Path) -> Result<Self, DeviceError> {
        let source = path.display().to_string();
        Self::parse(mujoco, mujoco.call.mj_parseXML, path.as_os_str().as_encoded_bytes(), source)
    }

    /// Reads the MJCF text of a scene.
    pub(super) fn of_scene(mujoco: &Arc<MuJoCo>, xml: &str) -> Result<Self, DeviceError> {
        Self::parse(mujoco, mujoco.call.mj_parseXMLString, xml.as_bytes(), "scene".into())
    }

    fn parse(mujoco: &Arc<MuJoCo>, parser: Parser, from: &[u8], source: String) -> Result<Self, DeviceError> {
        let from =
            CString::new(from).map_err(|e| error(format!("{source}: byte {} is zero", e.nul_position())))?;
        let mut what = [0; ERROR];
        // SAFETY: `from` ends with a zero, `what` is as long as said, and null means files from the disk.
        let spec = unsafe { parser(from.as_ptr(), ptr::null(), what.as_mut_ptr(), ERROR as c_int) };
        match NonNull::new(spec) {
            Some(spec) => Ok(Self { mujoco: Arc::clone(mujoco), spec, source }),
            None => {
                // SAFETY: the parser ends its account with a zero.
                let what = unsafe { text_of(what.as_ptr()) };
                Err(error(format!("{source}: {}", what.trim_end())))
            }
        }
    }

    /// Sets the bodies of `scene` into this world, and returns their names.
    pub(super) fn attach(&mut self, scene: &Self) -> Result<Vec<String>, DeviceError> {
        let names = scene.bodies();
        for name in &names {
            if name.is_empty() {
                return Err(error("scene: a body that stands in the world has no name".into()));
            }
            if self.body(name).is_some() {
                return Err(error(format!("scene: the robot has a body '{name}' already")));
            }
        }
        let call = &self.mujoco.call;
        let wrong = || self.wrong("scene");
        // SAFETY: both specifications live, and so do their worlds; a body that is found belongs to this one.
        unsafe {
            let world = (call.mjs_findBody)(self.spec.as_ptr(), c"world".as_ptr());
            let frame = NonNull::new((call.mjs_addFrame)(world, ptr::null_mut())).ok_or_else(wrong)?;
            let (frame, child) = (element(frame), element(scene.spec));
            if (call.mjs_attach)(frame, child, PREFIX.as_ptr(), c"".as_ptr()).is_null() {
                return Err(wrong());
            }
            for name in &names {
                let body = self.body(&(PREFIX.to_string_lossy() + name.as_str())).ok_or_else(wrong)?;
                let name = CString::new(name.as_str()).unwrap_or_default();
                if (call.mjs_setName)(element(body), name.as_ptr()) != 0 {
                    return Err(wrong());
                }
            }
        }
        Ok(names)
    }

    /// The finished model.
    pub(super) fn compile(&self) -> Result<Model, DeviceError> {
        // SAFETY: the specification lives; null means files from the disk.
        let model = unsafe { (self.mujoco.call.mj_compile)(self.spec.as_ptr(), ptr::null()) };
        let model = NonNull::new(model).ok_or_else(|| self.wrong(&self.source))?;
        // SAFETY: this library has just made it, and nobody else knows it.
        Ok(unsafe { Model::new(&self.mujoco, model) })
    }

    /// Names of the bodies that stand directly in the world.
    fn bodies(&self) -> Vec<String> {
        let call = &self.mujoco.call;
        let mut names = Vec::new();
        // SAFETY: the specification lives, and so do its world, the elements in it and their names.
        unsafe {
            let world = (call.mjs_findBody)(self.spec.as_ptr(), c"world".as_ptr());
            let mut body = (call.mjs_firstChild)(world, BODY, 0);
            while !body.is_null() {
                names.push(text_of((call.mjs_getString)((call.mjs_getName)(body))));
                body = (call.mjs_nextChild)(world, body, 0);
            }
        }
        names
    }

    fn body(&self, name: &str) -> Option<NonNull<c_void>> {
        let name = CString::new(name).ok()?;
        // SAFETY: the specification lives.
        NonNull::new(unsafe { (self.mujoco.call.mjs_findBody)(self.spec.as_ptr(), name.as_ptr()) })
    }

    /// What MuJoCo says went wrong.
    fn wrong(&self, source: &str) -> DeviceError {
        // SAFETY: the specification lives, and owns the text.
        let what = unsafe { text_of((self.mujoco.call.mjs_getError)(self.spec.as_ptr())) };
        error(format!("{source}: {}", what.trim_end()))
    }
}

impl Drop for Spec {
    fn drop(&mut self) {
        // SAFETY: this library made it, and nothing of ours points into it any more.
        unsafe { (self.mujoco.call.mj_deleteSpec)(self.spec.as_ptr()) }
    }
}
