//! Where MuJoCo's structures keep what has no accessor, by version.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::layouts::LAYOUTS;

/// Where a structure has a field of type `T`.
pub(super) struct Field<T>(usize, PhantomData<fn() -> T>);

impl<T: Copy> Field<T> {
    pub(super) const fn at(offset: usize) -> Self {
        Self(offset, PhantomData)
    }

    /// # Safety
    /// `structure` must be the address of a live structure with such a field.
    pub(super) unsafe fn read(&self, structure: NonNull<c_void>) -> T {
        // SAFETY: the caller's promise; a field is aligned as its type asks.
        unsafe { structure.byte_add(self.0).cast::<T>().read() }
    }
}

/// Fields and numbers of the versions that agree in all of them. Names are MuJoCo's.
pub(super) struct Layout {
    /// As `mj_version()` says them.
    pub(super) versions: &'static [c_int],

    // mjModel
    pub(super) nq: Field<i64>,
    pub(super) nv: Field<i64>,
    pub(super) nu: Field<i64>,
    pub(super) nactuator: Field<i64>,
    pub(super) nbody: Field<i64>,
    pub(super) njnt: Field<i64>,
    pub(super) nsensordata: Field<i64>,
    pub(super) timestep: Field<f64>,
    pub(super) body_rootid: Field<*mut c_int>,
    pub(super) jnt_type: Field<*mut c_int>,
    pub(super) jnt_qposadr: Field<*mut c_int>,
    pub(super) jnt_dofadr: Field<*mut c_int>,
    pub(super) jnt_bodyid: Field<*mut c_int>,
    pub(super) actuator_trntype: Field<*mut c_int>,
    pub(super) actuator_dyntype: Field<*mut c_int>,
    pub(super) actuator_gaintype: Field<*mut c_int>,
    pub(super) actuator_biastype: Field<*mut c_int>,
    pub(super) actuator_ctrladr: Field<*mut c_int>,
    pub(super) actuator_outadr: Field<*mut c_int>,
    pub(super) actuator_trnid: Field<*mut c_int>,
    pub(super) actuator_gainprm: Field<*mut f64>,
    pub(super) actuator_biasprm: Field<*mut f64>,
    pub(super) actuator_delay: Field<*mut f64>,
    pub(super) actuator_forcelimited: Field<*mut u8>,
    pub(super) actuator_forcerange: Field<*mut f64>,
    pub(super) actuator_ctrllimited: Field<*mut u8>,
    pub(super) actuator_gear: Field<*mut f64>,
    pub(super) sensor_type: Field<*mut c_int>,
    pub(super) sensor_adr: Field<*mut c_int>,
    /// Length of a row of `actuator_gainprm` and `actuator_biasprm`.
    pub(super) prm_row: usize,

    // mjtSensor
    pub(super) framequat: c_int,
    pub(super) gyro: c_int,
    pub(super) accelerometer: c_int,

    // mjData
    pub(super) qpos: Field<*mut f64>,
    pub(super) qvel: Field<*mut f64>,
    pub(super) ctrl: Field<*mut f64>,
    pub(super) qfrc_actuator: Field<*mut f64>,
    pub(super) sensordata: Field<*mut f64>,
    pub(super) xpos: Field<*mut f64>,
    pub(super) xquat: Field<*mut f64>,
    /// Offsets of the counters of warnings about a state beyond repair.
    pub(super) warnings: [usize; 4],
}

/// The layout of a version, if it is known.
pub(super) fn of(version: c_int) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| layout.versions.contains(&version))
}

/// The versions whose layout is known, as text.
pub(super) fn known() -> String {
    let mut versions: Vec<_> = LAYOUTS.iter().flat_map(|layout| layout.versions).collect();
    versions.sort();
    versions.iter().map(|&&version| Version(version).to_string()).collect::<Vec<_>>().join(", ")
}

/// `mj_version()` as people write it: 3017000 is 3.17.0.
pub(super) struct Version(pub(super) c_int);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(version) = self;
        write!(f, "{}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000)
    }
}

// Numbers that have been the same in every version; `layouts.py` refuses headers that say otherwise.
/// `mjOBJ_BODY`.
pub(super) const BODY: c_int = 1;
/// `mjOBJ_JOINT`.
pub(super) const JOINT: c_int = 3;
/// `mjOBJ_ACTUATOR`.
pub(super) const ACTUATOR: c_int = 19;
/// `mjOBJ_SENSOR`.
pub(super) const SENSOR: c_int = 20;
/// `mjJNT_FREE`.
pub(super) const FREE: c_int = 0;
/// `mjJNT_SLIDE`.
pub(super) const SLIDE: c_int = 2;
/// `mjJNT_HINGE`.
pub(super) const HINGE: c_int = 3;
/// `mjTRN_JOINT`.
pub(super) const ON_JOINT: c_int = 0;
/// `mjDYN_NONE`.
pub(super) const NO_DYNAMICS: c_int = 0;
/// `mjGAIN_FIXED`.
pub(super) const FIXED_GAIN: c_int = 0;
/// `mjBIAS_NONE`.
pub(super) const NO_BIAS: c_int = 0;
/// `mjBIAS_AFFINE`.
pub(super) const AFFINE_BIAS: c_int = 1;

/// The `mjsElement` of a specification, body or frame: their first field.
///
/// # Safety
/// `of` must be one of these, alive.
pub(super) unsafe fn element(of: NonNull<c_void>) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { Field::<*mut c_void>::at(0).read(of) }
}
