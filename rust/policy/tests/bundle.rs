//! The file: one spelling, every changed byte refused, every trick named.

mod common;

use cadenza_policy::{Bundle, BundleError, LoadError, Manifest, Options, Policy, write_bundle};
use common::{bundle, golden, manifest, parse};
use serde_json::json;

fn entries() -> Vec<(String, Vec<u8>)> {
    [
        ("step.onnx", golden("mlp_tanh.onnx")),
        ("spec.stl", b"spec up: G[0,5] tilt < 1;\n".to_vec()),
        ("x-note", vec![]),
    ]
    .map(|(n, d)| (n.to_owned(), d))
    .to_vec()
}

fn refused(bytes: Vec<u8>) -> String {
    Bundle::from_bytes(bytes).expect_err("must be refused").to_string()
}

#[test]
fn round_trip_is_byte_identical() {
    let first = write_bundle(parse(&manifest(16, 6)), &entries()).unwrap();
    let b = Bundle::from_bytes(first.clone()).unwrap();
    assert_eq!(b.as_bytes(), first);
    assert_eq!(b.entries().collect::<Vec<_>>(), ["manifest.json", "step.onnx", "spec.stl", "x-note"]);
    assert_eq!(b.specification(), Some("spec up: G[0,5] tilt < 1;\n"));
    // The order of the entries does not matter, nor does going through the parsed form.
    let mut shuffled = entries();
    shuffled.reverse();
    assert_eq!(write_bundle(b.manifest().clone(), &shuffled).unwrap(), first);
    let text = b.entry("manifest.json").unwrap();
    assert_eq!(Manifest::from_json(text).unwrap().to_json().as_bytes(), text);
    assert_eq!(b.id(), Bundle::from_bytes(first).unwrap().id());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("walk.cadenza");
    std::fs::write(&path, b.as_bytes()).unwrap();
    assert_eq!(Bundle::open(&path).unwrap().id(), b.id());
    std::fs::write(&path, &b.as_bytes()[..100]).unwrap();
    let error = Bundle::open(&path).unwrap_err().to_string();
    assert!(error.contains("walk.cadenza: entry \"manifest.json\": damaged or cut short"), "{error}");
    let error = Bundle::open(&folder.path().join("absent")).unwrap_err();
    assert!(matches!(error, BundleError::Io { .. }) && error.to_string().contains("absent"));
}

#[test]
fn every_flipped_byte_is_refused() {
    // A few hundred bytes of network are enough: the archive does not look inside.
    let small = vec![("step.onnx".to_owned(), vec![7; 300]), ("x-a".to_owned(), vec![1, 2, 3])];
    let file = write_bundle(parse(&manifest(2, 1)), &small).unwrap();
    for at in 0..file.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut bad = file.clone();
            bad[at] ^= flip;
            assert!(Bundle::from_bytes(bad).is_err(), "byte {at} ^ {flip:#x} went unnoticed");
        }
    }
    for end in 0..file.len() {
        assert!(Bundle::from_bytes(file[..end].to_vec()).is_err(), "cut at {end}");
    }
    // In an entry's data, the entry is named.
    let at = file.windows(300).position(|w| w == [7; 300]).unwrap();
    let mut bad = file.clone();
    bad[at + 150] = 8;
    assert_eq!(refused(bad), "entry \"step.onnx\": damaged or cut short, its CRC-32 differs");
    let mut long = file.clone();
    long.push(0);
    assert_eq!(
        refused(long),
        format!("not canonical at byte {}: headers, order or padding were changed", file.len())
    );
}

/// An archive of any entries, written by the `zip` crate.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write as _;
    let mut w = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    for (name, data) in entries {
        let options =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        w.start_file(*name, options).unwrap();
        w.write_all(data).unwrap();
    }
    w.finish().unwrap().into_inner()
}

