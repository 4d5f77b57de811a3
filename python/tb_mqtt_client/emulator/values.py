"""What the platform would make of a value when it stores it (docs/platform_contract.md, section 3)."""

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
# What the platform's check against scripts refuses: the beginning of a tag, a template, control characters.
_XSS: Final = re.compile(r"<\s*[A-Za-z]|\{\{.*\}\}|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", re.DOTALL)
# Beyond this the digits are not written out.
_MOST_DIGITS: Final = 10_000

# What commons-lang calls parsable: no sign but a minus, no exponent, no point at the end.
_PARSABLE: Final = re.compile(r"-?(\d+|\d*\.\d+)")


class ValueKind(StrEnum):
    """The column that a value ends in. DROPPED: it is not stored, although its message was acknowledged."""

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
    """A value as it is stored, and read back."""

    kind: ValueKind
    value: Any


class StoredDatapoint(NamedTuple):
    """One value of telemetry as it is stored; `ts` in milliseconds."""

    ts: int
    key: str
    kind: ValueKind
    value: Any


_DROPPED: Final = StoredValue(ValueKind.DROPPED, None)


def stored(value: Any) -> StoredValue:
    """Judge one value of a payload."""
    if value is None:
        return _DROPPED
    if isinstance(value, bool):
        return StoredValue(ValueKind.BOOLEAN, value)
    if isinstance(value, str):
        # The type cast, on by default: a string that looks like a number becomes one.
        return _number(value) if _PARSABLE.fullmatch(value) else StoredValue(ValueKind.STRING, value.replace("\0", ""))
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _number(value.text if isinstance(value, Number) else repr(value))
    return StoredValue(ValueKind.JSON, value)


def keys_are_valid(keys: Iterable[str]) -> bool:
    """Return whether the platform takes all of these keys: one bad key loses all that was sent with it, after the PUBACK."""
    return all(name_is_valid(key) for key in keys)


@lru_cache(maxsize=50_000)
def name_is_valid(name: str) -> bool:
    """Return whether the platform takes a key, or the name of a device or profile.

    It must not be blank, longer than 255 units of UTF-16, or look like markup, a template or control characters.
    """
    return bool(name.strip()) and len(name.encode("utf-16-le", "surrogatepass")) <= 2 * _LONGEST_KEY and not _XSS.search(name)


def ts_is_stored(ts: int) -> bool:
    """Return whether the platform stores telemetry of this time; from the year 10000 on it does not, and acknowledges it."""
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
    # The platform has no negative zero.
    double = float(number) + 0.0
    if abs(double) >= _INT64.stop:
        # Its text has an exponent then, and is read again as an integer that does not fit.
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
