//! The latest-value buffer under every interleaving of its two ends, and every order that the memory model allows: loom
//! runs each of them. The source is the loop's own; only what it stands on is loom's.

use loom::thread;

/// Stands in for `control/sync.rs`.
mod sync {
    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::Arc;
    pub(super) use loom::sync::atomic::{AtomicU8, Ordering};
}

#[path = "../src/control/latest.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod latest;

/// A value of two halves: a torn one has different halves.
fn value(i: u64) -> [u64; 2] {
    [i, !i]
}

/// Two publishes against three reads: nothing is torn, nothing older comes after something newer, and what was published
/// last before the end is what is read at the end. Loom itself fails on any access of a slot that the other end may have.
fn newest_wins() {
    loom::model(|| {
        let (mut writer, mut reader) = latest::latest(value(0));
        let writing = thread::spawn(move || {
            for i in 1..=2 {
                writer.publish(value(i));
            }
        });
        let mut last = 0;
        for _ in 0..2 {
            let [now, check] = *reader.read();
            assert_eq!(check, !now, "torn");
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        writing.join().unwrap();
        assert_eq!(*reader.read(), value(2), "the newest is not lost");
        assert!(!reader.is_fresh());
    });
}

/// A question is filled in place, on top of an earlier one: the reader sees a whole one, and sees that it is new.
fn a_question_is_whole_and_fresh() {
    loom::model(|| {
        let (mut writer, mut reader) = latest::latest(value(0));
        let reading = thread::spawn(move || {
            let mut seen = 0;
            while seen == 0 {
                if reader.is_fresh() {
                    let [now, check] = *reader.read();
                    assert_eq!(check, !now, "torn");
                    seen = now;
                } else {
                    thread::yield_now();
                }
            }
            assert!(seen == 1 || seen == 2);
        });
        for i in 1..=2 {
            writer.publish_with(|slot| {
                slot[0] = i;
                slot[1] = !i;
            });
        }
        reading.join().unwrap();
    });
}

fn main() {
    newest_wins();
    a_question_is_whole_and_fresh();
    println!("loom: two models hold");
}
