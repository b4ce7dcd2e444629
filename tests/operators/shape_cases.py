"""Operators that move elements, and those that only make constants."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from operator_case import Case, cases, floats, folded, ints, node, shape, to_float, wide


def moved(opset, op, names, x, y, constants=None, **attributes):
    """One node that copies elements of `x`."""
    return Case(opset, [node(op, names, **attributes)], {"x": x}, constants or {}, [wide(y)])


@cases("Reshape")
def reshape(rng, op, opset):
    x = floats(rng, shape(rng, 2, 4))
    y = x.reshape(x.shape[0], -1)
    target = [[0, -1], list(y.shape), [-1, y.shape[1]]][int(rng.integers(3))]
    attributes = {"allowzero": 1} if opset >= 14 and 0 not in target and rng.random() < 0.5 else {}
    return moved(opset, op, ["x", "s"], x, y, {"s": ints(target)}, **attributes)


@cases("Flatten")
def flatten(rng, op, opset):
    x = floats(rng, shape(rng))
    axis = int(rng.integers(-x.ndim, x.ndim + 1))
    lead = x.shape[:axis] if axis else ()
    y = x.reshape(int(np.prod(lead)), -1)
    return moved(opset, op, ["x"], x, y, axis=axis)


@cases("Transpose")
def transpose(rng, op, opset):
    x = floats(rng, shape(rng))
    if rng.random() < 0.2:
        return moved(opset, op, ["x"], x, x.T)
    perm = [int(a) for a in rng.permutation(x.ndim)]
    return moved(opset, op, ["x"], x, x.transpose(perm), perm=perm)


@cases("Slice")
def cut(rng, op, opset):
    x = floats(rng, [int(d) for d in rng.integers(2, 7, rng.integers(1, 4))])
    axes = [int(a) for a in rng.permutation(x.ndim)[: rng.integers(1, x.ndim + 1)]]
    starts, ends, steps, index = [], [], [], [slice(None)] * x.ndim
    for a in axes:
        d = x.shape[a]
        step = int(rng.choice([1, 1, 2, -1, -2, 9]))
        low, high = sorted(int(v) for v in rng.choice(d + 1, 2, replace=False))
        start, end = (low, high) if step > 0 else (high - 1, low - 1)
        index[a] = slice(start, None if end < 0 else end, step)
        starts.append(start - d if rng.random() < 0.3 and start < d else start)
        # Ends far outside are the way to say «to the very end».
        far = np.iinfo(np.int64)
        ends.append(far.min if end < 0 else (int(far.max) if end == d else end))
        steps.append(step)
    names = ["x", "s", "e", "a", "t"]
    constants = {"s": ints(starts), "e": ints(ends), "a": ints(axes), "t": ints(steps)}
    return moved(opset, op, names, x, x[tuple(index)], constants)


@cases("Split")
def split(rng, op, opset):
    x = floats(rng, shape(rng))
    axis = int(rng.integers(x.ndim))
    d = x.shape[axis]
    parts = int(rng.integers(1, d + 1))
    form = rng.choice(["lengths", "even"])
    names, constants, attributes = ["x"], {}, {"axis": axis - x.ndim if rng.random() < 0.5 else axis}
    if form == "even" and opset < 18:
        parts = d
    sizes = [d // parts] * parts
    sizes[-1] += d - sum(sizes)
    if form == "lengths":
        if opset < 13:
            attributes["split"] = sizes
        else:
            names, constants = ["x", "n"], {"n": ints(sizes)}
    elif opset >= 18:
        each = -(-d // parts)
        sizes = [min(each, d - i * each) for i in range(parts) if d > i * each]
        if len(sizes) != parts:
            parts = d
            sizes = [1] * d
        attributes["num_outputs"] = parts
    pieces = np.split(x, np.cumsum(sizes)[:-1], axis)
    outputs = [f"y{i}" for i in range(parts)]
    expected = [wide(p) for p in pieces]
    return Case(opset, [node(op, names, outputs, **attributes)], {"x": x}, constants, expected, [0.0] * parts)


@cases("Concat")
def concat(rng, op, opset):
    x = floats(rng, shape(rng))
    axis = int(rng.integers(-x.ndim, x.ndim))
    size = list(x.shape)
    size[axis] = int(rng.integers(1, 5))
    c = floats(rng, size)
    y = np.concatenate([c, x, x], axis)
    return moved(opset, op, ["c", "x", "x"], x, y, {"c": c}, axis=axis)


@cases("Squeeze", "Unsqueeze")
def squeeze(rng, op, opset):
    small = floats(rng, shape(rng, 1, 3))
    rank = small.ndim + int(rng.integers(1, 3))
    axes = sorted(int(a) for a in rng.permutation(rank)[: rank - small.ndim])
    large = np.expand_dims(small, tuple(axes))
    x, y = (large, small) if op == "Squeeze" else (small, large)
    axes = [a - rank if rng.random() < 0.5 else a for a in axes]
    if op == "Squeeze" and 1 not in small.shape and rng.random() < 0.3:
        return moved(opset, op, ["x"], x, y)
    if opset < 13:
        return moved(opset, op, ["x"], x, y, axes=axes)
    return moved(opset, op, ["x", "a"], x, y, {"a": ints(axes)})


@cases("Expand")
def expand(rng, op, opset):
    full = shape(rng)
    x = floats(rng, tuple(1 if rng.random() < 0.5 else d for d in full[int(rng.integers(len(full))) :]))
    target = [1 if d == full[i] and rng.random() < 0.3 else full[i] for i, d in enumerate((1,) * len(full))]
    y = np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(target)))
    return moved(opset, op, ["x", "s"], x, y, {"s": ints(target)})


@cases("Tile")
def tile(rng, op, opset):
    x = floats(rng, shape(rng, 1, 3))
    repeats = rng.integers(1, 4, x.ndim)
    return moved(opset, op, ["x", "r"], x, np.tile(x, repeats), {"r": ints(repeats)})


@cases("Identity", "Dropout")
def same(rng, op, opset):
    x = floats(rng, shape(rng))
    if op == "Dropout" and opset >= 12 and rng.random() < 0.5:
        constants = {"r": np.float32(0.5).reshape(()), "t": np.zeros((), np.bool_)}
        return moved(opset, op, ["x", "r", "t"], x, x, constants)
    return moved(opset, op, ["x"], x, x)


@cases("Gather")
def gather(rng, op, opset):
    x = floats(rng, shape(rng, 1, 3))
    axis = int(rng.integers(-x.ndim, x.ndim))
    d = x.shape[axis]
    index = ints(rng.integers(-d, d, shape(rng, 0, 2)))
    if x.ndim == 1 and index.ndim == 0:
        index = index.reshape(1)
    index = index.astype(rng.choice([np.int32, np.int64]))
    return moved(opset, op, ["x", "i"], x, np.take(x, index, axis), {"i": index}, axis=axis)


@cases("Cast")
def cast(rng, op, opset):
    x = floats(rng, shape(rng))
    form = rng.choice(["bool", "int", "half", "bfloat", "double"])
    if form == "bool":
        x[x < 0] = 0
        nodes = [node(op, ["x"], ["b"], to=TensorProto.BOOL), to_float("b")]
        return Case(opset, nodes, {"x": x}, {}, [(x != 0).astype(np.float64)])
    if form == "int":
        a = floats(rng, (5,), 9)
        return folded(rng, opset, [node(op, ["a"], ["c"], to=TensorProto.INT64)], {"a": a}, np.trunc(a))
    if form == "double":
        a = rng.normal(size=5)
        return folded(rng, opset, [node("Identity", ["a"], ["c"])], {"a": a}, a.astype(np.float32))
    if form == "bfloat" and opset >= 13:
        a = rng.normal(size=5).astype(np.float32).view(np.uint32) & 0xFFFF0000
        value = a.view(np.float32)
        tensor = helper.make_tensor(
            "a", TensorProto.BFLOAT16, [5], (a >> 16).astype(np.uint16).tobytes(), raw=True
        )
        return folded(rng, opset, [node("Constant", [], ["c"], value=tensor)], {}, value)
    a = rng.normal(size=5).astype(np.float16)
    return folded(rng, opset, [node("Identity", ["a"], ["c"])], {"a": a}, a)


@cases("CastLike")
def cast_like(rng, op, opset):
    x = floats(rng, shape(rng))
    x[x < 0] = 0
    nodes = [node(op, ["x", "l"], ["b"]), to_float("b")]
    return Case(opset, nodes, {"x": x}, {"l": np.zeros(1, np.bool_)}, [(x != 0).astype(np.float64)])


@cases("Constant")
def constant(rng, op, opset):
    a = floats(rng, shape(rng))
    forms = {"value": a}
    if opset >= 12:
        forms |= {
            "value_float": a.flat[0],
            "value_floats": a.ravel(),
            "value_int": 7,
            "value_ints": ints([1, -2, 3]),
        }
    form = str(rng.choice(list(forms)))
    value = forms[form]
    given = numpy_helper.from_array(a) if form == "value" else np.asarray(value).tolist()
    return folded(rng, opset, [node(op, [], ["c"], **{form: given})], {}, np.asarray(value))


@cases("ConstantOfShape")
def constant_of_shape(rng, op, opset):
    size = shape(rng, 1, 3)
    value = rng.choice([None, np.float32(2.5), np.int64(7)])
    attributes = {} if value is None else {"value": numpy_helper.from_array(np.asarray([value]))}
    y = np.full(size, 0 if value is None else value)
    return folded(rng, opset, [node(op, ["s"], ["c"], **attributes)], {"s": ints(size)}, y)


@cases("Shape", "Size")
def shape_of(rng, op, opset):
    size = shape(rng)
    a = floats(rng, size)
    if op == "Size":
        return folded(rng, opset, [node(op, ["a"], ["c"])], {"a": a}, np.asarray(a.size))
    attributes, part = {}, slice(None)
    if opset >= 15 and rng.random() < 0.5:
        start = int(rng.integers(-len(size), len(size)))
        attributes, part = {"start": start, "end": len(size) + 3}, slice(start % len(size), None)
    return folded(rng, opset, [node(op, ["a"], ["c"], **attributes)], {"a": a}, np.asarray(size)[part])


@cases("Range")
def range_of(rng, op, opset):
    if rng.random() < 0.5:
        start, delta = float(rng.integers(-5, 5)), float(rng.choice([-2, -1, 0.5, 3]))
        parts = [np.float32(v) for v in (start, start + delta * float(rng.uniform(1, 6)), delta)]
    else:
        start, delta = int(rng.integers(-5, 5)), int(rng.choice([-2, -1, 1, 3]))
        parts = [np.int64(v) for v in (start, start + delta * int(rng.integers(1, 6)), delta)]
    constants = {n: np.asarray(v) for n, v in zip("abd", parts, strict=True)}
    count = int(np.ceil((parts[1] - parts[0]) / parts[2]))
    value = wide(parts[0]) + np.arange(count) * wide(parts[2])
    return folded(rng, opset, [node(op, list("abd"), ["c"])], constants, value)


@cases("Trilu")
def trilu(rng, op, opset):
    a = floats(rng, shape(rng, 2, 3))
    upper, k = int(rng.integers(2)), int(rng.integers(-3, 4))
    names, constants = ["a", "k"], {"a": a, "k": ints(k)}
    if rng.random() < 0.3:
        names, k = ["a"], 0
        del constants["k"]
    value = (np.triu if upper else np.tril)(a, k)
    return folded(rng, opset, [node(op, names, ["c"], upper=upper)], constants, value)


@cases("CumSum")
def cumulative(rng, op, opset):
    a = ints(rng.integers(-9, 9, shape(rng, 1, 3)))
    axis = int(rng.integers(-a.ndim, a.ndim))
    exclusive, reverse = (int(v) for v in rng.integers(0, 2, 2))
    v = np.flip(a, axis) if reverse else a
    value = np.cumsum(v, axis) - (v if exclusive else 0)
    value = np.flip(value, axis) if reverse else value
    nodes = [node(op, ["a", "i"], ["c"], exclusive=exclusive, reverse=reverse)]
    return folded(rng, opset, nodes, {"a": a, "i": ints(axis)}, value)


@cases("ScatterND")
def scatter(rng, op, opset):
    a = floats(rng, shape(rng, 1, 3))
    depth = int(rng.integers(1, a.ndim + 1))
    count = int(rng.integers(1, 4))
    index = np.stack([rng.integers(-d, d, count) for d in a.shape[:depth]], -1)
    updates = floats(rng, (count, *a.shape[depth:]))
    known = {"add": np.add, "mul": np.multiply} if opset >= 16 else {}
    known |= {"min": np.minimum, "max": np.maximum} if opset >= 18 else {}
    reduction = str(rng.choice(["", *known]))
    value = wide(a)
    if not reduction:
        # Which of two updates of one place wins is not defined.
        index, updates = index[:1], updates[:1]
    for i, u in zip(index, updates, strict=True):
        value[tuple(i)] = known[reduction](value[tuple(i)], u) if reduction else u
    attributes = {"reduction": reduction} if reduction else {}
    constants = {"a": a, "i": ints(index), "u": updates}
    return folded(rng, opset, [node(op, ["a", "i", "u"], ["c"], **attributes)], constants, value)
