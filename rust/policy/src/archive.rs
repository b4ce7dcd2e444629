//! The canonical archive: a zip file that has exactly one spelling.
//!
//! Headers are written here, not by the `zip` crate, because their bytes are part of the format: a bundle must stay
//! valid when that crate changes a version number. Reading goes through the crate; afterwards the archive is written
//! again from what was read and must come out with equal bytes, so that local headers, central directory, padding and
//! order need no rules of their own.

use std::io::{Cursor, Read};
use std::ops::Range;

use crate::bundle::BundleError;

/// Entry data starts at a multiple of this.
const ALIGN: usize = 64;
/// Extra field that pads a local header.
const PADDING: u16 = 0xCADE;
/// 1980-01-01, the first date that zip knows.
const DATE: u16 = 0x0021;
/// Stored entries need version 1.0.
const VERSION: u16 = 10;
/// Longest bundle.
pub(crate) const TOTAL_CAP: usize = 256 << 20;
/// Most entries.
const ENTRY_CAP: usize = 256;

/// Networks, parity vectors and specification, in the order of the file; `x-*` entries follow by name.
const ORDER: [&str; 8] = [
    "manifest.json",
    "step.onnx",
    "init.onnx",
    "critic.onnx",
    "model.onnx",
    "fallback.onnx",
    "parity.safetensors",
    "spec.stl",
];

/// Largest length of the entry `name`; an error when no bundle may hold such an entry.
fn cap(name: &str) -> Result<usize, BundleError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b);
    match name {
        "manifest.json" | "spec.stl" => Ok(1 << 20),
        "parity.safetensors" => Ok(64 << 20),
        _ if ORDER.contains(&name) => Ok(128 << 20),
        _ if name.starts_with("x-") && name.len() <= 64 && name.bytes().all(plain) => Ok(16 << 20),
        _ => Err(BundleError::Name { entry: name.chars().take(64).collect() }),
    }
}

/// Checks one entry's name and length.
fn admit(name: &str, bytes: u64) -> Result<(), BundleError> {
    let cap = cap(name)? as u64;
    if bytes > cap { Err(BundleError::EntryTooLong { entry: name.into(), bytes, cap }) } else { Ok(()) }
}

/// Checks the length of a whole file.
fn admit_file(bytes: u64) -> Result<(), BundleError> {
    let cap = TOTAL_CAP as u64;
    if bytes > cap { Err(BundleError::TooLong { bytes, cap }) } else { Ok(()) }
}

/// Writes entries in canonical order.
pub(crate) fn write(entries: &[(&str, &[u8])]) -> Result<Vec<u8>, BundleError> {
    let mut sorted = entries.to_vec();
    let rank = |name: &str| ORDER.iter().position(|o| *o == name).unwrap_or(ORDER.len());
    sorted.sort_by(|a, b| (rank(a.0), a.0).cmp(&(rank(b.0), b.0)));
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(BundleError::Duplicate { entry: pair[0].0.into() });
    }
    if sorted.len() > ENTRY_CAP {
        return Err(BundleError::TooManyEntries { cap: ENTRY_CAP });
    }
    for (name, data) in &sorted {
        admit(name, data.len() as u64)?;
    }
    // Headers of one entry: 30 + 46, its name twice, up to 67 of padding.
    let total = sorted.iter().map(|(name, data)| data.len() + 2 * name.len() + 143).sum::<usize>() + 22;
    admit_file(total as u64)?;
    let (mut file, mut directory) = (Vec::with_capacity(total), Vec::new());
    for (name, data) in &sorted {
        let offset = file.len();
        let padding = (ALIGN - (offset + 30 + name.len() + 4) % ALIGN) % ALIGN;
        let common = common_header(name, data, padding + 4);
        file.extend(0x0403_4b50_u32.to_le_bytes());
        file.extend(&common);
        file.extend(name.bytes());
        file.extend(PADDING.to_le_bytes());
        file.extend((padding as u16).to_le_bytes());
        file.resize(file.len() + padding, 0);
        file.extend(*data);

        directory.extend(0x0201_4b50_u32.to_le_bytes());
        directory.extend(VERSION.to_le_bytes());
        directory.extend(&common_header(name, data, 0));
        // Comment length, disk, internal attributes, external attributes.
        directory.extend([0; 2 + 2 + 2 + 4]);
        directory.extend((offset as u32).to_le_bytes());
        directory.extend(name.bytes());
    }
    let (start, count) = (file.len() as u32, sorted.len() as u16);
    file.extend(&directory);
    file.extend(0x0605_4b50_u32.to_le_bytes());
    file.extend([0; 4]);
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0; 2]);
    Ok(file)
}

