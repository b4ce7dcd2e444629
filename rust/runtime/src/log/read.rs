//! Reading a log, whole or cut short.
//!
//! A killed run leaves a file without an end; every complete chunk of it is read and [`Log::damage`] says what is
//! missing. A log comes from outside: whatever its bytes are, the answer is a log or a [`LogError`], never a panic.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::Path;

use mcap::read::{ChunkReader, parse_record};
use mcap::records::{MessageHeader, Record, op};

use super::decode::Decode;
use super::entry::{BundleEntry, Request, TickEntry, VerdictEntry};
use super::frame::{Records, is_read};
use super::header::{DROPS, LogHeader, RUN, STATS};
use super::schema::Topic;
use crate::safety::monitors::MAX_MONITORS;
use crate::safety::{Fault, Reason};
use crate::state::{Command, MAX_JOINTS, State};
use crate::timing::summary::StatsSummary;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// Not an MCAP file.
    #[error("not an MCAP file: {0}")]
    NotMcap(String),
    /// No readable header: not one of our logs, or cut off within its first kilobytes.
    #[error("no header of a run: {0}")]
    NoHeader(String),
    /// A message that its topic cannot hold.
    #[error("{topic} number {sequence}: {what}")]
    Message {
        /// Topic.
        topic: &'static str,
        /// Sequence number of the message.
        sequence: u32,
        /// What is wrong.
        what: String,
    },
    /// The chart library failed.
    #[error("chart: {0}")]
    Chart(String),
}

/// An observation.
#[derive(Clone, Debug, PartialEq)]
pub struct ObsRecord {
    /// Control tick.
    pub tick: u64,
    /// What the policy saw.
    pub values: Vec<f32>,
}

/// A chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkRecord {
    /// Control tick at which it was accepted.
    pub tick: u64,
    /// Number of the chunk.
    pub id: u64,
    /// Policy step of its observation, counted from arming.
    pub step: u64,
    /// Leading rows that repeat committed actions.
    pub prefix: u32,
    /// Rows × actions, graph units.
    pub values: Vec<f32>,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestRecord {
    /// Control tick that obeyed it.
    pub tick: u64,
    /// What was asked.
    pub request: Request,
}

/// A bundle that took, or was to take, another's place.
#[derive(Clone, Debug, PartialEq)]
pub struct BundleRecord {
    /// Control tick at which it was asked for.
    pub tick: u64,
    /// The bundle.
    pub bundle: BundleEntry,
}

/// A message with its stamps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logged<T> {
    /// Number within its topic, counting dropped ones.
    pub sequence: u32,
    /// When the loop received the state of this tick, ns UTC.
    pub log_ns: u64,
    /// When that state was measured, ns UTC.
    pub sensor_ns: u64,
    /// The message.
    pub value: T,
}

/// Messages that were dropped between two that were not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Topic.
    pub topic: Topic,
    /// Tick of the last message before the gap.
    pub after: u64,
    /// Tick of the first message behind it.
    pub before: u64,
    /// Messages lost.
    pub lost: u64,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { topic, after, before, lost } = self;
        write!(f, "{} lacks {lost} messages between ticks {after} and {before}", topic.name())
    }
}

/// Where a message lies.
#[derive(Clone, Copy, Debug)]
struct Slot {
    sequence: u32,
    log_ns: u64,
    sensor_ns: u64,
    start: usize,
    len: usize,
}

/// A log in memory. Messages are decoded when they are asked for.
#[derive(Clone, Debug)]
pub struct Log {
    header: LogHeader,
    stats: Option<StatsSummary>,
    dropped: Vec<(Topic, u64)>,
    damage: Vec<String>,
    bytes: Vec<u8>,
    slots: [Vec<Slot>; Topic::COUNT],
}

/// The messages of one topic, in the order in which they were recorded.
#[derive(Clone, Debug)]
pub struct Messages<'a, T> {
    topic: Topic,
    bytes: &'a [u8],
    slots: std::slice::Iter<'a, Slot>,
    value: PhantomData<T>,
}

impl<T: Decode> Iterator for Messages<'_, T> {
    type Item = Result<Logged<T>, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let &Slot { sequence, log_ns, sensor_ns, start, len } = self.slots.next()?;
        let value = T::decode(&self.bytes[start..start + len]);
        Some(match value {
            Ok(value) => Ok(Logged { sequence, log_ns, sensor_ns, value }),
            Err(what) => Err(LogError::Message { topic: self.topic.name(), sequence, what }),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.slots.size_hint()
    }
}

impl<T: Decode> ExactSizeIterator for Messages<'_, T> {}

