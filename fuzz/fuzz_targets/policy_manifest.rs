#![no_main]
//! JSON → manifest: no panic, and what is accepted prints to a text that reads back equal.

use arbitrary::{Result, Unstructured};
use cadenza_fuzz::STRUCTURED;
use cadenza_policy::Manifest;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const FULL: &str = include_str!("../../rust/policy/tests/manifest/full.json");

/// Changes one value somewhere below `at`.
fn edit(u: &mut Unstructured<'_>, at: &mut Value) -> Result<()> {
    if u.ratio(1, 8)? {
        *at = scalar(u)?;
        return Ok(());
    }
    match at {
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(u.choose_index(map.len())?).cloned().unwrap_or_default();
            match u.int_in_range(0..=9)? {
                0 => drop(map.remove(&key)),
                1 => {
                    let name = *u.choose(&["x-a", "*", "hip", "", "\u{1b}", "name", "step.onnx"])?;
                    let value = map[&key].clone();
                    map.insert(name.to_owned(), value);
                }
                _ => return map.get_mut(&key).map_or(Ok(()), |v| edit(u, v)),
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let i = u.choose_index(list.len())?;
            if !u.ratio(1, 8)? {
                return edit(u, &mut list[i]);
            }
            list.push(list[i].clone());
        }
        other => *other = scalar(u)?,
    }
    Ok(())
}

fn scalar(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=9)? {
        0 => Value::Null,
        1 => json!(u.arbitrary::<bool>()?),
        2 => json!(u.arbitrary::<u64>()?),
        3 => json!(u.arbitrary::<f64>()?),
        4 => json!([]),
        5 => json!({}),
        6 => json!(*u.choose(&[
            "graph",
            "runtime",
            "none",
            "open",
            "lazy",
            "default",
            "init",
            "carry.h",
            "source.gyro"
        ])?),
        7 => json!(u.int_in_range(-1..=65_537)?),
        8 => json!([-1.0, 1.0]),
        _ => json!(u.arbitrary::<&str>()?),
    })
}

fn text(rest: &[u8]) -> Result<Vec<u8>> {
    let mut u = Unstructured::new(rest);
    let mut tree: Value = serde_json::from_str(FULL).expect("checked by the crate's tests");
    for _ in 0..u.int_in_range(1..=4)? {
        edit(&mut u, &mut tree)?;
    }
    Ok(tree.to_string().into_bytes())
}

fuzz_target!(|data: &[u8]| {
    let text = match data.split_first() {
        Some((&STRUCTURED, rest)) => match text(rest) {
            Ok(text) => text,
            Err(_) => return,
        },
        _ => data.to_vec(),
    };
    if let Ok(manifest) = Manifest::from_json(&text) {
        let printed = manifest.to_json();
        let again = Manifest::from_json(printed.as_bytes()).expect("what is printed is read");
        assert_eq!(again, manifest);
        assert_eq!(again.to_json(), printed);
    }
});
