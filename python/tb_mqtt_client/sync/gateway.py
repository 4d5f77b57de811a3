"""The synchronous client of a gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, cast, overload

from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_ATTRIBUTES_TOPIC, GATEWAY_TELEMETRY_TOPIC
from tb_mqtt_client.constants.option_values import Priority, PriorityName
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.entities.gateway.telemetry_metadata import TelemetryMetadata
from tb_mqtt_client.entities.gateway_event import GatewayEventType
from tb_mqtt_client.service.gateway import client as service
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.requests.handlers import F
from tb_mqtt_client.sync.device import ATTRIBUTES_TIMEOUT, Callback, DeviceClient
from tb_mqtt_client.sync.device_session import DeviceSession
from tb_mqtt_client.sync.pending import Delivery
from tb_mqtt_client.sync.runtime import Runtime, plain_only


class EventDispatcher:
    """Takes handlers of events that have no callback of a session: see ``GatewayEventType``."""

    def __init__(self, dispatcher: DirectEventDispatcher, runtime: Runtime) -> None:
        """Create the dispatcher of a synchronous gateway.

        Args:
            dispatcher: The dispatcher of its asyncio client.
            runtime: Calls the handlers.
        """
        self._dispatcher = dispatcher
        self._runtime = runtime
        self._handlers: dict[tuple[GatewayEventType, Callback], Callable[..., Awaitable[Any]]] = {}

    def register(self, event_type: GatewayEventType, callback: Callback) -> None:
        """Add a handler, unless it is registered already.

        Args:
            event_type: The type of events.
            callback: A plain function that gets the event. It is called in the gateway's thread for callbacks.

        Raises:
            TypeError: ``callback`` cannot be called, or is a coroutine function.
        """
        handler = self._handlers.setdefault((event_type, callback), self._runtime.bridge("callback", callback))
        self._dispatcher.register(event_type, handler)

    def unregister(self, event_type: GatewayEventType, callback: Callback) -> None:
        """Remove a handler, if it is registered."""
        handler = self._handlers.pop((event_type, callback), None)
        if handler is not None:
            self._dispatcher.unregister(event_type, handler)


class GatewayClient(DeviceClient):
    """Connects a gateway and its sub-devices to the platform; for programs with threads.

    All methods of ``DeviceClient`` concern the gateway's own device. Sub-devices are announced with ``connect_device``, which
    returns their sessions; a session takes callbacks. Data of several sub-devices is combined in one payload unless
    ``combine_devices`` in the configuration is false. Messages for sub-devices are always published with QoS 1.

    Methods check their session: data for a device that was disconnected or deleted, or that belongs to another gateway, would make
    the platform create the device with the profile "default".
    """

    OPERATIONAL_TIMEOUT = 5.0
    """Seconds that methods for sub-devices wait for a result."""

    def __init__(self, config: GatewayConfig | DeviceConfig | Mapping[str, Any] | None = None) -> None:
        """Create a client that is not connected yet.

        Args:
            config: The options, as a ``GatewayConfig``, a ``DeviceConfig`` or a dict. ``None`` reads them from environment
                variables.

        Raises:
            ValueError: An option is unknown or has a value that it cannot have.
        """
        super().__init__(config)
        self._gateway = cast("service.GatewayClient", self._core)
        self._gateway.device_manager.make_session = lambda info: DeviceSession(info, self._runtime.callbacks)
        self._event_dispatcher = EventDispatcher(self._gateway.event_dispatcher, self._runtime)

    def _make_core(self, config: Any) -> service.GatewayClient:
        return service.GatewayClient(config)

    @property
    def device_manager(self) -> DeviceManager:
        """The sessions of the sub-devices, to be read only."""
        return self._gateway.device_manager

    @property
    def event_dispatcher(self) -> EventDispatcher:
        """Takes handlers of events that have no callback of a session: see ``GatewayEventType``."""
        return self._event_dispatcher

    @overload
    def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = ...,
        wait: Literal[False] = ...,
    ) -> tuple[DeviceSession, Delivery]: ...
    @overload
    def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = ...,
        *,
        wait: Literal[True],
    ) -> tuple[DeviceSession, PublishResult]: ...
    @overload
    def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = ...,
        wait: bool = ...,
    ) -> tuple[DeviceSession, PublishResult | Delivery]: ...
    def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = "default",
        wait: bool = False,
    ) -> tuple[DeviceSession, PublishResult | Delivery]:
        """Announce a sub-device to the platform, which creates the device if it does not exist.

        Data for the device is held back until the platform has acknowledged the announcement. An announcement that is refused
        temporarily is repeated at growing intervals, until it is accepted or a bound in the configuration
        (``announce_attempts``, ``announce_timeout``) is reached.

        Args:
            device_name_or_device_connect_message: The device's name, or a message with name and profile.
            device_profile: The profile of a device that is created.
            wait: Whether to wait for the result, for at most ``OPERATIONAL_TIMEOUT`` seconds.

        Returns:
            The session, and the ``PublishResult``, or a ``Delivery`` if ``wait`` is false. Equal names have one session, and so has
            the first name of a renamed device. The session's state is ``CONNECTED`` once the platform has acknowledged. Without an
            acknowledgement in time, the result has the reason code of the last refusal, or -1 if there was none. The delivery is
            done when the announcement is accepted or given up.

        Raises:
            ValueError: The name or the profile is empty, not a ``str``, or too long for the server.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            RuntimeError: This thread runs an event loop.
        """
        device, gateway = device_name_or_device_connect_message, self._gateway
        if wait:
            session, result = self._runtime.run(lambda: gateway.connect_device(device, device_profile, wait_for_publish=True))
            return cast("DeviceSession", session), result
        delivery: Delivery = self._runtime.new_delivery()

        async def begin() -> DeviceSession:
            announced, [future] = await gateway.connect_device(device, device_profile, False)
            future.add_done_callback(delivery.take)
            return cast("DeviceSession", announced)

        return self._runtime.run(begin), delivery

    @overload
    def disconnect_device(self, device_session: DeviceSession, wait: Literal[False] = ...) -> tuple[DeviceSession, Delivery]: ...
    @overload
    def disconnect_device(self, device_session: DeviceSession, wait: Literal[True]) -> tuple[DeviceSession, PublishResult]: ...
    @overload
    def disconnect_device(
        self, device_session: DeviceSession, wait: bool = ...
    ) -> tuple[DeviceSession, PublishResult | Delivery]: ...
    def disconnect_device(
        self, device_session: DeviceSession, wait: bool = False
    ) -> tuple[DeviceSession, PublishResult | Delivery]:
        """Disconnect a sub-device from the platform, and forget its session.

        Requests of the device that wait for a response end with a ``NotConnectedError``. Queued data of the device is still sent,
        and makes the platform treat the device as connected again: wait for the results of the data first.

        Args:
            device_session: The device.
            wait: Whether to wait for the result, for at most ``OPERATIONAL_TIMEOUT`` seconds.

        Returns:
            The session, and the ``PublishResult``, or a ``Delivery`` if ``wait`` is false.

        Raises:
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is not a ``DeviceSession``; also a ``TypeError``.
            DeviceNotConnectedError: The session is not one of this gateway, or no longer; also a ``ValueError``.
            RuntimeError: This thread runs an event loop.
        """
        if wait:
            _, result = self._runtime.run(lambda: self._gateway.disconnect_device(device_session, True))
            return device_session, result
        delivery: Delivery = self._runtime.new_delivery()

        async def begin() -> None:
            _, [future] = await self._gateway.disconnect_device(device_session, False)
            future.add_done_callback(delivery.take)

        self._runtime.run(begin)
        return device_session, delivery

    def session_of(self, device: DeviceSession | str) -> DeviceSession:
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
        if not isinstance(device, str):
            return device
        # Without the option, a name is an error even if the device is known.
        session = self.device_manager.get_by_name(device) if self._gateway.accepts_names else None
        if session is None:
            # This waits for the event loop only, so that a thread with an event loop of its own may call it.
            session = self._runtime.run(partial(self._gateway.session_of, device), is_short=True)
        return cast("DeviceSession", session)

    @overload
    def send_device_timeseries(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait: Literal[True] = ...,
        *,
        metadata: TelemetryMetadata | None = ...,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult: ...
    @overload
    def send_device_timeseries(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait: Literal[False],
        *,
        metadata: TelemetryMetadata | None = ...,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> Delivery: ...
    @overload
    def send_device_timeseries(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait: bool = ...,
        *,
        metadata: TelemetryMetadata | None = ...,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult | Delivery: ...
    def send_device_timeseries(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait: bool = True,
        *,
        metadata: TelemetryMetadata | None = None,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | Delivery:
        """Send timeseries of a sub-device.

        Waits while the queues are full, unless ``queue_policy`` in the configuration says otherwise.

        Args:
            device_session: The device: its session, or its name (see ``announce_unknown_devices``).
            data: As for ``send_timeseries``.
            wait: Whether to wait for the result, for at most ``OPERATIONAL_TIMEOUT`` seconds.
            metadata: The connector that the data comes from and when it was received, for ThingsBoard 3.8 and later. Such data
                shares no record with data of other calls, which makes payloads larger.
            priority: As for ``send_timeseries``.
            expires_after: As for ``send_timeseries``.

        Returns:
            The ``PublishResult``, or a ``Delivery`` if ``wait`` is false.

        Raises:
            ValueError: The platform cannot store the data (also ``UnsupportedValueError``), ``priority`` is unknown, or
                ``expires_after`` is not positive.
            TypeError: ``metadata`` is not a ``TelemetryMetadata``, or ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: The device is not one of this gateway, or no longer; also a ``ValueError``.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``.
            TimeoutError: ``wait`` is true, and the queues are still full after ``OPERATIONAL_TIMEOUT`` seconds.
            RuntimeError: ``wait`` is true and this thread runs an event loop.
        """
        self._core.require_accepting()
        session = self.session_of(device_session) if isinstance(device_session, str) else device_session
        uplink = self._gateway.encode_device_timeseries(session, data, metadata=metadata)
        limit = self.OPERATIONAL_TIMEOUT if wait else None
        return self._runtime.send(uplink, GATEWAY_TELEMETRY_TOPIC, wait, limit, priority, expires_after)

    @overload
    def send_timeseries_of_devices(
        self,
        data: Mapping[Any, Any],
        wait: Literal[True] = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> dict[DeviceSession | str, PublishResult]: ...
    @overload
    def send_timeseries_of_devices(
        self,
        data: Mapping[Any, Any],
        wait: Literal[False],
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> dict[DeviceSession | str, Delivery]: ...
    @overload
    def send_timeseries_of_devices(
        self,
        data: Mapping[Any, Any],
        wait: bool = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> dict[DeviceSession | str, PublishResult] | dict[DeviceSession | str, Delivery]: ...
    def send_timeseries_of_devices(
        self,
        data: Mapping[Any, Any],
        wait: bool = True,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> dict[DeviceSession | str, PublishResult] | dict[DeviceSession | str, Delivery]:
        """Send timeseries of many sub-devices in one call, which costs less than a call for each of them.

        Each device's data is a send of its own, with a result of its own.

        Args:
            data: ``{device: data}``, with the devices and the data of each as for ``send_device_timeseries``.
            wait: Whether to wait for the results, for at most ``OPERATIONAL_TIMEOUT`` seconds in all.
            priority: As for ``send_timeseries``.
            expires_after: As for ``send_timeseries``.

        Returns:
            ``{device: PublishResult}`` with the keys of ``data``, or ``{device: Delivery}`` if ``wait`` is false.

        Raises:
            ValueError: The platform cannot store the data of a device, which a note of the error names (also
                ``UnsupportedValueError``); there is no device; ``priority`` is unknown, or ``expires_after`` is not positive.
                Nothing is sent then.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: A key is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: A device is not one of this gateway, or no longer; also a ``ValueError``.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``. The data of the devices before the first one
                without space is sent.
            TimeoutError: ``wait`` is true, and the queues are still full after ``OPERATIONAL_TIMEOUT`` seconds. The same applies.
            RuntimeError: ``wait`` is true and this thread runs an event loop.
        """
        self._core.require_accepting()
        if not isinstance(data, Mapping) or not data:
            raise ValueError(f"data must be a dict of at least one device and its data, not {data!r}")
        uplinks = self._gateway.encode_timeseries_of_devices([(self.session_of(device), one) for device, one in data.items()])
        limit = self.OPERATIONAL_TIMEOUT if wait else None
        results: Any = self._runtime.send_each(uplinks, GATEWAY_TELEMETRY_TOPIC, wait, limit, priority, expires_after)
        return dict(zip(data, results, strict=True))

    @overload
    def send_table(
        self,
        table: Any,
        *,
        ts: str = ...,
        key: str | None = ...,
        value: str | None = ...,
        device: str | None = ...,
        profile: str | None = ...,
        wait: Literal[True] = ...,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult: ...
    @overload
    def send_table(
        self,
        table: Any,
        *,
        ts: str = ...,
        key: str | None = ...,
        value: str | None = ...,
        device: str | None = ...,
        profile: str | None = ...,
        wait: Literal[False],
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> Delivery: ...
    @overload
    def send_table(
        self,
        table: Any,
        *,
        ts: str = ...,
        key: str | None = ...,
        value: str | None = ...,
        device: str | None = ...,
        profile: str | None = ...,
        wait: bool = ...,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult | Delivery: ...
    def send_table(
        self,
        table: Any,
        *,
        ts: str = "ts",
        key: str | None = None,
        value: str | None = None,
        device: str | None = None,
        profile: str | None = None,
        wait: bool = True,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | Delivery:
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
            wait: Whether to wait for the result.
            priority: As for ``send_timeseries``.
            expires_after: As for ``send_timeseries``.

        Returns:
            The ``PublishResult`` of all datapoints, with the sums of all parts, or a ``Delivery`` if ``wait``
            is false; that returns when the last row is accepted. A table without a value is a success with 0 datapoints.

        Raises:
            ValueError: A column is missing, occurs twice, or has a type or a name that the platform cannot store (also
                ``UnsupportedValueError``); a row has no time, or a value that JSON does not have. The text names the column, and
                the row, counted from 0. Rows before it may have been accepted, which a note of the exception says.
            TypeError: ``table`` has no ``__arrow_c_stream__``, or the name of a column is not a ``str``.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``.
            NotImplementedError: The package was built without the cargo feature ``arrow``.
            RuntimeError: This thread runs an event loop.
        """
        gateway = self._gateway
        if wait:
            return self._runtime.run(
                lambda: gateway.send_table(
                    table,
                    ts=ts,
                    key=key,
                    value=value,
                    device=device,
                    profile=profile,
                    priority=priority,
                    expires_after=expires_after,
                )
            )

        async def begin() -> DeliveryFuture:
            [delivery] = await gateway.send_table(
                table,
                ts=ts,
                key=key,
                value=value,
                device=device,
                profile=profile,
                wait_for_publish=False,
                priority=priority,
                expires_after=expires_after,
            )
            return delivery

        return self._runtime.deliver(begin)

    @overload
    def send_device_attributes(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait: Literal[True] = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult: ...
    @overload
    def send_device_attributes(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait: Literal[False],
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> Delivery: ...
    @overload
    def send_device_attributes(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait: bool = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult | Delivery: ...
    def send_device_attributes(
        self,
        device_session: DeviceSession | str,
        data: Any,
        wait: bool = True,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | Delivery:
        """Send client attributes of a sub-device.

        Args:
            device_session: The device: its session, or its name (see ``announce_unknown_devices``).
            data: As for ``send_attributes``.
            wait: Whether to wait for the result, for at most ``OPERATIONAL_TIMEOUT`` seconds.
            priority: As for ``send_attributes``.
            expires_after: As for ``send_attributes``.

        Returns:
            The ``PublishResult``, or a ``Delivery`` if ``wait`` is false.

        Raises:
            ValueError: The platform cannot store the attributes (also ``UnsupportedValueError``), ``priority`` is unknown, or
                ``expires_after`` is not positive.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: The device is not one of this gateway, or no longer; also a ``ValueError``.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``.
            TimeoutError: ``wait`` is true, and the queues are still full after ``OPERATIONAL_TIMEOUT`` seconds.
            RuntimeError: ``wait`` is true and this thread runs an event loop.
        """
        self._core.require_accepting()
        session = self.session_of(device_session) if isinstance(device_session, str) else device_session
        uplink = self._gateway.encode_device_attributes(session, data)
        limit = self.OPERATIONAL_TIMEOUT if wait else None
        return self._runtime.send(uplink, GATEWAY_ATTRIBUTES_TOPIC, wait, limit, priority, expires_after)

    @overload
    def send_device_attributes_request(
        self,
        device_session: DeviceSession | str,
        attribute_request: AttributeRequest,
        wait: Literal[True] = ...,
        timeout: float | None = ...,
    ) -> PublishResult: ...
    @overload
    def send_device_attributes_request(
        self,
        device_session: DeviceSession | str,
        attribute_request: AttributeRequest,
        wait: Literal[False],
        timeout: float | None = ...,
    ) -> Delivery: ...
    @overload
    def send_device_attributes_request(
        self,
        device_session: DeviceSession | str,
        attribute_request: AttributeRequest,
        wait: bool = ...,
        timeout: float | None = ...,
    ) -> PublishResult | Delivery: ...
    def send_device_attributes_request(
        self,
        device_session: DeviceSession | str,
        attribute_request: AttributeRequest,
        wait: bool = True,
        timeout: float | None = ATTRIBUTES_TIMEOUT,
    ) -> PublishResult | Delivery:
        """Request attributes of a sub-device; the session's callback for attribute responses gets the response.

        Keys of both scopes are requested in two messages, and returned in one response. Without a response a warning is logged.

        Args:
            device_session: The device: its session, or its name (see ``announce_unknown_devices``).
            attribute_request: The keys to request.
            wait: Whether to wait for the result of the messages, for at most ``OPERATIONAL_TIMEOUT`` seconds.
            timeout: Seconds to wait for the response; ``None`` for no limit.

        Returns:
            The ``PublishResult`` of the messages, or a ``Delivery`` if ``wait`` is false.

        Raises:
            ValueError: The request has no key (the platform returns only named attributes of a sub-device), or is too large.
            RuntimeError: The same request object is waiting for its response, or this thread runs an event loop.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is neither a ``DeviceSession`` nor a name; also a ``TypeError``.
            DeviceNotConnectedError: The device is not one of this gateway, or no longer; also a ``ValueError``.
        """
        gateway = self._gateway
        if wait:
            return self._runtime.run(
                lambda: gateway.send_device_attributes_request(device_session, attribute_request, True, timeout)
            )
        return self._runtime.deliver(
            lambda: gateway.send_device_attributes_request(device_session, attribute_request, False, timeout)
        )

    def request_device_attributes(
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
            RuntimeError: This thread runs an event loop.
        """
        return self._runtime.run(
            partial(self._gateway.request_device_attributes, device_session, shared_keys, client_keys, timeout)
        )

    @overload
    def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait: Literal[True] = ...
    ) -> PublishResult: ...
    @overload
    def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait: Literal[False]
    ) -> Delivery: ...
    @overload
    def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait: bool = ...
    ) -> PublishResult | Delivery: ...
    def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait: bool = True
    ) -> PublishResult | Delivery:
        """Allow customers who know the secrets to claim sub-devices: all devices of the request, which may be others than the
        session's.

        Args:
            device_session: The device that must be announced before the request is sent.
            gateway_claim_request: Secrets by device name.
            wait: Whether to wait for the result, for at most ``OPERATIONAL_TIMEOUT`` seconds.

        Returns:
            The ``PublishResult``, or a ``Delivery`` if ``wait`` is false. A success means that the platform has received the
            request; the platform does not report whether claiming is allowed.

        Raises:
            TypeError: ``gateway_claim_request`` is not a ``GatewayClaimRequest``.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            NoDeviceSessionError: ``device_session`` is not a ``DeviceSession``; also a ``TypeError``.
            DeviceNotConnectedError: The session is not one of this gateway, or no longer; also a ``ValueError``.
            RuntimeError: This thread runs an event loop.
        """
        gateway = self._gateway
        if wait:
            return self._runtime.run(lambda: gateway.send_device_claim_request(device_session, gateway_claim_request, True))
        return self._runtime.deliver(lambda: gateway.send_device_claim_request(device_session, gateway_claim_request, False))

    def rpc(self, *methods: str, devices: str | Iterable[str] | None = None) -> Callable[[F], F]:
        """Return a decorator: the plain function handles server-side RPC to sub-devices, or to the gateway's own device.

        See ``DeviceClient.rpc``. A function for sub-devices may also have a parameter that is annotated with ``DeviceSession`` or
        ``GatewayRPCRequest``. A handler of the device's session comes first, then one for its name, then the first one for a
        pattern that matches, and then the callback of the session.

        Args:
            methods: The methods. Without any, the function's name is the method.
            devices: The sub-devices: a name, a pattern such as ``"boiler*"`` (wildcards ``*``, ``?`` and ``[...]``), or several of
                them; ``"*"`` for all, also those that are announced later. A renamed device has both its names. ``None`` for the
                gateway's own device.

        Raises:
            TypeError: A method or a name is not a ``str``; in the decorator: the function is a coroutine function, or its
                signature is not possible.
            ValueError: A method or a name is empty; in the decorator: the method has a handler for the same ``devices``.
        """
        return super().rpc(*methods) if devices is None else plain_only(self._gateway.rpc(*methods, devices=devices))

    def on_attribute(self, *keys: str, devices: str | Iterable[str] | None = None) -> Callable[[F], F]:
        """Return a decorator: the plain function is called when a shared attribute of sub-devices, or of the gateway, changes.

        See ``DeviceClient.on_attribute``. A function for sub-devices may also have a parameter that is annotated with
        ``DeviceSession``. The callback of the session, its handlers and those of the gateway are called in this order.

        Args:
            keys: The attributes.
            devices: The sub-devices, as for ``rpc``; ``None`` for the gateway's own device.

        Raises:
            TypeError: A key or a name is not a ``str``; in the decorator: the function is a coroutine function, or its signature is
                not possible.
            ValueError: There is no key or no name, or one is empty.
        """
        return super().on_attribute(*keys) if devices is None else plain_only(self._gateway.on_attribute(*keys, devices=devices))
