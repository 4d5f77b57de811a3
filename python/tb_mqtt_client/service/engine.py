"""The engine of one client: it assembles the parts, and runs their life from connect to stop."""

from __future__ import annotations

import asyncio
import logging
import random
import string
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from enum import IntEnum
from functools import partial
from threading import get_ident
from typing import Any

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink, TableReader
from tb_mqtt_client.common.async_utils import DeliveryFuture, FutureMap, SendReceipt, seconds_or_none
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.delivery import Delivery
from tb_mqtt_client.common.exceptions import ConnectionLostError, NotConnectedError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult, pending_result
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter, own_limits, unlimited
from tb_mqtt_client.common.tasks import Tasks, report_failure
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.mqtt_topics import DEVICE_TELEMETRY_TOPIC
from tb_mqtt_client.constants.option_values import ClockMode, Priority, Replay, TimestampSource
from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.connection_events import ConnectionEvents
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.device_clock import DeviceClock
from tb_mqtt_client.service.delivery.intake import Intake
from tb_mqtt_client.service.delivery.plain_sends import PlainSends
from tb_mqtt_client.service.delivery.statistics import Statistics
from tb_mqtt_client.service.delivery.tables import Rows, TableSum, send_parts
from tb_mqtt_client.service.delivery.terms import NORMAL, SendTerms
from tb_mqtt_client.service.delivery.timestamps import check_unstamped, stamp_of
from tb_mqtt_client.service.formats.json_device import JsonDeviceFormat
from tb_mqtt_client.service.formats.json_session_limits import SessionLimits
from tb_mqtt_client.service.formats.protocol import DeviceFormat
from tb_mqtt_client.service.health import health_snapshot, limits_snapshot
from tb_mqtt_client.service.life_cycle import ClientState, LifeCycle
from tb_mqtt_client.service.message_service import MessageService
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.requests.callbacks import Callback
from tb_mqtt_client.service.requests.device import DeviceRequests
from tb_mqtt_client.service.requests.dispatch import InboundDispatcher, InboundReport
from tb_mqtt_client.service.requests.incoming import DeviceDownlink
from tb_mqtt_client.service.requests.raw_subscriptions import RawSubscriptions
from tb_mqtt_client.service.session.keeper import Backoff, ConnectionKeeper
from tb_mqtt_client.service.session.limits import apply_rate_limits
from tb_mqtt_client.service.session.setup import COUNTED_TOPICS, RESPONSE_TOPICS, SessionSetup
from tb_mqtt_client.service.store.disk_store import DiskStore
from tb_mqtt_client.service.store.native_log import open_log, owner_of

logger: ExtendedLogger = get_logger(__name__)


class Component:
    """A part of a client that takes part in its life, such as sub-devices or updates. The methods do nothing by default."""

    topics: tuple[str, ...] = ()
    """Topics that each session subscribes to, of which the platform does not count the subscriptions."""

    def connecting(self) -> None:
        """Note that a connection is wanted from now on."""

    def before_traffic(self) -> None:
        """Prepare a new session before queued messages are published in it."""

    def session_ended(self) -> None:
        """Note that the connection ended, whatever the reason; its messages are back in the queues."""

    async def finish(self) -> None:
        """End work that the component does on its own, while it can still send."""

    async def disconnect(self) -> None:
        """End requests and callbacks; the connection is closed next."""

    def stopped(self) -> None:
        """Resolve the remaining futures, because the client is stopped. Its queues are empty."""


class Goal(IntEnum):
    """How a client is to end; a larger one includes the smaller ones."""

    NONE = 0
    UNCONNECTED = 1
    """The first connection failed: no task is left."""
    DISCONNECTED = 2
    """Requests, callbacks and updates are ended, too."""
    FAILED = 3
    """Queued data is resolved as undelivered."""
    STOPPED = 4


