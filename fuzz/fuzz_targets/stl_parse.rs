#![no_main]
//! Text → formula → text: no panic, bounded, errors point into the text, and what is printed is the formula.

use cadenza_stl::{Endpoint, Formula, ParseOptions, parse_file};
use libfuzzer_sys::fuzz_target;

/// What is read must come back from its own print, without the options that it was read with.
fn survives_printing(f: &Formula) {
    let printed = f.to_string();
    let names: Vec<&str> = f.signals().iter().map(String::as_str).collect();
    let o = ParseOptions { signals: Some(&names), ..Default::default() };
    let again = match Formula::parse(&printed, &o) {
        Ok(again) => again,
        Err(e) => panic!("{printed:?} is refused: {e}"),
    };
    assert!(again == *f, "{printed:?} is another formula");
    assert_eq!(again.to_string(), printed);
    assert_eq!((again.horizon(), again.history()), (f.horizon(), f.history()), "{printed:?}");
}

fuzz_target!(|text: &str| {
    let all = [
        ParseOptions::default(),
        ParseOptions { dt: Some(0.02), ..Default::default() },
        ParseOptions { signals: Some(&["x", "y", "gap"]), ..Default::default() },
        ParseOptions { until: Endpoint::Inclusive, dt: Some(0.1), ..Default::default() },
    ];
    for o in &all {
        match Formula::parse(text, o) {
            Ok(f) => survives_printing(&f),
            Err(e) => {
                assert!(e.start <= e.end && text.get(e.start..e.end).is_some(), "{e:?}");
                assert!(!e.to_string().is_empty());
            }
        }
    }
    if let Ok(properties) = parse_file(text, &all[1]) {
        for (_, f) in &properties {
            survives_printing(f);
        }
    }
});
