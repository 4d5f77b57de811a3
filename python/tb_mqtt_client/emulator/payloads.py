"""Reads JSON payloads the way the platform does (docs/platform_contract.md, sections 3 and 4). Values in, values out.

Values stay what the client sent; what the platform would store is for `values` to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias

from tb_mqtt_client.emulator import lenient_json
from tb_mqtt_client.emulator.devices import Claim, Record

try:
    import orjson
except ImportError:  # the emulator only gets slower without it
    _fast_loads = None
else:
    _fast_loads = orjson.loads

# Key lists of an attribute request: client scope, shared scope; None where the request has none.
AttributeKeys: TypeAlias = tuple[list[str] | None, list[str] | None]

_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
# What the fast parser would round, or whose text decides how it is stored: integers that may not fit 64 bits, decimals of more
# than 16 places, and exponents, with which Python too writes a number of 17 digits.
_KINDS_OF_BYTES: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x65 if byte in b"eE" else 0x20 for byte in range(256))
_MANY_DIGITS: Final = b"0" * 17
_EXPONENT: Final = b"0e"
_METADATA: Final = {"connector": str, "receivedTs": int, "publishedTs": int}


class GatewayAttributeRequest(NamedTuple):
    """One scope of one device's attributes."""

    id: int
    device: str
    client_scope: bool
    keys: list[str]


class BadPayloadError(Exception):
    """Not JSON, or JSON of a form that the platform refuses with 0x99."""


class UnexpectedPayloadError(Exception):
    """A form that escapes the platform as an exception: DISCONNECT 0x8B and no PUBACK (docs/platform_contract.md, section 8)."""


class GatewayFormError(Exception):
    """A gateway message without what it must have: PUBACK 0x83 and DISCONNECT 0x83 (docs/platform_contract.md, section 4)."""


