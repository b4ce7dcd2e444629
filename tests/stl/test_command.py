"""`cadenza stl`: traces from files, verdicts and exit codes. tests/test_cli.py calls it as a user does."""

import json

import numpy as np
import pytest

from cadenza.cli import main
from cadenza.stl.trace_files import read_trace

X, Y = [1.0, 2.0, 0.5, 3.0], [0.0, 1.0, 2.0, 3.0]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in a folder of traces; gives what it printed."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{a},{b}\n" for a, b in zip(X, Y, strict=True))
    (tmp_path / "log.csv").write_text("x,y\n" + rows)
    timed = "".join(f"{0.1 * i:.3f}, {a}, {b}\n" for i, (a, b) in enumerate(zip(X, Y, strict=True)))
    (tmp_path / "timed.csv").write_text('\ufefftime, "x", y\r\n' + timed + "\n")
    np.save(tmp_path / "log.npy", np.stack([X, Y], axis=1))
    np.savez(tmp_path / "log.npz", x=X, y=np.array(Y, np.float32))
    np.savez(tmp_path / "wide.npz", p=np.stack([X, Y], axis=1))
    (tmp_path / "rules.stl").write_text("let low = y < 4;\nspec a: G[0,3] low;\nspec b: F[0,1] x > $d;\n")

    def call(*words, code=0):
        assert main(["stl", *map(str, words)]) == code
        done = capsys.readouterr()
        return done.err if code == 2 else done.out

    return call


@pytest.mark.parametrize(
    "trace", [["log.csv"], ["timed.csv"], ["log.npz"], ["log.npy", "--signals", "x,y"]], ids=lambda t: t[0]
)
def test_every_kind_of_trace(run, trace):
    assert "robustness 0.25 at sample 0: satisfied" in run("eval", "G[0,3] (x > 0.25)", *trace)
    assert "robustness -0.5 at sample 0: violated" in run("eval", "G[0,3] (x > 1)", *trace, code=1)
    assert "robustness 1 at sample 2" in run("eval", "y > 1", *trace, "--at", 2)


def test_wide_arrays_have_numbered_signals(run):
    assert "robustness 1 " in run("eval", "p[0] > p[1]", "wide.npz")


def test_time_columns_give_the_step(run, tmp_path):
    assert "G[0,2]" in run("eval", "G[0,200ms] (x > 0)", "timed.csv")
    assert "timed.csv has a step of 0.1 s" in run("eval", "x > 0", "timed.csv", "--dt", "0.2", code=2)
    assert read_trace(tmp_path / "timed.csv").dt == pytest.approx(0.1)
    (tmp_path / "jumps.csv").write_text("t,x\n0,1\n0.1,2\n0.35,3\n0.45,4\n")
    told = run("eval", "x > 0", "jumps.csv", code=2)
    assert "uneven" in told and "sample 2" in told and "0.25 s" in told and "--uneven" in told
    assert "robustness 1 " in run("eval", "x > 0", "jumps.csv", "--uneven")
    (tmp_path / "back.csv").write_text("t,x\n0,1\n-1,2\n")
    assert "uneven" in run("eval", "x > 0", "back.csv", code=2)


def test_files_of_properties(run, tmp_path):
    out = run("eval", "--file", "rules.stl", "log.csv", "--param", "d=0.5")
    assert "a: G[0,3] y < 4\nrobustness 1 " in out and "b: F[0,1] x > $d\nrobustness 1.5 " in out
    assert "violated" in run("eval", "--file", "rules.stl", "log.csv", "--param", "$d=5", code=1)
    found = json.loads(run("eval", "--file", "rules.stl", "log.csv", "--param", "d=0.5", "--json"))
    assert [one["name"] for one in found] == ["a", "b"]
    assert "--param e: the parameters are d" in run(
        "eval", "--file", "rules.stl", "log.csv", "--param", "d=1", "--param", "e=1", code=2
    )


