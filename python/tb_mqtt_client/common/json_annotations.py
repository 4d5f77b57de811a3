"""Checks JSON values against the annotations of a program's functions, and converts them.

An annotation is read once, when a function is registered, so that one which JSON cannot express is reported there.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import importlib
import inspect
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

Convert = Callable[[Any, str], Any]
"""Returns a JSON value as the annotation's type. Gets the name of the value for the ``ValueError`` that it raises."""

OBJECT: str = "object"
ARRAY: str = "array"
NULL: str = "null"
OTHER: str = "other"
"""The kinds of JSON values that a binding of parameters distinguishes."""


@dataclasses.dataclass(frozen=True)
class JSONType:
    """What an annotation accepts."""

    description: str
    """Follows "must be" in an error."""
    convert: Convert
    accepts: frozenset[str]
    """The kinds of JSON values that may be accepted."""


def kind_of(value: Any) -> str:
    """Return ``OBJECT``, ``ARRAY``, ``NULL`` or ``OTHER``."""
    if value is None:
        return NULL
    return OBJECT if isinstance(value, dict) else ARRAY if isinstance(value, list) else OTHER


def resolved_annotations(owner: Any, annotations: Mapping[str, Any]) -> dict[str, Any]:
    """Return annotations in which texts (``from __future__ import annotations``) are evaluated.

    Args:
        owner: The function that has the annotations.
        annotations: By name.

    Raises:
        TypeError: A name in an annotation is not known where the function is defined.
    """
    plain = _plain_function(owner)
    nonlocals = inspect.getclosurevars(plain).nonlocals if inspect.isfunction(plain) else {}
    resolved = {}
    for name, annotation in annotations.items():

        def holder() -> None: ...

        holder.__annotations__ = {name: annotation}
        try:
            hints = typing.get_type_hints(holder, getattr(plain, "__globals__", {}), dict(nonlocals), include_extras=True)
        except (NameError, AttributeError, SyntaxError) as error:
            raise TypeError(
                f"the annotation of {name!r} cannot be resolved ({error}): define its types at the top of a module, outside of "
                "functions and of `if TYPE_CHECKING`"
            ) from error
        resolved[name] = hints[name]
    return resolved


def _plain_function(function: Any) -> Any:
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    if not inspect.isroutine(function) and not isinstance(function, type):
        function = type(function).__call__
    return inspect.unwrap(getattr(function, "__func__", function))


def json_type(annotation: Any, name: str) -> JSONType:
    """Return what an annotation accepts.

    Args:
        annotation: ``Any``, a builtin type that JSON has, a list, tuple or dict of these, a union, ``Literal``, ``Enum``,
            ``TypedDict``, dataclass, or a model of pydantic or msgspec.
        name: Names the parameter or field in an error.

    Raises:
        TypeError: JSON has no values of this type, or the annotation of a field cannot be resolved.
    """
    return _Reader().read(annotation, name)


