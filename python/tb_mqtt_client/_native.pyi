"""The native core of the package: what is done once per datapoint.

The extension sees values, limits and the current time. It never sees an event loop, a future, a logger, a callback,
an environment variable or a clock. Everything here is synchronous, touches no global state and may be called from
several threads.

Vocabulary: an *entry* is one datapoint (key, value and, for timeseries, a timestamp in milliseconds since the epoch);
an *uplink* is what one call sends (many datapoints of one device, encoded); a *payload* is what one MQTT PUBLISH carries.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal, final

from typing_extensions import disjoint_base

__all__ = [
    "MAX_DEPTH",
    "MAX_KEY_LENGTH",
    "AttributeEntry",
    "DataEntry",
    "DeviceIdentity",
    "EncodedUplink",
    "PackedUplinks",
    "Payload",
    "TimeseriesEntry",
    "TokenBuckets",
    "UnsupportedValueError",
    "__version__",
    "build_profile",
    "dumps",
    "pack_attributes",
    "pack_timeseries",
    "split_attributes",
    "split_timeseries",
    "take_all",
    "validate_key",
]

__version__: Final[str]
"""Version of the extension; equal to the version of the distribution."""

build_profile: Final[Literal["debug", "release"]]
"""How the extension was compiled. Benchmarks refuse ``"debug"``."""

MAX_KEY_LENGTH: Final[int]
"""Longest key that the platform stores, in UTF-16 code units: characters beyond U+FFFF, such as most emoji, count as two
(docs/platform_contract.md, section 3)."""

MAX_DEPTH: Final[int]
"""Deepest nesting of lists and dicts in one value."""

class UnsupportedValueError(ValueError, TypeError):
    """JSON has no form for a value, or for a key.

    Raised for values of other types than JSON's, keys that are not ``str``, lone surrogates, and nesting deeper than
    ``MAX_DEPTH``. SDK 2.0 met most of them with a ``TypeError``, and the rest with a ``ValueError``: it is both.
    """

def dumps(value: Any) -> bytes:
    """Write a JSON-compatible value as compact UTF-8 JSON.

    Same bytes as ``orjson.dumps`` for ``None``, ``bool``, ``int``, ``float``, ``str``, ``list`` and ``dict`` with ``str`` keys
    (exact types), except that an ``int`` of any size is written as digits.

    Raises ``UnsupportedValueError`` that names the path (``$.key[0]``) and the reason, and ``ValueError`` for NaN and
    infinities, which are floats that JSON lacks.
    """

def validate_key(key: object) -> None:
    """Raise unless the platform stores datapoints with this key (docs/platform_contract.md, section 3).

    Args:
        key: A ``str`` that is not blank, has at most ``MAX_KEY_LENGTH`` UTF-16 code units, no control character, no ``<`` followed
            by a letter (white space between them does not help), and no ``{{`` followed by ``}}``.

    Raises:
        ValueError: With the key and the rule. An ``UnsupportedValueError`` if the key is not a ``str``.
    """

@disjoint_base
class DataEntry:
    """One datapoint, encoded when it is made.

    ``value`` is written as JSON in the constructor; reading ``value`` gives a new equal object. ``ts`` is ``None``, milliseconds
    since the epoch, or a ``datetime`` with a timezone; a ``float`` and a ``datetime`` are cut to whole milliseconds, as the server
    does. Times before 1970 are negative. Times from the year 10000 on are refused, since the platform does not store them.
    Setters check before they store.
    Raises ``ValueError`` for keys and values that the platform cannot store (see ``dumps`` and ``validate_key``), which is an
    ``UnsupportedValueError`` where a type is wrong, that of ``ts`` too.
    """

    def __new__(cls, key: str, value: Any, ts: float | datetime | None = None) -> DataEntry: ...
    @property
    def key(self) -> str: ...
    @key.setter
    def key(self, key: str) -> None: ...
    @property
    def value(self) -> Any: ...
    @value.setter
    def value(self, value: Any) -> None: ...
    @property
    def ts(self) -> int | None: ...
    @ts.setter
    def ts(self, ts: float | datetime | None) -> None: ...
    @property
    def size(self) -> int:
        """Bytes of the compact JSON ``{key: value}``, or of ``{"ts": ts, "values": {key: value}}`` when ``ts`` is set."""
    def __reduce__(self) -> tuple[type, tuple[Any, ...]]: ...

class AttributeEntry(DataEntry):
    """One attribute of a device. Equal to another ``AttributeEntry`` with the same key and value. Unhashable."""

    def __new__(cls, key: str, value: Any) -> AttributeEntry: ...
    def as_dict(self) -> dict[str, Any]:
        """``{"key": key, "value": value}``"""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]

class TimeseriesEntry(DataEntry):
    """One timeseries datapoint. Equal to another ``TimeseriesEntry`` with the same key, value and timestamp. Unhashable."""

    def __new__(cls, key: str, value: Any, ts: float | datetime | None = None) -> TimeseriesEntry: ...
    def as_dict(self) -> dict[str, Any]:
        """``{"key": key, "value": value}``, and ``"ts"`` when it is not ``None``."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]

