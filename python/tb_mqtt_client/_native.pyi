"""The native core of the package: the work that is done once per datapoint.

The extension sees values, limits and the current time. It never sees an event loop, a future, a logger, a callback,
an environment variable or a clock. Everything here is synchronous and touches no global state; only ``StoreLog`` uses files.
Several threads may use the same objects, also in a free-threaded Python.

Vocabulary: an *entry* is one datapoint (key, value and, for timeseries, a timestamp in milliseconds since the epoch);
an *uplink* holds the encoded datapoints of one send, all of one device; a *payload* is the content of one MQTT PUBLISH.
"""

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeVar, final

from typing_extensions import disjoint_base

__all__ = [
    "MAX_DEPTH",
    "MAX_KEY_LENGTH",
    "AttributeEntry",
    "DataEntry",
    "DeviceIdentity",
    "EncodedUplink",
    "GatheredSends",
    "Gathering",
    "NotAStoreError",
    "PackedUplinks",
    "Payload",
    "RecoveredCounts",
    "ResultSlot",
    "StoreError",
    "StoreFormatError",
    "StoreInUseError",
    "StoreLog",
    "StoreOwnerError",
    "TableReader",
    "TimeseriesEntry",
    "TokenBuckets",
    "UnsupportedValueError",
    "__version__",
    "build_profile",
    "dumps",
    "pack_attributes",
    "pack_timeseries",
    "settle",
    "settle_each",
    "split_attributes",
    "split_timeseries",
    "take_all",
    "validate_key",
]

_T = TypeVar("_T")

__version__: Final[str]
"""Version of the extension; equal to the version of the distribution."""

build_profile: Final[Literal["debug", "release"]]
"""How the extension was compiled. Benchmarks refuse ``"debug"``."""

MAX_KEY_LENGTH: Final[int]
"""Length of the longest key that the platform stores, in UTF-16 code units: characters beyond U+FFFF, such as most emoji, count
as two (docs/platform_contract.md, section 3)."""

MAX_DEPTH: Final[int]
"""Deepest nesting of lists and dicts in one value."""

class UnsupportedValueError(ValueError, TypeError):
    """A value, or a key, cannot be written as JSON.

    Raised for values of a type that JSON does not have, keys that are not ``str``, lone surrogates, and nesting deeper than
    ``MAX_DEPTH``. SDK 2.0 raised ``TypeError`` for most of these and ``ValueError`` for the others, so this class is both.
    """

def dumps(value: Any) -> bytes:
    """Write a JSON-compatible value as compact UTF-8 JSON.

    Args:
        value: ``None``, or a ``bool``, ``int``, ``float``, ``str``, ``list`` or ``dict`` with ``str`` keys. Subclasses are refused.

    Returns:
        The bytes that ``orjson.dumps`` writes, except that an ``int`` of any size is written as digits.

    Raises:
        UnsupportedValueError: The value, or a part of it, cannot be written as JSON. The text has its path (``$.key[0]``).
        ValueError: A float is NaN or infinite. The text has its path.
    """

def validate_key(key: object) -> None:
    """Check that the platform stores datapoints with this key (docs/platform_contract.md, section 3).

    Args:
        key: A ``str`` that is not blank, has at most ``MAX_KEY_LENGTH`` UTF-16 code units, no control character, no ``<`` followed
            by a letter (with or without white space between them), and no ``{{`` followed by ``}}``.

    Raises:
        UnsupportedValueError: The key is not a ``str``, or has a lone surrogate.
        ValueError: The platform does not store the key. The text has the key and the rule.
    """

@disjoint_base
class DataEntry:
    """One datapoint, encoded when it is made.

    The setters of its properties check a new key, value or timestamp as the constructor does, before they store it.
    """

    def __new__(cls, key: str, value: Any, ts: float | datetime | None = None) -> DataEntry:
        """Encode a datapoint.

        Args:
            key: A key that ``validate_key`` accepts.
            value: A value that ``dumps`` accepts.
            ts: Milliseconds since the epoch, negative before 1970, or a ``datetime`` with a timezone. A ``float`` and a
                ``datetime`` are cut to whole milliseconds, as the platform does. ``None`` leaves the timestamp open.

        Raises:
            UnsupportedValueError: The type of ``key``, of ``value`` (or of a part of it) or of ``ts`` is not supported.
            ValueError: The platform cannot store the datapoint: see ``validate_key`` and ``dumps``. ``ts`` must be before the year
                10000, and a ``datetime`` must have a timezone.
        """
    @property
    def key(self) -> str:
        """The key."""
    @key.setter
    def key(self, key: str) -> None: ...
    @property
    def value(self) -> Any:
        """The value. Each read makes a new object from the encoded value."""
    @value.setter
    def value(self, value: Any) -> None: ...
    @property
    def ts(self) -> int | None:
        """The timestamp in milliseconds since the epoch, or ``None``."""
    @ts.setter
    def ts(self, ts: float | datetime | None) -> None: ...
    @property
    def size(self) -> int:
        """Bytes of the compact JSON ``{key: value}``, or of ``{"ts": ts, "values": {key: value}}`` when ``ts`` is set."""
    def __reduce__(self) -> tuple[type, tuple[Any, ...]]: ...

