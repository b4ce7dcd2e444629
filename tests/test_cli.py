"""Every verb as a user calls it: a subprocess in an empty folder."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cadenza.cli import VERBS, help_text

HELP = [
    *([name] for name in VERBS),
    *(
        ["stl", "eval"],
        ["stl", "explain"],
        ["stl", "decompose"],
        ["robots", "list"],
        ["robots", "check"],
        ["bench", "latency"],
        ["bench", "compare"],
    ),
]


@pytest.fixture(scope="module")
def log(reach_bundle, tmp_path_factory):
    """A log that `cadenza run` recorded, and what it printed."""
    path = tmp_path_factory.mktemp("cli") / "run.mcap"
    words = ["run", str(reach_bundle), "--robot", "arm6", "--device", "sim", "--virtual", "--seconds", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "cadenza.cli", *words, "--record", str(path), "--set", "goal_y=0.1"],
        capture_output=True, text=True, timeout=120, cwd=path.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path, done.stdout


def test_help_lists_every_verb(cadenza):
    text = cadenza("--help").stdout
    assert text == help_text()
    assert all(name in text and verb.summary in text for name, verb in VERBS.items())
    assert cadenza(code=2).stdout == text
    assert cadenza("--version").stdout.startswith("cadenza 0.")


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_every_verb_explains_itself_with_an_example(cadenza, words):
    text = cadenza(*words, "--help").stdout
    assert "usage" in text.lower()
    example = text[text.lower().index("example") :]
    assert f"cadenza {' '.join(words)}" in example or f"cadenza {words[0]}" in example
    assert "PROGRAM" not in text


@pytest.mark.parametrize(
    "words, told",
    [
        (["trian"], "did you mean 'train'"),
        (["reprot"], "did you mean 'report'"),
        (["xyzzy"], "unknown verb 'xyzzy'"),
        (["train", "symphony", "--task", "cadenza/ReachArm7-v0"], "did you mean 'cadenza/ReachArm6-v0'"),
        (["train", "symfony", "--task", "x"], "unknown algorithm 'symfony'; did you mean 'symphony'?"),
        (["train", "symphony", "--task", "cadenza/Reach6-v0"], "did you mean 'cadenza/ReachArm6-v0'?"),
        (["train", "symphony", "--task", "Hopper-v5"], "did you mean 'gym:Hopper-v5'?"),
        (["train", "symphony", "--task", "gym:Hoper-v5"], "did you mean 'gym:Hopper-v5'?"),
        (
            ["train", "symphony", "--task", "cadenza/ReachArm6-v0", "--set", "gama=0.9"],
            "did you mean 'gamma'?",
        ),
        (
            ["train", "symphony", "--task", "cadenza/ReachArm6-v0", "--set", "domain.mas=1,1"],
            "did you mean 'mass'?",
        ),
        (
            ["train", "symphony", "--task", "cadenza/ReachArm6-v0", "--set", "domain.mass=1.2,0.8"],
            "mass (1.2, 0.8)",
        ),
        (["train"], "which algorithm? One of: symphony, sac"),
        (["train", "symphony"], "--task"),
        (["train", "symphony", "--task", "cadenza/ReachArm6-v0", "--set", "nonsense=1"], "nonsense=1"),
        (
            ["train", "symphony", "--task", "cadenza/ReachArm6-v0", "--set", "explore_steps=many"],
            "--set explore_steps=many: int wanted",
        ),
        (["train", "sac", "--task", "x", "--set", "target_entropy=low"], "target_entropy=low: float wanted"),
        (["train", "symphony", "--task", "gym:Hopper-v5", "--actors", "0"], "actors 0 must be at least 1"),
        (["train", "symphony", "--task", "gym:Hopper-v5", "--ray", "h:1"], "--ray h:1 needs --actors N"),
        (["robots", "check", "arm7"], "did you mean 'arm6'"),
        (["bench", "latncy"], "latency"),
        (["run"], "BUNDLE"),
        (["inspect", "absent.cadenza"], "absent.cadenza"),
        (["report", "absent.mcap"], "absent.mcap"),
        (["replay", "absent.mcap"], "absent.mcap"),
        (["eval", "absent"], "absent"),
        (["resume", "absent"], "absent"),
        (["export", "absent", "-o", "x.cadenza"], "absent"),
        (["export", "absent"], "nothing to write"),
        (["stl", "eval", "x > 0", "absent.csv"], "absent.csv"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_is_one_sentence_and_code_two(cadenza, tmp_path, words, told):
    done = cadenza(*words, code=2)
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_robots(cadenza):
    assert cadenza("robots", "list").stdout.split()[:3] == ["arm6", "7", "joints"]
    assert "error" not in cadenza("robots", "check").stdout
    findings = json.loads(cadenza("robots", "check", "arm6", "--json").stdout)
    assert len(findings["arm6"]) >= 5 and all(f["status"] == "ok" for f in findings["arm6"])


def test_a_robot_that_does_not_fit_its_model(cadenza, tmp_path):
    from cadenza import load_robot

    robot = tmp_path / "mine"
    shutil.copytree(load_robot("arm6").path.parent, robot)
    toml = robot / "robot.toml"
    good = toml.read_text()
    for old, new, told in (
        ("position = [-2.6, 2.6]", "position = [2.6, -2.6]", "2.6"),
        ("home = 0.2", "home = 0.2\ncolour = 3", "colour"),
        ('name = "elbow_flex"', 'name = "knee"', "knee"),
        ("control_hz = 500", "control_hz = 0", "control_hz"),
    ):
        assert old in good
        toml.write_text(good.replace(old, new, 1))
        done = subprocess.run(
            [sys.executable, "-m", "cadenza.cli", "robots", "check", "mine"],
            capture_output=True, text=True, timeout=120, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode in (1, 2), done.stdout
        assert told in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def traces(tmp_path):
    x, y = np.array([1.0, 2.0, 0.5, 3.0]), np.array([0.0, 1.0, 2.0, 3.0])
    rows = "\n".join(f"{a},{b}" for a, b in zip(x, y, strict=True))
    (tmp_path / "log.csv").write_text(f'"x", y\n{rows}\n')
    np.savez(tmp_path / "log.npz", x=x, y=y)


@pytest.mark.parametrize("file", ["log.csv", "log.npz"])
def test_stl_eval(cadenza, traces, file):
    def ask(formula, *more, code=0):
        return cadenza("stl", "eval", formula, file, *more, code=code).stdout

    assert "robustness 0.25 at sample 0: satisfied" in ask("G[0,3] (x > 0.25)")
    assert "robustness -0.5 at sample 0: violated" in ask("G[0,3] (x > 1)", code=1)
    assert "robustness 0 at sample 0: not decided" in ask("G[0,3] (x > 0.5)")
    assert "robustness 1 at sample 2" in ask("y > 1", "--at", 2)
    assert "robustness 0.5" in ask("G[0,200ms] (x > 0) and x > $d", "--dt", 0.1, "--param", "d=0.5")


@pytest.mark.parametrize(
    "words, told",
    [
        (["G[0,2] (x > "], ["G[0,2] (x > ", "^"]),
        (["xx > 0"], ["xx", "did you mean `x`?", "^^"]),
        (["G[0,0.25s] (x > 0)", "--dt", "0.02"], ["0.25s", "0.24s", "0.26s", "^^^^^"]),
        (["G[0,1s] (x > 0)"], ["dt"]),
        (["x > 0", "--at", "9"], ["--at 9", "0 to 3"]),
        (["x > $d"], ["$d"]),
        (["x > $d", "--param", "d=high"], ["d=high"]),
    ],
    ids=str,
)
def test_stl_eval_refuses(cadenza, traces, words, told):
    done = cadenza("stl", "eval", words[0], "log.csv", *words[1:], code=2)
    assert all(text in done.stderr for text in told), done.stderr


@pytest.mark.parametrize(
    "content, told",
    [("x,y\n1,2\n3\n", "line 3"), ("x\n1\nnine\n", "nine"), ("x\n", "no samples")],
)
def test_broken_traces_name_the_line(cadenza, tmp_path, content, told):
    (tmp_path / "bad.csv").write_text(content)
    stderr = cadenza("stl", "eval", "x > 0", "bad.csv", code=2).stderr
    assert "bad.csv" in stderr and told in stderr


def test_stl_reads_the_logs_of_runs(cadenza, log):
    done = cadenza("stl", "eval", "G[0,200ms] (abs(err.elbow_flex) < 10 and level < 5)", log[0])
    assert "satisfied" in done.stdout
    assert "q.elbow_flex" in cadenza("stl", "eval", "q.elbow_fle > 0", log[0], code=2).stderr


def test_train_resume_eval_export(cadenza, tmp_path):
    small = ["--set", "explore_steps=512"]
    done = cadenza("train", "symphony", "--task", "cadenza/ReachArm6-v0", "--steps", 1600, "--out", "runs/a",
                   *small, timeout=300)  # fmt: skip
    assert "at 1600 transitions" in done.stdout and "cadenza eval runs/a" in done.stdout
    assert json.loads((tmp_path / "runs/a/config.json").read_text())["steps"] == 1600
    done = cadenza("resume", "runs/a", "--steps", 2400, timeout=300)
    assert "at 2400 transitions" in done.stdout
    done = cadenza("eval", "runs/a", "--episodes", 4)
    assert "4 episodes" in done.stdout and "95 % interval" in done.stdout
    result = json.loads(cadenza("eval", "runs/a", "--episodes", 4, "--json").stdout)
    assert result["steps"] == 2400 and result["episodes"] == 4
    cadenza("eval", "runs/a", "--episodes", 0, code=2)
    done = cadenza("export", "runs/a", "-o", "a.cadenza", "--onnx", "a.onnx")
    assert "parity 160 vectors" in done.stdout
    assert (tmp_path / "a.onnx").stat().st_size > 1000
    assert "160/160" in cadenza("check", "a.cadenza", "--robot", "arm6").stdout


def test_settings_that_may_be_none():
    from cadenza.verbs.train import TrainOptions, configure

    words = ("updates_per_vector_step=8", "action_bounds=unit", "snapshots=true", "actors=2")
    config = configure("symphony", TrainOptions("gym:Hopper-v5", set=words))
    assert (config.settings.updates_per_vector_step, config.settings.action_bounds) == (8, "unit")
    assert config.snapshots and config.actors == 2
    config = configure(
        "symphony", TrainOptions("cadenza/ReachArm6-v0", set=("updates_per_vector_step=none",))
    )
    assert config.settings.updates_per_vector_step is None


def test_a_run_that_diverges_ends_with_one_sentence(cadenza):
    words = ["--task", "gym:Pendulum-v1", "--preset", "tiny", "--steps", 200, "--out", "a"]
    settings = ["--set", "explore_steps=64", "hidden=16", "lr=1e30", "eval_every=10000"]
    stderr = cadenza("train", "symphony", *words, *settings, code=1).stderr
    assert "cadenza: training diverged at update" in stderr and "are in a/diverged.pt" in stderr
    assert "Traceback" not in stderr


def test_a_second_training_does_not_overwrite_the_first(cadenza, reach_run):
    before = {p.name: p.stat().st_mtime_ns for p in reach_run.iterdir()}
    words = ["--task", "cadenza/ReachArm6-v0", "--steps", 100, "--out", reach_run]
    done = cadenza("train", "symphony", *words, code=2)
    assert str(reach_run) in done.stderr
    assert {p.name: p.stat().st_mtime_ns for p in reach_run.iterdir()} == before


def test_a_torn_checkpoint_is_named(cadenza, reach_run, tmp_path):
    copy = tmp_path / "torn"
    shutil.copytree(reach_run, copy)
    torn = [p for p in copy.rglob("*") if p.is_file() and p.suffix in (".pt", ".safetensors", ".ckpt")]
    assert torn, list(copy.rglob("*"))
    for path in torn:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    stderr = cadenza("eval", "torn", code=2).stderr
    assert any(path.name in stderr for path in torn)
    assert "Traceback" not in stderr
    assert any(path.name in cadenza("resume", "torn", code=2).stderr for path in torn)


def test_inspect(cadenza, reach_bundle):
    out = cadenza("inspect", reach_bundle).stdout
    for word in ("reach", "arm6", "shoulder_pan", "goal_x", "workspace", "tool.z", "step.onnx", "symphony"):
        assert word in out, word
    stderr = cadenza("inspect", __file__, code=2).stderr
    assert "test_cli.py" in stderr


def test_check(cadenza, reach_bundle, tmp_path):
    out = cadenza("check", reach_bundle, "--robot", "arm6").stdout
    for word in ("160/160", "matched by name 7/7", "workspace"):
        assert word in out
    assert "did you mean 'arm6'" in cadenza("check", reach_bundle, "--robot", "arm", code=2).stderr
    bent = bytearray(reach_bundle.read_bytes())
    bent[len(bent) // 3] ^= 1
    (tmp_path / "bent.cadenza").write_bytes(bent)
    assert "bent.cadenza" in cadenza("check", "bent.cadenza", code=2).stderr


def test_run_on_the_simulator(log):
    path, out = log
    assert path.stat().st_size > 100_000
    for word in ("device sim", "virtual clock", "parity 160 vectors", "workspace", "finished"):
        assert word in out, word


def test_run_in_real_time_on_ideal_joints(cadenza, reach_bundle):
    out = cadenza("run", reach_bundle, "--robot", "arm6", "--device", "null", "--seconds", 0.5).stdout
    for word in ("device null", "wake lateness", "p99.9", "missed", "finished"):
        assert word in out, word


def test_run_takes_a_configuration_file(cadenza, reach_bundle, tmp_path):
    (tmp_path / "run.toml").write_text("seconds = 0.2\nvirtual_clock = true\n")
    words = ["run", reach_bundle, "--robot", "arm6", "--device", "null", "--config", "run.toml"]
    assert "virtual clock" in cadenza(*words).stdout
    (tmp_path / "run.toml").write_text("secnds = 0.2\n")
    stderr = cadenza(*words, code=2).stderr
    assert "run.toml" in stderr and "secnds" in stderr


@pytest.mark.parametrize(
    "words, told",
    [
        (["--device", "warp"], "warp"),
        (["--device", "null", "--set", "gaol_x=1"], "gaol_x"),
        (["--device", "null", "--set", "goal_x=99"], "99"),
        (["--device", "null", "--set", "goal_x"], "NAME=VALUE"),
        (["--device", "null", "--seconds", "-1"], "-1"),
        (["--device", "null", "--virtual"], "virtual clock"),
        (["--device", "replay:absent.mcap"], "absent.mcap"),
    ],
    ids=str,
)
def test_run_refuses(cadenza, reach_bundle, words, told):
    done = cadenza("run", reach_bundle, "--robot", "arm6", *words, code=2)
    assert told in done.stderr and "Traceback" not in done.stderr


def test_replay_and_report(cadenza, log, tmp_path):
    path, _ = log
    assert "commands identical" in cadenza("replay", path).stdout
    cadenza("report", path, "-o", "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "shoulder_pan" in page and "<svg" in page
    (tmp_path / "cut.mcap").write_bytes(path.read_bytes()[:300_000])
    cadenza("report", "cut.mcap", "-o", "cut.html")
    assert (tmp_path / "cut.html").stat().st_size > 10_000


def test_a_replay_on_another_bundle_differs_with_code_three(cadenza, log, reach_bundle, tmp_path):
    import torch

    from cadenza.export import export
    from cadenza.tasks import make_task

    task = make_task("cadenza/ReachArm6-v0")
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(32, 6), torch.nn.Tanh())
    export(tmp_path / "other.cadenza", net, manifest=task.manifest(), specification=task.spec())
    words = ["--robot", "arm6", "--device", f"replay:{log[0]}"]
    assert "identical" in cadenza("run", reach_bundle, *words).stdout
    done = cadenza("run", "other.cadenza", *words, code=3)
    assert "shoulder" in done.stdout + done.stderr or "tick" in done.stdout + done.stderr


def test_bench(cadenza, reach_bundle, tmp_path):
    words = ["bench", "latency", reach_bundle, "--robot", "arm6", "--seconds", 1]
    out = cadenza(*words, "--out", "a.json").stdout
    assert "whole tick" in out and "p99.9" in out
    assert json.loads((tmp_path / "a.json").read_text())
    assert cadenza("bench", "compare", "a.json", "a.json").stdout
    (tmp_path / "bad.json").write_text("{}")
    assert "bad.json" in cadenza("bench", "compare", "a.json", "bad.json", code=2).stderr
    assert "--hz 100" in cadenza(*words, "--hz", 100, code=2).stderr


def test_doctor(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cadenza.cli", "doctor"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    verdict = next(line for line in done.stdout.splitlines() if "verdict" in line)
    assert done.returncode == (2 if "not usable" in verdict else int("degraded" in verdict)), done.stdout
    for word in ("scheduler", "memory", "kernel", "wake test", "500 Hz"):
        assert word in done.stdout, word


@pytest.mark.parametrize(
    "module, extra, words",
    [
        ("tyro", "train", ["train", "symphony", "--task", "cadenza/ReachArm6-v0"]),
        ("torch", "train", ["eval", "runs/a"]),
        ("mujoco", "train", ["robots", "check"]),
        ("onnx", "train", ["export", "runs/a", "-o", "a.cadenza"]),
        ("onnx", "import", ["import", "policy.onnx", "-o", "a.cadenza"]),
        ("mujoco", "train", ["run", "{bundle}", "--robot", "arm6", "--device", "sim", "--seconds", "1"]),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_line(reach_bundle, tmp_path, module, extra, words):
    wrapper = (
        f"import sys; sys.modules[{module!r}] = None; "
        "from cadenza.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [word.format(bundle=reach_bundle) for word in words]
    done = subprocess.run(
        [sys.executable, "-c", wrapper, *words], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert f"pip install 'cadenza[{extra}]'" in done.stderr and module in done.stderr
    assert "Traceback" not in done.stderr


def test_the_runtime_verbs_need_only_numpy(reach_bundle, tmp_path):
    blocked = ["torch", "mujoco", "gymnasium", "tyro", "rich", "onnx", "onnxscript", "tensorboard"]
    wrapper = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); "
        "from cadenza.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    for words in (
        ["robots", "list"],
        ["inspect", str(reach_bundle)],
        ["check", str(reach_bundle), "--robot", "arm6"],
        ["run", str(reach_bundle), "--robot", "arm6", "--device", "null", "--virtual", "--seconds", "0.1"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", wrapper, *words], capture_output=True, text=True, timeout=120, cwd=tmp_path
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"


def test_a_closed_pipe_is_no_error(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m cadenza.cli --help | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr


def test_the_help_of_train_fits_a_screen(cadenza):
    for words in (["train", "--help"], ["train", "symphony", "--help"]):
        text = cadenza(*words).stdout
        assert len(text.splitlines()) <= 45
        assert "--task" in text and "example" in text


@pytest.mark.parametrize(("device", "text"), [("cuda", "finds no GPU here"), ("gpu", "there are cpu, cuda")])
def test_a_gpu_that_is_absent_is_said_so(cadenza, tmp_path, device, text):
    import torch

    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    words = ["--task", "cadenza/ReachArm6-v0", "--device", device, "--out", "runs/a"]
    stderr = cadenza("train", "symphony", *words, code=2).stderr
    assert f"device {device!r}" in stderr and text in stderr
    assert not (tmp_path / "runs").exists()


def test_a_run_of_another_version_is_refused_with_both(cadenza, reach_run, tmp_path):
    from cadenza import __version__

    copy = tmp_path / "old"
    shutil.copytree(reach_run, copy)
    data = json.loads((copy / "config.json").read_text()) | {"format": 0, "cadenza": "0.0.1"}
    (copy / "config.json").write_text(json.dumps(data))
    for verb in (["resume"], ["eval"], ["export", "-o", "a.cadenza"]):
        stderr = cadenza(verb[0], "old", *verb[1:], code=2).stderr
        assert "config.json" in stderr and "0.0.1 in format 0" in stderr and __version__ in stderr
