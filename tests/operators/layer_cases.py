"""Products, norms, softmax, convolutions and reductions."""

import numpy as np
from operator_case import Case, U, cases, floats, folded, gamma, ints, node, shape, wide


@cases("Gemm")
def gemm(rng, op, opset):
    m, k, n = rng.integers(1, 40, 3)
    x, w = floats(rng, (m, k)), floats(rng, (k, n))
    alpha, beta = (float(np.float32(v)) for v in rng.uniform(-2, 2, 2))
    transposed = int(rng.integers(2))
    attributes = {"transB": transposed, "alpha": alpha}
    constants = {"w": w.T.copy() if transposed else w}
    names = ["x", "w"]
    y, terms = alpha * (wide(x) @ wide(w)), np.abs(alpha) * (np.abs(wide(x)) @ np.abs(wide(w)))
    if rng.random() < 0.7:
        c = floats(rng, [(n,), (1, n), (m, 1), (m, n), ()][int(rng.integers(5))])
        constants["c"] = c
        names.append("c")
        attributes["beta"] = beta
        y, terms = y + beta * wide(c), terms + np.abs(beta * wide(c))
    return Case(opset, [node(op, names, **attributes)], {"x": x}, constants, [y], [gamma(k + 3) * terms])


@cases("MatMul")
def matmul(rng, op, opset):
    k, n = rng.integers(1, 40, 2)
    lead = shape(rng, 0, 2)
    left = rng.random() < 0.3
    x = floats(rng, (*lead, k, n) if left else (*lead, k))
    w = floats(rng, (3, k) if left else (k, n))
    a, b, names = (w, x, ["w", "x"]) if left else (x, w, ["x", "w"])
    y, terms = np.matmul(wide(a), wide(b)), np.matmul(np.abs(wide(a)), np.abs(wide(b)))
    return Case(opset, [node(op, names)], {"x": x}, {"w": w}, [y], [gamma(k) * terms])


def normalised(x, axes, eps, *, centre=True):
    """The normalised array, and what its bound multiplies: (|x| + mean|x|)/√(var + eps)."""
    x = wide(x)
    d = x - x.mean(axes, keepdims=True) if centre else x
    root = np.sqrt((d**2).mean(axes, keepdims=True) + eps)
    terms = np.abs(x) + (np.abs(x).mean(axes, keepdims=True) if centre else 0)
    return d / root, terms / root


def epsilon(rng):
    return float(np.float32(10 ** rng.uniform(-6, -1)))


@cases("LayerNormalization", "RMSNormalization")
def row_norm(rng, op, opset):
    size = shape(rng, 2, 4)
    axis = int(rng.integers(-len(size), len(size)))
    axes = tuple(range(axis % len(size), len(size)))
    x, eps = floats(rng, size) + floats(rng, (1,), 10), epsilon(rng)
    scale = floats(rng, [size[a] for a in axes])
    centre = op == "LayerNormalization"
    y, terms = normalised(x, axes, eps, centre=centre)
    y, terms = y * wide(scale), terms * np.abs(wide(scale))
    names, constants = ["x", "s"], {"s": scale}
    if centre and rng.random() < 0.7:
        constants["b"] = floats(rng, scale.shape)
        names.append("b")
        y, terms = y + wide(constants["b"]), terms + np.abs(constants["b"])
    n = x[(0,) * axes[0]].size
    nodes = [node(op, names, axis=axis, epsilon=eps)]
    inputs = {"x": x}
    if rng.random() < 0.2:
        # A scale that is computed, as from a condition.
        inputs["s"] = constants.pop("s")
    return Case(opset, nodes, inputs, constants, [y], [gamma(n + 4) * terms])


@cases("GroupNormalization", "InstanceNormalization")
def channel_norm(rng, op, opset):
    groups, each = rng.integers(1, 4, 2)
    c = int(groups * each)
    size = (int(rng.integers(1, 3)), c, *shape(rng, 1, 2))
    x, eps = floats(rng, size) + floats(rng, (1,), 10), epsilon(rng)
    per_group = op == "GroupNormalization" and opset < 21
    scale, bias = (floats(rng, (groups if per_group else c,)) for _ in range(2))
    attributes = {"epsilon": eps}
    if op == "GroupNormalization":
        attributes["num_groups"] = int(groups)
    else:
        groups, each = c, 1
    blocks = x.reshape(size[0], groups, -1)
    y, terms = (v.reshape(size) for v in normalised(blocks, (2,), eps))
    s, b = (
        np.repeat(wide(v), each if per_group else 1).reshape((1, c) + (1,) * (len(size) - 2))
        for v in (scale, bias)
    )
    bound = gamma(blocks.shape[2] + 4) * (terms * np.abs(s) + np.abs(b))
    nodes = [node(op, ["x", "s", "b"], **attributes)]
    # The checker calls the older form deprecated; files with it exist all the same.
    valid = not per_group
    return Case(opset, nodes, {"x": x}, {"s": scale, "b": bias}, [y * s + b], [bound], valid=valid)


