//! Where the time of a tick goes.

use crate::log::entry::Stage;
use crate::timing::clock::Clock;

/// Adds the time since the last lap to a stage.
pub(super) struct Stopwatch<'a> {
    clock: &'a dyn Clock,
    start_ns: i64,
    lap_ns: i64,
    pub(super) stage_ns: [u32; Stage::COUNT],
}

impl<'a> Stopwatch<'a> {
    /// Starts now; the way here from `deadline_ns` is the wake lateness.
    pub(super) fn start(clock: &'a dyn Clock, deadline_ns: i64) -> Self {
        let now = clock.now_ns();
        let mut stage_ns = [0; Stage::COUNT];
        stage_ns[Stage::Wake as usize] = clip(now - deadline_ns);
        Self { clock, start_ns: now, lap_ns: now, stage_ns }
    }

    /// The time since the last lap belongs to `stage`.
    pub(super) fn lap(&mut self, stage: Stage) {
        let now = self.clock.now_ns();
        let sum = &mut self.stage_ns[stage as usize];
        *sum = sum.saturating_add(clip(now - self.lap_ns));
        self.lap_ns = now;
        self.stage_ns[Stage::Total as usize] = clip(now - self.start_ns);
    }
}

fn clip(ns: i64) -> u32 {
    ns.clamp(0, i64::from(u32::MAX)) as u32
}
