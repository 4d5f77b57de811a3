"""Parse input: lines of NDJSON or CSV, and ``key=value`` from the command line. This module does not read files or send.

Every line except a blank one becomes a ``Record``, or a ``BadLine`` with its number.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tb_mqtt_client.cli.details import FIELDS, METADATA, NO_DETAILS, Details, read_details
from tb_mqtt_client.cli.times import DEFAULT_FIELD, Guess, Unit, candidates_for_time, guess, parse_ts


@dataclass(frozen=True, slots=True)
class Record:
    """The values of one line."""

    line: int
    device: str | None
    """The name of the sub-device; ``None`` for the connected device."""
    ts: int | None
    """Milliseconds since the epoch; ``None`` if the line has no time."""
    values: dict[str, Any]
    details: Details = NO_DETAILS


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not a record, and the reason."""

    line: int
    reason: str


Parsed = Record | BadLine | Guess
"""An item of parsed input, in the order of the input. A ``Guess`` occurs at most once, before the record that it is based on."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a record that are not values, and how to read them."""

    device: str | None = None
    """The field that names the sub-device; ``None`` if all values belong to the connected device."""
    ts: str | None = None
    """The field with the time. ``None``: ``ts``, or the field that ``guess_ts`` finds."""
    ts_unit: Unit | None = None
    """The unit of times that are numbers. ``None``: milliseconds, and a number that looks like another unit is refused."""
    guess_ts: bool = False
    """Whether to look for the time in other fields if the first record has no ``ts``."""
    timeless: bool = False
    """Whether a record with a time is an error, as for attributes."""


class _BadRecordError(ValueError):
    """A line is not a record; the message is the reason."""


class _TimeExtractor:
    """Removes the times from the records of one input, and guesses which field contains them."""

    def __init__(self, fields: Fields) -> None:
        self._field = fields.ts or DEFAULT_FIELD
        self._unit = fields.ts_unit
        self._timeless = fields.timeless
        self._guessing = fields.guess_ts and fields.ts is None and not fields.timeless
        self._guess: Guess | None = None
        self._unreported: list[Guess] = []

    def new_guesses(self) -> list[Guess]:
        """Return the guess after the record that it is based on, and an empty list at all other times."""
        new, self._unreported = self._unreported, []
        return new

    def extract(self, content: dict[str, Any]) -> int | None:
        """Remove the time from the fields of a record, and return it.

        Returns:
            Milliseconds since the epoch, or ``None`` if the record has no time.

        Raises:
            _BadRecordError: If the time cannot be read, or if the records must not have one.
        """
        name, unit, advice = self._field, self._unit, ""
        if content.get(name) is None:
            if self._guessing:
                self._guess_from(content)
            if self._guess is not None:
                name, unit, advice = self._guess.field, unit or self._guess.unit, "; --no-guess-ts sends this field as a value"
        if (given := content.pop(name, None)) is None:
            return None
        # An input has one field for the time, so no other field is guessed after it was found.
        self._guessing = False
        if self._timeless:
            raise _BadRecordError(f"the field {name!r}: attributes have no time")
        try:
            return parse_ts(given, unit)
        except ValueError as error:
            raise _BadRecordError(f"the field {name!r}: {error}{advice}") from None

    def _guess_from(self, content: dict[str, Any]) -> None:
        # The only field of a record is a value, because the record would be empty without it.
        if len(content) > 1 and (candidates := candidates_for_time(content)):
            # The first record with a candidate decides, so that a field is a value in all records or in none.
            self._guessing = False
            if (found := guess(candidates)) is not None:
                self._guess = found
                self._unreported.append(found)


