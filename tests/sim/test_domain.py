"""cadenza.sim.domain: what is drawn, what arrives late, what is noisy; nothing at all when off."""

from dataclasses import replace

import numpy as np
import pytest

from cadenza.sim.domain import Domain
from cadenza.sim.env import RobotEnvironment
from cadenza.tasks import make
from cadenza.tasks.reach import ReachArm6
from cadenza.tasks.stand import StandConfig, StandHumanoid29
from cadenza.verbs.train import TrainOptions, configure

TASK = ReachArm6()
CALM = StandHumanoid29(StandConfig(domain=Domain()))
ALL = Domain(
    mass=(0.8, 1.2),
    friction=(0.5, 1.5),
    gains=(0.8, 1.2),
    action_delay=(0, 7),
    observation_delay=(0, 2),
    joint_pos_noise=0.01,
    joint_vel_noise=0.1,
    gyro_noise=0.1,
    tilt_noise=0.02,
    push_every=0.5,
    push_speed=0.3,
)


def actions(steps, n, size, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, n, size)).astype(np.float32)


def rows(env, steps, seed=0):
    out = [env.step(u) for u in actions(steps, env.n, len(env.action_low), seed)]
    return np.stack([t.next_obs for t in out])


def test_off_is_bit_identical():
    plain = RobotEnvironment(TASK, 3, seed=4)
    for domain in (Domain(), Domain(push_every=3.0), Domain(push_speed=1.0)):
        assert not domain.active
        off = RobotEnvironment(TASK, 3, seed=4, domain=domain)
        assert off.state_dict()["domain"] is None
        np.testing.assert_array_equal(rows(off, 60), rows(RobotEnvironment(TASK, 3, seed=4), 60))
    # an active domain leaves the starts alone: they come from a generator of their own
    on = RobotEnvironment(TASK, 3, seed=4, domain=Domain(mass=(0.5, 2.0)))
    np.testing.assert_array_equal(on.sim.q, plain.sim.q)


def test_factors_are_drawn_for_each_simulation_and_episode():
    env = RobotEnvironment(CALM, 4, seed=1, domain=ALL)
    model = env.sim.model
    mass = env.sim.expand("body_mass")[:, 1:] / model.body_mass[1:]
    assert ((mass >= 0.8) & (mass <= 1.2)).all()
    assert np.ptp(mass, axis=0).min() > 0.0
    np.testing.assert_allclose(
        env.sim.expand("body_inertia")[:, 1:], model.body_inertia[1:] * mass[..., None], rtol=1e-12
    )
    friction = env.sim.expand("geom_friction")[..., 0] / model.geom_friction[:, 0]
    np.testing.assert_allclose(friction, friction[:, :1] * np.ones(model.ngeom))
    assert len(np.unique(friction[:, 0].round(9))) == 4
    gains = env.sim.expand("actuator_biasprm")[..., 1:3] / model.actuator_biasprm[:, 1:3]
    np.testing.assert_allclose(gains[..., 0], gains[..., 1])
    before = env.sim.expand("body_mass").copy()
    env.reset()
    assert (env.sim.expand("body_mass")[:, 1:] != before[:, 1:]).all()


def test_gains_act_on_the_motors():
    """The static error of a position gain is inverse to it."""
    half = RobotEnvironment(TASK, 1, seed=2, domain=Domain(gains=(0.5, 0.5)))
    full = RobotEnvironment(TASK, 1, seed=2)
    for env in (half, full):
        for _ in range(40):
            env.step(np.zeros((1, 6), np.float32))
    sag = [float((env._actions.target - env.sim.q)[0, 1]) for env in (half, full)]
    assert sag[0] == pytest.approx(2 * sag[1], rel=0.05)


@pytest.mark.parametrize("ticks", [1, 13, 45])
def test_actions_arrive_late_by_whole_control_ticks(ticks):
    late = RobotEnvironment(TASK, 2, seed=3, domain=Domain(action_delay=(ticks, ticks)))
    plain = RobotEnvironment(TASK, 2, seed=3)
    start = plain.sim.q.copy()
    sent, arrived = [], []
    for u in actions(5, 2, 6):
        # the same measured joints: only the targets are compared
        plain._actions.step(u, start, plain._q, plain._dq)
        sent.append(plain._q.copy())
        late._actions.step(u, start, late._q, late._dq)
        late._randomiser.delay(late._q, late._dq)
        arrived.append(late._q.copy())
    sent, arrived = np.concatenate(sent, 1), np.concatenate(arrived, 1)
    np.testing.assert_array_equal(arrived[:, ticks:], sent[:, :-ticks])
    np.testing.assert_array_equal(arrived[:, :ticks], np.repeat(start[:, None], ticks, 1))


