"""Figures of a run from its log: golden values by hand, a recorded run, missing channels."""

import dataclasses
import json
import math

import numpy as np
import pytest

from cadenza import _native, load_robot, report
from cadenza.runtime import RunConfig, Runtime, SimDevice

GOAL = {"goal_x": 0.3, "goal_y": 0.15, "goal_z": 0.2}


@pytest.fixture(scope="module")
def logs(reach_bundle, tmp_path_factory):
    """A run on MuJoCo and one on ideal joints."""
    folder = tmp_path_factory.mktemp("report")
    robot = load_robot("arm6")
    read = []
    for name, device in (("sim", SimDevice.of(robot)), ("null", "null")):
        path = folder / f"{name}.mcap"
        config = RunConfig(seconds=1.0, virtual_clock=True, record=str(path))
        Runtime(reach_bundle, robot=robot, device=device, config=config).run({0.0: GOAL})
        read.append(report.load(path))
    return read


def test_smoothness_has_the_value_of_the_paper():
    t = np.arange(200) / 100.0
    assert report.smoothness(np.sin(2 * np.pi * 5 * t), 100.0) == pytest.approx(0.001, abs=1e-12)
    assert report.smoothness(np.ones(200), 100.0) == pytest.approx(0.0, abs=1e-15)
    assert report.smoothness(np.zeros(1), 100.0) == 0.0


def test_figures_of_signals_by_hand():
    assert report.squared_change(np.array([0.0, 1.0, 3.0])) == 5.0
    # three turns in 7 steps at 10 Hz; the rest in between is none
    zigzag = np.array([0.0, 1.0, 2.0, 1.0, 1.0, 0.0, 1.0, 0.5])
    assert report.reversals(zigzag, 10.0) == pytest.approx(3 * 10 / 7)
    assert report.reversals(np.arange(5.0), 10.0) == 0.0


def test_a_log_by_name(logs):
    log = logs[0]
    raw = _native.Log(log.path).joints()
    assert log.joints == load_robot("arm6").joint_names and log.dt == 0.002
    for i, name in enumerate(log.joints):
        np.testing.assert_array_equal(log.q[name], raw["q"][:, i])
        np.testing.assert_array_equal(log.command[name], raw["command"][:, i])
    assert np.all(np.diff(log.tick) == 1) and len(log.tick) == len(log.q["gripper"])
    assert log.damage == [] and log.dropped == {} and log.stats is not None
    assert log.seconds == pytest.approx((len(log.tick) - 1) * 0.002)
    armed = log.armed()
    assert 0 < armed.stop - armed.start <= len(log.command_tick)


def test_every_figure_of_a_run_is_that_of_its_arrays(logs):
    log = logs[0]
    made = report.summary(log)
    tau, omega = (np.stack([x[n] for n in log.joints], 1) for x in (log.tau, log.dq))
    sent = np.stack([log.command[n][log.armed()] for n in log.joints], 1)
    third = np.abs(np.diff(sent, n=3, axis=0)) / log.dt**3
    by_hand = {
        "RMS torque": math.sqrt(np.mean(tau**2)),
        "peak torque": np.max(np.abs(tau)),
        "mean |τω|": np.abs(tau * omega).mean(0).sum(),
        "Σ|Δu|²": np.sum(np.diff(sent, axis=0) ** 2),
        "peak jerk": third.max(),
        "RMS jerk": math.sqrt(np.mean(third**2)),
        "missed deadlines": 0.0,
        "drops": 0.0,
    }
    for name, value in by_hand.items():
        assert made[name].total.value == pytest.approx(value, rel=1e-9), name
    assert made["RMS torque"].by_joint["gripper"].value == pytest.approx(math.sqrt(np.mean(tau[:, -1] ** 2)))
    workspace = next(m for m in log.monitors if m.name == "workspace")
    assert made["robustness workspace"].total.value == workspace.closed.min()
    held, violated = made["held workspace"].total.value, made["violated workspace"].total.value
    assert held + violated == len(workspace.closed) and violated == np.sum(workspace.closed < 0)
    text = made.text()
    assert all(row.name in text and row.definition in text for row in made)
    with pytest.raises(KeyError, match="there are"):
        made["speed"]
    with pytest.raises(ValueError, match="half the control rate"):
        report.summary(log, cutoff=300.0)


def test_what_a_log_lacks_is_said_in_its_row(logs):
    log = logs[0]
    silent = {name: np.zeros_like(x) for name, x in log.tau.items()}
    none = {name: x[:0] for name, x in log.command.items()}
    monitor = dataclasses.replace(
        log.monitors[0], robustness=np.full(3, np.nan), tick=np.arange(3), lo=np.zeros(3), hi=np.zeros(3)
    )
    poor = dataclasses.replace(
        log, tau=silent, command=none, level=log.level[:0], command_tick=log.command_tick[:0],
        stats=None, monitors=(monitor,), dropped={"/state": 4},
    )  # fmt: skip
    made = report.summary(poor)
    assert "no torque" in str(made["RMS torque"].total) and made["RMS torque"].total.value is None
    assert str(made["Sm"].total) == "no commands while armed"
    assert "did not end in order" in str(made["missed deadlines"].total)
    assert "inconclusive" in str(made[f"robustness {monitor.name}"].total)
    assert made["drops"].total.value == 4.0 and "/state" in made["drops"].definition
    assert "no torque" in made.text()


def test_two_runs_side_by_side(logs):
    text = report.compare(*logs)
    assert "sim.mcap" in text and "null.mcap" in text and "b/a" in text
    row = next(line for line in text.splitlines() if line.startswith("Sm "))
    a, b = (report.summary(log)["Sm"].total.value for log in logs)
    assert f"{b / a:.3f}" in row
    assert "1.000" in report.compare(logs[0], logs[0])


def test_a_plot_has_every_joint_and_the_robustness(logs, tmp_path):
    figure = report.plot(logs[0])
    assert len(figure.axes) == len(logs[0].joints) + 1
    figure.savefig(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 10_000
    assert len(report.plot(logs[0], ["gripper"]).axes) == 2
    with pytest.raises(KeyError, match="no joint 'elbow'"):
        report.plot(logs[0], ["elbow"])


def test_a_file_that_is_no_log(tmp_path):
    (tmp_path / "no.mcap").write_text("no")
    with pytest.raises(_native.LogError, match=r"no\.mcap"):
        report.load(tmp_path / "no.mcap")


def test_a_latency_plot_falls_from_one_to_one_tick(tmp_path):
    path = tmp_path / "a.json"
    rows = [
        {"name": "whole tick", "buckets": [[1000, 7], [2000, 2], [4000, 1]]},
        {"name": "infer", "buckets": []},
        {"name": "gate", "buckets": [[10, 1]]},
    ]
    path.write_text(json.dumps({"schema": 1, "stages": rows}))
    figure = report.plot_latency(path)
    (line,) = figure.axes[0].get_lines()
    assert line.get_label() == "whole tick"
    np.testing.assert_allclose(line.get_xydata(), [[1.0, 1.0], [2.0, 0.3], [4.0, 0.1]])
    figure.savefig(tmp_path / "a.png")
    assert len(report.plot_latency(path, ["gate"]).axes[0].get_lines()) == 1
    with pytest.raises(ValueError, match="no stage 'brake'; there are whole tick"):
        report.plot_latency(path, ["brake"])
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"a\.json: not the JSON"):
        report.plot_latency(path)
