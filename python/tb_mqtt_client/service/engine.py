"""The engine of one client: it assembles the parts, and runs their life from connect to stop."""

from __future__ import annotations

import asyncio
import logging
import random
import string
from collections.abc import Callable
from contextlib import AsyncExitStack
from enum import IntEnum
from functools import partial
from typing import Any

from tb_mqtt_client.common.async_utils import FutureMap, seconds_or_none
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.exceptions import ConnectionLostError, NotConnectedError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter, own_limits, unlimited
from tb_mqtt_client.common.tasks import Tasks, report_failure
from tb_mqtt_client.constants.option_values import ClockMode, Replay, TimestampSource
from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.call_guard import CallGuard
from tb_mqtt_client.service.connection_events import ConnectionEvents
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.device_clock import DeviceClock
from tb_mqtt_client.service.delivery.statistics import Statistics
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
from tb_mqtt_client.service.sends import Sends
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
        self.life: LifeCycle = LifeCycle()
        self.guard: CallGuard = CallGuard(self.life)
        self.tasks: Tasks = Tasks(self._task_failed)
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
        self.sends: Sends = Sends(config, self.guard, self.message_service, self.admission, self.device_clock)
        self.downlink: DeviceDownlink = DeviceDownlink(
            self.format,
            self.report,
            self.tasks,
            self.sends.send_message,
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
            self.sends.send_message,
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
        self.guard.require_own_loop_if_used()
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
        self.message_service.intake.count_gathered()
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
        self.guard.enter()
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
        self.guard.require_own_loop_if_used()
        if self.store is not None:
            await self.store.flush()

    async def wait_connected(self, timeout: float | None) -> None:
        """Wait until a session is set up, see ``DeviceClient.wait_connected``."""
        limit = seconds_or_none(timeout)
        self.guard.require_own_loop_if_used()
        try:
            async with asyncio.timeout(limit):
                is_open = await self.life.wait_open()
        except TimeoutError:
            failure = self.events.last_failure or "the first attempt is still running"
            raise TimeoutError(f"the client is not connected after {limit:g} s: {failure}") from None
        if not is_open:
            raise self.guard.not_connected("wait_connected()")

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
        self.guard.require_own_loop_if_used()
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
        self.guard.require_own_loop_if_used()
        self._end_requests += 1
        if not self.life.state.is_stopping:
            self._deadline = None
        self._hurry(timeout)
        self._begin_end(Goal.STOPPED)
        await self._ended()
        # Another caller may have connected the client again.
        if self.life.state is ClientState.STOPPED and asyncio.get_running_loop() is self.guard.loop:
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
        self.guard.failure = f"the task {task.get_name()!r} of this client {cause}. connect() starts it again"
        self.message_service.fail(self.guard.failure)
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
            logger.error("The client closes its connection: %s", self.guard.failure)
            self.events.client_failed(self.guard.failure)
            self._begin_end(Goal.FAILED)

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
            self.message_service.intake.stop_gathering()
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
