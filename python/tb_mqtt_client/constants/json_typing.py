"""What JSON can carry."""

from typing import Any, TypeAlias

from tb_mqtt_client import _native

JSONPrimitive: TypeAlias = str | int | float | bool | None
JSONCompatibleType: TypeAlias = JSONPrimitive | list["JSONCompatibleType"] | dict[str, "JSONCompatibleType"]


def validate_json_compatibility(value: Any) -> None:
    """Raise ``ValueError`` unless ``value`` is made of ``str``, ``int``, ``float``, ``bool``, ``None``, ``list`` and ``dict``.

    The types are compared exactly, keys are ``str``; the text names the place as a path (``$.x[1].y``). NaN and infinities are
    refused too, since JSON has no form for them. The check is the encoder itself, so whatever passes here can be sent.
    """
    _native.dumps(value)
