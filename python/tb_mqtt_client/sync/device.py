"""The synchronous client of one device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self, cast, overload

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.provisioning_response import ProvisioningResponse
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.firmware import PackageKind
from tb_mqtt_client.constants.json_typing import JSONCompatibleType
from tb_mqtt_client.constants.mqtt_topics import DEVICE_ATTRIBUTES_TOPIC, DEVICE_TELEMETRY_TOPIC
from tb_mqtt_client.constants.option_values import Priority, PriorityName
from tb_mqtt_client.entities.connection_event import ConnectionEvent
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.provisioning_request import ProvisioningRequest
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.connection_events import MAX_EVENTS
from tb_mqtt_client.service.delivery.statistics import Statistics
from tb_mqtt_client.service.device import client as service
from tb_mqtt_client.service.life_cycle import ClientState
from tb_mqtt_client.service.ota.update import UpdateResult
from tb_mqtt_client.service.ota.updater import DEFAULT_CHUNK_TIMEOUT
from tb_mqtt_client.service.requests.handlers import F
from tb_mqtt_client.sync.events import ConnectionEventIterator
from tb_mqtt_client.sync.pending import Delivery, PendingResult, Work
from tb_mqtt_client.sync.runtime import EXIT_TIMEOUT, Runtime, plain_only, require_plain

Callback = Callable[..., Any]
"""A plain function. It is called in the client's thread for callbacks, and may call any method of the client."""

DEFAULT_TIMEOUT = service.DEFAULT_TIMEOUT
ATTRIBUTES_TIMEOUT = service.ATTRIBUTES_TIMEOUT


