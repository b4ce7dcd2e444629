//! The control thread's end of the recorder.
//!
//! [`Recorder::push`] copies an entry into a ring of bytes: no allocation, no lock, no system call. A full ring drops
//! the newest entry and counts it; the gap also shows in the sequence numbers of the topic. A recorder never fails the
//! run: where the file cannot be written it is dead, says why in its [`RecordStatus`], and drops everything.
//!
//! On the virtual clock there is no deadline to keep, so a full ring waits for the writer instead: equal runs give equal
//! files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rtrb::{Consumer, Producer, RingBuffer};
use serde::Serialize;

use super::encode::{Bytes, InUse, encode};
use super::entry::Entry;
use super::header::LogHeader;
use super::schema::Topic;
use super::writer;
use crate::state::{MAX_OBJECTS, MAX_USER};
use crate::timing::clock::monotonic_to_utc_ns;
use crate::timing::sched;
use crate::timing::summary::StatsSummary;

/// Size of the ring: about 5 s of a 29-joint robot at 500 Hz.
const RING: usize = 8 << 20;
/// Largest entry; a longer observation or chunk is dropped and counted.
const LARGEST: usize = 256 << 10;
/// Bytes in front of each message in the ring: length u32, topic u8, sequence u32, log time u64, publish time u64.
pub(super) const PREFIX: usize = 25;

/// How a recording stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecordStatus {
    /// The file; absent when nothing was to be recorded.
    pub path: Option<PathBuf>,
    /// Why recording stopped, if it did.
    pub error: Option<String>,
    /// Entries that reached the file.
    pub written: u64,
    /// Size of the file so far.
    pub bytes: u64,
    /// Entries that were pushed but will not be in the file, for each topic that lost any: the ring was full, the entry
    /// too large, or recording had stopped.
    pub dropped: Vec<(Topic, u64)>,
    /// Entries that the ring took but the file never got because recording stopped; known after the end.
    pub lost: u64,
}

impl RecordStatus {
    /// Whether every entry is in the file.
    pub fn complete(&self) -> bool {
        self.error.is_none() && self.dropped.is_empty() && self.lost == 0
    }
}

/// What the two threads share beside the ring.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) dead: AtomicBool,
    pub(super) dropped: [AtomicU64; Topic::COUNT],
    pub(super) written: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) error: Mutex<Option<String>>,
    pub(super) summary: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn fail(&self, error: String) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.dead.store(true, Relaxed);
    }

    pub(super) fn drops(&self) -> impl Iterator<Item = (Topic, u64)> {
        Topic::ALL.into_iter().map(|topic| (topic, self.dropped[topic as usize].load(Relaxed)))
    }
}

/// Records a run, or nothing at all.
#[derive(Debug)]
pub struct Recorder {
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    path: PathBuf,
    /// Absent once the recording has ended; its absence ends the writer.
    ring: Option<Ring>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Records nothing.
    pub fn off() -> Self {
        Self { live: None }
    }

    /// Starts to record into `path`, which is overwritten. Allocates and touches the ring, starts the writer thread,
    /// which inherits the caller's core: call this before [`enter`](crate::timing::sched::enter).
    ///
    /// On the virtual clock, log time starts at `SOURCE_DATE_EPOCH` (seconds), or 0 where that is not set.
    pub fn start(path: &Path, header: LogHeader) -> Self {
        let shared = Arc::new(Shared::default());
        let virtual_clock = header.run.virtual_clock;
        let epoch =
            std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        let offset = if virtual_clock { epoch.saturating_mul(1_000_000_000) } else { monotonic_to_utc_ns() };
        let header = LogHeader { utc_offset_ns: offset, ..header };
        let (ring, consumer) = ring(RING, &header, &shared);
        let (for_writer, at) = (Arc::clone(&shared), path.to_owned());
        let writer = std::thread::Builder::new()
            .name("cadenza-log".into())
            .spawn(move || {
                sched::unpin();
                writer::run(&at, &header, consumer, &for_writer);
            })
            .inspect_err(|error| shared.fail(format!("writer thread: {error}")))
            .ok();
        Self { live: Some(Live { path: path.to_owned(), ring: Some(ring), shared, writer }) }
    }

