"""Runs every benchmark and writes the results, dated, into docs/results/.

    python benches/run.py [--quick] [--out FOLDER] [NAME ...]

Each benchmark runs in a process of its own; one that fails is reported as such and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAMES = (
    "policy", "tick", "wake", "env_step", "sim_device", "ruckig_moves", "queue_lerobot",
    "symphony", "sac_update", "end_to_end", "buffer", "checkpoint", "stl_speed",
)  # fmt: skip
# Ten minutes and more: only when named.
LONG = ("soak",)


def machine() -> dict[str, Any]:
    """Date, commit, processor, load, versions."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=HERE, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def read(path: str, key: str) -> str:
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            return ""
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")

    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    dirty = git("status", "--porcelain", "--untracked-files=no")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": (git("rev-parse", "--short=10", "HEAD") or "unknown") + (" with changes" if dirty else ""),
        "cpu": read("/proc/cpuinfo", "model name") or platform.processor(),
        "family, model": f"{read('/proc/cpuinfo', 'cpu family')}, {read('/proc/cpuinfo', 'model')}",
        "cores": os.cpu_count(),
        "governor": governor.read_text().strip() if governor.exists() else "none",
        "load": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def benchmark(name: str, quick: bool) -> dict[str, Any]:
    """The report of one benchmark, with the load before and after it."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [
            sys.executable,
            str(HERE / f"{name}.py"),
            "--json",
            str(path),
            *(["--quick"] if quick else []),
        ]
        code = subprocess.run(command, check=False).returncode
        if not path.exists():
            return {"name": name, "method": f"ended with {code}", "rows": [], "notes": [], "load": [load]}
        report = json.loads(path.read_text())
    return {**report, "load": [round(load, 2), round(os.getloadavg()[0], 2)]}


def markdown(about: dict[str, Any], reports: list[dict[str, Any]]) -> str:
    """The results as a page."""
    from common import Row

    lines = [f"# Benchmarks, {about['date']}", ""]
    lines += [f"- {key}: {value}" for key, value in about.items() if key != "date"]
    for report in reports:
        lines += ["", f"## {report['name']}", "", f"{report['method']}. Load {report['load']}.", ""]
        lines += ["| what | ratio | bar | verdict | figures |", "|---|---|---|---|---|"]
        for row in report["rows"]:
            fields = {key: value for key, value in row.items() if key != "verdict"}
            lines.append("| " + " | ".join(Row(**fields).cells()) + " |")
        lines += ["", *(f"- {note}" for note in report["notes"])]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds each; writes nothing unless --out is given"
    )
    parser.add_argument("--out", type=Path, help="folder for the results (docs/results)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of {', '.join(NAMES + LONG)}")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in NAMES + LONG]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES + LONG)}")
    about = machine()
    reports = [benchmark(name, args.quick) for name in args.names or NAMES]
    out = args.out or (None if args.quick else HERE.parent / "docs" / "results")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        stem = out / f"{about['date'][:10]}-{about['commit'].split()[0]}"
        if args.names:  # a part leaves the results of the others as they are
            stem = stem.with_name("-".join((stem.name, *args.names)))
        stem.with_suffix(".md").write_text(markdown(about, reports))
        everything = {"machine": about, "reports": reports}
        stem.with_suffix(".json").write_text(json.dumps(everything, ensure_ascii=False, indent=1) + "\n")
        print(f"{stem}.md")
    if any(not report["rows"] for report in reports):
        sys.exit(1)


if __name__ == "__main__":
    main()
