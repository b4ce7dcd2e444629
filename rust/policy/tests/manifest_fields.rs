//! Every key of a manifest that has them all: left out, of another type, there twice, with a stranger beside it.

use std::collections::BTreeSet;

use cadenza_policy::{Manifest, ManifestError};
use serde_json::{Value, json};

/// A place in the tree: keys and indices.
type Path = Vec<String>;

fn full() -> Value {
    serde_json::from_str(include_str!("manifest/full.json")).unwrap()
}

fn refused(text: &str) -> ManifestError {
    Manifest::from_json(text.as_bytes()).expect_err("must be refused")
}

/// Paths of all keys below `v`.
fn keys(v: &Value, at: &Path, out: &mut Vec<Path>) {
    let children: Vec<(String, &Value)> = match v {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => vec![],
    };
    for (key, child) in children {
        let path = [at.as_slice(), &[key]].concat();
        if v.is_object() {
            out.push(path.clone());
        }
        keys(child, &path, out);
    }
}

fn all() -> Vec<Path> {
    let mut out = vec![];
    keys(&full(), &vec![], &mut out);
    out
}

fn parent<'a>(tree: &'a mut Value, path: &[String]) -> &'a mut serde_json::Map<String, Value> {
    let pointer: String = path[..path.len() - 1].iter().map(|k| format!("/{k}")).collect();
    tree.pointer_mut(&pointer).unwrap().as_object_mut().unwrap()
}

/// How `serde_path_to_error` writes a place.
fn written(path: &[String]) -> String {
    let mut out = String::new();
    for key in path {
        match key.parse::<usize>() {
            Ok(i) => out += &format!("[{i}]"),
            Err(_) if out.is_empty() => out += key,
            Err(_) => out += &format!(".{key}"),
        }
    }
    if out.is_empty() { ".".into() } else { out }
}

/// Objects whose keys are names: a missing or a new one is another content, not another type.
fn is_named(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        path[..],
        ["files" | "functions" | "carry", _]
            | ["functions", _, "inputs" | "outputs", _]
            | ["action", "channels" | "scale" | "offset" | "clip", _]
            | ["noise", "amplitude" | "rate", _]
            | ["monitors", _, "params", _]
    )
}

#[test]
fn the_full_manifest_has_every_key() {
    let m = Manifest::from_json(full().to_string().as_bytes()).unwrap();
    let general = |path: &Path| -> Path {
        path.iter().map(|k| if k.parse::<usize>().is_ok() { "*".into() } else { k.clone() }).collect()
    };
    let (mut printed, mut there) = (vec![], BTreeSet::new());
    keys(&serde_json::from_str(&m.to_json()).unwrap(), &vec![], &mut printed);
    there.extend(all().iter().map(general));
    let missing: Vec<Path> = printed.iter().map(general).filter(|p| !there.contains(p)).collect();
    assert_eq!(missing, Vec::<Path>::new());
    // Settings that are not printed when they are absent; the refusal of a stranger lists them.
    let mut stranger = full();
    stranger["observation"]["terms"][0]["params"] = json!({ "?": 1 });
    let text = refused(&stranger.to_string()).to_string();
    let listed: BTreeSet<&str> =
        text.split("expected one of ").nth(1).unwrap().split('`').skip(1).step_by(2).collect();
    let used: BTreeSet<&str> = there
        .iter()
        .filter(|p| p.len() == 5 && p[3] == "params" && p[0] == "observation")
        .map(|p| p[4].as_str())
        .collect();
    assert_eq!(used, listed);
}

