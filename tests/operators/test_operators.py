"""Every operator of the allow-list, on every instruction set: engine = float64 NumPy = onnxruntime."""

import elementwise_cases  # noqa: F401  (registers its cases)
import layer_cases  # noqa: F401
import numpy as np
import onnxruntime
import pytest
import shape_cases  # noqa: F401
from operator_case import CASES, OPSETS

from cadenza import _native

SINCE = _native.operators()
SEEDS = 16
# Their cases stand in files of their own.
ELSEWHERE = {"Attention", "GRU", "LSTM"}


def has(isa):
    case = CASES["Identity"](np.random.default_rng(0), "Identity", 18)
    try:
        _native.Network(case.model(), isa=isa)
    except _native.BundleError as error:
        assert "this machine has no" in str(error)
        return False
    return True


ISAS = [isa for isa in ("scalar", "avx2", "neon") if has(isa)]


def random_case(op, seed):
    rng = np.random.default_rng([seed, *op.encode()])
    opsets = [o for o in OPSETS if o >= SINCE[op]]
    # Every opset in turn, the newest and the oldest first.
    opset = ([opsets[0], opsets[-1]] + [int(o) for o in rng.permutation(opsets)])[seed % (len(opsets) + 2)]
    return CASES[op](rng, op, opset)


def oracle(model, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def agree(got, case, slack=1.0, extra=0.0):
    """Whether every output is within `slack` times its bound, plus `extra` of its size."""
    for y, expected, bound in zip(got, case.expected, case.bounds, strict=True):
        assert y.shape == expected.shape
        room = slack * np.asarray(bound) + extra * (1 + np.abs(expected))
        off = np.abs(y - expected) > room
        assert not off.any(), (y[off], expected[off], np.broadcast_to(room, y.shape)[off])


@pytest.mark.parametrize("op", sorted(CASES))
def test_engine_reference_and_onnxruntime_agree(op):
    for seed in range(2 * SEEDS if op.startswith("Conv") else SEEDS):
        case = random_case(op, seed)
        model = case.model()
        inputs = [np.array(x, np.float32, order="C") for x in case.inputs.values()]
        context = f"seed {seed}, opset {case.opset}, {[str(n) for n in case.nodes]}"
        try:
            for isa in ISAS:
                network = _native.Network(model, isa=isa)
                assert [name for name, _ in network.inputs] == list(case.inputs)
                agree(network.run(inputs), case)
            # Its own approximations are coarser than our bars; a different meaning is off by far more.
            if case.oracle:
                agree(oracle(model, case.inputs), case, slack=4, extra=2e-6)
        except Exception as error:
            raise AssertionError(context) from error


def test_every_operator_of_the_allow_list_has_cases():
    assert set(CASES) | ELSEWHERE == set(SINCE)
    assert not set(CASES) & ELSEWHERE
