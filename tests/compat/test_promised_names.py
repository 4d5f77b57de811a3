"""The kept names of SDK 2.0 can be imported and have their parameters and values.

``promised_names.json`` was written once from a description of SDK 2.0, without the names that docs/differences.md lists as removed.
"""

import importlib
import inspect
import itertools
import json
from pathlib import Path

import pytest

PROMISED = json.loads(Path(__file__).with_name("promised_names.json").read_text())
NATIVE = {"DataEntry", "AttributeEntry", "TimeseriesEntry"}
"""Classes without a readable signature; tests/native calls them in every form."""
REQUIRED, ANY = object(), object()


def classes():
    return [(module, name, promise) for module, content in PROMISED.items() for name, promise in content.get("classes", {}).items()]


def parse_parameters(text):
    """Return the defaults of ``(a, b=1, *args)`` by name; ``ANY`` stands for a default that is not a literal."""
    names = {}
    for part in filter(None, text.strip().removeprefix("(").removesuffix(")").split(", ")):
        name, equals, default = part.partition("=")
        if not equals:
            names[name] = REQUIRED
            continue
        try:
            names[name] = eval(default, {"__builtins__": {}})  # the text is from a file of this repository
        except (NameError, SyntaxError):
            names[name] = ANY
    return names


def check_parameters(function, text, *, bound):
    promised = parse_parameters(text)
    parameters = list(inspect.signature(function).parameters.values())[1 if bound else 0 :]
    plain = list(itertools.takewhile(lambda name: not name.startswith("*"), promised))
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][: len(plain)] == plain
    for name, default in promised.items():
        if name.startswith("*"):
            kind = inspect.Parameter.VAR_KEYWORD if name.startswith("**") else inspect.Parameter.VAR_POSITIONAL
            assert any(p.kind is kind for p in parameters)
            continue
        [parameter] = [p for p in parameters if p.name == name]
        if default is REQUIRED or default is ANY:
            continue
        assert parameter.default == default, name
    added = [p for p in parameters if p.name not in promised and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    assert [p.name for p in added if p.default is p.empty] == []


@pytest.mark.parametrize("module", PROMISED)
def test_modules_have_the_promised_names(module):
    found = importlib.import_module(module)
    content = PROMISED[module]
    for name in [*content.get("names", ()), *content.get("functions", ()), *content.get("classes", ())]:
        assert hasattr(found, name), name
    for name, value in content.get("constants", {}).items():
        assert getattr(found, name) == value, name
    for name, signature in content.get("functions", {}).items():
        function = getattr(found, name)
        assert inspect.iscoroutinefunction(function) == signature.startswith("async ")
        if not inspect.isbuiltin(function):
            check_parameters(function, signature.removeprefix("async "), bound=False)


@pytest.mark.parametrize(("module", "name", "promise"), classes(), ids=[f"{module}.{name}" for module, name, _ in classes()])
def test_classes_have_the_promised_members(module, name, promise):
    found = getattr(importlib.import_module(module), name)
    bases = {base.__name__ for base in found.__mro__}
    assert set(promise.get("bases", ())) <= bases
    for member, value in promise.get("members", {}).items():
        assert found[member].value == value
    for constant, value in promise.get("constants", {}).items():
        assert getattr(found, constant) == value
    for attribute, settable in promise.get("properties", {}).items():
        descriptor = inspect.getattr_static(found, attribute)
        if isinstance(descriptor, property):
            assert (descriptor.fset is not None) >= settable, attribute
    if name in NATIVE:
        return
    if promise.get("constructor") and "members" not in promise:
        check_parameters(found, promise["constructor"], bound=False)
    for method, text in promise.get("methods", {}).items():
        *kinds, _ = text[: text.index("(") + 1].split(" ") if " " in text[: text.index("(")] else [""]
        descriptor = inspect.getattr_static(found, method)
        assert isinstance(descriptor, staticmethod) == ("static" in kinds), method
        function = getattr(found, method)
        assert inspect.iscoroutinefunction(function) == ("async" in kinds), method
        check_parameters(function, text[text.index("(") :], bound=not set(kinds) & {"static", "class"})