/// Replaces every occurrence of `from` in the archive.
fn patch(mut file: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let hits: Vec<usize> = (0..file.len() - from.len()).filter(|&i| file[i..].starts_with(from)).collect();
    assert!(!hits.is_empty());
    for i in hits {
        file[i..i + from.len()].copy_from_slice(to);
    }
    file
}

#[test]
fn tricks_of_the_archive_are_named() {
    let traversal = zip(&[("../../etc/passwd", b"x")]);
    assert!(refused(traversal).starts_with("entry \"../../etc/passwd\": not a name of format 1"));
    assert!(refused(zip(&[("Step.onnx", b"x")])).contains("not a name of format 1"));
    let twice = patch(zip(&[("x-a", b"1"), ("x-b", b"2")]), b"x-b", b"x-a");
    assert_eq!(refused(twice), "entry \"x-a\": stands there twice");
    // Correct, but not our spelling.
    let foreign = zip(&[("manifest.json", b"{}")]);
    assert!(refused(foreign).starts_with("not canonical at byte"));
    // Deflate (method 8) and an encryption flag in the local header.
    let file = write_bundle(parse(&manifest(16, 6)), &entries()).unwrap();
    let mut deflated = file.clone();
    deflated[8] = 8;
    assert_eq!(
        refused(deflated),
        "entry \"manifest.json\": compressed with Deflated, but entries must be stored"
    );
    let mut encrypted = file.clone();
    encrypted[6] |= 1;
    assert!(refused(encrypted).starts_with("not a bundle, broken after the start"), "flag");
    let mut streamed = file.clone();
    streamed[6] |= 8;
    assert!(refused(streamed).starts_with("not a bundle, broken after the start"), "descriptor");
    // A length beyond the file, and beyond the cap.
    let mut long = file.clone();
    long[18..26].copy_from_slice(&[0, 0, 0x0f, 0, 0, 0, 0x0f, 0]);
    assert_eq!(refused(long), "entry \"manifest.json\": damaged or cut short, its CRC-32 differs");
    let mut bomb = file.clone();
    bomb[18..26].fill(0xf0);
    assert_eq!(refused(bomb), "entry \"manifest.json\": 4042322160 bytes, more than 1048576");
    assert!(refused(vec![]).starts_with("not a bundle"));
    // Two directory records that swap their offsets: overlapping or misdirected entries are no spelling of ours.
    let start = u32::from_le_bytes(file[file.len() - 6..file.len() - 2].try_into().unwrap()) as usize;
    let mut moved = file.clone();
    moved[start + 42] ^= 64;
    assert_eq!(
        refused(moved),
        format!("not canonical at byte {}: headers, order or padding were changed", start + 42)
    );
}

/// A canonical archive around any manifest text, with the other entries as they are: written as one bundle, then the
/// text is put in place of one of equal length.
fn with_manifest(change: impl Fn(&mut serde_json::Value)) -> String {
    let file = write_bundle(parse(&manifest(16, 6)), &entries()).unwrap();
    let b = Bundle::from_bytes(file).unwrap();
    let mut text: serde_json::Value = serde_json::from_slice(b.entry("manifest.json").unwrap()).unwrap();
    change(&mut text);
    let mut list: Vec<(&str, &[u8])> =
        b.entries().filter(|n| *n != "manifest.json").map(|n| (n, b.entry(n).unwrap())).collect();
    let text = text.to_string();
    list.push(("manifest.json", text.as_bytes()));
    refused(cadenza_policy::bundle::write_archive(&list).unwrap())
}

