"""The learning table shows every started seed, and judges a goal only by whole runs."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benches"))

import curves

TABLE = (
    curves.Experiment("A-v0", "symphony", "tiny", 3, 5_000, 100.0),
    curves.Experiment("B-v0", "symphony", "tiny", 3, 5_000, 100.0, share=2),
    curves.Experiment("C-v0", "sac", "", 2, 5_000),
)


def put(runs: Path, e: curves.Experiment, seed: int, returns: list[float], outcome: str | None) -> None:
    """A run folder as the training leaves it."""
    at = curves.folder(runs, e, seed)
    at.mkdir()
    rows = ["step,name,value"]
    for i, value in enumerate(returns, 1):
        step = 2_500 * i
        rows += [f"{step},time/cpu_seconds,{step / 100}"]
        rows += [f"{step},train/scale_mean,0.4"] if e.preset else []
        rows += [
            f"{step},eval/{name},{v}"
            for name, v in (
                ("return_mean", value), ("return_std", 1.5), ("return_low", value - 1),
                ("return_high", value + 1), ("high_frequency", 0.2),
            )
        ]  # fmt: skip
    (at / "metrics.csv").write_text("\n".join(rows) + "\n7500,ev")  # killed while writing
    if outcome is not None:
        (at / "outcome.txt").write_text(outcome + "\n")


def lines(runs: Path, tmp_path: Path) -> tuple[list[curves.Point], dict[str, str]]:
    """The rows after a round trip through the CSV, and the table's lines by task."""
    path = tmp_path / "rows.csv"
    curves.write_csv(path, curves.collect(TABLE, runs))
    rows = curves.read_csv(path)
    page = curves.page(TABLE, rows).splitlines()
    return rows, {
        line.split(" | ")[0].strip("| "): line for line in page if line.startswith("| ") and "-v0 |" in line
    }


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    at = tmp_path / "runs"
    at.mkdir()
    return at


def test_whole_runs_are_judged(runs: Path, tmp_path: Path) -> None:
    a, b, c = TABLE
    for seed, value in enumerate((90.0, 110.0, 130.0)):
        put(runs, a, seed, [5.0, value], "trained")
    for seed, value in enumerate((90.0, 99.0, 500.0)):
        put(runs, b, seed, [5.0, value], "trained")
    put(runs, c, 0, [1.0, 2.0], "trained")
    rows, table = lines(runs, tmp_path)
    assert len(rows) == 14 and rows[0].scale_mean == 0.4 and rows[-1].scale_mean is None
    assert "| 110 ± 16.3 |" in table["A-v0"] and table["A-v0"].endswith("| 100 | met |")
    assert "| 100 in 2 of 3 | missed (1 of 3) |" in table["B-v0"]
    assert table["C-v0"].endswith("| baseline; 1 ended, 0 failed, 1 started |")


def test_a_failed_seed_is_shown_and_never_averaged_away(runs: Path, tmp_path: Path) -> None:
    a, b, _ = TABLE
    put(runs, a, 0, [5.0, 900.0], "trained")
    put(runs, a, 1, [5.0, 900.0], "trained")
    put(runs, a, 2, [5.0], "cadenza: training diverged at update 7: td is nan")
    put(runs, b, 0, [5.0, 900.0], "trained")
    put(runs, b, 1, [5.0, 900.0], "trained")
    put(runs, b, 2, [], "cadenza: no such thing")
    rows, table = lines(runs, tmp_path)
    assert [p.outcome for p in rows if p.task == "A-v0"][-1].endswith("td is nan")
    assert [p.steps for p in rows if p.task == "B-v0"] == [2_500, 5_000, 2_500, 5_000, 0]
    assert table["A-v0"].endswith("| missed; 2 ended, 1 failed, 3 started |")
    assert table["B-v0"].endswith("| met (2 of 3); 2 ended, 1 failed, 3 started |")


def test_an_unfinished_seed_leaves_the_goal_open(runs: Path, tmp_path: Path) -> None:
    put(runs, TABLE[0], 0, [5.0, 900.0], "trained")
    put(runs, TABLE[0], 1, [5.0], None)
    rows, table = lines(runs, tmp_path)
    assert rows[-1].outcome == "unfinished"
    assert table["A-v0"].endswith("| not yet run to the end; 1 ended, 0 failed, 2 started |")


def test_a_killed_run_goes_on_and_a_finished_one_is_left_alone(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = curves.Experiment("Pendulum-v1", "symphony", "tiny", 1, 10)
    commands, code = [], [-9, 0]

    def run(command: list[str], **options: object) -> object:
        commands.append(command[3:])
        (curves.folder(runs, e, 0) / "checkpoint.pt").touch()
        return type("Done", (), {"returncode": code[len(commands) - 1]})

    monkeypatch.setattr(curves.subprocess, "run", run)
    with pytest.raises(SystemExit, match="Pendulum-v1-symphony-tiny, seed 0: ended by signal 9"):
        curves.train(e, 0, runs)
    curves.train(e, 0, runs)
    curves.train(e, 0, runs)
    at = str(curves.folder(runs, e, 0))
    assert commands == [e.command(0, at), ["resume", at]]


def test_the_real_table_is_the_specifications() -> None:
    rows = {(e.task, e.preset): (e.seeds, e.steps, e.goal) for e in curves.TABLE if e.algorithm == "symphony"}
    assert rows == {
        ("InvertedPendulum-v5", "tiny"): (5, 20_000, 950.0),
        ("InvertedDoublePendulum-v5", "tiny"): (3, 30_000, 2_000.0),
        ("Pendulum-v1", "tiny"): (3, 30_000, -400.0),
        ("Hopper-v5", "small"): (3, 100_000, 2_000.0),
        ("Walker2d-v5", "small"): (3, 100_000, 2_000.0),
    }
