"""Stored values: the type and value that the platform stores for a value in a payload (docs/platform_contract.md, section 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum, auto
from functools import lru_cache
from typing import Any, Final, NamedTuple

from tb_mqtt_client.emulator.lenient_json import Number

_MOST_DECIMAL_PLACES: Final = 16
_INT64: Final = range(-(2**63), 2**63)
_LONGEST_KEY: Final = 255
_FIRST_LOST_TS: Final = 253_402_300_800_000
# The platform's XSS check refuses the beginning of a tag, templates and control characters.
_XSS: Final = re.compile(r"<\s*[A-Za-z]|\{\{.*\}\}|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", re.DOTALL)
# A number with more digits keeps its text.
_MOST_DIGITS: Final = 10_000

# NumberUtils.isParsable of commons-lang: an optional minus sign, no exponent, no decimal point at the end.
_PARSABLE: Final = re.compile(r"-?(\d+|\d*\.\d+)")


class ValueKind(StrEnum):
    """The type of a stored value. A DROPPED value is not stored, although its message was acknowledged."""

    @staticmethod
    def _generate_next_value_(name: str, *_: object) -> str:
        return name

    LONG = auto()
    DOUBLE = auto()
    BOOLEAN = auto()
    STRING = auto()
    JSON = auto()
    DROPPED = auto()


class StoredValue(NamedTuple):
    """A value as the platform stores and returns it."""

    kind: ValueKind
    value: Any


class StoredDatapoint(NamedTuple):
    """A telemetry value as the platform stores it; `ts` is in milliseconds."""

    ts: int
    key: str
    kind: ValueKind
    value: Any


_DROPPED: Final = StoredValue(ValueKind.DROPPED, None)


def stored(value: Any) -> StoredValue:
    """Return the value that the platform stores for a parsed JSON value."""
    if value is None:
        return _DROPPED
    if isinstance(value, bool):
        return StoredValue(ValueKind.BOOLEAN, value)
    if isinstance(value, str):
        # By default the platform converts strings that look like numbers.
        return _number(value) if _PARSABLE.fullmatch(value) else StoredValue(ValueKind.STRING, value.replace("\0", ""))
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _number(value.text if isinstance(value, Number) else repr(value))
    return StoredValue(ValueKind.JSON, value)


def keys_are_valid(keys: Iterable[str]) -> bool:
    """Return True if all keys are valid; if one is not, the platform acknowledges the message and drops all of its values."""
    return all(name_is_valid(key) for key in keys)


@lru_cache(maxsize=50_000)
def name_is_valid(name: str) -> bool:
    """Return True if a key, or the name of a device or profile, is valid on the platform.

    It must not be blank, exceed 255 UTF-16 code units, look like markup or a template, or contain control characters.
    """
    return bool(name.strip()) and len(name.encode("utf-16-le", "surrogatepass")) <= 2 * _LONGEST_KEY and not _XSS.search(name)


def ts_is_stored(ts: int) -> bool:
    """Return True if the platform stores telemetry with this timestamp; from the year 10000 on it acknowledges and drops it."""
    return ts < _FIRST_LOST_TS


def _number(text: str) -> StoredValue:
    number = Decimal(text)
    if not number.is_finite() or number.adjusted() > _MOST_DIGITS:
        return StoredValue(ValueKind.STRING, text)
    has_exponent = "e" in text.lower()
    if number == number.to_integral_value() and ("." not in text or has_exponent):
        return _integer(int(number))
    if _decimal_places(number) > _MOST_DECIMAL_PLACES:
        return StoredValue(ValueKind.STRING, f"{number:f}")
    # Adding 0.0 removes the sign of a negative zero, which the platform does not store.
    double = float(number) + 0.0
    if abs(double) >= _INT64.stop:
        # The platform writes such a number with an exponent and reads it back as an integer that exceeds 64 bits.
        return StoredValue(ValueKind.STRING, f"{Decimal(repr(double)):f}")
    return StoredValue(ValueKind.DOUBLE, double)


def _decimal_places(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return -exponent


def _integer(number: int) -> StoredValue:
    if number in _INT64:
        return StoredValue(ValueKind.LONG, number)
    return StoredValue(ValueKind.STRING, f"{Decimal(number):f}")
