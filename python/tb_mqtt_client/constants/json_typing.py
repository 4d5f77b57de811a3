"""Types of JSON values, and the check that a value is one."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tb_mqtt_client._native import UnsupportedValueError, dumps

# Users import the error from `common.exceptions` with all others. Entities, which may not import that module, import it from here.
__all__ = ["JSONCompatibleType", "JSONPrimitive", "UnsupportedValueError", "validate_json_compatibility"]

JSONPrimitive: TypeAlias = str | int | float | bool | None
# Sequence and Mapping instead of list and dict, because a type checker does not accept list[str] as a list of JSON values. Tuples,
# bytes and other mappings also match this type; the encoder refuses them.
JSONCompatibleType: TypeAlias = JSONPrimitive | Sequence["JSONCompatibleType"] | Mapping[str, "JSONCompatibleType"]


def validate_json_compatibility(value: Any) -> None:
    """Raise unless a value can be sent as JSON.

    The check is the encoder itself, so every value that passes can be sent.

    Args:
        value: Accepted are ``str``, ``int``, ``float``, ``bool``, ``None``, ``list``, and ``dict`` with ``str`` keys. The types are
            compared exactly: subclasses are refused.

    Raises:
        UnsupportedValueError: The value, or one inside it, has another type. The text names its path, such as ``$.x[1].y``.
        ValueError: A float is NaN or infinite, which JSON cannot express.
    """
    dumps(value)
