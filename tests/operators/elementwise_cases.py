"""Elementwise operators, comparisons and activations."""

import math

import numpy as np
from onnx import TensorProto
from operator_case import Case, U, cases, floats, folded, gamma, ints, node, operands, shape, to_float, wide

ERF = np.vectorize(math.erf)


def exp_bar(y):
    return 2.5e-7 * np.abs(y) + 1e-44


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Function, range of the argument, and error as a function of argument and answer.
UNARY = {
    "Neg": (np.negative, (-3, 3), lambda x, y: 0),
    "Abs": (np.abs, (-3, 3), lambda x, y: 0),
    "Sqrt": (np.sqrt, (0, 9), lambda x, y: 4 * U * y),
    "Reciprocal": (np.reciprocal, (0.1, 9), lambda x, y: 4 * U * y),
    "Exp": (np.exp, (-80, 80), lambda x, y: exp_bar(y)),
    "Log": (np.log, (1e-3, 50), lambda x, y: 4 * U * np.abs(y)),
    "Sin": (np.sin, (-50, 50), lambda x, y: 3e-7),
    "Cos": (np.cos, (-50, 50), lambda x, y: 3e-7),
    "Floor": (np.floor, (-5, 5), lambda x, y: 0),
    "Ceil": (np.ceil, (-5, 5), lambda x, y: 0),
    "Sign": (np.sign, (-3, 3), lambda x, y: 0),
    "Erf": (ERF, (-5, 5), lambda x, y: 3e-7),
    "Relu": (lambda x: np.maximum(x, 0), (-3, 3), lambda x, y: 0),
    "Sigmoid": (sigmoid, (-30, 30), lambda x, y: 3e-7),
    "Tanh": (np.tanh, (-9, 9), lambda x, y: 3e-7),
    "HardSwish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), (-6, 6), lambda x, y: 16 * U * np.abs(x)),
    "Softplus": (softplus, (-20, 20), lambda x, y: 3e-7 + 4 * U * y),
    "Softsign": (lambda x: x / (1 + np.abs(x)), (-6, 6), lambda x, y: 8 * U * np.abs(y)),
    "Mish": (lambda x: x * np.tanh(softplus(x)), (-20, 20), lambda x, y: 8e-7 * np.abs(x)),
}


@cases(*UNARY)
def unary(rng, op, opset):
    f, (low, high), bar = UNARY[op]
    x = rng.uniform(low, high, shape(rng)).astype(np.float32)
    y = f(wide(x))
    return Case(opset, [node(op, ["x"])], {"x": x}, {}, [y], [bar(np.abs(x), y)])


@cases("Round")
def half_to_even(rng, op, opset):
    x = (rng.integers(-9, 9, shape(rng)) / 2).astype(np.float32)
    return Case(opset, [node(op, ["x"])], {"x": x}, {}, [np.round(wide(x))])


# Default attributes and function.
PARAMETRIC = {
    "LeakyRelu": ({"alpha": 0.01}, lambda x, alpha: np.where(x < 0, alpha * x, x)),
    "Elu": ({"alpha": 1.0}, lambda x, alpha: np.where(x < 0, alpha * np.expm1(x), x)),
    "Celu": ({"alpha": 1.0}, lambda x, alpha: np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha))),
    "Selu": (
        {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
        lambda x, alpha, gamma: gamma * np.where(x < 0, alpha * np.expm1(x), x),
    ),
    "HardSigmoid": ({"alpha": 0.2, "beta": 0.5}, lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1)),
    "Swish": ({"alpha": 1.0}, lambda x, alpha: x * sigmoid(alpha * x)),
}


@cases(*PARAMETRIC)
def parametric(rng, op, opset):
    defaults, f = PARAMETRIC[op]
    x = floats(rng, shape(rng), 5)
    given = {k: float(np.float32(rng.uniform(0.1, 2))) for k in defaults if rng.random() < 0.6}
    values = {k: float(np.float32(v)) for k, v in (defaults | given).items()}
    y = f(wide(x), **values)
    bar = 5e-7 * (1 + np.abs(x)) * max(1.0, *values.values()) ** 2
    return Case(opset, [node(op, ["x"], **given)], {"x": x}, {}, [y], [bar])


@cases("Gelu")
def gelu(rng, op, opset):
    x = floats(rng, shape(rng), 6)
    mode = rng.choice(["", "none", "tanh"])
    w = wide(x)
    inner = math.sqrt(2 / math.pi) * (w + 0.044715 * w**3)
    y = w / 2 * (1 + (np.tanh(inner) if mode == "tanh" else ERF(w / math.sqrt(2))))
    attributes = {"approximate": str(mode)} if mode else {}
    return Case(opset, [node(op, ["x"], **attributes)], {"x": x}, {}, [y], [5e-7 * (1 + np.abs(x))])


@cases("PRelu")
def prelu(rng, op, opset):
    size = shape(rng, 2, 4)
    x = floats(rng, size)
    slope = floats(rng, (size[1],) + (1,) * (len(size) - 2) if rng.random() < 0.7 else (1,))
    y = np.where(wide(x) < 0, wide(slope) * x, x)
    return Case(opset, [node(op, ["x", "s"])], {"x": x}, {"s": slope}, [y], [4 * U * np.abs(y)])


BINARY = {
    "Add": (np.add, lambda a, b: np.abs(a) + np.abs(b)),
    "Sub": (np.subtract, lambda a, b: np.abs(a) + np.abs(b)),
    "Mul": (np.multiply, lambda a, b: np.abs(a * b)),
    "Div": (np.divide, lambda a, b: np.abs(a / b)),
}