impl Log {
    /// Reads a log into memory.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let bytes =
            std::fs::read(path).map_err(|error| LogError::Io { path: path.display().to_string(), error })?;
        Self::from_bytes(&bytes)
    }

    /// Reads a log from the bytes of its file.
    pub fn from_bytes(file: &[u8]) -> Result<Self, LogError> {
        let mut scan = Scan::default();
        let records =
            Records::of_file(file).ok_or_else(|| LogError::NotMcap("it does not begin as one".into()))?;
        for record in records {
            let parsed = match record {
                // What comes after it is the end of the file.
                Ok((op::FOOTER, _)) => {
                    scan.complete = true;
                    break;
                }
                Ok((opcode, _)) if !is_read(opcode) => continue,
                Ok((opcode, body)) => parse_record(opcode, body).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_owned()),
            };
            match parsed {
                Ok(record) => scan.record(record),
                Err(error) => {
                    scan.damage.push(format!("the file breaks off: {error}"));
                    break;
                }
            }
        }
        scan.into_log()
    }

    /// What the log says before its first message.
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// Statistics of the run; absent when it was killed.
    pub fn stats(&self) -> Option<&StatsSummary> {
        self.stats.as_ref()
    }

    /// Entries that the recorder dropped, for each topic that lost any.
    pub fn dropped(&self) -> &[(Topic, u64)] {
        &self.dropped
    }

    /// What could not be read, one sentence each; empty for a whole log.
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// Number of messages of a topic.
    pub fn len(&self, topic: Topic) -> usize {
        self.slots[topic as usize].len()
    }

    /// Whether there is no message at all.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(Vec::is_empty)
    }

    /// Log times of the first and the last message, ns UTC.
    pub fn span(&self) -> Option<(u64, u64)> {
        let times = || self.slots.iter().flatten().map(|slot| slot.log_ns);
        Some((times().min()?, times().max()?))
    }

    /// `/state`
    pub fn states(&self) -> Messages<'_, State> {
        self.messages(Topic::State)
    }

    /// `/command`
    pub fn commands(&self) -> Messages<'_, Command> {
        self.messages(Topic::Command)
    }

    /// `/tick`
    pub fn ticks(&self) -> Messages<'_, TickEntry> {
        self.messages(Topic::Tick)
    }

    /// `/obs`
    pub fn obs(&self) -> Messages<'_, ObsRecord> {
        self.messages(Topic::Obs)
    }

    /// `/chunk`
    pub fn chunks(&self) -> Messages<'_, ChunkRecord> {
        self.messages(Topic::Chunk)
    }

    /// `/monitor`
    pub fn verdicts(&self) -> Messages<'_, VerdictEntry> {
        self.messages(Topic::Verdict)
    }

    /// `/event`
    pub fn events(&self) -> Messages<'_, Fault> {
        self.messages(Topic::Event)
    }

    /// `/request`
    pub fn requests(&self) -> Messages<'_, RequestRecord> {
        self.messages(Topic::Request)
    }

    /// `/bundle`
    pub fn bundles(&self) -> Messages<'_, BundleRecord> {
        self.messages(Topic::Bundle)
    }

    /// The tick at which another bundle took over first, if one did.
    pub fn switched(&self) -> Result<Option<u64>, LogError> {
        for event in self.events() {
            let event = event?.value;
            if event.reason == Reason::BundleSwitched {
                return Ok(Some(event.tick));
            }
        }
        Ok(None)
    }

    /// Runs of dropped messages in the middle of a topic, with the ticks around them. A replay must not guess these.
    pub fn gaps(&self) -> Result<Vec<Gap>, LogError> {
        let mut gaps = Vec::new();
        for topic in Topic::ALL {
            for pair in self.slots[topic as usize].windows(2) {
                let lost = u64::from(pair[1].sequence.wrapping_sub(pair[0].sequence).wrapping_sub(1));
                if lost > 0 {
                    let (after, before) = (self.tick(topic, &pair[0])?, self.tick(topic, &pair[1])?);
                    gaps.push(Gap { topic, after, before, lost });
                }
            }
        }
        Ok(gaps)
    }

    fn messages<T>(&self, topic: Topic) -> Messages<'_, T> {
        let slots = self.slots[topic as usize].iter();
        Messages { topic, bytes: &self.bytes, slots, value: PhantomData }
    }

    /// Tick of a message: field 1 of every one of them.
    fn tick(&self, topic: Topic, slot: &Slot) -> Result<u64, LogError> {
        #[derive(Clone, PartialEq, prost::Message)]
        struct AnyTick {
            #[prost(uint64, tag = "1")]
            tick: u64,
        }
        let bytes = &self.bytes[slot.start..slot.start + slot.len];
        prost::Message::decode(bytes).map(|any: AnyTick| any.tick).map_err(|error| LogError::Message {
            topic: topic.name(),
            sequence: slot.sequence,
            what: error.to_string(),
        })
    }
}

