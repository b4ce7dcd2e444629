"""The engine against other people's: rtamt, mstlo and STLCG++, each in an environment of its own.

`CADENZA_PEERS=1` makes the environments and asks them (minutes). Formulas are drawn from the operators on
which we and the peer agree; on what is known to differ, `test_peer_traps.py` asserts both sides.
"""

import random
from collections import Counter

import numpy as np
import pytest

from cadenza import stl
from stl import peer_formulas as formulas
from stl.peer_workers import evaluate

# Formulas compared per peer, and asked at once.
COMPARED, BLOCK = 1_000, 100
BOUNDED = ("not", *formulas.CONNECTIVES, "X", "wX", *formulas.FUTURE, "Ui", "Ri", "Wi")
# Peer → its language, the operators drawn, whether windows may have no end, whether it judges every instant
# of the trace (otherwise those whose horizon fits). All values are multiples of 1/4: nobody rounds anything.
PEERS = {
    "rtamt": (formulas.rtamt, formulas.EVERY, True, True),
    "mstlo-python": (formulas.mstlo, BOUNDED, False, False),
    "stlcgpp": (formulas.stlcgpp, BOUNDED, False, False),
}


@pytest.mark.parametrize("peer", PEERS)
def test_equal_at_every_instant(peer):
    language, operators, unbounded, to_the_end = PEERS[peer]
    rng = random.Random(4)
    excluded: Counter[str] = Counter()
    compared, instants = 0, 0
    seen: Counter[str] = Counter()
    while compared < COMPARED:
        cases = []
        while len(cases) < BLOCK:
            drawn = formulas.draw(rng, rng.randint(1, 3), operators, unbounded)
            try:
                theirs = language(drawn)
            except formulas.Untranslated as reason:
                excluded[str(reason)] += 1
                continue
            formula = stl.parse(formulas.ours(drawn), ["x", "y"])
            shortest = 2 if to_the_end else 1 + formula.horizon
            trace = formulas.trace(rng, shortest + rng.randint(0, 12))
            cases.append((drawn, formula, theirs, trace))
        answers = evaluate(peer, [[theirs, trace] for _, _, theirs, trace in cases])
        for (drawn, formula, theirs, trace), answer in zip(cases, answers, strict=True):
            rho = stl.robustness_trace(formula, trace)
            judged = len(rho) - (0 if to_the_end else formula.horizon)
            assert not isinstance(answer, str), (theirs, answer)
            if peer == "stlcgpp":
                answer = answer[:judged]  # beyond there is its padding
            assert [t for t, _ in answer] == list(range(judged)), (theirs, trace, answer)
            np.testing.assert_array_equal(rho[:judged], [value for _, value in answer], f"{theirs} {trace}")
            compared += 1
            instants += judged
            seen.update(formulas.operators(drawn))
    total = compared + sum(excluded.values())
    print(f"\n{peer}: {compared} formulas, {instants} instants equal, of {total} drawn; excluded:")
    for reason, count in excluded.most_common():
        print(f"  {count:5} {reason}")
    assert sum(excluded.values()) <= total / 5, excluded
    assert all(seen[op] >= 20 for op in operators), seen
