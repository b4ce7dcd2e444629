"""Logs as anybody reads them: the reference readers, broken files, killed recorders, the report."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest

from cadenza import _native, load_robot
from cadenza.runtime import Bundle, RunConfig, Runtime, SimDevice
from mcap_reference import attachments, messages, topics

ROBOT = load_robot("arm6")
GOALS = {t: {"goal_x": 0.3, "goal_y": y, "goal_z": 0.2} for t, y in ((0.0, 0.2), (1.0, -0.2), (2.0, 0.1))}
TOPICS = {"/state", "/command", "/tick", "/obs", "/chunk", "/monitor", "/event", "/request", "/bundle"}


@pytest.fixture(scope="module")
def run(reach_bundle, tmp_path_factory):
    """Path and report of a run of four seconds with changing goals on the virtual clock."""
    path = tmp_path_factory.mktemp("log") / "run.mcap"
    config = RunConfig(seconds=4.0, record=str(path), virtual_clock=True)
    report = Runtime(reach_bundle, robot=ROBOT, device=SimDevice.of(ROBOT), config=config).run(GOALS)
    return path, report


def column(path, topic, name):
    return np.array([getattr(m, name) for m in messages(path, topic)])


def test_every_topic_decodes(run):
    path, report = run
    counts = topics(path)
    assert set(counts) == TOPICS
    assert counts["/state"] == counts["/command"] == counts["/tick"] == report.ticks
    assert counts["/request"] >= 3 * len(GOALS)
    for topic in TOPICS:
        decoded = messages(path, topic)
        assert len(decoded) == counts[topic]
        ticks = [m.tick for m in decoded]
        assert ticks == sorted(ticks)
    assert counts["/obs"] == counts["/chunk"] > 80
    assert {len(m.values) for m in messages(path, "/obs")} == {32}
    assert {len(m.values) for m in messages(path, "/chunk")} == {6}
    assert report.record["written"] == sum(counts.values())
    assert report.record["error"] is None and not report.record["dropped"]


def test_no_command_leaves_the_limits_of_robot_toml(run):
    path, _ = run
    joints = tomllib.loads(attachments(path)["robot.toml"])["joint"]
    limits = [j["limits"] for j in joints]
    commands = messages(path, "/command")
    q, dq = column(path, "/command", "q"), column(path, "/command", "dq")
    for name in ("q", "dq", "kp", "kd", "tau"):
        assert np.isfinite(column(path, "/command", name)).all()
    lo, hi = np.array([x["position"] for x in limits]).T
    velocity, acceleration, effort = (
        np.array([x[k] for x in limits]) for k in ("velocity", "acceleration", "effort")
    )
    gains = [j["gains"] for j in joints]
    assert (q >= lo - 1e-9).all() and (q <= hi + 1e-9).all()
    assert (np.abs(dq) <= velocity + 1e-9).all()
    assert (column(path, "/command", "kp") <= [g["kp_max"] for g in gains]).all()
    assert (column(path, "/command", "kd") <= [g["kd_max"] for g in gains]).all()
    assert (np.abs(column(path, "/command", "tau")) <= effort).all()
    # While a level follows the limiter (Run, Hold, SoftStop), consecutive targets obey its bounds as well.
    dt = 1 / ROBOT.control_hz
    level = np.array([c.level for c in commands])
    follows = (level[1:] <= 2) & (level[:-1] <= 2)
    step = (np.diff(q, axis=0) / dt)[follows]
    change = (np.diff(dq, axis=0) / dt)[follows]
    assert len(step) > 1500 and np.abs(step).max() > 0.3
    assert (np.abs(step) <= velocity + 1e-6).all()
    assert (np.abs(change) <= acceleration + 1e-6).all()


def test_attachments_are_the_files_of_the_run(run, reach_bundle):
    path, _ = run
    files = attachments(path)
    bundle = Bundle(reach_bundle)
    assert set(files) == {"robot.toml", "manifest.json", "spec.stl"}
    assert files["robot.toml"] == ROBOT.path.read_text()
    assert json.loads(files["manifest.json"])["name"] == "reach"
    assert files["spec.stl"] == bundle.specification
    header = json.loads(_native.Log(path).header)
    assert header["bundle_sha256"] == bundle.id
    assert [j["name"] for j in header["joints"]] == list(ROBOT.joint_names)


def test_our_reader_gives_the_same_numbers(run):
    path, report = run
    log = _native.Log(path)
    ours = log.joints()
    for name, topic, field in (
        ("q", "/state", "q"),
        ("dq", "/state", "dq"),
        ("tau", "/state", "tau"),
        ("command", "/command", "q"),
        ("command_velocity", "/command", "dq"),
        ("level", "/command", "level"),
    ):
        np.testing.assert_array_equal(ours[name], column(path, topic, field), err_msg=name)
    assert ours["q"].shape == (report.ticks, len(ROBOT.joints))
    assert log.damage == []
    assert json.loads(log.stats)["counters"]["ticks"] == report.ticks


def test_the_report_page_shows_joints_monitors_and_times(run):
    path, _ = run
    html = _native.Log(path).html()
    for name in (*ROBOT.joint_names, "workspace", "reached", "tool.z", "whole tick"):
        assert name in html, name
    assert html.lstrip().lower().startswith("<!doctype html")
    assert "<svg" in html
    # One file: nothing is fetched.
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", html)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.999])
def test_a_cut_log_opens_with_its_damage_named(run, tmp_path, part):
    path, report = run
    data = path.read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(data[: int(len(data) * part)])
    log = _native.Log(cut)
    assert log.damage and all(isinstance(text, str) and len(text) > 10 for text in log.damage)
    rows = len(log.joints()["q"])
    assert 0 < rows <= report.ticks
    np.testing.assert_array_equal(log.joints()["q"], _native.Log(path).joints()["q"][:rows])
    assert "damage" in log.html().lower() or log.damage[0][:20] in log.html()


@pytest.mark.parametrize("content", [b"", b"not a log at all", b"\x89MCAP0\r\n"])
def test_what_is_no_log_is_refused(tmp_path, content):
    path = tmp_path / "bad.mcap"
    path.write_bytes(content)
    with pytest.raises(_native.LogError):
        _native.Log(path)
    with pytest.raises(_native.LogError, match=r"absent\.mcap"):
        _native.Log(tmp_path / "absent.mcap")


RECORD = """
import sys
from cadenza.runtime import RunConfig, Runtime
Runtime(sys.argv[1], robot="arm6", device="null", config=RunConfig(record=sys.argv[2])).run()
"""


def test_a_killed_recorder_leaves_a_log_that_opens(reach_bundle, tmp_path):
    path = tmp_path / "killed.mcap"
    process = subprocess.Popen([sys.executable, "-c", RECORD, str(reach_bundle), str(path)])
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (path.exists() and path.stat().st_size > 200_000):
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    log = _native.Log(path)
    assert log.damage
    assert log.stats is None
    assert len(log.joints()["q"]) > 100
    assert np.isfinite(log.joints()["command"]).all()
    assert set(ROBOT.joint_names) <= {j["name"] for j in json.loads(log.header)["joints"]}
