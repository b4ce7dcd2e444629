//! The whole loop, from the device's state to its command, driven tick by tick.

#[path = "../rig/mod.rs"]
mod rig;

mod adversarial;
mod arming;
mod fallback;
mod levels;
mod motion;
mod permuted;
mod reasons;
mod replay;
mod run;
mod sequences;
mod start;
mod switching;