@cases("BatchNormalization")
def batch_norm(rng, op, opset):
    c, k = rng.integers(1, 20, 2)
    eps = epsilon(rng)
    names = ["s", "b", "m", "v"]
    constants = {n: floats(rng, (c,)) for n in names[:3]} | {"v": rng.uniform(0.01, 2, c).astype(np.float32)}
    # Alone, or right behind a layer that takes it into its weights.
    form = rng.choice(["alone", "linear", "conv"])
    if form == "linear":
        x = floats(rng, (3, k))
        constants["w"] = floats(rng, (k, c))
        before, terms = wide(x) @ wide(constants["w"]), np.abs(wide(x)) @ np.abs(wide(constants["w"]))
        nodes, z = [node("MatMul", ["x", "w"], ["z"])], "z"
    elif form == "conv":
        x = floats(rng, (2, k, 5))
        constants["w"] = floats(rng, (c, k, 1))
        w = wide(constants["w"])[:, :, 0]
        before, terms = np.einsum("ck,nkl->ncl", w, wide(x)), np.einsum("ck,nkl->ncl", np.abs(w), np.abs(x))
        nodes, z = [node("Conv", ["x", "w"], ["z"])], "z"
    else:
        x = floats(rng, (2, c, *shape(rng, 0, 2)))
        before, terms, nodes, z = wide(x), np.abs(wide(x)), [], "x"
    s, b, m, v = (wide(constants[n]).reshape((1, c) + (1,) * (before.ndim - 2)) for n in names)
    factor = s / np.sqrt(v + eps)
    y = (before - m) * factor + b
    bound = gamma(int(k) + 6) * ((terms + np.abs(m)) * np.abs(factor) + np.abs(b))
    return Case(opset, [*nodes, node(op, [z, *names], epsilon=eps)], {"x": x}, constants, [y], [bound])


@cases("Softmax", "LogSoftmax")
def softmax(rng, op, opset):
    size = shape(rng, 2, 4)
    x = floats(rng, size, 6)
    attributes = {"axis": int(rng.integers(-len(size), len(size)))} if rng.random() < 0.7 else {}
    axis = attributes.get("axis", 1 if opset < 13 else -1) % len(size)
    axes = tuple(range(axis, len(size))) if opset < 13 else (axis,)
    d = wide(x) - wide(x).max(axes, keepdims=True)
    total = np.exp(d).sum(axes, keepdims=True)
    n = int(np.prod([size[a] for a in axes]))
    relative = 1e-6 + gamma(n)
    if op == "Softmax":
        y = np.exp(d) / total
        bound = relative * y
    else:
        y = d - np.log(total)
        bound = relative + 8 * U * (np.abs(x) + 6 + np.abs(y))
    return Case(opset, [node(op, ["x"], **attributes)], {"x": x}, {}, [y], [bound])


def conv1d(x, w, groups, stride, dilation, before, after):
    """Correlation by its definition, with zeros around."""
    x = np.pad(x, ((0, 0), (0, 0), (before, after)))
    (n, c, length), (outputs, own, taps) = x.shape, w.shape
    count = (length - (taps - 1) * dilation - 1) // stride + 1
    y = np.zeros((n, outputs, count))
    for m in range(outputs):
        g = m // (outputs // groups)
        part = x[:, g * own : (g + 1) * own]
        for t in range(taps):
            at = np.arange(count) * stride + t * dilation
            y[:, m] += np.einsum("c,ncl->nl", w[m, :, t], part[:, :, at])
    assert c == own * groups
    return y


