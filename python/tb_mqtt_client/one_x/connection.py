"""Connects the classes of SDK 1.x with a client: sends, messages, the life of the connection, and waiting for results."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.exceptions import ConnectionRefusedByServer
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.entities.connection_event import ConnectionEvent, ConnectRefused
from tb_mqtt_client.one_x.core import Answer, DeviceCore
from tb_mqtt_client.one_x.publish_info import Pending, SentMessage
from tb_mqtt_client.service.life_cycle import ClientState
from tb_mqtt_client.sync.pending import Delivery, PendingResult, Waiters
from tb_mqtt_client.sync.runtime import Runtime

T = TypeVar("T")

GET_TIMEOUT = 30.0
"""Seconds that ``get`` waits for a result."""
MOMENT = 0.25
"""Seconds that ``get`` waits if an earlier call has waited for the whole time, and nothing was acknowledged since then."""
REST = 0.05
"""Seconds after such a wait in which ``get`` does not wait: a program reads many results in a row, and then sends again."""
STOP_TIMEOUT = 3.0
"""Seconds for which ``disconnect`` sends queued data."""
STALLED_STOP_TIMEOUT = 0.5
"""Seconds for which ``disconnect`` does so in the IoT Gateway if nothing is acknowledged: it keeps the data in its storage."""


def _nothing(_topic: str, _payload: bytes) -> None:
    """Do nothing with a message: every message goes to ``on_message``."""


class Connection:
    """One client in the event loop of all clients, and its thread for callbacks."""

    def __init__(
        self,
        core: DeviceCore,
        on_event: Callable[[ConnectionEvent], None],
        on_message: Callable[[str, bytes], None],
        *,
        get_timeout: float = GET_TIMEOUT,
        more_with_progress: float = 0.0,
        stop_timeout: float = STOP_TIMEOUT,
        forgives_refusals: bool = False,
    ) -> None:
        """Create a connection that is not established.

        Args:
            core: The client.
            on_event: Called with each connection event, in the thread for callbacks.
            on_message: Called with topic and payload of each message, in the thread for callbacks.
            get_timeout: Seconds that ``get`` waits for a result.
            more_with_progress: Seconds that it waits in addition if something was acknowledged meanwhile.
            stop_timeout: Seconds for which ``disconnect`` sends queued data.
            forgives_refusals: See ``Waiting``.
        """
        self.core = core
        self.runtime: Runtime = Runtime(core)
        self.waiters: Waiters = self.runtime.waiters
        self.get_timeout = get_timeout
        self.more_with_progress = more_with_progress
        self.stop_timeout = stop_timeout
        self.forgives_refusals = forgives_refusals
        self._is_released = False
        self._settled_at_timeout: int | None = None
        self._rests_until = 0.0
        core.on_connection_event(self.runtime.bridge("on_event", on_event))
        core.tap(partial(self.runtime.callbacks.post, on_message))

    # The life of the connection.

    def connect(self) -> None:
        """Make the first attempt, and continue in the background unless the server cannot be reached.

        Raises:
            OSError: The server cannot be reached: nothing continues in the background.
        """
        self.runtime.start()
        try:
            self.runtime.run(self._first_attempt)
        except (ConnectionRefusedByServer, TimeoutError):
            # Like paho, continue until the server accepts: an administrator may fix the cause.
            self.runtime.run(self.core.start)
        except BaseException:
            # No thread is left of an attempt that the program has to repeat.
            self._end(0)
            raise

    async def _first_attempt(self) -> None:
        """Connect, but wait for one attempt only: after a temporary refusal, the client continues in the background.

        Raises:
            TimeoutError: The server refuses the connection for now, or does not respond.
            OSError: The attempt failed in another way.
        """
        is_waiting = True
        async with asyncio.timeout(None) as limit:

            async def go_on_after_refusal(event: ConnectionEvent) -> None:
                if is_waiting and isinstance(event, ConnectRefused) and not event.permanent:
                    # First, so that the attempts do not end when nothing waits for them.
                    await self.core.start()
                    if is_waiting:
                        limit.reschedule(asyncio.get_running_loop().time())

            remove = self.core.on_connection_event(go_on_after_refusal)
            try:
                await self.core.connect()
            finally:
                is_waiting = False
                remove()

    def disconnect(self) -> None:
        """Send queued data for a short time, and close the connection; the rest is undelivered."""
        is_stalled = self.forgives_refusals and (not self.is_open or self._is_stalled())
        self._end(STALLED_STOP_TIMEOUT if is_stalled else self.stop_timeout)

    def _end(self, seconds: float) -> None:
        try:
            self.runtime.run(partial(self.core.stop, seconds))
        finally:
            self.runtime.end_if_unused()

    @property
    def is_wanted(self) -> bool:
        """Whether a connection exists or is being established."""
        return self.core.state.wants_connection

    @property
    def is_open(self) -> bool:
        """Whether there is a session that is set up."""
        return self.core.state is ClientState.OPEN

    # Sends.

    def send(self, uplink: EncodedUplink) -> SentMessage:
        """Send encoded data; wait while the queues are full.

        Raises:
            NotConnectedError: ``connect`` was not called, or the client is disconnected.
        """
        delivery: Delivery = PendingResult(self.runtime.waiters)
        self.core.submit(uplink, delivery, None)
        return SentMessage(delivery, self)

    def deliver(self, make: Callable[[], Coroutine[Any, Any, DeliveryFuture]]) -> SentMessage:
        """Queue a message, and return it.

        Raises:
            ValueError: The message is too large.
            NotConnectedError: ``connect`` was not called, or the client is disconnected.
        """
        return SentMessage(self.runtime.deliver(make), self)

    def request(self, topic: str, begin: Callable[[Answer], Coroutine[Any, Any, object]], answer: Answer) -> SentMessage:
        """Send a request, of which the response says that it arrived.

        Args:
            topic: The topic that the result of the request has.
            begin: Sends the request, and passes the outcome to the function that it is given.
            answer: Called with the outcome in the thread for callbacks.
        """
        delivery: Delivery = PendingResult(self.runtime.waiters)

        def done(content: Any, error: BaseException | None) -> None:
            code = 0 if error is None else LocalReasonCode.NOT_DELIVERED
            delivery.set_result(PublishResult(topic, 1, -1, 0, code))
            self.runtime.callbacks.post(answer, content, error)

        self.runtime.run(partial(begin, done))
        return SentMessage(delivery, self)

    def resume(self) -> None:
        """Let ``wait`` wait again, after ``release``."""
        self._is_released = False

    def release(self) -> None:
        """Let no call of ``wait`` begin to wait from now on, because the program ends."""
        self._is_released = True

    @property
    def thread(self) -> threading.Thread | None:
        """A thread that lives as long as the connection is wanted."""
        return next((one for one in threading.enumerate() if one.name == "tb-mqtt event loop"), None)

    def call_after(self, seconds: float, function: Callable[..., object], *arguments: object) -> None:
        """Call a function in the thread for callbacks after some seconds, unless the client is disconnected before."""
        self.runtime.run(partial(self.core.call_after, seconds, partial(self.runtime.callbacks.post, function, *arguments)))

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine of the client."""
        return self.runtime.run(make)

    def subscribe(self, topic_filter: str) -> Callable[[], None]:
        """Subscribe to a topic in each session, and return a function that ends this. ``on_message`` gets the messages.

        Raises:
            ValueError: The filter is not valid.
            SubscriptionRefusedError: The server refuses the subscription.
        """
        remove = self.runtime.run(partial(self.core.subscribe, topic_filter, _nothing))
        return partial(self.runtime.call, remove)

    # Waiting, see ``Waiting``.

    def wait(self, delivery: Pending) -> bool:
        """Wait for a result; only for a moment if nothing was acknowledged since the last wait that was too long.

        The IoT Gateway waits for each of thousands of messages in turn. If the server acknowledges nothing, only the first one of
        these waits takes its whole time.
        """
        if self._is_released or not self.is_wanted:
            return delivery.done()
        is_stalled = self._is_stalled()
        if is_stalled and monotonic() < self._rests_until:
            return delivery.done()
        before = self._settled() if self.more_with_progress else 0
        if self._has_result(delivery, MOMENT if is_stalled else self.get_timeout):
            return True
        if self.more_with_progress and self._settled() != before and self._has_result(delivery, self.more_with_progress):
            return True
        self._settled_at_timeout = self._settled()
        self._rests_until = monotonic() + REST
        return False

    @staticmethod
    def _has_result(delivery: Pending, seconds: float) -> bool:
        try:
            delivery.result(seconds)
        except TimeoutError:
            return False
        return True

    def _is_stalled(self) -> bool:
        """Return whether nothing was acknowledged since a wait that was too long."""
        if self._settled_at_timeout is None:
            return False
        if self._settled_at_timeout == self._settled():
            return True
        # Asking again would cost each of the following waits a look at the event loop.
        self._settled_at_timeout = None
        return False

    def _settled(self) -> int:
        """Return how many datapoints the platform has acknowledged or refused."""
        # In whatever order they are read: the sum only has to differ if something was settled meanwhile.
        return self.core.settled_datapoints

    def not_yet(self) -> int:
        """Return -1 (again) with a session, and 4 (not connected) without one."""
        return -1 if self.is_open else 4