class AttributeEntry(DataEntry):
    """One attribute of a device. Equal to another ``AttributeEntry`` with the same key and value. Unhashable."""

    def __new__(cls, key: str, value: Any) -> AttributeEntry:
        """Encode an attribute.

        Args:
            key: A key that ``validate_key`` accepts.
            value: A value that ``dumps`` accepts.

        Raises:
            UnsupportedValueError: The type of ``key`` or of ``value`` (or of a part of it) is not supported.
            ValueError: The platform cannot store the attribute: see ``validate_key`` and ``dumps``.
        """
    def as_dict(self) -> dict[str, Any]:
        """Return ``{"key": key, "value": value}``."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]

class TimeseriesEntry(DataEntry):
    """One timeseries datapoint. Equal to another ``TimeseriesEntry`` with the same key, value and timestamp. Unhashable."""

    def __new__(cls, key: str, value: Any, ts: float | datetime | None = None) -> TimeseriesEntry:
        """Encode a timeseries datapoint.

        Args:
            key: A key that ``validate_key`` accepts.
            value: A value that ``dumps`` accepts.
            ts: Milliseconds since the epoch, negative before 1970, or a ``datetime`` with a timezone. A ``float`` and a
                ``datetime`` are cut to whole milliseconds, as the platform does. Without it, the client sets the time of the send.

        Raises:
            UnsupportedValueError: The type of ``key``, of ``value`` (or of a part of it) or of ``ts`` is not supported.
            ValueError: The platform cannot store the datapoint: see ``validate_key`` and ``dumps``. ``ts`` must be before the year
                10000, and a ``datetime`` must have a timezone.
        """
    def as_dict(self) -> dict[str, Any]:
        """Return ``{"key": key, "value": value}``, with ``"ts"`` when it is not ``None``."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]

