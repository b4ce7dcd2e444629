"""Matrix products, softmax and attention: engine, onnxruntime and NumPy in float64 agree on random shapes."""

import json

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cadenza import _native

SIZES = st.integers(1, 18)
EXAMPLES = settings(max_examples=40, deadline=None)


def manifest(obs: int, action: int) -> dict:
    """A policy of `action` joints that sees `obs` numbers."""
    names = [f"j{i}" for i in range(action)]
    free = {"default": 0.0, "kp": 1.0, "kd": 0.0, "position": None, "velocity_max": None, "effort_max": None}
    term = {"name": "x", "source": "x-any", "size": obs}
    ports = {"inputs": {"obs": "observation"}, "outputs": {"action": "action"}}
    return {
        "format": 1,
        "name": "tokens",
        "robot": {"name": "bench", "model_sha256": None},
        "rates": {"policy_dt": 0.02, "control_dt": 0.02, "physics_dt": None},
        "joints": [{"name": n, **free} for n in names],
        "observation": {"size": obs, "interleave": "term", "terms": [term]},
        "normalizer": {"where": "none"},
        "action": {"kind": "position", "joints": names, "scale": {"*": 1.0}},
        "chunk": {"mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace"},
        "functions": {"step": {"file": "step.onnx", "batch": 1, **ports}},
        "in_graph": {"normalize": False, "squash": False, "action_scale": False, "action_offset": False},
        "weights": "f32",
        "provenance": {},
    }