#[test]
fn manifest_and_entries_must_agree() {
    let hash = |n: u64| json!({ "bytes": n, "sha256": "0".repeat(64) });
    assert_eq!(
        with_manifest(|m| m["files"]["init.onnx"] = hash(1)),
        "entry \"init.onnx\": missing, but files names it"
    );
    assert_eq!(
        with_manifest(|m| m["files"] =
            json!({ "step.onnx": m["files"]["step.onnx"], "spec.stl": m["files"]["spec.stl"] })),
        "entry \"x-note\": not listed in the manifest's files"
    );
    let bytes = golden("mlp_tanh.onnx").len();
    assert_eq!(
        with_manifest(|m| m["files"]["step.onnx"] = hash(bytes as u64)),
        "entry \"step.onnx\": damaged or cut short, its SHA-256 differs"
    );
    assert_eq!(
        with_manifest(|m| m["files"]["step.onnx"] = hash(5)),
        format!("entry \"step.onnx\": {bytes} bytes, but the manifest says 5")
    );
    assert!(with_manifest(|m| m["format"] = json!(2)).contains("format 2, but this version reads format 1"));
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let write =
        |m: &serde_json::Value, e: &[(String, Vec<u8>)]| write_bundle(parse(m), e).unwrap_err().to_string();
    let m = manifest(16, 6);
    assert_eq!(write(&m, &[]), "entry \"step.onnx\": missing, but functions.step names it");
    let mut twice = entries();
    twice.push(twice[0].clone());
    assert_eq!(write(&m, &twice), "entry \"step.onnx\": stands there twice");
    let mut named = entries();
    named.push(("weights.bin".into(), vec![]));
    assert!(write(&m, &named).starts_with("entry \"weights.bin\": not a name"));
    let mut long = entries();
    long[1].1 = vec![b'a'; (1 << 20) + 1];
    assert_eq!(write(&m, &long), "entry \"spec.stl\": 1048577 bytes, more than 1048576");
    let mut binary = entries();
    binary[1].1 = vec![b'a', 0xFF];
    assert_eq!(write(&m, &binary), "entry \"spec.stl\": not UTF-8 from byte 1 on");
    let mut monitored = m.clone();
    monitored["monitors"] = json!([{ "name": "up", "dt": 0.02, "trip": "violated", "action": "soft_stop" }]);
    assert_eq!(write(&monitored, &entries()[..1]), "entry \"spec.stl\": missing, but monitors names it");
    let mut proven = m;
    proven["parity"] = common::parity(1e-6);
    assert_eq!(write(&proven, &entries()), "entry \"parity.safetensors\": missing, but parity names it");
    let mut nan = parse(&manifest(16, 6));
    nan.joints[0].kp = f64::NAN;
    assert!(
        write_bundle(nan, &entries()).unwrap_err().to_string().contains("joints.joint_0.kp: NaN is negative")
    );
}

#[test]
fn graph_and_manifest_must_agree() {
    let load = |m: &serde_json::Value, onnx: Vec<u8>| {
        Policy::load(&bundle(m, &[("step.onnx", onnx)]), &Options::default()).unwrap_err().to_string()
    };
    assert_eq!(
        load(&manifest(17, 6), golden("mlp_tanh.onnx")),
        "function \"step\": observation has 16 numbers in the graph [1, 16], but 17 in the manifest"
    );
    assert_eq!(
        load(&manifest(16, 5), golden("mlp_tanh.onnx")),
        "function \"step\": action has 6 numbers in the graph [1, 6], but 5 in the manifest"
    );
    let mut m = manifest(16, 6);
    m["functions"]["step"]["inputs"] = json!({ "observation": "observation" });
    assert_eq!(
        load(&m, golden("mlp_tanh.onnx")),
        "function \"step\": input \"observation\" of the manifest is not in the graph; the graph has obs [1, 16]"
    );
    assert_eq!(load(&manifest(16, 6), b"not onnx".to_vec()).split(':').next(), Some("step.onnx"));
    let mut foreign = manifest(16, 6);
    foreign["functions"]["step"]["inputs"] = json!({ "obs": "params" });
    assert_eq!(
        load(&foreign, golden("mlp_tanh.onnx")),
        "function \"step\": input \"obs\" is bound to what only the function model is given; the graph has obs [1, 16]"
    );
    let _: fn(LoadError) -> Box<dyn std::error::Error> = |e| Box::new(e);
}