@final
class DeviceIdentity:
    """Name and profile of a gateway's sub-device, shared by all uplinks of that device. Immutable, equal and hashed by value."""

    def __new__(cls, name: str, profile: str = "default") -> DeviceIdentity:
        """Make an identity.

        Args:
            name: Name of the sub-device, not empty.
            profile: Name of its device profile.

        Raises:
            ValueError: The name is empty or has a lone surrogate.
        """
    @property
    def name(self) -> str:
        """Name of the sub-device."""
    @property
    def profile(self) -> str:
        """Name of its device profile."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class EncodedUplink:
    """The datapoints of one send, encoded. Immutable."""

    @staticmethod
    def timeseries(
        data: object,
        now_ms: int | None,
        device: DeviceIdentity | None = None,
        round_floats: bool = True,
        metadata: tuple[str, int] | None = None,
    ) -> EncodedUplink:
        """Encode the data of a ``send_timeseries``.

        A float with more than 16 decimal places, which the platform would store as text (docs/platform_contract.md, section 3), is
        written as ``round(value, 16)`` if at least six digits of it are left, and otherwise in its shortest form. Floats inside
        lists and dicts are never rounded. Entries keep their value; it is rounded in the uplink only.

        Args:
            data: A ``TimeseriesEntry``, ``{"ts": ts, "values": {key: value}}`` (``ts`` as in ``TimeseriesEntry``), any other dict
                ``{key: value}``, or a list of these. A dict with ``ts`` must have ``values`` and no other key.
            now_ms: Timestamp of datapoints that have none, in milliseconds since the epoch; ``None`` to leave them without one.
            device: The sub-device, or ``None`` for the connected device itself.
            round_floats: ``False`` writes every float in its shortest form.
            metadata: Of a sub-device's timeseries: the name of its connector, and the time at which the connector received the
                data, in milliseconds since the epoch. It is part of each record (docs/platform_contract.md, section 4), so these
                datapoints share no record with those of other uplinks.

        Returns:
            The uplink.

        Raises:
            UnsupportedValueError: The type of a key, of a value or of a timestamp is not supported.
            ValueError: ``data`` has another type or no datapoint, ``TimeseriesEntry`` refuses a datapoint, or there is metadata
                without a device.
        """
    @staticmethod
    def timeseries_of_devices(
        calls: list[tuple[DeviceIdentity, object]], now_ms: int | None, round_floats: bool = True
    ) -> list[EncodedUplink]:
        """Encode timeseries of several sub-devices, each as ``timeseries`` does.

        Args:
            calls: The sub-devices, and the data of each.
            now_ms: As for ``timeseries``.
            round_floats: As for ``timeseries``.

        Returns:
            An uplink for each sub-device, in their order.

        Raises:
            UnsupportedValueError: As for ``timeseries``. A note of the error has the name of the sub-device.
            ValueError: As for ``timeseries``, with the same note.
        """
    @staticmethod
    def attributes(data: object, device: DeviceIdentity | None = None, round_floats: bool = True) -> EncodedUplink:
        """Encode the data of a ``send_attributes``. Floats are rounded as by ``timeseries``.

        Args:
            data: A dict ``{key: value}``, an ``AttributeEntry``, or a list of ``AttributeEntry``.
            device: The sub-device, or ``None`` for the connected device itself.
            round_floats: ``False`` writes every float in its shortest form.

        Returns:
            The uplink.

        Raises:
            UnsupportedValueError: The type of a key or of a value is not supported.
            ValueError: ``data`` has another type or no attribute, or ``AttributeEntry`` refuses an attribute.
        """
    @staticmethod
    def of_entries(
        attributes: Sequence[AttributeEntry],
        timeseries: Sequence[TimeseriesEntry],
        main_ts: float | datetime | None = None,
        device: DeviceIdentity | None = None,
    ) -> EncodedUplink:
        """Collect entries. The uplink may be empty, and no value is rounded.

        Args:
            attributes: The attributes.
            timeseries: The timeseries datapoints. Those without a timestamp keep none.
            main_ts: Timestamp that a payload has for datapoints without one, as the ``ts`` of a ``TimeseriesEntry``. Without it,
                the server sets the timestamp.
            device: The sub-device, or ``None`` for the connected device itself.

        Returns:
            The uplink.

        Raises:
            TypeError: An element of ``attributes`` or ``timeseries`` is not an entry of that class.
            UnsupportedValueError: The type of ``main_ts`` is not supported.
            ValueError: ``main_ts`` is a time that ``TimeseriesEntry`` refuses.
        """
    def on_monotonic_clock(self, now: int, readings: tuple[int, int, int] | None = None) -> EncodedUplink:
        """Return a copy whose timeseries have times of a monotonic clock, which ``with_clock_offset`` replaces later.

        Args:
            now: The time of datapoints without a timestamp, in milliseconds of the monotonic clock.
            readings: First, last and offset in milliseconds: timestamps from the first to the last one were read from a clock that
                is ahead of the monotonic clock by the offset. Other timestamps stay.
        """
    def with_clock_offset(self, offset: int) -> EncodedUplink:
        """Return a copy whose timeseries have timestamps in place of times of a monotonic clock.

        Args:
            offset: How far the time since the epoch is ahead of the monotonic clock, in milliseconds.
        """
    @property
    def awaits_clock(self) -> bool:
        """Whether any of the timeseries has a time of a monotonic clock. It must not be packed then."""
    def key_that_needs_ts(self) -> str | None:
        """Return a key that must not be sent without a timestamp, or ``None`` if there is none.

        The platform takes the keys ``ts`` and ``values`` of a record without a timestamp for its timestamp and values, and
        ``metadata`` of a sub-device's record for its metadata (docs/platform_contract.md, sections 3 and 4).
        """
    def with_main_ts(self, main_ts: float | datetime | None) -> EncodedUplink:
        """Return an uplink with these datapoints and another ``main_ts``.

        Args:
            main_ts: As for ``of_entries``.

        Returns:
            The new uplink. It shares nothing that can change with this one.

        Raises:
            UnsupportedValueError: The type of ``main_ts`` is not supported.
            ValueError: ``main_ts`` is a time that ``TimeseriesEntry`` refuses.
        """
    def with_device(self, device: DeviceIdentity) -> EncodedUplink:
        """Return an uplink with these datapoints for another sub-device.

        Args:
            device: The sub-device.

        Returns:
            The new uplink.
        """
    @property
    def device(self) -> DeviceIdentity | None:
        """The sub-device, or ``None`` for the connected device itself."""
    @property
    def main_ts(self) -> int | None:
        """Timestamp of timeseries datapoints without one, in milliseconds since the epoch, or ``None``."""
    @property
    def attribute_count(self) -> int:
        """Number of attributes."""
    @property
    def timeseries_count(self) -> int:
        """Number of timeseries datapoints."""
    @property
    def datapoints(self) -> int:
        """Number of attributes and timeseries datapoints together."""
    @property
    def has_device(self) -> bool:
        """Whether ``device`` is not ``None``."""
    @property
    def conversions(self) -> tuple[int, int]:
        """``(number of rounded values, number of values that the platform stores as text)``.

        The platform stores as text: floats with more than 16 decimal places that were not rounded, and integers beyond 64 bits,
        including floats from 2**63 on. In an uplink made by ``of_entries`` both numbers are 0.
        """
    @property
    def nbytes(self) -> int:
        """Bytes of encoded datapoints in this object; bounded queues count these."""
    @property
    def entries_size(self) -> int:
        """Sum of the entries' ``size``, in bytes."""
    def attribute_entries(self) -> tuple[AttributeEntry, ...]:
        """Return the attributes, in order, as new entries."""
    def timeseries_entries(self) -> tuple[TimeseriesEntry, ...]:
        """Return the timeseries datapoints, in order, as new entries. ``ts`` is ``None`` where none was given."""

@final
class TableReader:
    """Reads a table in Arrow's columns once, in parts. It exists if the extension was built with the cargo feature ``arrow``."""

    def __new__(
        cls,
        table: object,
        ts: str,
        *,
        key: str | None = None,
        value: str | None = None,
        device: str | None = None,
        profile: str | None = None,
        round_floats: bool = True,
    ) -> TableReader:
        """Open a table and check its columns.

        Args:
            table: An object with ``__arrow_c_stream__``, which is called.
            ts: The column with the times: timestamps with a timezone, or milliseconds since the epoch.
            key: Of a table with one datapoint a row, the column with the keys; ``None`` if each other column has one key's values.
            value: The column with the values; needed with ``key``.
            device: The column with the names of sub-devices; ``None`` if all rows are of one device.
            profile: The column with their profiles.
            round_floats: As in ``EncodedUplink.timeseries``.

        Raises:
            TypeError: ``table`` has no ``__arrow_c_stream__``.
            UnsupportedValueError: A column has a type that cannot be sent.
            ValueError: A column is missing, occurs twice, or has a name that is not a valid key.
        """
    def read(self, max_datapoints: int) -> list[tuple[str | None, str | None, EncodedUplink]] | None:
        """Read the next rows. Other threads run meanwhile.

        Args:
            max_datapoints: Datapoints that the rows may have, except for a single row with more of them.

        Returns:
            For each device with datapoints in these rows, its name, the profile in its first row, and the datapoints in the order
            of the rows; name and profile are ``None`` without such columns. ``None`` at the end of the table.

        Raises:
            UnsupportedValueError: A value cannot be written as JSON.
            ValueError: A row has no time, device or key, or one that the platform cannot store; a number is NaN or infinite; or the
                table cannot be read. The text names the column and the row. The rest of the table is not read.
            RuntimeError: Another thread reads the table.
        """

