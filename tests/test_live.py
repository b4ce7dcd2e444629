"""Views of a running loop: messages, the viewer's own data, Foxglove's stream, the verb's options."""

import contextlib
import dataclasses
import json
import socket
import subprocess
import sys
import time

import mujoco
import numpy as np
import pytest

from cadenza import live, load_robot
from cadenza.cli import main
from cadenza.runtime import RunConfig, Runtime, SimDevice, Snapshot
from cadenza.verbs import run as verb

ROBOT = load_robot("arm6")
N = len(ROBOT.joints)


def snapshot(**changes):
    q = np.linspace(-0.3, 0.3, N)
    at = Snapshot(7, "run", "armed", 1.0, q, 0.1 * q, q + 0.01, None, False, None)
    return dataclasses.replace(at, **changes)


class Seen:
    """A view that keeps what it was shown, and is closed after so many."""

    def __init__(self, closed_after=10**9):
        self.shown, self.closed_after = [], closed_after

    def show(self, snapshot):
        self.shown.append(snapshot)
        return len(self.shown) < self.closed_after


def start(bundle, seconds, **config):
    device = SimDevice.of(ROBOT)
    return Runtime(bundle, robot=ROBOT, device=device, config=RunConfig(seconds=seconds, **config)).start()


def test_the_viewers_data_takes_the_pose_and_nobody_elses():
    mirror = live.PoseMirror(ROBOT)
    np.testing.assert_allclose(mirror.data.qpos[: len(ROBOT.home)], ROBOT.home)
    shown = snapshot()
    mirror.feed(shown)
    other = mujoco.MjData(mirror.model)
    other.qpos[:], other.qvel[:] = shown.q, shown.dq
    mujoco.mj_forward(mirror.model, other)
    np.testing.assert_array_equal(mirror.data.site("tool").xpos, other.site("tool").xpos)
    np.testing.assert_array_equal(mirror.data.qvel, 0.1 * shown.q)


def test_a_floating_base_takes_its_pose(tmp_path):
    (tmp_path / "robot.toml").write_text(
        'schema = 1\nname = "hopper"\nmodel = "model.xml"\n[device]\nkind = "sim"\n'
        "[rates]\ncontrol_hz = 500\n"
        '[[joint]]\nname = "knee"\nhome = 0.0\n'
        "limits = { position = [-1.0, 1.0], velocity = 5.0, acceleration = 50.0, effort = 10.0 }\n"
        "gains = { kp_max = 10.0, kd_max = 1.0, kd_damp = 0.5 }\n"
    )
    (tmp_path / "model.xml").write_text(
        '<mujoco><option timestep="0.002"/><worldbody><body name="torso" pos="0 0 1"><freejoint/>'
        '<geom size="0.1" mass="1"/><body><joint name="knee" type="hinge"/><geom size="0.1" mass="1"/></body>'
        '</body></worldbody><actuator><motor name="knee" joint="knee"/></actuator></mujoco>'
    )
    mirror = live.PoseMirror(load_robot(tmp_path / "robot.toml"))
    pose = np.array([0.1, 0.2, 0.9, np.cos(0.2), 0.0, np.sin(0.2), 0.0])
    one = np.array([0.4])
    mirror.feed(snapshot(q=one, dq=one, command=one, base=pose))
    np.testing.assert_allclose(mirror.data.body("torso").xpos, pose[:3])
    np.testing.assert_allclose(mirror.data.body("torso").xquat, pose[3:])
    mirror.feed(snapshot(q=one, dq=one, command=one, base=None))
    np.testing.assert_allclose(mirror.data.body("torso").xpos, pose[:3])


def test_messages_are_the_snapshots_numbers():
    shown = snapshot(fault="TILT", level="damp")
    assert live.loop_message(shown) == {
        "tick": 7, "level": "damp", "phase": "armed", "authority": 1.0, "fault": "TILT",
    }  # fmt: skip
    messages = live.joint_messages(shown)
    assert len(messages) == N
    for message, q in zip(messages, shown.q, strict=True):
        assert message == pytest.approx({"q": q, "dq": 0.1 * q, "command": q + 0.01, "error": 0.01})
    json.dumps([live.loop_message(snapshot()), messages])
    for schema, message in ((live.LOOP_SCHEMA, live.loop_message(shown)), (live.JOINT_SCHEMA, messages[0])):
        assert set(schema["properties"]) == set(message)


def test_a_run_is_watched_to_its_end(reach_bundle):
    seen = Seen()
    report = live.watch(start(reach_bundle, 0.5), [seen], pause=lambda s: time.sleep(s / 4))
    assert report.exit_code in (0, 1) and report.ticks > 0 and len(seen.shown) > 3
    ticks = [s.tick for s in seen.shown]
    assert ticks == sorted(ticks) and seen.shown[-1].q.shape == (N,) and seen.shown[-1].base is None


def test_closing_a_view_stops_the_run_softly(reach_bundle):
    report = live.watch(start(reach_bundle, None), [Seen(closed_after=5)])
    assert report.ended == "stopped by the operator" and report.exit_code == 0


def test_ctrl_c_stops_and_a_second_one_damps(reach_bundle):
    calls = []

    class Interrupted:
        def show(self, snapshot):
            if snapshot.phase == "armed" and len(calls) < 2:
                calls.append(snapshot.tick)
                raise KeyboardInterrupt
            return True

    report = live.watch(start(reach_bundle, None), [Interrupted()])
    assert len(calls) == 2 and report.level in ("damp", "off")
    assert any(fault["reason"] == "OPERATOR_ESTOP" for fault in report.faults)


