"""The uniform replay: a list model, uniform draws, state."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.buffer import Batch, UniformReplay


def add(replay: UniformReplay, first: int, k: int) -> None:
    """Stores transitions that are known by their reward first … first + k - 1."""
    i = np.arange(first, first + k, dtype=np.float32)
    replay.add(np.stack((i, -i), 1), i[:, None] / 1e3, i, np.stack((i + 1, -i - 1), 1), i % 2)


def batch(rows: int) -> Batch:
    shapes = ((rows, 2), (rows, 1), (rows,), (rows, 2), (rows,))
    return Batch(*(np.full(s, np.nan, np.float32) for s in shapes))


@given(capacity=st.integers(1, 20), sizes=st.lists(st.integers(1, 20), max_size=20))
@settings(max_examples=60, deadline=None)
def test_it_keeps_the_newest_whole(capacity, sizes):
    replay, model, at = UniformReplay(2, 1, capacity), deque(maxlen=capacity), 0
    for k in sizes:
        if k > capacity:
            with pytest.raises(ValueError, match=f"{k} transitions do not fit into the capacity {capacity}"):
                add(replay, at, k)
            continue
        add(replay, at, k)
        model.extend(range(at, at + k))
        at += k
        assert replay.count == len(model) and 0 <= replay.head < capacity
        assert sorted(replay.reward[: replay.count]) == sorted(model)
        if replay.count == capacity:
            assert replay.reward[replay.head] == model[0]  # the oldest is overwritten next
    if model:
        out = batch(50)
        replay.sample(np.random.default_rng(0).random(50), out)
        assert set(out.reward) <= set(model)
        np.testing.assert_array_equal(out.obs, np.stack((out.reward, -out.reward), 1))
        np.testing.assert_array_equal(out.next_obs, np.stack((out.reward + 1, -out.reward - 1), 1))
        np.testing.assert_array_equal(out.action[:, 0], np.float32(out.reward / np.float32(1e3)))
        np.testing.assert_array_equal(out.discount, out.reward % 2)


def test_every_transition_is_drawn_alike_and_the_ends_are_reached():
    replay, out = UniformReplay(2, 1, 8), batch(80_000)
    add(replay, 0, 5)
    replay.sample(np.random.default_rng(1).random(80_000), out)
    counts = np.bincount(out.reward.astype(int), minlength=8)
    assert counts[5:].sum() == 0
    assert np.square(counts[:5] - 16_000).sum() / 16_000 < 23.5  # χ² of 4 degrees, 1e-4
    edge = batch(2)
    replay.sample(np.array([0.0, np.nextafter(1.0, 0.0)]), edge)
    assert list(edge.reward) == [0.0, 4.0]


def test_state():
    a, b = UniformReplay(2, 1, 6), UniformReplay(2, 1, 6)
    add(a, 0, 4)
    add(a, 4, 5)
    b.load_state_dict(a.state_dict())
    add(a, 9, 3)
    add(b, 9, 3)
    assert (a.head, a.count) == (b.head, b.count)
    np.testing.assert_array_equal(a.obs, b.obs)
    small = UniformReplay(2, 1, 4)
    with pytest.raises(ValueError, match="holds 6 transitions, this buffer has capacity 4"):
        small.load_state_dict(a.state_dict())
    with pytest.raises(ValueError, match=r"obs is float32\[6, 2\], expected float32\[6, 3\]"):
        UniformReplay(3, 1, 6).load_state_dict(a.state_dict())
    with pytest.raises(ValueError, match=r"lacks buffer\.reward"):
        b.load_state_dict({k: v for k, v in a.state_dict().items() if k != "reward"})
    with pytest.raises(RuntimeError, match="the replay is empty"):
        small.sample(np.zeros(1), batch(1))
