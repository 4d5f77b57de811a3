"""Datapoints of one device on their way to the platform."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import FrozenInstanceError
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeAlias

from tb_mqtt_client._native import AttributeEntry, DeviceIdentity, EncodedUplink, TimeseriesEntry
from tb_mqtt_client.entities.data.lazy_delivery import Futures, LazyDelivery

DEFAULT_FIELDS_SIZE = 70
"""Bytes that ``size`` counts for a message without entries."""

Time: TypeAlias = float | datetime | None
"""Milliseconds since the epoch, or a ``datetime`` with a timezone."""


class DeviceUplinkMessage:
    """Encoded datapoints, and the futures that are answered when they are delivered. Made by the builder; frozen."""

    __slots__ = ("_deliveries", "_size", "encoded", "names")

    FIELDS_SIZE: ClassVar[int] = DEFAULT_FIELDS_SIZE
    BUILDER: ClassVar[str] = "DeviceUplinkMessageBuilder"

    encoded: EncodedUplink
    """The datapoints."""
    names: tuple[str | None, str | None]
    """Device name and profile as they were given."""
    _deliveries: Futures | LazyDelivery
    _size: int | None

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        raise TypeError(f"Direct instantiation of {cls.__name__} is not allowed. Use {cls.BUILDER} to construct instances.")

    @classmethod
    def wrap(cls, encoded: EncodedUplink, delivery_futures: Iterable[asyncio.Future[Any]] | LazyDelivery = ()) -> Self:
        """A message of datapoints that are encoded already."""
        device = encoded.device
        return cls._made(encoded, (device.name, device.profile) if device else (None, None), delivery_futures)

    @classmethod
    def build(
        cls,
        device_name: str | None,
        device_profile: str | None,
        attributes: Sequence[AttributeEntry],
        timeseries: Mapping[int, Sequence[TimeseriesEntry]],
        delivery_futures: Sequence[asyncio.Future[Any]] | LazyDelivery,
        size: int | None = None,
        main_ts: Time = None,
    ) -> Self:
        """Make a message of entries.

        ``timeseries`` holds entries by timestamp in milliseconds, those without one under any key. ``size`` is kept as it is given;
        without it the size is computed from the entries.
        """
        device = DeviceIdentity(device_name, device_profile or "default") if device_name else None
        entries = [entry for group in timeseries.values() for entry in group]
        encoded = EncodedUplink.of_entries(attributes, entries, main_ts, device)
        return cls._made(encoded, (device_name, device_profile), delivery_futures, size)

    @classmethod
    def _made(
        cls,
        encoded: EncodedUplink,
        names: tuple[str | None, str | None],
        futures: Iterable[asyncio.Future[Any]] | LazyDelivery,
        size: int | None = None,
    ) -> Self:
        message = object.__new__(cls)
        message._set("encoded", encoded)
        message._set("names", names)
        message._set("_deliveries", futures if isinstance(futures, LazyDelivery) else tuple(futures))
        message._set("_size", size)
        return message

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has the datapoints; who waits for them waits for the original."""
        encoded = self.encoded
        entries = encoded.attribute_entries(), encoded.timeseries_entries()
        return _restored, (type(self), self.names, *entries, self._size, encoded.main_ts)

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    @property
    def device_name(self) -> str | None:
        """Name of the device."""
        return self.names[0]

    @property
    def device_profile(self) -> str | None:
        """Profile of the device."""
        return self.names[1]

    @property
    def attributes(self) -> tuple[AttributeEntry, ...]:
        """The attributes, as new entries."""
        return self.encoded.attribute_entries()

    @property
    def timeseries(self) -> Mapping[int, tuple[TimeseriesEntry, ...]]:
        """Entries by timestamp in order of first appearance, those without one under 0; as new entries."""
        groups: dict[int, tuple[TimeseriesEntry, ...]] = {}
        for entry in self.encoded.timeseries_entries():
            groups[entry.ts or 0] = (*groups.get(entry.ts or 0, ()), entry)
        return MappingProxyType(groups)

    @property
    def main_ts(self) -> int | None:
        """Milliseconds since the epoch that entries without a timestamp get."""
        return self.encoded.main_ts

    @property
    def size(self) -> int:
        """The size that ``build`` was given, or an estimate that counts each entry alone. Packing does not use it."""
        if self._size is not None:
            return self._size
        names = sum(len(name) for name in self.names if name is not None)
        return self.FIELDS_SIZE + names + self.encoded.entries_size

    def timeseries_datapoint_count(self) -> int:
        """Number of timeseries datapoints."""
        return self.encoded.timeseries_count

    def attributes_datapoint_count(self) -> int:
        """Number of attributes."""
        return self.encoded.attribute_count

    def has_attributes(self) -> bool:
        """Whether there are attributes."""
        return self.encoded.attribute_count > 0

    def has_timeseries(self) -> bool:
        """Whether there are timeseries datapoints."""
        return self.encoded.timeseries_count > 0

    @property
    def delivery_futures(self) -> Futures:
        """The futures that are answered when the datapoints are delivered. A default one is made when it is asked for."""
        deliveries = self._deliveries
        return deliveries.get() if isinstance(deliveries, LazyDelivery) else deliveries

    @property
    def has_delivery_futures(self) -> bool:
        """Whether there are futures, or will be when they are asked for."""
        return bool(self._deliveries)

    def get_delivery_futures(self) -> Futures:
        """The futures that are answered when the datapoints are delivered."""
        return self.delivery_futures

    def set_main_ts(self, main_ts: Time) -> Self:
        """Change ``main_ts`` in place, the one thing that may change."""
        self._set("encoded", self.encoded.with_main_ts(main_ts))
        return self

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(device_name={self.device_name}, device_profile={self.device_profile}, "
            f"attributes={self.attributes}, timeseries={dict(self.timeseries)}, delivery_futures={self._futures_so_far()})"
        )

    def _futures_so_far(self) -> Futures:
        deliveries = self._deliveries
        return deliveries.made() if isinstance(deliveries, LazyDelivery) else deliveries