@final
class DeviceIdentity:
    """Name and profile of a gateway's sub-device, shared by all uplinks of that device. Immutable, equal and hashed by value."""

    def __new__(cls, name: str, profile: str = "default") -> DeviceIdentity:
        """Raises ``ValueError`` when the name is empty or holds a lone surrogate."""
    @property
    def name(self) -> str: ...
    @property
    def profile(self) -> str: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class EncodedUplink:
    """The datapoints of one call, encoded. Immutable."""

    @staticmethod
    def timeseries(
        data: object,
        now_ms: int,
        device: DeviceIdentity | None = None,
        round_floats: bool = True,
        metadata: tuple[str, int] | None = None,
    ) -> EncodedUplink:
        """Encode what ``send_timeseries`` accepts.

        ``data`` is a ``TimeseriesEntry``, ``{"ts": ts, "values": {key: value}}`` (``ts`` as in ``TimeseriesEntry``), any other dict
        ``{key: value}``, or a list that mixes them. Datapoints without a timestamp get ``now_ms``. A dict with ``ts`` must have
        ``values`` and nothing else.

        A value that is a float of more than 16 decimal places, which the platform would store as text (docs/platform_contract.md,
        section 3), is written as ``round(value, 16)`` if at least six digits of it are left, and otherwise in its shortest form.
        ``round_floats=False`` writes the shortest form of all. Floats inside lists and dicts are never rounded. Entries are not
        changed: they keep the value that they were given, and it is rounded here.

        ``metadata`` of a sub-device's timeseries: connector, and when it received them in milliseconds since the epoch. It stands
        in each record of the call (docs/platform_contract.md, section 4), so that the call shares none with others.

        Raises ``ValueError`` for other types, for data without any datapoint, for what ``TimeseriesEntry`` refuses, and for
        metadata without a device.
        """
    @staticmethod
    def attributes(data: object, device: DeviceIdentity | None = None, round_floats: bool = True) -> EncodedUplink:
        """Encode what ``send_attributes`` accepts: a dict ``{key: value}``, an ``AttributeEntry`` or a list of them.

        Floats are rounded as by ``timeseries``. Raises ``ValueError`` as ``timeseries`` does.
        """
    @staticmethod
    def of_entries(
        attributes: Sequence[AttributeEntry],
        timeseries: Sequence[TimeseriesEntry],
        main_ts: float | datetime | None = None,
        device: DeviceIdentity | None = None,
    ) -> EncodedUplink:
        """Collect entries. Unlike the other two this may be empty, and entries without a timestamp stay without:
        ``main_ts`` says what they get when a payload is written, and without it the server stamps them. No value is rounded.
        """
    def with_main_ts(self, main_ts: float | datetime | None) -> EncodedUplink:
        """The same datapoints with another ``main_ts``."""
    def with_device(self, device: DeviceIdentity) -> EncodedUplink:
        """The same datapoints of another device."""
    @property
    def device(self) -> DeviceIdentity | None: ...
    @property
    def main_ts(self) -> int | None: ...
    @property
    def attribute_count(self) -> int: ...
    @property
    def timeseries_count(self) -> int: ...
    @property
    def datapoints(self) -> int:
        """Attributes and timeseries datapoints together."""
    @property
    def has_device(self) -> bool:
        """Whether ``device`` is not ``None``."""
    @property
    def conversions(self) -> tuple[int, int]:
        """``(values rounded, values of which the platform makes text)``.

        Text is made of floats of more than 16 decimal places that were not rounded, and of integers beyond 64 bits, to which floats
        from 2**63 on belong. ``of_entries`` counts nothing.
        """
    @property
    def nbytes(self) -> int:
        """Bytes of encoded datapoints that this object holds; what bounded queues count."""
    @property
    def entries_size(self) -> int:
        """Sum of the entries' ``size``."""
    def attribute_entries(self) -> tuple[AttributeEntry, ...]:
        """The attributes, in order, as new entries."""
    def timeseries_entries(self) -> tuple[TimeseriesEntry, ...]:
        """The timeseries datapoints, in order, as new entries (``ts`` is ``None`` where none was given)."""

