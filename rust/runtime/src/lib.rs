//! The real-time loop between a policy and the motors

pub mod action;
pub mod cli;
pub mod config;
pub mod control;
pub mod device;
pub mod kinematics;
pub mod log;
pub mod observe;
pub mod report;
pub mod robot;
pub mod safety;
pub mod state;
pub mod timing;
