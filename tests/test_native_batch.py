"""The extension's batched parts against the NumPy reference: robot, observations, actions with limiter."""

import json

import numpy as np
import pytest

import native_double
from cadenza import _native, load_robot
from cadenza.tasks.reach import ReachArm6

N = 5
TASK = ReachArm6()
TEXT = json.dumps(TASK.manifest())
REFERENCE = native_double.Robot(TASK.robot.path)


def pair(name, text=TEXT):
    return getattr(_native, name)(text, TASK.robot.native, N), getattr(native_double, name)(
        text, REFERENCE, N
    )


def test_robot_toml_reads_the_same():
    mine = TASK.robot.native
    for name in ("name", "control_hz", "frames"):
        assert getattr(mine, name) == getattr(REFERENCE, name)
    assert str(mine.model) == REFERENCE.model
    assert [dict(j) for j in mine.joints] == REFERENCE.joints


def test_observations():
    rust, numpy = pair("ObservationBatch")
    assert rust.size == numpy.size == 32
    rng = np.random.default_rng(0)
    everyone = np.arange(N)
    rust.reset(everyone)
    for k in range(50):
        q, dq, tau, target = (rng.normal(0, 1.5, (N, 7)) for _ in range(4))
        user = rng.normal(0, 0.4, (N, 3))
        action = rng.uniform(-1, 1, (N, 6)).astype(np.float32)
        ids = None if k % 3 else np.flatnonzero(rng.random(N) < 0.5)
        a, b = np.full((N, 32), 7.0, np.float32), np.full((N, 32), 7.0, np.float32)
        inputs = (q, dq, tau, user, action, target, np.full(N, 0.1))
        rust.step(*inputs, a, ids)
        numpy.step(*inputs, b, ids)
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


def test_actions_through_the_limiter():
    rust, numpy = pair("ActionBatch")
    rng = np.random.default_rng(1)
    home = TASK.robot.home
    lo, hi = TASK.robot.position.T

    def start(ids):
        q = np.clip(home + rng.uniform(-0.3, 0.3, (len(ids), 7)), lo, hi)
        for batch in (rust, numpy):
            batch.reset(ids, q)
        return q

    q = start(np.arange(N))
    a, b = ([np.zeros((N, 20, 7)) for _ in range(2)] for _ in range(2))
    bias = rng.uniform(-1, 1, (N, 6))
    for k in range(120):
        # drifts far enough to meet leash, joint limits, and the velocity and acceleration bounds
        action = np.clip(bias * 1.5 + rng.normal(0, 0.5, (N, 6)), -1, 1).astype(np.float32)
        rust.step(action, q, *a)
        numpy.step(action, q, *b)
        np.testing.assert_allclose(rust.target, numpy.target, atol=1e-12)
        np.testing.assert_allclose(a[0], b[0], atol=1e-12)
        np.testing.assert_allclose(a[1], b[1], atol=1e-9)
        q = b[0][:, -1] + rng.normal(0, 0.05, (N, 7))
        if k % 40 == 39:
            bias = rng.uniform(-1, 1, (N, 6))
            q[[1, 3]] = start(np.array([1, 3]))
    assert (np.abs(numpy.target - lo).min(0) == 0).any()
    assert np.abs(b[1]).max() > 1.0


def test_actions_resume():
    rust, _ = pair("ActionBatch")
    twin, _ = pair("ActionBatch")
    rng = np.random.default_rng(2)
    q = np.tile(TASK.robot.home, (N, 1))
    rust.reset(np.arange(N), q)
    out = [np.zeros((N, 20, 7)) for _ in range(4)]
    for _ in range(7):
        rust.step(rng.uniform(-1, 1, (N, 6)).astype(np.float32), q, out[0], out[1])
    twin.set_state(rust.state())
    for _ in range(7):
        u = rng.uniform(-1, 1, (N, 6)).astype(np.float32)
        rust.step(u, q, out[0], out[1])
        twin.step(u, q, out[2], out[3])
        np.testing.assert_array_equal(out[0], out[2])
        np.testing.assert_array_equal(out[1], out[3])


def test_a_permuted_robot_gives_permuted_commands(tmp_path):
    text = TASK.robot.path.read_text()
    head, *joints = text.split("[[joint]]")
    order = [4, 0, 6, 2, 5, 1, 3]
    folder = tmp_path / "arm"
    folder.mkdir()
    (folder / "model.xml").write_bytes(TASK.robot.model_path.read_bytes())
    (folder / "robot.toml").write_text(head + "".join("[[joint]]" + joints[i].rstrip() + "\n" for i in order))
    other = load_robot(folder)
    assert other.joint_names == tuple(TASK.robot.joint_names[i] for i in order)
    plain, permuted = (
        _native.ActionBatch(TEXT, TASK.robot.native, 1),
        _native.ActionBatch(TEXT, other.native, 1),
    )
    q = TASK.robot.home[None]
    plain.reset(np.arange(1), q)
    permuted.reset(np.arange(1), q[:, order])
    rng = np.random.default_rng(3)
    out = [np.zeros((1, 20, 7)) for _ in range(4)]
    for _ in range(20):
        u = rng.uniform(-1, 1, (1, 6)).astype(np.float32)
        plain.step(u, q, out[0], out[1])
        permuted.step(u, q[:, order], out[2], out[3])
        np.testing.assert_array_equal(out[0][..., order], out[2])
        np.testing.assert_array_equal(out[1][..., order], out[3])
        q = out[0][:, -1].copy()


