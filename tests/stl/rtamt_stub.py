"""Runs a test file of rtamt against our engine: stands in for the modules of `rtamt` that the file imports.

    python rtamt_stub.py FILE

Prints how many tests ran, and the traceback of what went wrong by test, as JSON. An online operation is
a formula over its operands; a pastified formula equals a text when that text, read as a formula of the past,
has at step t + horizon the robustness of the original at t, on random traces.
"""

import importlib.util
import itertools
import json
import re
import sys
import types
import unittest

import numpy as np

from cadenza import stl

# rtamt's next and prev are weak.
WORDS = {"next": "wX", "X": "wX", "sX": "X", "prev": "wY", "previous": "wY", "s_prev": "Y", "s_previous": "Y"}
# Of online operations, by class name; the unbounded operators of the future have seen the past only.
OPERATIONS = {
    "Addition": "a + b", "Subtraction": "a - b", "Multiplication": "a * b", "Division": "a / b",
    "Abs": "abs(a)", "Sqrt": "sqrt(a)", "Exp": "exp(a)", "Pow": "pow(a, b)", "Constant": "{0}",
    "Previous": "prev(a)", "Not": "not(a)", "Rise": "rise(a)", "Fall": "fall(a)", "And": "a and b",
    "Or": "a or b", "Iff": "a iff b", "Xor": "a xor b", "Implies": "a -> b", "Always": "H(a)",
    "Historically": "H(a)", "Once": "O(a)", "Eventually": "O(a)", "Since": "a S b", "Predicate": "a {0} b",
    "OnceTimed": "O[{0},{1}](a)", "HistoricallyTimed": "H[{0},{1}](a)", "SinceTimed": "a S[{0},{1}] b",
    "PrecedesTimed": "(a)precedes[{0},{1}](b)",
}  # fmt: skip
COMPARISONS = {"LEQ": "<=", "LESS": "<", "GEQ": ">=", "GREATER": ">", "EQUAL": "==", "NEQ": "!="}


def group(text: str, at: int, step: int) -> int:
    """The other parenthesis of the one at `at`."""
    depth = 0
    while True:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
        at += step


def without_precedes(text: str) -> str:
    """Until as its window ends: `p precedes[a,b] q` now is `p until[a,b] q`, b steps ago."""
    found = re.search(r"precedes\[(\d+),(\d+)\]", text)
    if found is None:
        return text
    start, end = group(text, found.start() - 1, -1), group(text, found.end(), 1) + 1
    p, q = text[start : found.start()], text[found.end() : end]
    a, b = int(found[1]), int(found[2])
    held = [f" and H[{b - k + 1},{b}]{p}" if k else "" for k in range(a, b + 1)]
    ways = [f"(O[{b - k},{b - k}]{q}{kept})" for k, kept in enumerate(held, a)]
    return without_precedes(f"{text[:start]}({' or '.join(ways)}){text[end:]}")


def formula(text: str, names: list[str]) -> stl.Formula:
    """rtamt's text as ours; a number x that stands for a formula becomes x > 0."""
    text = without_precedes(text).replace("!==", "!=")
    text = re.sub(r"\w+", lambda word: WORDS.get(word[0], word[0]), text)
    for _ in range(20):
        try:
            return stl.parse(text, names)
        except stl.ParseError as error:
            if error.kind != "Type":
                raise
            text = f"{text[: error.start]}({text[error.start : error.end]} > 0){text[error.end :]}"
    raise ValueError(text)


class Ast:
    """A specification."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def declare_var(self, name: str, _kind: str) -> None:
        self.names.append(name)

    def parse(self) -> None:
        self.formula = formula(self.spec, self.names or ["none"])


class Offline:
    """Evaluates a whole trace."""

    def set_ast(self, ast: Ast) -> None:
        self.ast = ast

    def evaluate(self, dataset: dict) -> list:
        zeros = [0.0] * len(dataset["time"])
        trace = np.array([dataset.get(name, zeros) for name in self.ast.names], float).T.copy()
        rho = stl.robustness_trace(self.ast.formula, trace)
        return [[t, value] for t, value in zip(dataset["time"], rho.tolist(), strict=True)]


class Online:
    """Evaluates sample by sample."""

    def set_ast(self, ast: Ast) -> None:
        self.names, self.monitor = ast.names, stl.Monitor(ast.formula)

    def update(self, _step: int, sample: list) -> float:
        values = dict(sample)
        return value(self.monitor, [values[name] for name in self.names])


def value(monitor: stl.Monitor, sample: list[float]) -> float:
    """The verdict of this sample; a fault is an exception, as in rtamt."""
    closed = monitor.update(np.array(sample, float)).closed
    assert closed is not None
    if np.isnan(closed[1]):
        raise ArithmeticError("not a number")
    return closed[1]


def operation(template: str) -> type:
    """The class of an online operation."""

    class Operation:
        def __init__(self, *args: object) -> None:
            self.monitor = stl.Monitor(formula(template.format(*args), ["a", "b"]))

        def update(self, *operands: float) -> float:
            return value(self.monitor, [*operands, 0.0, 0.0][:2])

    return Operation


class Pastifier:
    """Our monitors delay their verdicts instead; what is compared are the values."""

    def pastify(self, ast: Ast) -> types.SimpleNamespace:
        return types.SimpleNamespace(specs=[types.SimpleNamespace(name=Pastified(ast))])


class Pastified:
    """The text of a pastified formula, equal to every text with the same values."""

    __hash__ = None

    def __init__(self, ast: Ast) -> None:
        self.names, self.formula = ast.names or ["none"], ast.formula

    def __eq__(self, text: object) -> bool:
        past, horizon = formula(str(text), self.names), self.formula.horizon
        assert past.horizon == 0, text
        rng = np.random.default_rng(0)
        for length in (horizon + 1, 30, 100):
            trace = rng.integers(-4, 5, (length, len(self.names))) / 2
            ours = stl.robustness_trace(self.formula, trace)[: length - horizon]
            if not np.array_equal(ours, stl.robustness_trace(past, trace)[horizon:], equal_nan=True):
                return False
        return True


ENDINGS = {
    "Ast": Ast,
    "OfflineInterpreter": Offline,
    "OnlineInterpreter": Online,
    "Pastifier": Pastifier,
}


class Stub(types.ModuleType):
    """Any module of rtamt: hands out what a test imports, by the ending of its name."""

    def __getattr__(self, name: str) -> object:
        if name == "StlComparisonOperator":
            return types.SimpleNamespace(**COMPARISONS)
        if name.endswith("Operation"):
            return operation(OPERATIONS[name.removesuffix("Operation")])
        for ending, found in ENDINGS.items():
            if name.endswith(ending):
                return found
        raise AttributeError(name)


def main(path: str) -> None:
    """Loads the file with its imports stubbed, and runs its tests."""
    with open(path) as file:
        imported = re.findall(r"^from (rtamt[\w.]*) import", file.read(), re.MULTILINE)
    for name in imported:
        for part in itertools.accumulate(name.split("."), "{}.{}".format):
            sys.modules.setdefault(part, Stub(part)).__path__ = []
    spec = importlib.util.spec_from_file_location("suite", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
    wrong = {test.id().split(".")[-1]: trace for test, trace in [*result.failures, *result.errors]}
    print(json.dumps({"run": result.testsRun, "wrong": wrong}))


if __name__ == "__main__":
    main(sys.argv[1])
