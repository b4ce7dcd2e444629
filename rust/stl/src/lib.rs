//! Signal Temporal Logic: parse, evaluate offline, monitor online
