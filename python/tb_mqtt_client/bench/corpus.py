"""The data of a measurement: sends of a given shape, equal in every run, or the records of a file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIRST_TS = 1_700_000_000_000
STATES: tuple[str, ...] = ("idle", "running", "überlastet", 'error: "E7"')

Send = tuple[str | None, list[dict[str, Any]]]
"""The name of a sub-device, or ``None`` for the connected device, and its records ``{"ts": milliseconds, "values": {...}}``."""
Points = dict[tuple[str | None, int, str], Any]
"""Values by device, timestamp and key."""


def _measured(source: random.Random) -> float:
    return round(source.uniform(-1000, 1000), 1)


def _computed(source: random.Random) -> float:
    return source.uniform(-1000, 1000)


def _float(source: random.Random) -> float:
    return (_measured if source.random() < 0.5 else _computed)(source)


def _nested(source: random.Random) -> dict[str, Any]:
    return {"axes": {"x": _measured(source), "y": _measured(source)}, "flags": [True, None], "state": source.choice(STATES)}


KINDS: dict[str, Callable[[random.Random], Any]] = {
    "int": lambda source: source.randrange(-(2**31), 2**31),
    "float": _float,
    "str": lambda source: source.choice(STATES),
    "bool": lambda source: source.random() < 0.5,
    "nested": _nested,
}
"""The kinds of values, and how one of them is made. Half of the floats have one decimal place, half have all digits."""


def parse_mix(text: str) -> tuple[str, ...]:
    """Return the kinds of values of a mix, each as often as its weight.

    Args:
        text: Kinds separated by commas, each with an optional weight: ``"float=4,int"``.

    Returns:
        The kinds in turn, such as ``("float", "float", "float", "float", "int")``.

    Raises:
        ValueError: A kind is unknown, or a weight is not a whole number from 1 to 1000.
    """
    kinds: list[str] = []
    for part in text.split(","):
        kind, equals, weight = part.strip().partition("=")
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not a kind of values; there are {', '.join(KINDS)}")
        if equals and not (weight.isascii() and weight.isdigit() and 1 <= int(weight) <= 1000):
            raise ValueError(f"{part.strip()!r}: the weight must be a whole number from 1 to 1000")
        kinds += [kind] * (int(weight) if equals else 1)
    return tuple(kinds)


@dataclass(frozen=True, slots=True)
class Shape:
    """What the sends of a generated corpus look like."""

    devices: int
    """Sub-devices of a gateway, which send in turn; 0 for a device that sends its own data."""
    keys: int
    """Different keys of a device."""
    datapoints: int
    """Datapoints in each send."""
    timestamps: int
    """Timestamps in each send; the datapoints are divided among them."""
    sends: int
    mix: tuple[str, ...]
    """The kinds of values; the keys have them in turn."""

    def __post_init__(self) -> None:
        """Check that the datapoints can be divided.

        Raises:
            ValueError: A timestamp would have no datapoint, or more datapoints than there are keys.
        """
        if self.timestamps > self.datapoints:
            raise ValueError(f"{self.timestamps} timestamps need at least as many datapoints in a send, not {self.datapoints}")
        most = -(-self.datapoints // self.timestamps)
        if most > self.keys:
            raise ValueError(
                f"{self.datapoints} datapoints at {self.timestamps} timestamps need {most} keys, and there are {self.keys}: "
                "give more keys or more timestamps"
            )


@dataclass(frozen=True, slots=True)
class Corpus:
    """The sends of one round."""

    sends: list[Send]
    points: Points
    """All datapoints, with the later value if two have the same device, timestamp and key."""
    datapoints: int
    """Number of datapoints in the sends."""
    json_bytes: int
    """Size of the sends as compact JSON, in bytes."""

    @property
    def is_gateway(self) -> bool:
        """Return True if the data is of sub-devices."""
        return self.sends[0][0] is not None

    def save(self, path: Path) -> None:
        """Write the sends as one JSON document, in which a parser makes each key once, as programs do."""
        path.write_text(json.dumps(self.sends), encoding="utf-8")


def corpus_of(sends: Iterable[Send]) -> Corpus:
    """Return a corpus of sends, of which there is at least one."""
    kept = list(sends)
    points: Points = {}
    datapoints = json_bytes = 0
    for device, records in kept:
        for record in records:
            for key, value in record["values"].items():
                points[device, record["ts"], key] = value
            datapoints += len(record["values"])
        json_bytes += len(json.dumps(records, ensure_ascii=False, separators=(",", ":")).encode())
    return Corpus(kept, points, datapoints, json_bytes)


def generate(shape: Shape) -> Corpus:
    """Return the corpus of a shape. It is equal in every run."""
    source = random.Random(7)
    keys = [f"{shape.mix[index % len(shape.mix)]}_{index}" for index in range(shape.keys)]
    kinds = [KINDS[shape.mix[index % len(shape.mix)]] for index in range(shape.keys)]
    fewest, more = divmod(shape.datapoints, shape.timestamps)
    sends: list[Send] = []
    place = 0
    for send in range(shape.sends):
        records = []
        for index in range(shape.timestamps):
            # Records of one send begin with different keys, so that all keys are used.
            chosen = [(place + offset) % shape.keys for offset in range(fewest + (index < more))]
            place = (place + len(chosen)) % shape.keys
            values = {keys[key]: kinds[key](source) for key in chosen}
            records.append({"ts": FIRST_TS + send * shape.timestamps + index, "values": values})
        sends.append((f"device {send % shape.devices}" if shape.devices else None, records))
    return corpus_of(sends)


def points_of(payload: bytes, *, gateway: bool) -> Points:
    """Return the datapoints of a telemetry payload.

    Raises:
        ValueError: It is not a payload with timestamps.
    """
    document = json.loads(payload)
    found: Points = {}
    try:
        for device, content in document.items() if gateway else [(None, document)]:
            for record in content if isinstance(content, list) else [content]:
                for key, value in record["values"].items():
                    found[device, record["ts"], key] = value
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a payload with timestamps: {payload[:80]!r}") from error
    return found


def difference(expected: Points, found: Points) -> str:
    """Return how found datapoints differ from the expected ones, or an empty text. Floats may be rounded to 16 places."""
    missing = [point for point in expected if point not in found]
    if missing:
        return f"{len(missing):,} of {len(expected):,} datapoints are missing, such as {_named(missing[0])}"
    extra = [point for point in found if point not in expected]
    if extra:
        return f"{len(extra):,} datapoints were not sent, such as {_named(extra[0])}"
    changed = [point for point, value in expected.items() if not _equal(value, found[point])]
    if changed:
        first = changed[0]
        return f"{len(changed):,} values differ: {_named(first)} is {found[first]!r} instead of {expected[first]!r}"
    return ""


def _named(point: tuple[str | None, int, str]) -> str:
    device, ts, key = point
    return f"{key!r} at {ts}" + ("" if device is None else f" of {device!r}")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return isinstance(other, int | float) and not isinstance(other, bool) and round(one, 16) == round(other, 16)
    return type(one) is type(other) and bool(one == other)