@cases(*BINARY)
def binary(rng, op, opset):
    f, terms = BINARY[op]
    if rng.random() < 0.2:
        # Integers exist in folded constants; their division goes towards zero.
        a, b = ints(rng.integers(-9, 9, 4)), ints(rng.integers(1, 5, 4) * rng.choice([-1, 1], 4))
        value = np.trunc(a / b) if op == "Div" else f(a, b)
        return folded(rng, opset, [node(op, ["a", "b"], ["c"])], {"a": a, "b": b}, value)
    (a, b), inputs, constants, names = operands(rng, 2)
    b += (np.abs(b) < 0.1).astype(np.float32)
    return Case(
        opset,
        [node(op, names)],
        inputs,
        constants,
        [f(wide(a), wide(b))],
        [gamma(1) * terms(wide(a), wide(b))],
    )


@cases("Pow")
def power(rng, op, opset):
    x = rng.uniform(0.1, 4, shape(rng)).astype(np.float32)
    exponent = np.float32(rng.choice([2, 0.5, -0.5, 3, -1, 1.7, -2.3]))
    b = np.full(() if rng.random() < 0.5 else (1,), exponent, np.float32)
    if exponent in (2, 3) and rng.random() < 0.5:
        x = -x
        b = b.astype(np.int64) if opset >= 12 and rng.random() < 0.5 else b
    y = wide(x) ** wide(b)
    return Case(opset, [node(op, ["x", "b"])], {"x": x}, {"b": b}, [y], [16 * U * np.abs(y)])


@cases("Min", "Max")
def extreme(rng, op, opset):
    f = np.minimum if op == "Min" else np.maximum
    arrays, inputs, constants, names = operands(rng, int(rng.integers(1, 4)))
    y = wide(arrays[0])
    for a in arrays[1:]:
        y = f(y, wide(a))
    return Case(opset, [node(op, names)], inputs, constants, [y])


@cases("Clip")
def clip(rng, op, opset):
    x = floats(rng, shape(rng))
    low, high = sorted(floats(rng, (2,)))
    if opset >= 13 and rng.random() < 0.2:
        # The upper bound wins.
        low, high = high, low
    form = int(rng.integers(4))
    names = [["x"], ["x", "l"], ["x", "", "h"], ["x", "l", "h"]][form]
    y = np.maximum(wide(x), low) if "l" in names else wide(x)
    y = np.minimum(y, high) if "h" in names else y
    constants = {n: np.asarray(v, np.float32) for n, v in (("l", low), ("h", high)) if n in names}
    return Case(opset, [node(op, names)], {"x": x}, constants, [y])


@cases("Mod")
def modulo(rng, op, opset):
    if rng.random() < 0.5:
        a, b = ints(rng.integers(-20, 20, 6)), ints(rng.integers(1, 6, 6) * rng.choice([-1, 1], 6))
        fmod = int(rng.integers(2))
        value = np.fmod(a, b) if fmod else np.mod(a, b)
        return folded(rng, opset, [node(op, ["a", "b"], ["c"], fmod=fmod)], {"a": a, "b": b}, value)
    (a, b), inputs, constants, names = operands(rng, 2)
    b += (np.abs(b) < 0.1).astype(np.float32)
    y = wide(np.fmod(a, b))
    return Case(opset, [node(op, names, fmod=1)], inputs, constants, [y])


COMPARE = {
    "Greater": np.greater,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal,
    "Equal": np.equal,
}


@cases(*COMPARE)
def compare(rng, op, opset):
    (a, b), inputs, constants, names = operands(rng, 2)
    for x in (a, b):
        x[...] = np.round(x)
    y = COMPARE[op](a, b).astype(np.float64)
    return Case(opset, [node(op, names, ["t"]), to_float("t")], inputs, constants, [y])


@cases("And", "Or")
def logic(rng, op, opset):
    (a, b), inputs, constants, names = operands(rng, 2)
    for x in (a, b):
        x[...] = x > 0
    f = np.logical_and if op == "And" else np.logical_or
    casts = [node("Cast", [n], [f"b{n}"], to=TensorProto.BOOL) for n in names]
    nodes = [*casts, node(op, [f"b{n}" for n in names], ["t"]), to_float("t")]
    return Case(opset, nodes, inputs, constants, [f(a, b).astype(np.float64)])


@cases("Not")
def negation(rng, op, opset):
    x = (floats(rng, shape(rng)) > 0).astype(np.float32)
    nodes = [node("Cast", ["x"], ["b"], to=TensorProto.BOOL), node(op, ["b"], ["t"]), to_float("t")]
    return Case(opset, nodes, {"x": x}, {}, [1.0 - wide(x)])


@cases("IsNaN")
def not_a_number(rng, op, opset):
    x = floats(rng, shape(rng))
    nodes = [node("Sqrt", ["x"], ["r"]), node(op, ["r"], ["t"]), to_float("t")]
    return Case(opset, nodes, {"x": x}, {}, [(x < 0).astype(np.float64)])


@cases("Where")
def select(rng, op, opset):
    (a, b, c), inputs, constants, names = operands(rng, 3)
    c[...] = c > 0
    nodes = [node("Cast", [names[2]], ["t"], to=TensorProto.BOOL), node(op, ["t", names[0], names[1]])]
    return Case(opset, nodes, inputs, constants, [np.where(c != 0, wide(a), wide(b))])
