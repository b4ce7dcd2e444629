"""cadenza.sim.batch: the same numbers as a plain loop, whatever the threads; resets, gains, state."""

import mujoco
import numpy as np
import pytest

from cadenza import load_robot
from cadenza.sim.batch import BatchSim, SimulationDiverged

ARM = load_robot("arm6")


def targets(n, ticks=20, seed=0):
    rng = np.random.default_rng(seed)
    q = ARM.home + np.cumsum(rng.normal(0, 0.01, (n, ticks, 7)), 1)
    return q, np.gradient(q, ARM.control_dt, axis=1)


@pytest.mark.parametrize("physics_dt", [None, 0.001])
def test_equals_a_loop_over_mj_step(physics_dt):
    sim = BatchSim(ARM, 3, physics_dt=physics_dt)
    start = ARM.home + np.random.default_rng(1).uniform(-0.2, 0.2, (3, 7))
    sim.reset(np.arange(3), start)
    rounds = [targets(3, seed=s) for s in range(3)]
    for q, dq in rounds:
        sim.step(q, dq, tau=0.1)
    kp, kd = ARM.gains().T
    for i in range(3):
        data = mujoco.MjData(sim.model)
        data.qpos[:] = start[i]
        for q, dq in rounds:
            for k in range(20):
                data.ctrl[:] = 0.1 + kp * q[i, k] + kd * dq[i, k]
                for _ in range(2 if physics_dt else 1):
                    mujoco.mj_step(sim.model, data)
        np.testing.assert_array_equal(sim.q[i], data.qpos)
        np.testing.assert_array_equal(sim.dq[i], data.qvel)
        np.testing.assert_array_equal(sim.tau[i], data.qfrc_actuator)
        mujoco.mj_kinematics(sim.model, data)
        np.testing.assert_array_equal(sim.site("tool")[i], data.site("tool").xpos)


def test_threads_change_nothing():
    one, two = BatchSim(ARM, 5), BatchSim(ARM, 5, threads=2)
    for s in range(3):
        one.step(*targets(5, seed=s))
        two.step(*targets(5, seed=s))
    np.testing.assert_array_equal(one.q, two.q)


def test_a_reset_touches_only_its_simulations():
    sim, other = BatchSim(ARM, 4), BatchSim(ARM, 4)
    for s in (sim, other):
        s.step(*targets(4))
    sim.reset(np.array([2]), ARM.home[None])
    np.testing.assert_array_equal(sim.q[2], ARM.home)
    assert not sim.dq[2].any()
    assert not sim.tau[2].any()
    for s in (sim, other):
        s.step(*targets(4, seed=1))
    np.testing.assert_array_equal(sim.q[[0, 1, 3]], other.q[[0, 1, 3]])
    assert (sim.q[2] != other.q[2]).any()


def test_state_goes_on_where_it_was_saved():
    sim = BatchSim(ARM, 2)
    sim.step(*targets(2))
    saved = sim.state_dict()
    q, dq, tau, tool = sim.q.copy(), sim.dq.copy(), sim.tau.copy(), sim.site("tool").copy()
    sim.step(*targets(2, seed=1))
    expected = sim.q.copy()
    fresh = BatchSim(ARM, 2)
    fresh.load_state_dict(saved)
    for mine, theirs in ((fresh.q, q), (fresh.dq, dq), (fresh.tau, tau), (fresh.site("tool"), tool)):
        np.testing.assert_array_equal(mine, theirs)
    fresh.step(*targets(2, seed=1))
    np.testing.assert_array_equal(fresh.q, expected)
    with pytest.raises(ValueError, match="simulator state has shape"):
        BatchSim(ARM, 3).load_state_dict(saved)


def test_expanded_gains_and_masses_differ_by_simulation():
    sim = BatchSim(ARM, 2)
    bias = sim.expand("actuator_biasprm")
    bias[1, :, 1:3] *= 0.25
    sim.expand("body_mass")[:, 3] = 1.0, 1.0
    sim.commit()
    hold = np.broadcast_to(ARM.home, (2, 500, 7))
    sim.step(hold, np.zeros_like(hold))
    sag = np.abs(sim.q - ARM.home)[:, 1]
    # the static error of a position gain is inverse to it
    assert sag[1] == pytest.approx(4 * sag[0], rel=0.1)


def test_a_simulation_that_blows_up_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs warnings into the current folder
    sim = BatchSim(ARM, 3)
    q, dq = (x.copy() for x in targets(3))
    q[1, 5, 0] = np.nan
    with pytest.raises(SimulationDiverged, match="simulation 1 diverged") as caught:
        sim.step(q, dq)
    assert caught.value.sims.tolist() == [1]


def test_bad_sizes():
    with pytest.raises(ValueError, match="n 0 and threads 1"):
        BatchSim(ARM, 0)
    with pytest.raises(ValueError, match="no site 'nose'"):
        BatchSim(ARM, 1).site("nose")
