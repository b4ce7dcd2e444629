"""Evaluation: shapes, number types, options, refusals, and what a call leaves alone."""

import math
import subprocess
import sys
import threading

import numpy as np
import pytest

from cadenza import stl

RNG = np.random.default_rng(0)


def test_shapes_and_dtypes():
    f = stl.parse("G[0,2] (x > y)", ["x", "y"])
    batch = RNG.normal(size=(5, 9, 2))
    every = stl.robustness_trace(f, batch)
    assert every.shape == (5, 9) and every.dtype == np.float64
    first = stl.robustness(f, batch)
    assert first.shape == (5,)
    np.testing.assert_array_equal(first, every[:, 0])
    np.testing.assert_array_equal(stl.robustness_trace(f, batch[3]), every[3])
    assert stl.robustness(f, batch[3], at=4) == every[3, 4]
    np.testing.assert_array_equal(stl.robustness_trace(f, batch[::-1, :, :])[0], every[-1])
    np.testing.assert_array_equal(stl.robustness_trace(f, np.asfortranarray(batch)), every)
    single = stl.robustness_trace(f, batch.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, every, atol=1e-6)
    whole = np.array([[3, 1], [2, 5], [7, 1]])
    for kind in (np.int8, np.uint32, np.float16, np.int64):
        assert stl.robustness_trace(f, whole.astype(kind)).tolist() == [-3.0, -3.0, 6.0]
    assert stl.robustness(stl.parse("x > 0.5"), np.array([True])) == 0.5
    columns = stl.robustness_trace(f, {"y": batch[..., 1], "x": batch[..., 0], "unused": 0})
    np.testing.assert_array_equal(columns, every)
    assert stl.robustness(stl.parse("x > 1"), [3.0, 4.0]) == 2.0
    np.testing.assert_array_equal(stl.robustness_trace(f, batch, threads=3), every)


def test_empty_batches_give_empty_arrays_and_empty_traces_are_refused():
    f = stl.parse("G[0,2] (x > y) and x < 1", ["x", "y"])
    assert stl.robustness(f, np.zeros((0, 4, 2))).shape == (0,)
    assert stl.robustness_trace(f, np.zeros((0, 4, 2), np.float32)).shape == (0, 4)
    assert stl.breakdown(f, np.zeros((0, 4, 2))).shape == (0, 2)
    assert stl.explain(f, np.zeros((0, 4, 2))) == []
    for empty in (np.zeros((0, 2)), np.zeros((3, 0, 2))):
        for evaluate in (stl.robustness, stl.robustness_trace, stl.breakdown, stl.node_values, stl.explain):
            with pytest.raises(stl.StlError, match="no samples"):
                evaluate(f, empty)


@pytest.mark.parametrize(
    "x, kind, match",
    [
        (np.zeros((4, 3)), ValueError, r"shape \[4, 3\], expected \[T, 2\] or \[N, T, 2\]"),
        (np.zeros((1, 2, 3, 2)), ValueError, r"shape \[1, 2, 3, 2\], expected"),
        (np.zeros(4), ValueError, r"shape \[4\], expected"),
        (3.0, ValueError, r"shape \[\], expected"),
        ({"x": [1.0]}, ValueError, "no samples of y; given are x"),
        ({"x": [1.0], "y": [1.0, 2.0]}, ValueError, r"different shapes.*\[1\].*\[2\]"),
        ({"x": np.zeros((1, 2, 3)), "y": np.zeros((1, 2, 3))}, ValueError, r"expected \[T\] or \[N, T\]"),
        (np.array([["a", "b"]]), TypeError, "real numbers"),
        (np.array([[1.0, None]], object), TypeError, "object"),
        (np.zeros((3, 2), complex), TypeError, "complex128"),
        (np.zeros((3, 2), np.longdouble), TypeError, "64 bits"),
        ([[1.0, 2.0], [3.0]], ValueError, "ragged"),
    ],
)
def test_samples_that_do_not_fit(x, kind, match):
    for evaluate in (stl.robustness, stl.robustness_trace, stl.explain):
        with pytest.raises(kind, match=match):
            evaluate(stl.parse("x > y", ["x", "y"]), x)


def test_columns_need_an_order():
    with pytest.raises(ValueError, match="which column is which signal"):
        stl.robustness(stl.parse("x > y"), np.zeros((3, 2)))
    assert stl.robustness(stl.parse("x > y"), {"x": [1.0], "y": [0.0]}) == 1.0


