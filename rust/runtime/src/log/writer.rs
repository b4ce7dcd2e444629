//! The writer thread: ring → MCAP file. It may block; the control thread never waits for it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mcap::records::{MessageHeader, Metadata};
use mcap::{Attachment, McapError, WriteOptions, Writer};
use rtrb::Consumer;

use super::descriptor::file_descriptor_set;
use super::header::{DROPS, LogHeader, RUN, STATS};
use super::record::{PREFIX, Shared};
use super::schema::Topic;

/// A chunk is what a killed run loses at most, beside the last second.
const CHUNK: u64 = 1 << 20;
/// Time between two flushes.
const FLUSH: Duration = Duration::from_secs(1);
/// Time between two looks at an empty ring.
const POLL: Duration = Duration::from_millis(5);

/// Writes until the ring's producer is gone. An error ends the recording, never the run.
pub(super) fn run(path: &Path, header: &LogHeader, mut ring: Consumer<u8>, shared: &Shared) {
    if let Err(error) = File::create(path)
        .map_err(Failure::from)
        .and_then(|file| Output::new(file, header)?.record(&mut ring, header.run.virtual_clock, shared))
    {
        shared.fail(format!("{}: {error}", path.display()));
    }
}

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{}", mcap_text(.0))]
    Mcap(#[from] McapError),
    #[error("header: {0}")]
    Header(#[from] serde_json::Error),
    #[error("ring: record of topic {0}")]
    Ring(u8),
}

/// The crate's I/O error does not name its cause.
fn mcap_text(error: &McapError) -> String {
    match error {
        McapError::Io(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

struct Output {
    writer: Writer<BufWriter<File>>,
    /// The same file, for its size.
    file: File,
    channels: [u16; Topic::COUNT],
    /// Entries handed to the writer so far.
    entries: u64,
    noted_drops: u64,
}

impl Output {
    /// Writes everything that stands before the first message, and flushes it: a killed run still says what it was.
    fn new(file: File, header: &LogHeader) -> Result<Self, Failure> {
        let size = file.try_clone()?;
        let options = WriteOptions::new()
            .profile("cadenza")
            .library(format!("cadenza {}", env!("CARGO_PKG_VERSION")))
            .compression(None)
            .chunk_size(Some(CHUNK))
            // A chunk is assembled in memory and written whole.
            .disable_seeking(true);
        let mut writer = options.create(BufWriter::new(file))?;
        writer.write_metadata(&Metadata { name: RUN.into(), metadata: header.to_metadata()? })?;
        let start = u64::try_from(header.utc_offset_ns).unwrap_or(0);
        for (name, media_type, text) in header.attachments() {
            writer.attach(&Attachment {
                log_time: start,
                create_time: start,
                name: name.into(),
                media_type: media_type.into(),
                data: Cow::Borrowed(text.as_bytes()),
            })?;
        }
        let descriptors = file_descriptor_set();
        let mut channels = [0; Topic::COUNT];
        for topic in Topic::ALL {
            let schema = writer.add_schema(topic.message(), "protobuf", &descriptors)?;
            channels[topic as usize] =
                writer.add_channel(schema, topic.name(), "protobuf", &BTreeMap::new())?;
        }
        writer.flush()?;
        Ok(Self { writer, file: size, channels, entries: 0, noted_drops: 0 })
    }

    fn record(
        mut self,
        ring: &mut Consumer<u8>,
        virtual_clock: bool,
        shared: &Shared,
    ) -> Result<(), Failure> {
        let (mut flushed, mut flushed_log_time) = (Instant::now(), 0);
        let mut message = Vec::new();
        loop {
            // Read before draining: what the producer pushed before it went is then drained below.
            let last = ring.is_abandoned();
            let mut prefix = [0; PREFIX];
            // The producer publishes whole records, so a prefix is always followed by its message.
            while ring.pop_entire_slice(&mut prefix).is_ok() {
                let (len, topic, header) = self.parse(&prefix)?;
                message.resize(len, 0);
                ring.pop_entire_slice(&mut message).map_err(|_| Failure::Ring(topic))?;
                self.writer.write_to_known_channel(&header, &message)?;
                self.entries += 1;
                // On the virtual clock the file must not depend on how fast this thread is.
                let due = if virtual_clock {
                    header.log_time.saturating_sub(flushed_log_time) >= FLUSH.as_nanos() as u64
                } else {
                    flushed.elapsed() >= FLUSH
                };
                if due {
                    self.flush(shared)?;
                    (flushed, flushed_log_time) = (Instant::now(), header.log_time);
                }
            }
            if last {
                break;
            }
            if !virtual_clock && flushed.elapsed() >= FLUSH {
                self.flush(shared)?;
                flushed = Instant::now();
            }
            std::thread::sleep(POLL);
        }
        self.finish(shared)
    }

    fn parse(&self, prefix: &[u8; PREFIX]) -> Result<(usize, u8, MessageHeader), Failure> {
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| prefix[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| prefix[at + i]));
        let topic = prefix[4];
        let channel_id = *self.channels.get(topic as usize).ok_or(Failure::Ring(topic))?;
        let header =
            MessageHeader { channel_id, sequence: u32_at(5), log_time: u64_at(9), publish_time: u64_at(17) };
        Ok((u32_at(0) as usize, topic, header))
    }

    fn flush(&mut self, shared: &Shared) -> Result<(), Failure> {
        let drops: u64 = shared.drops().map(|(_, n)| n).sum();
        if drops > self.noted_drops {
            self.note_drops(shared)?;
            self.noted_drops = drops;
        }
        self.writer.flush()?;
        self.count(shared)
    }

    fn count(&self, shared: &Shared) -> Result<(), Failure> {
        shared.written.store(self.entries, Relaxed);
        shared.bytes.store(self.file.metadata()?.len(), Relaxed);
        Ok(())
    }

    fn note_drops(&mut self, shared: &Shared) -> Result<(), Failure> {
        let metadata = shared.drops().map(|(topic, n)| (topic.name().to_owned(), n.to_string())).collect();
        Ok(self.writer.write_metadata(&Metadata { name: DROPS.into(), metadata })?)
    }

    fn finish(mut self, shared: &Shared) -> Result<(), Failure> {
        self.note_drops(shared)?;
        if let Some(json) = shared.summary.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let metadata = [("json".to_owned(), json)].into();
            self.writer.write_metadata(&Metadata { name: STATS.into(), metadata })?;
        }
        self.writer.finish()?;
        self.count(shared)
    }
}
