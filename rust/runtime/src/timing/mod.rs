//! Clock, scheduling, statistics.