def _restored(
    cls: type[DeviceUplinkMessage],
    names: tuple[str | None, str | None],
    attributes: Sequence[AttributeEntry],
    timeseries: Sequence[TimeseriesEntry],
    size: int | None,
    main_ts: int | None,
) -> DeviceUplinkMessage:
    return cls.build(*names, attributes, {0: timeseries}, (), size, main_ts)


class DeviceUplinkMessageBuilder:
    """Collects what a message is made of. All setters return the builder."""

    _message_class: type[DeviceUplinkMessage] = DeviceUplinkMessage
    _default_profile: str | None = None

    def __init__(self) -> None:
        self._device_name: str | None = None
        self._device_profile: str | None = None
        self._attributes: list[AttributeEntry] = []
        self._timeseries: OrderedDict[int, list[TimeseriesEntry]] = OrderedDict()
        self._delivery_futures: list[asyncio.Future[Any]] = []
        self._default_delivery = LazyDelivery()
        self._main_ts: Time = None

    def set_device_name(self, device_name: str) -> Self:
        """Name of the device."""
        self._device_name = device_name
        return self

    def set_device_profile(self, profile: str) -> Self:
        """Profile of the device."""
        self._device_profile = profile
        return self

    def add_attributes(self, attributes: AttributeEntry | list[AttributeEntry]) -> Self:
        """Add one attribute or several."""
        self._attributes += attributes if isinstance(attributes, list) else [attributes]
        return self

    def add_timeseries(self, timeseries: TimeseriesEntry | list[TimeseriesEntry] | OrderedDict[int, list[TimeseriesEntry]]) -> Self:
        """Add one entry or several; an ``OrderedDict`` of entries by timestamp replaces all."""
        if isinstance(timeseries, OrderedDict):
            self._timeseries = OrderedDict((ts, list(entries)) for ts, entries in timeseries.items())
            return self
        for entry in timeseries if isinstance(timeseries, list) else [timeseries]:
            self._timeseries.setdefault(entry.ts or 0, []).append(entry)
        return self

    def add_delivery_futures(self, futures: asyncio.Future[Any] | list[asyncio.Future[Any]]) -> Self:
        """Add futures that are answered when the datapoints are delivered."""
        self._delivery_futures += futures if isinstance(futures, list) else [futures]
        return self

    def set_main_ts(self, main_ts: Time) -> Self:
        """Set the time of entries without one: milliseconds since the epoch, or a ``datetime`` with a timezone."""
        self._main_ts = main_ts
        return self

    def build(self) -> DeviceUplinkMessage:
        """Return the message. Without a future it gets one when it is asked for, which all messages of this builder share."""
        return self._message_class.build(
            self._device_name,
            self._device_profile or self._default_profile,
            self._attributes,
            self._timeseries,
            self._delivery_futures or self._default_delivery,
            None,
            self._main_ts,
        )
