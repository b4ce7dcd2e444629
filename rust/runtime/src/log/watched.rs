//! Which monitors a verdict's number means: those of the bundle that had the robot then.

use super::header::MonitorHeader;
use super::{Log, LogError};
use crate::safety::Reason;
use crate::safety::monitors::MAX_MONITORS;

/// The monitors of one bundle, for as long as it had the robot.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    /// Name of the bundle.
    pub bundle: String,
    /// Its first tick.
    pub from: u64,
    /// The first tick of the next one.
    pub until: Option<u64>,
    /// Its monitors, in the order of `Verdict.monitor`.
    pub monitors: Vec<MonitorHeader>,
}

impl Log {
    /// The monitors of each bundle that had the robot, in order; at least those of the header.
    ///
    /// # Errors
    /// A message of the log that its topic cannot hold.
    pub fn watched(&self) -> Result<Vec<Watched>, LogError> {
        let header = self.header();
        let (bundle, monitors) = (header.bundle.clone(), header.monitors.clone());
        let mut all = vec![Watched { bundle, from: 0, until: None, monitors }];
        let mut offers = self.bundles().collect::<Result<Vec<_>, _>>()?;
        for event in self.events() {
            let event = event?.value;
            if event.reason != Reason::BundleSwitched {
                continue;
            }
            // A newer offer takes the place of one that waits, so the newest is the one that took over, and none takes over
            // twice. A log that lost it does not know what watches from here on.
            let later = offers.iter().position(|offer| offer.value.tick > event.tick).unwrap_or(offers.len());
            let offer = offers.drain(..later).next_back().map(|offer| offer.value.bundle).unwrap_or_default();
            if let Some(last) = all.last_mut() {
                last.until = Some(event.tick);
            }
            let (bundle, mut monitors) = (offer.name, offer.monitors);
            monitors.truncate(MAX_MONITORS);
            all.push(Watched { bundle, from: event.tick, until: None, monitors });
        }
        Ok(all)
    }
}

impl Watched {
    /// Whether `tick` was one of this bundle's.
    pub fn holds(&self, tick: u64) -> bool {
        tick >= self.from && self.until.is_none_or(|until| tick < until)
    }

    /// The names of the monitors at `tick`.
    pub fn names_at(all: &[Self], tick: u64) -> Vec<String> {
        let watched = all.iter().find(|watched| watched.holds(tick));
        watched
            .into_iter()
            .flat_map(|watched| &watched.monitors)
            .map(|monitor| monitor.name.clone())
            .collect()
    }
}
