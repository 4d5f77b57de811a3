"""Messages with telemetry and attributes of one device."""

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
"""Bytes: the ``size`` of a message without entries and names."""

Time: TypeAlias = float | datetime | None
"""Milliseconds since the epoch, or a ``datetime`` with a timezone."""


class DeviceUplinkMessage:
    """Encoded datapoints and their delivery futures, made by ``DeviceUplinkMessageBuilder``. Immutable except for ``main_ts``."""

    __slots__ = ("_deliveries", "_size", "encoded", "names")

    FIELDS_SIZE: ClassVar[int] = DEFAULT_FIELDS_SIZE
    BUILDER: ClassVar[str] = "DeviceUplinkMessageBuilder"

    encoded: EncodedUplink
    """The encoded datapoints."""
    names: tuple[str | None, str | None]
    """The device name and profile, each as it was passed or ``None``."""
    _deliveries: Futures | LazyDelivery
    _size: int | None

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        raise TypeError(f"Direct instantiation of {cls.__name__} is not allowed. Use {cls.BUILDER} to construct instances.")

    @classmethod
    def wrap(cls, encoded: EncodedUplink, delivery_futures: Iterable[asyncio.Future[Any]] | LazyDelivery = ()) -> Self:
        """Make a message of encoded datapoints.

        Args:
            encoded: The datapoints, with their device.
            delivery_futures: Futures that the result of the delivery resolves.
        """
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

        Args:
            device_name: The device's name; ``None`` for the client's own device.
            device_profile: The device's profile; ``None`` for ``"default"``.
            attributes: The attributes.
            timeseries: The timeseries entries by timestamp in milliseconds. The keys are not used: each entry has its own time.
            delivery_futures: Futures that the result of the delivery resolves.
            size: The value of the property ``size``; ``None`` to compute it from the entries.
            main_ts: The time of entries without a timestamp; ``None`` if the server is to set it.

        Raises:
            ValueError: An entry or ``main_ts`` is not valid.
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
        """Copy and pickle the datapoints without the futures, which the delivery of the original resolves."""
        encoded = self.encoded
        entries = encoded.attribute_entries(), encoded.timeseries_entries()
        return _restored, (type(self), self.names, *entries, self._size, encoded.main_ts)

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    @property
    def device_name(self) -> str | None:
        """The name of the device."""
        return self.names[0]

    @property
    def device_profile(self) -> str | None:
        """The profile of the device."""
        return self.names[1]

    @property
    def attributes(self) -> tuple[AttributeEntry, ...]:
        """The attributes, as new entries."""
        return self.encoded.attribute_entries()

    @property
    def timeseries(self) -> Mapping[int, tuple[TimeseriesEntry, ...]]:
        """The timeseries as new entries by timestamp, in order of first appearance. Entries without a timestamp have the key 0."""
        groups: dict[int, tuple[TimeseriesEntry, ...]] = {}
        for entry in self.encoded.timeseries_entries():
            groups[entry.ts or 0] = (*groups.get(entry.ts or 0, ()), entry)
        return MappingProxyType(groups)

    @property
    def main_ts(self) -> int | None:
        """The time of entries without a timestamp, in milliseconds since the epoch."""
        return self.encoded.main_ts

    @property
    def size(self) -> int:
        """Bytes: the size passed to ``build``, or an estimate that counts each entry separately. Packing does not use it."""
        if self._size is not None:
            return self._size
        names = sum(len(name) for name in self.names if name is not None)
        return self.FIELDS_SIZE + names + self.encoded.entries_size

    def timeseries_datapoint_count(self) -> int:
        """Return the number of timeseries datapoints."""
        return self.encoded.timeseries_count

    def attributes_datapoint_count(self) -> int:
        """Return the number of attributes."""
        return self.encoded.attribute_count

    def has_attributes(self) -> bool:
        """Return True if the message has attributes."""
        return self.encoded.attribute_count > 0

    def has_timeseries(self) -> bool:
        """Return True if the message has timeseries datapoints."""
        return self.encoded.timeseries_count > 0

    @property
    def delivery_futures(self) -> Futures:
        """The futures that the result of the delivery resolves. If none were added, one is made on demand."""
        deliveries = self._deliveries
        return deliveries.get() if isinstance(deliveries, LazyDelivery) else deliveries

    @property
    def has_delivery_futures(self) -> bool:
        """True if the message has futures, or makes one on demand."""
        return bool(self._deliveries)

    def get_delivery_futures(self) -> Futures:
        """Return ``delivery_futures``."""
        return self.delivery_futures

    def set_main_ts(self, main_ts: Time) -> Self:
        """Change the time of entries without a timestamp, in place.

        Args:
            main_ts: Milliseconds since the epoch, a ``datetime`` with a timezone, or ``None`` to let the server set it.

        Returns:
            The message itself.

        Raises:
            ValueError: ``main_ts`` is not valid.
        """
        self._set("encoded", self.encoded.with_main_ts(main_ts))
        return self

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(device_name={self.device_name}, device_profile={self.device_profile}, "
            f"attributes={self.attributes}, timeseries={dict(self.timeseries)}, delivery_futures={self._made_futures()})"
        )

    def _made_futures(self) -> Futures:
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
    """Collects the parts of a ``DeviceUplinkMessage``. All methods except ``build`` return the builder."""

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
        """Set the name of the device."""
        self._device_name = device_name
        return self

    def set_device_profile(self, profile: str) -> Self:
        """Set the profile of the device."""
        self._device_profile = profile
        return self

    def add_attributes(self, attributes: AttributeEntry | list[AttributeEntry]) -> Self:
        """Add one attribute or a list of attributes."""
        self._attributes += attributes if isinstance(attributes, list) else [attributes]
        return self

    def add_timeseries(self, timeseries: TimeseriesEntry | list[TimeseriesEntry] | OrderedDict[int, list[TimeseriesEntry]]) -> Self:
        """Add one entry or a list of entries. An ``OrderedDict`` of entries by timestamp in milliseconds replaces all entries."""
        if isinstance(timeseries, OrderedDict):
            self._timeseries = OrderedDict((ts, list(entries)) for ts, entries in timeseries.items())
            return self
        for entry in timeseries if isinstance(timeseries, list) else [timeseries]:
            self._timeseries.setdefault(entry.ts or 0, []).append(entry)
        return self

    def add_delivery_futures(self, futures: asyncio.Future[Any] | list[asyncio.Future[Any]]) -> Self:
        """Add one future or a list of futures that the result of the delivery resolves."""
        self._delivery_futures += futures if isinstance(futures, list) else [futures]
        return self

    def set_main_ts(self, main_ts: Time) -> Self:
        """Set the time of entries without a timestamp: milliseconds since the epoch, or a ``datetime`` with a timezone."""
        self._main_ts = main_ts
        return self

    def build(self) -> DeviceUplinkMessage:
        """Return a message with the parts.

        If no future was added, all messages of this builder share one that is made on demand.

        Raises:
            ValueError: An entry or ``main_ts`` is not valid.
        """
        return self._message_class.build(
            self._device_name,
            self._device_profile or self._default_profile,
            self._attributes,
            self._timeseries,
            self._delivery_futures or self._default_delivery,
            None,
            self._main_ts,
        )