def test_bad_input_is_refused():
    observation, _ = pair("ObservationBatch")
    actions, _ = pair("ActionBatch")
    with pytest.raises(ValueError, match=r"q has shape \[5, 6\], expected \[5, 7\]"):
        actions.step(
            np.zeros((N, 6), np.float32), np.zeros((N, 6)), np.zeros((N, 20, 7)), np.zeros((N, 20, 7))
        )
    with pytest.raises(ValueError, match="simulation 5"):
        observation.reset(np.array([5]))
    manifest = TASK.manifest()
    manifest["observation"]["terms"][0]["source"] = "joint_poss"
    with pytest.raises(ValueError, match="joint_poss"):
        _native.ObservationBatch(json.dumps(manifest), TASK.robot.native, N)
    manifest = TASK.manifest()
    manifest["action"]["joints"][0] = "shoulder"
    with pytest.raises(ValueError, match="shoulder"):
        _native.ActionBatch(json.dumps(manifest), TASK.robot.native, N)


def test_arrays_that_share_memory_are_refused_and_change_nothing():
    actions, _ = pair("ActionBatch")
    q = np.tile(TASK.robot.home, (N, 1))
    actions.reset(np.arange(N), q)
    before = actions.state()
    memory, other = np.zeros((N, 20, 7)), np.zeros((N, 20, 7))
    u = np.zeros((N, 6), np.float32)
    with pytest.raises(ValueError, match="out_q cannot be written to"):
        actions.step(u, memory[:, 0], memory, other)
    with pytest.raises(ValueError, match="out_dq cannot be written to"):
        actions.step(u, q, memory, memory)
    other.flags.writeable = False
    with pytest.raises(ValueError, match="out_dq cannot be written to"):
        actions.step(u, q, memory, other)
    assert actions.state() == before


def test_what_a_robot_does_not_report_is_refused_by_the_term_that_reads_it():
    from cadenza.tasks.pick import PickArm6
    from cadenza.tasks.stand import StandHumanoid29

    stand, pick = StandHumanoid29(), PickArm6()
    batch = _native.ObservationBatch(json.dumps(stand.manifest()), stand.robot.native, 2)
    q, none, out = np.zeros((2, 29)), np.zeros((2, 0)), np.zeros((2, 93), np.float32)
    inputs = (q, q, q, none, np.zeros((2, 29), np.float32), q, np.zeros(2), out)
    with pytest.raises(ValueError, match="term gravity, element 0 of simulation 0 is not finite"):
        batch.step(*inputs)
    imu = np.tile([0.6, 0.8, 0, 0, 1, 2, 3, 0, 0, 9.81], (2, 1))
    imu[1, :4] = [1, 0, 0, 0]
    batch.step(*inputs, imu=imu)
    np.testing.assert_allclose(
        out[:, :6], [[0, -0.96, 0.28, 0.25, 0.5, 0.75], [0, 0, -1, 0.25, 0.5, 0.75]], atol=1e-6
    )
    with pytest.raises(ValueError, match=r"imu has shape \[2, 9\], expected \[2, 10\]"):
        batch.step(*inputs, imu=imu[:, :9].copy())
    with pytest.raises(ValueError, match=r"base has shape \[1, 6\], expected \[2, 6\]"):
        batch.step(*inputs, imu=imu, base=np.zeros((1, 6)))
    text = json.dumps(pick.manifest())
    with pytest.raises(ValueError, match="needs object cube; the device reports none"):
        _native.ObservationBatch(text, pick.robot.native, 2)
    with pytest.raises(ValueError, match="17 objects, at most 16"):
        _native.ObservationBatch(text, pick.robot.native, 2, [f"o{i}" for i in range(17)])
    batch = _native.ObservationBatch(text, pick.robot.native, 2, ["ball", "cube"])
    q, out = np.zeros((2, 7)), np.zeros((2, 34), np.float32)
    inputs = (q, q, q, none, np.zeros((2, 7), np.float32), q, np.zeros(2), out)
    with pytest.raises(ValueError, match="term cube_error"):
        batch.step(*inputs)
    poses = np.zeros((2, 2, 7))
    poses[:, 1, :3] = [0.35, 0.1, 0.05]
    batch.step(*inputs, objects=poses)
    np.testing.assert_allclose(out[:, 24:27], [[0, 0.5, 0]] * 2, atol=1e-6)
    with pytest.raises(ValueError, match=r"objects has shape \[2, 1, 7\]"):
        batch.step(*inputs, objects=poses[:, :1].copy())
