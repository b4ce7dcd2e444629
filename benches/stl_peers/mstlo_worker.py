"""mstlo's side of the differential tests and benchmarks; runs in mstlo's own environment.

One instant is one second there. A formula that starts with `Rosi:` is answered by the interval of the
instant 0 after the last sample, as `[[0, lo], [0, hi]]`.
"""

import mstlo_python
import protocol

DELAYED = "DelayedQuantitative"


def monitor(formula, semantics=DELAYED):
    """A fresh monitor."""
    return mstlo_python.Monitor(mstlo_python.parse_formula(formula), semantics=semantics)


def flat(trace):
    """Samples in the order of time."""
    length = len(next(iter(trace.values())))
    return [(name, trace[name][t], float(t)) for t in range(length) for name in trace]


def evaluate(formula, trace):
    """`[t, value]` of every verdict, in the order given."""
    if formula.startswith("Rosi:"):
        asked = monitor(formula.removeprefix("Rosi:"), "Rosi")
        verdicts = [v for sample in flat(trace) for v in asked.update(*sample).verdicts() if v[0] == 0]
        return [[0, bound] for bound in verdicts[-1][1]]
    return [[round(t), value] for t, value in monitor(formula).update_batch(flat(trace)).verdicts()]


def samples(formula, n):
    """The benchmark's signals, those that the formula reads."""
    return {name: s for name, s in zip("xy", protocol.signals(n), strict=True) if f"({name}" in formula}


def batch(formula, n):
    """One call with a whole trace, the delayed verdicts read out."""
    asked, given = monitor(formula), flat(samples(formula, n))
    return protocol.seconds(lambda: asked.update_batch(given).verdicts()[0][1], n)


def single(formula, n):
    """One call per sample of a signal, each verdict read out."""
    asked, given = monitor(formula), flat(samples(formula, n))

    def run():
        first = None
        for sample in given:
            verdicts = asked.update(*sample).verdicts()
            if first is None and verdicts:
                first = verdicts[0][1]
        return first

    return protocol.seconds(run, n)


def rosi(formula, n):
    """Intervals of all pending instants at every sample."""
    asked, given = monitor(formula, "Rosi"), flat(samples(formula, n))

    def run():
        for sample in given:
            verdicts = asked.update(*sample).verdicts()
        return list(verdicts[0][1])

    return protocol.seconds(run, n)


if __name__ == "__main__":
    protocol.serve(evaluate, {"batch": batch, "single": single, "rosi": rosi})