    /// Takes one entry. On the control thread: no allocation, no lock, no system call (but waiting on a full ring on the
    /// virtual clock).
    pub fn push(&mut self, entry: Entry<'_>) {
        if let Some(Live { ring: Some(ring), shared, .. }) = &mut self.live {
            ring.push(&entry, shared);
        }
    }

    /// The time of what is pushed from now on, until the next state or the next call: when the loop received the newest
    /// measurement, and when that was made.
    pub fn stamp(&mut self, read_ns: i64, sensor_ns: i64) {
        if let Some(Live { ring: Some(ring), .. }) = &mut self.live {
            (ring.read_ns, ring.sensor_ns) = (read_ns, sensor_ns);
        }
    }

    /// Whether recording has stopped because of an error.
    pub fn failed(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.shared.dead.load(Relaxed))
    }

    /// How the recording stands. Allocates: not for the control thread.
    pub fn status(&self) -> RecordStatus {
        let Some(live) = &self.live else { return RecordStatus::default() };
        RecordStatus {
            path: Some(live.path.clone()),
            error: live.shared.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            written: live.shared.written.load(Relaxed),
            bytes: live.shared.bytes.load(Relaxed),
            dropped: live.shared.drops().filter(|(_, n)| *n > 0).collect(),
            lost: 0,
        }
    }

    /// Ends the recording: writes what is in the ring, the statistics and the index, and closes the file.
    pub fn finish(mut self, summary: &StatsSummary) -> RecordStatus {
        let Some(live) = &mut self.live else { return RecordStatus::default() };
        match serde_json::to_string(summary) {
            Ok(json) => *live.shared.summary.lock().unwrap_or_else(PoisonError::into_inner) = Some(json),
            Err(error) => live.shared.fail(format!("statistics: {error}")),
        }
        let accepted = live.end();
        let status = self.status();
        RecordStatus { lost: accepted - status.written.min(accepted), ..status }
    }
}

impl Live {
    /// Lets the writer come to its end; returns how many entries the ring took.
    fn end(&mut self) -> u64 {
        let accepted = self.ring.take().map_or(0, |ring| ring.accepted);
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            self.shared.fail("the writer thread panicked".into());
        }
        accepted
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

/// The producing end of the ring.
struct Ring {
    producer: Producer<u8>,
    scratch: Bytes,
    in_use: InUse,
    sequence: [u32; Topic::COUNT],
    accepted: u64,
    /// Loop clock → log time.
    offset_ns: i64,
    /// Times of the newest state; entries carry a tick but no time.
    read_ns: i64,
    sensor_ns: i64,
    wait: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("accepted", &self.accepted).finish_non_exhaustive()
    }
}

fn ring(capacity: usize, header: &LogHeader, shared: &Shared) -> (Ring, Consumer<u8>) {
    let (mut producer, mut consumer) = RingBuffer::new(capacity);
    // Touch every page, so that the first lap of the ring does not fault.
    if producer.push_entire_slice(&vec![0xff; capacity]).is_err()
        || consumer.read_chunk(capacity).map(|chunk| chunk.commit_all()).is_err()
    {
        shared.fail(format!("ring of {capacity} bytes"));
    }
    let ring = Ring {
        producer,
        scratch: Bytes::with_capacity(LARGEST),
        in_use: InUse {
            user: header.commands.len().min(MAX_USER),
            objects: header.objects.len().min(MAX_OBJECTS),
        },
        sequence: [0; Topic::COUNT],
        accepted: 0,
        offset_ns: header.utc_offset_ns,
        read_ns: 0,
        sensor_ns: 0,
        wait: header.run.virtual_clock,
    };
    (ring, consumer)
}

impl Ring {
    fn push(&mut self, entry: &Entry<'_>, shared: &Shared) {
        if let Entry::State(state) = entry {
            (self.read_ns, self.sensor_ns) = (state.t_read_ns, state.t_sensor_ns);
        }
        let topic = Topic::of(entry);
        let sequence = self.sequence[topic as usize];
        self.sequence[topic as usize] = sequence.wrapping_add(1);
        if self.write(entry, topic, sequence, shared).is_some() {
            self.accepted += 1;
        } else {
            shared.dropped[topic as usize].fetch_add(1, Relaxed);
        }
    }

