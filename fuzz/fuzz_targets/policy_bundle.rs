#![no_main]
//! Bytes → bundle → policy → replay: no panic, bounded, and what is accepted has exactly one spelling.

use arbitrary::{Result, Unstructured};
use cadenza_fuzz::{STRUCTURED, manifest, parse, step, tight};
use cadenza_policy::bundle::write_archive;
use cadenza_policy::{Bundle, Policy, write_bundle};
use libfuzzer_sys::fuzz_target;

/// An archive that is right but for a few entries or bytes.
fn archive(u: &mut Unstructured<'_>) -> Result<Option<Vec<u8>>> {
    let entries = [("step.onnx".to_owned(), step()), ("x-note".to_owned(), b"note".to_vec())];
    let good = Bundle::from_bytes(write_bundle(parse(&manifest()), &entries).expect("right")).expect("right");
    let mut list: Vec<(String, Vec<u8>)> =
        good.entries().map(|n| (n.to_owned(), good.entry(n).unwrap_or_default().to_vec())).collect();
    for _ in 0..u.int_in_range(0..=3)? {
        let i = u.choose_index(list.len().max(1))?;
        match u.int_in_range(0..=3)? {
            0 => {
                let names = ["spec.stl", "x-a", "x-b", "parity.safetensors", "init.onnx", "../x", "X", ""];
                list.push(((*u.choose(&names)?).to_owned(), u.arbitrary::<&[u8]>()?.to_vec()));
            }
            1 if i < list.len() => drop(list.remove(i)),
            2 if i < list.len() && !list[i].1.is_empty() => {
                let at = u.choose_index(list[i].1.len())?;
                list[i].1[at] ^= u.arbitrary::<u8>()?;
            }
            _ => {}
        }
    }
    let entries: Vec<(&str, &[u8])> = list.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    let Ok(mut file) = write_archive(&entries) else {
        return Ok(None);
    };
    for _ in 0..u.int_in_range(0..=4)? {
        let at = u.choose_index(file.len())?;
        match u.int_in_range(0..=3)? {
            0 => file.truncate(at),
            1 => file.extend(u.arbitrary::<[u8; 4]>()?),
            _ => file[at] = u.arbitrary()?,
        }
        if file.is_empty() {
            break;
        }
    }
    Ok(Some(file))
}

fuzz_target!(|data: &[u8]| {
    let file = match data.split_first() {
        Some((&STRUCTURED, rest)) => match archive(&mut Unstructured::new(rest)) {
            Ok(Some(file)) => file,
            _ => return,
        },
        _ => data.to_vec(),
    };
    let Ok(bundle) = Bundle::from_bytes(file) else {
        return;
    };
    let entries: Vec<(&str, &[u8])> =
        bundle.entries().map(|n| (n, bundle.entry(n).expect("its own entry"))).collect();
    assert_eq!(write_archive(&entries).expect("as read"), bundle.as_bytes());
    if let Ok(mut policy) = Policy::load(&bundle, &tight()) {
        let _ = policy.verify(&bundle);
    }
});
