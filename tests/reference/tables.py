"""The encoding of tables in pure Python: rows of Python values, as a program without columns would send them."""

import math
import struct
from datetime import UTC, date, datetime, time
from decimal import Decimal

from reference.encoding import dumps, validate_key
from reference.entries import Point
from reference.numbers import Numbers


class ShortFloat(float):
    """A float of 32 or 16 bits."""


def rows_by_device(rows, ts, key=None, value=None, device=None, profile=None, round_floats=True):
    """Return ``[(device, profile, points)]`` of rows, which are dicts, in the order of the first row of each device."""
    found = {}
    for row in rows:
        values = {row[key]: row[value]} if key else {name: row[name] for name in row if name not in {ts, device, profile}}
        points = [point(name, one, milliseconds(row[ts]), round_floats) for name, one in values.items() if one is not None]
        name = row[device] if device else None
        known = found.setdefault(name, (row[profile] if profile else None, []))
        known[1].extend(points)
    return [(name, profile, points) for name, (profile, points) in found.items() if points]


def milliseconds(moment):
    if isinstance(moment, datetime):
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    return int(moment)


def point(key, value, ts, round_floats):
    validate_key(key)
    return Point(ts, dumps(key).decode(), written(value, round_floats))


def written(value, round_floats):
    if isinstance(value, ShortFloat):
        value = float(shortest(value))
    if isinstance(value, Decimal):
        text = format(value, "f")
        places = len(text.partition(".")[2])
        return text if places <= 16 else dumps(Numbers(round_floats).written(float(text))).decode()
    if isinstance(value, list | dict):
        return dumps(nested(value)).decode()
    return dumps(Numbers(round_floats).written(plain(value))).decode()


def plain(value):
    if isinstance(value, datetime):
        return (value if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    return value.isoformat() if isinstance(value, date | time) else value


def nested(value):
    """Return a list or dict with the types of JSON. Decimals in them are not supported by this reference."""
    if isinstance(value, dict):
        return {key: nested(one) for key, one in value.items()}
    if isinstance(value, list):
        return [nested(one) for one in value]
    return plain(value)


def shortest(value):
    """Return the shortest decimal that is nearest to a float of 32 bits."""
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if math.isinf(value) or struct.unpack("f", struct.pack("f", float(text)))[0] == value:
            return text
    raise AssertionError(value)