class _Reader:
    """Reads one annotation. Types that contain themselves are read once."""

    def __init__(self) -> None:
        self._structures: dict[Any, list[JSONType]] = {}

    def read(self, annotation: Any, name: str) -> JSONType:
        for read in (_simple, self._special, self._container, self._structure):
            found = read(annotation, name)
            if found is not None:
                return found
        raise TypeError(
            f"{name!r} has the annotation {_text(annotation)}, which is not supported: use int, float, bool, str, list, tuple, "
            "dict, a union of these, Literal, Enum, TypedDict, a dataclass, or a model of pydantic or msgspec"
        )

    def _annotated(self, annotation: Any, name: str) -> JSONType:
        origins = {type(one).__module__.partition(".")[0] for one in annotation.__metadata__}
        if origins & {"pydantic", "annotated_types", "pydantic_core"}:
            return _pydantic(annotation, name)
        return _msgspec(annotation) if "msgspec" in origins else self.read(annotation.__origin__, name)

    def _special(self, annotation: Any, name: str) -> JSONType | None:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._annotated(annotation, name)
        if origin in {typing.Union, types.UnionType}:
            return _union([self.read(one, name) for one in arguments])
        if origin is typing.Literal:
            return _choice(list(arguments), lambda value: value)
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            return _choice([member.value for member in annotation], annotation)
        return None

    def _container(self, annotation: Any, name: str) -> JSONType | None:
        origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
        if origin in {list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection}:
            return _list(self.read(arguments[0] if arguments else Any, f"{name}[]"))
        if origin is tuple:
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return _list(self.read(arguments[0], f"{name}[]"), tuple)
            if not arguments:
                return _list(_ANYTHING, tuple)
            return _tuple([self.read(one, f"{name}[{number}]") for number, one in enumerate(arguments)])
        if origin in {dict, collections.abc.Mapping, collections.abc.MutableMapping}:
            if arguments and self.read(arguments[0], name) not in (_STR, _ANYTHING):
                raise TypeError(f"{name!r} has the annotation {_text(annotation)}, but the keys of a JSON object are of type str")
            return _dict(self.read(arguments[1] if arguments else Any, f"{name}[]"))
        return None

    def _structure(self, annotation: Any, name: str) -> JSONType | None:
        if not isinstance(annotation, type):
            return None
        if hasattr(annotation, "__pydantic_validator__"):
            return _pydantic(annotation, name)
        if hasattr(annotation, "__struct_fields__"):
            return _msgspec(annotation)
        is_typed_dict = typing.is_typeddict(annotation)
        # Classes without their own constructor, such as responses of the platform, are not for values of a program.
        if not is_typed_dict and not (dataclasses.is_dataclass(annotation) and annotation.__dataclass_params__.init):  # type: ignore[attr-defined]  # not in the stub
            return None
        known = self._structures.get(annotation)
        if known is None:
            known = self._structures[annotation] = []
            known.append(self._object(annotation, name, is_typed_dict))
        elif not known:
            # Inside of itself: the list is filled when the outer type has been read.
            return JSONType("an object", lambda value, where: known[0].convert(value, where), frozenset({OBJECT}))  # noqa: PLW0108
        return known[0]

    def _object(self, annotation: type, name: str, is_typed_dict: bool) -> JSONType:
        try:
            hints = typing.get_type_hints(annotation, include_extras=True)
        except (NameError, AttributeError, SyntaxError) as error:
            raise TypeError(f"an annotation in {annotation.__name__} (of {name!r}) cannot be resolved: {error}") from error
        fields: dict[str, JSONType] = {}
        required: set[str] = set()
        if is_typed_dict:
            for key, hint in hints.items():
                inner, is_required = _without_qualifiers(hint, key in annotation.__required_keys__)  # type: ignore[attr-defined]
                fields[key] = self.read(inner, f"{name}.{key}")
                if is_required:
                    required.add(key)
            return _fields(annotation.__name__, fields, required, lambda values: values)
        for field in dataclasses.fields(annotation):
            if not field.init:
                continue
            fields[field.name] = self.read(hints[field.name], f"{name}.{field.name}")
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                required.add(field.name)
        return _fields(annotation.__name__, fields, required, lambda values: annotation(**values))


def _without_qualifiers(hint: Any, is_required: bool) -> tuple[Any, bool]:
    # ``__required_keys__`` is wrong for annotations that are texts.
    while (name := getattr(typing.get_origin(hint), "_name", None)) in {"Required", "NotRequired", "ReadOnly"}:
        is_required = is_required if name == "ReadOnly" else name == "Required"
        hint = typing.get_args(hint)[0]
    return hint, is_required


def _simple(annotation: Any, _name: str) -> JSONType | None:
    if annotation in (Any, object, inspect.Parameter.empty):
        return _ANYTHING
    if annotation in (None, type(None)):
        return _NULL
    return {bool: _BOOL, int: _INT, float: _FLOAT, str: _STR}.get(annotation) if isinstance(annotation, type) else None


def _of_type(description: str, kind: type, accepts: str = OTHER) -> JSONType:
    def convert(value: Any, name: str) -> Any:
        # bool is a subclass of int, but not in JSON.
        if type(value) is not kind:
            raise _mismatch(name, description, value)
        return value

    return JSONType(description, convert, frozenset({accepts}))


def _to_float(value: Any, name: str) -> float:
    if type(value) not in {int, float}:
        raise _mismatch(name, "a number", value)
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large for a float") from None


_ANYTHING = JSONType("any value", lambda value, _name: value, frozenset({OBJECT, ARRAY, NULL, OTHER}))
_NULL = _of_type("null", type(None), NULL)
_BOOL = _of_type("true or false", bool)
_INT = _of_type("an integer", int)
_STR = _of_type("a string", str)
_FLOAT = JSONType("a number", _to_float, frozenset({OTHER}))


