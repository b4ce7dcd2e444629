"""The monitor from Python; that it equals offline evaluation is in test_semantics.py."""

import math

import numpy as np
import pytest
from hypothesis import given, settings

from cadenza import stl
from stl.reference import text
from stl.test_semantics import bounded, traces


@settings(max_examples=150, deadline=None)
@given(bounded, traces)
def test_a_batch_of_samples_is_its_samples(formula, trace):
    f = stl.parse(text(formula), ["x", "y"])
    one, many, bare = stl.Monitor(f), stl.Monitor(f), stl.Monitor(f, interval=False)
    verdicts = [one.update(row) for row in trace]
    rho, bounds = many.update_batch(trace)
    expected = [math.nan if v.closed is None else v.closed[1] for v in verdicts]
    np.testing.assert_array_equal(rho, expected)
    assert bounds is not None
    np.testing.assert_array_equal(bounds, [v.pending[1:] if v.pending else (math.nan,) * 2 for v in verdicts])
    np.testing.assert_array_equal(bare.update_batch(trace)[0], expected)
    assert one.pending() == many.pending() and bare.pending() == []
    assert one.finish() == many.finish() == bare.finish()


def test_every_form_of_a_sample():
    f = stl.parse("x > y", ["x", "y"])
    m = stl.Monitor(f)
    strided = np.array([[3.0, 9.0], [1.0, 9.0]])[:, 0]
    forms = ([3.0, 1.0], (3, 1), [np.float32(3), True], np.array([3.0, 1.0]), np.array([3, 1]), strided,
             np.array([3.0, 1.0], np.float32), range(3, 0, -2))  # fmt: skip
    for step, sample in enumerate(forms):
        v = m.update(sample)
        assert (v.step, v.epoch, v.closed, v.truth, v.pending) == (step, 0, (step, 2.0), "satisfied", None)
    assert "closed=(7, 2)" in repr(v)


@pytest.mark.parametrize(
    "sample, kind, match",
    [
        ([1.0], stl.StlError, "1 values, the formula has 2 signals"),
        (np.zeros(3), stl.StlError, "3 values"),
        ([], stl.StlError, "0 values"),
        (["1", 2.0], TypeError, None),
        ([1.0, None], TypeError, None),
        ("12", TypeError, "real numbers"),
        (1.0, TypeError, "sequence of real numbers"),
        (np.zeros((1, 2)), TypeError, "sequence of real numbers"),
        ([1.0 + 2j, 0.0], TypeError, None),
    ],
    ids=str,
)
def test_refused_samples_change_nothing(sample, kind, match):
    m = stl.Monitor(stl.parse("G[0,1] x > y", ["x", "y"]))
    m.update([1.0, 0.0])
    with pytest.raises(kind, match=match):
        m.update(sample)
    assert m.update([3.0, 0.0]).closed == (0, 1.0)


def test_every_form_of_a_batch():
    f = stl.parse("x > y", ["x", "y"])
    whole = np.arange(8).reshape(4, 2)
    for samples in (whole, whole.tolist(), whole.astype(np.float32), np.asfortranarray(whole.astype(float))):
        rho, bounds = stl.Monitor(f).update_batch(samples)
        assert rho.tolist() == [-1.0] * 4 and np.isnan(bounds).all()


def test_refused_batches():
    m = stl.Monitor(stl.parse("G[0,1] x > y", ["x", "y"]))
    for samples, kind, match in (
        (np.zeros(4), ValueError, r"shape \[4\], expected \[T, 2\]"),
        (np.zeros((2, 3)), ValueError, r"shape \[2, 3\], expected \[T, 2\]"),
        ([["1", "2"]], TypeError, "real numbers"),
        (np.zeros((2, 2), complex), TypeError, "complex128"),
        (np.zeros((2, 2), object), TypeError, "object"),
    ):
        with pytest.raises(kind, match=match):
            m.update_batch(samples)
    assert m.update_batch(np.zeros((0, 2)))[0].shape == (0,)
    m.finish()
    with pytest.raises(stl.StlError, match="reset"):
        m.update([1.0, 2.0])
    with pytest.raises(stl.StlError, match="reset"):
        m.update_batch(np.zeros((1, 2)))


def test_refused_monitors():
    f = stl.parse("G[0,4] (x > $d)")
    for make, kind, match in (
        (lambda: stl.Monitor(stl.parse("F[0,inf] G[0,inf] (x > 0)")), stl.UnboundedFutureError, "bound"),
        (lambda: stl.Monitor(f, at="middle", params={"d": 0}), ValueError, "'middle'"),
        (lambda: stl.Monitor(f), stl.StlError, r"\$d has no value"),
        (lambda: stl.Monitor(f, params={"d": 0, "dd": 1}), stl.StlError, "did you mean `d`"),
        (lambda: stl.Monitor(f, params={"d": math.inf}), stl.StlError, "finite"),
        (lambda: stl.Monitor(f, params={"d": 0}, ranges={"xx": (0, 1)}), stl.StlError, "did you mean `x`"),
        (lambda: stl.Monitor(f, params={"d": 0}, ranges={"x": (1, 0)}), stl.StlError, r"\[1, 0\]"),
        (lambda: stl.Monitor("x > 0"), TypeError, "Formula"),
    ):
        with pytest.raises(kind, match=match):
            make()


def test_bounds_ranges_faults_and_the_start():
    monitor = stl.Monitor(stl.parse("G[0,4] (x > 0)"), ranges={"x": (-1.0, 1.0)})
    assert monitor.delay == 4 and monitor.memory_bytes > 0 and monitor.formula.horizon == 4
    assert monitor.update([0.5]).pending == (0, -1.0, 0.5)
    assert monitor.update([0.25]).pending == (0, -1.0, 0.25)
    assert monitor.pending() == [(0, -1.0, 0.25), (1, -1.0, 0.25)]
    start = stl.Monitor(stl.parse("G x > 0"), at="start")
    assert start.delay is None
    assert start.update([2.0]).closed is None and start.update([1.0]).pending == (0, -math.inf, 1.0)
    assert start.finish() == [(0, 1.0)] and start.finish() == []
    fault = stl.Monitor(stl.parse("x > 0"))
    assert fault.update([math.nan]).truth == "fault" and fault.update([0.0]).truth == "boundary"
    assert fault.update([-1.0]).truth == "violated"


def test_reset_parameters_and_node_values():
    f = stl.parse("G[0,1] (x > $d) and not (x > 9)")
    monitor = stl.Monitor(f, params={"d": 0.5})
    run = [monitor.update([v]).closed for v in (1.0, 2.0, 3.0)]
    assert run == [None, (0, 0.5), (1, 1.5)]
    assert monitor.node_value("x > $d") == 2.5 and monitor.node_value("not x > 9") == 6.0
    with pytest.raises(stl.StlError, match="no node `y`"):
        monitor.node_value("y")
    monitor.reset()
    assert monitor.epoch == 1 and [monitor.update([v]).closed for v in (1.0, 2.0, 3.0)] == run
    monitor.reset()
    monitor.set_param("d", 0.75)
    assert [monitor.update([v]).closed for v in (1.0, 2.0)] == [None, (0, 0.25)]
    with pytest.raises(stl.StlError, match="did you mean `d`"):
        monitor.set_param("dd", 1.0)
    with pytest.raises(stl.StlError, match="finite"):
        monitor.set_param("d", math.nan)
