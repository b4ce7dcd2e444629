//! One file for each trick, each with its exact error. `attacks/make.py` writes the files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cadenza_policy::{Bundle, Options, Policy};

/// How far a file comes: why it is no bundle, cannot be loaded, or does not pass.
fn refusal(bytes: Vec<u8>) -> String {
    let bundle = match Bundle::from_bytes(bytes) {
        Ok(bundle) => bundle,
        Err(e) => return e.to_string(),
    };
    let mut policy = match Policy::load(&bundle, &Options::default()) {
        Ok(policy) => policy,
        Err(e) => return e.to_string(),
    };
    match policy.verify(&bundle) {
        Ok(report) if report.passed => "accepted".to_owned(),
        Ok(report) => {
            let w = report.worst;
            let at = format!("{} {} of sequence {}, step {}", w.tensor, w.output, w.sequence, w.step);
            format!("{at} is {} instead of {}, {:.1e} is allowed", w.got, w.expected, w.allowed)
        }
        Err(e) => e.to_string(),
    }
}

#[test]
fn every_trick_is_refused_by_name() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("attacks");
    let mut files: BTreeMap<String, Vec<u8>> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "cadenza"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect();
    let mut wrong = vec![];
    for (name, expected) in EXPECTED {
        let got = refusal(files.remove(*name).unwrap_or_else(|| panic!("{name} is missing: run make.py")));
        if got != *expected {
            wrong.push(format!("({name:?}, {got:?}),"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files.is_empty(), "not in the table: {:?}", files.keys());
}

#[rustfmt::skip]
const EXPECTED: &[(&str, &str)] = &[
    ("absolute-name", "entry \"/etc/passwd\": not a name of format 1 (others must start with x-, of a-z 0-9 _ . -, at most 64)"),
    ("another-name", "function \"step\": input \"observation\" of the manifest is not in the graph; the graph has obs [1, 2]"),
    ("another-size", "function \"step\": action has 2 numbers in the graph [1, 2], but 1 in the manifest"),
    ("attribute-twice", "step.onnx: node \"action\": attribute axis: stands there twice"),
    ("axis-sliced-twice", "step.onnx: tensor \"action\": axis 1 is sliced twice"),
    ("backslash-name", "entry \"..\\\\evil\": not a name of format 1 (others must start with x-, of a-z 0-9 _ . -, at most 64)"),
    ("beyond-floats", "manifest.json: line 1, column 324: number out of range"),
    ("bottomless-nesting", "manifest.json: x-deep.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0: nested deeper than 32"),
    ("bottomless-protobuf", "step.onnx: not an ONNX file: failed to decode Protobuf message: recursion limit reached"),
    ("claims-4-gigabytes", "entry \"manifest.json\": 4294967040 bytes, more than 1048576"),
    ("claims-more-than-the-file", "entry \"manifest.json\": damaged or cut short, its CRC-32 differs"),
    ("comment", "not canonical at byte 1662: headers, order or padding were changed"),
    ("constant-of-all-memory", "step.onnx: node \"c\": loading the graph takes more than 16777216 elements"),
    ("cut-short", "not canonical at byte 1634: headers, order or padding were changed"),
    ("cyclic-graph", "step.onnx: node \"a\": tensor \"b\" is not computed before it"),
    ("dangling-output", "step.onnx: node \"graph outputs\": tensor \"action\" is not computed before it"),
    ("data-descriptor", "not a bundle, broken after entry \"step.onnx\": unsupported Zip archive: The file length is not available in the local header"),
    ("dated", "not canonical at byte 1386: headers, order or padding were changed"),
    ("deep-nesting", "manifest.json: x-deep.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0: nested deeper than 32"),
    ("defined-twice", "step.onnx: tensor \"action\" is defined twice"),
    ("deflate-bomb", "entry \"x-bomb\": compressed with Deflated, but entries must be stored"),
    ("dimension-0-hides-others", "step.onnx: tensor \"e\": [65536, 65536, 0] is beyond the limits"),
    ("dimension-2-to-the-63", "step.onnx: tensor \"obs\": [1, 9223372036854775807] is beyond the limits"),
    ("directory-has-another-checksum", "not canonical at byte 1606: headers, order or padding were changed"),
    ("directory-has-another-size", "not canonical at byte 1610: headers, order or padding were changed"),
    ("directory-lists-one-less", "not canonical at byte 1650: headers, order or padding were changed"),
    ("directory-names-another", "not canonical at byte 1638: headers, order or padding were changed"),
    ("divides-by-zero", "manifest.json: normalizer.spread.1: 0 with eps is no divisor for a 32-bit float"),
    ("duplicate-entry-in-files", "manifest.json: duplicate key files.step.onnx"),
    ("duplicate-entry", "entry \"x-note\": stands there twice"),
    ("duplicate-key-by-escape", "manifest.json: duplicate key joints.0.kp"),
    ("duplicate-key", "manifest.json: duplicate key joints.0.kp"),
    ("empty", "not a bundle, broken after the start: i/o error: failed to fill whole buffer"),
    ("encrypted", "not a bundle, broken after entry \"step.onnx\": unsupported Zip archive: Password required to decrypt file"),
    ("endless-history", "manifest.json: observation.size: 131072 is more than 65536, over all terms"),
    ("endless-state", "manifest.json: carry.h.shape: [65536, 65536, 65536, 65536] (4 dimensions) is no shape of up to 6 with 1 to 65536 numbers"),
    ("entry-in-an-entry", "not canonical at byte 14: headers, order or padding were changed"),
    ("external-data-in-a-constant", "step.onnx: tensor \"c\" keeps its data in another file; save with external_data=False (onnx.save_model) to inline it"),
    ("external-data", "step.onnx: tensor \"w\" keeps its data in another file; save with external_data=False (onnx.save_model) to inline it"),
    ("flipped-bit", "entry \"step.onnx\": damaged or cut short, its CRC-32 differs"),
    ("folds-for-ever", "step.onnx: node \"c8\": loading the graph takes more than 16777216 elements"),
    ("foreign-domain", "step.onnx: node \"action\": operator ai.onnx.contrib.PyOp is not supported; only the default domain is"),
    ("gains-for-a-joint-twice", "manifest.json: joints: \"hip\" stands there twice"),
    ("hidden-between-entries", "not a bundle, broken after entry \"step.onnx\": invalid Zip archive: Invalid local file header"),
    ("hidden-in-padding", "not canonical at byte 1208: headers, order or padding were changed"),
    ("if-node", "step.onnx: node \"action\": operator If is not supported; a tick has no control flow: export a straight graph"),
    ("infinite-by-folding", "step.onnx: tensor \"v\": element 1 is inf"),
    ("infinite-limit", "manifest.json: line 1, column 378: expected value"),
    ("infinite-weight", "step.onnx: tensor \"w\": element 0 is -inf"),
    ("leading-bytes", "not a bundle, broken after the start: invalid Zip archive: Invalid local file header"),
    ("length-beyond-the-file", "step.onnx: not an ONNX file: field 7 has 1099511627776 bytes, but 0 follow"),
    ("listed-but-absent", "entry \"x-note\": missing, but files names it"),
    ("local-function", "step.onnx: model-local function \"evil\": export with functions inlined"),
    ("lone-surrogate", "manifest.json: line 1, column 30: unexpected end of hex escape"),
    ("long-name", "entry \"x-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\": not a name of format 1 (others must start with x-, of a-z 0-9 _ . -, at most 64)"),
    ("loop-node", "step.onnx: node \"action\": operator Loop is not supported; a tick has no control flow: export a straight graph"),
    ("manifest-beyond-its-cap", "entry \"manifest.json\": 1048577 bytes, more than 1048576"),
    ("manifest-is-missing", "entry \"manifest.json\": missing, but the format names it"),
    ("manifest-not-utf8", "manifest.json: line 1, column 11: invalid unicode code point"),
    ("manifest-twice-the-text", "manifest.json: line 1, column 1015: trailing characters"),
    ("mistyped", "manifest.json: joints[0].kp: invalid type: string \"20\", expected f64 (written by cadenza 0.1.0)"),
    ("name-that-is-no-text", "entry \"x-\\u{a0}■\": not a name of format 1 (others must start with x-, of a-z 0-9 _ . -, at most 64)"),
    ("nan-weight", "step.onnx: tensor \"w\": element 1 is NaN"),
    ("negative-dimension", "step.onnx: tensor \"w\": dimension -1"),
    ("negative-gain", "manifest.json: joints.hip.kd: -0.5 is negative or not finite"),
    ("nested-graphs", "step.onnx: node \"action\": operator If is not supported; a tick has no control flow: export a straight graph"),
    ("network-by-path", "manifest.json: functions.step.file: \"../../../etc/passwd\", but the function comes from step.onnx"),
    ("network-by-url", "manifest.json: functions.step.file: \"https://example.org/step.onnx\", but the function comes from step.onnx"),
    ("newer-format", "manifest.json: format 2, but this version reads format 1"),
    ("newer-version-needed", "not canonical at byte 1378: headers, order or padding were changed"),
    ("no-graph", "step.onnx: the file holds no graph"),
    ("normalized-twice", "manifest.json: normalizer.where: Graph, but in_graph.normalize is false"),
    ("not-a-number", "manifest.json: line 1, column 320: expected value"),
    ("not-aligned", "not canonical at byte 1208: headers, order or padding were changed"),
    ("not-protobuf", "step.onnx: not an ONNX file: failed to decode Protobuf message: invalid varint"),
    ("nul-in-name", "entry \"x-a\\0.onnx\": not a name of format 1 (others must start with x-, of a-z 0-9 _ . -, at most 64)"),
    ("offset-twice", "manifest.json: action.offset: the graph already does this (in_graph.action_offset), so it must be empty"),
    ("one-node-of-thousands", "step.onnx: 4097 operations, more than 4096"),
    ("opset-of-tomorrow", "step.onnx: opset 99 of the default domain; 11 to 24 are read"),
    ("out-of-order", "not canonical at byte 14: headers, order or padding were changed"),
    ("overlapping-entries", "not canonical at byte 1632: headers, order or padding were changed"),
    ("product-of-dimensions", "step.onnx: tensor \"obs\": [60000, 60000] is beyond the limits"),
    ("promises-more-weights", "step.onnx: tensor \"w\": 4 raw bytes for 67108864 elements of type 1"),
    ("random-numbers", "step.onnx: node \"action\": operator RandomNormalLike is not supported; give the noise as an input (binding noise)"),
    ("rates-that-do-not-divide", "manifest.json: rates.policy_dt: 0.0213 is not a whole multiple of rates.control_dt"),
    ("right-to-left", "manifest.json: name: the character '\\u{202e}' has no place in a text"),
    ("scaled-twice", "manifest.json: action.scale: the graph already does this (in_graph.action_scale), so it must be empty"),
    ("several-rows-in-a-tick", "manifest.json: functions.step.batch: 2, but only critic and model run on several rows"),
    ("symbolic-link", "not canonical at byte 1630: headers, order or padding were changed"),
    ("terminal-escape-in-key", "manifest.json: na\\u{1b}[2Jme: the character '\\u{1b}' has no place in a text"),
    ("terminal-escape-in-operator", "step.onnx: node \"action\": operator \\u{1b}[2JRelu is not supported"),
    ("terminal-escape", "manifest.json: name: the character '\\u{1b}' has no place in a text"),
    ("text-is-no-text", "entry \"spec.stl\": not UTF-8 from byte 9 on"),
    ("too-many-entries", "more than 256 entries"),
    ("trailing-bytes", "not canonical at byte 1664: headers, order or padding were changed"),
    ("traversal-name", "entry \"../../etc/cron.d/evil\": not a name of format 1 (others must start with x-, of a-z 0-9 _ . -, at most 64)"),
    ("two-disks", "not canonical at byte 1646: headers, order or padding were changed"),
    ("unknown-key", "manifest.json: joints[0].gear_ratio: unknown field `gear_ratio`, expected one of `name`, `default`, `kp`, `kd`, `position`, `velocity_max`, `effort_max` (written by cadenza 0.1.0)"),
    ("unlisted-entry", "entry \"x-note\": not listed in the manifest's files"),
    ("unread-attribute", "step.onnx: node \"action\": attribute overlap: is not read by this version"),
    ("vectors-by-path", "entry \"/dev/zero\": not a name of format 1 (others must start with x-, of a-z 0-9 _ . -, at most 64)"),
    ("vectors-header-of-all-memory", "parity.safetensors: a header of 4611686018427387904 bytes, more than 1048576"),
    ("vectors-not-a-number", "parity.safetensors: tensor \"obs\" is NaN at element 1"),
    ("vectors-of-another-type", "parity.safetensors: tensor \"obs\" has the type F64, not F32"),
    ("vectors-of-nothing", "parity.safetensors: tensor \"obs\" is missing"),
    ("vectors-overlap", "parity.safetensors: invalid offset for tensor `expected`"),
    ("vectors-that-differ", "action 0 of sequence 0, step 0 is 0.25 instead of 0.26, 3.6e-6 is allowed"),
    ("vectors-whose-count-overflows", "parity.safetensors: tensor \"obs\" holds 0 vectors, not 1 to 65536"),
    ("vectors-without-steps", "parity.safetensors: tensor \"obs\" holds 0 vectors, not 1 to 65536"),
    ("weights-changed-by-one-percent", "action 0 of sequence 0, step 0 is 0.255 instead of 0.25, 3.5e-6 is allowed"),
    ("wrong-length", "entry \"step.onnx\": 94 bytes, but the manifest says 5"),
    ("wrong-sha", "entry \"step.onnx\": damaged or cut short, its SHA-256 differs"),
    ("zip64", "not canonical at byte 1392: headers, order or padding were changed"),
];