@final
class Payload:
    """One MQTT payload and the uplinks that its datapoints came from."""

    @property
    def data(self) -> bytes:
        """The JSON text."""
    @property
    def datapoints(self) -> int:
        """Number of datapoints in ``data``.

        It is less than the sum over ``sources`` when a later value replaced one with the same key and timestamp.
        """
    @property
    def devices(self) -> int:
        """Number of device entries in the payload, which the server counts as messages. 1 for a device's own payload."""
    @property
    def sources(self) -> list[tuple[int, int]]:
        """``(index of the uplink in the input, number of its datapoints that this payload acknowledges)``, each uplink once.

        Uplinks are in order of their first datapoint. For a part that ``split`` made, the index is a place in the ``sources`` of
        the payload that was split.
        """
    def of_sources(self, items: list[_T]) -> tuple[list[_T], int | list[int]]:
        """Return the items of the uplinks in ``sources``, and how many datapoints of each uplink this payload acknowledges.

        Args:
            items: One item for each uplink of the input.

        Returns:
            The items in the order of ``sources``, and one number if it is the same for all of them, otherwise a list.

        Raises:
            IndexError: There are fewer items than uplinks.
        """
    def device_identities(self) -> list[DeviceIdentity]:
        """Return the sub-devices of a gateway payload, in order. Empty for a device's own payload."""
    def split(self, max_size: int, max_datapoints: int = 0, max_devices: int = 0) -> list[Payload]:
        """Cut the payload into smaller ones of the same form, and keep the order of its datapoints.

        Every datapoint is in exactly one part. The datapoints that one uplink has for a device and timestamp stay together if they
        fit in a part. A payload that is within the limits becomes a single part with equal ``data``.

        Args:
            max_size: Bytes of one part. A single datapoint that exceeds it alone is a part of its own.
            max_datapoints: Datapoints in one part, 0 for no limit.
            max_devices: Device entries in one part, 0 for no limit.

        Returns:
            The parts, which can be split again. ``sources`` of a part holds ``(place, datapoints)``: a place in the ``sources`` of
            this payload, and the number of datapoints of that source that the part acknowledges. Over all parts, the numbers of
            a source add up to its number here. A datapoint that a later value replaced is counted by the part with that value.

        Raises:
            OverflowError: A limit is negative.
        """

@final
class PackedUplinks:
    """The payloads that ``pack_timeseries`` or ``pack_attributes`` made of a batch of uplinks."""

    @property
    def payloads(self) -> list[Payload]:
        """The payloads, in the order in which they are to be sent."""
    @property
    def oversized(self) -> list[tuple[int, str, int]]:
        """Datapoints that fit in no payload: ``(index of the uplink, key, bytes of a payload with this datapoint alone)``."""
    @property
    def conversions(self) -> tuple[int, int]:
        """Sum of the uplinks' ``conversions``, of the packed kind only."""
    @property
    def suspicious_ts(self) -> int | None:
        """The first timestamp that is probably not in milliseconds, or ``None``.

        Numbers from 10**8 to 10**11 are times from 1973 on if they are seconds, but in the early seventies if they are
        milliseconds. Numbers from 10**14 on are milliseconds later than the year 5138.
        """
    @property
    def is_one_to_one(self) -> bool:
        """Whether every uplink of the batch is in exactly one payload, and no datapoint is in none."""

@disjoint_base
class ResultSlot:
    """The place of one send's result. Objects of this class take part in Python's garbage collection."""

    def __new__(cls) -> ResultSlot:
        """Create an empty slot."""

    @property
    def outcome(self) -> Any:
        """The result; ``None`` as long as there is none."""

    def done(self) -> bool:
        """Return whether there is a result."""

    def put(self, result: object) -> bool:
        """Put the result into the slot; return False, and change nothing, if there is one already."""

    def watch(self) -> bool:
        """Have ``settle`` and ``settle_each`` leave this slot to their caller from now on; return False if that was so before."""

    @property
    def is_watched(self) -> bool:
        """Whether ``watch`` was called."""

def settle(receipts: list[Any], result: object, /) -> list[Any]:
    """Put one result into all slots that are empty and that nothing watches.

    Args:
        receipts: Slots and other objects.
        result: The result of all of them.

    Returns:
        The other receipts, for which the caller does what is necessary.
    """

def settle_each(receipts: list[Any], datapoints: list[int], results: dict[int, Any], /) -> list[tuple[Any, Any]]:
    """Put results into all slots that are empty and that nothing watches.

    Args:
        receipts: Slots and other objects.
        datapoints: The number of datapoints of each.
        results: The result of sends with each of these numbers.

    Returns:
        The other receipts, for which the caller does what is necessary, with the result of each.

    Raises:
        KeyError: There is no result for a number.
    """

