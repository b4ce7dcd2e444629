"""The stub of the extension says what the extension holds: names, methods, parameters, defaults."""

import ast
import inspect
from pathlib import Path

from cadenza import _native

STUB = ast.parse((Path(_native.__file__).parent / "_native.pyi").read_text())


def stub_names(body):
    return {node.name: node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def parameters(function):
    """Names and defaults of a stub function, without `self`."""
    args = [a.arg for a in function.args.args if a.arg != "self"]
    defaults = [ast.literal_eval(d) for d in function.args.defaults]
    missing = [inspect.Parameter.empty] * (len(args) - len(defaults))
    named = [
        (a.arg, inspect.Parameter.empty if d is None else ast.literal_eval(d))
        for a, d in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    ]
    return [*zip(args, missing + defaults, strict=True), *named]


def of_extension(callable_):
    signature = inspect.signature(callable_)
    return [(p.name, p.default) for p in signature.parameters.values() if p.name not in ("self", "$self")]


def public(names):
    return {name for name in names if not name.startswith("_")}


def test_the_stub_names_exactly_what_the_extension_holds():
    assert public(stub_names(STUB.body)) == public(dir(_native))


def test_every_class_and_function_has_the_members_and_parameters_of_the_stub():
    for name, node in stub_names(STUB.body).items():
        found = getattr(_native, name)
        if isinstance(node, ast.FunctionDef):
            assert parameters(node) == of_extension(found), name
            continue
        if issubclass(found, Exception):
            continue
        members = stub_names(node.body)
        assert public(members) == public(dir(found)), name
        for member, function in members.items():
            if any(isinstance(d, ast.Name) and d.id == "property" for d in function.decorator_list):
                assert inspect.isgetsetdescriptor(getattr(found, member)), f"{name}.{member}"
                continue
            target = found if member == "__init__" else getattr(found, member)
            assert parameters(function) == of_extension(target), f"{name}.{member}"
