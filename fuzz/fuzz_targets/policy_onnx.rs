#![no_main]
//! Protobuf → graph → plan → run: whatever loads runs without a panic, in bounded time, gives finite numbers or an
//! error, and gives the same again whatever ran in between (nothing stale is read).

use arbitrary::Unstructured;
use cadenza_fuzz::{STRUCTURED, graph, model, run};
use cadenza_policy::{Isa, Session};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let isa = (data.len() % 2 == 1).then_some(Isa::Scalar);
    let (file, inputs, outputs) = match data.split_first() {
        Some((&STRUCTURED, rest)) => match graph::net(&mut Unstructured::new(rest)) {
            Ok(net) => (net.file, net.inputs, net.outputs),
            Err(_) => return,
        },
        // The names of the networks in tests/golden/policy.
        _ => (data.to_vec(), vec!["obs".to_owned()], vec!["action".to_owned()]),
    };
    let Ok(mut policy) = model(file, &inputs, &outputs, isa) else { return };
    let s: &mut Session = policy.function("model").expect("the manifest has it");
    let first = run(s, 1);
    let _ = run(s, 2);
    assert_eq!(run(s, 1), first);
});
