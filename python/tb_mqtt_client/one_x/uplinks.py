"""Encodes telemetry and attributes in all forms that SDK 1.x accepts.

The core gets the data first, as it is. Only if it refuses the data, the functions here look at each record and each datapoint: they
convert types that SDK 1.x accepted, and leave out the datapoints that the platform would acknowledge and lose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink, TimeseriesEntry, dumps, validate_key
from tb_mqtt_client.common.timing import now_ms as clock_ms
from tb_mqtt_client.one_x.values import plain_key, plain_value

Metadata = tuple[str, int]
"""Name of a connector, and the time at which it received the data, in milliseconds since the epoch."""


@dataclass
class Encoded:
    """The data of one send: uplinks for the core, and the datapoints that were left out."""

    uplinks: list[EncodedUplink] = field(default_factory=list)
    """Nothing if the data has no datapoint: SDK 1.x then sent nothing and reported success."""
    refused: list[str] = field(default_factory=list)
    """One text for each datapoint that the platform would not store, with its key and the reason."""


def encode_timeseries(
    data: Any, now_ms: int | None, device: DeviceIdentity | None = None, *, round_floats: bool = True, refuses_types: bool = False
) -> Encoded:
    """Encode telemetry.

    Args:
        data: ``{key: value}``, ``{"ts": ts, "values": {key: value}}``, or a list of these; records may have ``metadata``. Anything
            else counts as no data, as in SDK 1.x.
        now_ms: The time of records that have none, in milliseconds since the epoch; ``None`` to let the platform set the time of
            their arrival.
        device: The sub-device, or ``None`` for the connected device.
        round_floats: As the option of the client.
        refuses_types: Whether values of types that SDK 1.x did not accept are refused alone, instead of raising.

    Returns:
        The uplinks. Records with different ``metadata`` are in different uplinks.

    Raises:
        TypeError: A value has a type that SDK 1.x did not accept, either.
    """
    try:
        uplink = EncodedUplink.timeseries(data, now_ms, device, round_floats)
    except (ValueError, TypeError):
        encoded = _encode_records(data, now_ms, device, round_floats, refuses_types)
    else:
        encoded = Encoded([uplink])
    if now_ms is None and any(uplink.key_that_needs_ts() is not None for uplink in encoded.uplinks):
        # The platform would take these keys for parts of the record.
        return encode_timeseries(data, clock_ms(), device, round_floats=round_floats, refuses_types=refuses_types)
    return encoded


def encode_attributes(
    data: Any, device: DeviceIdentity | None = None, *, round_floats: bool = True, refuses_types: bool = False
) -> Encoded:
    """Encode client attributes.

    Args:
        data: ``{key: value}``, or a list of these. Anything else counts as no data, as in SDK 1.x.
        device: The sub-device, or ``None`` for the connected device.
        round_floats: As the option of the client.
        refuses_types: As for ``encode_timeseries``.

    Returns:
        The uplinks, one for each dict.

    Raises:
        TypeError: A value has a type that SDK 1.x did not accept, either.
    """
    encoded = Encoded()
    for one in dicts(data):
        try:
            encoded.uplinks.append(EncodedUplink.attributes(one, device, round_floats))
        except (ValueError, TypeError):
            values = _storable(one, encoded.refused, refuses_types)
            if values:
                encoded.uplinks.append(EncodedUplink.attributes(values, device, round_floats))
    return encoded


def dicts(data: Any) -> Iterator[Mapping[Any, Any]]:
    if isinstance(data, Mapping):
        yield data
    elif isinstance(data, list | tuple):
        yield from (one for one in data if isinstance(one, Mapping))


def _encode_records(
    data: Any, now_ms: int | None, device: DeviceIdentity | None, round_floats: bool, refuses_types: bool
) -> Encoded:
    encoded = Encoded()
    by_metadata: dict[Metadata | None, list[dict[str, Any]]] = {}
    for record in dicts(data):
        has_time = "ts" in record and isinstance(record.get("values"), Mapping)
        values = _storable(record["values"] if has_time else record, encoded.refused, refuses_types)
        if not values:
            continue
        metadata = _metadata(record.get("metadata")) if device is not None else None
        if not has_time:
            made: dict[str, Any] = {"ts": now_ms, "values": values}
        else:
            try:
                made = {"ts": _time(record["ts"]), "values": values}
            except (TypeError, ValueError) as error:
                encoded.refused += [f"{key!r}: {error}" for key in values]
                continue
        by_metadata.setdefault(metadata, []).append(made)
    for metadata, records in by_metadata.items():
        encoded.uplinks.append(EncodedUplink.timeseries(records, now_ms, device, round_floats, metadata))
    return encoded


def _metadata(given: Any) -> Metadata | None:
    """Return the metadata of a record if the platform accepts it; otherwise ``None``, and the record travels without it."""
    if not isinstance(given, Mapping):
        return None
    connector, received = given.get("connector"), given.get("receivedTs")
    if not isinstance(connector, str) or isinstance(received, bool) or not isinstance(received, int | float):
        return None
    return str(connector), int(received)


def _time(ts: Any) -> float | datetime | None:
    """Return the time of a record as the core takes it; ``None`` stands for no time there, too.

    Raises:
        TypeError: It has a type that is not a time.
        ValueError: The platform cannot store datapoints of this time.
    """
    if isinstance(ts, str):
        # The platform reads digits as a number, and closes the connection for other text (docs/platform_contract.md, section 8).
        if not ts.removeprefix("-").isdecimal():
            raise ValueError(f"ts must be milliseconds since the epoch, not {ts!r}")
        ts = int(ts)
    elif isinstance(ts, int | float) and not isinstance(ts, bool):
        ts = plain_value(ts)
    TimeseriesEntry("ts", 0, ts)
    return ts  # type: ignore[no-any-return]


def _storable(data: Mapping[Any, Any], refused: list[str], refuses_types: bool) -> dict[str, Any]:
    """Return the datapoints that the platform stores, as JSON values.

    Raises:
        TypeError: A key or a value has a type that SDK 1.x did not accept, either, and ``refuses_types`` is false.
    """
    kept = {}
    for key, value in data.items():
        try:
            name, plain = plain_key(key), plain_value(value)
        except TypeError as error:
            if not refuses_types:
                raise
            refused.append(f"{key!r}: {error}")
            continue
        try:
            validate_key(name)
            dumps(plain)
        except ValueError as error:
            refused.append(f"{name!r}: {error}")
        else:
            kept[name] = plain
    return kept
