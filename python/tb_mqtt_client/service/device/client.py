"""The client of one device."""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Literal, Self, overload

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import DeliveryFuture, SendReceipt, seconds_or_none
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.delivery import Delivery
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.provisioning_response import ProvisioningResponse
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.firmware import PackageKind
from tb_mqtt_client.constants.json_typing import JSONCompatibleType
from tb_mqtt_client.constants.mqtt_topics import DEVICE_ATTRIBUTES_TOPIC, DEVICE_CLAIM_TOPIC, DEVICE_TELEMETRY_TOPIC
from tb_mqtt_client.constants.option_values import Priority, PriorityName
from tb_mqtt_client.entities.connection_event import ConnectionEvent
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.provisioning_request import ProvisioningRequest
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.connection_events import MAX_EVENTS
from tb_mqtt_client.service.delivery.plain_sends import PlainSends
from tb_mqtt_client.service.delivery.statistics import Statistics
from tb_mqtt_client.service.delivery.tables import open_table
from tb_mqtt_client.service.delivery.terms import NORMAL
from tb_mqtt_client.service.device.provisioning import ProvisioningClient
from tb_mqtt_client.service.engine import Engine
from tb_mqtt_client.service.life_cycle import ClientState
from tb_mqtt_client.service.ota.update import UpdateResult
from tb_mqtt_client.service.ota.updater import DEFAULT_CHUNK_TIMEOUT, FirmwareUpdater
from tb_mqtt_client.service.requests.callbacks import Callback, require_callable
from tb_mqtt_client.service.requests.handlers import F
from tb_mqtt_client.service.requests.raw import raw_message
from tb_mqtt_client.service.sends import Sends

logger: ExtendedLogger = get_logger(__name__)

DEFAULT_TIMEOUT = 3.0
ATTRIBUTES_TIMEOUT = 30.0
"""Seconds to wait for requested attributes: if the request fails on the platform, there is no response."""


