"""Parse InfluxDB's line protocol: ``measurement,tag=value field=1.5,other=2i 1700000000000000000``.

A field becomes the key ``measurement.field``. Tags say what a value belongs to, so their values become a part of the key, in the
order of the tags' names: ``cpu,core=0 usage=3`` is ``cpu.0.usage``. The tag that names a sub-device is not a part of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from tb_mqtt_client.cli.records import BadLine, Fields, Parsed, Record
from tb_mqtt_client.cli.times import Unit

_ESCAPED = re.compile(r"\\([,= \"\\])")
_INTEGER = re.compile(r"[+-]?[0-9]+[iu]")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TIME = re.compile(r"-?[0-9]{1,19}")
_BOOLEANS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(("f", "F", "false", "False", "FALSE"), False)


def from_line_protocol(lines: Iterable[tuple[int, bytes]], fields: Fields) -> Iterator[Parsed]:
    """Parse lines of the line protocol; comments (``#``) and blank lines are skipped.

    Args:
        lines: The lines and their numbers.
        fields: The tag with the sub-device's name, and the unit of times; ``None`` for nanoseconds, the default of the protocol.
    """
    for number, raw in lines:
        try:
            line = raw.decode().strip()
            if line and not line.startswith("#"):
                yield _record(number, line, fields)
        except UnicodeDecodeError:
            yield BadLine(number, "it is not UTF-8")
        except ValueError as error:
            yield BadLine(number, str(error))


def _record(number: int, line: str, fields: Fields) -> Record:
    parts = [part for part in _split(line, " ", quotes=True) if part]
    if len(parts) not in {2, 3}:
        raise ValueError(f"it has {len(parts)} parts, not a measurement with tags, fields and perhaps a time")
    measurement, *tags = _split(parts[0], ",")
    named = dict(_pair(tag) for tag in tags)
    device = named.pop(fields.device, None) if fields.device is not None else None
    if fields.device is not None and device is None:
        raise ValueError(f"the tag {fields.device!r} with the device's name is missing")
    prefix = ".".join([_plain(measurement), *(_plain(named[name]) for name in sorted(named))])
    values: dict[str, Any] = {}
    for field in _split(parts[1], ",", quotes=True):
        name, text = _pair(field)
        values[f"{prefix}.{_plain(name)}"] = _value(name, text)
    ts = _time(parts[2], fields) if len(parts) == 3 else None
    if fields.timeless and ts is not None:
        raise ValueError("it has a time: attributes have no time")
    return Record(number, None if device is None else _plain(device), ts, values)


def _split(text: str, separator: str, *, quotes: bool = False) -> list[str]:
    """Split at separators that are neither escaped nor within quotes."""
    found, start, is_quoted, is_escaped = [], 0, False, False
    for position, character in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif character == "\\":
            is_escaped = True
        elif quotes and character == '"':
            is_quoted = not is_quoted
        elif character == separator and not is_quoted:
            found.append(text[start:position])
            start = position + 1
    if is_quoted:
        raise ValueError("a text has no closing quote")
    return [*found, text[start:]]


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = next(iter(_pairs(text)), (text, "", ""))
    if not separator or not name or not value:
        raise ValueError(f"{text!r:.80} is not NAME=VALUE")
    return name, value


def _pairs(text: str) -> Iterator[tuple[str, str, str]]:
    parts = _split(text, "=")
    if len(parts) > 1:
        yield parts[0], "=", text[len(parts[0]) + 1 :]


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def _value(name: str, text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return _plain(text[1:-1])
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text[:-1])
    if _FLOAT.fullmatch(text):
        return float(text)
    raise ValueError(f"the field {name!r} has the value {text!r:.80}, which is not a number, a boolean or a quoted text")


def _time(text: str, fields: Fields) -> int:
    if not _TIME.fullmatch(text):
        raise ValueError(f"{text!r:.80} is not a time")
    unit = fields.ts_unit or Unit.NANOSECONDS
    return int(Decimal(text) * unit.milliseconds)