class DeviceClient:
    """Connects one device to the platform, sends its data, and reports what became of every datapoint; for programs with threads.

    It has the methods of the asyncio ``DeviceClient``. They block until they are done, and may be called from any thread, also from
    callbacks. All callbacks of a client run in one thread of its own, one after the other. ``with`` connects the client on entry
    and stops it on exit. A program that ends without ``stop`` first sends queued data, for at most ``EXIT_TIMEOUT`` seconds.

    Methods that block raise ``RuntimeError`` in a thread with a running event loop: the asyncio clients are for such threads.
    """

    DEFAULT_TIMEOUT = DEFAULT_TIMEOUT
    """Seconds that most methods wait for a response, unless they are given another time."""
    EXIT_TIMEOUT = EXIT_TIMEOUT
    """Seconds for which the client sends queued data if the program ends without ``stop``."""

    def __init__(self, config: DeviceConfig | Mapping[str, Any] | None = None) -> None:
        """Create a client that is not connected yet.

        Args:
            config: The options, as a ``DeviceConfig`` or a dict. ``None`` reads them from environment variables.

        Raises:
            ValueError: An option is unknown or has a value that it cannot have.
        """
        self._core = self._make_core(config)
        self._runtime = Runtime(self._core, self.EXIT_TIMEOUT)

    def _make_core(self, config: Any) -> service.DeviceClient:
        """Return the asyncio client that does the work."""
        return service.DeviceClient(config)

    @property
    def max_payload_size(self) -> int | None:
        """Bytes of the largest telemetry payload in this session; ``None`` before the first one."""
        return self._core.max_payload_size

    @property
    def state(self) -> ClientState:
        """What the client is doing, and whether sends are accepted; see ``ClientState``."""
        return self._core.state

    @property
    def statistics(self) -> Statistics:
        """Counts of what became of all datapoints, see ``Statistics``."""
        return self._runtime.call(lambda: self._core.statistics)

    def health(self) -> dict[str, Any]:
        """Return the client's current state as JSON values: the connection, the limits, and all of ``statistics``."""
        return self._runtime.call(self._core.health)

    def connect(self) -> None:
        """Connect, and stay connected until ``disconnect`` or ``stop`` is called.

        Returns when the session is set up: subscribed, with the server's limits. After a temporary refusal ("server busy")
        the client tries again; otherwise the first attempt decides. If this raises, nothing continues in the background, and queued
        data is sent on the next connection. Waits until a ``disconnect`` or ``stop`` in progress is over. Sub-devices of a gateway
        are announced again automatically. Does nothing while the client is connected or reconnecting. After ``start``, it waits for
        the next attempt and raises its failure, and the client continues to connect. Ctrl-C ends the attempt.

        Raises:
            OSError: The server cannot be reached, or violates MQTT.
            TimeoutError: The server does not respond in time; also an ``OSError``.
            ConnectionRefusedByServer: The server refuses the connection, with its reason; also a ``ConnectionError``.
            NotConnectedError: The client was disconnected or stopped meanwhile.
            ValueError: No host is configured.
            RuntimeError: This thread runs an event loop.
        """
        self._begin(self._core.connect)

    def start(self) -> None:
        """Accept data at once, and connect in the background for as long as it takes, until ``disconnect`` or ``stop`` is called.

        Every failure of an attempt is logged, is an event (see ``on_connection_event``), and is followed by another attempt: no
        network, a name that cannot be resolved, a failed TLS handshake, and also a refusal that lasts until an administrator fixes
        its cause, which is retried slowly. Data that is sent before the first session is queued, and published in it. Returns
        without waiting, except for a ``disconnect`` or ``stop`` in progress. Does nothing while the client is connected or
        reconnecting. An attempt that ``connect`` has begun is continued in the background, although it still raises its failure.

        Raises:
            NotConnectedError: The client was disconnected or stopped while this waited for an earlier ``disconnect`` or ``stop``.
            ValueError: No host is configured.
            RuntimeError: This thread runs an event loop.
        """
        self._begin(self._core.start)

    def _begin(self, make: Callable[[], Any]) -> None:
        self._runtime.start()
        try:
            self._runtime.run(make)
        finally:
            self._runtime.end_if_unused()

    def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until a session is set up; return at once if there is one.

        Args:
            timeout: Seconds; ``None`` for no limit.

        Raises:
            TimeoutError: There is no session after this time. The message has the failure of the last attempt.
            NotConnectedError: Neither ``connect`` nor ``start`` was called, or the client is disconnected, stopped or has failed,
                also while this waits.
            RuntimeError: This thread runs an event loop.
            TypeError: ``timeout`` is not a number of seconds.
        """
        self._runtime.run(partial(self._core.wait_connected, timeout))

    def on_connection_event(self, callback: Callback) -> Callable[[], None]:
        """Call a function with each ``ConnectionEvent`` from now on, also after the client was stopped and started again.

        The events are those of ``tb_mqtt_client.entities.connection_event``. If more than 100 events wait for the callback, it gets
        an ``EventsDropped`` in place of the oldest ones. Its exceptions are logged and counted (``callback_errors``).

        Args:
            callback: A plain function.

        Returns:
            A function that removes the callback.

        Raises:
            TypeError: ``callback`` cannot be called, or is a coroutine function.
        """
        bridged = self._runtime.bridge("callback", callback)
        remove = self._runtime.call(partial(self._core.on_connection_event, bridged))
        return partial(self._runtime.call, remove)

    def connection_events(self, max_events: int = MAX_EVENTS) -> Iterator[ConnectionEvent]:
        """Return an iterator of the connection events from now on: ``for event in client.connection_events():``.

        It waits for each event, and ends when the client is stopped. Several iterators get all events each.

        Args:
            max_events: The number of events that may wait for the program. The oldest ones are dropped then, and an
                ``EventsDropped`` with their number is in their place.

        Raises:
            ValueError: ``max_events`` is not positive.
        """
        stream = self._runtime.call(partial(self._core.connection_events, max_events))
        return ConnectionEventIterator(stream, self._runtime)

    def flush(self) -> None:
        """Wait until all sends that were accepted are on disk, or have their results.

        Returns at once without a store. With a store, a send returns before its data is on disk, unless its durability is
        ``"always"``: this method waits for it.

        Raises:
            OSError: The disk failed. The sends are still in memory, and are written when it works again.
            RuntimeError: This thread runs an event loop.
        """
        self._runtime.run(self._core.flush)

    def disconnect(self, timeout: float | None = 0) -> None:
        """Send queued data for at most ``timeout`` seconds, and close the connection.

        Data that is still queued then stays queued, and ``connect`` works again. Requests that wait for a response end with a
        ``NotConnectedError``. An update is cancelled. Sub-devices of a gateway stay registered.

        Args:
            timeout: Seconds to wait until queued data and data in flight has its result; ``None`` for no limit. With 0 the
                connection is closed at once.

        Raises:
            RuntimeError: This thread runs an event loop.
            TypeError: ``timeout`` is not a number of seconds.
        """
        self._runtime.run(partial(self._core.disconnect, timeout))

    def stop(self, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Send queued data for at most ``timeout`` seconds, close the connection, and resolve the rest as undelivered.

        Callbacks for server-side RPC that are running may finish within this time; they can still send, and their replies
        are sent. Ends the threads of the client. A callback may call this, too.

        Args:
            timeout: Seconds; ``None`` for no limit. With 0 the client stops at once.

        Raises:
            RuntimeError: This thread runs an event loop.
            TypeError: ``timeout`` is not a number of seconds.
        """
        try:
            self._runtime.run(partial(self._core.stop, timeout))
        finally:
            self._runtime.end_if_unused()

    def __enter__(self) -> Self:
        """Connect, or start with the option ``connect_in_background``. If that raises, nothing of the client is left."""
        try:
            if self._core.connects_in_background:
                self.start()
            else:
                self.connect()
        except BaseException:
            self.stop(timeout=0)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the client, as ``stop()`` does."""
        self.stop()

    @staticmethod
    def provision(provision_request: ProvisioningRequest, timeout: float | None = DEFAULT_TIMEOUT) -> ProvisioningResponse | None:
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
            RuntimeError: This thread runs an event loop.
        """
        return Runtime.run_once(partial(service.DeviceClient.provision, provision_request, timeout))

    @overload
    def send_timeseries(
        self,
        data: Any,
        wait: Literal[True] = ...,
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult: ...
    @overload
    def send_timeseries(
        self,
        data: Any,
        wait: Literal[False],
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> Delivery: ...
    @overload
    def send_timeseries(
        self,
        data: Any,
        wait: bool = ...,
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult | Delivery: ...
    def send_timeseries(
        self,
        data: Any,
        wait: bool = True,
        timeout: float | None = None,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | Delivery:
        """Send timeseries of the device.

        Waits while the queues are full, unless ``queue_policy`` in the configuration says otherwise.

        Args:
            data: A ``TimeseriesEntry``, ``{"ts": ts, "values": {key: value}}``, ``{key: value}``, or a list that mixes these.
                ``ts`` is in milliseconds since the epoch, or a ``datetime`` with a timezone; data without it gets the current time.
            wait: Whether to wait for the result.
            timeout: Seconds to wait for the result, and before that while the queues are full; ``None`` for no limit.
            priority: ``high`` goes before everything else that waits, ``low`` after data of normal priority.
            expires_after: Seconds after which data that is not yet written into a message is dropped, with reason code -3; ``None``
                for never.

        Returns:
            The ``PublishResult`` of all datapoints, or a ``Delivery`` if ``wait`` is false. After ``timeout`` the result has reason
            code -1, and the data stays queued.

        Raises:
            ValueError: The platform cannot store the data (also ``UnsupportedValueError``), ``priority`` is unknown, or
                ``expires_after`` is not positive.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``.
            TimeoutError: The queues are still full after ``timeout`` seconds. The data is not sent. Or, with a store of the
                durability "always", the data is not on disk by then. It is in memory, and is sent and written nevertheless.
            RuntimeError: ``wait`` is true and this thread runs an event loop.
        """
        self._core.require_accepting()
        uplink = self._core.encode_timeseries(data)
        return self._runtime.send(uplink, DEVICE_TELEMETRY_TOPIC, wait, timeout, priority, expires_after)

    @overload
    def send_table(
        self,
        table: Any,
        *,
        ts: str = ...,
        key: str | None = ...,
        value: str | None = ...,
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
        wait: bool = True,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | Delivery:
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
        if wait:
            return self._runtime.run(
                lambda: self._core.send_table(table, ts=ts, key=key, value=value, priority=priority, expires_after=expires_after)
            )

        async def begin() -> DeliveryFuture:
            [delivery] = await self._core.send_table(
                table, ts=ts, key=key, value=value, wait_for_publish=False, priority=priority, expires_after=expires_after
            )
            return delivery

        return self._runtime.deliver(begin)

    @overload
    def send_attributes(
        self,
        attributes: Any,
        wait: Literal[True] = ...,
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult: ...
    @overload
    def send_attributes(
        self,
        attributes: Any,
        wait: Literal[False],
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> Delivery: ...
    @overload
    def send_attributes(
        self,
        attributes: Any,
        wait: bool = ...,
        timeout: float | None = ...,
        *,
        priority: Priority | PriorityName = ...,
        expires_after: float | None = ...,
    ) -> PublishResult | Delivery: ...
    def send_attributes(
        self,
        attributes: Any,
        wait: bool = True,
        timeout: float | None = DEFAULT_TIMEOUT,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | Delivery:
        """Send client attributes of the device.

        Args:
            attributes: ``{key: value}``, an ``AttributeEntry``, or a list of these.
            wait: Whether to wait for the result.
            timeout: Seconds to wait for the result, and before that while the queues are full; ``None`` for no limit.
            priority: ``high`` goes before everything else that waits, ``low`` after data of normal priority.
            expires_after: Seconds after which data that is not yet written into a message is dropped, with reason code -3; ``None``
                for never.

        Returns:
            The ``PublishResult``, or a ``Delivery``, as ``send_timeseries`` returns them.

        Raises:
            ValueError: The platform cannot store the attributes (also ``UnsupportedValueError``), ``priority`` is unknown, or
                ``expires_after`` is not positive.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``.
            TimeoutError: The queues are still full after ``timeout`` seconds. The data is not sent. Or, with a store of the
                durability "always", the data is not on disk by then. It is in memory, and is sent and written nevertheless.
            RuntimeError: ``wait`` is true and this thread runs an event loop.
        """
        self._core.require_accepting()
        uplink = self._core.encode_attributes(attributes)
        return self._runtime.send(uplink, DEVICE_ATTRIBUTES_TOPIC, wait, timeout, priority, expires_after)

    def send_uplinks(
        self,
        uplinks: Sequence[EncodedUplink],
        wait: bool = True,
        timeout: float | None = None,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | Delivery:
        """Send encoded data, all of which has one result.

        Args:
            uplinks: Data that was encoded with the ``encode_...`` methods of an asyncio client, at least one.
            wait: Whether to wait for the result.
            timeout: Seconds to wait for the result, and before that while the queues are full; ``None`` for no limit.
            priority: As for ``send_timeseries``.
            expires_after: As for ``send_timeseries``, for each of the uplinks.

        Returns:
            The ``PublishResult``, or a ``Delivery`` if ``wait`` is false, as ``send_timeseries`` returns them.

        Raises:
            ValueError: ``uplinks`` is empty, ``priority`` is unknown, or ``expires_after`` is not positive.
            TypeError: ``expires_after`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            QueueFullError: The queues are full, and ``queue_policy`` is ``raise``. Uplinks before the first one that could
                not be accepted are sent.
            TimeoutError: The queues are still full after ``timeout`` seconds.
            RuntimeError: ``wait`` is true and this thread runs an event loop.
        """
        return self._runtime.send_uplinks(uplinks, "", wait, timeout, priority, expires_after)

    def withdraw(self, delivery: Delivery) -> bool:
        """Withdraw data that is no longer wanted, unless it is being published.

        Args:
            delivery: The delivery that a send with ``wait=False`` returned.

        Returns:
            True if the data was still queued. It is not sent, and its result has the reason code -2 (dropped). The queue is
            searched for it. Data that only a store has, because the queue was full, is also withdrawn.

        Raises:
            RuntimeError: This thread runs an event loop.
        """

        async def withdraw() -> bool:
            return self._core.withdraw(cast("DeliveryFuture", delivery))

        return self._runtime.run(withdraw)

    @overload
    def publish(
        self, topic: str, payload: bytes | str, wait: Literal[True] = ..., timeout: float | None = ...
    ) -> PublishResult: ...
    @overload
    def publish(self, topic: str, payload: bytes | str, wait: Literal[False], timeout: float | None = ...) -> Delivery: ...
    @overload
    def publish(
        self, topic: str, payload: bytes | str, wait: bool = ..., timeout: float | None = ...
    ) -> PublishResult | Delivery: ...
    def publish(
        self, topic: str, payload: bytes | str, wait: bool = True, timeout: float | None = DEFAULT_TIMEOUT
    ) -> PublishResult | Delivery:
        """Publish a message of your own, on a topic that the client has no method for.

        The message is counted and limited like a request, and sent again after a lost connection.

        Args:
            topic: A topic without wildcards, and not one of telemetry or attributes, whose datapoints have to be counted.
            payload: The payload; a ``str`` is encoded as UTF-8.
            wait: Whether to wait for the result.
            timeout: Seconds to wait for the result; ``None`` for no limit.

        Returns:
            The ``PublishResult``, or a ``Delivery`` if ``wait`` is false.

        Raises:
            ValueError: The topic is not valid or is one of telemetry or attributes, or the payload is too large.
            TypeError: The payload is neither ``bytes`` nor a ``str``.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            RuntimeError: This thread runs an event loop.
        """
        if wait:
            return self._runtime.run(partial(self._core.publish, topic, payload, True, timeout))
        return self._runtime.deliver(lambda: self._core.publish(topic, payload, False, timeout))

    def subscribe(self, topic_filter: str, callback: Callback) -> Callable[[], None]:
        """Call a function with each message of a topic, in addition to what the client does with it.

        The subscription is made again in each session. Topics to which the client subscribes anyway are not subscribed to twice.

        Args:
            topic_filter: A topic, in which ``+`` may stand for a level and ``#`` for the last ones.
            callback: A plain function that gets the topic and the payload as ``bytes``, one message after the other. Its
                exceptions are logged and counted (``callback_errors``).

        Returns:
            A function that removes the callback, and the subscription if it is not needed any more.

        Raises:
            ValueError: The filter is not valid.
            TypeError: ``callback`` cannot be called, or is a coroutine function.
            SubscriptionRefusedError: The server refuses the subscription.
            RuntimeError: This thread runs an event loop.
        """
        remove = self._runtime.run(partial(self._core.subscribe, topic_filter, self._runtime.bridge("callback", callback)))
        return partial(self._runtime.call, remove)

    def send_rpc_response(self, response: RPCResponse) -> PublishResult:
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
            RuntimeError: This thread runs an event loop.
        """
        return self._runtime.run(partial(self._core.send_rpc_response, response))

    @overload
    def claim_device(
        self, claim_request: ClaimRequest, wait: Literal[True] = ..., timeout: float | None = ...
    ) -> PublishResult: ...
    @overload
    def claim_device(self, claim_request: ClaimRequest, wait: Literal[False], timeout: float | None = ...) -> Delivery: ...
    @overload
    def claim_device(
        self, claim_request: ClaimRequest, wait: bool = ..., timeout: float | None = ...
    ) -> PublishResult | Delivery: ...
    def claim_device(
        self, claim_request: ClaimRequest, wait: bool = True, timeout: float | None = DEFAULT_TIMEOUT
    ) -> PublishResult | Delivery:
        """Allow any customer with the secret to claim the device.

        Args:
            claim_request: The secret and how long it is valid.
            wait: Whether to wait for the result.
            timeout: Seconds to wait for the result; ``None`` for no limit.

        Returns:
            The ``PublishResult``, or a ``Delivery`` if ``wait`` is false. A success means that the platform has received the
            request; the platform does not report whether claiming is allowed.

        Raises:
            TypeError: ``claim_request`` is not a ``ClaimRequest``, or ``timeout`` is not a number.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            RuntimeError: This thread runs an event loop.
        """
        if wait:
            return self._runtime.run(partial(self._core.claim_device, claim_request, True, timeout))
        return self._runtime.deliver(lambda: self._core.claim_device(claim_request, False, timeout))

    @overload
    def send_rpc_request(
        self,
        rpc_request: RPCRequest,
        callback: None = ...,
        wait: Literal[True] = ...,
        timeout: float | None = ...,
    ) -> RPCResponse: ...
    @overload
    def send_rpc_request(
        self,
        rpc_request: RPCRequest,
        callback: None = ...,
        *,
        wait: Literal[False],
        timeout: float | None = ...,
    ) -> PendingResult[RPCResponse]: ...
    @overload
    def send_rpc_request(
        self,
        rpc_request: RPCRequest,
        callback: Callback | None = ...,
        wait: bool = ...,
        timeout: float | None = ...,
    ) -> RPCResponse | PendingResult[RPCResponse] | PendingResult[RPCResponse | None] | None: ...
    def send_rpc_request(
        self,
        rpc_request: RPCRequest,
        callback: Callback | None = None,
        wait: bool = True,
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> RPCResponse | PendingResult[RPCResponse] | PendingResult[RPCResponse | None] | None:
        """Send a client-side RPC request to the platform.

        With a ``callback`` errors are not raised: the callback gets an ``RPCResponse`` that describes the error.

        Args:
            rpc_request: The request.
            callback: A plain function that gets the ``RPCResponse``. If ``wait`` is true, it is called in the calling thread.
            wait: Whether to wait for the response.
            timeout: Seconds to wait for the response; ``None`` for no limit.

        Returns:
            The ``RPCResponse``, or a pending result of it if ``wait`` is false. Its ``status`` distinguishes a result, an error
            and the platform's own timeout (60 s); ``result`` is the whole response. With a ``callback``, ``None`` if no response
            came.

        Raises:
            TypeError: ``rpc_request`` is not an ``RPCRequest``, or ``callback`` cannot be called.
            ValueError: The request is too large.
            TimeoutError: No response arrived in time.
            ConnectionLostError: The connection ended after the request was sent.
            RequestRefusedError: The platform refuses the request.
            NotConnectedError: ``connect()`` was not called, or the client was disconnected or stopped meanwhile.
            RuntimeError: This thread runs an event loop.
            Exception: The exception of the ``callback``.
        """
        if callback is not None:
            require_plain("callback", callback)
        if not wait:
            return self._request_later(rpc_request, callback, timeout)
        if callback is None:
            return self._runtime.run(partial(self._core.send_rpc_request, rpc_request, None, True, timeout))
        # The callback does not run in the thread for callbacks: the caller may be a callback, for which the other one would wait.
        responses: list[RPCResponse] = []
        request = partial(self._core.send_rpc_request, rpc_request, responses.append, True, timeout)
        returned = self._runtime.run(request)
        for response in responses:
            callback(response)
        return returned

    def _request_later(
        self, rpc_request: RPCRequest, callback: Callback | None, timeout: float | None
    ) -> PendingResult[RPCResponse] | PendingResult[RPCResponse | None]:
        work: Work[Any] = Work(self._runtime.waiters)
        bridged = None if callback is None else self._runtime.bridge("callback", callback)

        async def begin() -> None:
            future = await self._core.send_rpc_request(rpc_request, bridged, False, timeout)
            work.follow(future)  # type: ignore[arg-type]  # a future, since wait_for_publish is false

        self._runtime.run(begin)
        return work

    def call_rpc(self, method: str, params: JSONCompatibleType = None, timeout: float | None = DEFAULT_TIMEOUT) -> RPCResponse:
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
            RuntimeError: This thread runs an event loop.
        """
        return self._runtime.run(partial(self._core.call_rpc, method, params, timeout))

    def send_attribute_request(
        self,
        attribute_request: AttributeRequest,
        callback: Callback,
        timeout: float | None = ATTRIBUTES_TIMEOUT,
        on_error: Callback | None = None,
    ) -> None:
        """Request attributes of the device, and call a function with the response.

        Returns when the request is queued. After a lost connection the request is sent again. If there is no response, a warning is
        logged and ``on_error`` is called.

        Args:
            attribute_request: The keys to request.
            callback: A plain function that gets the ``RequestedAttributeResponse``.
            timeout: Seconds to wait for the response; ``None`` for no limit.
            on_error: A plain function that gets the exception, if there is no response.

        Raises:
            TypeError: ``attribute_request`` is not an ``AttributeRequest``, or a callback cannot be called.
            ValueError: The request is too large.
            RuntimeError: The same request object is waiting for its response, or this thread runs an event loop.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
        """
        bridged = self._runtime.bridge("callback", callback)
        bridged_error = None if on_error is None else self._runtime.bridge("on_error", on_error)
        self._runtime.run(partial(self._core.send_attribute_request, attribute_request, bridged, timeout, bridged_error))

    def request_attributes(
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
            RuntimeError: This thread runs an event loop.
        """
        return self._runtime.run(partial(self._core.request_attributes, shared_keys, client_keys, timeout))

    def update_firmware(
        self,
        on_received_callback: Callback | None = None,
        save_firmware: bool = True,
        firmware_save_path: str | os.PathLike[str] | None = None,
        *,
        kind: PackageKind | str = PackageKind.FIRMWARE,
        on_package: Callback | None = None,
        on_progress: Callback | None = None,
        chunk_size: int | None = None,
        chunk_timeout: float = DEFAULT_CHUNK_TIMEOUT,
        keep_watching: bool = False,
    ) -> Work[UpdateResult]:
        """Install the firmware or software that is assigned to the device, unless it is installed already.

        Returns immediately. In the background, the client requests the assignment, downloads the image, verifies its checksum and
        calls the callbacks. Its states are sent as telemetry (``fw_state``, with ``fw_error`` after FAILED). ``cancel()`` of the
        returned object, ``disconnect()`` and ``stop()`` cancel the update.

        Args:
            on_received_callback: A plain function that gets the image as ``bytes``, for which the image is read into memory, and a
                dict with title and version. It is called in the state UPDATING; an exception makes it FAILED.
            save_firmware: Whether the image is kept. Otherwise it is deleted after the callbacks.
            firmware_save_path: The folder in which the image is kept, under the base name of the title; ``None`` for the current
                one.
            kind: ``"fw"`` for firmware, or ``"sw"`` for software.
            on_package: A plain function that gets the ``AssignedPackage`` and the ``Path`` of its image, or ``None`` for a package
                of which the platform has only the ``url``. Otherwise like ``on_received_callback``.
            on_progress: A plain function that gets the received and the total number of bytes after each chunk.
            chunk_size: Bytes of a chunk; ``None`` for 32 KiB. The server's packet size is the upper bound.
            chunk_timeout: Seconds until a chunk is requested again.
            keep_watching: Whether to continue with every later assignment, until the update is cancelled.

        Returns:
            The pending result: an ``UpdateResult``, also for an update that failed.

        Raises:
            ValueError: An argument has a value that it cannot have, or the image would be discarded.
            TypeError: A callback cannot be called.
            NotConnectedError: ``connect()`` was not called, or the client is stopped or has failed.
            RuntimeError: Another update is running, or this thread runs an event loop.
        """
        names = {"on_received_callback": on_received_callback, "on_package": on_package, "on_progress": on_progress}
        callbacks = {name: self._runtime.bridge(name, callback) for name, callback in names.items() if callback is not None}
        work: Work[UpdateResult] = Work(self._runtime.waiters)

        async def begin() -> None:
            task = await self._core.update_firmware(
                save_firmware=save_firmware,
                firmware_save_path=firmware_save_path,
                kind=kind,
                chunk_size=chunk_size,
                chunk_timeout=chunk_timeout,
                keep_watching=keep_watching,
                **callbacks,
            )
            work.follow(task)

        self._runtime.run(begin)
        return work

    def set_attribute_update_callback(self, callback: Callback | None) -> None:
        """Set the callback for changed shared attributes. It may be replaced at any time, also before ``connect``.

        Args:
            callback: A plain function that gets each ``AttributeUpdate``, one after the other. Deleted attributes are in its
                ``deleted_keys``. ``None`` for no callback.

        Raises:
            TypeError: ``callback`` cannot be called, or is a coroutine function.
        """
        self._core.set_attribute_update_callback(None if callback is None else self._runtime.bridge("callback", callback))

    def set_rpc_request_callback(self, callback: Callback | None) -> None:
        """Set the callback for server-side RPC. It may be replaced at any time, also before ``connect``.

        The platform gets an error if there is no callback, or if the callback raises, returns a value that JSON cannot represent,
        or is not done within ``rpc_callback_timeout``, the time that it waits for earlier callbacks included.

        Args:
            callback: A plain function that gets each ``RPCRequest`` and returns an ``RPCResponse``, or the result as any JSON
                value. The platform gets ``{"result": value}``, or the value alone with ``rpc_reply="plain"`` or
                ``RPCResponse.plain``. ``None`` for no callback.

        Raises:
            TypeError: ``callback`` cannot be called, or is a coroutine function.
        """
        self._core.set_rpc_request_callback(None if callback is None else self._runtime.bridge("callback", callback))

    def rpc(self, *methods: str) -> Callable[[F], F]:
        """Return a decorator: the plain function handles server-side RPC with these methods, and its result is the response.

        ``@client.rpc("setValue")`` before ``def set_value(value: int, unit: str = "C")``. The parameters of a request are passed by
        name (a JSON object), in order (an array), or as the only argument (any other value). A function with one parameter gets
        all of them in it, if its annotation allows that, as ``dict``, a dataclass and no annotation do. A parameter that is
        annotated with ``RPCRequest`` gets the request.

        The values are checked against the annotations, and dataclasses, enums and models of pydantic and msgspec are made from
        them. If they do not fit, the platform gets an error that says why, and the function is not called. For other methods, the
        callback of ``set_rpc_request_callback`` is called; without one, the platform gets an error that lists the methods.

        Args:
            methods: The methods. Without any, the function's name is the method.

        Raises:
            TypeError: A method is not a ``str``; in the decorator: the function is a coroutine function, or its signature is not
                possible.
            ValueError: A method is empty; in the decorator: the method has a handler.
        """
        return plain_only(self._core.rpc(*methods), self._runtime.bridge)

    def on_attribute(self, *keys: str) -> Callable[[F], F]:
        """Return a decorator: the plain function is called when one of these shared attributes is changed or deleted.

        ``@client.on_attribute("interval", "mode")`` before ``def changed(interval: int = 10, mode: str = "eco")``. Parameters have
        the names of the attributes; the only parameter for a single attribute may have any name, and ``**values`` takes all others.
        An update has only the attributes that have changed, so that each parameter for one of several attributes needs a default
        value. For a deleted attribute, the value is ``None`` if the annotation allows it, or else the default. A parameter that is
        annotated with ``AttributeUpdate`` gets the update.

        The values are checked as for ``rpc``. If one does not fit, the function is not called; this is logged, and counted in
        ``inbound_malformed``. The callback of ``set_attribute_update_callback`` gets all updates, before the handlers.

        Args:
            keys: The attributes.

        Raises:
            TypeError: A key is not a ``str``; in the decorator: the function is a coroutine function, or its signature is not
                possible.
            ValueError: There is no key, or one is empty.
        """
        return plain_only(self._core.on_attribute(*keys), self._runtime.bridge)

    def remove_handler(self, function: Callable[..., Any]) -> None:
        """Remove a function that was registered with ``rpc`` or ``on_attribute``, for all its methods and attributes.

        Args:
            function: The function.

        Raises:
            ValueError: The function is not registered.
        """
        self._core.remove_handler(function)