class DeviceClient:
    """Connects one device to the platform, sends its data, and reports what became of every datapoint.

    Delivery is at least once: data that is not acknowledged when a connection ends is sent again on the next one. All methods must
    be called in the event loop of the first ``connect`` or ``start``. ``async with`` connects the client on entry and stops it on
    exit.
    """

    DEFAULT_TIMEOUT = DEFAULT_TIMEOUT
    """Seconds that most methods wait for a response, unless they are given another time."""

    def __init__(self, config: DeviceConfig | Mapping[str, Any] | None = None) -> None:
        """Create a client that is not connected yet.

        Args:
            config: The options, as a ``DeviceConfig`` or a dict. ``None`` reads them from environment variables.

        Raises:
            ValueError: An option is unknown or has a value that it cannot have.
        """
        self._engine = Engine(config if isinstance(config, DeviceConfig) else DeviceConfig(config))
        self._sends: Sends = self._engine.sends
        self._plain: PlainSends | None = self._sends.intake.plain
        self.firmware_updater: FirmwareUpdater = FirmwareUpdater(self._engine)
        """What ``update_firmware`` uses; says which firmware and software the device has."""

    @property
    def max_payload_size(self) -> int | None:
        """Bytes of the largest telemetry payload in this session; ``None`` before the first one."""
        return self._engine.max_payload_size

    @property
    def state(self) -> ClientState:
        """What the client is doing, and whether sends are accepted; see ``ClientState``."""
        return self._engine.life.state

    @property
    def statistics(self) -> Statistics:
        """Counts of what became of all datapoints, see ``Statistics``."""
        return self._engine.statistics

    def health(self) -> dict[str, Any]:
        """Return the client's current state as JSON values: the connection, the limits, and all of ``statistics``."""
        return self._engine.health()

    async def connect(self) -> None:
        """Connect, and stay connected until ``disconnect`` or ``stop`` is called.

        Returns when the session is set up: subscribed, with the server's limits. After a temporary refusal ("server busy")
        the client tries again; otherwise the first attempt decides. If this raises, no task is left, and queued data is sent on the
        next connection. Waits until a ``disconnect`` or ``stop`` in progress is over. Sub-devices of a gateway are announced
        again automatically. Does nothing while the client is connected or reconnecting. After ``start``, it waits for the next
        attempt and raises its failure, and the client continues to connect.

        Raises:
            OSError: The server cannot be reached, or violates MQTT.
            TimeoutError: The server does not respond in time; also an ``OSError``.
            ConnectionRefusedByServer: The server refuses the connection, with its reason; also a ``ConnectionError``.
            NotConnectedError: The client was disconnected or stopped meanwhile.
            ValueError: No host is configured.
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``.
        """
        await self._engine.connect()

    async def start(self) -> None:
        """Accept data at once, and connect in the background for as long as it takes, until ``disconnect`` or ``stop`` is called.

        Every failure of an attempt is logged, is an event (see ``on_connection_event``), and is followed by another attempt: no
        network, a name that cannot be resolved, a failed TLS handshake, and also a refusal that lasts until an administrator fixes
        its cause, which is retried slowly. Data that is sent before the first session is queued, and published in it. Returns
        without waiting, except for a ``disconnect`` or ``stop`` in progress. Does nothing while the client is connected or
        reconnecting. An attempt that ``connect`` has begun is continued in the background, although it still raises its failure.

        Raises:
            NotConnectedError: The client was disconnected or stopped while this waited for an earlier ``disconnect`` or ``stop``.
            ValueError: No host is configured.
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``.
        """
        await self._engine.start()

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until a session is set up; return at once if there is one.

        Args:
            timeout: Seconds; ``None`` for no limit.

        Raises:
            TimeoutError: There is no session after this time. The message has the failure of the last attempt.
            NotConnectedError: Neither ``connect`` nor ``start`` was called, or the client is disconnected, stopped or has failed,
                also while this waits.
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``.
            TypeError: ``timeout`` is not a number of seconds.
        """
        await self._engine.wait_connected(timeout)

    def on_connection_event(self, callback: Callback[Any]) -> Callable[[], None]:
        """Call a function with each ``ConnectionEvent`` from now on, also after the client was stopped and started again.

        The events are those of ``tb_mqtt_client.entities.connection_event``. Each callback is called with one event after the
        other, in a task of its own, so that a slow one delays neither the client nor other callbacks. If more than 100 events wait
        for it, it gets an ``EventsDropped`` in place of the oldest ones. Its exceptions are logged and counted
        (``callback_errors``). ``stop`` cancels a callback that is running, unless it is the one that calls ``stop``.

        Args:
            callback: A plain function, which must not block, or a coroutine function.

        Returns:
            A function that removes the callback.

        Raises:
            TypeError: ``callback`` cannot be called.
        """
        return self._engine.events.listen(callback)

    def connection_events(self, max_events: int = MAX_EVENTS) -> AsyncIterator[ConnectionEvent]:
        """Return an iterator of the connection events from now on: ``async for event in client.connection_events():``.

        It ends when the client is stopped. Several iterators get all events each.

        Args:
            max_events: The number of events that may wait for the program. The oldest ones are dropped then, and an
                ``EventsDropped`` with their number is in their place.

        Raises:
            ValueError: ``max_events`` is not positive.
        """
        return self._engine.events.stream(max_events, ended=self.state is ClientState.STOPPED)

    async def flush(self) -> None:
        """Wait until all sends that were accepted are on disk, or have their results.

        Returns at once without a store.

        Raises:
            OSError: The disk failed. The sends are still in memory, and are written when it works again.
            NotConnectedError: The client was stopped before the clock of the device was set (option ``clock``).
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``.
        """
        await self._engine.flush()

    async def disconnect(self, timeout: float | None = 0) -> None:
        """Send queued data for at most ``timeout`` seconds, and close the connection.

        Data that is still queued then stays queued, and ``connect`` works again. Requests that wait for a response end with a
        ``NotConnectedError``. Running callbacks are cancelled, except one that calls this method. An update is cancelled.
        Sub-devices of a gateway stay registered.

        Args:
            timeout: Seconds to wait until queued data and data in flight has its result; ``None`` for no limit. With 0 the
                connection is closed at once.

        Raises:
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``.
            TypeError: ``timeout`` is not a number of seconds.
        """
        await self._engine.disconnect(timeout)

    async def stop(self, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Send queued data for at most ``timeout`` seconds, close the connection, and resolve the rest as undelivered.

        With a store, this sends only while there is a session. The rest is kept in the store, and resolved as kept.

        Callbacks for server-side RPC that are running may finish within this time; they can still send, and their replies
        are sent.

        Args:
            timeout: Seconds; ``None`` for no limit. With 0 the client stops at once.

        Raises:
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``.
            TypeError: ``timeout`` is not a number of seconds.
        """
        await self._engine.stop(timeout)

    @property
    def connects_in_background(self) -> bool:
        """Whether ``with`` and ``async with`` start the client in place of connecting it (``connect_in_background``)."""
        return self._engine.config.connect_in_background

    async def __aenter__(self) -> Self:
        """Connect, or start with the option ``connect_in_background``. If that raises, nothing of the client is left."""
        try:
            if self.connects_in_background:
                await self.start()
            else:
                await self.connect()
        except BaseException:
            await self.stop(timeout=0)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the client, as ``stop()`` does."""
        await self.stop()

    @staticmethod
    async def provision(
        provision_request: ProvisioningRequest, timeout: float | None = DEFAULT_TIMEOUT
    ) -> ProvisioningResponse | None:
        """Request the credentials of a device from the platform, on a connection of its own.

        Args:
            provision_request: The request, with provision key and secret.
            timeout: Seconds; ``None`` for no limit.

        Returns:
            The response. Its ``status`` is SUCCESS, NOT_FOUND (no device profile has this key and secret) or ERROR. The ``result``
            of a success is the ``DeviceConfig`` to connect with. ``None`` if there was no response in time.

        Raises:
            TypeError: ``provision_request`` is not a ``ProvisioningRequest``.
            ValueError: The request has no key or secret.
            OSError: The server cannot be reached.
            ConnectionRefusedByServer: The server refuses the connection.
            ConnectionLostError: The server closes the connection without a response.
            TBMQTTError: The server refuses the request.
        """
        if not isinstance(provision_request, ProvisioningRequest):
            raise TypeError(f"provision_request must be a ProvisioningRequest, not {provision_request!r}")
        client = ProvisioningClient(provision_request.host, provision_request.port, provision_request)
        try:
            async with asyncio.timeout(seconds_or_none(timeout)):
                return await client.provision()
        except TimeoutError:
            host, port = provision_request.host, provision_request.port
            logger.error("%s:%d did not respond to the provisioning request within %g s", host, port, timeout)  # noqa: TRY400
            return None

    @overload
    async def send_timeseries(
        self,
        data: Any,
        wait_for_publish: Literal[True] = ...,
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult: ...
    @overload
    async def send_timeseries(
        self,
        data: Any,
        wait_for_publish: Literal[False],
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> list[DeliveryFuture]: ...
    @overload
    async def send_timeseries(
        self,
        data: Any,
        wait_for_publish: bool = ...,
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult | list[DeliveryFuture]: ...
    async def send_timeseries(
        self,
        data: Any,
        wait_for_publish: bool = True,
        timeout: float | None = None,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | list[DeliveryFuture]:
        """Send timeseries of the device.

        Waits while the queues are full, unless ``queue_policy`` in the configuration says otherwise.

        Args:
            data: A ``TimeseriesEntry``, ``{"ts": ts, "values": {key: value}}``, ``{key: value}``, or a list that mixes these.
                ``ts`` is in milliseconds since the epoch, or a ``datetime`` with a timezone; data without it gets the current time.
            wait_for_publish: Whether to wait for the result.
            timeout: Seconds to wait for the result; ``None`` for no limit.
            priority: ``high`` goes before everything else that waits, ``low`` after data of normal priority.
            expires_after: Seconds after which data that is not yet written into a message is dropped, with reason code -3; ``None``
                for never.

        Returns:
            The ``PublishResult`` of all datapoints, or a list with one future of it if ``wait_for_publish`` is false. After
            ``timeout`` the result has reason code -1, and the data stays queued.

        Raises:
            ValueError: The platform cannot store the data (also ``UnsupportedValueError``), ``priority`` is unknown, or
                ``expires_after`` is not positive.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``.
        """
        sends, plain = self._sends, self._plain
        if priority is NORMAL and expires_after is None and timeout is None and plain is not None:
            now = time.time_ns() // 1_000_000
            delivery = plain.gather(data, now, None, wait_for_publish)
            if delivery is None and not plain.gathers_in_turn and await sends.begin_gathering(plain):
                delivery = plain.gather(data, now, None, wait_for_publish)
            if delivery is not None:
                return await delivery if wait_for_publish else [delivery]
        terms = sends.terms(priority, expires_after)
        encoded = sends.encode_timeseries(data)
        delivery = sends.try_accept(encoded, terms) or await sends.accept(encoded, terms)
        if not wait_for_publish:
            return [delivery]
        return await sends.wait_for(delivery, DEVICE_TELEMETRY_TOPIC, encoded.nbytes, timeout)

    @overload
    async def send_table(
        self,
        table: Any,
        *,
        ts: str = ...,
        key: str | None = ...,
        value: str | None = ...,
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
        wait_for_publish: bool = True,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | list[DeliveryFuture]:
        """Send a table with timeseries of the device, without making Python objects of its values.

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
        return await self._sends.send_table(
            lambda: open_table(table, ts, key, value, None, None, self._engine.config.round_floats),
            wait_for_publish,
            priority,
            expires_after,
        )

    async def send_telemetry(self, *args: Any, **kwargs: Any) -> PublishResult | list[DeliveryFuture]:
        """Send timeseries: the deprecated name of ``send_timeseries``."""
        warnings.warn("send_telemetry is deprecated, use send_timeseries", DeprecationWarning, stacklevel=2)
        result: PublishResult | list[DeliveryFuture] = await self.send_timeseries(*args, **kwargs)
        return result

    @overload
    async def send_attributes(
        self,
        attributes: Any,
        wait_for_publish: Literal[True] = ...,
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult: ...
    @overload
    async def send_attributes(
        self,
        attributes: Any,
        wait_for_publish: Literal[False],
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> list[DeliveryFuture]: ...
    @overload
    async def send_attributes(
        self,
        attributes: Any,
        wait_for_publish: bool = ...,
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult | list[DeliveryFuture]: ...
    async def send_attributes(
        self,
        attributes: Any,
        wait_for_publish: bool = True,
        timeout: float | None = DEFAULT_TIMEOUT,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | list[DeliveryFuture]:
        """Send client attributes of the device.

        Attributes keep their order, except for those that are sent with different priorities.

        Args:
            attributes: ``{key: value}``, an ``AttributeEntry``, or a list of these.
            wait_for_publish: Whether to wait for the result.
            timeout: Seconds to wait for the result; ``None`` for no limit.
            priority: ``high`` goes before everything else that waits, ``low`` after data of normal priority.
            expires_after: Seconds after which data that is not yet written into a message is dropped, with reason code -3; ``None``
                for never.

        Returns:
            The ``PublishResult``, or a list with one future of it, as ``send_timeseries`` returns them.

        Raises:
            ValueError: The platform cannot store the attributes (also ``UnsupportedValueError``), ``priority`` is unknown, or
                ``expires_after`` is not positive.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``.
        """
        sends = self._sends
        # In place of a call, since every send passes here.
        terms = None if priority is NORMAL and expires_after is None else sends.terms(priority, expires_after)
        encoded = sends.encode_attributes(attributes)
        delivery = sends.try_accept(encoded, terms) or await sends.accept(encoded, terms)
        if not wait_for_publish:
            return [delivery]
        return await sends.wait_for(delivery, DEVICE_ATTRIBUTES_TOPIC, encoded.nbytes, timeout)

    def enqueue_timeseries(
        self, data: Any, *, priority: Priority | PriorityName = Priority.NORMAL, expires_after: float | None = None
    ) -> Delivery | DeliveryFuture:
        """Send timeseries of the device without waiting. This is a plain function, faster than ``send_timeseries``.

        Nothing is published before the event loop runs: a program that enqueues in a loop has to await something from time to time,
        or the queues fill until this raises.

        Args:
            data: As for ``send_timeseries``.
            priority: As for ``send_timeseries``.
            expires_after: As for ``send_timeseries``.

        Returns:
            The pending ``PublishResult``, which can be awaited. With a store it is a ``StoredDelivery``: with every
            ``durability``, its ``stored`` says when the data is on disk.

        Raises:
            ValueError: As for ``send_timeseries``.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            QueueFullError: The queues are full. None of the data is accepted. With the ``queue_policy`` ``drop_oldest`` or
                ``drop_newest`` this drops data instead.
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``, or none is running.
        """
        sends, plain = self._sends, self._plain
        if priority is NORMAL and expires_after is None and plain is not None:
            now = time.time_ns() // 1_000_000
            delivery = plain.gather_delivery(data, now)
            if delivery is None and sends.begin_gathering_now(plain):
                delivery = plain.gather_delivery(data, now)
            if delivery is not None:
                return delivery
        return sends.enqueue(sends.encode_timeseries(data), sends.terms(priority, expires_after))

    def enqueue_attributes(
        self, attributes: Any, *, priority: Priority | PriorityName = Priority.NORMAL, expires_after: float | None = None
    ) -> Delivery | DeliveryFuture:
        """Send client attributes of the device without waiting, see ``enqueue_timeseries``.

        Args:
            attributes: As for ``send_attributes``.
            priority: As for ``send_attributes``.
            expires_after: As for ``send_attributes``.

        Returns:
            The pending ``PublishResult``, see ``enqueue_timeseries``.

        Raises:
            ValueError: As for ``send_attributes``.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            QueueFullError: The queues are full, see ``enqueue_timeseries``.
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``, or none is running.
        """
        sends = self._sends
        terms = None if priority is NORMAL and expires_after is None else sends.terms(priority, expires_after)
        return sends.enqueue(sends.encode_attributes(attributes), terms)

    def encode_timeseries(self, data: Any) -> EncodedUplink:
        """Encode timeseries of the device for ``submit``. Any thread may call this.

        Args:
            data: As for ``send_timeseries``. Data without a time gets the current one.

        Returns:
            The encoded data, which can be used with every client.

        Raises:
            ValueError: The platform cannot store the data; also ``UnsupportedValueError``.
        """
        return self._sends.encode_timeseries(data)

    def encode_attributes(self, attributes: Any) -> EncodedUplink:
        """Encode client attributes of the device for ``submit``. Any thread may call this.

        Args:
            attributes: As for ``send_attributes``.

        Returns:
            The encoded data, which can be used with every client.

        Raises:
            ValueError: The platform cannot store the attributes; also ``UnsupportedValueError``.
        """
        return self._sends.encode_attributes(attributes)

    def submit(
        self,
        uplink: EncodedUplink,
        receiver: SendReceipt,
        timeout: float | None = None,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> None:
        """Send encoded data from any thread, without a coroutine.

        The sends of one thread are accepted in their order. While the queues are full, this blocks the calling thread or raises, by
        the ``queue_policy`` in the configuration.
        With a store of the durability "always", it blocks until the send is on disk, or has its result.

        Args:
            uplink: Encoded data.
            receiver: Gets the ``PublishResult``, in the thread of the client's event loop.
            timeout: Seconds to wait while the queues are full, and for the disk; ``None`` for no limit.
            priority: As for ``send_timeseries``.
            expires_after: As for ``send_timeseries``.

        Raises:
            ValueError: ``priority`` is unknown, or ``expires_after`` is not positive.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``, or the calling thread runs an event loop.
            TimeoutError: The queues are still full after ``timeout`` seconds. The data is not sent. Or it is not on disk by then;
                it is in memory, and is sent and written nevertheless.
        """
        self._sends.submit(uplink, receiver, timeout, priority, expires_after)

    def submit_many(
        self,
        sends: Iterable[tuple[EncodedUplink, SendReceipt]],
        timeout: float | None = None,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> None:
        """Send encoded data of several sends from any thread, see ``submit``.

        Args:
            sends: Encoded data, and the receiver of the result, for each send.
            timeout: Seconds to wait for each send while the queues are full; ``None`` for no limit.
            priority: As for ``send_timeseries``, for all of the sends.
            expires_after: As for ``send_timeseries``, for each of the sends.

        Raises:
            ValueError: ``priority`` is unknown, or ``expires_after`` is not positive.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed. After this and the other
                errors, the sends before the first one that could not be accepted are sent.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``, or the calling thread runs an event loop.
            TimeoutError: The queues are still full after ``timeout`` seconds.
        """
        for uplink, receiver in sends:
            self._sends.submit(uplink, receiver, timeout, priority, expires_after)

    def require_accepting(self) -> None:
        """Check that sends are accepted. Any thread may call this.

        Raises:
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
        """
        self._engine.guard.require_accepting()

    def withdraw(self, delivery: DeliveryFuture) -> bool:
        """Withdraw data that is no longer wanted, unless it is being published.

        Args:
            delivery: A future that a send with ``wait_for_publish=False`` returned.

        Returns:
            True if the data was still queued. It is not sent, and its result has the reason code -2 (dropped). The queue is
            searched for it. Data that only a store has, because the queue was full, is also withdrawn.

        Raises:
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``.
        """
        return self._sends.withdraw(delivery)

    @overload
    async def publish(
        self, topic: str, payload: bytes | str, wait_for_publish: Literal[True] = ..., timeout: float | None = ...
    ) -> PublishResult: ...
    @overload
    async def publish(
        self, topic: str, payload: bytes | str, wait_for_publish: Literal[False], timeout: float | None = ...
    ) -> DeliveryFuture: ...
    @overload
    async def publish(
        self, topic: str, payload: bytes | str, wait_for_publish: bool = ..., timeout: float | None = ...
    ) -> PublishResult | DeliveryFuture: ...
    async def publish(
        self, topic: str, payload: bytes | str, wait_for_publish: bool = True, timeout: float | None = DEFAULT_TIMEOUT
    ) -> PublishResult | DeliveryFuture:
        """Publish a message of your own, on a topic that the client has no method for.

        The message is counted and limited like a request, and sent again after a lost connection.

        Args:
            topic: A topic without wildcards, and not one of telemetry or attributes, whose datapoints have to be counted.
            payload: The payload; a ``str`` is encoded as UTF-8.
            wait_for_publish: Whether to wait for the result.
            timeout: Seconds to wait for the result; ``None`` for no limit.

        Returns:
            The ``PublishResult``, or a future of it if ``wait_for_publish`` is false.

        Raises:
            ValueError: The topic is not valid or is one of telemetry or attributes, or the payload is too large.
            TypeError: The payload is neither ``bytes`` nor a ``str``.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
        """
        message = raw_message(topic, payload)
        delivery = self._sends.send_message(message)
        if not wait_for_publish:
            return delivery
        return await self._sends.wait_for(delivery, topic, message.payload_size, timeout)

    async def subscribe(self, topic_filter: str, callback: Callback[Any]) -> Callable[[], None]:
        """Call a function with each message of a topic, in addition to what the client does with it.

        The subscription is made again in each session. Topics to which the client subscribes anyway are not subscribed to twice.

        Args:
            topic_filter: A topic, in which ``+`` may stand for a level and ``#`` for the last ones.
            callback: A function or coroutine function that gets the topic and the payload as ``bytes``, one message after the
                other. Its exceptions are logged and counted (``callback_errors``).

        Returns:
            A function that removes the callback, and the subscription if it is not needed any more.

        Raises:
            ValueError: The filter is not valid.
            TypeError: ``callback`` cannot be called.
            SubscriptionRefusedError: The server refuses the subscription.
            RuntimeError: The running event loop is not the one of the first ``connect`` or ``start``.
        """
        return await self._engine.subscribe(topic_filter, callback)

    def report_callback_error(self, what: str, error: BaseException) -> None:
        """Log the exception of a callback that the program runs on its own, and count it in ``statistics.callback_errors``.

        Args:
            what: Names the callback: follows "The callback for" in the log line.
            error: The exception.
        """
        self._engine.report.callback_failed(what, error)

    async def send_rpc_response(self, response: RPCResponse) -> PublishResult:
        """Send the response to a server-side RPC request.

        The value that the RPC callback returns is sent automatically. Waits for the result for at most ``DEFAULT_TIMEOUT`` seconds.

        Args:
            response: The response.

        Returns:
            The ``PublishResult``.

        Raises:
            TypeError: ``response`` is not an ``RPCResponse``.
            ValueError: The response is too large, or its id cannot be one that the platform assigns.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
        """
        _require("response", response, RPCResponse)
        message = self._engine.format.build_rpc_response(response)
        return await self._sends.wait_for(
            self._sends.send_message(message), message.topic, message.payload_size, self.DEFAULT_TIMEOUT
        )

    @overload
    async def claim_device(
        self, claim_request: ClaimRequest, wait_for_publish: Literal[True] = ..., timeout: float | None = ...
    ) -> PublishResult: ...
    @overload
    async def claim_device(
        self, claim_request: ClaimRequest, wait_for_publish: Literal[False], timeout: float | None = ...
    ) -> DeliveryFuture: ...
    @overload
    async def claim_device(
        self, claim_request: ClaimRequest, wait_for_publish: bool = ..., timeout: float | None = ...
    ) -> PublishResult | DeliveryFuture: ...
    async def claim_device(
        self, claim_request: ClaimRequest, wait_for_publish: bool = True, timeout: float | None = DEFAULT_TIMEOUT
    ) -> PublishResult | DeliveryFuture:
        """Allow any customer with the secret to claim the device.

        Args:
            claim_request: The secret and how long it is valid.
            wait_for_publish: Whether to wait for the result.
            timeout: Seconds to wait for the result; ``None`` for no limit.

        Returns:
            The ``PublishResult``, or a future of it if ``wait_for_publish`` is false. A success means that the platform has
            received the request; the platform does not report whether claiming is allowed.

        Raises:
            TypeError: ``claim_request`` is not a ``ClaimRequest``, or ``timeout`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
        """
        _require("claim_request", claim_request, ClaimRequest)
        seconds_or_none(timeout)
        message = self._engine.format.build_claim_request(claim_request)
        delivery = self._sends.send_message(message)
        if not wait_for_publish:
            return delivery
        return await self._sends.wait_for(delivery, DEVICE_CLAIM_TOPIC, message.payload_size, timeout)

    @overload
    async def send_rpc_request(
        self,
        rpc_request: RPCRequest,
        callback: None = ...,
        wait_for_publish: Literal[True] = ...,
        timeout: float | None = ...,
    ) -> RPCResponse: ...
    @overload
    async def send_rpc_request(
        self,
        rpc_request: RPCRequest,
        callback: Callback[Any] | None = ...,
        wait_for_publish: bool = ...,
        timeout: float | None = ...,
    ) -> RPCResponse | asyncio.Future[RPCResponse] | asyncio.Future[RPCResponse | None] | None: ...
    async def send_rpc_request(
        self,
        rpc_request: RPCRequest,
        callback: Callback[Any] | None = None,
        wait_for_publish: bool = True,
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> RPCResponse | asyncio.Future[RPCResponse] | asyncio.Future[RPCResponse | None] | None:
        """Send a client-side RPC request to the platform.

        With a ``callback`` errors are not raised: the callback gets an ``RPCResponse`` that describes the error.

        Args:
            rpc_request: The request.
            callback: A function or coroutine function that gets the ``RPCResponse``.
            wait_for_publish: Whether to wait for the response.
            timeout: Seconds to wait for the response; ``None`` for no limit.

        Returns:
            The ``RPCResponse``, or a future of it if ``wait_for_publish`` is false. Its ``status`` distinguishes a result, an error
            and the platform's own timeout (60 s); ``result`` is the whole response. With a ``callback``, ``None`` if no response
            came.

        Raises:
            TypeError: ``rpc_request`` is not an ``RPCRequest``, or ``callback`` cannot be called.
            ValueError: The request is too large.
            TimeoutError: No response arrived in time.
            ConnectionLostError: The connection ended after the request was sent.
            RequestRefusedError: The platform refuses the request.
            NotConnectedError: ``connect()`` was not called, or the client was disconnected or stopped meanwhile.
            Exception: The exception of the ``callback``.
        """
        _require("rpc_request", rpc_request, RPCRequest)
        if callback is None:
            response = self._engine.requests.rpc(rpc_request, timeout)
            return await response if wait_for_publish else response
        require_callable("callback", callback)
        response = self._engine.requests.rpc(rpc_request, timeout)
        passed = self._engine.requests.pass_rpc_response(rpc_request, response, callback, awaited=wait_for_publish)
        return await passed if wait_for_publish else passed

    async def call_rpc(
        self, method: str, params: JSONCompatibleType = None, timeout: float | None = DEFAULT_TIMEOUT
    ) -> RPCResponse:
        """Send a client-side RPC request to the platform, and return the response.

        Args:
            method: The name of the method.
            params: Any JSON value.
            timeout: Seconds to wait for the response; ``None`` for no limit.

        Returns:
            The ``RPCResponse``, as ``send_rpc_request`` returns it.

        Raises:
            ValueError: The request is too large, or ``params`` cannot be written as JSON.
            TimeoutError: No response arrived in time.
            ConnectionLostError: The connection ended after the request was sent.
            RequestRefusedError: The platform refuses the request.
            NotConnectedError: ``connect()`` was not called, or the client was disconnected or stopped meanwhile.
        """
        return await self._engine.requests.rpc(await RPCRequest.build(method, params), timeout)

    async def send_attribute_request(
        self,
        attribute_request: AttributeRequest,
        callback: Callback[Any],
        timeout: float | None = ATTRIBUTES_TIMEOUT,
        on_error: Callback[Any] | None = None,
    ) -> None:
        """Request attributes of the device, and call a function with the response.

        Returns when the request is queued. After a lost connection the request is sent again. If there is no response, a warning is
        logged and ``on_error`` is called.

        Args:
            attribute_request: The keys to request.
            callback: A function or coroutine function that gets the ``RequestedAttributeResponse``.
            timeout: Seconds to wait for the response; ``None`` for no limit.
            on_error: A function or coroutine function that gets the exception, if there is no response.

        Raises:
            TypeError: ``attribute_request`` is not an ``AttributeRequest``, or a callback cannot be called.
            ValueError: The request is too large.
            RuntimeError: The same request object is waiting for its response.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
        """
        _require("attribute_request", attribute_request, AttributeRequest)
        require_callable("callback", callback)
        if on_error is not None:
            require_callable("on_error", on_error)
        response = self._engine.requests.attributes(attribute_request, timeout)
        self._engine.requests.pass_to_callback(attribute_request, response, "requested attributes", callback, on_error)

    async def request_attributes(
        self,
        shared_keys: list[str] | None = None,
        client_keys: list[str] | None = None,
        timeout: float | None = ATTRIBUTES_TIMEOUT,
    ) -> RequestedAttributeResponse:
        """Request attributes of the device, and return the response.

        After a lost connection the request is sent again.

        Args:
            shared_keys: Names of shared attributes.
            client_keys: Names of client attributes. Without any keys, all attributes of both scopes are requested.
            timeout: Seconds to wait for the response; ``None`` for no limit.

        Returns:
            The response.

        Raises:
            ValueError: A key cannot be requested, or the request is too large.
            TimeoutError: No response arrived in time.
            RequestRefusedError: The platform refuses the request.
            NotConnectedError: ``connect()`` was not called, or the client was disconnected or stopped meanwhile.
        """
        return await self._engine.requests.attributes(await AttributeRequest.build(shared_keys, client_keys), timeout)

    async def update_firmware(
        self,
        on_received_callback: Callback[Any] | None = None,
        save_firmware: bool = True,
        firmware_save_path: str | os.PathLike[str] | None = None,
        *,
        kind: PackageKind | str = PackageKind.FIRMWARE,
        on_package: Callback[Any] | None = None,
        on_progress: Callback[Any] | None = None,
        chunk_size: int | None = None,
        chunk_timeout: float = DEFAULT_CHUNK_TIMEOUT,
        keep_watching: bool = False,
    ) -> asyncio.Task[UpdateResult]:
        """Install the firmware or software that is assigned to the device, unless it is installed already.

        Returns immediately; the returned task requests the assignment, downloads the image, verifies its checksum and calls the
        callbacks. Its states are sent as telemetry (``fw_state``, with ``fw_error`` after FAILED). Cancelling the task,
        ``disconnect()`` and ``stop()`` cancel the update.

        Args:
            on_received_callback: A function or coroutine function that gets the image as ``bytes``, for which the image is read
                into memory, and a dict with title and version. It is called in the state UPDATING; an exception makes it FAILED.
            save_firmware: Whether the image is kept. Otherwise it is deleted after the callbacks.
            firmware_save_path: The folder in which the image is kept, under the base name of the title; ``None`` for the current
                one.
            kind: ``"fw"`` for firmware, or ``"sw"`` for software.
            on_package: A function or coroutine function that gets the ``AssignedPackage`` and the ``Path`` of its image, or
                ``None`` for a package of which the platform has only the ``url``. Otherwise like ``on_received_callback``.
            on_progress: A function or coroutine function that gets the received and the total number of bytes after each chunk.
            chunk_size: Bytes of a chunk; ``None`` for 32 KiB. The server's packet size is the upper bound.
            chunk_timeout: Seconds until a chunk is requested again.
            keep_watching: Whether to continue with every later assignment, until the task is cancelled.

        Returns:
            The task. Its result is an ``UpdateResult``, also for an update that failed.

        Raises:
            ValueError: An argument has a value that it cannot have, or the image would be discarded.
            TypeError: A callback cannot be called.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            RuntimeError: Another update is running.
        """
        return await self.firmware_updater.update(
            on_received_callback,
            save_firmware,
            firmware_save_path,
            kind=kind,
            on_package=on_package,
            on_progress=on_progress,
            chunk_size=chunk_size,
            chunk_timeout=chunk_timeout,
            keep_watching=keep_watching,
        )

    def set_attribute_update_callback(self, callback: Callback[Any] | None) -> None:
        """Set the callback for changed shared attributes. It may be replaced at any time, also before ``connect``.

        Args:
            callback: A function or coroutine function that gets each ``AttributeUpdate``, one after the other. Deleted attributes
                are in its ``deleted_keys``. ``None`` for no callback.

        Raises:
            TypeError: ``callback`` cannot be called.
        """
        if callback is not None:
            require_callable("callback", callback)
        self._engine.downlink.attribute_updates.set_callback(callback)

    def set_rpc_request_callback(self, callback: Callback[Any] | None) -> None:
        """Set the callback for server-side RPC. It may be replaced at any time, also before ``connect``.

        Requests are handled concurrently. The platform gets an error if there is no callback, or if the callback raises, returns a
        value that JSON cannot represent, or takes longer than ``rpc_callback_timeout``.

        Args:
            callback: A function or coroutine function that gets each ``RPCRequest`` and returns an ``RPCResponse``, or the result
                as any JSON value. The platform gets ``{"result": value}``, or the value alone with ``rpc_reply="plain"`` or
                ``RPCResponse.plain``. ``None`` for no callback.

        Raises:
            TypeError: ``callback`` cannot be called.
        """
        if callback is not None:
            require_callable("callback", callback)
        self._engine.downlink.rpc_requests.set_callback(callback)

    def rpc(self, *methods: str) -> Callable[[F], F]:
        """Return a decorator: the function handles server-side RPC with these methods, and its result is the response.

        ``@client.rpc("setValue")`` before ``async def set_value(value: int, unit: str = "C")``. The parameters of a request are
        passed by name (a JSON object), in order (an array), or as the only argument (any other value). A function with one
        parameter gets all of them in it, if its annotation allows that, as ``dict``, a dataclass and no annotation do. A parameter
        that is annotated with ``RPCRequest`` gets the request.

        The values are checked against the annotations, and dataclasses, enums and models of pydantic and msgspec are made from
        them. If they do not fit, the platform gets an error that says why, and the function is not called. For other methods, the
        callback of ``set_rpc_request_callback`` is called; without one, the platform gets an error that lists the methods.

        Args:
            methods: The methods. Without any, the function's name is the method.

        Raises:
            TypeError: A method is not a ``str``; in the decorator: the signature of the function is not possible.
            ValueError: A method is empty; in the decorator: the method has a handler.
        """
        return self._engine.downlink.handlers.rpc(methods)

    def on_attribute(self, *keys: str) -> Callable[[F], F]:
        """Return a decorator: the function is called when one of these shared attributes is changed or deleted.

        ``@client.on_attribute("interval", "mode")`` before ``def changed(interval: int = 10, mode: str = "eco")``. Parameters have
        the names of the attributes; the only parameter for a single attribute may have any name, and ``**values`` takes all others.
        An update has only the attributes that have changed, so that each parameter for one of several attributes needs a default
        value. For a deleted attribute, the value is ``None`` if the annotation allows it, or else the default. A parameter that is
        annotated with ``AttributeUpdate`` gets the update.

        The values are checked as for ``rpc``. If one does not fit, the function is not called; this is logged, and counted in
        ``inbound_malformed``. The callback of ``set_attribute_update_callback`` gets all updates, before the handlers. Handlers are
        called one after the other, in the order in which they were registered.

        Args:
            keys: The attributes.

        Raises:
            TypeError: A key is not a ``str``; in the decorator: the signature of the function is not possible.
            ValueError: There is no key, or one is empty.
        """
        return self._engine.downlink.handlers.on_attribute(keys)

    def remove_handler(self, function: Callable[..., Any]) -> None:
        """Remove a function that was registered with ``rpc`` or ``on_attribute``, for all its methods and attributes.

        Args:
            function: The function.

        Raises:
            ValueError: The function is not registered.
        """
        if not self._engine.downlink.handlers.remove(function):
            raise ValueError(f"function: {function!r} is not a handler of this client")


def _require(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be made by {kind.__name__}.build(), not {value!r}")
