"""Reduces the values that SDK 1.x accepts to those that the core encodes.

SDK 1.x wrote JSON with orjson, which takes more types than the core: tuples, dates, UUIDs, enums, dataclasses, subclasses, and keys
that are not text. The functions here are called only for data that the core has refused, so that usual data is not looked at twice.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from tb_mqtt_client._native import MAX_DEPTH, UnsupportedValueError
from tb_mqtt_client._native import dumps as native_dumps

_PLAIN = {str, int, bool, type(None)}


def plain_value(value: Any) -> Any:
    """Return a value with the types of JSON only, which is equal to the value as SDK 1.x wrote it.

    Args:
        value: A JSON value, or a value of another type that SDK 1.x accepts: a tuple, a ``datetime``, ``date`` or ``time``, which
            become ISO 8601 text, a ``UUID``, an enum member (its value), a dataclass instance (its public fields), or an instance
            of a subclass of ``str``, ``int``, ``float``, ``list`` or ``dict``. NaN and infinities become ``None``. Values that
            only the core accepts, such as a ``Decimal`` and numpy's numbers and arrays, stay as they are.

    Returns:
        The value itself, or a new one. The given value is not changed.

    Raises:
        TypeError: The value, or a part of it, cannot be written as JSON, or is nested too deeply, as is a value that contains
            itself.
    """
    return _plain(value, 0)


def _plain(value: Any, depth: int) -> Any:  # noqa: PLR0911  # one for each kind of value
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if depth > MAX_DEPTH:
        raise UnsupportedValueError(f"values may be nested {MAX_DEPTH} levels deep")
    if isinstance(value, enum.Enum):
        return _plain(value.value, depth + 1)
    if isinstance(value, Mapping):
        return {plain_key(key): _plain(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, depth + 1) for one in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if not field.name.startswith("_")]
        return {name: _plain(getattr(value, name), depth + 1) for name in names}
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    if _is_for_core(value):
        return value
    return _plain_scalar(value)


def _is_for_core(value: Any) -> bool:
    """Return whether a value has a type that SDK 1.x did not know, and that the core writes."""
    if isinstance(value, str | int | float | date | time | uuid.UUID):
        return False
    try:
        native_dumps(value)
    except (ValueError, TypeError):
        return False
    return True


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _plain(float(value), 0)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON: {value!r:.100}")


def plain_key(key: Any) -> str:
    """Return the text that SDK 1.x wrote for a key of a dict.

    Args:
        key: Text, a number, a ``bool``, ``None``, a date or time, a ``UUID``, or an enum member.

    Raises:
        TypeError: The key has another type.
    """
    if type(key) is str:
        return key
    if isinstance(key, enum.Enum):
        return plain_key(key.value)
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    value = _plain_scalar(key)
    return "null" if value is None else str(value)


def dumps(value: Any, /, default: Callable[[Any], Any] | None = None, option: int | None = None) -> bytes:
    """Write a value as JSON. Programs for SDK 1.x import this name, which was ``orjson.dumps`` there.

    Args:
        value: A value that ``plain_value`` accepts.
        default: Not used.
        option: Not used: keys that are not text are always accepted.

    Raises:
        TypeError: JSON cannot express the value.
    """
    try:
        return native_dumps(value)
    except ValueError:
        return native_dumps(plain_value(value))
