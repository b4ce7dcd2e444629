"""tract's side of benches/policy.py; runs in tract's own environment.

A request `{"load": file, "inputs": n}` reads a graph whose only input is `[1, n]` and is answered by what it
gives for one observation, `{"action": […]}`, or by `{"error": text}`. `{"time": file, "calls": n}` is
answered by the median time of n calls, `{"us": median}`.
"""

import json
import sys
import time

import numpy
import tract


def median_us(run, obs, calls):
    """Wall time of one call."""
    times = numpy.empty(calls)
    for i in range(calls):
        start = time.perf_counter_ns()
        run([obs])
        times[i] = time.perf_counter_ns() - start
    return float(numpy.median(times)) / 1e3


def main():
    """Answers until the input ends."""
    graphs = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "load" in request:
                run = tract.onnx().load(request["load"]).into_model().into_runnable().run
                obs = (
                    numpy.random.default_rng(0).standard_normal((1, request["inputs"])).astype(numpy.float32)
                )
                answer = {"action": run([obs])[0].to_numpy().ravel().tolist()}
                graphs[request["load"]] = run, obs
            else:
                answer = {"us": median_us(*graphs[request["time"]], request["calls"])}
        except tract.TractError as error:
            answer = {"error": str(error).strip().splitlines()[-1]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
