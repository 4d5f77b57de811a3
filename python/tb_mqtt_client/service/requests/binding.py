"""Binds the parameters of a program's functions to the parameters of an RPC request, or to the values of attributes.

Signatures are checked when a function is registered. Values are checked when a message arrives.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from tb_mqtt_client.common.json_annotations import ARRAY, NULL, OBJECT, JSONType, json_type, kind_of, resolved_annotations
from tb_mqtt_client.service.requests.callbacks import require_callable

Context = Mapping[Any, Any]
"""What a function may get besides values, by class: the message itself, the session of a sub-device."""

_PACKAGE = __name__.partition(".")[0]


def name_of(function: Any) -> str:
    """Return the name of a function for errors and log lines."""
    return str(getattr(function, "__qualname__", None) or repr(function))


class BoundFunction:
    """A function with the types of its parameters."""

    def __init__(self, function: Callable[..., Any], contexts: Iterable[type]) -> None:
        """Read the signature of a function.

        Args:
            function: A plain function or a coroutine function.
            contexts: Parameters that are annotated with one of these classes, or a base class of the package, get that object.

        Raises:
            TypeError: ``function`` cannot be called, or a parameter has an annotation that is not supported.
        """
        require_callable("the handler", function)
        self.function: Callable[..., Any] = function
        self.name: str = name_of(function)
        contexts = tuple(contexts)
        try:
            signature = inspect.signature(function)
        except (ValueError, NameError) as error:
            raise TypeError(f"{self.name}: its parameters cannot be read: {error}") from error
        texts = {one.name: one.annotation for one in signature.parameters.values() if one.annotation is not one.empty}
        self.contexts: dict[str, type] = {}
        """The classes of the parameters that get a context."""
        self.types: dict[str, JSONType] = {}
        """What the other parameters accept."""
        try:
            annotations = resolved_annotations(function, texts)
            for name in signature.parameters:
                annotation = annotations.get(name, Any)
                if _is_of_package(annotation):
                    self.contexts[name] = _context(annotation, name, contexts)
                else:
                    self.types[name] = json_type(annotation, name)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from error
        self._signature = signature
        values = [
            one.replace(annotation=annotations.get(one.name, one.empty))
            for one in signature.parameters.values()
            if one.name not in self.contexts
        ]
        self.values: inspect.Signature = signature.replace(parameters=values, return_annotation=inspect.Signature.empty)
        """The signature without the parameters that get a context."""

    def prepared(self, values: inspect.BoundArguments, context: Context) -> Callable[[], Any]:
        """Check values, and return the function with its arguments.

        Args:
            values: Arguments for ``values``.
            context: The message, and the session if there is one.

        Raises:
            BadValueError: A value is not of the annotated type.
        """
        checked: dict[str, Any] = {}
        try:
            for name, value in values.arguments.items():
                checked[name] = self._checked(name, value)
        except ValueError as error:
            raise BadValueError(str(error)) from error
        for name, kind in self.contexts.items():
            checked[name] = next(one for other, one in context.items() if issubclass(other, kind))
        arguments = {name: checked[name] for name in self._signature.parameters if name in checked}
        bound = inspect.BoundArguments(self._signature, arguments)
        return partial(self.function, *bound.args, **bound.kwargs)

    def _checked(self, name: str, value: Any) -> Any:
        convert, kind = self.types[name].convert, self.values.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple(convert(one, f"{name}[{number}]") for number, one in enumerate(value))
        if kind is inspect.Parameter.VAR_KEYWORD:
            return {key: convert(one, key) for key, one in value.items()}
        return convert(value, name)


class BadValueError(ValueError):
    """A message does not have the values that a function needs. The text says which, and what is allowed."""


class RPCFunction(BoundFunction):
    """A function for the RPC requests with one method."""

    def __init__(self, function: Callable[..., Any], contexts: Iterable[type]) -> None:
        """Read the signature of a function; see ``BoundFunction``."""
        super().__init__(function, contexts)
        only = list(self.values.parameters.values())
        is_single = len(only) == 1 and only[0].kind not in {only[0].VAR_POSITIONAL, only[0].VAR_KEYWORD}
        self._single = only[0] if is_single else None

    def with_params(self, params: Any, context: Context) -> Callable[[], Any]:
        """Return the function with the parameters of a request.

        A function with one parameter gets the parameters of the request as a whole, if the annotation allows that. Otherwise the
        values of an object are passed by name, the items of an array in their order, and another value as the only argument.

        Raises:
            BadValueError: The parameters do not fit. The text is for the program on the platform.
        """
        return self.prepared(self._bound(params), context)

    def _bound(self, params: Any) -> inspect.BoundArguments:
        single = self._single
        if single is not None:
            accepted = kind_of(params) in self.types[single.name].accepts
            if params is None and single.default is not single.empty:
                return self.values.bind()
            if accepted or kind_of(params) not in {OBJECT, ARRAY, NULL}:
                return inspect.BoundArguments(self.values, {single.name: params})
        try:
            if params is None:
                return self.values.bind()
            if isinstance(params, dict):
                return self.values.bind(**params)
            return self.values.bind(*(params if isinstance(params, list) else [params]))
        except TypeError as error:
            raise BadValueError(f"{error}; the parameters are {self.values}") from error


class AttributeFunction(BoundFunction):
    """A function for changes of some attributes."""

    def __init__(self, function: Callable[..., Any], contexts: Iterable[type], keys: tuple[str, ...]) -> None:
        """Read the signature of a function; see ``BoundFunction``.

        Raises:
            TypeError: A parameter is not one of the attributes, or has no default value although another attribute may change
                alone, or an attribute has no parameter.
        """
        super().__init__(function, contexts)
        self.keys: tuple[str, ...] = keys
        parameters = list(self.values.parameters.values())
        by_name = [one for one in parameters if one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD}]
        self._rest = next((one.name for one in parameters if one.kind is one.VAR_KEYWORD), None)
        if len(keys) == len(by_name) == 1 and self._rest is None:
            self._parameters = {keys[0]: by_name[0]}
        else:
            self._parameters = {one.name: one for one in by_name}
            self._check(by_name)
        if any(one.kind is one.VAR_POSITIONAL for one in parameters):
            raise TypeError(f"{self.name}: attributes are passed by name, never to *arguments")

    def _check(self, by_name: list[inspect.Parameter]) -> None:
        attributes = ", ".join(repr(key) for key in self.keys)
        for one in by_name:
            if one.name not in self.keys:
                raise TypeError(f"{self.name}: the parameter {one.name!r} is not one of the attributes {attributes}")
            if one.default is one.empty and len(self.keys) > 1:
                raise TypeError(
                    f"{self.name}: the parameter {one.name!r} needs a default value, because another attribute may change alone"
                )
        unnamed = [key for key in self.keys if key not in self._parameters]
        if by_name and unnamed and self._rest is None and not self.contexts:
            raise TypeError(f"{self.name}: there is no parameter for the attribute {unnamed[0]!r}; **values would take all")

    def with_attributes(self, changed: dict[str, Any], deleted: Iterable[str], context: Context) -> Callable[[], Any]:
        """Return the function with the changed attributes of an update, of which one is in ``keys``.

        A deleted attribute is ``None`` if its annotation allows that, and otherwise left to the default value.

        Raises:
            BadValueError: A value is not of the annotated type, or a deleted attribute has neither ``None`` nor a default value.
        """
        values: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        found = {key: changed.get(key) for key in self.keys if key in changed} | {key: None for key in self.keys if key in deleted}
        for key, value in found.items():
            parameter = self._parameters.get(key)
            if parameter is None:
                if self._rest is not None:
                    rest[key] = value
            elif key in changed or NULL in self.types[parameter.name].accepts:
                values[parameter.name] = value
            elif parameter.default is parameter.empty:
                raise BadValueError(
                    f"the attribute {key!r} was deleted, and the parameter {parameter.name!r} neither has a default value nor may "
                    "be None"
                )
        if rest and self._rest is not None:
            values[self._rest] = rest
        ordered = {name: values[name] for name in self.values.parameters if name in values}
        return self.prepared(inspect.BoundArguments(self.values, ordered), context)


def _is_of_package(annotation: Any) -> bool:
    return isinstance(annotation, type) and annotation.__module__.partition(".")[0] == _PACKAGE


def _context(annotation: type, name: str, contexts: tuple[type, ...]) -> type:
    # ``annotation`` may be a base class (RPCRequest), or the session of a synchronous gateway.
    for one in contexts:
        if issubclass(one, annotation) or issubclass(annotation, one):
            return annotation if issubclass(one, annotation) else one
    allowed = " and ".join(one.__name__ for one in contexts)
    raise TypeError(f"the parameter {name!r} is annotated with {annotation.__name__}, which it does not get: it may get {allowed}")
