"""Reads JSON payloads the way the platform does (contract sections 3 and 4). Values in, values out.

Values stay what the client sent. The platform's casts when it stores them (a numeric string becomes a number, a decimal of
more than 16 places a string) are not applied: a test asks what arrived. The parser is strict, the platform's lenient one
(single quotes, comments, NaN) is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

try:
    import orjson
except ImportError:  # the emulator only gets slower without it
    _fast_loads = None
else:
    _fast_loads = orjson.loads

# One timestamp of telemetry: (milliseconds, {key: value}); nulls are still in it.
Record: TypeAlias = tuple[int, dict[str, Any]]

# orjson turns an integer that fits neither int64 nor uint64 into a float. From 19 digits on that may happen.
_LONG_DIGITS: Final = re.compile(rb"[0-9]{19}")
_METADATA: Final = {"connector": str, "receivedTs": int, "publishedTs": int}


class BadPayloadError(Exception):
    """Not JSON, or JSON of a form that the platform refuses with 0x99."""


class UnexpectedPayloadError(Exception):
    """A form that escapes the platform as an exception: DISCONNECT 0x8B and no PUBACK (contract section 8)."""


class GatewayFormError(Exception):
    """A gateway message without what it must have: PUBACK 0x83 and DISCONNECT 0x83 (contract section 4)."""


def decode_json(payload: bytes, *, exact: bool = True) -> Any:
    """Parse a payload once. `exact=False` may round integers beyond 64 bits: enough for who only counts."""
    try:
        if _fast_loads is not None and not (exact and _LONG_DIGITS.search(payload)):
            return _fast_loads(payload)
        return json.loads(payload.decode())
    except (ValueError, RecursionError) as error:
        raise BadPayloadError(str(error)) from error


def telemetry_records(document: Any, now: int) -> list[Record]:
    """Records of `{k: v}`, `{"ts", "values"}` or a list of either; a record without ts gets `now`."""
    if isinstance(document, list):
        return [_record(element, now) for element in document]
    return [_record(document, now)]


def gateway_telemetry_records(elements: list[Any], now: int) -> list[Record]:
    """Records of one device's list in v1/gateway/telemetry, `metadata` checked and removed."""
    try:
        return [_record(_without_metadata(element), now) for element in elements]
    except UnexpectedPayloadError as error:
        # One device's failure is caught on a gateway topic and becomes a PUBACK (contract section 4).
        raise BadPayloadError(str(error)) from error


def attributes(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise BadPayloadError("attributes must be an object")
    return document


def count_datapoints(records: Iterable[Record]) -> int:
    """Non-null keys, as the platform counts them for its limits."""
    return sum(count_values(values) for _, values in records)


def count_values(values: dict[str, Any]) -> int:
    found = values.values()
    return len(values) - list(found).count(None) if None in found else len(values)


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
    try:
        number = int(text)
    except ValueError as error:
        raise UnexpectedPayloadError(f"{text!r} is no request id") from error
    if not -(2**31) <= number < 2**31:
        raise UnexpectedPayloadError(f"the request id {text} is no int32")
    return number


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
    return (ts if type(ts) is int else _timestamp(ts)), values


def _timestamp(ts: Any) -> int:
    if isinstance(ts, (str, float)):
        try:
            return int(ts)
        except ValueError as error:
            raise UnexpectedPayloadError(f"ts {ts!r} is no number") from error
    raise UnexpectedPayloadError(f"ts {ts!r} is no number")


def _without_metadata(element: Any) -> Any:
    if not isinstance(element, dict) or "metadata" not in element:
        return element
    metadata = element["metadata"]
    if not isinstance(metadata, dict) or not all(isinstance(metadata.get(k), kind) for k, kind in _METADATA.items()):
        raise BadPayloadError("'metadata' needs connector, receivedTs and publishedTs")
    return {key: value for key, value in element.items() if key != "metadata"}
