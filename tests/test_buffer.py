"""Fading replay: the ring against a list, golden probabilities, draws, state."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.buffer import Batch, FadingReplay, fading_cdf, fading_weight

GOLDEN = json.loads((Path(__file__).parent / "golden" / "symphony.json").read_text())["replay"]


def add(buffer: FadingReplay, numbers, terminated) -> None:
    """Store transitions that are recognised by their number."""
    x = np.asarray(numbers, np.float32)
    flags = np.asarray(terminated, bool)
    column = x[:, None]
    buffer.add(column, column + 0.25, x + 1.0, column + 0.5, np.where(flags, 0.0, 0.9), flags)


def order(buffer: FadingReplay) -> list[int]:
    """Stored numbers, oldest first."""
    return [int(buffer.obs[(buffer.head + i) % buffer.capacity, 0]) for i in range(buffer.capacity)]


def filled(explore: int, tiles: int, terminals=(), **options) -> FadingReplay:
    buffer = FadingReplay(1, 1, explore, tiles, **options)
    add(buffer, np.arange(explore), [i in terminals for i in range(explore)])
    return buffer


def draw(buffer: FadingReplay, uniforms) -> Batch:
    n = len(uniforms)
    out = Batch(*(np.empty(s, np.float32) for s in ((n, 1), (n, 1), (n,), (n, 1), (n,))))
    buffer.sample(np.asarray(uniforms, np.float64), out)
    return out


class ListReplay:
    """The rule of the specification on a plain list of (number, protected), oldest first."""

    def __init__(self, items, forever):
        self.items, self.forever = list(items), forever

    def add(self, number, terminal):
        if self.forever:
            if self.items[0][1]:
                self.items.append(self.items.pop(0))
        else:
            while self.items[0][1]:
                self.items.append((self.items.pop(0)[0], False))
        self.items.pop(0)
        self.items.append((number, terminal))


@given(
    explore=st.integers(1, 16),
    tiles=st.integers(1, 4),
    forever=st.booleans(),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_ring_equals_list(explore, tiles, forever, data):
    first = data.draw(st.lists(st.booleans(), min_size=explore, max_size=explore))
    buffer = FadingReplay(1, 1, explore, tiles, protect_forever=forever)
    add(buffer, np.arange(explore), first)
    model = ListReplay(list(enumerate(first)) * tiles, forever)
    number = 1000
    for flags in data.draw(st.lists(st.lists(st.booleans(), min_size=1, max_size=9), max_size=12)):
        add(buffer, range(number, number + len(flags)), flags)
        for flag in flags:
            model.add(number, flag)
            number += 1
        assert order(buffer) == [n for n, _ in model.items]
        slots = (buffer.head + np.arange(buffer.capacity)) % buffer.capacity
        assert list(buffer.protect[slots]) == [p for _, p in model.items]


def test_terminals_fall_at_the_second_visit_and_all_others_at_the_first():
    rng = np.random.default_rng(1)
    buffer = filled(8, 3, terminals={2, 3, 7})
    terminal = buffer.protect.copy()  # of each slot's occupant; its flag is cleared on the way
    visits = np.zeros(buffer.capacity, int)
    for step in range(400):
        head, flag = buffer.head, bool(rng.random() < 0.4)
        add(buffer, [100 + step], [flag])
        passed = (buffer.head - head) % buffer.capacity or buffer.capacity
        slots = (head + np.arange(passed)) % buffer.capacity
        visits[slots] += 1
        written = slots[-1]
        assert visits[written] == (2 if terminal[written] else 1)
        assert terminal[slots[:-1]].all() and (visits[slots[:-1]] == 1).all()
        terminal[written], visits[written] = flag, 0


def test_a_stream_of_terminals_ends_and_keeps_order():
    buffer = filled(8, 1, terminals=set(range(8)))
    add(buffer, range(100, 164), [True] * 64)
    assert len(set(order(buffer))) == 8


def test_forever_overwrites_the_second_of_two_adjacent_terminals():
    buffer = filled(6, 1, terminals={0, 1}, protect_forever=True)
    add(buffer, [100], [False])
    assert 0 in order(buffer) and 1 not in order(buffer)
    for i in range(60):
        add(buffer, [200 + i], [False])
    assert 0 in order(buffer)


def test_golden_weights_and_cdf():
    for x, w in GOLDEN["weight"]:
        assert fading_weight(np.array(x)) == pytest.approx(w, abs=5e-9)
    np.testing.assert_allclose(fading_cdf(10), GOLDEN["cdf10"], rtol=0, atol=1e-12)
    buffer = filled(10, 1)
    uniforms, slots = zip(*GOLDEN["draws10"], strict=True)
    assert draw(buffer, uniforms).obs[:, 0].tolist() == list(slots)
    n, expected = 512_000, GOLDEN["n512000"]
    weights, cdf = fading_weight(np.arange(n) / n), fading_cdf(n)
    assert weights.mean() == pytest.approx(expected["mean"], abs=1e-8)
    assert weights[-1] / weights.sum() * n == pytest.approx(expected["newest_times_n"], abs=1e-6)
    assert 1 - cdf[n * 9 // 10 - 1] == pytest.approx(expected["newest_tenth"], abs=1e-6)
    assert 1 - cdf[n // 2 - 1] == pytest.approx(expected["newest_half"], abs=1e-6)
    assert cdf[n // 4 - 1] == pytest.approx(expected["oldest_quarter"], abs=1e-6)


@given(st.integers(1, 4096))
@settings(max_examples=50, deadline=None)
def test_cdf_is_monotone_and_ends_at_one(n):
    cdf = fading_cdf(n)
    assert (np.diff(cdf) >= 0).all() and cdf[-1] == 1.0 and (n == 1 or cdf[0] == 0.0)


def test_draws_follow_the_weights_and_never_the_oldest():
    n = 64
    buffer = filled(n, 1)
    add(buffer, range(n, n + 10), [False] * 10)  # head is no longer slot 0
    counts = np.bincount(draw(buffer, np.random.default_rng(0).random(1_000_000)).obs[:, 0].astype(int) - 10)
    p = fading_weight(np.arange(n) / n)
    p /= p.sum()
    assert counts[0] == 0 and len(counts) == n
    likely = p * 1e6 > 5
    chi2 = ((counts[likely] - p[likely] * 1e6) ** 2 / (p[likely] * 1e6)).sum()
    freedom = likely.sum() - 1
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


def test_draw_returns_whole_transitions():
    batch = draw(filled(16, 2, terminals={5}), np.linspace(0.01, 0.99, 40))
    np.testing.assert_allclose(batch.action, batch.obs + 0.25)
    np.testing.assert_allclose(batch.next_obs, batch.obs + 0.5)
    np.testing.assert_array_equal(
        batch.discount, np.where(batch.obs[:, 0] == 5, np.float32(0), np.float32(0.9))
    )


def test_rewards_are_divided_once_by_their_mean_magnitude():
    buffer = FadingReplay(1, 1, 4, 3)
    x = np.zeros((4, 1), np.float32)
    buffer.add(x, x, np.array([1.0, -3.0, 0.0, 4.0]), x, np.ones(4), np.zeros(4, bool))
    assert buffer.reward_norm == 2.0
    assert buffer.reward.tolist() == [0.5, -1.5, 0.0, 2.0] * 3
    buffer.add(x[:1], x[:1], np.array([10.0]), x[:1], np.ones(1), np.zeros(1, bool))
    assert buffer.reward[0] == 5.0 and buffer.reward_norm == 2.0


def test_reward_floor_and_zero_rewards():
    x = np.zeros((4, 1), np.float32)
    low = FadingReplay(1, 1, 4, 1, reward_floor=1e-2)
    low.add(x, x, np.full(4, 1e-4), x, np.ones(4), np.zeros(4, bool))
    assert low.reward_norm == 1e-2
    far = FadingReplay(1, 1, 4, 2, reward_floor=1e-2, return_scale=50.0)
    far.add(x, x, np.full(4, -2.0), x, np.ones(4), np.zeros(4, bool))
    assert far.reward_norm == 100.0 and (far.reward == np.float32(-0.02)).all()
    zero = FadingReplay(1, 1, 4, 1, reward_floor=1e-2, return_scale=50.0, task="gym:Sparse-v0")
    with pytest.warns(UserWarning, match="gym:Sparse-v0"):
        zero.add(x, x, np.zeros(4), x, np.ones(4), np.zeros(4, bool))
    assert zero.reward_norm == 1.0


def test_exploration_must_not_overrun():
    buffer = FadingReplay(1, 1, 4, 1)
    add(buffer, [0, 1, 2], [False] * 3)
    with pytest.raises(ValueError, match=r"2 transitions .* 3 of 4"):
        add(buffer, [3, 4], [False] * 2)
    assert buffer.count == 3 and not buffer.ready


@pytest.mark.parametrize("stored", [3, 8, 13])
def test_state_round_trip(stored):
    def make():
        return FadingReplay(1, 1, 8, 2)

    buffer, other = make(), make()
    for i in range(stored):
        add(buffer, [i], [i % 3 == 0])
    state = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in buffer.state_dict().items()}
    other.load_state_dict(state)
    for i in range(stored, 30):
        for b in (buffer, other):
            add(b, [i], [i % 4 == 0])
    assert order(buffer) == order(other) and buffer.head == other.head
    assert (buffer.protect == other.protect).all() and buffer.reward_norm == other.reward_norm


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("count", 9, "9 transitions.*capacity 16"),
        ("head", 16, "head 16"),
        ("obs", np.zeros((16, 2), np.float32), r"obs.*\[16, 2\].*\[16, 1\]"),
        ("protect", np.zeros(16, np.float32), "protect.*float32.*bool"),
    ],
)
def test_foreign_state_is_refused_and_changes_nothing(field, value, message):
    buffer = filled(8, 2)
    before = order(buffer)
    with pytest.raises(ValueError, match=message):
        buffer.load_state_dict(filled(8, 2, terminals={1}).state_dict() | {field: value})
    assert order(buffer) == before and not buffer.protect.any()