def same_padding(length, stride, span, upper):
    total = max((-(-length // stride) - 1) * stride + span - length, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if upper else (large, small)


@cases("Conv")
def conv(rng, op, opset):
    groups = int(rng.choice([1, 1, 2, 3]))
    own, each = (int(v) for v in rng.integers(1, 12, 2))
    if rng.random() < 0.2:
        own, each = int(rng.integers(1, 4)), int(rng.integers(16, 40))
    taps, stride, dilation = (int(v) for v in rng.integers(1, 4, 3))
    span = (taps - 1) * dilation + 1
    before, after = (int(v) for v in rng.integers(0, 4, 2))
    length = int(rng.integers(span, span + 20))
    mode = str(rng.choice(["NOTSET", "", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    attributes = {"group": groups, "strides": [stride], "dilations": [dilation]}
    if mode:
        attributes["auto_pad"] = mode
    if mode in ("NOTSET", ""):
        attributes["pads"] = [before, after]
    elif mode == "VALID":
        before = after = 0
    else:
        before, after = same_padding(length, stride, span, mode == "SAME_UPPER")
    if rng.random() < 0.5:
        attributes["kernel_shape"] = [taps]
    x, w = (
        floats(rng, (int(rng.integers(1, 3)), own * groups, length)),
        floats(rng, (each * groups, own, taps)),
    )
    args = groups, stride, dilation, before, after
    y, terms = conv1d(wide(x), wide(w), *args), conv1d(np.abs(wide(x)), np.abs(wide(w)), *args)
    names, constants = ["x", "w"], {"w": w}
    if rng.random() < 0.5:
        b = floats(rng, (each * groups,))
        names, constants = [*names, "b"], constants | {"b": b}
        y, terms = y + wide(b)[:, None], terms + np.abs(wide(b))[:, None]
    nodes = [node(op, names, **attributes)]
    # onnxruntime pads no dilated kernel by itself.
    oracle = dilation == 1 or not mode.startswith("SAME")
    return Case(opset, nodes, {"x": x}, constants, [y], [gamma(own * taps + 1) * terms], oracle=oracle)


def conv_transpose1d(x, w, groups, stride, dilation, before, out):
    """Every input element adds its taps to the output; what lies outside is cut off."""
    (n, c, length), (_, each, taps) = x.shape, w.shape
    y = np.zeros((n, each * groups, out))
    own = c // groups
    for g in range(groups):
        for i in range(length):
            for t in range(taps):
                at = i * stride + t * dilation - before
                if 0 <= at < out:
                    part = slice(g * own, (g + 1) * own)
                    y[:, g * each : (g + 1) * each, at] += x[:, part, i] @ w[part, :, t]
    return y


@cases("ConvTranspose")
def conv_transpose(rng, op, opset):
    groups = int(rng.choice([1, 1, 2, 3]))
    own, each = (int(v) for v in rng.integers(1, 12, 2))
    taps, stride, dilation = (int(v) for v in rng.integers(1, 5, 3))
    length = int(rng.integers(2, 12))
    extra = int(rng.integers(0, stride))
    full = (length - 1) * stride + (taps - 1) * dilation + 1 + extra
    attributes = {"group": groups, "strides": [stride], "dilations": [dilation], "output_padding": [extra]}
    form = str(rng.choice(["pads", "pads", "VALID", "SAME_UPPER", "SAME_LOWER", "output_shape"]))
    before, after = 0, 0
    if form == "pads":
        before = int(rng.integers(0, min(4, full)))
        after = int(rng.integers(0, min(4, full - before)))
        attributes["pads"] = [before, after]
    elif form == "output_shape":
        cut = int(rng.integers(0, min(5, full)))
        attributes["output_shape"] = [full - cut]
        before, after = cut - cut // 2, cut // 2
    else:
        attributes["auto_pad"] = form
        if form != "VALID":
            cut = max(full - length * stride, 0)
            small, large = cut // 2, cut - cut // 2
            before, after = (small, large) if form == "SAME_UPPER" else (large, small)
            after = cut - before
    x, w = (
        floats(rng, (int(rng.integers(1, 3)), own * groups, length)),
        floats(rng, (own * groups, each, taps)),
    )
    args = groups, stride, dilation, before, full - before - after
    y = conv_transpose1d(wide(x), wide(w), *args)
    terms = conv_transpose1d(np.abs(wide(x)), np.abs(wide(w)), *args)
    names, constants = ["x", "w"], {"w": w}
    if rng.random() < 0.5:
        b = floats(rng, (each * groups,))
        names, constants = [*names, "b"], constants | {"b": b}
        y, terms = y + wide(b)[:, None], terms + np.abs(wide(b))[:, None]
    nodes = [node(op, names, **attributes)]
    return Case(opset, nodes, {"x": x}, constants, [y], [gamma(own * taps + 2) * terms])


@cases("Pad")
def pad(rng, op, opset):
    size = shape(rng, 1, 4)
    x = floats(rng, size)
    mode = str(rng.choice(["", "constant", "edge", "reflect"]))
    every = tuple(range(len(size)))
    axes = every
    if opset >= 18 and rng.random() < 0.5:
        axes = tuple(int(a) for a in rng.permutation(len(size))[: rng.integers(1, len(size) + 1)])
    most = [size[a] - 1 if mode == "reflect" else 3 for a in axes]
    width = {a: [int(v) for v in rng.integers(0, m + 1, 2)] for a, m in zip(axes, most, strict=True)}
    if mode in ("", "constant"):
        # A negative width takes elements away.
        width = {a: [-1 if rng.random() < 0.2 and size[a] > 2 else v for v in p] for a, p in width.items()}
    names, constants = ["x", "p"], {"p": ints([width[a][i] for i in (0, 1) for a in axes])}
    value = 0.0
    if mode in ("", "constant") and rng.random() < 0.5:
        constants["v"] = floats(rng, ())
        value = float(constants["v"])
        names.append("v")
    if axes is not every:
        constants["a"] = ints([a - len(size) if rng.random() < 0.5 else a for a in axes])
        names += [""] * (3 - len(names)) + ["a"]
    full = [width.get(a, [0, 0]) for a in every]
    y = wide(x)[tuple(slice(max(0, -p[0]), size[a] - max(0, -p[1])) for a, p in enumerate(full))]
    grow = [[max(0, v) for v in p] for p in full]
    y = np.pad(y, grow, constant_values=value) if mode in ("", "constant") else np.pad(y, grow, mode=mode)
    attributes = {"mode": mode} if mode else {}
    return Case(opset, [node(op, names, **attributes)], {"x": x}, constants, [y])


REDUCE = {
    "ReduceSum": (np.sum, lambda x, y, n, a: gamma(n) * np.abs(x).sum(a, keepdims=True)),
    "ReduceMean": (np.mean, lambda x, y, n, a: gamma(n + 1) * np.abs(x).mean(a, keepdims=True)),
    "ReduceMax": (np.max, lambda x, y, n, a: 0.0 * y),
    "ReduceMin": (np.min, lambda x, y, n, a: 0.0 * y),
    "ReduceProd": (np.prod, lambda x, y, n, a: gamma(n) * np.abs(y)),
    "ReduceL2": (
        lambda x, axis, keepdims: np.sqrt((x**2).sum(axis, keepdims=keepdims)),
        lambda x, y, n, a: gamma(n + 1) * y,
    ),
    "ReduceSumSquare": (
        lambda x, axis, keepdims: (x**2).sum(axis, keepdims=keepdims),
        lambda x, y, n, a: gamma(n) * y,
    ),
}


@cases(*REDUCE)
def reduce(rng, op, opset):
    f, bar = REDUCE[op]
    if op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd") and rng.random() < 0.2:
        a = ints(rng.integers(-3, 4, 5))
        return folded(rng, opset, [node(op, ["a"], ["c"], keepdims=0)], {"a": a}, f(a))
    size = shape(rng, 1, 4)
    x = floats(rng, size)
    as_input = opset >= (13 if op == "ReduceSum" else 18)
    axes = [int(a) for a in rng.permutation(len(size))[: rng.integers(1, len(size) + 1)]]
    given = rng.random() < 0.8
    names, constants, attributes = ["x"], {}, {}
    if given:
        signed = [a - len(size) if rng.random() < 0.5 else a for a in axes]
        if as_input:
            names, constants = ["x", "a"], {"a": ints(signed)}
        else:
            attributes["axes"] = signed
    else:
        axes = list(range(len(size)))
    keep = rng.random() < 0.6
    if not keep or rng.random() < 0.5:
        attributes["keepdims"] = int(keep)
    n = int(np.prod([size[a] for a in axes]))
    whole = f(wide(x), axis=tuple(axes), keepdims=True)
    y = f(wide(x), axis=tuple(axes), keepdims=keep)
    bound = bar(wide(x), whole, n, tuple(axes)).reshape(y.shape)
    if as_input and not given and rng.random() < 0.5:
        # No axes and this flag: the input as it is.
        attributes = {"noop_with_empty_axes": 1}
        y, bound = wide(x), 0.0
    return Case(opset, [node(op, names, **attributes)], {"x": x}, constants, [y], [bound])
