//! What can be wrong with a manifest.

/// Why a manifest is refused. `at` is the place in the file, for example `observation.terms.2.size`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Longer than the cap.
    #[error("the manifest has {bytes} bytes, more than {cap}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// Longest allowed.
        cap: usize,
    },
    /// Not JSON, or a number beyond the range of 64-bit floats.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// Made for another version of this crate.
    #[error("format {found}, but this version reads format {supported}")]
    NewerFormat {
        /// Format of the file.
        found: String,
        /// Format that is read.
        supported: u32,
    },
    /// A key stands twice in one object.
    #[error("duplicate key {path}")]
    DuplicateKey {
        /// The key.
        path: String,
    },
    /// Nested too deeply.
    #[error("{path}: nested deeper than {limit}")]
    TooDeep {
        /// Where.
        path: String,
        /// Deepest allowed.
        limit: usize,
    },
    /// A character that would change what a terminal shows around it.
    #[error("{at}: the character {character:?} has no place in a text")]
    Character {
        /// Where.
        at: String,
        /// The character.
        character: char,
    },
    /// A key is unknown or missing, or a value has the wrong type.
    #[error("{at}: {message} (written by cadenza {writer})")]
    Schema {
        /// Where.
        at: String,
        /// What is wrong, with the keys that are known.
        message: String,
        /// Version that wrote the file.
        writer: String,
    },
    /// A name stands twice where names must differ.
    #[error("{at}: {name:?} stands there twice")]
    Repeated {
        /// Where.
        at: String,
        /// The name.
        name: String,
    },
    /// A name that nothing carries.
    #[error("{at}: {name:?} is unknown; known: {known}")]
    Unknown {
        /// Where.
        at: String,
        /// The name.
        name: String,
        /// The names that would do.
        known: String,
    },
    /// A list or a sum has the wrong length.
    #[error("{at}: {got} numbers, but {expected} are needed")]
    Size {
        /// Where.
        at: String,
        /// Needed.
        expected: usize,
        /// Found.
        got: usize,
    },
    /// A number outside its range.
    #[error("{at}: {value} {rule}")]
    Range {
        /// Where.
        at: String,
        /// The number.
        value: f64,
        /// What it should be.
        rule: &'static str,
    },
    /// Two fields cannot both be true, or one needs another.
    #[error("{at}: {why}")]
    Contradiction {
        /// Where.
        at: String,
        /// Why.
        why: String,
    },
}