@final
class Payload:
    """One MQTT payload and where its datapoints came from."""

    @property
    def data(self) -> bytes: ...
    @property
    def datapoints(self) -> int:
        """Datapoints written. Less than the sum over ``sources`` when a later value of the same key and timestamp replaced one."""
    @property
    def devices(self) -> int:
        """Device entries in the payload: what the server counts as messages. 1 for a device's own payload."""
    @property
    def sources(self) -> list[tuple[int, int]]:
        """``(index of the uplink in the input, datapoints of it that this payload answers for)``, each uplink once, in order.

        For a part that ``split`` made, the index is a place in the ``sources`` of the payload that was split.
        """
    def device_identities(self) -> list[DeviceIdentity]:
        """Whose datapoints are in a gateway payload, in order. Empty for a device's own payload."""
    def split(self, max_size: int, max_datapoints: int = 0, max_devices: int = 0) -> list[Payload]:
        """Cut the payload into smaller ones of the same form, and keep the order of its datapoints.

        Every datapoint is in exactly one part. The datapoints that one uplink has for a device and timestamp stay together if they
        fit in a part. A payload that is within the limits comes back as a single part with equal ``data``.

        Args:
            max_size: Bytes of one part. A single datapoint that exceeds it alone is a part of its own.
            max_datapoints: Datapoints written in one part, 0 for no limit.
            max_devices: Device entries in one part, 0 for no limit.

        Returns:
            The parts, which can be split again. ``sources`` of a part holds ``(place, datapoints)``: the place in the ``sources``
            of this payload, and how many datapoints of that source the part answers for. Over all parts, the counts of a
            source add up to its count here. A datapoint that a later value replaced is counted by the part with that value.
        """

@final
class PackedUplinks:
    """What ``pack_timeseries`` and ``pack_attributes`` give."""

    @property
    def payloads(self) -> list[Payload]: ...
    @property
    def oversized(self) -> list[tuple[int, str, int]]:
        """Datapoints that fit in no payload: ``(index of the uplink, key, bytes that a payload with it alone would have)``."""
    @property
    def conversions(self) -> tuple[int, int]:
        """Sum of the uplinks' ``conversions``, those of the kind that was packed."""
    @property
    def suspicious_ts(self) -> int | None:
        """The first timestamp that is not likely to be in milliseconds, or ``None``.

        Those from 10**8 to 10**11 are times from 1973 on if they are seconds, and in the early seventies if they are milliseconds.
        Those from 10**14 on are later than the year 5138.
        """

