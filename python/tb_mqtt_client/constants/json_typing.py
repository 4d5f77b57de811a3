"""What JSON can carry."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tb_mqtt_client._native import UnsupportedValueError, dumps

# The error is published with the others, in ``common.exceptions``; entities have it from here.
__all__ = ["JSONCompatibleType", "JSONPrimitive", "UnsupportedValueError", "validate_json_compatibility"]

JSONPrimitive: TypeAlias = str | int | float | bool | None
# Sequence and Mapping instead of list and dict, because a type checker does not accept list[str] as a list of JSON values. Tuples,
# bytes and other mappings also match this type; the encoder refuses them.
JSONCompatibleType: TypeAlias = JSONPrimitive | Sequence["JSONCompatibleType"] | Mapping[str, "JSONCompatibleType"]


def validate_json_compatibility(value: Any) -> None:
    """Raise unless ``value`` is made of ``str``, ``int``, ``float``, ``bool``, ``None``, ``list`` and ``dict``.

    The types are compared exactly, keys are ``str``: for others ``UnsupportedValueError``, and for NaN and infinities, which are
    floats that JSON lacks, ``ValueError``. The text names the place as a path (``$.x[1].y``). The check is the encoder itself, so
    whatever passes here can be sent.
    """
    dumps(value)