class Engine:
    """The parts of one client, and the sessions that it has one after the other.

    The parts are public for the components and for tests; programs use the clients.
    """

    def __init__(self, config: DeviceConfig) -> None:
        self.config = config
        self.client_id: str = config.client_id or _random_client_id()
        self.max_payload_size: int | None = None
        """Bytes of the largest telemetry payload; ``None`` until connected."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_loop_running: Callable[[], bool] = bool
        self._thread = 0
        self.life: LifeCycle = LifeCycle()
        self.tasks: Tasks = Tasks(self._task_failed)
        self._failure = ""
        self._ending: asyncio.Task[None] | None = None
        self._goal = Goal.NONE
        self._end_requests = 0
        """How often `disconnect` and `stop` were called."""
        self._is_left_open = False
        """Whether nothing was closed when the client failed."""
        self._deadline: float | None = None
        self._drain_limit: asyncio.Timeout | None = None
        self._limits = SessionLimits()
        self._components: list[Component] = []
        self.rate_limiter: RateLimiter = unlimited("device")
        self.gateway_rate_limiter: RateLimiter = unlimited("gateway")
        self.futures: FutureMap = FutureMap()
        self.format: DeviceFormat = JsonDeviceFormat(config.rpc_reply)
        self.report: InboundReport = InboundReport()
        self.device_clock: DeviceClock | None = _device_clock(config)
        self.stamp: Callable[[], int | None] = stamp_of(config.timestamps) if self.device_clock is None else self.device_clock.stamp
        """Returns the timestamp of telemetry that is sent without one; ``None`` if the platform sets it, or the client when the
        clock of the device is set: the data then needs ``unstamped``."""
        self.events: ConnectionEvents = ConnectionEvents(self.tasks, self.report)
        self.life.listeners.append(self._state_changed)
        self.mqtt_manager: MQTTManager = MQTTManager(
            self.client_id,
            mqtt_version=config.mqtt_version,
            max_inflight=config.max_inflight_messages,
            ack_timeout=config.ack_timeout,
            inbound=InboundDispatcher(self.report, self.tasks, config.max_inbound_messages),
            tasks=self.tasks,
        )
        backpressure = BackpressureController(delay=config.backpressure_delay, on_pause=self.events.paused)
        self.admission: Admission = Admission(self.rate_limiter, self.gateway_rate_limiter, backpressure)
        self.admission.set_own_limits(own_limits(config.rate_limits or {}))
        self.store: DiskStore | None = None
        if config.store is not None:
            self.store = DiskStore(
                config.store,
                partial(owner_of, config),
                open_log,
                replays_in_order=config.replay is Replay.IN_ORDER,
                device_clock=self.device_clock,
            )
        """Keeps the sends on disk; ``None`` if they are in memory only."""
        self.message_service: MessageService = MessageService(
            self.mqtt_manager,
            self.admission,
            self.futures,
            self.tasks,
            max_queued_sends=config.max_queued_messages,
            max_queued_bytes=config.max_queued_bytes,
            device_qos=config.qos,
            round_floats=config.round_floats,
            queue_policy=config.queue_policy,
            store=self.store,
            timestamps=config.timestamps,
            device_clock=self.device_clock,
            replay=config.replay,
            backlog_share=config.backlog_share,
        )
        self.message_service.capacity.on_fill_changed = self._fill_changed
        self.intake: Intake = self.message_service.intake
        """Accepts sends."""
        self.downlink: DeviceDownlink = DeviceDownlink(
            self.format,
            self.report,
            self.tasks,
            self.send_message,
            self._count_server_side_rpc,
            config.rpc_callback_timeout,
        )
        self.downlink.register_at(self.mqtt_manager)
        self.requests: DeviceRequests = DeviceRequests(
            self.format,
            self.downlink,
            self.mqtt_manager,
            self.report,
            self.tasks,
            self.send_message,
            self.message_service.withdraw,
        )
        self.raw_subscriptions: RawSubscriptions = RawSubscriptions(self.mqtt_manager.inbound, self.report)
        self.session_setup: SessionSetup = SessionSetup(
            config,
            self.mqtt_manager,
            self.admission,
            self.requests.next_rpc_id,
            self.apply_limits,
            self._begin_traffic,
            self._further_topics,
            self.events.connecting,
            self._session_accepted,
            self._session_opened,
        )
        self.keeper: ConnectionKeeper = ConnectionKeeper(
            self.tasks,
            self.session_setup.establish,
            self.mqtt_manager.wait_lost,
            Backoff(config.reconnect_delay_min, config.reconnect_delay_max),
            self.events,
        )
        self.mqtt_manager.session_end_callbacks.append(lambda _: self._session_ended())

    def add(self, component: Component) -> None:
        """Let a component take part in the life of this client, before its first connection."""
        self._components.append(component)

    def _further_topics(self) -> list[str]:
        return [*self._component_topics(), *self.raw_subscriptions.topics(self._own_topics())]

    def _component_topics(self) -> list[str]:
        return [topic for component in self._components for topic in component.topics]

    def _own_topics(self) -> set[str]:
        return {*RESPONSE_TOPICS, *COUNTED_TOPICS, *self._component_topics()}

    async def subscribe(self, topic_filter: str, callback: Callback[None]) -> Callable[[], None]:
        """Call a function with messages of a topic, see ``DeviceClient.subscribe``."""
        self._require_own_loop_if_used()
        end = self.raw_subscriptions.add(topic_filter, callback)

        def remove() -> None:
            if end() and topic_filter not in self._own_topics():
                self.mqtt_manager.send_unsubscribe(topic_filter)

        if self.life.state is ClientState.OPEN and topic_filter in self.raw_subscriptions.topics(self._own_topics()):
            try:
                await self.mqtt_manager.subscribe(topic_filter)
            except (ConnectionLostError, TimeoutError):
                # The set-up of the next session subscribes.
                logger.debug("The connection ended before %s was subscribed to", topic_filter)
            except BaseException:
                end()
                raise
        return remove

    def _session_ended(self) -> None:
        is_first = self.life.state in {ClientState.CONNECTING, ClientState.SETTING_UP} and not self.keeper.has_established
        self.life.follow_session(ClientState.CONNECTING if is_first else ClientState.RECONNECTING)
        for component in self._components:
            component.session_ended()
        if self.store is not None:
            self.store.set_online(False)
            # What is left is safe on disk, so that stop() does not wait for a connection.
            if self.life.state.is_stopping:
                self.message_service.end_drain()

    @property
    def statistics(self) -> Statistics:
        """Counts of all datapoints by state, and of connections and received messages."""
        manager = self.mqtt_manager
        self.intake.count_gathered()
        return self.message_service.counter.snapshot(
            queued_sends=self.message_service.capacity.sends + (0 if self.store is None else self.store.backlog_sends),
            in_flight_messages=manager.in_flight,
            connections=manager.connections,
            last_disconnect=manager.last_end.cause if manager.last_end else "",
            seconds_limited=self.admission.seconds_limited,
            backpressure_pauses=self.admission.backpressure.pauses,
            **self.report.counts(),
        )

    def health(self) -> dict[str, Any]:
        """Return the current state as JSON values: ``health_snapshot``, the client's id and state, and its server."""
        state = health_snapshot(self.mqtt_manager, self.admission, self._limits, self.statistics, self.message_service)
        state["store"] = None if self.store is None else self.store.health()
        server = self.session_setup.server or next(iter(self.config.servers()), None)
        host, port = (None, self.config.port) if server is None else (server.host, server.port)
        return {
            "client_id": self.client_id,
            "host": host,
            "port": port,
            "state": self.life.state.value,
            "started": self.life.accepts_sends,
            "connect_error": self.events.last_failure,
            "clock": None if self.device_clock is None else self.device_clock.health(),
        } | state

    async def connect(self) -> None:
        """Establish a session and keep it, see ``DeviceClient.connect``."""
        await self._want_connection()
        try:
            await self.keeper.connect()
        except BaseException:
            if not self.keeper.is_wanted:
                # No task may outlive a failed attempt: the program may drop the client. Queued data stays for the next one.
                self._begin_end(Goal.UNCONNECTED)
                await self._ended()
            raise

    async def start(self) -> None:
        """Establish a session for as long as it takes and keep it, see ``DeviceClient.start``."""
        await self._want_connection()
        self.keeper.start()

    async def _want_connection(self) -> None:
        """Accept sends, and count attempts from now on; nothing changes if a connection is wanted already."""
        self._loop = self._loop or asyncio.get_running_loop()
        self._is_loop_running = self._loop.is_running
        self._require_own_loop()
        self._thread = get_ident()
        if self._is_left_open:
            self._begin_end(Goal.FAILED)
        await self._wait_for_end()
        if self.config.host is None:
            raise ValueError("host must be set, in the configuration or as TB_HOST")
        await self._open_store()
        if not self.life.state.wants_connection:
            self.life.change(ClientState.CONNECTING)
            for component in self._components:
                component.connecting()
            self.events.started()
            self.message_service.open()
            if self.device_clock is not None:
                self.device_clock.resume()

    async def _open_store(self) -> None:
        """Open the store, unless it is open or there is none.

        Raises:
            OSError: The store cannot be opened.
            NotConnectedError: The client was disconnected or stopped meanwhile.
        """
        store = self.store
        if store is None or store.is_open:
            return
        requests = self._end_requests
        await store.open()
        if self._end_requests != requests:
            if not self.life.accepts_sends:
                await store.close()
            raise NotConnectedError("the client was disconnected or stopped while it opened its store")

    async def flush(self) -> None:
        """Write all accepted sends to the store, see ``DeviceClient.flush``."""
        self._require_own_loop_if_used()
        if self.store is not None:
            await self.store.flush()

    async def wait_connected(self, timeout: float | None) -> None:
        """Wait until a session is set up, see ``DeviceClient.wait_connected``."""
        limit = seconds_or_none(timeout)
        self._require_own_loop_if_used()
        try:
            async with asyncio.timeout(limit):
                is_open = await self.life.wait_open()
        except TimeoutError:
            failure = self.events.last_failure or "the first attempt is still running"
            raise TimeoutError(f"the client is not connected after {limit:g} s: {failure}") from None
        if not is_open:
            raise self._not_connected("wait_connected()")

    async def _wait_for_end(self) -> None:
        """Wait until a running end is over: it would end a new session, too.

        Raises:
            NotConnectedError: The client was disconnected or stopped meanwhile, or the caller is a callback that the end has
                cancelled and waits for.
        """
        if self._ending is not None and self.tasks.is_ending(self.tasks.current()):
            raise NotConnectedError("the client is being disconnected or stopped, which has cancelled this callback")
        requests = self._end_requests
        while self._ending is not None:
            await asyncio.wait([self._ending])
            if self._end_requests != requests:
                raise NotConnectedError("the client was disconnected or stopped while it was connecting")

    async def disconnect(self, timeout: float | None) -> None:
        """Drain the queues and close the connection, see ``DeviceClient.disconnect``."""
        limit = seconds_or_none(timeout)
        self._require_own_loop_if_used()
        if limit != 0 and self.life.state.wants_connection and self.keeper.is_running:
            try:
                async with asyncio.timeout(limit):
                    await self.message_service.drain()
            except TimeoutError:
                logger.info("Disconnecting before all data was delivered: the timeout of disconnect() has expired")
        self._end_requests += 1
        self._begin_end(Goal.DISCONNECTED)
        await self._ended()

    async def stop(self, timeout: float | None) -> None:
        """Drain the queues and close, see ``DeviceClient.stop``."""
        seconds_or_none(timeout)
        self._require_own_loop_if_used()
        self._end_requests += 1
        if not self.life.state.is_stopping:
            self._deadline = None
        self._hurry(timeout)
        self._begin_end(Goal.STOPPED)
        await self._ended()
        # Another caller may have connected the client again.
        if self.life.state is ClientState.STOPPED and asyncio.get_running_loop() is self._loop:
            # A callback that stopped the client may still be running.
            await self.tasks.end_all()

    # The end runs in a task of its own, so that callers may be cancelled, or be callbacks that are ended by it.

    def _begin_end(self, goal: Goal) -> None:
        """Begin to end the client, or extend a running end to a goal that includes more."""
        state = self.life.state
        if goal is Goal.STOPPED:
            if state is ClientState.STOPPED:
                return
            if not state.is_stopping:
                self.life.change(ClientState.FINISHING if state.wants_connection else ClientState.DRAINING)
        elif state.is_stopping:
            # Without a connection there is nothing to wait for.
            self._hurry(0)
            return
        elif state.wants_connection:
            self.life.change(ClientState.FAILED if goal is Goal.FAILED else ClientState.DISCONNECTED)
        elif self._is_left_open:
            goal = Goal.FAILED
        elif state is not ClientState.DISCONNECTED:
            return
        self._goal = max(self._goal, goal)
        if self._ending is None:
            self._ending = self.tasks.start(self._end(), "end", runs_callbacks=False)

    def _hurry(self, seconds: float | None) -> None:
        """Limit the time for draining the queues, unless it is limited to less already.

        Args:
            seconds: The limit from now on; ``None`` changes nothing.
        """
        if seconds is None:
            return
        moment = asyncio.get_running_loop().time() + seconds
        self._deadline = moment if self._deadline is None else min(moment, self._deadline)
        if self._drain_limit is not None and not self._drain_limit.expired():
            self._drain_limit.reschedule(self._deadline)

    async def _ended(self) -> None:
        """Wait until the client has ended, and raise the error of the end, if there is one."""
        ending, own = self._ending, self.tasks.current()
        if ending is None:
            return
        if own is not None:
            if self.tasks.is_ending(own):
                # The end waits for this callback, which it has cancelled.
                return
            self.tasks.spare(own)
        cancellation: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait([ending])
            except asyncio.CancelledError as error:
                if own is not None and self.tasks.is_ending(own):
                    # The end waits for this callback, which it has cancelled before the callback asked for it.
                    raise
                # A cancelled stop must still end completely, but without waiting for the queues.
                self._hurry(0)
                cancellation = error
        if cancellation is not None:
            # An error of the end is the cause of the cancellation; task.exception() also marks it as retrieved.
            raise cancellation from (None if ending.cancelled() else ending.exception())
        ending.result()

    async def _end(self) -> None:
        had_session = self.life.state is ClientState.FINISHING
        try:
            try:
                if had_session:
                    for component in self._components:
                        await component.finish()
                    await self._drain()
            finally:
                await self._close_until_goal()
        finally:
            if self.life.state is ClientState.DRAINING:
                self.life.change(ClientState.STOPPED)
            self._ending, self._goal = None, Goal.NONE
            self._is_left_open = False
            self.tasks.spare_none()
            if had_session:
                statistics = self.statistics
                logger.log(logging.WARNING if statistics.undelivered else logging.INFO, "Stopped: %s", statistics)

    async def _drain(self) -> None:
        """Wait until callbacks of server-side RPC have replied, and everything that was sent has its result."""
        if not self.keeper.is_running:
            # The first connection has just failed: nothing would be delivered however long this waits.
            return
        try:
            async with asyncio.timeout_at(self._deadline) as self._drain_limit:
                if not self._stays_in_store:
                    await self.tasks.wait_replies()
                self.life.change(ClientState.DRAINING)
                if not self._stays_in_store:
                    await self.message_service.drain()
        except TimeoutError:
            logger.info("Stopping before all data was delivered: the timeout of stop() has expired")
        finally:
            self._drain_limit = None

    @property
    def _stays_in_store(self) -> bool:
        """Whether ``stop`` leaves queued data on disk in place of waiting for a connection."""
        return self.store is not None and not self.mqtt_manager.is_ready()

    async def _close_until_goal(self) -> None:
        if self.life.state is ClientState.FINISHING:
            self.life.change(ClientState.DRAINING)
        error: Exception | None = None
        reached = Goal.NONE
        while reached < self._goal:
            reached = self._goal
            try:
                await self._close(reached)
            except Exception as failure:  # noqa: BLE001  # raised below: the goal may have changed meanwhile
                error = error or failure
        if error is not None:
            raise error

    async def _close(self, goal: Goal) -> None:
        """Take the steps to a goal. An error of one step does not prevent the next ones."""
        async with AsyncExitStack() as steps:
            # The steps run in reverse order.
            if goal >= Goal.FAILED:
                for component in self._components:
                    steps.callback(component.stopped)
                steps.push_async_callback(self.message_service.shutdown)
                steps.push_async_callback(self.tasks.end_all)
            steps.push_async_callback(self.message_service.pause)
            if self.device_clock is not None:
                steps.callback(self.device_clock.pause)
            if goal >= Goal.DISCONNECTED:
                steps.push_async_callback(self.mqtt_manager.stop)
            steps.push_async_callback(self.keeper.stop)
            if goal >= Goal.DISCONNECTED:
                steps.push_async_callback(self.requests.stop)
                for component in self._components:
                    steps.push_async_callback(component.disconnect)

    def _task_failed(self, task: asyncio.Task[Any], error: BaseException | None) -> None:
        """End the client, because one of its tasks ended unexpectedly: otherwise it would seem to work, and do nothing."""
        cause = "was cancelled" if task.cancelled() else "returned" if error is None else f"failed: {error!r}"
        self._failure = f"the task {task.get_name()!r} of this client {cause}. connect() starts it again"
        self.message_service.fail(self._failure)
        if error is not None:
            report_failure(task, error)
        if not self.life.state.wants_connection:
            return
        if task.cancelled() and self.tasks.all_cancelled:
            # The program ends without stop(), and its loop runs no new task to the end. If the program continues, the next call
            # of connect(), disconnect() or stop() closes the connection.
            self._is_left_open = True
            self.life.change(ClientState.FAILED)
        else:
            logger.error("The client closes its connection: %s", self._failure)
            self.events.client_failed(self._failure)
            self._begin_end(Goal.FAILED)

    def encode_timeseries(self, data: Any) -> EncodedUplink:
        """Encode timeseries of the device, in any thread."""
        stamp = self.stamp
        # In place of a call of the usual function, since every send passes here.
        now = time.time_ns() // 1_000_000 if stamp is now_ms else stamp()
        encoded = EncodedUplink.timeseries(data, now, None, self.config.round_floats)
        if now is None:
            encoded = self.unstamped(encoded)
        return encoded

    def encode_attributes(self, data: Any) -> EncodedUplink:
        """Encode client attributes of the device, in any thread."""
        return EncodedUplink.attributes(data, None, self.config.round_floats)

    def submit(
        self,
        uplink: EncodedUplink,
        receiver: SendReceipt,
        timeout: float | None,
        priority: Priority | str = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> None:
        """Accept a send in any thread, see ``DeviceClient.submit``."""
        self.require_accepting()
        self.message_service.submissions.put(uplink, receiver, timeout, self.terms(priority, expires_after))

    def withdraw(self, delivery: object) -> bool:
        """Remove a queued send, see ``DeviceClient.withdraw``."""
        self._require_own_loop_if_used()
        return self.message_service.withdraw_send(delivery)

    def require_accepting(self) -> None:
        """Raise ``NotConnectedError`` if nothing may be sent. Any thread may call this."""
        if not self.life.accepts_sends:
            raise self._not_connected("anything is sent")

    def unstamped(self, encoded: EncodedUplink) -> EncodedUplink:
        """Return timeseries as they are queued if ``stamp`` has returned ``None``.

        Raises:
            ValueError: The platform would misread a key of data without a timestamp.
        """
        if self.device_clock is None:
            check_unstamped(encoded)
            return encoded
        return self.device_clock.hold(encoded)

    async def send_table(
        self, open_reader: Callable[[], TableReader], wait_for_publish: bool, priority: Priority | str, expires_after: float | None
    ) -> PublishResult | list[DeliveryFuture]:
        """Send a table of the device, and return what ``send_timeseries`` returns."""
        terms = self.terms(priority, expires_after)
        self.require_started()

        async def accept(rows: Rows) -> tuple[EncodedUplink, DeliveryFuture]:
            return await self.accept_part(rows[2], terms)

        total = TableSum(DEVICE_TELEMETRY_TOPIC, self.config.qos)
        return await send_parts(open_reader, accept, total, wait_for_publish)

    async def accept_part(self, encoded: EncodedUplink, terms: SendTerms | None) -> tuple[EncodedUplink, DeliveryFuture]:
        """Accept a part of a table. Return its datapoints as they are queued, and the future of their result."""
        if self.stamp() is None:
            encoded = self.unstamped(encoded)
        return encoded, self.try_accept(encoded, terms) or await self.accept(encoded, terms)

    def terms(self, priority: Priority | str, expires_after: float | None) -> SendTerms | None:
        """Return the terms of a send, see ``send_terms``."""
        if priority is NORMAL and expires_after is None:
            return None
        return self.message_service.terms(priority, expires_after)

    def gather(
        self, plain: PlainSends, data: Any, now: int, device: DeviceIdentity | None = None, is_awaited: bool = False
    ) -> DeliveryFuture | None:
        """Encode timeseries straight into a queue if nothing has to be decided about the send.

        Args:
            plain: The queue.
            data: As for ``DeviceClient.send_timeseries``.
            now: The current time, in milliseconds since the epoch.
            device: The sub-device of the data; None for the device itself.
            is_awaited: Whether the caller awaits the result next.

        Returns:
            The future of the result; None if ``begin_gathering`` has to be called first, because ``gathers_in_turn`` is false, or
            if the send has to be accepted in another way.
        """
        # As in `try_accept`. Another thread or loop gets its error in `begin_gathering`.
        if plain.gathers_in_turn and get_ident() == self._thread and self._is_loop_running():
            future = self.intake.create_future()
            if queued := plain.push(data, now, future, device):
                if queued == 1 and not (is_awaited and plain.publish_at_once()):
                    plain.filled.set()
                return future
            plain.close()
        return None

    async def begin_gathering(self, plain: PlainSends) -> bool:
        """Let the other tasks of the event loop run, if it is their turn; return whether ``gather`` may accept sends then."""
        self.require_started()
        return await self.intake.begin_gathering_in_turn(plain)

    def try_accept(self, encoded: EncodedUplink, terms: SendTerms | None) -> DeliveryFuture | None:
        """Accept a send if it does not have to wait, and return the future of its result; otherwise None: ``accept`` waits."""
        # Called at every send, so asyncio.get_running_loop(), which makes a system call, is not used. A forked child therefore
        # passes, because its copy of the loop claims to run; there asyncio refuses to await the result, and stop() raises.
        if not (self.life.accepts_sends and get_ident() == self._thread and self._is_loop_running()):
            self.require_started()
        return self.intake.try_accept(encoded, terms)

    async def accept(self, encoded: EncodedUplink, terms: SendTerms | None) -> DeliveryFuture:
        """Accept a send, and return the future of its result, see ``Intake.accept``."""
        # Not every caller has called ``try_accept`` before.
        self.require_started()
        return await self.intake.accept(encoded, terms)

    def gather_delivery(
        self, plain: PlainSends, data: Any, now: int, device: DeviceIdentity | None = None
    ) -> Delivery | DeliveryFuture | None:
        """Do what ``gather`` does, for a function that does not wait.

        Returns:
            The pending result; None if the send has to pass ``enqueue``.
        """
        if not (plain.gathers and get_ident() == self._thread and self._is_loop_running()) and not self._begin_now(plain):
            return None
        delivery = self.intake.create_delivery()
        queued = plain.push(data, now, delivery, device)
        if not queued and self._begin_now(plain):
            # As many sends as make a turn are gathered, and a plain function does not have to give one.
            queued = plain.push(data, now, delivery, device)
        if queued == 1:
            plain.filled.set()
        return delivery if queued else None

    def _begin_now(self, plain: PlainSends) -> bool:
        self.require_started()
        return self.intake.begin_gathering(plain)

    def enqueue(self, encoded: EncodedUplink, terms: SendTerms | None) -> Delivery | DeliveryFuture:
        """Accept a send without waiting, and return its pending result, see ``Intake.enqueue``."""
        if not (self.life.accepts_sends and get_ident() == self._thread and self._is_loop_running()):
            self.require_started()
        return self.intake.enqueue(encoded, terms)

    async def wait_for(self, delivery: DeliveryFuture, topic: str, size: int, timeout: float | None) -> PublishResult:
        """Return the result of a delivery, or one with reason code -1 after ``timeout`` seconds, when the data is still queued.

        A cancelled caller, or one whose time is over, cancels the future, not the delivery.
        """
        if timeout is None or (limit := seconds_or_none(timeout)) is None:
            return await delivery
        try:
            async with asyncio.timeout(limit):
                return await delivery
        except TimeoutError:
            return pending_result(topic, self.config.qos, size)

    async def wait_for_all(
        self, deliveries: Sequence[DeliveryFuture], topic: str, sizes: Sequence[int], timeout: float
    ) -> list[PublishResult]:
        """Return the results of several deliveries after at most ``timeout`` seconds in all, see ``wait_for``."""
        end = asyncio.get_running_loop().time() + timeout
        results: list[PublishResult] = []
        for delivery, size in zip(deliveries, sizes, strict=True):
            left = max(0.0, end - asyncio.get_running_loop().time())
            results.append(delivery.result() if delivery.done() else await self.wait_for(delivery, topic, size, left))
        return results

    def require_started(self) -> None:
        """Raise ``NotConnectedError`` if nothing may be sent, and ``RuntimeError`` in another event loop."""
        if self.life.accepts_sends and get_ident() == self._thread and self._is_loop_running():
            return
        if self.life.accepts_sends:
            self._require_own_loop()
        else:
            raise self._not_connected("anything is sent")

    def _not_connected(self, purpose: str) -> NotConnectedError:
        """Return the error that says why the client does not connect, and what to call before its purpose."""
        if self.life.state is ClientState.FAILED:
            return NotConnectedError(self._failure)
        if self.life.state is ClientState.NEW:
            return NotConnectedError(f"connect() or start() must be called before {purpose}")
        how = "disconnected" if self.life.state is ClientState.DISCONNECTED else "stopped"
        return NotConnectedError(f"the client is {how}: connect() or start() must be called again before {purpose}")

    def _require_own_loop_if_used(self) -> None:
        if self.life.state not in {ClientState.NEW, ClientState.STOPPED}:
            self._require_own_loop()

    def _require_own_loop(self) -> None:
        """Raise ``RuntimeError`` in another event loop: queues, events and futures belong to one loop."""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "A client belongs to the event loop in which connect() or start() was called first: "
                "create one client for each loop, or use asyncio.run_coroutine_threadsafe from another thread"
            )

    def send_message(self, message: MqttPublishMessage) -> DeliveryFuture:
        """Queue a message without datapoints, and return the future of its result. Cancelling the future does not cancel the
        message.

        Raises:
            ValueError: The message is too large for the session.
            NotConnectedError: Nothing may be sent.
        """
        self.check_sendable(message)
        # The platform has no QoS 2, and accepts no QoS 0 for sub-devices (docs/platform_contract.md,
        # section 4).
        message.qos = 0 if self.config.qos == 0 and message.is_device_message else 1
        delivery: DeliveryFuture = asyncio.get_running_loop().create_future()
        message.delivery_futures.append(delivery)
        self.message_service.submit(message)
        return delivery

    def check_sendable(self, message: MqttPublishMessage) -> None:
        """Raise ``ValueError`` for a message that is too large for this session, and ``NotConnectedError`` before ``connect()``."""
        self.require_started()
        limit = self.admission.payload_limits(of_sub_devices=False).payload_size(message.topic)
        if message.payload_size > limit:
            raise ValueError(
                f"the payload for {message.topic} has {message.payload_size} bytes, and the platform accepts at most {limit}"
            )

    def _count_server_side_rpc(self) -> None:
        """Count the PUBACK of a server-side RPC request as a message (docs/platform_contract.md, section 5)."""
        self.rate_limiter.message_rate_limit.spend(1)

    def _session_accepted(self) -> None:
        self.life.follow_session(ClientState.SETTING_UP)

    def _session_opened(self, server: ServerAddress) -> None:
        self.life.follow_session(ClientState.OPEN)
        if self.device_clock is not None:
            # A network is what the clock was missing, too.
            self.device_clock.resume()
        manager, limits = self.mqtt_manager, limits_snapshot(self.admission, self._limits)
        self.events.connected(server, manager.mqtt_version, limits, manager.connections)

    def _state_changed(self, _old: ClientState, state: ClientState) -> None:
        if not state.accepts_sends:
            self.intake.stop_gathering()
        if state is ClientState.STOPPED:
            self.events.stopped()

    def _fill_changed(self) -> None:
        # The end of a client empties its queue, too, when no task may be started any more.
        if self.life.accepts_sends:
            self.events.fill_changed(self.message_service.capacity)

    def _begin_traffic(self) -> None:
        """Start the queues with the first session, and prepare the traffic of each."""
        self.message_service.start()
        for component in self._components:
            component.before_traffic()
        if self.store is not None:
            self.store.set_online(True)

    def apply_limits(self, limits: SessionLimits) -> None:
        """Take over the limits of a new session."""
        self._limits = limits
        percentage = self.config.rate_limit_percentage
        apply_rate_limits(self.rate_limiter, limits.device, percentage)
        apply_rate_limits(self.gateway_rate_limiter, limits.gateway, percentage)
        # The session itself cost a message, and so did the end of the one before (docs/platform_contract.md, section 5).
        self.rate_limiter.message_rate_limit.spend(1 if self.mqtt_manager.connections == 1 else 2)
        self.admission.set_session(limits.max_packet_size, self.mqtt_manager.mqtt_version)
        self.max_payload_size = self.admission.payload_limits(of_sub_devices=False).max_payload_size


def _device_clock(config: DeviceConfig) -> DeviceClock | None:
    if config.clock is ClockMode.TRUST or config.timestamps is TimestampSource.SERVER:
        return None
    return DeviceClock(config.clock, config.clock_valid_from, needs_sync=config.clock_synchronized)


def _random_client_id() -> str:
    alphabet = string.ascii_uppercase + string.digits
    return "tb-client-" + "".join(random.choices(alphabet, k=6))  # a name, not a secret
