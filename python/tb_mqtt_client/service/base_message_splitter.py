"""Splits uplink messages so that each fits in a payload: the common part of the device's and the gateway's splitter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from tb_mqtt_client._native import EncodedUplink, split_attributes, split_timeseries
from tb_mqtt_client.common.async_utils import FutureMap, future_map
from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessage
from tb_mqtt_client.entities.data.lazy_delivery import LazyDelivery, new_delivery

DEFAULT_MAX_PAYLOAD_SIZE = 55000
"""Bytes; the default of SDK 2.0. A connected client uses the size that the server announced."""

Split = Callable[..., list[tuple[EncodedUplink, list[tuple[int, int]]]]]
MessageT = TypeVar("MessageT", bound=DeviceUplinkMessage)


class BaseMessageSplitter(ABC):
    """The limits of a payload, and the splitting by them."""

    @property
    @abstractmethod
    def max_payload_size(self) -> int:
        """The bytes of a payload."""

    @max_payload_size.setter
    @abstractmethod
    def max_payload_size(self, value: int | None) -> None: ...

    @property
    @abstractmethod
    def max_datapoints(self) -> int:
        """The datapoints in a payload, 0 for no limit."""

    @max_datapoints.setter
    @abstractmethod
    def max_datapoints(self, value: int | None) -> None: ...

    @property
    @abstractmethod
    def payload_budget(self) -> int:
        """The bytes that packing may use."""

    @abstractmethod
    def split_timeseries(self, *args: Any, **kwargs: Any) -> Any:
        """Split timeseries."""

    @abstractmethod
    def split_attributes(self, *args: Any, **kwargs: Any) -> Any:
        """Split attributes."""


class UplinkSplitter(BaseMessageSplitter, Generic[MessageT]):
    """Splits messages of one class. ``MAX_PAYLOAD_SIZE_MARGIN`` is subtracted from the size that is set."""

    DEFAULT_MAX_PAYLOAD_SIZE = DEFAULT_MAX_PAYLOAD_SIZE
    MAX_PAYLOAD_SIZE_MARGIN = 0
    _gateway: bool
    _message_class: type[MessageT]

    def __init__(
        self,
        max_payload_size: int | None = DEFAULT_MAX_PAYLOAD_SIZE,
        max_datapoints: int | None = 0,
        *,
        futures: FutureMap = future_map,
    ) -> None:
        self._futures = futures
        self.max_payload_size = max_payload_size
        self.max_datapoints = max_datapoints

    @property
    def max_payload_size(self) -> int:
        """The bytes of a payload. Setting ``None``, 0 or less restores the default."""
        return self._max_payload_size

    @max_payload_size.setter
    def max_payload_size(self, value: int | None) -> None:
        size = value if value is not None and value > 0 else self.DEFAULT_MAX_PAYLOAD_SIZE
        self._max_payload_size = size - self.MAX_PAYLOAD_SIZE_MARGIN

    @property
    def max_datapoints(self) -> int:
        """The datapoints in a payload, 0 for no limit. Setting ``None``, 0 or less sets 0."""
        return self._max_datapoints

    @max_datapoints.setter
    def max_datapoints(self, value: int | None) -> None:
        self._max_datapoints = value if value is not None and value > 0 else 0

    @property
    def payload_budget(self) -> int:
        """The bytes that packing may use: all that were set, because sizes are exact."""
        return self._max_payload_size + self.MAX_PAYLOAD_SIZE_MARGIN

    def split_timeseries(self, messages: Sequence[MessageT]) -> list[MessageT]:
        """Split and merge timeseries by device.

        Args:
            messages: The messages. Their futures are resolved when the futures of the returned messages are.

        Returns:
            Messages that fit in a payload each, unless a single datapoint does not. A single message that fits is returned itself.
        """
        return self._split([message for message in messages if message.has_timeseries()], split_timeseries)

    def split_attributes(self, messages: Sequence[MessageT]) -> list[MessageT]:
        """Split and merge attributes by device, as ``split_timeseries`` does with timeseries."""
        return self._split([message for message in messages if message.has_attributes()], split_attributes)

    def _split(self, messages: Sequence[MessageT], split: Split) -> list[MessageT]:
        if not messages:
            return []
        parts = split(
            [message.encoded for message in messages],
            gateway=self._gateway,
            max_size=self._max_payload_size,
            max_datapoints=self._max_datapoints,
        )
        if len(messages) == len(parts) == 1 and not (messages[0].has_attributes() and messages[0].has_timeseries()):
            return [messages[0]]
        return self._tied([(encoded, [messages[index] for index, _ in sources]) for encoded, sources in parts])

    def _tied(self, parts: list[tuple[EncodedUplink, list[MessageT]]]) -> list[MessageT]:
        """Return the messages of the parts. Their futures are made all at once, when the first one is requested."""

        def make_all() -> None:
            for part, (_, sources) in zip(deliveries, parts, strict=True):
                delivery = new_delivery()
                part.set(delivery)
                for parent in dict.fromkeys(parent for source in sources for parent in source.get_delivery_futures()):
                    self._futures.register(parent, [delivery])

        deliveries = [LazyDelivery(make_all) for _ in parts]
        return [
            self._message_class.wrap(encoded, delivery if any(source.has_delivery_futures for source in sources) else ())
            for delivery, (encoded, sources) in zip(deliveries, parts, strict=True)
        ]
