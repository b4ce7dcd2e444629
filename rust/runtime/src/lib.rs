//! The real-time loop between a policy and the motors