def test_observations_arrive_late_by_whole_policy_steps():
    late = RobotEnvironment(TASK, 2, seed=3, domain=Domain(observation_delay=(2, 2)))
    seen, true = [late.sensors()["joint_pos"]], [late.sim.q.copy()]
    for u in actions(10, 2, 6):
        late.step(u)
        seen.append(late.sensors()["joint_pos"])
        true.append(late.sim.q.copy())
    for k in range(2, 11):
        np.testing.assert_array_equal(seen[k], true[k - 2].astype(np.float32))
    np.testing.assert_array_equal(seen[1], true[0].astype(np.float32))


def test_noise_is_on_the_sensors_and_not_on_the_reward():
    domain = Domain(joint_pos_noise=0.02, joint_vel_noise=0.3, gyro_noise=0.2, tilt_noise=0.05)
    noisy = RobotEnvironment(CALM, 64, seed=3, domain=domain)
    difference = {name: [] for name in ("joint_pos", "joint_vel", "gyro", "tilt")}
    for _ in range(5):
        noisy.step(np.zeros((64, 29), np.float32))
        s, sim = noisy.sensors(), noisy.sim
        difference["joint_pos"].append(s["joint_pos"] - sim.q)
        difference["joint_vel"].append(s["joint_vel"] - sim.dq)
        difference["gyro"].append(s["gyro"] - sim.imu[:, 4:7])
        w = np.abs((s["base_quat"] * sim.imu[:, :4]).sum(1))
        difference["tilt"].append(2 * np.arccos(np.minimum(w, 1.0)) / np.sqrt(3))
        np.testing.assert_allclose(np.linalg.norm(s["base_quat"], axis=1), 1.0, atol=1e-6)
    for name, expected in (("joint_pos", 0.02), ("joint_vel", 0.3), ("gyro", 0.2), ("tilt", 0.05)):
        spread = np.sqrt(np.square(np.concatenate(difference[name])).mean())
        assert spread == pytest.approx(expected, rel=0.1), name
    now = noisy.moment()
    np.testing.assert_array_equal(now.q, noisy.sim.q)


def test_pushes_come_as_often_as_asked():
    env = RobotEnvironment(CALM, 200, seed=5, domain=Domain(push_every=0.5, push_speed=0.4))
    before = env.sim.base[:, 7:10].copy()
    hits, changes = 0, []
    for _ in range(50):
        env._randomiser.push()
        change = env.sim.base[:, 7:10] - before
        before = env.sim.base[:, 7:10].copy()
        moved = np.abs(change).max(1) > 0
        hits += moved.sum()
        changes.append(change[moved])
    assert hits == pytest.approx(200 * 50 * 0.02 / 0.5, rel=0.15)
    changes = np.concatenate(changes)
    assert 0.39 < np.abs(changes[:, :2]).max() <= 0.4 + 1e-9
    assert not changes[:, 2].any()


def test_resume_is_exact_with_everything_on():
    env, other = (RobotEnvironment(CALM, 3, seed=s, domain=ALL, stagger=True) for s in (1, 2))
    rows(env, 70)
    saved = env.state_dict()
    other.load_state_dict(saved)
    np.testing.assert_array_equal(rows(other, 150, 1), rows(env, 150, 1))
    with pytest.raises(ValueError, match="the state belongs to another domain"):
        RobotEnvironment(CALM, 3).load_state_dict(saved)
    with pytest.raises(ValueError, match="the state belongs to another domain"):
        RobotEnvironment(CALM, 3, domain=Domain(mass=(0.9, 1.1))).load_state_dict(saved)


def test_seeds():
    a, b, c = (RobotEnvironment(CALM, 2, seed=s, domain=ALL) for s in (1, 1, 2))
    ra, rb, rc = (rows(env, 30) for env in (a, b, c))
    np.testing.assert_array_equal(ra, rb)
    assert (ra != rc).any()
    np.testing.assert_array_equal(a.reset(7), c.reset(7))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"mass": (1.2, 0.8)}, "mass"),
        ({"mass": (0.0, 1.0)}, "mass"),
        ({"friction": (1.0,)}, "friction"),
        ({"action_delay": (-1, 3)}, "action_delay"),
        ({"observation_delay": (0.5, 1)}, "observation_delay"),
        ({"gyro_noise": -0.1}, "gyro_noise -0.1"),
        ({"push_speed": float("nan")}, "push_speed nan"),
    ],
)
def test_bad_ranges_are_named(fields, text):
    with pytest.raises(ValueError, match=text):
        Domain(**fields)


def test_gymnasiums_tasks_have_no_domain():
    with pytest.raises(ValueError, match="gym:Pendulum-v1 has no robot"):
        make("gym:Pendulum-v1", 1, domain=Domain(mass=(0.9, 1.1)))


def test_the_command_line_changes_the_tasks_own_domain():
    own = StandHumanoid29().domain
    options = TrainOptions("cadenza/StandHumanoid29-v0", set=("domain.mass=0.9,1.1",))
    assert own.pushes and configure("symphony", options).domain == replace(own, mass=(0.9, 1.1))
