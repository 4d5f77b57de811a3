"""Parses and validates JSON payloads as the platform does (docs/platform_contract.md, sections 3 and 4).

Values stay as the client sent them; `values` derives the stored values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias

from tb_mqtt_client.emulator import lenient_json
from tb_mqtt_client.emulator.devices import Claim, Record

try:
    import orjson
except ImportError:  # optional: the emulator is only slower without it
    fast_loads: Callable[[bytes], Any] | None = None
else:
    # Public, so that tests can run without orjson.
    fast_loads = orjson.loads

# The keys of an attribute request in the client and the shared scope; None if the request has no such list.
AttributeKeys: TypeAlias = tuple[list[str] | None, list[str] | None]

_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
# orjson loses the text of numbers, which decides how some of them are stored: integers that may exceed 64 bits, decimals with
# more than 16 places, and exponents. Digits are translated to "0", exponents to "e" and all other bytes to spaces.
_KINDS_OF_BYTES: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x65 if byte in b"eE" else 0x20 for byte in range(256))
_MANY_DIGITS: Final = b"0" * 17
_EXPONENT: Final = b"0e"
_METADATA: Final = {"connector": str, "receivedTs": int, "publishedTs": int}


class GatewayAttributeRequest(NamedTuple):
    """A request for attributes of one device in one scope."""

    id: int
    device: str
    client_scope: bool
    keys: list[str]


class BadPayloadError(Exception):
    """A payload is not JSON, or JSON of a form that the platform refuses with 0x99."""


class UnexpectedPayloadError(Exception):
    """A payload causes an exception in the platform: DISCONNECT 0x8B and no PUBACK (docs/platform_contract.md, section 8)."""


class GatewayFormError(Exception):
    """A gateway message lacks a required part: PUBACK 0x83 and DISCONNECT 0x83 (docs/platform_contract.md, section 4)."""


def decode_json(payload: bytes, *, exact: bool = True) -> Any:
    """Parse a payload as the platform does. Raise `BadPayloadError` if it refuses the payload.

    With `exact=False` the text of numbers may be lost, which is sufficient for counting.
    """
    if fast_loads is not None and not (exact and _needs_care(payload)):
        # The lenient parser may accept a payload that orjson refuses.
        with suppress(ValueError):
            return fast_loads(payload)
    try:
        return lenient_json.loads(payload.decode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise BadPayloadError(str(error)) from error


def _needs_care(payload: bytes) -> bool:
    # Two searches in a translation are much faster than a regular expression.
    kinds = payload.translate(_KINDS_OF_BYTES)
    return _MANY_DIGITS in kinds or _EXPONENT in kinds


def encode_json(document: Any) -> bytes:
    """Encode compact JSON, as the platform sends it. Raise `TypeError` if JSON cannot represent a value."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def telemetry_records(document: Any, now: int) -> list[Record]:
    """Return the records of `{key: value}`, `{"ts", "values"}` or a list of either; a record without `ts` gets `now`."""
    if isinstance(document, list):
        return [_record(element, now) for element in document]
    return [_record(document, now)]


def gateway_telemetry(elements: list[Any], now: int, reads_metadata: bool) -> tuple[list[Record], list[dict[str, Any]]]:
    """Return the records of one device in v1/gateway/telemetry, and the `metadata` sent with them.

    A server that does not read `metadata` treats it as an ordinary key.
    """
    metadata: list[dict[str, Any]] = []
    if reads_metadata and any("metadata" in element for element in elements if isinstance(element, dict)):
        elements, metadata = _without_metadata(elements)
    try:
        return [_record(element, now) for element in elements], metadata
    except UnexpectedPayloadError as error:
        # On gateway topics the platform reports the failure of a device in the PUBACK (docs/platform_contract.md, section 4).
        raise BadPayloadError(str(error)) from error


def attributes(document: Any) -> dict[str, Any]:
    """Return the attributes. Raise `BadPayloadError` if the document is not an object."""
    if not isinstance(document, dict):
        raise BadPayloadError("attributes must be an object")
    return document


def attribute_keys(document: Any) -> AttributeKeys:
    """Parse `{"clientKeys": "a,b", "sharedKeys": "c"}`.

    Without any key the request is for all attributes (docs/platform_contract.md, section 2).
    """
    if not isinstance(document, dict):
        raise BadPayloadError("an attribute request must be an object")
    return _key_list(document, "clientKeys"), _key_list(document, "sharedKeys")


def rpc_request(document: Any) -> tuple[str, Any]:
    """Return the method and params of a client-side RPC request; other fields are ignored."""
    if not isinstance(document, dict):
        raise BadPayloadError("an RPC request must be an object")
    method = document.get("method")
    if method is None or isinstance(method, (dict, list)):
        raise UnexpectedPayloadError("'method' is missing")
    return _as_string(method), document.get("params")


