//! Every verb as its user runs it: a process, a folder, an exit code, words.

mod common;

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use cadenza_runtime::log::entry::Entry;
use cadenza_runtime::log::{Log, Recorder, Topic};
use common::{JOINTS, Place, bundle, bundle_with, parity, program, robot};
use serde_json::{Value, json};

#[test]
fn every_verb_explains_itself_with_an_example() {
    let place = Place::new();
    let verbs =
        ["doctor", "inspect", "check", "run", "replay", "bench", "bench latency", "bench compare", "report"];
    for verb in verbs {
        let said = place.run(&format!("{verb} --help"));
        assert!(said.err.is_empty(), "{}", said.err);
        let text = said.code(0);
        assert!(text.contains("Example:") && text.contains(&format!("cadenza-rt {verb}")), "{text}");
        assert!(!text.contains("PROGRAM"), "{text}");
    }
    assert!(place.run("--help").code(0).contains("inspect"));
    assert!(place.run("--version").code(0).starts_with("cadenza-rt "));
}

#[test]
fn usage_errors_name_the_word_and_end_with_2() {
    let place = Place::new();
    let cases = [
        ("", "which verb?"),
        ("insepct walk.cadenza", "unrecognized subcommand 'insepct'"),
        ("run walk.cadenza", "--robot"),
        ("run walk.cadenza --robot robot --fast", "unexpected argument '--fast'"),
        ("run walk.cadenza --robot robot --seconds soon", "invalid value 'soon'"),
        ("doctor --priority 99", "99"),
        ("doctor --hz 0", "--hz 0"),
        ("doctor --hz -5", "--hz -5"),
        ("doctor --seconds nan", "--seconds NaN"),
    ];
    for (line, words) in cases {
        let said = place.run(line);
        assert!(said.out.is_empty() && said.err.starts_with("cadenza-rt: "), "{line}: {}", said.err);
        let text = said.code(2);
        assert!(text.contains(words), "{line}: {text}");
    }
}

#[test]
fn doctor_measures_and_judges() {
    let place = Place::new();
    let said = place.run("doctor --hz 200 --seconds 0.1 --json");
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["hz"], 200.0);
    assert!(json["wake"]["ticks"].as_u64().unwrap() >= 1);
    assert!((0..=2).contains(&said.code), "{}", said.code);
    assert!(place.run("doctor --hz 200 --seconds 0.1").out.contains("verdict"));
}

