"""Times of records: units, ISO 8601, and the field that contains the time. This module does not read input or send."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

DEFAULT_FIELD = "ts"
GUESSED_FIELDS = ("timestamp", "time", "datetime", "date")
"""Fields that may contain the time if there is no ``ts``, the most likely one first."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLAUSIBLE = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
"""A number is guessed to be a time only within these years. No number is within them in two different units."""
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
_TIME_OF_DAY = re.compile(r"[0-9][T ][0-9]")


class Unit(StrEnum):
    """The unit of a time that is a number since the epoch."""

    MILLISECONDS = "ms"
    SECONDS = "s"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"

    @property
    def words(self) -> str:
        """Return the English name of the unit, in the plural."""
        return self.name.lower()

    @property
    def milliseconds(self) -> Decimal:
        """Return the length of the unit in milliseconds."""
        return _MILLISECONDS[self]


_MILLISECONDS = {
    Unit.MILLISECONDS: Decimal(1),
    Unit.SECONDS: Decimal(1000),
    Unit.MICROSECONDS: Decimal("0.001"),
    Unit.NANOSECONDS: Decimal("0.000001"),
}
# In milliseconds, these numbers would be times from 1970 to 1973 or after the year 5138, so another unit is far more likely.
_MISTAKEN = (
    (Unit.SECONDS, Decimal(10) ** 8, Decimal(10) ** 11),
    (Unit.MICROSECONDS, Decimal(10) ** 14, Decimal(10) ** 17),
    (Unit.NANOSECONDS, Decimal(10) ** 17, Decimal("Infinity")),
)


@dataclass(frozen=True, slots=True)
class Guess:
    """A field that contains the time although it is not called ``ts``."""

    field: str
    unit: Unit | None
    """The unit of a number; ``None`` for ISO 8601."""

    @property
    def notation(self) -> str:
        """Return the notation of the times, as a phrase for messages."""
        return "as ISO 8601" if self.unit is None else f"in {self.unit.words} since the epoch"


def parse_ts(value: Any, unit: Unit | None = None) -> int:
    """Return a time in milliseconds since the epoch.

    Args:
        value: A number, a text that is a number, or ISO 8601 with an offset from UTC.
        unit: The unit of a number. ``None``: milliseconds, and a number that looks like another unit is refused.

    Raises:
        ValueError: If the value is not a time, or looks like a time in another unit.
    """
    number = _number(value)
    if number is not None:
        return _from_number(value, number, unit)
    if isinstance(value, str):
        moment = _moment(value)
        if moment is not None and moment.tzinfo is not None:
            return _milliseconds(moment)
        if moment is not None:
            raise ValueError(f"{value!r} has no offset from UTC, such as Z or +02:00")
    raise ValueError(f"{value!r} is not a valid time: give milliseconds since the epoch, or ISO 8601 such as 2026-01-31T12:00:00Z")


def candidates_for_time(content: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record that have a name in ``GUESSED_FIELDS``, in any case, the most likely one first."""
    names = {name.lower(): name for name in reversed(content) if content[name] is not None}
    return {names[name]: content[names[name]] for name in GUESSED_FIELDS if name in names}


def guess(candidates: dict[str, Any]) -> Guess | None:
    """Return the first of these fields whose value is certainly a time, or ``None``."""
    for name, value in candidates.items():
        if (number := _number(value)) is not None:
            for unit in Unit:
                if _is_plausible(number * unit.milliseconds):
                    return Guess(name, unit)
        # A date without a time of day is more likely a value. A time without an offset from UTC is a time, so that parsing it
        # reports the missing offset.
        elif isinstance(value, str) and _TIME_OF_DAY.search(value) and _moment(value) is not None:
            return Guess(name, None)
    return None


def _number(value: Any) -> Decimal | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = Decimal(str(value))
        return number if number.is_finite() else None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return Decimal(value.strip())
    return None


def _from_number(value: Any, number: Decimal, unit: Unit | None) -> int:
    if unit is None:
        for other, low, high in _MISTAKEN:
            if low <= number < high:
                raise ValueError(
                    f"{value!r} looks like {other.words}, not milliseconds; --ts-unit {other} converts it, "
                    f"--ts-unit {Unit.MILLISECONDS} sends it unchanged"
                )
    if unit in {None, Unit.MILLISECONDS} and number != number.to_integral_value():
        raise ValueError(f"{value!r} is not a whole number of milliseconds")
    return int((number * (unit or Unit.MILLISECONDS).milliseconds).to_integral_value())


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return None


def _milliseconds(moment: datetime) -> int:
    return round((moment - _EPOCH) / timedelta(milliseconds=1))


def _is_plausible(milliseconds: Decimal) -> bool:
    low, high = (_milliseconds(moment) for moment in _PLAUSIBLE)
    return low <= milliseconds < high