def from_ndjson(lines: Iterable[tuple[int, bytes]], fields: Fields) -> Iterator[Parsed]:
    """Parse lines that contain one JSON object each.

    The forms are ``{"temperature": 21.5}``, ``{"ts": 1700000000000, "temperature": 21.5}`` and
    ``{"ts": 1700000000000, "values": {"temperature": 21.5}}``. The name of a sub-device is a field next to ``ts``. Next to
    ``values``, the fields of `Details` are read, too.

    Args:
        lines: The lines and their numbers.
        fields: The fields that are not values.
    """
    times = _TimeExtractor(fields)
    for number, line in lines:
        if line.strip():
            try:
                item: Record | BadLine = _record(number, _json_object(line), fields, times)
            except _BadRecordError as error:
                item = BadLine(number, str(error))
            yield from times.new_guesses()
            yield item


def from_csv(lines: Iterable[tuple[int, bytes]], fields: Fields, delimiter: str = ",") -> Iterator[Parsed]:
    """Parse CSV rows below a header. A cell is JSON if it can be, else text; an empty cell is not a value.

    Args:
        lines: The lines and their numbers.
        fields: The columns that are not values.
        delimiter: The character between cells.

    Raises:
        ValueError: If the header is not usable.
    """
    begin = current = 0
    times = _TimeExtractor(fields)

    def decoded() -> Iterator[str]:
        nonlocal begin, current
        for current, line in lines:  # used below as the line that the reader has reached
            begin = begin or current
            # Bytes that are not UTF-8 become surrogates, which are refused in values.
            yield line.decode("utf-8-sig" if current == 1 else "utf-8", "surrogateescape")

    rows = _rows(csv.reader(decoded(), delimiter=delimiter, strict=True))
    header = next(rows, None)
    if header is None:
        return
    if isinstance(header, csv.Error):
        raise ValueError(f"line {current}: {header}") from header  # noqa: TRY004  # the type is right, the header is not
    header = [name.strip() for name in header]
    _check_header(header, fields)
    begin = 0
    for row in rows:
        # A quoted cell may contain newlines. After a quote that is never closed, all following lines belong to the cell.
        extent = f" (the row ends in line {current})" if current > begin else ""
        if isinstance(row, csv.Error):
            yield BadLine(begin, f"{row}{extent}")
        elif row:
            try:
                item: Record | BadLine = _record(begin, _cells(header, row, fields), fields, times)
            except _BadRecordError as error:
                item = BadLine(begin, f"{error}{extent}")
            yield from times.new_guesses()
            yield item
        begin = 0


def from_arguments(arguments: Iterable[str]) -> dict[str, Any]:
    """Return the values of ``key=value`` arguments. A value that is valid JSON is read as JSON, any other as text.

    Raises:
        ValueError: If an argument is not ``key=value`` or repeats a key.
    """
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
    """Return the value of a text that is JSON, such as ``21.5``, ``null`` or ``"7"``, and any other text unchanged."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _record(line: int, content: dict[str, Any], fields: Fields, times: _TimeExtractor) -> Record:
    content = dict(content)
    device = None
    if fields.device is not None:
        device = content.pop(fields.device, None)
        if not isinstance(device, str) or not device:
            found = "is missing" if device is None else f"must be a name, not {device!r}"
            raise _BadRecordError(f"the field {fields.device!r} with the device's name {found}")
    ts = times.extract(content)
    details = NO_DETAILS
    if isinstance(content.get("values"), dict) and content.keys() - FIELDS == {"values"}:
        values = content.pop("values")
        details = _details(content, fields, device)
        content = values
    if not content:
        raise _BadRecordError("it has no values")
    return Record(line, device, ts, content, details)


def _details(content: dict[str, Any], fields: Fields, device: str | None) -> Details:
    if METADATA in content and fields.timeless:
        raise _BadRecordError(f"the field {METADATA!r}: attributes have no metadata")
    try:
        return read_details(content, has_device=device is not None)
    except ValueError as error:
        raise _BadRecordError(str(error)) from None


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
    """Yield the rows, with an error in place of each row that cannot be parsed; the reader continues after an error."""
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