/// The fields that local header and central directory share: version needed to length of the extra field.
fn common_header(name: &str, data: &[u8], extra: usize) -> Vec<u8> {
    let mut h = Vec::with_capacity(26);
    // Version, flags, method (stored), time.
    h.extend(VERSION.to_le_bytes());
    h.extend([0; 2 + 2 + 2]);
    h.extend(DATE.to_le_bytes());
    h.extend(crc32(data).to_le_bytes());
    h.extend((data.len() as u32).to_le_bytes());
    h.extend((data.len() as u32).to_le_bytes());
    h.extend((name.len() as u16).to_le_bytes());
    h.extend((extra as u16).to_le_bytes());
    h
}

/// Finds the entries of a canonical archive: name and range of the data, in the order of the file.
pub(crate) fn read(file: &[u8]) -> Result<Vec<(String, Range<usize>)>, BundleError> {
    admit_file(file.len() as u64)?;
    let mut entries: Vec<(String, Range<usize>)> = Vec::new();
    let mut reader = Cursor::new(file);
    loop {
        let last =
            entries.last().map_or_else(|| "the start".to_owned(), |(name, _)| format!("entry {name:?}"));
        let broken =
            |e: &dyn std::fmt::Display| BundleError::Archive { after: last.clone(), reason: e.to_string() };
        // The reader of the loop is moved by the entry; its position afterwards is the end of the data.
        let Some(mut entry) = zip::read::read_zipfile_from_stream(&mut reader).map_err(|e| broken(&e))?
        else {
            break;
        };
        let name = entry.name().map_err(|e| broken(&e))?.into_owned();
        if entries.len() == ENTRY_CAP {
            return Err(BundleError::TooManyEntries { cap: ENTRY_CAP });
        }
        admit(&name, entry.size())?;
        if entry.compression() != zip::CompressionMethod::Stored {
            let method = entry.compression().to_string();
            return Err(BundleError::Compressed { entry: name, method });
        }
        if entries.iter().any(|(n, _)| *n == name) {
            return Err(BundleError::Duplicate { entry: name });
        }
        let bytes = entry.size() as usize;
        // Reading to the end makes the crate compare the CRC.
        let read = std::io::copy(&mut entry.by_ref().take(bytes as u64 + 1), &mut std::io::sink());
        drop(entry);
        if read.is_err() || read.is_ok_and(|n| n != bytes as u64) {
            return Err(BundleError::Checksum { entry: name, kind: "CRC-32" });
        }
        let end = reader.position() as usize;
        let start = end.checked_sub(bytes).ok_or_else(|| broken(&"entry outside the file"))?;
        entries.push((name, start..end));
    }
    let again = write(&entries.iter().map(|(n, r)| (n.as_str(), &file[r.clone()])).collect::<Vec<_>>())?;
    if again != file {
        let same = again.iter().zip(file).take_while(|(a, b)| a == b).count();
        return Err(BundleError::NotCanonical { offset: same as u64 });
    }
    Ok(entries)
}

/// CRC-32 of zip (reflected, polynomial 0xEDB88320), one table lookup for each byte.
fn crc32(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut c, mut bit) = (i as u32, 0);
            while bit < 8 {
                c = if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 };
                bit += 1;
            }
            table[i] = c;
            i += 1;
        }
        table
    };
    !data.iter().fold(!0, |crc, &b| (crc >> 8) ^ TABLE[((crc ^ u32::from(b)) & 0xFF) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn any_zip_tool_reads_it_and_data_is_aligned() {
        let file = write(&[("x-note", b"abc"), ("manifest.json", b"{}"), ("step.onnx", &[7; 100])]).unwrap();
        let names: Vec<_> = read(&file).unwrap();
        assert_eq!(
            names.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
            ["manifest.json", "step.onnx", "x-note"]
        );
        assert!(names.iter().all(|(_, r)| r.start % ALIGN == 0));
        let mut zip = zip::ZipArchive::new(Cursor::new(&file)).unwrap();
        assert_eq!(zip.len(), 3);
        let mut text = String::new();
        zip.by_name("x-note").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }
}