#[test]
fn a_missing_key_is_named_unless_it_has_a_default() {
    // `null` says "no bound": leaving it out says the same.
    let absent_is_null = ["model_sha256", "physics_dt", "position", "velocity_max", "effort_max", "joint"];
    let (mut accepted, mut wrong) = (BTreeSet::new(), vec![]);
    let paths = all();
    for path in paths.iter().filter(|p| !is_named(p)) {
        let mut tree = full();
        let key = path.last().unwrap();
        parent(&mut tree, path).remove(key);
        let Err(error) = Manifest::from_json(tree.to_string().as_bytes()) else {
            accepted.insert(key.as_str());
            continue;
        };
        let expected = match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            // What another field needs.
            ["chunk", "fade_ticks"] => "chunk: a fade of 0 ticks does not fit the horizon 16".into(),
            ["carry"] => "functions.init.outputs: \"h\" is unknown; known: ".into(),
            ["frames"] => "observation.terms.reach.params.frame: \"tool\" is unknown; known: ".into(),
            ["commands"] => "observation.terms.reach.params.target: \"tx\" is unknown; known: ".into(),
            ["normalizer", "mean"] => "normalizer.mean: 0 numbers, but 36 are needed".into(),
            ["normalizer", "spread"] => "normalizer.spread: 0 numbers, but 36 are needed".into(),
            ["observation", "terms", "0", "history"] => {
                "observation.size: 36 numbers, but 28 are needed".into()
            }
            ["observation", "terms", _, "params"] => "observation.terms.".into(),
            // The default of a list of names is all of them.
            ["observation", "terms", _, "params", "commands"] => "1 numbers, but 3 are needed".into(),
            ["observation", "terms", _, "params", ref p] => format!("needs {p}"),
            // A tagged union is read before its fields are.
            ["noise", ref field] => format!("noise: missing field `{field}` (written by cadenza 0.1.0)"),
            ["provenance"] => ".: missing field `provenance` (written by cadenza ?)".into(),
            _ => {
                let at = written(&path[..path.len() - 1]);
                format!("{at}: missing field `{key}` (written by cadenza 0.1.0)")
            }
        };
        if !error.to_string().contains(&expected) {
            wrong.push(format!("{path:?}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let defaults = [
        "files",
        "monitors",
        "noise",
        "parity",
        "provenance",
        "joints",
        "offset",
        "scale",
        "clip",
        "clip_stage",
        "params",
        "history",
        "form",
        "eps",
        "channels",
        "raw_clip",
        "leash",
        "previous",
        "reset",
        "past",
        "margin",
        "default",
        "quantization_error",
        "floating",
        "absolute",
        "in",
        "soft",
        "colour",
        "std",
        "commands",
    ];
    let own: Vec<String> = full()["provenance"].as_object().unwrap().keys().cloned().collect();
    let known: BTreeSet<&str> =
        absent_is_null.into_iter().chain(defaults).chain(own.iter().map(String::as_str)).collect();
    assert_eq!(accepted.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn a_value_of_another_type_is_named() {
    // No field takes a list of lists of truth values.
    for path in all() {
        let mut tree = full();
        let key = path.last().unwrap();
        parent(&mut tree, &path).insert(key.clone(), json!([[true]]));
        let ManifestError::Schema { at, message, writer } = refused(&tree.to_string()) else {
            // The text under `format` is read first, as a number.
            panic!("{path:?} is not refused for its type")
        };
        // Below a choice between spellings, the place is that of the choice; an element stands inside its list.
        let (place, from) = (written(&path), written(&path[..1]));
        assert!(at.starts_with(&place) || place.starts_with(&at), "{path:?}: {at}");
        assert!(at.starts_with(&from), "{path:?}: {at}");
        assert!(!message.is_empty() && (writer == "0.1.0" || path[0] == "provenance"), "{path:?}: {message}");
    }
}

/// JSON text in which the key at `target` stands twice.
fn doubled(v: &Value, at: &mut Path, target: &Path) -> String {
    match v {
        Value::Object(map) => {
            let mut fields = vec![];
            for (k, v) in map {
                at.push(k.clone());
                let field = format!("{}:{}", json!(k), doubled(v, at, target));
                if at == target {
                    fields.push(field.clone());
                }
                fields.push(field);
                at.pop();
            }
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(list) => {
            let items: Vec<String> = list
                .iter()
                .enumerate()
                .map(|(i, v)| {
                    at.push(i.to_string());
                    let item = doubled(v, at, target);
                    at.pop();
                    item
                })
                .collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}

#[test]
fn a_key_that_stands_twice_is_named() {
    for path in all() {
        let text = doubled(&full(), &mut vec![], &path);
        assert_eq!(refused(&text), ManifestError::DuplicateKey { path: path.join(".") });
    }
}

#[test]
fn a_stranger_among_the_keys_is_named() {
    let mut objects: BTreeSet<Path> = all()
        .into_iter()
        .map(|mut p| {
            p.pop();
            p
        })
        .collect();
    objects.remove(&vec![]);
    let mut refusals = 0;
    for path in objects {
        let stranger = [path.as_slice(), &["stranger".into()]].concat();
        if is_named(&stranger) {
            continue;
        }
        let mut tree = full();
        parent(&mut tree, &stranger).insert("stranger".into(), json!(1));
        let text = refused(&tree.to_string()).to_string();
        assert!(text.contains("unknown field `stranger`, expected"), "{path:?}: {text}");
        assert!(text.starts_with(&written(&path[..1])), "{path:?}: {text}");
        refusals += 1;
    }
    assert!(refusals > 30, "{refusals}");
}

#[test]
fn permuted_joints_are_permuted_and_otherwise_equal() {
    let m = Manifest::from_json(full().to_string().as_bytes()).unwrap();
    let mut tree = full();
    tree["joints"].as_array_mut().unwrap().reverse();
    let mut other = Manifest::from_json(tree.to_string().as_bytes()).unwrap();
    assert_ne!(other, m);
    assert_eq!(other.joints[0], m.joints[1]);
    other.joints.reverse();
    assert_eq!(other, m);
    // Maps over joints have no order at all.
    let text = full().to_string();
    let turned = text.replacen("\"hip\":0.02,\"knee\":0.01", "\"knee\":0.01,\"hip\":0.02", 1);
    assert_ne!(turned, text);
    assert_eq!(Manifest::from_json(turned.as_bytes()).unwrap().to_json(), m.to_json());
}