@pytest.mark.parametrize("text, told", [("here", "HOST:PORT"), ("host:", "HOST:PORT"), ("1:70000", "70000")])
def test_addresses(text, told):
    with pytest.raises(ValueError, match=told):
        live.address(text)
    assert live.address("9000") == ("127.0.0.1", 9000) and live.address("0.0.0.0:1") == ("0.0.0.0", 1)


def test_without_a_display_the_viewer_says_so(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ValueError, match="DISPLAY and WAYLAND_DISPLAY are not set"):
        live.Viewer(ROBOT)


def test_the_verb_has_every_field_of_a_run_and_the_file_lies_under_the_options(tmp_path):
    options = verb.parser().parse_args(["b.cadenza", "--robot", "arm6", "--live"])
    fields = {f.name for f in dataclasses.fields(RunConfig)} - set(verb.NO_OPTION)
    assert fields <= set(vars(options)) and options.live == live.DEFAULT_ADDRESS
    assert verb.configuration(options) == RunConfig()
    (tmp_path / "run.toml").write_text('seconds = 3.0\nseam = "fade:2"\n')
    words = ["b.cadenza", "--robot", "arm6", "--viewer", "--config", str(tmp_path / "run.toml")]
    options = verb.parser().parse_args([*words, "--seconds", "5", "--spin-us", "20", "--dry-run"])
    assert verb.configuration(options) == RunConfig(seconds=5.0, seam="fade:2", spin_us=20, dry_run=True)
    (tmp_path / "run.toml").write_text("speed = 1\n")
    with pytest.raises(ValueError, match="no field 'speed'"):
        verb.configuration(options)
    assert verb.commands(["goal_x=0.3", "goal_y = -1"]) == {"goal_x": 0.3, "goal_y": -1.0}
    for bad in ("goal_x", "goal_x=far"):
        with pytest.raises(ValueError, match="--set goal_x"):
            verb.commands([bad])


def test_what_cannot_be_shown_is_refused_in_a_sentence(reach_bundle, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setitem(sys.modules, "foxglove", None)
    words = ["run", str(reach_bundle), "--robot", "arm6", "--seconds", "1"]
    for more, told in (
        (["--viewer"], "needs a display"),
        (["--live", "nowhere"], "HOST:PORT"),
        (["--live"], "foxglove: pip install 'cadenza[viz]'"),
        (["--live", "--virtual"], "virtual clock"),
    ):
        assert main([*words, *more]) == 2
        assert told in capsys.readouterr().err, more


def test_the_verb_runs_shows_and_says_how_it_went(reach_bundle, untrained_pick, tmp_path, capfd, monkeypatch):
    shown = []

    class Window(contextlib.AbstractContextManager):
        def __init__(self, robot):
            self.mirror = live.PoseMirror(robot)

        def __exit__(self, *_):
            shown.append("closed")

        def show(self, snapshot):
            self.mirror.feed(snapshot)
            shown.append(snapshot.tick)
            return True

    monkeypatch.setattr(verb, "Viewer", Window)
    words = ["run", str(reach_bundle), "--robot", "arm6", "--seconds", "0.5", "--set", "goal_y=0.1"]
    log = tmp_path / "run.mcap"
    assert main([*words, "--viewer", "--record", str(log)]) == 0
    out = capfd.readouterr().out
    assert "whole tick" in out and "finished" in out
    assert shown[-1] == "closed" and shown[-2] > 0 and log.stat().st_size > 10_000
    assert main(["run", str(untrained_pick), "--robot", "arm6", "--seconds", "0.1", "--viewer"]) == 0
    assert "finished" in capfd.readouterr().out, "the bundle's scene is simulated as well"
    # help is the runtime's, and it knows the views
    assert main(["run", "--viewer", "--help"]) == 0
    assert "--live" in capfd.readouterr().out


CLIENT = """
import json, struct, sys
from websockets.sync.client import connect
with connect(sys.argv[1], subprotocols=["foxglove.sdk.v1"]) as socket:
    topics, counts = {}, {}
    for frame in socket:
        if isinstance(frame, str):
            message = json.loads(frame)
            if message["op"] == "advertise":
                new = {c["id"]: c["topic"] for c in message["channels"]}
                topics |= new
                asked = [{"id": i, "channelId": i} for i in new]
                socket.send(json.dumps({"op": "subscribe", "subscriptions": asked}))
        elif frame[0] == 1:
            topic = topics[struct.unpack_from("<I", frame, 1)[0]]
            counts[topic] = json.loads(frame[13:])
            if len(counts) == len(topics) > 0:
                break
print(json.dumps(counts))
"""


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_foxglove_client_gets_every_joint():
    with live.FoxgloveStream(ROBOT.joint_names, "0") as stream:
        with pytest.raises(ValueError, match=f"--live {stream.port}"):
            live.FoxgloveStream(ROBOT.joint_names, str(stream.port))
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, f"ws://127.0.0.1:{stream.port}"], stdout=subprocess.PIPE, text=True
        )
        shown, end = snapshot(), time.monotonic() + 30.0
        while client.poll() is None:
            assert time.monotonic() < end, "the client waits for ever"
            stream.show(shown)
            time.sleep(0.02)
        assert client.stdout is not None
        got = json.loads(client.stdout.read())
    assert got.pop("/cadenza/loop")["level"] == "run"
    assert set(got) == {f"/cadenza/joint/{name}" for name in ROBOT.joint_names}
    for name, q in zip(ROBOT.joint_names, shown.q, strict=True):
        assert got[f"/cadenza/joint/{name}"]["q"] == pytest.approx(q)
    end = time.monotonic() + 30.0
    while answers(stream.port):  # the server ends on a thread of its own
        assert time.monotonic() < end, "the server stays"
        time.sleep(0.02)
