"""cadenza.motion: golden values by hand, and that the shape of the signals makes no difference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadenza.motion import energy_above, jerk


def test_jerk_golden():
    cubic = (np.arange(20) / 10.0) ** 3
    np.testing.assert_allclose(jerk([cubic], 0.1), (6.0, 6.0), rtol=1e-9)
    # one joint of two moves: the mean of 36 and 0
    np.testing.assert_allclose(jerk([np.stack((cubic, 0 * cubic), 1)], 0.1), (6.0, np.sqrt(18)), rtol=1e-9)
    assert jerk([cubic[:3]], 0.1) == jerk([], 0.1) == (0.0, 0.0)


def test_energy_golden():
    t = np.arange(64) / 64
    slow, fast = np.sin(2 * np.pi * 4 * t), np.sin(2 * np.pi * 20 * t)
    assert energy_above([slow], 1.0, 0.25) == pytest.approx(0.0, abs=1e-20)
    assert energy_above([fast + 3], 1.0, 0.25) == pytest.approx(1.0)
    assert energy_above([np.stack((slow, 2 * fast), 1)], 64.0, 16.0) == pytest.approx(0.8)
    assert energy_above([slow, 2 * fast], 64.0, 16.0) == pytest.approx(0.8)
    assert energy_above([np.ones((5, 2))], 1.0, 0.25) == energy_above([np.zeros(0)], 1.0, 0.25) == 0.0
    assert energy_above([np.full(50, 0.3)], 100.0, 10.0) == 0.0


@given(st.integers(0, 2**32 - 1), st.integers(4, 40), st.integers(1, 4))
def test_joints_in_one_array_or_alone(seed, steps, joints):
    x = np.random.default_rng(seed).normal(size=(steps, joints))
    apart = [x[:, i] for i in range(joints)]
    np.testing.assert_allclose(jerk([x], 0.02), jerk(apart, 0.02), rtol=1e-12)
    assert energy_above([x], 50.0, 12.5) == pytest.approx(energy_above(apart, 50.0, 12.5))
