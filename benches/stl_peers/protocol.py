"""What the workers share: requests as lines of JSON, answers as lines of JSON, the signals of the benchmark.

A request is `{"values": [[formula, {signal: samples}], …]}`, answered by `{"values": [answer, …]}` with a
list of `[t, value]` or the text of the exception, or `{"time": kind, "formula": text, "n": samples}`,
answered by `{"seconds": of one sample, "value": at t = 0}`.
"""

import json
import math
import sys
import time


def signals(length, start=0):
    """x and y of the specification, at `start … start + length - 1`; multiples of 1/64."""
    ts = range(start, start + length)
    x = [round(64 * (math.sin(t / 37) + 0.6 * math.sin(1.7 * t) + 1)) / 64 for t in ts]
    y = [round(64 * (math.cos(t / 53) + 0.5 * math.sin(2.3 * t))) / 64 for t in ts]
    return x, y


def seconds(run, samples):
    """Wall time of one call, per sample, and what the call returns."""
    start = time.perf_counter()
    value = run()
    return {"seconds": (time.perf_counter() - start) / samples, "value": value}


def serve(evaluate, measures):
    """Answers until the input ends.

    Args:
        evaluate: formula, trace → list of `[t, value]`.
        measures: kind → function of formula and number of samples, which returns what `seconds` does.
    """
    for line in sys.stdin:
        request = json.loads(line)
        if "values" in request:
            answer = {"values": [attempt(evaluate, *item) for item in request["values"]]}
        else:
            answer = measures[request["time"]](request["formula"], request["n"])
        print(json.dumps(answer), flush=True)


def attempt(evaluate, formula, trace):
    """The values, or the exception as text."""
    try:
        return evaluate(formula, trace)
    except BaseException as error:  # a panic of a native peer is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return f"{type(error).__name__}: {error}"