/// What has been found so far.
#[derive(Default)]
struct Scan {
    header: Option<Result<LogHeader, String>>,
    attachments: Vec<(String, String)>,
    stats: Option<StatsSummary>,
    dropped: Vec<(Topic, u64)>,
    damage: Vec<String>,
    complete: bool,
    chunks: usize,
    channels: BTreeMap<u16, Option<Topic>>,
    bytes: Vec<u8>,
    slots: [Vec<Slot>; Topic::COUNT],
}

impl Scan {
    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Chunk { header, data } => {
                self.chunks += 1;
                // A chunk counts as a whole: its checksum is only known at its end.
                let sound = Records::of_chunk(&data).try_for_each(|record| record.map(|_| ()));
                let records = sound.map_err(str::to_owned).and_then(|()| {
                    let records = ChunkReader::new(header, &data).and_then(|reader| reader.collect());
                    records.map_err(|error| error.to_string())
                });
                let records: Result<Vec<Record<'_>>, String> = records;
                match records {
                    Ok(records) => records.into_iter().for_each(|record| self.inner(record)),
                    Err(error) => self.damage.push(format!("chunk {} is lost: {error}", self.chunks)),
                }
            }
            Record::Metadata(metadata) => self.metadata(&metadata.name, &metadata.metadata),
            Record::Attachment { header, data, .. } => match String::from_utf8(data.into_owned()) {
                Ok(text) => self.attachments.push((header.name, text)),
                Err(_) => self.damage.push(format!("attachment {} is not text", header.name)),
            },
            record => self.inner(record),
        }
    }

    /// Records that may stand in a chunk or outside.
    fn inner(&mut self, record: Record<'_>) {
        match record {
            Record::Channel(channel) => {
                // Protobuf of any other making is another program's topic.
                let ours = channel.message_encoding == "protobuf";
                self.channels.insert(channel.id, Topic::from_name(&channel.topic).filter(|_| ours));
            }
            Record::Message { header, data } => self.message(header, &data),
            _ => {}
        }
    }

    fn message(&mut self, header: MessageHeader, data: &[u8]) {
        match self.channels.get(&header.channel_id) {
            Some(Some(topic)) => {
                let (start, len) = (self.bytes.len(), data.len());
                self.bytes.extend_from_slice(data);
                self.slots[*topic as usize].push(Slot {
                    sequence: header.sequence,
                    log_ns: header.log_time,
                    sensor_ns: header.publish_time,
                    start,
                    len,
                });
            }
            Some(None) => {}
            None => {
                let text = format!("a message names the unknown channel {}", header.channel_id);
                if self.damage.last() != Some(&text) {
                    self.damage.push(text);
                }
            }
        }
    }

    fn metadata(&mut self, name: &str, fields: &BTreeMap<String, String>) {
        match name {
            RUN => self.header = Some(LogHeader::from_metadata(fields).map_err(|error| error.to_string())),
            DROPS => {
                let count = |topic: Topic| fields.get(topic.name())?.parse().ok();
                let drops = Topic::ALL.into_iter().filter_map(|topic| Some((topic, count(topic)?)));
                self.dropped = drops.filter(|(_, n)| *n > 0).collect();
            }
            STATS => match serde_json::from_str(fields.get("json").map_or("", String::as_str)) {
                Ok(stats) => self.stats = Some(stats),
                Err(error) => self.damage.push(format!("statistics: {error}")),
            },
            _ => {}
        }
    }

    fn into_log(mut self) -> Result<Log, LogError> {
        let mut header = match self.header {
            Some(Ok(header)) => header,
            Some(Err(error)) => return Err(LogError::NoHeader(error)),
            None => return Err(LogError::NoHeader("the metadata record cadenza.run is missing".into())),
        };
        // Whoever reads a log makes room for what its header names.
        for (what, count, most) in
            [("joints", header.joints.len(), MAX_JOINTS), ("monitors", header.monitors.len(), MAX_MONITORS)]
        {
            if count > most {
                return Err(LogError::NoHeader(format!("it names {count} {what}, at most {most}")));
            }
        }
        for (name, text) in self.attachments {
            header.attach(&name, text);
        }
        if !self.complete && self.damage.is_empty() {
            self.damage.push("the file breaks off: no footer".into());
        }
        if self.stats.is_none() {
            self.damage.push("no statistics: the run did not end in order".into());
        }
        self.damage.dedup();
        Ok(Log {
            header,
            stats: self.stats,
            dropped: self.dropped,
            damage: self.damage,
            bytes: self.bytes,
            slots: self.slots,
        })
    }
}
