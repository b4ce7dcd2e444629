//! The file `policy.cadenza`: entries, checksums, limits.
//!
//! A bundle has exactly one spelling. [`Bundle::from_bytes`] refuses every file that [`write_bundle`] would not have
//! written from the same content, so a changed byte anywhere is an error that names the entry. The hashes protect
//! against accidents, not against an author with intent: they are integrity, not authenticity.

use std::fmt::Write as _;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::archive;
use crate::manifest::{FileEntry, Manifest, ManifestError};

const MANIFEST: &str = "manifest.json";
const PARITY: &str = "parity.safetensors";
const SPECIFICATION: &str = "spec.stl";

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// An error of the file's content, with the file's name.
    #[error("{}: {error}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// The error.
        error: Box<BundleError>,
    },
    /// Longer than any bundle.
    #[error("{bytes} bytes, more than {cap}")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// Longest allowed.
        cap: u64,
    },
    /// Not an archive that can be read.
    #[error("not a bundle, broken after {after}: {reason}")]
    Archive {
        /// Last thing that could be read.
        after: String,
        /// What is wrong there.
        reason: String,
    },
    /// More entries than any bundle has.
    #[error("more than {cap} entries")]
    TooManyEntries {
        /// Most allowed.
        cap: usize,
    },
    /// A name that no entry may have.
    #[error(
        "entry {entry:?}: not a name of format 1 (others must start with x-, of a-z 0-9 _ . -, at most 64)"
    )]
    Name {
        /// The name.
        entry: String,
    },
    /// An entry is too long.
    #[error("entry {entry:?}: {bytes} bytes, more than {cap}")]
    EntryTooLong {
        /// The entry.
        entry: String,
        /// Its length.
        bytes: u64,
        /// Longest allowed.
        cap: u64,
    },
    /// An entry is compressed.
    #[error("entry {entry:?}: compressed with {method}, but entries must be stored")]
    Compressed {
        /// The entry.
        entry: String,
        /// How.
        method: String,
    },
    /// An entry stands twice.
    #[error("entry {entry:?}: stands there twice")]
    Duplicate {
        /// The entry.
        entry: String,
    },
    /// The bytes of an entry are not those that were written.
    #[error("entry {entry:?}: damaged or cut short, its {kind} differs")]
    Checksum {
        /// The entry.
        entry: String,
        /// Which check failed.
        kind: &'static str,
    },
    /// Bytes outside the entries' data differ from the one canonical spelling.
    #[error("not canonical at byte {offset}: headers, order or padding were changed")]
    NotCanonical {
        /// First byte that differs.
        offset: u64,
    },
    /// The manifest lists, or needs, an entry that is not there.
    #[error("entry {entry:?}: missing, but {needed_by} names it")]
    Missing {
        /// The entry.
        entry: String,
        /// Where the manifest names it.
        needed_by: String,
    },
    /// An entry that the manifest does not list.
    #[error("entry {entry:?}: not listed in the manifest's files")]
    Unlisted {
        /// The entry.
        entry: String,
    },
    /// An entry has another length than the manifest says.
    #[error("entry {entry:?}: {got} bytes, but the manifest says {expected}")]
    Length {
        /// The entry.
        entry: String,
        /// In the manifest.
        expected: u64,
        /// In the archive.
        got: u64,
    },
    /// Not UTF-8.
    #[error("entry {entry:?}: not UTF-8 from byte {offset} on")]
    Utf8 {
        /// The entry.
        entry: String,
        /// First byte that is not text.
        offset: usize,
    },
    /// The manifest is refused.
    #[error("manifest.json: {0}")]
    Manifest(#[from] ManifestError),
}

/// An opened bundle. Immutable; owns the bytes.
#[derive(Clone, Debug)]
pub struct Bundle {
    bytes: Vec<u8>,
    entries: Vec<(String, Range<usize>)>,
    manifest: Manifest,
    id: [u8; 32],
}