#[test]
fn inspect_tells_what_a_bundle_holds() {
    let place = Place::new();
    let text = place.run("inspect walk.cadenza").code(0);
    let words = [
        "name         walk",
        "policy 25 Hz, control 500 Hz (20 control ticks",
        "pan        0.1  120   4   [-2, 2]         3      30",
        "joint_pos",
        "position_offset",
        "goal_x",
        "fence: violated -> soft_stop, every 0.04 s",
        "spec fence: G[0,5] (q.pan < 5);",
        "tolerance 1e-5 + 1e-5·|y|",
        "step (step.onnx): observation [1, 16] -> action [1, 6]",
        "linear 16x32",
        "% of the control period",
    ];
    for words in words {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let json: Value = serde_json::from_str(&place.run("inspect walk.cadenza --json").code(0)).unwrap();
    assert_eq!(json["manifest"]["joints"][2]["name"], "elbow");
    assert_eq!(json["footprint"]["macs"], 16 * 32 + 32 * 32 + 32 * 6);
    let id = json["id"].as_str().unwrap();
    assert!(id.len() == 64 && text.contains(id));
}

#[test]
fn check_proves_a_bundle_and_its_fit() {
    let place = Place::new();
    let text = place.run("check walk.cadenza").code(0);
    assert!(text.contains("parity       8/8 max |d|") && text.contains("(tol 1e-5 + 1e-5·|y|)"), "{text}");
    assert!(text.contains("d=0 s=1 H=1"), "{text}");
    let text = place.run("check walk.cadenza --robot robot").code(0);
    let words = [
        "matched by name 6/6",
        "bundle looser on 12, robot's kept",
        "pan position: -2 -> -1",
        "6 capped by the robot",
        "pan kp: 120 -> 100",
        "monitors     1 compile",
    ];
    for words in words {
        assert!(text.contains(words), "{words}\n{text}");
    }
}

#[test]
fn another_result_than_in_training_is_exit_code_3() {
    let place = Place::new();
    place.write("off.cadenza", bundle_with(|_| {}, parity(0.01), "spec fence: G[0,5] (q.pan < 5);\n"));
    let text = place.run("check off.cadenza").code(3);
    assert!(text.contains("off.cadenza: parity: sequence 0, step 1: action[1]"), "{text}");
    let text = place.run("run off.cadenza --robot robot --virtual --seconds 0.1").code(3);
    assert!(text.contains("parity"), "{text}");
}

#[test]
fn bad_bundles_and_robots_are_named() {
    let place = Place::new();
    let mut flipped = place.read("walk.cadenza");
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    place.write("flipped.cadenza", flipped);
    place.write("empty.cadenza", "");
    place.write("slow.toml", robot(250.0, &JOINTS));
    place.write("armless.toml", robot(500.0, &JOINTS[1..]));
    place.write("typo.toml", robot(500.0, &JOINTS).replace("[rates]", "[rats]"));
    let odd = "spec fence: G[0,5] (q.pn < 5);\n";
    place.write("odd.cadenza", bundle_with(|_| {}, parity(0.0), odd));
    let broken = "spec fence: G[0,5 (q.pan < 5);\n";
    place.write("broken.cadenza", bundle_with(|_| {}, parity(0.0), broken));
    let cases = [
        ("inspect none.cadenza", "none.cadenza: "),
        ("check flipped.cadenza", "flipped.cadenza: entry"),
        ("inspect empty.cadenza", "empty.cadenza: "),
        ("check walk.cadenza --robot nowhere", "'nowhere'"),
        ("check walk.cadenza --robot slow.toml", "0.002 s, the robot runs at 0.004 s"),
        ("check walk.cadenza --robot armless.toml", "no joint pan"),
        ("check walk.cadenza --robot typo.toml", "typo.toml:"),
        ("check odd.cadenza --robot robot", "did you mean `q.pan`"),
        ("check broken.cadenza --robot robot", "^"),
        ("run walk.cadenza --robot slow.toml --virtual --seconds 1", "0.002 s, the robot runs at 0.004 s"),
        ("run walk.cadenza --robot armless.toml --virtual --seconds 1", "no joint pan"),
        ("run walk.cadenza --robot robot --viewer", "belong to the Python front end"),
        ("run walk.cadenza --robot robot --live 9000", "belong to the Python front end"),
        ("replay none.mcap", "none.mcap: "),
        ("replay walk.cadenza", "walk.cadenza: not an MCAP file"),
        ("report walk.cadenza", "walk.cadenza: not an MCAP file"),
        ("bench compare a.json b.json", "a.json: "),
        ("bench latency walk.cadenza --robot robot --hz 100", "--hz 100"),
        ("bench latency walk.cadenza --robot robot --stress 5000", "at most 1024"),
        ("bench latency walk.cadenza --robot robot --evict lots", "'lots': a size such as 64MiB"),
        ("bench latency walk.cadenza --robot robot --evict 5GiB", "at most 4 GiB"),
    ];
    for (line, words) in cases {
        let said = place.run(line);
        assert!(said.err.starts_with("cadenza-rt: "), "{line}: {}", said.err);
        let text = said.code(2);
        assert!(text.contains(words), "{line}: {text}");
    }
}

#[test]
fn bad_runs_are_refused_before_anything_moves() {
    let place = Place::new();
    place.write("odd.toml", "secnds = 3\n");
    let cases = [
        ("--virtual", "seconds = none"),
        ("--seconds -1", "seconds = -1"),
        ("--seconds 1 --priority 99", "priority = 99"),
        (
            "--seconds 1 --device feetech",
            "device 'feetech' is not built into this version; there are: sim, null",
        ),
        ("--seconds 1 --device replay", "replay:LOG"),
        ("--seconds 1 --device sim", "--mujoco-lib PATH, the libmujoco.so of a MuJoCo wheel"),
        ("--seconds 1 --device sim --mujoco-lib none.so", "none.so: cannot open shared object file"),
        ("--seconds 1 --device null --mujoco-lib none.so", "only the device 'sim' has a use for it"),
        ("--seconds 1 --set speed=1", "no command 'speed'; the bundle has: goal_x, goal_y, goal_z"),
        ("--seconds 1 --set goal_x=2", "command goal_x = 2 is outside [-1, 1]"),
        ("--seconds 1 --set goal_x=nan", "NaN"),
        ("--seconds 1 --set goal_x", "NAME=VALUE"),
        ("--seconds 1 --set goal_x=fast", "'fast' is not a number"),
        ("--seconds 1 --upsample linear", "horizon"),
        ("--config odd.toml", "odd.toml: "),
        ("--config none.toml", "none.toml: "),
    ];
    for (options, words) in cases {
        let text = place.run(&format!("run walk.cadenza --robot robot {options}")).code(2);
        assert!(text.contains(words), "{options}: {text}");
    }
}

#[test]
fn a_virtual_run_is_recorded_replayed_and_reported() {
    let place = Place::new();
    let text = place.run(
        "run walk.cadenza --robot robot --virtual --seconds 1 --set goal_x=0.5 --set goal_y=-1 --record run.mcap",
    );
    let text = text.code(0);
    let words = [
        "parity 8 vectors",
        "virtual clock",
        "armed        at 0.0",
        "monitor      fence",
        "0 violated",
        "run.mcap",
        "finished",
    ];
    for words in words {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let text = place.run("replay run.mcap").code(0);
    let [same, all] = text.split(' ').next().unwrap().split('/').collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    assert!(same == all && all.parse::<u32>().unwrap() >= 500, "{text}");
    assert!(text.contains("commands identical"), "{text}");
    assert_eq!(place.run("replay run.mcap --recompute walk.cadenza").code(0), text);
    assert_eq!(place.run("run walk.cadenza --robot robot --device replay:run.mcap").code(0), text);
    let page = place.run("report run.mcap").code(0);
    assert_eq!(page.trim(), "run.html");
    assert!(String::from_utf8(place.read("run.html")).unwrap().contains("<svg"));
    place.run("report run.mcap -o other.html").code(0);
    assert_eq!(place.read("other.html"), place.read("run.html"));
    assert!(place.run("report run.mcap -o no/such/folder.html").code(2).contains("no/such/folder.html"));
}

#[test]
fn equal_virtual_runs_give_equal_logs() {
    let place = Place::new();
    let line = "run walk.cadenza --robot robot --virtual --seconds 0.5 --set goal_z=0.75 --record";
    place.run(&format!("{line} a.mcap")).code(0);
    place.run(&format!("{line} b.mcap")).code(0);
    assert!(place.read("a.mcap") == place.read("b.mcap"), "the logs differ");
    place.run("run walk.cadenza --robot robot --virtual --seconds 0.5 --record c.mcap").code(0);
    assert!(place.read("a.mcap") != place.read("c.mcap"), "another command, the same log");
}

#[test]
fn another_bundle_on_recorded_states_differs_and_is_told_apart() {
    let place = Place::new();
    place.run("run walk.cadenza --robot robot --virtual --seconds 0.5 --record run.mcap").code(0);
    place.write("bold.cadenza", bundle(|m| m["action"]["scale"] = json!({ "*": 0.6 })));
    let said = place.run("run bold.cadenza --robot robot --device replay:run.mcap");
    let text = said.code(3);
    assert!(
        text.contains("commands differ, first at tick ") && text.contains("joint pan: q recorded"),
        "{text}"
    );
    let text = place.run("replay run.mcap --recompute bold.cadenza").code(2);
    assert!(text.contains("recorded with 'walk'"), "{text}");
    let text = place.run("run bold.cadenza --robot robot --device replay:run.mcap --seconds 3").code(2);
    assert!(text.contains("--seconds"), "{text}");
}

#[test]
fn a_damaged_log_is_refused_or_says_what_it_lacks() {
    let place = Place::new();
    place.run("run walk.cadenza --robot robot --virtual --seconds 4 --record run.mcap").code(0);
    let whole = place.read("run.mcap");
    place.write("cut.mcap", &whole[..whole.len() * 3 / 4]);
    let text = place.run("replay cut.mcap").code(0);
    assert!(
        text.contains("incomplete log: the file breaks off") && text.contains("commands identical"),
        "{text}"
    );
    let compared = |text: &str| -> u32 {
        let line = text.lines().find(|line| line.ends_with("identical")).unwrap();
        line.split('/').next().unwrap().parse().unwrap()
    };
    assert!((100..2000).contains(&compared(&text)), "{text}");
    place.write("stub.mcap", &whole[..100]);
    assert!(place.run("replay stub.mcap").code(2).contains("stub.mcap: "));
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    place.write("flipped.mcap", flipped);
    let text = place.run("replay flipped.mcap").code(2);
    assert!(text.contains("is lost") && text.contains("flipped.mcap: "), "{text}");
}

#[test]
fn a_changed_command_is_found_with_tick_joint_and_both_values() {
    let place = Place::new();
    place.run("run walk.cadenza --robot robot --virtual --seconds 0.5 --record run.mcap").code(0);
    let log = Log::open(&place.at("run.mcap")).unwrap();
    let mut recorder = Recorder::start(&place.at("changed.mcap"), log.header().clone());
    for request in log.requests().map(|r| r.unwrap().value) {
        recorder.push(Entry::Request { tick: request.tick, request: request.request });
    }
    for chunk in log.chunks().map(|c| c.unwrap().value) {
        let (id, step, prefix) = (chunk.id, chunk.step, chunk.prefix);
        recorder.push(Entry::Chunk { tick: chunk.tick, id, step, prefix, values: &chunk.values });
    }
    for (state, command) in log.states().zip(log.commands()) {
        let mut command = command.unwrap().value;
        if command.tick == 200 {
            command.q[2] += 1e-9;
        }
        recorder.push(Entry::State(&state.unwrap().value));
        recorder.push(Entry::Command(&command));
    }
    assert!(recorder.finish(log.stats().unwrap()).complete());
    let text = place.run("replay changed.mcap").code(3);
    assert!(text.contains("first at tick 200, joint elbow: q recorded 0."), "{text}");
}

#[test]
fn an_unwritable_log_does_not_stop_the_run() {
    let place = Place::new();
    let text =
        place.run("run walk.cadenza --robot robot --virtual --seconds 0.2 --record no/such/run.mcap").code(0);
    assert!(text.contains("no/such/run.mcap: recording stopped: ") && text.contains("finished"), "{text}");
}

#[test]
fn a_real_time_run_by_configuration_file_is_identical_when_replayed() {
    let place = Place::new();
    place.write("run.toml", "seconds = 60.0\nrecord = \"run.mcap\"\ndry_run = true\n");
    let text = place.run("run walk.cadenza --robot robot --config run.toml --seconds 0.3").code(0);
    assert!(text.contains("level") && text.contains("wake lateness") && text.contains("missed"), "{text}");
    assert!(place.run("replay run.mcap").code(0).contains("commands identical"));
}

#[test]
fn a_violated_property_stops_softly_and_ends_with_1() {
    let place = Place::new();
    let fence = "spec fence: G[0,5] (q.pan < -0.5);\n";
    place.write("fence.cadenza", bundle_with(|_| {}, parity(0.0), fence));
    let text = place.run("run fence.cadenza --robot robot --virtual --seconds 2 --record run.mcap").code(1);
    assert!(text.contains("MONITOR (fence)") && text.contains("soft stop"), "{text}");
    assert!(place.run("replay run.mcap").code(0).contains("commands identical"));
}

#[test]
fn an_interrupt_stops_softly() {
    let place = Place::new();
    let mut child = program(place.dir.path())
        .args(["run", "walk.cadenza", "--robot", "robot", "--record", "run.mcap"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The log is opened once signals are caught; the bound is for a stopped machine only.
    let begin = std::time::Instant::now();
    while !place.at("run.mcap").exists() {
        assert!(begin.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{out}");
    assert!(out.contains("stopped by the operator"), "{out}");
}

/// Killed without a word, a run leaves all that was written by the last of its flushes, which come each second.
#[test]
fn a_killed_run_leaves_what_it_had_flushed() {
    let place = Place::new();
    let mut child = program(place.dir.path())
        .args(["run", "walk.cadenza", "--robot", "robot", "--record", "run.mcap"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Ticks in the file after each of three flushes; the bound is for a stopped machine only.
    let mut flushed = Vec::new();
    let (begin, mut size) = (std::time::Instant::now(), 0);
    while flushed.len() < 3 {
        assert!(begin.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
        let now = std::fs::metadata(place.at("run.mcap")).map_or(0, |m| m.len());
        if now > size {
            size = now;
            flushed.extend(Log::open(&place.at("run.mcap")).ok().map(|log| log.len(Topic::State)));
            flushed.retain(|&ticks| ticks > 0);
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let log = Log::open(&place.at("run.mcap")).unwrap();
    let ticks: Vec<u64> = log.states().map(|s| s.unwrap().value.tick).collect();
    assert_eq!(ticks, (0..ticks.len() as u64).collect::<Vec<_>>());
    assert!(ticks.len() >= flushed[2] && flushed[2] > flushed[1] && flushed[1] > flushed[0], "{flushed:?}");
    assert!(!log.damage().is_empty() && log.stats().is_none());
    let text = place.run("replay run.mcap").code(0);
    assert!(text.contains("commands identical") && text.contains("breaks off"), "{text}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let place = Place::new();
    let mut child = program(place.dir.path())
        .args(["inspect", "walk.cadenza"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn a_bench_is_measured_written_and_compared() {
    let place = Place::new();
    let text =
        place.run("bench latency walk.cadenza --robot robot --hz 500 --seconds 0.4 --out a.json").code(0);
    for words in ["bare wake", "wake lateness", "whole tick", "missed ", "a.json", "p50"] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let mut stats: Value = serde_json::from_slice(&place.read("a.json")).unwrap();
    assert_eq!((&stats["schema"], &stats["stages"][0]["name"]), (&json!(1), &json!("bare wake")));
    assert!(stats["stages"][0]["count"].as_u64().unwrap().is_multiple_of(64));
    assert!(place.run("bench compare a.json a.json").code(0).contains("whole tick"));
    // Every tick twice as long.
    let row =
        stats["stages"].as_array_mut().unwrap().iter_mut().find(|row| row["name"] == "whole tick").unwrap();
    for bucket in row["buckets"].as_array_mut().unwrap() {
        bucket[0] = json!(2 * bucket[0].as_u64().unwrap());
    }
    place.write("b.json", stats.to_string());
    assert!(place.run("bench compare a.json b.json").code(4).contains("worse"));
    place.run("bench compare a.json b.json --fail-above 2.5").code(0);
    place.run("bench compare b.json a.json").code(0);
    place.write("c.json", "{}");
    assert!(place.run("bench compare a.json c.json").code(2).contains("c.json: after"));
}

#[test]
fn a_bench_under_stress_on_cold_caches_has_rows_and_a_page() {
    let place = Place::new();
    let words = "bench latency walk.cadenza --robot robot --seconds 0.1 --stress 1 --evict 256KiB --html a.html --out a.json";
    let text = place.run(words).code(0);
    for words in ["cold whole tick", "cold: missed", "cold / hot tick", "a.html", "a.json"] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let page = String::from_utf8(place.read("a.html")).unwrap();
    assert!(
        page.starts_with("<!doctype html>")
            && page.contains("<svg")
            && page.contains("Worst ticks on cold caches")
    );
    let stats: Value = serde_json::from_slice(&place.read("a.json")).unwrap();
    let config = &stats["config"];
    assert_eq!(
        (&config["stress"], &config["evict_bytes"], &config["device"]),
        (&json!(1), &json!(262_144), &json!("null"))
    );
    assert!(stats["load_before"].is_number() && stats["environment"]["rt"]["kernel"].is_string());
    assert_eq!(stats["cold"]["counters"]["ticks"], stats["counters"]["ticks"]);
    assert!(
        !stats["worst"].as_array().unwrap().is_empty()
            && !stats["cold"]["worst"].as_array().unwrap().is_empty()
    );
    let row =
        |name: &str| stats["stages"].as_array().unwrap().iter().find(|row| row["name"] == name).cloned();
    assert_eq!(row("cold whole tick").unwrap()["count"], row("whole tick").unwrap()["count"]);
    // What was asked for differs: said, not refused.
    let mut other = stats.clone();
    other["config"]["stress"] = json!(3);
    place.write("b.json", other.to_string());
    assert!(place.run("bench compare a.json b.json").code(0).contains("busy threads differs: 1 → 3"));
}