@final
class Gathering:
    """A queue of sends, each with the receipt of its result, without an object for each send.

    It accepts sends while its allowance lasts, and counts them until it is asked for the counts. Nothing is called on receipts.
    Objects of this class take part in Python's garbage collection.
    """

    def __new__(cls, round_floats: bool = True) -> Gathering:
        """Create an empty queue without an allowance.

        Args:
            round_floats: As for ``EncodedUplink.timeseries``.
        """

    def push(self, data: object, now_ms: int, receipt: Any, device: DeviceIdentity | None = None, /) -> int:
        """Encode timeseries, and queue them if the allowance covers them.

        Args:
            data: As for ``EncodedUplink.timeseries``.
            now_ms: Timestamp of datapoints that have none, in milliseconds since the epoch.
            receipt: Any object, which is kept with the send.
            device: The sub-device of the data; ``None`` for the connected device.

        Returns:
            The number of queued sends, or 0 if the allowance does not cover the send. If it covers no send at all, the data is not
            read.

        Raises:
            ValueError: The platform cannot store the data (also ``UnsupportedValueError``).
        """

    def allow(self, sends: int, nbytes: int) -> None:
        """Replace the allowance.

        Args:
            sends: The number of sends that may be queued from now on.
            nbytes: Their encoded bytes, at most.
        """

    @property
    def sends_allowed(self) -> int:
        """The number of sends that may still be queued."""

    def take_added(self) -> tuple[int, int, int]:
        """Return how many sends, encoded bytes and datapoints were queued since the last call of this method."""

    def take(self, sends: int, nbytes: int, datapoints: int) -> GatheredSends:
        """Remove and return the oldest sends: as many as reach one of the bounds, and at least one, if there is one.

        Args:
            sends: A number of sends.
            nbytes: A number of encoded bytes.
            datapoints: A number of datapoints.
        """

    def __len__(self) -> int: ...

@final
class GatheredSends:
    """Sends that were taken from a ``Gathering``, which can be packed like a sequence of uplinks."""

    @property
    def receipts(self) -> list[Any]:
        """The receipts of the sends, in their order."""

    @property
    def nbytes(self) -> int:
        """Encoded bytes of all of them."""

    def encoded(self) -> list[EncodedUplink]:
        """Return a copy of the datapoints of each send."""

    def __len__(self) -> int: ...

def pack_timeseries(
    uplinks: Sequence[EncodedUplink] | GatheredSends,
    *,
    gateway: bool,
    max_size: int,
    max_datapoints: int = 0,
    max_devices: int = 1,
    now_ms: int | None = None,
) -> PackedUplinks:
    """Write the timeseries of many uplinks into few payloads. Attributes of the uplinks are left out.

    Datapoints are grouped by device, then by timestamp, each in order of first appearance, and keep their order inside a group.
    The datapoints that one uplink has in a group are never divided if they fit in one payload, and a new payload begins only
    when they do not fit in the open one. If they do not fit in an empty payload either, or one of them does not, they fill one
    payload after the other. Within one payload the last value of a key and timestamp replaces the first, in its place.

    A device's payload is ``[{"ts":T,"values":{...}},...]``, and a gateway's is ``{"device":[{"ts":T,"values":{...}},...],...}``.
    An uplink with metadata has records of its own:
    ``{"ts":T,"values":{...},"metadata":{"connector":C,"receivedTs":T,"publishedTs":now_ms}}``.

    Datapoints without any timestamp are written as ``{...}`` without ``ts``. The platform gives all of them in one payload the
    same timestamp, and would keep one value of a key: two values of a key without timestamps are always in different payloads.

    Args:
        uplinks: The uplinks, in the order in which they were sent.
        gateway: Whether to write a gateway's payloads. Each uplink must have a device then.
        max_size: Bytes of one payload, 2 or more.
        max_datapoints: Datapoints in one payload, 0 for no limit.
        max_devices: Device entries in one payload, 0 for no limit. Two sub-devices with one name and different profiles never
            share a payload.
        now_ms: Time of publishing in milliseconds since the epoch; needed if an uplink has metadata.

    Returns:
        The payloads. Every datapoint is in exactly one of them, or in ``oversized``.

    Raises:
        OverflowError: A limit is negative.
        TypeError: An element of ``uplinks`` is not an ``EncodedUplink``.
        ValueError: An uplink for a gateway's payload has no device, or one has metadata and ``now_ms`` is missing.
    """

def pack_attributes(
    uplinks: Sequence[EncodedUplink] | GatheredSends,
    *,
    gateway: bool,
    max_size: int,
    max_datapoints: int = 0,
    max_devices: int = 1,
) -> PackedUplinks:
    """Write the attributes of many uplinks into few payloads. Timeseries of the uplinks are left out.

    A device's payload is ``{"key":value,...}``, and a gateway's is ``{"device":{"key":value,...},...}``. Otherwise this does for
    attributes what ``pack_timeseries`` does for datapoints with one timestamp.

    Args:
        uplinks: The uplinks, in the order in which they were sent.
        gateway: Whether to write a gateway's payloads. Each uplink must have a device then.
        max_size: Bytes of one payload, 2 or more.
        max_datapoints: Attributes in one payload, 0 for no limit.
        max_devices: Device entries in one payload, 0 for no limit. Two sub-devices with one name and different profiles never
            share a payload.

    Returns:
        The payloads. Every attribute is in exactly one of them, or in ``oversized``.

    Raises:
        OverflowError: A limit is negative.
        TypeError: An element of ``uplinks`` is not an ``EncodedUplink``.
        ValueError: An uplink for a gateway's payload has no device.
    """

