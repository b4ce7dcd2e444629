//! Time: the clocks that the loop sleeps on, the scheduling class that it runs in, and how well it did.

pub mod bare;
pub mod clock;
pub mod compare;
pub mod doctor;
pub mod host;
pub mod measurement;
pub mod sched;
pub mod stats;
pub mod stress;
pub mod summary;
pub mod usage;
