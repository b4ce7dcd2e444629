"""What is known to be wrong or different in other STL tools, on both sides: our value is the definition's,
and the peer's is recorded, so that a peer that changes is noticed. `CADENZA_PEERS=1` asks the peers; our side
always runs.
"""

from math import inf, nan

import numpy as np
import pytest

from cadenza import stl
from stl.peer_workers import evaluate

P = [1, 3, -1, 2, 0.5, -2]
Q = [-5, -0.5, -3, 4, -1, 1]
DIP = [2, -3, 1, 1]
HOLE = [2, nan, -3, 1, 4]
HILL = [1, 2, 0.5, -1, 3]

# peer, what is the matter: (ours, theirs, trace, our values, theirs or the kind of their exception)
TRAPS = {
    ("rtamt", "a trace of one sample raises"): ("x > 0", "(x > 0)", {"x": [1]}, [1], "UnboundLocalError"),
    ("rtamt", "NaN depends on the order in a window"): (
        "G[0,3] x > 0", "always[0:3](x > 0)", {"x": HOLE}, [nan, nan, -3, 1, 4], [-3, nan, -3, 1, 4],
    ),
    ("rtamt", "NaN depends on the side of and"): (
        "x > 0 and y > 0", "(x > 0) and (y > 0)", {"x": [nan, 1], "y": [1, nan]}, [nan, nan], [nan, 1],
    ),
    ("rtamt", "iff is violated where both sides hold"): (
        "x > 0 iff y > 0", "(x > 0) iff (y > 0)", {"x": P, "y": Q},
        [-1, -0.5, 1, 2, -0.5, -1], [-6, -3.5, -2, -2, -1.5, -3],
    ),
    ("rtamt", "xor is satisfied where both sides hold"): (
        "x > 0 xor y > 0", "(x > 0) xor (y > 0)", {"x": P, "y": Q},
        [1, 0.5, -1, -2, 0.5, 1], [6, 3.5, 2, 2, 1.5, 3],
    ),
    ("rtamt", "next is weak"): (
        "X x > 0", "next(x > 0)", {"x": P}, [3, -1, 2, 0.5, -2, -inf], [3, -1, 2, 0.5, -2, inf],
    ),
    ("rtamt", "prev is weak"): (
        "Y x > 0", "prev(x > 0)", {"x": P}, [-inf, 1, 3, -1, 2, 0.5], [inf, 1, 3, -1, 2, 0.5],
    ),
    ("rtamt", "unless without a window raises"): (
        "x > 0 W y > 0", "(x > 0) unless (y > 0)", {"x": P, "y": Q}, [-0.5, -0.5, -1, 4, 0.5, 1],
        "AttributeError",
    ),
    # Online its value at step n is that of instant n − 1: from step 1 on, [2, 2, 0.5, 0.5] would be right.
    ("rtamt", "pastified, a past over a future starts before the trace"): (
        "H F[0,1] x > 0", "online:historically(eventually[0:1](x > 0))", {"x": HILL},
        [2, 2, 0.5, 0.5, 0.5], [1, 1, 1, 0.5, 0.5],
    ),
    ("rtamt", "pastified, a rise over a future starts before the trace"): (
        "rise(F[0,1] x > 0)", "online:rise(eventually[0:1](x > 0))", {"x": HILL},
        [2, -2, -2, -0.5, -3], [1, -1, -2, -2, -0.5],
    ),
    ("mstlo-python", "until includes its end"): (
        "x > 0 U[0,1] x < 0", "(x > 0) U[0,1] (x < 0)", {"x": DIP}, [2, 3, -1, -1], [-2, -3, -1],
    ),
    ("mstlo-python", "no verdict where the trace ends"): (
        "G[0,3] x > 0", "G[0,3](x > 0)", {"x": [1, 2]}, [1, 2], [],
    ),
    ("mstlo-python", "NaN hides a violation"): (
        "G[0,3] x > 0", "G[0,3](x > 0)", {"x": HOLE}, [nan, nan, -3, 1, 4], [2, nan],
    ),
    ("mstlo-python", "no past"): ("O[0,3] x > 0", "O[0,3](x > 0)", {"x": [1, 2]}, [1, 2], "ValueError"),
    ("mstlo-python", "no unbounded window"): ("G x > 0", "G(x > 0)", {"x": [1, 2]}, [1, 2], "ValueError"),
    ("stlcgpp", "until includes its end"): (
        "x > 0 U[0,1] x < 0", "Until((x > 0), (x < 0), interval=[0, 1])", {"x": DIP, "y": DIP},
        [2, 3, -1, -1], [-2, -3, -1, -1],
    ),
    ("stlcgpp", "always is violated where its window leaves the trace"): (
        "G[0,5] x > 0", "Always((x > 0), interval=[0, 5])", {"x": P, "y": Q}, [-2] * 6, [-2, *[-1e9] * 5],
    ),
    ("stlcgpp", "an empty unbounded always is violated"): (
        "G[1,inf] x > 0", "Always((x > 0), interval=[1, inf])", {"x": P, "y": Q},
        [-2, -2, -2, -2, -2, inf], [-2, -2, -2, -2, -2, -1e9],
    ),
    ("stlcgpp", "values beyond its padding are cut"): (
        "G[0,1] x > 0", "Always((x > 0), interval=[0, 1])", {"x": [2**31, 2**32, 2**32], "y": [0, 0, 0]},
        [2**31, 2**32, 2**32], [1e9, 1e9, -1e9],
    ),
}  # fmt: skip


@pytest.mark.parametrize("peer, trap", TRAPS)
def test_our_value_is_the_definition_s(peer, trap):
    formula, _, trace, wanted, _ = TRAPS[peer, trap]
    parsed = stl.parse(formula)
    np.testing.assert_array_equal(stl.robustness_trace(parsed, trace), wanted)


@pytest.mark.parametrize("peer, trap", TRAPS)
def test_the_peer_is_as_recorded(peer, trap):
    _, formula, trace, wanted, recorded = TRAPS[peer, trap]
    (answer,) = evaluate(peer, [[formula, trace]])
    if isinstance(recorded, str):
        assert isinstance(answer, str) and answer.startswith(recorded + ":"), answer
        return
    assert not isinstance(answer, str), answer
    np.testing.assert_array_equal([value for _, value in answer], recorded)
    assert not np.array_equal(recorded, wanted[: len(recorded)], equal_nan=True) or len(recorded) < len(
        wanted
    )


def test_inputs_are_never_modified():
    x = [1.0, 2.0, 3.0]
    array = np.array(x)
    formula = stl.parse("G[0,5] x > 0")
    stl.robustness_trace(formula, {"x": x})
    stl.robustness_trace(formula, array)
    stl.robustness(formula, array)
    assert x == [1.0, 2.0, 3.0] and array.tolist() == x


def test_rtamt_pads_its_input_in_place():
    assert evaluate("rtamt", [["inputs:always[0:5](x)", {"x": [1.0, 2.0, 3.0]}]]) == [[[6, inf]]]
