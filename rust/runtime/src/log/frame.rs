//! The records of an MCAP file, held against their own lengths before the crate reads them: it reserves what a length
//! says before it looks for the bytes, and cuts a checksum off an attachment that may be too short for one.

use mcap::MAGIC;
use mcap::records::op;

/// Opcode and length of a record.
const HEAD: usize = 9;

/// Records in the order of the bytes, as opcode and body; the last one is an error when it is cut off or when a length
/// inside it goes beyond its end.
pub(super) struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    /// The records of a file; `None` when it does not begin as one.
    pub(super) fn of_file(bytes: &'a [u8]) -> Option<Self> {
        bytes.strip_prefix(MAGIC).map(Self)
    }

    /// The records of an uncompressed chunk.
    pub(super) fn of_chunk(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn cut(&mut self) -> Result<(u8, &'a [u8]), &'static str> {
        let (head, rest) = self.0.split_at_checked(HEAD).ok_or("a record is cut off")?;
        let len = head[1..].iter().rev().fold(0u64, |len, byte| len << 8 | u64::from(*byte));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (body, rest) = rest.split_at_checked(len).ok_or("a record is cut off")?;
        self.0 = rest;
        match lengths_fit(head[0], body) {
            true => Ok((head[0], body)),
            false => Err("a length inside a record goes beyond its end"),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u8, &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.cut();
        if record.is_err() {
            self.0 = &[];
        }
        Some(record)
    }
}

/// Whether this record is one of those that a log is read from.
pub(super) fn is_read(opcode: u8) -> bool {
    matches!(opcode, op::CHANNEL | op::MESSAGE | op::CHUNK | op::ATTACHMENT | op::METADATA)
}

/// Whether every length inside a record that is read stays inside it.
fn lengths_fit(opcode: u8, body: &[u8]) -> bool {
    let mut walk = Walk(body);
    let fits = match opcode {
        // Id and schema; topic, encoding.
        op::CHANNEL => {
            walk.skip(4).and_then(|()| walk.text()).and_then(|_| walk.text()).and_then(|_| walk.map())
        }
        op::METADATA => walk.text().and_then(|_| walk.map()),
        // Times, size and checksum; compression.
        op::CHUNK => walk.skip(28).and_then(|()| walk.text()).and_then(|_| walk.data(0)),
        // Times; name, media type; the checksum comes after the data.
        op::ATTACHMENT => {
            walk.skip(16).and_then(|()| walk.text()).and_then(|_| walk.text()).and_then(|_| walk.data(4))
        }
        _ => Some(()),
    };
    fits.is_some()
}

/// What is left of a body.
struct Walk<'a>(&'a [u8]);

impl<'a> Walk<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, len: usize) -> Option<()> {
        self.take(len).map(|_| ())
    }

    /// Bytes behind their length of 32 bits.
    fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.take(4)?.try_into().map(u32::from_le_bytes).ok()?;
        self.take(usize::try_from(len).ok()?)
    }

    /// Pairs of texts behind their length of 32 bits.
    fn map(&mut self) -> Option<()> {
        let mut inside = Walk(self.text()?);
        while !inside.0.is_empty() {
            inside.text()?;
            inside.text()?;
        }
        Some(())
    }

    /// Bytes behind their length of 64 bits, and at least `after` more.
    fn data(&mut self, after: usize) -> Option<()> {
        let len = self.take(8)?.try_into().map(u64::from_le_bytes).ok()?;
        self.skip(usize::try_from(len).ok()?)?;
        (self.0.len() >= after).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(opcode: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u64).to_le_bytes();
        [&[opcode][..], &len, body].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn all(bytes: &[u8]) -> Vec<Result<u8, &'static str>> {
        Records::of_chunk(bytes).map(|record| record.map(|(opcode, _)| opcode)).collect()
    }

    #[test]
    fn whole_records_pass_and_every_cut_of_one_is_found() {
        let pairs = [text("key"), text("value")].concat();
        let map = [&(pairs.len() as u32).to_le_bytes()[..], &pairs].concat();
        let data = [&3u64.to_le_bytes()[..], b"abc"].concat();
        let bodies = [
            (op::CHANNEL, [&[0; 4][..], &text("/state"), &text("protobuf"), &map].concat()),
            (op::METADATA, [text("cadenza.run"), map].concat()),
            (op::CHUNK, [&[0; 28][..], &text(""), &data].concat()),
            (
                op::ATTACHMENT,
                [&[0; 16][..], &text("robot.toml"), &text("text/plain"), &data, &[0; 4]].concat(),
            ),
        ];
        for (opcode, body) in bodies {
            let whole = [record(opcode, &body), record(op::SCHEMA, b"not read")].concat();
            assert_eq!(all(&whole), [Ok(opcode), Ok(op::SCHEMA)]);
            for cut in 0..body.len() {
                let broken = [record(opcode, &body[..cut]), record(op::SCHEMA, b"")].concat();
                assert_eq!(
                    all(&broken),
                    [Err("a length inside a record goes beyond its end")],
                    "{opcode} {cut}"
                );
            }
        }
        let whole = record(op::MESSAGE, &[0; 22]);
        assert_eq!(all(&whole[..whole.len() - 1]), [Err("a record is cut off")]);
        assert_eq!(all(&record(op::MESSAGE, &[])[..8]), [Err("a record is cut off")]);
        assert!(Records::of_file(b"\x89MCAP0\r\nx").is_some() && Records::of_file(b"MCAP").is_none());
    }
}