def claim(document: Any) -> Claim:
    """Parse `{"secretKey", "durationMs"}`; both fields are optional."""
    if not isinstance(document, dict):
        raise BadPayloadError("a claim must be an object")
    given = Claim()
    secret_key = document.get("secretKey", given.secret_key)
    if not isinstance(secret_key, str):
        raise BadPayloadError("'secretKey' must be a string")
    return Claim(secret_key, _whole_number("durationMs", document.get("durationMs", given.duration_ms)))


def gateway_attribute_request(document: Any) -> GatewayAttributeRequest:
    """Parse `id`, `device`, `client`, and `key` or `keys` (docs/platform_contract.md, section 4)."""
    identifier, device = required(document, "id", int), device_name(document)
    client_scope = required(document, "client", bool)
    keys = [required(document, "key", str)] if "key" in document else required(document, "keys", list)
    if not all(isinstance(key, str) for key in keys):
        raise GatewayFormError("'keys' must be strings")
    return GatewayAttributeRequest(identifier, device, client_scope, keys)


def gateway_rpc_response(document: Any) -> tuple[str, int, bytes]:
    """Return the device name, the request id and the JSON of `data`."""
    return device_name(document), required(document, "id", int), encode_json(required(document, "data"))


def count_datapoints(records: Iterable[Record]) -> int:
    """Return the number of non-null values, as the platform counts them for its limits."""
    return sum(count_values(values) for _, values in records)


def count_values(values: dict[str, Any]) -> int:
    """Return the number of non-null values."""
    found = values.values()
    return len(values) - list(found).count(None) if None in found else len(values)


def check_string_lengths(values: dict[str, Any], longest: int) -> None:
    """Raise `BadPayloadError` if a string value has more than `longest` characters."""
    for key, value in values.items():
        if isinstance(value, str) and len(value) > longest:
            raise BadPayloadError(f"the value of {key!r} is longer than {longest} characters")


def gateway_entries(document: Any, container: type) -> dict[str, Any]:
    """Return the device entries whose values have the right type; the platform ignores others but requires at least one."""
    if not isinstance(document, dict):
        raise GatewayFormError("a gateway payload must be an object")
    entries = {name: value for name, value in document.items() if isinstance(value, container)}
    if not entries:
        raise GatewayFormError("a gateway payload without a valid device entry")
    if "" in entries:
        raise GatewayFormError("an empty device name")
    return entries


def required(document: Any, key: str, *kinds: type) -> Any:
    """Return a required field of a gateway message. Without `kinds` any JSON value is accepted."""
    if not isinstance(document, dict) or key not in document:
        raise GatewayFormError(f"{key!r} is missing")
    value = document[key]
    # In Python bool is a subclass of int, but JSON distinguishes the two.
    if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        raise GatewayFormError(f"{key!r} has the wrong type")
    return value


def device_name(document: Any) -> str:
    """Return the field `device` of a gateway message."""
    name: str = required(document, "device", str)
    if not name:
        raise GatewayFormError("an empty device name")
    return name


def request_id(text: str) -> int:
    """Parse the request id, an int32, at the end of a topic."""
    return int32(text, "request id")


def int32(text: str, name: str) -> int:
    """Parse an int32. Raise `UnexpectedPayloadError` if the text is not one."""
    if not _INTEGER.fullmatch(text) or not -(2**31) <= (number := int(text)) < 2**31:
        raise UnexpectedPayloadError(f"{text!r} is not a valid {name}")
    return number


def _key_list(document: dict[str, Any], name: str) -> list[str] | None:
    if name not in document:
        return None
    value = document[name]
    if value is None or isinstance(value, (dict, list)):
        raise BadPayloadError(f"{name!r} must be a string of keys")
    text = _as_string(value)
    keys = text.split(",")
    # As in Java, trailing empty strings are omitted, but "" is one empty key.
    while text and keys and not keys[-1]:
        keys.pop()
    return keys


def _as_string(value: Any) -> str:
    """Return the JSON text of a scalar, without quotes if it is a string."""
    return value if isinstance(value, str) else json.dumps(value)


def _record(element: Any, now: int) -> Record:
    if not isinstance(element, dict):
        raise BadPayloadError("telemetry must consist of objects")
    # "ts" and "values" have a meaning only together; alone each is an ordinary key.
    if "ts" not in element or "values" not in element:
        return now, element
    values = element["values"]
    if not isinstance(values, dict):
        raise BadPayloadError("'values' must be an object")
    ts = element["ts"]
    return (ts if type(ts) is int else _whole_number("ts", ts)), values


def _whole_number(name: str, value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and isfinite(value):
        return int(value)
    raise UnexpectedPayloadError(f"{name} {value!r} is not a number")


def _without_metadata(elements: list[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    rest, found = [], []
    for element in elements:
        if isinstance(element, dict) and "metadata" in element:
            metadata = element["metadata"]
            if not isinstance(metadata, dict) or not all(isinstance(metadata.get(k), kind) for k, kind in _METADATA.items()):
                raise BadPayloadError("'metadata' needs connector, receivedTs and publishedTs")
            found.append(metadata)
            rest.append({key: value for key, value in element.items() if key != "metadata"})
        else:
            rest.append(element)
    return rest, found
