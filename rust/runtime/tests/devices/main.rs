//! Devices that need no hardware: null, replay, sim (with a physics of its own) and injected faults.

mod fault;
mod null;
mod replay;
mod sim;
mod support;