    fn write(&mut self, entry: &Entry<'_>, topic: Topic, sequence: u32, shared: &Shared) -> Option<()> {
        if shared.dead.load(Relaxed) {
            return None;
        }
        let time = |ns: i64| u64::try_from(ns.saturating_add(self.offset_ns)).unwrap_or(0);
        let mut prefix = [0; PREFIX];
        prefix[4] = topic as u8;
        prefix[5..9].copy_from_slice(&sequence.to_le_bytes());
        prefix[9..17].copy_from_slice(&time(self.read_ns).to_le_bytes());
        prefix[17..25].copy_from_slice(&time(self.sensor_ns).to_le_bytes());
        self.scratch.clear();
        self.scratch.raw(&prefix);
        encode(entry, self.in_use, &mut self.scratch);
        let body = u32::try_from(self.scratch.get()?.len() - PREFIX).ok()?;
        self.scratch.set(0, &body.to_le_bytes());
        let record = self.scratch.get()?;
        while self.wait && self.producer.slots() < record.len() && !shared.dead.load(Relaxed) {
            std::thread::sleep(Duration::from_micros(100));
        }
        self.producer.push_entire_slice(record).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::read::Log;
    use crate::state::State;

    fn state(tick: u64) -> State {
        State { tick, t_read_ns: tick as i64 * 1000, ..State::new(2) }
    }

    #[test]
    fn a_full_ring_drops_the_newest_and_counts() {
        let shared = Shared::default();
        let header = LogHeader::default();
        let (mut ring, consumer) = ring(4096, &header, &shared);
        let mut took = 0;
        for tick in 0..100 {
            ring.push(&Entry::State(&state(tick)), &shared);
            took = took.max(ring.accepted);
        }
        assert!(took > 3 && took < 50, "{took}");
        assert_eq!(shared.drops().map(|(_, n)| n).sum::<u64>(), 100 - took);
        // A small entry still fits where a state does not, and its own sequence has no gap.
        ring.push(&Entry::Obs { tick: 99, values: &[] }, &shared);
        drop(ring);

        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("full.mcap");
        writer::run(&path, &header, consumer, &shared);
        let log = Log::open(&path).expect("own file");
        let ticks: Vec<u64> = log.states().map(|s| s.expect("own state").value.tick).collect();
        assert_eq!(ticks, (0..took).collect::<Vec<_>>());
        assert_eq!(log.dropped(), &[(Topic::State, 100 - took)]);
    }

    #[test]
    fn a_gap_in_the_middle_has_its_tick_range() {
        let shared = Shared::default();
        let (mut ring, mut consumer) = ring(4096, &LogHeader::default(), &shared);
        let mut bytes = Vec::new();
        for tick in 0..60 {
            ring.push(&Entry::State(&state(tick)), &shared);
            if tick == 30 {
                let chunk = consumer.read_chunk(consumer.slots()).expect("slots");
                let (a, b) = chunk.as_slices();
                bytes.extend_from_slice(a);
                bytes.extend_from_slice(b);
                chunk.commit_all();
            }
        }
        let chunk = consumer.read_chunk(consumer.slots()).expect("slots");
        let (a, b) = chunk.as_slices();
        bytes.extend([a, b].concat());
        let (mut refill, all) = RingBuffer::new(bytes.len());
        refill.push_entire_slice(&bytes).expect("room");
        drop(refill);
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("gap.mcap");
        writer::run(&path, &LogHeader::default(), all, &shared);
        let log = Log::open(&path).expect("own file");
        let gaps = log.gaps().expect("ticks decode");
        let gap = gaps.iter().find(|gap| gap.topic == Topic::State).expect("one gap");
        let ticks: Vec<u64> = log.states().map(|s| s.expect("own state").value.tick).collect();
        assert_eq!(gap.lost, gap.before - gap.after - 1);
        assert_eq!(gap.before, 31);
        assert!(ticks.contains(&gap.after) && ticks.contains(&gap.before));
        assert!((gap.after + 1..gap.before).all(|tick| !ticks.contains(&tick)));
    }

    #[test]
    fn an_entry_larger_than_the_limit_is_dropped() {
        let shared = Shared::default();
        let (mut ring, _consumer) = ring(1 << 20, &LogHeader::default(), &shared);
        ring.push(&Entry::Obs { tick: 0, values: &vec![0.0; LARGEST] }, &shared);
        assert_eq!(shared.drops().find(|(topic, _)| *topic == Topic::Obs), Some((Topic::Obs, 1)));
        assert_eq!(ring.accepted, 0);
    }
}