impl Bundle {
    /// Reads and checks the file `path`.
    ///
    /// # Errors
    /// The first thing that is wrong, with the file and the entry.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let io = |source| BundleError::Io { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        // One byte more than allowed tells that it is too long, whatever kind of file this is.
        let mut file = std::fs::File::open(path).map_err(io)?.take(archive::TOTAL_CAP as u64 + 1);
        file.read_to_end(&mut bytes).map_err(io)?;
        let within = |error| BundleError::In { path: path.to_owned(), error: Box::new(error) };
        Self::from_bytes(bytes).map_err(within)
    }

    /// Checks the bytes of a bundle.
    ///
    /// # Errors
    /// The first thing that is wrong, with the entry.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, BundleError> {
        let entries = archive::read(&bytes)?;
        let data = |name: &str| entries.iter().find(|(n, _)| n == name).map(|(_, r)| &bytes[r.clone()]);
        let missing = |entry: &str, needed_by: &str| BundleError::Missing {
            entry: entry.to_owned(),
            needed_by: needed_by.to_owned(),
        };
        let text = data(MANIFEST).ok_or_else(|| missing(MANIFEST, "the format"))?;
        let manifest = Manifest::from_json(text)?;
        let id = Sha256::digest(text).into();
        for (name, entry) in &manifest.files {
            let found = data(name).ok_or_else(|| missing(name, "files"))?;
            if found.len() as u64 != entry.bytes {
                let (expected, got) = (entry.bytes, found.len() as u64);
                return Err(BundleError::Length { entry: name.clone(), expected, got });
            }
            if hex(&Sha256::digest(found)) != entry.sha256 {
                return Err(BundleError::Checksum { entry: name.clone(), kind: "SHA-256" });
            }
        }
        if let Some((name, _)) =
            entries.iter().find(|(n, _)| n != MANIFEST && !manifest.files.contains_key(n))
        {
            return Err(BundleError::Unlisted { entry: name.clone() });
        }
        for (name, f) in &manifest.functions {
            data(&f.file).ok_or_else(|| missing(&f.file, &format!("functions.{name}")))?;
        }
        if let Some(parity) = &manifest.parity {
            if parity.file != PARITY {
                return Err(BundleError::Name { entry: parity.file.clone() });
            }
            data(PARITY).ok_or_else(|| missing(PARITY, "parity"))?;
        }
        if !manifest.monitors.is_empty() {
            data(SPECIFICATION).ok_or_else(|| missing(SPECIFICATION, "monitors"))?;
        }
        if let Some(Err(e)) = data(SPECIFICATION).map(std::str::from_utf8) {
            return Err(BundleError::Utf8 { entry: SPECIFICATION.into(), offset: e.valid_up_to() });
        }
        Ok(Self { entries, manifest, id, bytes })
    }

    /// What the bundle says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of `manifest.json`, which lists the hash of every other entry: it names the whole content.
    pub fn id(&self) -> [u8; 32] {
        self.id
    }

    /// Text of `spec.stl`, if the bundle has one.
    pub fn specification(&self) -> Option<&str> {
        self.entry(SPECIFICATION).and_then(|text| std::str::from_utf8(text).ok())
    }

    /// Bytes of an entry.
    pub fn entry(&self, name: &str) -> Option<&[u8]> {
        self.entries.iter().find(|(n, _)| n == name).map(|(_, r)| &self.bytes[r.clone()])
    }

    /// Names of all entries, in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// The file itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes a bundle: fills `manifest.files` from `entries`, prints the manifest, lays the archive out and reads it back.
/// Equal input gives equal bytes.
///
/// # Errors
/// Whatever [`Bundle::from_bytes`] would refuse, before anything is on disk.
pub fn write_bundle(mut manifest: Manifest, entries: &[(String, Vec<u8>)]) -> Result<Vec<u8>, BundleError> {
    manifest.files.clear();
    for (name, data) in entries {
        let entry = FileEntry { bytes: data.len() as u64, sha256: hex(&Sha256::digest(data)) };
        if manifest.files.insert(name.clone(), entry).is_some() || name == MANIFEST {
            return Err(BundleError::Duplicate { entry: name.clone() });
        }
    }
    manifest.validate()?;
    let text = manifest.to_json();
    let mut all = vec![(MANIFEST, text.as_bytes())];
    all.extend(entries.iter().map(|(name, data)| (name.as_str(), data.as_slice())));
    Ok(Bundle::from_bytes(archive::write(&all)?)?.bytes)
}

/// Lays entries out as an archive, without looking at their content. For tools and tests that need a bundle which
/// [`Bundle::from_bytes`] refuses for what it says, not for how it is written.
///
/// # Errors
/// Names, lengths and numbers of entries beyond the format's.
pub fn write_archive(entries: &[(&str, &[u8])]) -> Result<Vec<u8>, BundleError> {
    archive::write(entries)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, b| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{b:02x}");
        text
    })
}