def _union(members: list[JSONType]) -> JSONType:
    description = " or ".join(dict.fromkeys(member.description for member in members))

    def convert(value: Any, name: str) -> Any:
        errors = []
        kind = kind_of(value)
        for member in members:
            if kind in member.accepts:
                try:
                    return member.convert(value, name)
                except ValueError as error:
                    errors.append(error)
        # The error of the only member that takes such a value says more than that none does.
        raise errors[0] if len(errors) == 1 and kind != OTHER else _mismatch(name, description, value)

    return JSONType(description, convert, frozenset().union(*(member.accepts for member in members)))


def _choice(values: list[Any], make: Callable[[Any], Any]) -> JSONType:
    description = " or ".join(repr(value) for value in values)

    def convert(value: Any, name: str) -> Any:
        if not any(type(value) is type(one) and value == one for one in values):
            raise _mismatch(name, description, value)
        return make(value)

    return JSONType(description, convert, frozenset(kind_of(value) for value in values))


def _list(item: JSONType, make: Callable[[list[Any]], Any] = list) -> JSONType:
    def convert(value: Any, name: str) -> Any:
        if not isinstance(value, list):
            raise _mismatch(name, "a list", value)
        return make([item.convert(one, f"{name}[{number}]") for number, one in enumerate(value)])

    return JSONType("a list", convert, frozenset({ARRAY}))


def _tuple(items: list[JSONType]) -> JSONType:
    description = f"a list with {len(items)} items"

    def convert(value: Any, name: str) -> Any:
        if not isinstance(value, list) or len(value) != len(items):
            raise _mismatch(name, description, value)
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(item.convert(one, f"{name}[{number}]") for number, (item, one) in pairs)

    return JSONType(description, convert, frozenset({ARRAY}))


def _dict(item: JSONType) -> JSONType:
    def convert(value: Any, name: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(name, "an object", value)
        return {key: item.convert(one, f"{name}[{key!r}]") for key, one in value.items()}

    return JSONType("an object", convert, frozenset({OBJECT}))


def _fields(type_name: str, fields: dict[str, JSONType], required: set[str], make: Callable[[dict[str, Any]], Any]) -> JSONType:
    description = f"an object with {', '.join(fields)}" if fields else "an empty object"

    def convert(value: Any, name: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(name, description, value)
        if missing := [key for key in fields if key in required and key not in value]:
            raise ValueError(f"{name} has no {missing[0]!r}; it must be {description}")
        if unknown := [key for key in value if key not in fields]:
            raise ValueError(f"{name} has an unknown {unknown[0]!r:.60}; it must be {description}")
        values = {key: fields[key].convert(one, f"{name}.{key}") for key, one in value.items()}
        try:
            return make(values)
        except (TypeError, ValueError) as error:
            # Checks in __post_init__.
            raise ValueError(f"{name} is not a valid {type_name}: {error}") from error

    return JSONType(description, convert, frozenset({OBJECT}))


def _pydantic(annotation: Any, name: str) -> JSONType:
    try:
        pydantic = importlib.import_module("pydantic")
    except ImportError as error:
        raise TypeError(f"{name!r} has the annotation {_text(annotation)}, which needs pydantic") from error
    adapter = pydantic.TypeAdapter(annotation)

    def convert(value: Any, where: str) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            found = [f"{'.'.join([where, *map(str, one['loc'])])}: {one['msg']}" for one in error.errors()]
            raise ValueError("; ".join(found)) from error

    is_model = isinstance(annotation, type)
    return JSONType(f"valid for {_text(annotation)}", convert, frozenset({OBJECT}) if is_model else _ANYTHING.accepts)


def _msgspec(annotation: Any) -> JSONType:
    msgspec = importlib.import_module("msgspec")
    # A Struct with ``array_like=True`` is an array.
    is_array = isinstance(annotation, type) and annotation.__struct_config__.array_like  # type: ignore[attr-defined]  # of a Struct
    is_model = isinstance(annotation, type)

    def convert(value: Any, where: str) -> Any:
        try:
            return msgspec.convert(value, annotation)
        except msgspec.ValidationError as error:
            raise ValueError(f"{where}: {error}") from error

    kinds = frozenset({ARRAY if is_array else OBJECT}) if is_model else _ANYTHING.accepts
    return JSONType(f"valid for {_text(annotation)}", convert, kinds)


def _mismatch(name: str, description: str, value: Any) -> ValueError:
    return ValueError(f"{name} must be {description}, not {reprlib.repr(value)}")


def _text(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
