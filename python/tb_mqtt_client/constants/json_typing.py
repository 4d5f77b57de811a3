"""What JSON can carry."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tb_mqtt_client._native import UnsupportedValueError, dumps

# The error is published with the others, in ``common.exceptions``; entities have it from here.
__all__ = ["JSONCompatibleType", "JSONPrimitive", "UnsupportedValueError", "validate_json_compatibility"]

JSONPrimitive: TypeAlias = str | int | float | bool | None
# By types a list of str would be no list of JSON values, since one could append a number to it; nothing here changes a value.
# What is sent is a list or a dict: tuples, bytes and other mappings pass here, and are refused by the encoder.
JSONCompatibleType: TypeAlias = JSONPrimitive | Sequence["JSONCompatibleType"] | Mapping[str, "JSONCompatibleType"]


def validate_json_compatibility(value: Any) -> None:
    """Raise unless ``value`` is made of ``str``, ``int``, ``float``, ``bool``, ``None``, ``list`` and ``dict``.

    The types are compared exactly, keys are ``str``: for others ``UnsupportedValueError``, and for NaN and infinities, which are
    floats that JSON lacks, ``ValueError``. The text names the place as a path (``$.x[1].y``). The check is the encoder itself, so
    whatever passes here can be sent.
    """
    dumps(value)
