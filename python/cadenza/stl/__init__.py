"""Signal Temporal Logic: what a trajectory must do and when, and by how much it does it.

One engine (Rust) serves logs, rollouts, training and the running robot; offline and streaming give the same
numbers. Time is discrete: one step is one sample. Bare bounds are steps, bounds with units (`2s`, `500ms`)
need `dt`.

```py
near = stl.parse("F[0,100] (norm(x, y) < 0.2)", signals=["x", "y"])
safe = stl.always(stl.signal("x") > stl.param("d"), 0, 50)
rho = stl.robustness(near & safe, trace, params={"d": -1.0})  # trace: [steps, 2]
```
"""

from cadenza._native import (
    Formula,
    HorizonError,
    Monitor,
    Node,
    ParseError,
    StlError,
    UnboundedFutureError,
    Verdict,
)
from cadenza.stl.builder import (
    Expr,
    abs,
    always,
    cos,
    eventually,
    exp,
    fall,
    false,
    historically,
    max,
    min,
    next,
    norm,
    once,
    param,
    prev,
    rise,
    signal,
    sin,
    sqrt,
    true,
    weak_next,
    weak_prev,
)
from cadenza.stl.decomposition import Allocation, Branch, Goal, Hold, Instant, Reach, Variable, decompose
from cadenza.stl.evaluation import breakdown, explain, node_values, robustness, robustness_trace
from cadenza.stl.explanation import Explanation
from cadenza.stl.parsing import parse, parse_file
from cadenza.stl.samples import DeviceError

__all__ = [
    "Allocation",
    "Branch",
    "DeviceError",
    "Explanation",
    "Expr",
    "Formula",
    "Goal",
    "Hold",
    "HorizonError",
    "Instant",
    "Monitor",
    "Node",
    "ParseError",
    "Reach",
    "StlError",
    "UnboundedFutureError",
    "Variable",
    "Verdict",
    "abs",
    "always",
    "breakdown",
    "cos",
    "decompose",
    "eventually",
    "exp",
    "explain",
    "fall",
    "false",
    "historically",
    "max",
    "min",
    "next",
    "node_values",
    "norm",
    "once",
    "param",
    "parse",
    "parse_file",
    "prev",
    "rise",
    "robustness",
    "robustness_trace",
    "signal",
    "sin",
    "sqrt",
    "true",
    "weak_next",
    "weak_prev",
]
