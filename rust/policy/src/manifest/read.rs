//! Reads and prints manifests. JSON is read more strictly than `serde_json` does: no key twice, no nesting beyond a
//! depth, `x-` keys set aside.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{FORMAT, MANIFEST_CAP, Manifest, ManifestError};
use crate::text::{misleads, shown};

/// Deepest nesting of a manifest.
const DEPTH: usize = 32;

/// Objects whose keys are names that the author chose; a key `x-…` is data there and kept. `*` is any key or index.
const NAMED: [&[&str]; 12] = [
    &["files"],
    &["functions"],
    &["functions", "*", "inputs"],
    &["functions", "*", "outputs"],
    &["carry"],
    &["action", "channels"],
    &["action", "scale"],
    &["action", "offset"],
    &["action", "clip"],
    &["noise", "amplitude"],
    &["noise", "rate"],
    &["monitors", "*", "params"],
];

impl Manifest {
    /// Parses `manifest.json` and checks every rule that needs no other file.
    ///
    /// Keys `x-…` are accepted and ignored. A manifest that is about to be written may leave `files` out.
    ///
    /// # Errors
    /// The first rule that does not hold, with its place.
    pub fn from_json(text: &[u8]) -> Result<Self, ManifestError> {
        if text.len() > MANIFEST_CAP {
            return Err(ManifestError::TooLong { bytes: text.len(), cap: MANIFEST_CAP });
        }
        let tree = parse(text)?;
        if let Some(format) =
            tree.get("format").filter(|f| f.is_number() && f.as_u64() != Some(FORMAT.into()))
        {
            return Err(ManifestError::NewerFormat { found: format.to_string(), supported: FORMAT });
        }
        let writer = tree.pointer("/provenance/cadenza").and_then(|v| v.as_str()).unwrap_or("?").to_owned();
        let manifest: Self = serde_path_to_error::deserialize(&tree).map_err(|e| ManifestError::Schema {
            at: e.path().to_string(),
            message: e.inner().to_string(),
            writer,
        })?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// Prints the manifest: fields in a fixed order, maps sorted, numbers in the shortest form that reads back to the
    /// same bits. Equal manifests give equal text.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data with string keys always prints");
        text.push('\n');
        text
    }
}

/// Parses `text` into a tree without its `x-` keys.
fn parse(text: &[u8]) -> Result<Value, ManifestError> {
    let walk = Walk::default();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let tree = Node(&walk).deserialize(&mut reader).and_then(|tree| reader.end().map(|()| tree));
    tree.map_err(|e| {
        walk.found.take().unwrap_or_else(|| ManifestError::Syntax {
            line: e.line(),
            column: e.column(),
            message: message(&e),
        })
    })
}

/// The message of a `serde_json` error without its position, which we print ourselves.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Where the reader stands, and the error that it met there.
#[derive(Default)]
struct Walk {
    path: RefCell<Vec<String>>,
    found: RefCell<Option<ManifestError>>,
}

impl Walk {
    fn at(&self, key: &str) -> String {
        let path = self.path.borrow();
        path.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join(".")
    }

    fn in_named_object(&self) -> bool {
        let path = self.path.borrow();
        NAMED.iter().any(|pattern| {
            pattern.len() == path.len() && pattern.iter().zip(path.iter()).all(|(p, k)| *p == "*" || p == k)
        })
    }

    /// Refuses text that would do more than stand there when it is shown.
    fn plain<E: Error>(&self, at: impl Fn() -> String, text: &str) -> Result<(), E> {
        match text.chars().find(|&c| misleads(c)) {
            Some(character) => Err(self.fail(ManifestError::Character { at: at(), character })),
            None => Ok(()),
        }
    }

    fn fail<E: Error>(&self, error: ManifestError) -> E {
        let text = error.to_string();
        self.found.replace(Some(error));
        E::custom(text)
    }
}

struct Node<'a>(&'a Walk);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        let depth = self.0.path.borrow().len();
        if depth > DEPTH {
            let path = self.0.path.borrow().join(".");
            return Err(self.0.fail(ManifestError::TooDeep { path, limit: DEPTH }));
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        self.0.plain(|| self.0.path.borrow().join("."), v)?;
        Ok(v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            self.0.path.borrow_mut().push(items.len().to_string());
            let item = seq.next_element_seed(Node(self.0))?;
            self.0.path.borrow_mut().pop();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let named = self.0.in_named_object();
        let (mut seen, mut object) = (BTreeSet::new(), Map::new());
        while let Some(key) = map.next_key::<String>()? {
            self.0.plain(|| self.0.at(&shown(&key)), &key)?;
            if !seen.insert(key.clone()) {
                return Err(self.0.fail(ManifestError::DuplicateKey { path: self.0.at(&key) }));
            }
            self.0.path.borrow_mut().push(key.clone());
            let value = map.next_value_seed(Node(self.0))?;
            self.0.path.borrow_mut().pop();
            if named || !key.starts_with("x-") {
                object.insert(key, value);
            }
        }
        Ok(Value::Object(object))
    }
}
