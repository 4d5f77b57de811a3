"""Parse lines of input: NDJSON, CSV, or ``key=value`` from the command line. Nothing here reads files or sends.

Every line except a blank one becomes a ``Record``, or a ``BadLine`` that names it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tb_mqtt_client.cli.times import DEFAULT_FIELD, Guess, Unit, candidates_for_time, guess, parse_ts


@dataclass(frozen=True, slots=True)
class Record:
    """The values of one line."""

    line: int
    device: str | None
    """The sub-device, when the fields name one."""
    ts: int | None
    """Milliseconds since the epoch; ``None``: none was given."""
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not a record."""

    line: int
    reason: str


Parsed = Record | BadLine | Guess
"""The items of parsed input, in its order. A guess comes once, before the record that decided it."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a line are not values."""

    device: str | None = None
    """The field that names the sub-device; ``None`` when all values are the connected device's own."""
    ts: str | None = None
    """The field with the time. ``None``: ``ts``, or the one that ``guess_ts`` finds."""
    ts_unit: Unit | None = None
    """The unit of times that are numbers. ``None``: milliseconds, and what looks like another unit is refused."""
    guess_ts: bool = False
    """Look for the time in other fields when the first record has no ``ts``."""
    timeless: bool = False
    """Attributes: a record with a time is a mistake."""


class _BadRecordError(ValueError):
    """A line is not a record; the text says why."""


class _Times:
    """Takes the time out of the records of one input, and guesses in which field it is."""

    def __init__(self, fields: Fields) -> None:
        self._field = fields.ts or DEFAULT_FIELD
        self._unit = fields.ts_unit
        self._timeless = fields.timeless
        self._guessing = fields.guess_ts and fields.ts is None and not fields.timeless
        self._guess: Guess | None = None
        self._news: list[Guess] = []

    def news(self) -> list[Guess]:
        """Return the guess once, after the record that decided it."""
        news, self._news = self._news, []
        return news

    def take(self, content: dict[str, Any]) -> int | None:
        """Remove the time from a record's fields and return it in milliseconds. Raises ``_BadRecordError``."""
        name, unit, advice = self._field, self._unit, ""
        if content.get(name) is None:
            if self._guessing:
                self._look(content)
            if self._guess is not None:
                name, unit, advice = self._guess.field, unit or self._guess.unit, "; --no-guess-ts sends this field as a value"
        if (given := content.pop(name, None)) is None:
            return None
        # An input with a field for the time has no other.
        self._guessing = False
        if self._timeless:
            raise _BadRecordError(f"the field {name!r}: attributes have no time")
        try:
            return parse_ts(given, unit)
        except ValueError as error:
            raise _BadRecordError(f"the field {name!r}: {error}{advice}") from None

    def _look(self, content: dict[str, Any]) -> None:
        # A field that would leave the record empty is a value.
        if len(content) > 1 and (candidates := candidates_for_time(content)):
            # The first record that has a candidate decides: a field must not be a value here and a time further down.
            self._guessing = False
            if (found := guess(candidates)) is not None:
                self._guess = found
                self._news.append(found)


def from_ndjson(lines: Iterable[tuple[int, bytes]], fields: Fields) -> Iterator[Parsed]:
    """Parse lines that are one JSON object each.

    ``{"temperature": 21.5}``, ``{"ts": 1700000000000, "temperature": 21.5}`` or
    ``{"ts": 1700000000000, "values": {"temperature": 21.5}}``, and the device's name beside ``ts``.
    """
    times = _Times(fields)
    for number, line in lines:
        if line.strip():
            try:
                item: Record | BadLine = _record(number, _json_object(line), fields, times)
            except _BadRecordError as error:
                item = BadLine(number, str(error))
            yield from times.news()
            yield item