class Graph:
    """A graph whose operands are parts of one flat observation."""

    def __init__(self, opset: int, operands: dict[str, tuple[int, ...]]) -> None:
        self.opset, self.operands = opset, operands
        self.nodes, self.constants = [], []
        self.size = sum(int(np.prod(s)) for s in operands.values())
        at = 0
        for name, shape in operands.items():
            count = int(np.prod(shape))
            self.constant(f"{name}_from", np.array([at]))
            self.constant(f"{name}_to", np.array([at + count]))
            self.constant(f"{name}_axis", np.array([1]))
            self.constant(f"{name}_shape", np.array(shape))
            places = [f"{name}_from", f"{name}_to", f"{name}_axis"]
            self.node("Slice", ["obs", *places], f"{name}_flat")
            self.node("Reshape", [f"{name}_flat", f"{name}_shape"], name)
            at += count

    def constant(self, name: str, value: np.ndarray) -> None:
        self.constants.append(numpy_helper.from_array(value, name))

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))

    def answers(self, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Random operands, and what engine and onnxruntime make of them, flat."""
        self.constant("row", np.array([1, -1]))
        self.node("Reshape", ["y", "row"], "action")
        obs = rng.normal(size=(1, self.size)).astype(np.float32)
        ports = [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, self.size])]
        out = [helper.make_tensor_value_info("action", TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "g", ports, out, self.constants)
        opset = [helper.make_opsetid("", self.opset)]
        data = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
        theirs = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        [expected] = theirs.run(["action"], {"obs": obs})
        document = json.dumps(manifest(self.size, expected.size))
        bundle = _native.Bundle.from_bytes(_native.write_bundle(document, {"step.onnx": data}, {}))
        ours = _native.Policy(bundle).act(obs[0])
        parts, at = {}, 0
        for name, shape in self.operands.items():
            count = int(np.prod(shape))
            parts[name] = obs[0, at : at + count].reshape(shape).astype(np.float64)
            at += count
        return parts, ours, expected.reshape(-1)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """Shares; a row of -inf has none."""
    top = x.max(axis, keepdims=True)
    e = np.exp(x - np.where(np.isinf(top), 0.0, top))
    total = e.sum(axis, keepdims=True)
    return e / np.where(total == 0.0, 1.0, total)


@EXAMPLES
@given(
    st.sampled_from([((), ()), ((3,), ()), ((), (2,)), ((2, 1), (3,)), ((2, 3), (2, 3)), ((1, 2), (4, 1))]),
    st.tuples(SIZES, SIZES, st.integers(1, 40)),
    st.integers(0, 2**32 - 1),
)
def test_products_of_two_computed_tensors(batches, sizes, seed):
    (left, right), (m, k, n) = batches, sizes
    g = Graph(20, {"a": (*left, m, k), "b": (*right, k, n)})
    g.node("MatMul", ["a", "b"], "y")
    parts, ours, theirs = g.answers(np.random.default_rng(seed))
    exact = (parts["a"] @ parts["b"]).reshape(-1)
    # 4·γ_k·Σ|terms|, the bound of any order of summation
    bound = 4 * k * 2.0**-24 * (np.abs(parts["a"]) @ np.abs(parts["b"])).reshape(-1) + 1e-12
    assert (np.abs(ours - exact) <= bound).all()
    assert (np.abs(theirs - exact) <= bound).all()


@EXAMPLES
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data(), st.integers(0, 2**32 - 1))
def test_softmax_over_any_axis(shape, data, seed):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    g = Graph(data.draw(st.sampled_from([13, 18, 24])), {"a": tuple(shape)})
    g.node("Softmax", ["a"], "y", axis=axis)
    parts, ours, theirs = g.answers(np.random.default_rng(seed))
    exact = softmax(parts["a"], axis).reshape(-1)
    np.testing.assert_allclose(ours, exact, atol=4e-7)
    np.testing.assert_allclose(ours, theirs, atol=4e-7)


@EXAMPLES
@given(
    st.sampled_from([23, 24]),
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
    st.tuples(SIZES, SIZES, st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from(["none", "float", "bool"]),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.integers(0, 2**32 - 1),
)
def test_the_operator_attention(opset, blocks, sizes, kind, switches, seed):
    (batch, groups, shared), (queries, keys, width, values) = blocks, sizes
    flat, causal, scaled = switches
    heads = groups * shared
    rng = np.random.default_rng(seed)

    def shape(heads: int, rows: int, width: int) -> tuple[int, ...]:
        return (batch, rows, heads * width) if flat else (batch, heads, rows, width)

    g = Graph(
        opset,
        {
            "q": shape(heads, queries, width),
            "k": shape(groups, keys, width),
            "v": shape(groups, keys, values),
        },
    )
    attributes: dict[str, object] = {"is_causal": int(causal)}
    if flat:
        attributes |= {"q_num_heads": heads, "kv_num_heads": groups}
    if scaled:
        attributes["scale"] = 0.3
    inputs, mask = ["q", "k", "v"], np.zeros((queries, keys))
    if kind != "none":
        allowed = rng.random((queries, keys)) < 0.7
        allowed[:, 0] = True  # onnxruntime gives NaN for a row without any key
        if kind == "bool":
            g.constant("mask", allowed)
            mask = np.where(allowed, 0.0, -np.inf)
        else:
            mask = np.where(allowed, rng.normal(size=(queries, keys)), -np.inf).astype(np.float32)
            g.constant("mask", mask)
        inputs.append("mask")
    g.node("Attention", inputs, "y", **attributes)
    parts, ours, theirs = g.answers(rng)

    def apart(x: np.ndarray, heads: int) -> np.ndarray:
        return x.reshape(batch, x.shape[1], heads, -1).swapaxes(1, 2) if flat else x

    q = apart(parts["q"], heads)
    k, v = (np.repeat(apart(parts[n], groups), shared, axis=1) for n in "kv")
    if causal:
        mask = np.where(np.tril(np.ones((queries, keys), bool)), mask, -np.inf)
    scores = (0.3 if scaled else width**-0.5) * q @ k.swapaxes(2, 3) + mask
    exact = softmax(scores, -1) @ v
    exact = (exact.swapaxes(1, 2) if flat else exact).reshape(-1)
    np.testing.assert_allclose(ours, exact, atol=1e-5)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_row_that_may_see_nothing_gives_zeros():
    g = Graph(23, {"q": (1, 1, 2, 3), "k": (1, 1, 4, 3), "v": (1, 1, 4, 3)})
    allowed = np.array([[False] * 4, [True] * 4])
    g.constant("mask", allowed)
    g.node("Attention", ["q", "k", "v", "mask"], "y")
    _, ours, _ = g.answers(np.random.default_rng(0))
    assert (ours[:3] == 0).all() and (ours[3:] != 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mask_holds_nothing_but_numbers_and_minus_infinity(value):
    g = Graph(23, {"q": (1, 1, 2, 2), "k": (1, 1, 2, 2), "v": (1, 1, 2, 2)})
    g.constant("mask", np.array([[0, -np.inf], [value, 0]], np.float32))
    g.node("Attention", ["q", "k", "v", "mask"], "y")
    with pytest.raises(_native.BundleError, match=f'"mask": element 2 is {str(value).replace("nan", "NaN")}'):
        g.answers(np.random.default_rng(0))