def split_timeseries(
    uplinks: Sequence[EncodedUplink],
    *,
    gateway: bool,
    max_size: int,
    max_datapoints: int = 0,
) -> list[tuple[EncodedUplink, list[tuple[int, int]]]]:
    """Cut the timeseries of many uplinks into uplinks that each fit in a payload with one device.

    The datapoints are divided as ``pack_timeseries`` divides them. A datapoint that fits in no payload becomes an uplink of its
    own. A datapoint without a timestamp has its uplink's ``main_ts`` in the result.

    Args:
        uplinks: The uplinks, none with metadata.
        gateway: Whether the payloads are a gateway's. Each uplink must have a device then.
        max_size: Bytes of one payload, 2 or more.
        max_datapoints: Datapoints in one payload, 0 for no limit.

    Returns:
        The new uplinks, each with its sources as in ``Payload.sources``.

    Raises:
        OverflowError: A limit is negative.
        TypeError: An element of ``uplinks`` is not an ``EncodedUplink``.
        ValueError: An uplink has metadata, or one for a gateway's payload has no device.
    """

def split_attributes(
    uplinks: Sequence[EncodedUplink],
    *,
    gateway: bool,
    max_size: int,
    max_datapoints: int = 0,
) -> list[tuple[EncodedUplink, list[tuple[int, int]]]]:
    """Cut the attributes of many uplinks into uplinks that each fit in a payload with one device.

    The attributes are divided as ``pack_attributes`` divides them. An attribute that fits in no payload becomes an uplink of its
    own.

    Args:
        uplinks: The uplinks.
        gateway: Whether the payloads are a gateway's. Each uplink must have a device then.
        max_size: Bytes of one payload, 2 or more.
        max_datapoints: Attributes in one payload, 0 for no limit.

    Returns:
        The new uplinks, each with its sources as in ``Payload.sources``.

    Raises:
        OverflowError: A limit is negative.
        TypeError: An element of ``uplinks`` is not an ``EncodedUplink``.
        ValueError: An uplink for a gateway's payload has no device.
    """

class StoreError(OSError):
    """A store cannot be opened. The text says why, and what to do."""

class StoreInUseError(StoreError):
    """Another process, or another client of this process, has the store. The text has the id of the process."""

class StoreOwnerError(StoreError):
    """The store has data for another platform or another credential."""

class StoreFormatError(StoreError):
    """Another version of the package wrote the store."""

class NotAStoreError(StoreError):
    """The path is a file, or a directory with other files, or a symbolic link in the way leads to nothing."""

@final
class RecoveredCounts:
    """The unsettled sends that were found when a store was opened, and the damage that was found."""

    @property
    def sends(self) -> int:
        """Number of sends."""
    @property
    def attribute_sends(self) -> int:
        """Number of those sends that have attributes."""
    @property
    def datapoints(self) -> int:
        """Number of datapoints in the sends."""
    @property
    def bytes(self) -> int:
        """Bytes of the datapoints, the sum of the uplinks' ``nbytes``."""
    @property
    def oldest_ms(self) -> int | None:
        """When the oldest send was accepted, in milliseconds since the epoch, or ``None`` without a send."""
    @property
    def damaged_places(self) -> int:
        """Number of damaged stretches of files that were moved to the folder ``quarantine``. Damage is reported once.

        The end of the file that was written last may be torn after a crash; that is not damage.
        """
    @property
    def damaged_bytes(self) -> int:
        """Bytes of these stretches."""
    @property
    def next_number(self) -> int:
        """Number for the next send: larger than all numbers on disk."""