def decode_json(payload: bytes, *, exact: bool = True) -> Any:
    """Parse a payload as the platform does. `exact=False` may lose the text of numbers, which is enough for counting."""
    if _fast_loads is not None and not (exact and _needs_care(payload)):
        # What the strict parser refuses the lenient one may take.
        with suppress(ValueError):
            return _fast_loads(payload)
    try:
        return lenient_json.loads(payload.decode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise BadPayloadError(str(error)) from error


def _needs_care(payload: bytes) -> bool:
    # Two plain searches in a translation cost a fraction of a regular expression.
    kinds = payload.translate(_KINDS_OF_BYTES)
    return _MANY_DIGITS in kinds or _EXPONENT in kinds


def encode_json(document: Any) -> bytes:
    """Compact JSON, as the platform sends it. Raises `TypeError` for what JSON cannot carry."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def telemetry_records(document: Any, now: int) -> list[Record]:
    """Records of `{k: v}`, `{"ts", "values"}` or a list of either; a record without ts gets `now`."""
    if isinstance(document, list):
        return [_record(element, now) for element in document]
    return [_record(document, now)]


def gateway_telemetry(elements: list[Any], now: int, reads_metadata: bool) -> tuple[list[Record], list[dict[str, Any]]]:
    """Records of one device's list in v1/gateway/telemetry, and the `metadata` that was beside them.

    A server that does not read `metadata` takes it for a key like any other.
    """
    metadata: list[dict[str, Any]] = []
    if reads_metadata and any("metadata" in element for element in elements if isinstance(element, dict)):
        elements, metadata = _without_metadata(elements)
    try:
        return [_record(element, now) for element in elements], metadata
    except UnexpectedPayloadError as error:
        # One device's failure is caught on a gateway topic and becomes a PUBACK (docs/platform_contract.md, section 4).
        raise BadPayloadError(str(error)) from error


def attributes(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise BadPayloadError("attributes must be an object")
    return document


def attribute_keys(document: Any) -> AttributeKeys:
    """Read `{"clientKeys": "a,b", "sharedKeys": "c"}`; both None or without a key asks for everything (docs/platform_contract.md,
    section 2).
    """
    if not isinstance(document, dict):
        raise BadPayloadError("an attribute request must be an object")
    return _key_list(document, "clientKeys"), _key_list(document, "sharedKeys")


def rpc_request(document: Any) -> tuple[str, Any]:
    """Return method and params of a client-side RPC; further fields are ignored."""
    if not isinstance(document, dict):
        raise BadPayloadError("an RPC request must be an object")
    method = document.get("method")
    if method is None or isinstance(method, (dict, list)):
        raise UnexpectedPayloadError("'method' is missing")
    return _as_string(method), document.get("params")


def claim(document: Any) -> Claim:
    """Read `{"secretKey", "durationMs"}`, both optional."""
    if not isinstance(document, dict):
        raise BadPayloadError("a claim must be an object")
    given = Claim()
    secret_key = document.get("secretKey", given.secret_key)
    if not isinstance(secret_key, str):
        raise BadPayloadError("'secretKey' must be a string")
    return Claim(secret_key, _whole_number("durationMs", document.get("durationMs", given.duration_ms)))


def gateway_attribute_request(document: Any) -> GatewayAttributeRequest:
    """Read the one form that the platform takes: `id`, `device`, `client`, and `key` or `keys` (docs/platform_contract.md,
    section 4).
    """
    identifier, device = required(document, "id", int), device_name(document)
    client_scope = required(document, "client", bool)
    keys = [required(document, "key", str)] if "key" in document else required(document, "keys", list)
    if not all(isinstance(key, str) for key in keys):
        raise GatewayFormError("'keys' must be strings")
    return GatewayAttributeRequest(identifier, device, client_scope, keys)


def gateway_rpc_response(document: Any) -> tuple[str, int, bytes]:
    """Return device, id and the JSON of `data`."""
    return device_name(document), required(document, "id", int), encode_json(required(document, "data"))


def count_datapoints(records: Iterable[Record]) -> int:
    """Non-null keys, as the platform counts them for its limits."""
    return sum(count_values(values) for _, values in records)


def count_values(values: dict[str, Any]) -> int:
    found = values.values()
    return len(values) - list(found).count(None) if None in found else len(values)


def check_string_lengths(values: dict[str, Any], longest: int) -> None:
    """Raises `BadPayloadError` for a string value of more characters."""
    for key, value in values.items():
        if isinstance(value, str) and len(value) > longest:
            raise BadPayloadError(f"the value of {key!r} is longer than {longest} characters")


def gateway_entries(document: Any, container: type) -> dict[str, Any]:
    """Return the device entries that have the right container; the platform skips the others and needs at least one."""
    if not isinstance(document, dict):
        raise GatewayFormError("a gateway payload must be an object")
    entries = {name: value for name, value in document.items() if isinstance(value, container)}
    if not entries:
        raise GatewayFormError("a gateway payload without a valid device entry")
    if "" in entries:
        raise GatewayFormError("an empty device name")
    return entries


def required(document: Any, key: str, *kinds: type) -> Any:
    """Return a field that a gateway message must have; without `kinds` it may be any JSON value."""
    if not isinstance(document, dict) or key not in document:
        raise GatewayFormError(f"{key!r} is missing")
    value = document[key]
    # bool is an int to Python, not to JSON
    if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        raise GatewayFormError(f"{key!r} has the wrong type")
    return value


def device_name(document: Any) -> str:
    name: str = required(document, "device", str)
    if not name:
        raise GatewayFormError("an empty device name")
    return name


def request_id(text: str) -> int:
    """Return the id at the end of a request's topic, an int32."""
    return int32(text, "request id")


def int32(text: str, name: str) -> int:
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
    # As Java splits: empty strings at the end are left out, but "" itself is one empty key.
    while text and keys and not keys[-1]:
        keys.pop()
    return keys


def _as_string(value: Any) -> str:
    """Any JSON scalar as the text that stands in the payload."""
    return value if isinstance(value, str) else json.dumps(value)


def _record(element: Any, now: int) -> Record:
    if not isinstance(element, dict):
        raise BadPayloadError("telemetry must consist of objects")
    # Only both together are special; alone each is an ordinary key.
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