def test_json_and_the_whole_trace(run, tmp_path):
    one = json.loads(run("eval", "F[1,1] x > 0", "log.csv", "--at", "3", "--json", code=1))
    assert one == {
        "name": "",
        "formula": "F[1,1] x > 0",
        "at": 3,
        "robustness": "-inf",
        "verdict": "violated",
    }
    run("eval", "G[0,1] x > 0", "log.csv", "--trace", "rho.csv", "--end", "strict")
    assert (tmp_path / "rho.csv").read_text() == "sample,robustness\n0,1.0\n1,0.5\n2,0.5\n"
    run("eval", "--file", "rules.stl", "log.csv", "--param", "d=0.5", "--trace", "rho.csv")
    table = read_trace(tmp_path / "rho.csv")
    assert table.names == ("sample", "a", "b") and table.samples[:, 1].tolist() == [1.0] * 4


def test_a_nan_is_a_fault(run, tmp_path):
    (tmp_path / "nan.csv").write_text("x\n1\nnan\n")
    assert "fault" in run("eval", "G[0,1] x > 0", "nan.csv", code=1)
    assert json.loads(run("explain", "G[0,1] x > 0", "nan.csv", "--json", code=1))["robustness"] == "nan"


def test_explain(run):
    out = run("explain", "let low = y < 2; G[0,3] low and x > 0.5", "log.csv", code=1)
    assert "violated by 1: y < 2 at step 3 (and[0] → G[0,3])" in out
    assert "y = 3" in out and out.index("-1  G[0,3] y < 2") < out.index("0.5  x > 0.5")
    found = json.loads(run("explain", "x > 0.5", "log.csv", "--json"))
    assert (found["robustness"], found["step"], found["values"]) == (0.5, 0, {"x": 1.0})


def test_decompose(run):
    out = run("decompose", "F[2,5] (x > 1 and F[0,2] x < 0) and G[0,3s] y < 2", "--dt", "0.5")
    assert "1 branches" in out and "branch 0: 12 allocations" in out
    assert "t0 = 0 + δ, δ in 2..5" in out and "t1 = t0 + δ, δ in 0..2" in out
    assert "reach x < 0 at t1" in out and "hold y < 2 from 0 to 6" in out
    assert "chain" in run("decompose", "G[0,6] F[0,2] x > 0", code=2)
    [branch] = json.loads(run("decompose", "G[0,6] F[0,2] x > 0", "--chain", "minimal", "--json"))
    assert branch["complete"] is False and len(branch["reach"]) == 3
    assert "incomplete" in run("decompose", "G[0,6] F[0,2] x > 0", "--chain", "minimal")


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("short.csv", "x,y\n1,2\n3\n", "short.csv, line 3: 1 cells, the header has 2"),
        ("word.csv", "x\n1\nnine\n", "word.csv, line 3"),
        ("empty.csv", "", "name every column"),
        ("head.csv", "x\n", "no samples"),
        ("gap.csv", "x,,y\n1,2,3\n", "name every column"),
        ("twice.csv", "x,x\n1,2\n", "x come twice"),
        ("junk.npy", "x", "junk.npy"),
        ("junk.npz", "x", "junk.npz"),
        ("blank.npz", "", "blank.npz"),
        ("junk.mcap", "x", "junk.mcap"),
    ],
)
def test_broken_traces_name_the_place(run, tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    words = ["--signals", "x"] if name.endswith("npy") else []
    err = run("eval", "x > 0", name, *words, code=2)
    assert told in err and err.count("\n") < 4, err


def test_arrays_that_are_no_trace(run, tmp_path):
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.savez(tmp_path / "ragged.npz", x=[1.0], y=[1.0, 2.0])
    np.savez(tmp_path / "cube.npz", x=np.zeros((2, 2, 2)))
    for words, told in (
        (["log.npy"], "--signals"),
        (["log.npy", "--signals", "x"], "2 columns, --signals names 1"),
        (["log.csv", "--signals", "x,y"], "--signals is for .npy"),
        (["cube.npy", "--signals", "x"], "[2, 2, 2]"),
        (["words.npy", "--signals", "x"], "real numbers"),
        (["ragged.npz"], "one length"),
        (["cube.npz"], "[T, k]"),
    ):
        assert told in run("eval", "x > 0", *words, code=2)