@final
class StoreLog:
    """The log of a disk store: a directory that keeps sends until they are settled.

    A send has a number, which is never used again. After its commit a send is *held*: on disk, and also in the memory of the
    caller. ``release`` puts it into the *backlog*: only on disk. ``read`` takes sends out of the backlog, which are held then.
    *Settled* sends are forgotten; their files are removed when nothing else is in them.

    All methods release the interpreter while they work with the disk. They may be called in any thread, but wait for each other.
    The properties never wait for the disk.
    """

    @staticmethod
    def open(
        path: str | os.PathLike[str],
        owner: str,
        *,
        max_segment_bytes: int = 8388608,
        read_only: bool = False,
        waits: bool = False,
    ) -> StoreLog:
        """Open a store, and recover it after a crash. All its unsettled sends are in the backlog then.

        Args:
            path: The directory; it is created if needed.
            owner: Text that identifies the platform and the credential. It is written to the store in plain text.
            max_segment_bytes: Size at which the log continues in a new file, up to 1 GiB.
            read_only: Change and lock nothing, also while another process has the store. ``owner=""`` accepts any owner then.
                Sends that the other process commits later are not seen.
            waits: Wait while another process has the store. The call cannot be interrupted.

        Returns:
            The log.

        Raises:
            StoreInUseError: Another process, or another client of this process, has the store. In a process that was forked from
                the one that has opened the store, all methods but ``close`` raise it.
            StoreOwnerError: The store has another owner.
            StoreFormatError: The store has another format.
            NotAStoreError: The path is a file, or a directory with other files; the path, its lock or a file of the store is a
                symbolic link to something that does not exist; the lock is not a file. With ``read_only``, also if there is no
                store.
            OSError: The file system failed. Nothing was lost by it.
            ValueError: ``max_segment_bytes`` is out of range.
        """
    @property
    def recovered(self) -> RecoveredCounts:
        """What was found when the store was opened."""
    @property
    def obstacles(self) -> list[str]:
        """Names of the store's files that something else, such as a directory, had when the store was opened.

        Each is a damaged place. It was moved to the folder ``quarantine``, except with ``read_only``.
        """
    @property
    def owner(self) -> str:
        """The owner of the store."""
    def commit(self, sends: Sequence[tuple[EncodedUplink, int, int, int, int]], settled: Sequence[int]) -> None:
        """Write sends to the disk, and that sends are settled, with one write and one sync.

        Sends whose number is in ``settled``, or was settled before, are not written. Settled numbers that are not on disk cost
        nothing. A commit without sends to write is not synced: after a power cut, sends that it settled may be in the backlog.

        Args:
            sends: ``(uplink, number, accepted_ms, priority, expires_ms)`` of each send. Numbers rise, from 1 on. ``priority`` is 0
                for normal, 1 for high and 2 for low, and ``expires_ms`` a time in milliseconds since the epoch, or 0.
            settled: Numbers of sends that need no storing any more.

        Raises:
            OSError: The file system failed (``errno`` says how). None of ``sends`` counts as committed, and the call can be
                repeated. The numbers in ``settled`` stay settled.
            OverflowError: A number is negative or too large.
            TypeError: An element of ``sends`` has another form.
            ValueError: The numbers do not rise, a priority is above 3, the sends have more than 512 MiB of datapoints, or the log
                was closed or opened with ``read_only``.
        """
    def release(self, numbers: Sequence[int]) -> None:
        """Put held sends into the backlog. Numbers that are not held are ignored.

        Args:
            numbers: Numbers of sends that left the memory of the caller, in any order.

        Raises:
            ValueError: The log was closed.
        """
    def read(self, max_bytes: int, max_sends: int, lanes: Sequence[str]) -> list[tuple[EncodedUplink, int, int, int, int]]:
        """Take sends out of the backlog, those with the smallest numbers first. They are held then.

        Damaged sends are skipped and counted.

        Args:
            max_bytes: Most bytes of datapoints to read, the sum of the uplinks' ``nbytes``. One send is read in any case.
            max_sends: Most sends to read.
            lanes: Which sends to read: ``"attributes"`` for those with attributes, and ``"high"``, ``"normal"`` and ``"low"`` for
                those of a priority without attributes.

        Returns:
            ``(uplink, number, accepted_ms, priority, expires_ms)`` of each send, as committed. Empty if the backlog has none.

        Raises:
            OSError: The file system failed, and nothing was read. After three attempts, the place counts as damaged.
            ValueError: The log was closed, or there is no such lane.
        """
    def drop_oldest(self, nbytes: int) -> list[tuple[int, int, bool]]:
        """Settle the oldest sends in the backlog: those of low priority first, and those of high priority last.

        Args:
            nbytes: Bytes of datapoints that the sends must have together, if the backlog has that many. The space on disk is free
                when all sends of a file are settled.

        Returns:
            ``(number, number of datapoints, False)`` of each of these sends.

        Raises:
            OSError: The file system failed, and nothing was dropped.
            ValueError: The log was closed or opened with ``read_only``.
        """
    def drop_due(self, expired_at_ms: int, accepted_ms: tuple[int, int], max_sends: int) -> list[tuple[int, int, bool]]:
        """Settle sends in the backlog that have expired or are too old.

        Args:
            expired_at_ms: A time in milliseconds since the epoch. Sends that expire then or earlier have expired.
            accepted_ms: Two such times. Sends that were accepted from the first one on and before the second one are too old. If
                the oldest send of a file was accepted before the first one, the others of this file are not dropped either.
            max_sends: Most sends to settle.

        Returns:
            ``(number, number of datapoints, has expired)`` of each of these sends.

        Raises:
            OSError: The file system failed, and nothing was dropped.
            ValueError: The log was closed or opened with ``read_only``.
        """
    def devices(self) -> list[tuple[DeviceIdentity | None, int, int, int, int | None]]:
        """Count the unsettled sends by device.

        Returns:
            ``(device, sends, datapoints, bytes, oldest_ms)`` of each device: ``None`` for the connected device itself, and the time
            at which its oldest send was accepted, in milliseconds since the epoch.

        Raises:
            OSError: The file system failed.
            ValueError: The log was closed.
        """
    def verify(self) -> tuple[int, int, int, list[tuple[str, int, int, str]]]:
        """Read all files and check all checksums.

        Returns:
            ``(files, sound frames, their bytes, faults)``. A fault is ``(name of the file, offset, bytes, reason)``. Damage that
            was reported before is not among the faults.

        Raises:
            OSError: The file system failed.
            ValueError: The log was closed.
        """
    def leave_to_parent(self) -> None:
        """Close the files in a process that was forked from the one that has opened the store, which keeps it.

        This does nothing in the other process, and if a thread was using the store at the time of the fork.
        """
    def close(self) -> None:
        """End the log, so that it can be opened again. Nothing happens if it was closed.

        Raises:
            OSError: The last write failed. Nothing that was committed is lost by it, and the log is closed.
        """
    @property
    def backlog_sends(self) -> int:
        """Number of sends in the backlog."""
    @property
    def backlog_attribute_sends(self) -> int:
        """Number of sends in the backlog that have attributes."""
    @property
    def backlog_datapoints(self) -> int:
        """Number of datapoints in the backlog."""
    @property
    def backlog_bytes(self) -> int:
        """Bytes of the datapoints in the backlog, the sum of the uplinks' ``nbytes``."""
    @property
    def backlog_oldest_ms(self) -> int | None:
        """When the oldest send in the backlog was accepted, in milliseconds since the epoch. ``None`` without a backlog."""
    @property
    def backlog_expires_ms(self) -> int | None:
        """A time before which no send in the backlog expires, in milliseconds since the epoch. ``None`` if none expires."""
    @property
    def disk_bytes(self) -> int:
        """Bytes of the files of the log."""
    @property
    def next_number(self) -> int:
        """A number that is larger than all numbers that were committed."""
    @property
    def damaged_places(self) -> int:
        """Number of damaged stretches of files that were found, also when the store was opened."""
    @property
    def damaged_bytes(self) -> int:
        """Bytes of these stretches. They are in the folder ``quarantine``."""
    @property
    def lost_sends(self) -> int:
        """Number of unsettled sends that were lost by damage since the store was opened, as far as it is known."""
    @property
    def lost_datapoints(self) -> int:
        """Number of datapoints in these sends."""

