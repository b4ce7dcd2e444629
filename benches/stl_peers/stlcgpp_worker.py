"""STLCG++'s side of the differential tests and benchmarks; runs in its own environment.

A formula is a Python expression over the classes of `stlcgpp.formula` and the predicates x and y.
"""

import protocol
import stlcgpp.formula as peer
import torch

torch.set_num_threads(1)
NAMES = {
    name: getattr(peer, name)
    for name in ("Always", "And", "Eventually", "Implies", "Negation", "Or", "Until")
}
NAMES |= {"x": peer.Predicate("x", lambda s: s[:, 0]), "y": peer.Predicate("y", lambda s: s[:, 1])}
NAMES |= {"inf": torch.inf}


def build(formula):
    """The peer's object."""
    return eval(formula, {"__builtins__": {}}, NAMES)


def columns(x, y):
    """Samples as `[T, 2]` in the peer's own precision."""
    return torch.tensor([x, y], dtype=torch.float32).T.contiguous()


def evaluate(formula, trace):
    """`[t, value]` at every instant, padding included."""
    return list(enumerate(build(formula)(columns(trace["x"], trace["y"])).tolist()))


def backward(formula, n):
    """The robustness at t = 0 of a whole trace, and its gradient."""
    asked, given = build(formula), columns(*protocol.signals(n)).requires_grad_()

    def run():
        given.grad = None
        rho = asked.robustness(given)
        rho.backward()
        return rho.item()

    return protocol.seconds(run, n)


if __name__ == "__main__":
    protocol.serve(evaluate, {"backward": backward})