def from_csv(lines: Iterable[tuple[int, bytes]], fields: Fields, delimiter: str = ",") -> Iterator[Parsed]:
    """Parse rows below a header. Cells are JSON where they can be, else text; an empty cell is not a value.

    Raises:
        ValueError: If the header is not usable.
    """
    begin = current = 0
    times = _Times(fields)

    def decoded() -> Iterator[str]:
        nonlocal begin, current
        for current, line in lines:  # read below: where the reader stands
            begin = begin or current
            # Bytes that are not UTF-8 become surrogates, which are refused in values.
            yield line.decode("utf-8-sig" if current == 1 else "utf-8", "surrogateescape")

    rows = _rows(csv.reader(decoded(), delimiter=delimiter, strict=True))
    header = next(rows, None)
    if header is None:
        return
    if isinstance(header, csv.Error):
        raise ValueError(f"line {current}: {header}") from header  # noqa: TRY004  # it is the header that is wrong
    header = [name.strip() for name in header]
    _check_header(header, fields)
    begin = 0
    for row in rows:
        # A quoted cell may contain newlines; a quote that is never closed takes the following lines into its cell.
        goes_on = f" (the row goes on to line {current})" if current > begin else ""
        if isinstance(row, csv.Error):
            yield BadLine(begin, f"{row}{goes_on}")
        elif row:
            try:
                item: Record | BadLine = _record(begin, _cells(header, row, fields), fields, times)
            except _BadRecordError as error:
                item = BadLine(begin, f"{error}{goes_on}")
            yield from times.news()
            yield item
        begin = 0


def from_arguments(arguments: Iterable[str]) -> dict[str, Any]:
    """Return values from ``key=value``: each value is JSON if it can be, else text. Raises ``ValueError`` naming the argument."""
    values: dict[str, Any] = {}
    for argument in arguments:
        key, separator, text = argument.partition("=")
        if not separator or not key:
            raise ValueError(f"{argument!r} must be KEY=VALUE")
        if key in values:
            raise ValueError(f"the key {key!r} is given twice")
        values[key] = typed(text)
    return values


def typed(text: str) -> Any:
    """Return the value of JSON such as ``21.5``, ``true``, ``null``, ``[1]`` and ``"7"``, and any other text unchanged."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _record(line: int, content: dict[str, Any], fields: Fields, times: _Times) -> Record:
    content = dict(content)
    device = None
    if fields.device is not None:
        device = content.pop(fields.device, None)
        if not isinstance(device, str) or not device:
            found = "is missing" if device is None else f"must be a name, not {device!r}"
            raise _BadRecordError(f"the field {fields.device!r} with the device's name {found}")
    ts = times.take(content)
    if content.keys() == {"values"} and isinstance(content["values"], dict):
        content = content["values"]
    if not content:
        raise _BadRecordError("it has no values")
    return Record(line, device, ts, content)


_JSON_NAMES = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean", type(None): "null"}


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except UnicodeDecodeError:
        raise _BadRecordError("it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _BadRecordError(f"it is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise _BadRecordError(f"it is JSON, but not an object: {_JSON_NAMES[type(content)]}")
    return content


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str] | csv.Error]:
    """Yield rows, and errors in their places: a reader can go on after an error."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error


def _check_header(header: list[str], fields: Fields) -> None:
    if "" in header:
        raise ValueError(f"the header has no name for column {header.index('') + 1}")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise ValueError(f"the header has the column {twice[0]!r} twice")
    for name, purpose in ((fields.device, "the device"), (fields.ts, "the time")):
        if name is not None and name not in header:
            raise ValueError(f"the header has no column {name!r} for {purpose}; its columns: {', '.join(header)}")


def _cells(header: list[str], row: list[str], fields: Fields) -> dict[str, Any]:
    if len(row) != len(header):
        raise _BadRecordError(f"it has {len(row)} cells, and the header has {len(header)}")
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        raise _BadRecordError("it is not UTF-8") from None
    as_text = {fields.device, fields.ts or DEFAULT_FIELD}
    cells = zip(header, row, strict=True)
    return {name: cell if name in as_text else typed(cell) for name, cell in cells if cell.strip()}