@final
class TokenBuckets:
    """All windows of one rate limit: token buckets that start full, refill continuously and are taken from together.

    Times are integer nanoseconds of one monotonic clock. A clock that goes back refills nothing. Arithmetic is exact:
    over any span of time no bucket admits more than its capacity plus its refill. Several threads may use one object.
    """

    def __new__(cls, windows: Sequence[tuple[int, float]], now_ns: int) -> TokenBuckets:
        """Make full buckets.

        Args:
            windows: ``(capacity in tokens, duration in seconds)`` of each window. No window means no limit.
            now_ns: The time in nanoseconds.

        Raises:
            OverflowError: A capacity is negative or has more than 64 bits.
            ValueError: A capacity is 0, or a duration is not a finite positive number below 584 years.
        """
    @property
    def windows(self) -> list[tuple[int, float]]:
        """``(capacity in tokens, duration in seconds)`` of each window, in the order given."""
    @property
    def smallest_capacity(self) -> int:
        """The largest amount that can be taken at once; 0 without a window, which means no limit."""
    def tokens(self, now_ns: int) -> list[float]:
        """Return the tokens in each window.

        Args:
            now_ns: The time in nanoseconds.

        Returns:
            Tokens, with fractions, in the order of the windows.
        """
    def take(self, amount: int, now_ns: int) -> tuple[int, int, float] | None:
        """Take tokens from every window, or from none.

        Args:
            amount: Tokens to take from each window.
            now_ns: The time in nanoseconds.

        Returns:
            ``None`` when the tokens were taken. Otherwise ``(nanoseconds to wait, capacity, seconds)`` of the window with the
            longest wait: after exactly that wait the tokens are there, unless another caller takes some.

        Raises:
            OverflowError: ``amount`` is negative.
            ValueError: ``amount`` is larger than a capacity, so no wait would help.
        """
    def spend(self, amount: int, now_ns: int, window: int | None = None) -> None:
        """Take up to ``amount`` tokens, to count a message that was sent without taking tokens first.

        Args:
            amount: Tokens to take; a window with fewer is empty afterwards.
            now_ns: The time in nanoseconds.
            window: Index of the only window to take from. ``None`` takes from all.

        Raises:
            IndexError: There is no window with this index.
            OverflowError: ``amount`` or ``window`` is negative.
        """
    def set_windows(self, windows: Sequence[tuple[int, float]], now_ns: int) -> None:
        """Replace the windows. A window with the duration of an earlier one keeps that one's spent tokens.

        Args:
            windows: ``(capacity in tokens, duration in seconds)`` of each window. No window means no limit.
            now_ns: The time in nanoseconds.

        Raises:
            OverflowError: A capacity is negative or has more than 64 bits.
            ValueError: A capacity is 0, or a duration is not a finite positive number below 584 years. Nothing is changed then.
        """

def take_all(requests: Sequence[tuple[TokenBuckets, int]], now_ns: int) -> tuple[int, int, float] | None:
    """Take tokens of several limits: all of them, or none.

    Several threads may name the same limits in different orders.

    Args:
        requests: ``(limit, tokens to take from each of its windows)``, each limit once.
        now_ns: The time in nanoseconds.

    Returns:
        ``None`` when the tokens were taken. Otherwise ``(nanoseconds to wait, capacity, seconds)`` of the window with the longest
        wait of all limits: after exactly that wait the tokens are there, unless another caller takes some.

    Raises:
        OverflowError: An amount is negative.
        ValueError: An amount is larger than a capacity, so no wait would help, or a limit is named twice.
    """
