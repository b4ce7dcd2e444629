"""The benchmarks run, print their bars and end with 0; how fast anything is, no test asserts."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[1] / "benches"
sys.path.insert(0, str(BENCHES))

from common import Report, Row  # noqa: E402

# name: bars that its table shows
NAMES = {
    "policy": ("≤ 0.5", "≤ 0.6", "≤ 0.7", "≤ 0.85", "≤ 1.4", "≤ 0.95", "≤ 0.67", "≤ 1.7", "≤ 0.15"),
    "tick": ("≤ 0.5", "≤ 0.7", "≤ 1", "≤ 1.1"),
    "wake": ("≤ 1.1", "≤ 1.5", "≤ 0.25"),
    "env_step": ("≥ 0.9", "≥ 1.4"),
    "sim_device": ("≥ 0.9",),
    "ruckig_moves": ("≤ 1.15", "≤ 1.6"),
    "queue_lerobot": ("≥ 1", "≥ 0.99"),
    "soak": ("≥ 1",),
    "symphony": ("≥ 1.8", "≤ 0.5", "≤ 1.2"),
    "sac_update": ("≤ 0.76", "≤ 1.4", "≤ 2"),
    "end_to_end": ("≤ 0.72",),
    "buffer": ("≤ 0.5",),
    "checkpoint": (),
    "stl_speed": (
        "≥ 500",
        "≥ 10000",
        "≥ 50000",
        "≥ 20",
        "≥ 60",
        "≥ 40",
        "≥ 1.5",
        "≥ 5",
        "≥ 3",
        "≥ 50",
        "≥ 2000",
        "≤ 2",
    ),
}


def run(*args: str) -> str:
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_each_benchmark_runs_and_prints_its_bars(name: str, tmp_path: Path) -> None:
    out = run(str(BENCHES / f"{name}.py"), "--quick", "--json", str(tmp_path / "rows.json"))
    for bar in NAMES[name]:
        assert re.search(rf"{bar}\s", out), (bar, out)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert rows
    for row in rows:
        known = ("met", "missed", "no bar", "inconclusive", "not ")
        assert row["verdict"].startswith(known), row
        # a benchmark that measures nothing at all must not pass
        assert (
            row["trouble"].startswith(("not ", "inconclusive")) if row["ratio"] is None else row["ratio"] > 0
        )
    assert any(row["ratio"] is not None for row in rows), rows


def test_run_writes_a_dated_page_and_its_figures(tmp_path: Path) -> None:
    run(str(BENCHES / "run.py"), "--quick", "--out", str(tmp_path), "symphony")
    (page,) = tmp_path.glob("*.md")
    text = page.read_text()
    assert re.match(r"# Benchmarks, \d{4}-\d\d-\d\d", text)
    for key in ("commit", "cpu", "load"):
        assert re.search(rf"^- {key}: \S", text, re.MULTILINE)
    figures = json.loads(page.with_suffix(".json").read_text())
    assert [report["name"] for report in figures["reports"]] == ["symphony"]
    assert "demo-reach, update / GEMM floor" in text


def test_a_ratio_is_the_median_of_pairs_and_its_bar_is_inclusive() -> None:
    report = Report("x", "")
    report.ratio("a", [2.0, 3.0, 20.0], [2.0, 2.0, 2.0], 1.5)
    report.ratio("b", [1.0, 1.0, 1.0], [1.2, 1.2, 1.2], 0.9, at_least=True)
    assert [(row.ratio, row.verdict) for row in report.rows] == [(1.5, "met"), (1 / 1.2, "missed")]


def test_an_unsteady_reference_gives_no_verdict() -> None:
    report = Report("x", "")
    report.ratio("a", [1.0, 1.0, 1.0], [1.0, 1.0, 1.31], 2.0)
    assert report.rows[0].verdict == "inconclusive: the reference varied by 31%"


def test_what_is_not_there_is_named() -> None:
    assert Row("a", bar=0.5, trouble="not installed: x").cells()[1:4] == ("–", "≤ 0.5", "not installed: x")
    assert Row("a", ratio=2.0).verdict == "no bar"
