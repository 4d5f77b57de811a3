"""What a line of input says: NDJSON, CSV, or ``key=value`` of the command line. Nothing here reads or sends.

The rule: every line becomes records or a ``BadLine`` that names it; none is left out in silence, but for blank ones.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any


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
    """A line that is no record."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a line are no values."""

    device: str | None = None
    """The field that names the sub-device; ``None`` when all is the connected device's own."""
    ts: str = "ts"
    """The field with the time."""
    timeless: bool = False
    """Attributes: a record with a time is a mistake."""


class _BadRecordError(ValueError):
    """The text says why."""


def from_ndjson(lines: Iterable[tuple[int, bytes]], fields: Fields) -> Iterator[Record | BadLine]:
    """Records from lines that are one JSON object each.

    ``{"temperature": 21.5}``, ``{"ts": 1700000000000, "temperature": 21.5}`` or
    ``{"ts": 1700000000000, "values": {"temperature": 21.5}}``, and the device's name beside ``ts``.
    """
    for number, line in lines:
        if line.strip():
            try:
                yield _record(number, _json_object(line), fields)
            except _BadRecordError as error:
                yield BadLine(number, str(error))


def from_csv(lines: Iterable[tuple[int, bytes]], fields: Fields, delimiter: str = ",") -> Iterator[Record | BadLine]:
    """Records from rows below a header. Cells are JSON where they can be, else text; an empty cell is no value.

    Raises ``ValueError`` for a header that is not usable.
    """
    begin = current = 0

    def decoded() -> Iterator[str]:
        nonlocal begin, current
        for current, line in lines:  # read below: where the reader stands
            begin = begin or current
            # What is not UTF-8 comes out as surrogates, which no value can be.
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
        # A cell in quotes may have newlines; a quote that nobody closes takes the lines that follow into its cell.
        goes_on = f" (the row goes on to line {current})" if current > begin else ""
        if isinstance(row, csv.Error):
            yield BadLine(begin, f"{row}{goes_on}")
        elif row:
            try:
                yield _record(begin, _cells(header, row, fields), fields)
            except _BadRecordError as error:
                yield BadLine(begin, f"{error}{goes_on}")
        begin = 0


def from_arguments(arguments: Iterable[str]) -> dict[str, Any]:
    """Values from ``key=value``: the value is JSON if it can be, else text. Raises ``ValueError`` that names the argument."""
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
    """``21.5``, ``true``, ``null``, ``[1]`` and ``"7"`` as JSON has them, everything else as the text that it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def parse_ts(value: Any) -> int:
    """Milliseconds since the epoch, from a number of them or from ISO 8601 with an offset. Raises ``ValueError``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        return int(value)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return round(moment.timestamp() * 1000)
        if moment is not None:
            raise ValueError(f"{value!r} has no offset from UTC, such as Z or +02:00")
    raise ValueError(f"{value!r} is no time: milliseconds since the epoch, or ISO 8601 such as 2026-01-31T12:00:00Z")


def _record(line: int, content: dict[str, Any], fields: Fields) -> Record:
    content = dict(content)
    device = None
    if fields.device is not None:
        device = content.pop(fields.device, None)
        if not isinstance(device, str) or not device:
            found = "is missing" if device is None else f"must be a name, not {device!r}"
            raise _BadRecordError(f"the field {fields.device!r}, which names the device, {found}")
    ts = None
    if (given := content.pop(fields.ts, None)) is not None:
        if fields.timeless:
            raise _BadRecordError(f"the field {fields.ts!r}: attributes have no time")
        try:
            ts = parse_ts(given)
        except ValueError as error:
            raise _BadRecordError(f"the field {fields.ts!r}: {error}") from None
    if content.keys() == {"values"} and isinstance(content["values"], dict):
        content = content["values"]
    if not content:
        raise _BadRecordError("there is no value in it")
    return Record(line, device, ts, content)


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except UnicodeDecodeError:
        raise _BadRecordError("it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _BadRecordError(f"it is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise _BadRecordError(f"it is JSON, but no object: {type(content).__name__}")
    return content


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str] | csv.Error]:
    """Rows, and errors in their places: a reader goes on after one."""
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
    if fields.device is not None and fields.device not in header:
        raise ValueError(f"the header has no column {fields.device!r}, which names the device")


def _cells(header: list[str], row: list[str], fields: Fields) -> dict[str, Any]:
    if len(row) != len(header):
        raise _BadRecordError(f"it has {len(row)} cells, and the header has {len(header)}")
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        raise _BadRecordError("it is not UTF-8") from None
    as_text = {fields.device, fields.ts}
    cells = zip(header, row, strict=True)
    return {name: cell if name in as_text else typed(cell) for name, cell in cells if cell.strip()}
