"""rtamt's side of the differential tests and benchmarks; runs in rtamt's own environment.

A formula is evaluated on the whole trace; one that starts with `online:` is pastified and updated sample
by sample, so its value at step n is that of instant n − horizon.
"""

import protocol
import rtamt


def specification(formula, names):
    """A parsed specification over the signals."""
    spec = rtamt.StlDiscreteTimeSpecification()
    for name in names:
        spec.declare_var(name, "float")
    spec.spec = formula
    spec.parse()
    return spec


def evaluate(formula, trace):
    """`[t, value]` at every instant."""
    length = len(next(iter(trace.values())))
    if formula.startswith("online:"):
        spec = specification(formula.removeprefix("online:"), trace)
        spec.pastify()
        return [[t, spec.update(t, [(n, trace[n][t]) for n in trace])] for t in range(length)]
    if formula.startswith("inputs:"):  # what becomes of the caller's own lists
        data = {"time": list(range(length)), **trace}
        specification(formula.removeprefix("inputs:"), trace).evaluate(data)
        return [[len(samples), samples[-1]] for samples in trace.values()]
    return specification(formula, trace).evaluate({"time": list(range(length)), **trace})


def offline(formula, n):
    """A whole trace of the benchmark, parsing aside."""
    x, y = protocol.signals(n)
    spec = specification(formula, ("x", "y"))
    data = {"time": list(range(n)), "x": x, "y": y}
    return protocol.seconds(lambda: spec.evaluate(data)[0][1], n)


if __name__ == "__main__":
    protocol.serve(evaluate, {"offline": offline})
