"""The client of a gateway: its own device, and many sub-devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, overload

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.delivery import Delivery
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.mqtt_topics import (
    GATEWAY_ATTRIBUTES_REQUEST_TOPIC,
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_CLAIM_TOPIC,
    GATEWAY_CONNECT_TOPIC,
    GATEWAY_DISCONNECT_TOPIC,
    GATEWAY_TELEMETRY_TOPIC,
)
from tb_mqtt_client.constants.option_values import Priority, PriorityName
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.entities.gateway.telemetry_metadata import TelemetryMetadata
from tb_mqtt_client.service.delivery.tables import open_table
from tb_mqtt_client.service.delivery.terms import NORMAL
from tb_mqtt_client.service.device.client import ATTRIBUTES_TIMEOUT, DeviceClient
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.gateway.sub_devices import SubDevices
from tb_mqtt_client.service.requests.handlers import F


class GatewayClient(DeviceClient):
    """Connects a gateway and its sub-devices to the platform.

    All methods of ``DeviceClient`` concern the gateway's own device. Sub-devices are announced with ``connect_device``, which
    returns their sessions; a session takes callbacks. Data of several sub-devices is combined in one payload unless
    ``combine_devices`` in the configuration is false. Messages for sub-devices are always published with QoS 1.

    Methods check their session: data for a device that was disconnected or deleted, or that belongs to another gateway, would make
    the platform create the device with the profile "default".
    """

    OPERATIONAL_TIMEOUT = 5.0
    """Seconds that methods for sub-devices wait for a result."""
    SUBSCRIPTIONS_TIMEOUT = 1.0
    """Unused, and kept for programs that read it: a connection is closed if a subscription is not acknowledged."""

    def __init__(self, config: GatewayConfig | DeviceConfig | Mapping[str, Any] | None = None) -> None:
        """Create a client that is not connected yet.

        Args:
            config: The options, as a ``GatewayConfig``, a ``DeviceConfig`` or a dict. ``None`` reads them from environment
                variables.

        Raises:
            ValueError: An option is unknown or has a value that it cannot have.
        """
        gateway_config = _as_gateway_config(config)
        super().__init__(gateway_config)
        self._sub_devices = SubDevices(self._engine, gateway_config)
        self._plain_of_sub_devices = self._sends.intake.plain_of_sub_devices

    @property
    def device_manager(self) -> DeviceManager:
        """The sessions of the sub-devices."""
        return self._sub_devices.manager

    @property
    def event_dispatcher(self) -> DirectEventDispatcher:
        """Takes handlers of events that have no callback of a session: see ``GatewayEventType``."""
        return self._sub_devices.event_dispatcher

    @overload
    async def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = ...,
        wait_for_publish: Literal[False] = ...,
    ) -> tuple[DeviceSession, list[DeliveryFuture]]: ...
    @overload
    async def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = ...,
        *,
        wait_for_publish: Literal[True],
    ) -> tuple[DeviceSession, PublishResult]: ...
    @overload
    async def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = ...,
        wait_for_publish: bool = ...,
    ) -> tuple[DeviceSession, PublishResult | list[DeliveryFuture]]: ...
    async def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = "default",
        wait_for_publish: bool = False,
    ) -> tuple[DeviceSession, PublishResult | list[DeliveryFuture]]:
        """Announce a sub-device to the platform, which creates the device if it does not exist.

        Data for the device is held back until the platform has acknowledged the announcement. An announcement that is refused
        temporarily is repeated at growing intervals, until it is accepted or a bound in the configuration
        (``announce_attempts``, ``announce_timeout``) is reached.

        Args:
            device_name_or_device_connect_message: The device's name, or a message with name and profile.
            device_profile: The profile of a device that is created.
            wait_for_publish: Whether to wait for the result, for at most ``OPERATIONAL_TIMEOUT`` seconds.

        Returns:
            The session, and the ``PublishResult`` or a list with one future of it. Equal names have one session, and so has the
            first name of a renamed device. The session's state is ``CONNECTED`` once the platform has acknowledged. Without an
            acknowledgement in time, the result has the reason code of the last refusal, or -1 if there was none. The future is
            resolved when the announcement is accepted or given up.

        Raises:
            ValueError: The name or the profile is empty, not a ``str``, or too long for the server.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
        """
        message = device_name_or_device_connect_message
        if not isinstance(message, DeviceConnectMessage):
            message = DeviceConnectMessage.build(message, device_profile)
        session, delivery = self._sub_devices.connect_device(message)
        if not wait_for_publish:
            return session, [delivery]
        result = await self._sends.wait_for(delivery, GATEWAY_CONNECT_TOPIC, -1, self.OPERATIONAL_TIMEOUT)
        if result.reason_code == LocalReasonCode.NOT_DELIVERED:
            # Why the platform has not taken the device, which is announced again.
            result = self._sub_devices.announcer.refusal(session) or result
        return session, result

    @overload
    async def disconnect_device(
        self, device_session: DeviceSession, wait_for_publish: Literal[False] = ...
    ) -> tuple[DeviceSession, list[DeliveryFuture]]: ...
    @overload
    async def disconnect_device(
        self, device_session: DeviceSession, wait_for_publish: Literal[True]
    ) -> tuple[DeviceSession, PublishResult]: ...
    @overload
    async def disconnect_device(
        self, device_session: DeviceSession, wait_for_publish: bool = ...
    ) -> tuple[DeviceSession, PublishResult | list[DeliveryFuture]]: ...
    async def disconnect_device(
        self, device_session: DeviceSession, wait_for_publish: bool = False
    ) -> tuple[DeviceSession, PublishResult | list[DeliveryFuture]]:
        """Disconnect a sub-device from the platform, and forget its session.

        Requests of the device that wait for a response end with a ``NotConnectedError``. Queued data of the device is still sent,
        and makes the platform treat the device as connected again: wait for the results of the data first.

        Args:
            device_session: The device.
            wait_for_publish: Whether to wait for the result, for at most ``OPERATIONAL_TIMEOUT`` seconds.

        Returns:
            The session, and the ``PublishResult`` or a list with one future of it.

        Raises:
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is not a ``DeviceSession``; also a ``TypeError``.
            DeviceNotConnectedError: The session is not one of this gateway, or no longer; also a ``ValueError``.
        """
        self._sub_devices.require_session(device_session)
        delivery = self._sub_devices.disconnect_device(device_session)
        if not wait_for_publish:
            return device_session, [delivery]
        return device_session, await self._sends.wait_for(delivery, GATEWAY_DISCONNECT_TOPIC, -1, self.OPERATIONAL_TIMEOUT)

    @overload
    async def send_device_timeseries(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait_for_publish: Literal[True] = ...,
        *,
        metadata: TelemetryMetadata | None = ...,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult: ...
    @overload
    async def send_device_timeseries(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait_for_publish: Literal[False],
        *,
        metadata: TelemetryMetadata | None = ...,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> DeliveryFuture: ...
    @overload
    async def send_device_timeseries(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait_for_publish: bool = ...,
        *,
        metadata: TelemetryMetadata | None = ...,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult | DeliveryFuture: ...
    async def send_device_timeseries(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait_for_publish: bool = True,
        *,
        metadata: TelemetryMetadata | None = None,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | DeliveryFuture:
        """Send timeseries of a sub-device.

        Args:
            device_session: The device: its session, or its name (see ``announce_unknown_devices``).
            data: As for ``send_timeseries``.
            wait_for_publish: Whether to wait for the result, for at most ``OPERATIONAL_TIMEOUT`` seconds.
            metadata: The connector that the data comes from and when it was received, for ThingsBoard 3.8 and later. Such data
                shares no record with data of other calls, which makes payloads larger.
            priority: As for ``send_timeseries``.
            expires_after: As for ``send_timeseries``.

        Returns:
            The ``PublishResult``, or a future of it if ``wait_for_publish`` is false.

        Raises:
            ValueError: The platform cannot store the data (also ``UnsupportedValueError``), ``priority`` is unknown, or
                ``expires_after`` is not positive.
            TypeError: ``metadata`` is not a ``TelemetryMetadata``, or ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: The device is not one of this gateway, or no longer; also a ``ValueError``.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``.
        """
        sends, plain, sub_devices = self._sends, self._plain_of_sub_devices, self._sub_devices
        if priority is NORMAL and expires_after is None and metadata is None and not wait_for_publish and plain is not None:
            gathered = None
            if plain.gathers_in_turn or await sends.begin_gathering(plain):
                gathered = sub_devices.gather_for(plain, device_session, data)
                if gathered is None and not plain.gathers_in_turn and await sends.begin_gathering(plain):
                    # Once a turn: as many sends as make a turn were gathered.
                    gathered = sub_devices.gather_for(plain, device_session, data)
            if gathered is not None:
                return gathered
        terms = sends.terms(priority, expires_after)
        encoded = sub_devices.encode_timeseries_for(device_session, data, metadata)
        delivery = sends.try_accept(encoded, terms) or await sends.accept(encoded, terms)
        if not wait_for_publish:
            return delivery
        return await sends.wait_for(delivery, GATEWAY_TELEMETRY_TOPIC, encoded.nbytes, self.OPERATIONAL_TIMEOUT)

    @overload
    async def send_table(
        self,
        table: Any,
        *,
        ts: str = ...,
        key: str | None = ...,
        value: str | None = ...,
        device: str | None = ...,
        profile: str | None = ...,
        wait_for_publish: Literal[True] = ...,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult: ...
    @overload
    async def send_table(
        self,
        table: Any,
        *,
        ts: str = ...,
        key: str | None = ...,
        value: str | None = ...,
        device: str | None = ...,
        profile: str | None = ...,
        wait_for_publish: Literal[False],
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> list[DeliveryFuture]: ...
    @overload
    async def send_table(
        self,
        table: Any,
        *,
        ts: str = ...,
        key: str | None = ...,
        value: str | None = ...,
        device: str | None = ...,
        profile: str | None = ...,
        wait_for_publish: bool = ...,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult | list[DeliveryFuture]: ...
    async def send_table(
        self,
        table: Any,
        *,
        ts: str = "ts",
        key: str | None = None,
        value: str | None = None,
        device: str | None = None,
        profile: str | None = None,
        wait_for_publish: bool = True,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | list[DeliveryFuture]:
        """Send a table with timeseries of sub-devices, or of the gateway itself.

        The table is read and sent in parts. While this waits for results, a few megabytes of the table are queued. Like other
        sends, it waits while the queues are full, unless ``queue_policy`` in the configuration says otherwise. If it is
        cancelled, rows that were accepted before are delivered. docs/tables.md describes how the types of columns are sent.

        Args:
            table: An object with the Arrow C stream interface (``__arrow_c_stream__``), such as a table of pyarrow, polars, pandas
                (2.2 or later) or nanoarrow, or a relation of DuckDB.
            ts: The column with the times: timestamps with a timezone, or milliseconds since the epoch.
            key: Of a table with one datapoint a row, the column with the keys. Without it, each other column has the values of one
                key, whose name is the column's. Nulls are left out.
            value: The column with the values; needed with ``key``.
            device: The column with the names of sub-devices. Devices that are not known are announced. Without it, all rows are
                data of the gateway itself.
            profile: The column with the profiles of devices that are announced; ``default`` without it, and for null.
            wait_for_publish: Whether to wait for the result.
            priority: As for ``send_timeseries``.
            expires_after: As for ``send_timeseries``.

        Returns:
            The ``PublishResult`` of all datapoints, with the sums of all parts, or a list with one future of it if
            ``wait_for_publish`` is false; that returns when the last row is accepted. A table without a value is a success with
            0 datapoints.

        Raises:
            ValueError: A column is missing, occurs twice, or has a type or a name that the platform cannot store (also
                ``UnsupportedValueError``); a row has no time, or a value that JSON does not have. The text names the column, and
                the row, counted from 0. Rows before it may have been accepted, which a note of the exception says.
            TypeError: ``table`` has no ``__arrow_c_stream__``, or the name of a column is not a ``str``.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``.
            NotImplementedError: The package was built without the cargo feature ``arrow``.
        """
        if device is None and profile is None:
            return await super().send_table(
                table,
                ts=ts,
                key=key,
                value=value,
                wait_for_publish=wait_for_publish,
                priority=priority,
                expires_after=expires_after,
            )
        return await self._sub_devices.send_table(
            lambda: open_table(table, ts, key, value, device, profile, self._engine.config.round_floats),
            wait_for_publish,
            priority,
            expires_after,
        )

    @overload
    async def send_device_attributes(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait_for_publish: Literal[True] = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult: ...
    @overload
    async def send_device_attributes(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait_for_publish: Literal[False],
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> DeliveryFuture: ...
    @overload
    async def send_device_attributes(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait_for_publish: bool = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult | DeliveryFuture: ...
    async def send_device_attributes(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait_for_publish: bool = True,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | DeliveryFuture:
        """Send client attributes of a sub-device.

        Args:
            device_session: The device: its session, or its name (see ``announce_unknown_devices``).
            data: As for ``send_attributes``.
            wait_for_publish: Whether to wait for the result, for at most ``OPERATIONAL_TIMEOUT`` seconds.
            priority: As for ``send_attributes``.
            expires_after: As for ``send_attributes``.

        Returns:
            The ``PublishResult``, or a future of it if ``wait_for_publish`` is false.

        Raises:
            ValueError: The platform cannot store the attributes (also ``UnsupportedValueError``), ``priority`` is unknown, or
                ``expires_after`` is not positive.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: The device is not one of this gateway, or no longer; also a ``ValueError``.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``.
        """
        sends = self._sends
        # In place of a call, since every send passes here.
        terms = None if priority is NORMAL and expires_after is None else sends.terms(priority, expires_after)
        encoded = self._sub_devices.encode_attributes_for(device_session, data)
        delivery = sends.try_accept(encoded, terms) or await sends.accept(encoded, terms)
        if not wait_for_publish:
            return delivery
        return await sends.wait_for(delivery, GATEWAY_ATTRIBUTES_TOPIC, encoded.nbytes, self.OPERATIONAL_TIMEOUT)

    def enqueue_device_timeseries(
        self,
        device_session: DeviceSession | str,
        data: Any,
        *,
        metadata: TelemetryMetadata | None = None,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> Delivery | DeliveryFuture:
        """Send timeseries of a sub-device without waiting, see ``enqueue_timeseries``.

        Args:
            device_session: As for ``send_device_timeseries``.
            data: As for ``send_timeseries``.
            metadata: As for ``send_device_timeseries``.
            priority: As for ``send_timeseries``.
            expires_after: As for ``send_timeseries``.

        Returns:
            The pending ``PublishResult``, see ``enqueue_timeseries``.

        Raises:
            ValueError: As for ``send_device_timeseries``.
            TypeError: As for ``send_device_timeseries``.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: The device is not one of this gateway, or no longer; also a ``ValueError``.
            QueueFullError: The queues are full, see ``enqueue_timeseries``; or the platform refuses the device, and data of refused
                devices takes half of the queue.
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``, or none is running.
        """
        sends, plain, sub_devices = self._sends, self._plain_of_sub_devices, self._sub_devices
        if priority is NORMAL and expires_after is None and metadata is None and plain is not None:
            gathered = sub_devices.gather_delivery_for(plain, device_session, data)
            if gathered is not None:
                return gathered
        terms = sends.terms(priority, expires_after)
        return sends.enqueue(sub_devices.encode_timeseries_for(device_session, data, metadata), terms)

    def enqueue_device_attributes(
        self,
        device_session: DeviceSession | str,
        data: Any,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> Delivery | DeliveryFuture:
        """Send client attributes of a sub-device without waiting, see ``enqueue_timeseries``.

        Args:
            device_session: As for ``send_device_attributes``.
            data: As for ``send_attributes``.
            priority: As for ``send_attributes``.
            expires_after: As for ``send_attributes``.

        Returns:
            The pending ``PublishResult``, see ``enqueue_timeseries``.

        Raises:
            ValueError: As for ``send_device_attributes``.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: The device is not one of this gateway, or no longer; also a ``ValueError``.
            QueueFullError: As for ``enqueue_device_timeseries``.
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``, or none is running.
        """
        sends = self._sends
        terms = None if priority is NORMAL and expires_after is None else sends.terms(priority, expires_after)
        return sends.enqueue(self._sub_devices.encode_attributes_for(device_session, data), terms)

    @overload
    async def send_timeseries_of_devices(
        self,
        data: Mapping[Any, Any],
        wait_for_publish: Literal[True] = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> dict[DeviceSession | str, PublishResult]: ...
    @overload
    async def send_timeseries_of_devices(
        self,
        data: Mapping[Any, Any],
        wait_for_publish: Literal[False],
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> dict[DeviceSession | str, DeliveryFuture]: ...
    @overload
    async def send_timeseries_of_devices(
        self,
        data: Mapping[Any, Any],
        wait_for_publish: bool = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> dict[DeviceSession | str, PublishResult] | dict[DeviceSession | str, DeliveryFuture]: ...
    async def send_timeseries_of_devices(
        self,
        data: Mapping[Any, Any],
        wait_for_publish: bool = True,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> dict[DeviceSession | str, PublishResult] | dict[DeviceSession | str, DeliveryFuture]:
        """Send timeseries of many sub-devices in one call, which costs less than a call for each of them.

        Each device's data is a send of its own, with a result of its own.

        Args:
            data: ``{device: data}``, with the devices and the data of each as for ``send_device_timeseries``.
            wait_for_publish: Whether to wait for the results, for at most ``OPERATIONAL_TIMEOUT`` seconds in all.
            priority: As for ``send_timeseries``.
            expires_after: As for ``send_timeseries``.

        Returns:
            ``{device: PublishResult}`` with the keys of ``data``, or ``{device: future}`` if ``wait_for_publish`` is false.

        Raises:
            ValueError: The platform cannot store the data of a device, which a note of the error names (also
                ``UnsupportedValueError``); there is no device; ``priority`` is unknown, or ``expires_after`` is not positive.
                Nothing is sent then.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: A key is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: A device is not one of this gateway, or no longer; also a ``ValueError``.
            QueueFullError: The queues have no space for all of the data, and ``queue_policy`` is ``raise``. None of it is sent.
        """
        sends = self._sends
        terms = sends.terms(priority, expires_after)
        encoded = self._sub_devices.encode_timeseries_of(data)
        deliveries = await sends.intake.accept_all(encoded, terms)
        if not wait_for_publish:
            return dict(zip(data, deliveries, strict=True))
        sizes = [one.nbytes for one in encoded]
        results = await sends.wait_for_all(deliveries, GATEWAY_TELEMETRY_TOPIC, sizes, self.OPERATIONAL_TIMEOUT)
        return dict(zip(data, results, strict=True))

    @property
    def accepts_names(self) -> bool:
        """Whether names are accepted in place of sessions (``announce_unknown_devices``)."""
        return self._sub_devices.accepts_names

    async def session_of(self, device: DeviceSession | str) -> DeviceSession:
        """Return the session of a sub-device.

        Args:
            device: A session, which is returned as it is, or a name, if the option ``announce_unknown_devices`` is set. A
                device that is not known is announced.

        Returns:
            The session.

        Raises:
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device`` is a name, and the option is not set; also a ``TypeError``.
        """
        return self._sub_devices.session_of(device)

    def encode_device_timeseries(
        self, device_session: DeviceSession, data: Any, *, metadata: TelemetryMetadata | None = None
    ) -> EncodedUplink:
        """Encode timeseries of a sub-device for ``submit``. Any thread may call this.

        Args:
            device_session: The device.
            data: As for ``send_timeseries``. Data without a time gets the current one.
            metadata: As for ``send_device_timeseries``.

        Returns:
            The encoded data, which can be used with this client.

        Raises:
            ValueError: The platform cannot store the data; also ``UnsupportedValueError``.
            TypeError: ``metadata`` is not a ``TelemetryMetadata``.
            NoDeviceSessionError: ``device_session`` is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: The device is not one of this gateway, or no longer; also a ``ValueError``.
        """
        return self._sub_devices.encode_timeseries(device_session, data, metadata)

    def encode_timeseries_of_devices(self, data: Sequence[tuple[DeviceSession, Any]]) -> list[EncodedUplink]:
        """Encode timeseries of several sub-devices for ``submit_many``. Any thread may call this.

        Args:
            data: Session and data of each device, as for ``encode_device_timeseries``.

        Returns:
            The encoded data of each device, in the same order.

        Raises:
            ValueError: The platform cannot store the data of a device, which a note of the error names; also
                ``UnsupportedValueError``.
            NoDeviceSessionError: A session is not a ``DeviceSession``; also a ``TypeError``.
            DeviceNotConnectedError: A device is not one of this gateway, or no longer; also a ``ValueError``.
        """
        return self._sub_devices.encode_timeseries_of_sessions(data)

    def encode_device_attributes(self, device_session: DeviceSession, data: Any) -> EncodedUplink:
        """Encode client attributes of a sub-device for ``submit``. Any thread may call this.

        Args:
            device_session: The device.
            data: As for ``send_attributes``.

        Returns:
            The encoded data, which can be used with this client.

        Raises:
            ValueError: The platform cannot store the attributes; also ``UnsupportedValueError``.
            NoDeviceSessionError: ``device_session`` is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: The device is not one of this gateway, or no longer; also a ``ValueError``.
        """
        return self._sub_devices.encode_attributes(device_session, data)

    @overload
    async def send_device_attributes_request(
        self,
        device_session: DeviceSession | str,
        attribute_request: AttributeRequest,
        wait_for_publish: Literal[True] = ...,
        timeout: float | None = ...,
    ) -> PublishResult: ...
    @overload
    async def send_device_attributes_request(
        self,
        device_session: DeviceSession | str,
        attribute_request: AttributeRequest,
        wait_for_publish: Literal[False],
        timeout: float | None = ...,
    ) -> DeliveryFuture: ...
    @overload
    async def send_device_attributes_request(
        self,
        device_session: DeviceSession | str,
        attribute_request: AttributeRequest,
        wait_for_publish: bool = ...,
        timeout: float | None = ...,
    ) -> PublishResult | DeliveryFuture: ...
    async def send_device_attributes_request(
        self,
        device_session: DeviceSession | str,
        attribute_request: AttributeRequest,
        wait_for_publish: bool = True,
        timeout: float | None = ATTRIBUTES_TIMEOUT,
    ) -> PublishResult | DeliveryFuture:
        """Request attributes of a sub-device; the session's callback for attribute responses gets the response.

        Keys of both scopes are requested in two messages, and returned in one response. Without a response a warning is logged.

        Args:
            device_session: The device: its session, or its name (see ``announce_unknown_devices``).
            attribute_request: The keys to request.
            wait_for_publish: Whether to wait for the result of the messages, for at most ``OPERATIONAL_TIMEOUT`` seconds.
            timeout: Seconds to wait for the response; ``None`` for no limit.

        Returns:
            The ``PublishResult`` of the messages, or a future of it if ``wait_for_publish`` is false.

        Raises:
            ValueError: The request has no key (the platform returns only named attributes of a sub-device), or is too large.
            RuntimeError: The same request object is waiting for its response.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: The device is not one of this gateway, or no longer; also a ``ValueError``.
        """
        device_session = self._sub_devices.session_of(device_session)
        self._sub_devices.require_session(device_session)
        request = await GatewayAttributeRequest.from_attribute_request(device_session, attribute_request)
        device_session.update_last_seen()
        delivery, response = self._sub_devices.requests.attributes(request, timeout)
        self._sub_devices.requests.pass_to_session(request, response)
        if not wait_for_publish:
            return delivery
        return await self._sends.wait_for(delivery, GATEWAY_ATTRIBUTES_REQUEST_TOPIC, -1, self.OPERATIONAL_TIMEOUT)

    async def request_device_attributes(
        self,
        device_session: DeviceSession | str,
        shared_keys: list[str] | None = None,
        client_keys: list[str] | None = None,
        timeout: float | None = ATTRIBUTES_TIMEOUT,
    ) -> GatewayRequestedAttributeResponse:
        """Request attributes of a sub-device, and return the response. ``request_attributes`` requests those of the gateway.

        Args:
            device_session: The device: its session, or its name (see ``announce_unknown_devices``).
            shared_keys: Names of shared attributes.
            client_keys: Names of client attributes.
            timeout: Seconds to wait for the response; ``None`` for no limit.

        Returns:
            The response.

        Raises:
            ValueError: There is no key, or the request is too large.
            TimeoutError: No response arrived in time.
            RequestRefusedError: The platform refuses the request.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: The device is not one of this gateway, or no longer; also a ``ValueError``.
        """
        device_session = self._sub_devices.session_of(device_session)
        self._sub_devices.require_session(device_session)
        request = await GatewayAttributeRequest.build(device_session, shared_keys, client_keys)
        device_session.update_last_seen()
        _, response = self._sub_devices.requests.attributes(request, timeout)
        return await response

    @overload
    async def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait_for_publish: Literal[True] = ...
    ) -> PublishResult: ...
    @overload
    async def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait_for_publish: Literal[False]
    ) -> DeliveryFuture: ...
    @overload
    async def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait_for_publish: bool = ...
    ) -> PublishResult | DeliveryFuture: ...
    async def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait_for_publish: bool = True
    ) -> PublishResult | DeliveryFuture:
        """Allow customers who know the secrets to claim sub-devices: all devices of the request, which may be others than the
        session's.

        Args:
            device_session: The device that must be announced before the request is sent.
            gateway_claim_request: Secrets by device name.
            wait_for_publish: Whether to wait for the result, for at most ``OPERATIONAL_TIMEOUT`` seconds.

        Returns:
            The ``PublishResult``, or a future of it if ``wait_for_publish`` is false. A success means that the platform has
            received the request; the platform does not report whether claiming is allowed.

        Raises:
            TypeError: ``gateway_claim_request`` is not a ``GatewayClaimRequest``.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is not a ``DeviceSession``; also a ``TypeError``.
            DeviceNotConnectedError: The session is not one of this gateway, or no longer; also a ``ValueError``.
        """
        self._sub_devices.require_session(device_session)
        if not isinstance(gateway_claim_request, GatewayClaimRequest):
            raise TypeError(f"gateway_claim_request must be a GatewayClaimRequest, not {gateway_claim_request!r}")
        delivery = self._sub_devices.send_claim_request(device_session, gateway_claim_request)
        if not wait_for_publish:
            return delivery
        return await self._sends.wait_for(delivery, GATEWAY_CLAIM_TOPIC, -1, self.OPERATIONAL_TIMEOUT)

    def rpc(self, *methods: str, devices: str | Iterable[str] | None = None) -> Callable[[F], F]:
        """Return a decorator: the function handles server-side RPC to sub-devices, or to the gateway's own device.

        See ``DeviceClient.rpc``. A function for sub-devices may also have a parameter that is annotated with ``DeviceSession`` or
        ``GatewayRPCRequest``. A handler of the device's session comes first, then one for its name, then the first one for a
        pattern that matches, and then the callback of the session.

        Args:
            methods: The methods. Without any, the function's name is the method.
            devices: The sub-devices: a name, a pattern such as ``"boiler*"`` (wildcards ``*``, ``?`` and ``[...]``), or several of
                them; ``"*"`` for all, also those that are announced later. A renamed device has both its names. ``None`` for the
                gateway's own device.

        Raises:
            TypeError: A method or a name is not a ``str``; in the decorator: the signature of the function is not possible.
            ValueError: A method or a name is empty; in the decorator: the method has a handler for the same ``devices``.
        """
        return super().rpc(*methods) if devices is None else self.device_manager.handlers.of(devices).rpc(methods)

    def on_attribute(self, *keys: str, devices: str | Iterable[str] | None = None) -> Callable[[F], F]:
        """Return a decorator: the function is called when a shared attribute of sub-devices, or of the gateway itself, changes.

        See ``DeviceClient.on_attribute``. A function for sub-devices may also have a parameter that is annotated with
        ``DeviceSession``. The callback of the session, its handlers and those of the gateway are called in this order.

        Args:
            keys: The attributes.
            devices: The sub-devices, as for ``rpc``; ``None`` for the gateway's own device.

        Raises:
            TypeError: A key or a name is not a ``str``; in the decorator: the signature of the function is not possible.
            ValueError: There is no key or no name, or one is empty.
        """
        if devices is None:
            return super().on_attribute(*keys)
        return self.device_manager.handlers.of(devices).on_attribute(keys)

    def remove_handler(self, function: Callable[..., Any]) -> None:
        """Remove a function that was registered with ``rpc`` or ``on_attribute`` of this client, for all devices.

        Args:
            function: The function.

        Raises:
            ValueError: The function is not registered.
        """
        if not self.device_manager.handlers.remove(function):
            super().remove_handler(function)

    def health(self) -> dict[str, Any]:
        """Return the state as ``DeviceClient.health`` does, and ``devices``: the number of registered sub-devices."""
        return super().health() | {"devices": len(self.device_manager.all())}


def _as_gateway_config(config: GatewayConfig | DeviceConfig | Mapping[str, Any] | None) -> GatewayConfig:
    if isinstance(config, GatewayConfig):
        return config
    return GatewayConfig.from_device_config(config) if isinstance(config, DeviceConfig) else GatewayConfig(config)
