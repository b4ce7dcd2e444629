//! Open a policy bundle and run its networks without allocating.
//!
//! A *bundle* (`policy.cadenza`) is one file that says everything a robot needs to know about a policy: its networks
//! (ONNX), what their inputs and outputs mean, gains, rates, monitor formulas, and recorded vectors that prove that the
//! engine computes what was computed in training.
//!
//! # Contract
//! - [`Bundle::open`] reads the file once and refuses every file that [`write_bundle`] would not have written from the
//!   same content, byte for byte. It reads no other file, no environment variable and no network. The hashes protect
//!   against accidents; they do not authenticate an author.
//! - [`Policy::load`] allocates all memory, chooses the instruction set and refuses what it cannot run, naming the
//!   operator, tensor or size. Its time and memory are bounded by [`Limits`], whatever the file holds.
//! - [`Policy::reset`], [`Policy::act`], [`Policy::begin`] and [`Policy::next`] allocate nothing, take no lock, make no
//!   system call, start no thread and do not touch the floating-point modes. They take bounded time.
//! - When one of them fails, the caller's output and the recurrent state are as they were. The error is `Copy`.
//! - No input panics. NaN and infinity are refused on the way in and on the way out.
//! - After `reset`, equal inputs give equal bits, on one machine and instruction set ([`Policy::isa`]).
//! - [`Policy::verify`] replays the recorded vectors. A runtime should not move a robot before it has passed.
//!
//! A policy is `Send` and not meant to be shared: one thread steps it. The crate knows nothing of robots, time or
//! temporal logic: joints are names, and `spec.stl` is text.
//!
//! # Example
//! ```
//! use cadenza_policy::{Bundle, Manifest, Options, Policy, write_bundle};
//!
//! # let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/policy/mlp_tanh.onnx");
//! # let onnx = std::fs::read(golden)?;
//! // The exporter's side: a manifest, networks, one file.
//! let manifest = Manifest::from_json(br#"{
//!     "format": 1, "name": "hover", "robot": { "name": "bench", "model_sha256": null },
//!     "rates": { "policy_dt": 0.02, "control_dt": 0.002, "physics_dt": null },
//!     "joints": [
//!         { "name": "a", "default": 0, "kp": 20, "kd": 1, "position": null, "velocity_max": 9, "effort_max": null },
//!         { "name": "b", "default": 0, "kp": 20, "kd": 1, "position": null, "velocity_max": 9, "effort_max": null },
//!         { "name": "c", "default": 0, "kp": 20, "kd": 1, "position": null, "velocity_max": 9, "effort_max": null },
//!         { "name": "d", "default": 0, "kp": 20, "kd": 1, "position": null, "velocity_max": 9, "effort_max": null },
//!         { "name": "e", "default": 0, "kp": 20, "kd": 1, "position": null, "velocity_max": 9, "effort_max": null },
//!         { "name": "f", "default": 0, "kp": 20, "kd": 1, "position": null, "velocity_max": 9, "effort_max": null } ],
//!     "observation": { "size": 16, "interleave": "term",
//!                      "terms": [ { "name": "state", "source": "x-lab", "size": 16 } ] },
//!     "normalizer": { "where": "none" },
//!     "action": { "kind": "position", "joints": [ "a", "b", "c", "d", "e", "f" ], "scale": { "*": 0.25 }, "offset": "default" },
//!     "chunk": { "mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace" },
//!     "functions": { "step": { "file": "step.onnx", "batch": 1,
//!                              "inputs": { "obs": "observation" }, "outputs": { "action": "action" } } },
//!     "in_graph": { "normalize": false, "squash": false, "action_scale": false, "action_offset": false },
//!     "weights": "f32", "provenance": {}
//! }"#)?;
//! let file = write_bundle(manifest, &[("step.onnx".into(), onnx)])?;
//!
//! // The robot's side.
//! let bundle = Bundle::from_bytes(file)?;
//! let mut policy = Policy::load(&bundle, &Options::default())?;
//! let mut action = [0.0; 6];
//! policy.reset();
//! policy.act(&[0.1; 16], &[], &mut action)?;
//! assert!(action.iter().all(|a| a.is_finite()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod archive;
mod binding;
pub mod bundle;
mod eval;
mod finite;
mod fuse;
mod graph;
mod int8;
mod isa;
mod kernels;
mod layout;
pub mod limits;
mod lower;
pub mod manifest;
mod memory;
mod onnx;
mod op;
pub mod parity;
mod plan;
mod policy;
mod recurrent;
mod session;
mod tensor;
mod text;
mod tiles;
pub mod vectors;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use bundle::{Bundle, BundleError, write_bundle};
pub use graph::GraphError;
pub use isa::Isa;
pub use limits::Limits;
pub use lower::operators;
pub use manifest::{Manifest, ManifestError};
pub use onnx::OnnxError;
pub use parity::{ParityError, ParityReport};
pub use policy::{LoadError, Options, Policy};
pub use session::{ActError, Footprint, Port, PortInfo, Session};
pub use vectors::{Recorded, Vectors};