def pack_timeseries(
    uplinks: Sequence[EncodedUplink],
    *,
    gateway: bool,
    max_size: int,
    max_datapoints: int = 0,
    max_devices: int = 1,
    now_ms: int | None = None,
) -> PackedUplinks:
    """Write the timeseries of many uplinks into few payloads.

    Groups by device (order of first appearance), then by timestamp (order of first appearance), and keeps the order of datapoints
    inside a group. What one uplink has in a group is its record: a record that fits in a payload is never torn, and a new
    payload begins only when the next record does not fit. A record that is larger than a payload, or that has a datapoint
    which is, fills one payload after the other. Within one payload the last value of a key and timestamp wins, at the place
    of the first. Attributes of the uplinks are left out.

    - ``gateway=False``: ``[{"ts":T,"values":{...}},...]``; ``gateway=True``: ``{"device":[{"ts":T,"values":{...}},...],...}``.
      Datapoints without any timestamp are written as ``{...}`` without ``ts``.
    - An uplink with metadata has records of its own: ``{"ts":T,"values":{...},"metadata":{"connector":C,"receivedTs":T,
      "publishedTs":now_ms}}``.
    - ``max_size``: bytes of one payload, 2 or more. ``max_datapoints``: 0 for no limit.
    - ``max_devices``: device entries in one payload, 0 for no limit. Two profiles of one name never share a payload.

    Every datapoint is in exactly one payload or in ``oversized``. Raises ``ValueError`` for negative limits, and without ``now_ms``
    (milliseconds since the epoch) when an uplink has metadata.
    """

def pack_attributes(
    uplinks: Sequence[EncodedUplink],
    *,
    gateway: bool,
    max_size: int,
    max_datapoints: int = 0,
    max_devices: int = 1,
) -> PackedUplinks:
    """The same for attributes: ``{"key":value,...}``, or ``{"device":{"key":value,...},...}`` for a gateway."""

def split_timeseries(
    uplinks: Sequence[EncodedUplink],
    *,
    gateway: bool,
    max_size: int,
    max_datapoints: int = 0,
) -> list[tuple[EncodedUplink, list[tuple[int, int]]]]:
    """Cut as ``pack_timeseries`` with one device a payload does, but give uplinks instead of payloads, each with its sources.

    A datapoint that fits in no payload becomes an uplink of its own. Timestamps are kept as given: what an uplink's ``main_ts``
    would have filled in is filled in. Raises ``ValueError`` for an uplink with metadata.
    """

def split_attributes(
    uplinks: Sequence[EncodedUplink],
    *,
    gateway: bool,
    max_size: int,
    max_datapoints: int = 0,
) -> list[tuple[EncodedUplink, list[tuple[int, int]]]]:
    """The same for attributes."""

@final
class TokenBuckets:
    """All windows of one rate limit: token buckets that start full, refill continuously and are taken from together.

    Times are integer nanoseconds of one monotonic clock. A clock that goes back refills nothing. Arithmetic is exact:
    over any span of time no bucket admits more than its capacity plus its refill.
    """

    def __new__(cls, windows: Sequence[tuple[int, float]], now_ns: int) -> TokenBuckets:
        """``windows``: ``(capacity in tokens, duration in seconds)``. No window means no limit.

        Raises ``ValueError`` when a capacity is below 1 or a duration is not a finite positive number.
        """
    @property
    def windows(self) -> list[tuple[int, float]]:
        """``(capacity, seconds)``, in the order given."""
    @property
    def smallest_capacity(self) -> int:
        """The largest amount that can ever be taken at once; 0 without a window, which means no limit."""
    def tokens(self, now_ns: int) -> list[float]:
        """Tokens in each window."""
    def take(self, amount: int, now_ns: int) -> tuple[int, int, float] | None:
        """Take ``amount`` tokens from every window, or from none.

        ``None`` when taken; otherwise ``(nanoseconds to wait, capacity, seconds)`` of the window that makes the caller wait
        longest. After exactly that wait the same call succeeds, unless somebody else took.
        Raises ``ValueError`` when ``amount`` is negative or larger than a capacity, since no wait would help.
        """
    def spend(self, amount: int, now_ns: int, window: int | None = None) -> None:
        """Take up to ``amount`` tokens from each window, or from the one of that index, for what was sent without asking.

        Raises ``IndexError`` when there is no such window.
        """
    def set_windows(self, windows: Sequence[tuple[int, float]], now_ns: int) -> None:
        """Replace the windows. A window of a duration that was there before keeps the tokens spent; nothing is refilled by this."""

def take_all(requests: Sequence[tuple[TokenBuckets, int]], now_ns: int) -> tuple[int, int, float] | None:
    """``TokenBuckets.take`` over several limits: everything is taken, or nothing.

    Raises ``ValueError`` as ``take`` does, and when one limit is named twice.
    """