@pytest.mark.parametrize(
    "options, kind, match",
    [
        ({"at": -1}, ValueError, "at = -1"),
        ({"at": 7}, stl.StlError, "7"),
        ({"at": 2**40}, ValueError, "at = "),
        ({"at": 0.5}, TypeError, "float"),
        ({"end": "pad"}, ValueError, "'pad'.*'truncate' or 'strict'"),
        ({"nan": "ignore"}, ValueError, "'ignore'"),
        ({"semantics": "agm"}, ValueError, "'agm'"),
        ({"semantics": "lse"}, ValueError, "needs beta"),
        ({"beta": 1.0}, ValueError, "'true' has none"),
        ({"semantics": "lse", "beta": 0}, stl.StlError, "beta"),
        ({"semantics": "softmax", "beta": -2.0}, stl.StlError, "-2"),
        ({"semantics": "softmax", "beta": math.inf}, stl.StlError, "inf"),
        ({"threads": 0}, ValueError, "threads = 0"),
        ({"threads": -1}, OverflowError, "negative"),
        ({"lengths": [2, 2]}, ValueError, r"shape \[2\], expected \[1\]"),
        ({"lengths": [3]}, stl.StlError, "length 3"),
        ({"lengths": [0]}, stl.StlError, "no samples"),
        ({"lengths": [-1]}, ValueError, "-1"),
        ({"lengths": [1.5]}, TypeError, "float64"),
        ({"params": {"d": 1.0}}, stl.StlError, "no parameter `d`"),
        ({"normalise": {"x": -1.0}}, stl.StlError, "positive"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(options, kind, match):
    with pytest.raises(kind, match=match):
        stl.robustness(stl.parse("G[0,1] x > 0"), [1.0, 2.0], **options)


def test_what_is_no_formula_is_refused():
    with pytest.raises(TypeError, match="str"):
        stl.robustness("x > 0", [1.0])  # type: ignore[arg-type]


def test_parameters():
    f = stl.parse("G[0,1] (x > $d) and x < $top")
    assert f.params == ("d", "top")
    x = [1.0, 2.0, 3.0]
    assert stl.robustness(f, x, params={"d": 0.5, "top": 4}) == 0.5
    assert stl.robustness(f, x, params={"d": -9, "top": 1.25}) == 0.25
    batch = np.array([x, x, x])[..., None]
    each = stl.robustness(f, batch, params={"d": [0.5, 0.75, 5.0], "top": np.float32(4)})
    assert each.tolist() == [0.5, 0.25, -4.0]
    assert stl.robustness(f, batch.astype(np.float32), params={"d": 0.5, "top": 4}).dtype == np.float32
    for params, match in (
        ({"d": 0.5}, r"\$top has no value"),
        ({"d": 0.5, "top": 1, "tpo": 0}, "did you mean `top`"),
        ({"d": math.nan, "top": 1}, r"\$d must be finite"),
    ):
        with pytest.raises(stl.StlError, match=match):
            stl.robustness(f, x, params=params)
    with pytest.raises(ValueError, match=r"\$d has shape \[2\], expected \[\] or \[3\]"):
        stl.robustness(f, batch, params={"d": [1.0, 2.0], "top": 1})
    with pytest.raises(TypeError, match=r"\$d"):
        stl.robustness(f, x, params={"d": "low", "top": 1})


def test_the_strict_end_has_only_whole_horizons():
    f = stl.parse("G[0,2] x > 0")
    x = np.array([3.0, 1.0, 2.0, 5.0])
    assert stl.robustness_trace(f, x, end="strict").tolist() == [1.0, 1.0]
    assert stl.robustness_trace(f, x[:2], end="strict").shape == (0,)
    assert stl.robustness(f, x, at=1, end="strict") == 1.0
    with pytest.raises(stl.HorizonError, match="2 further steps") as refused:
        stl.robustness(f, x, at=2, end="strict")
    assert (refused.value.horizon, refused.value.length) == (2, 4)
    for evaluate in (stl.robustness, stl.robustness_trace, stl.breakdown, stl.explain):
        with pytest.raises(stl.UnboundedFutureError, match="bound") as unbounded:
            evaluate(stl.parse("x > 0 and G (x > 0)"), x, end="strict")
        assert unbounded.value.start == 10 and isinstance(unbounded.value, stl.StlError)


def test_nan_can_be_refused():
    f = stl.parse("G[0,2] (x > y)", ["x", "y"])
    x = np.ones((3, 4, 2))
    x[1, 2, 1] = x[2, 0, 0] = np.nan
    with pytest.raises(stl.StlError, match="trace 1, step 2: y"):
        stl.robustness_trace(f, x, nan="raise")
    np.testing.assert_array_equal(np.isnan(stl.robustness(f, x)), [False, True, True])


def test_huge_windows_cost_the_trace():
    for text in ("G[0,2147483646] x > 0", "x > 0 U[5,2147483646] x > 1", "O[2147483646,inf] x > 0"):
        f = stl.parse(text)
        assert stl.robustness_trace(f, np.arange(50.0)).shape == (50,)
    with pytest.raises(stl.StlError, match="bytes"):
        stl.Monitor(stl.parse("G[0,2147483646] x > 0"))


SMOOTH = {  # of 1, 2, 3: specification §6
    ("lse", 1.0): (3.40760596444438, 0.5923940355556196),
    ("lse", 10.0): (3.000004540096028, 0.999995459903972),
    ("softmax", 1.0): (2.5752103826044417, 1.4247896173955585),
    ("softmax", 10.0): (2.9999545980092712, 1.0000454019907288),
}


@pytest.mark.parametrize("semantics, beta", SMOOTH)
def test_smooth_semantics(semantics, beta):
    high, low = SMOOTH[semantics, beta]
    for f, expected in (("F[0,2] x > 0", high), ("G[0,2] x > 0", low)):
        rho = stl.robustness(stl.parse(f), [1.0, 2.0, 3.0], semantics=semantics, beta=beta)
        assert rho == pytest.approx(expected, rel=1e-12)


def test_breakdown_and_node_values():
    f = stl.parse("let far = G[0,2] x > 1; far and y < 2 and F[0,3] x > y", ["x", "y"])
    x = RNG.normal(size=(4, 6, 2))
    parts = stl.breakdown(f, x, at=1)
    assert parts.shape == (4, 3)
    np.testing.assert_array_equal(parts.min(axis=1), stl.robustness(f, x, at=1))
    np.testing.assert_array_equal(stl.breakdown(f, x[2], at=1), parts[2])
    values = stl.node_values(f, x)
    assert list(values) == [node.text for node in f.nodes]
    for node in f.nodes:
        own = stl.parse(node.text, f.signals)
        np.testing.assert_array_equal(values[node.text], stl.robustness_trace(own, x))
    assert stl.node_values(f, x[0])["x > 1"].shape == (6,)
    assert stl.breakdown(stl.parse("x > 0"), [2.0]).tolist() == [2.0]


def test_the_explained_sample_decides():
    f = stl.parse("G[0,9] x > $d and F[0,9] (y < 0 and G[0,2] x < 2)", ["x", "y"])
    x = RNG.normal(size=(20, 12, 2))
    params = {"d": 0.1}
    for i, why in enumerate(stl.explain(f, x, params=params)):
        rho = stl.robustness(f, x[i], params=params)
        assert why.robustness == rho and str(why) == why.summary
        assert why.path[0] == (f.nodes[-1], 0) and why.path[-1] == (why.predicate, why.step)
        assert f.conjuncts[why.conjunct] in [node for node, _ in why.path]
        [(signal, value)] = why.values.items()
        column = f.signals.index(signal)
        assert value == x[i, why.step, column]
        changed = x[i].copy()
        changed[why.step, column] += 1e-3
        assert stl.robustness(f, changed, params=params) != rho
    [why] = stl.explain(stl.parse("G[0,3] x > 0"), [1.0, math.nan])
    assert math.isnan(why.robustness) and why.path == () and why.predicate is None
    [why] = stl.explain(stl.parse("gap > 0.5"), [0.25])
    assert str(why) == "violated by 0.25: gap > 0.5 at step 0"


def test_inputs_are_never_changed():
    f = stl.parse("G[0,2] (x > $d) U[1,3] y < 1", ["x", "y"])
    x, d = RNG.normal(size=(3, 7, 2)), np.array([0.1, 0.2, 0.3])
    before, before_d = x.copy(), d.copy()
    x.flags.writeable = d.flags.writeable = False
    listed = before.tolist()
    for evaluate in (stl.robustness, stl.robustness_trace, stl.breakdown, stl.node_values, stl.explain):
        evaluate(f, x, params={"d": d})
        evaluate(f, listed, params={"d": d})
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(d, before_d)
    assert listed == before.tolist()


def progressed(work):
    """Whether this thread goes on while another one repeats `work`, which keeps the lock or not."""
    stop, started, exhausted = threading.Event(), threading.Event(), threading.Event()

    def busy():
        for _ in range(3000):
            started.set()
            work()
            if stop.is_set():
                return
        exhausted.set()

    thread = threading.Thread(target=busy)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)  # the lock changes hands only where it is released
    try:
        thread.start()
        started.wait()
        return not exhausted.is_set()
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()


def test_the_interpreter_lock_is_released():
    f = stl.parse("G[0,50] (x > 0) U[0,100] x < 1")
    x = RNG.normal(size=(16, 2000, 1))
    monitor = stl.Monitor(stl.parse("G[0,100] x > 0"), interval=False)
    for work in (
        lambda: stl.robustness_trace(f, x),
        lambda: stl.robustness(f, x),
        lambda: stl.explain(f, x),
        lambda: monitor.update_batch(x[0]),
    ):
        assert progressed(work)


def test_numpy_input_imports_no_torch():
    code = (
        "import sys, numpy as np; from cadenza import stl; import cadenza.stl.trace_files;"
        "f = stl.parse('G[0,1](x>$d)');"
        "print(stl.robustness(f, np.ones((4, 1)), params={'d': 0}));"
        "stl.explain(f, {'x': [1.0]}, params={'d': 0}); stl.decompose(f); stl.Monitor(f, params={'d': 0});"
        "print([m for m in ('torch', 'mujoco', 'gymnasium', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["1.0", "[]"]
