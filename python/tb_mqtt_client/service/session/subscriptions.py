"""What one session is waited for: SUBACKs, UNSUBACKs, and other answers that no later session can give.

The rule: whatever waits for a session is told of its end.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gmqtt import Client

from tb_mqtt_client.common.exceptions import ConnectionLostError, SubscriptionRefusedError
from tb_mqtt_client.common.mqtt.packets import Properties
from tb_mqtt_client.common.timing import running_timeout
from tb_mqtt_client.constants.reason_codes import FIRST_FAILURE


class Subscriptions:
    """Subscribes, and keeps what waits. One for all sessions, of which there is one at a time."""

    def __init__(self) -> None:
        self._by_packet_id: dict[int, asyncio.Future[int]] = {}
        self._futures: set[asyncio.Future[Any]] = set()
        self._server, self._timeout = "the server", 0.0

    def listen_to(self, client: Client, server: str, timeout: float) -> None:
        """Receive this client's SUBACKs and UNSUBACKs; ``server`` (for errors) has ``timeout`` seconds for each."""
        self._server, self._timeout = server, timeout
        client.on_subscribe = self._granted
        client.on_unsubscribe = self._unsubscribed

    def future(self) -> asyncio.Future[Any]:
        """A future for an answer of this session: when the session ends first, it raises ``ConnectionLostError``."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def end(self, cause: str) -> None:
        """The session has ended."""
        for waiting in list(self._futures):
            if not waiting.done():
                waiting.set_exception(ConnectionLostError(f"the connection ended: {cause}"))

    async def subscribe(self, client: Client, topic: str, qos: int, *, no_local: bool) -> None:
        """Subscribe, and wait for the SUBACK.

        Raises:
            SubscriptionRefusedError: The server refuses.
            ConnectionLostError: The session ends first.
            TimeoutError: The server does not answer in time.
        """
        packet_id = client.subscribe(topic, qos=qos, no_local=no_local)
        reason_code = await self._answer(packet_id, f"the subscription to {topic} (no SUBACK)")
        if reason_code >= FIRST_FAILURE:
            raise SubscriptionRefusedError(topic, reason_code)

    async def unsubscribed(self, packet_id: int, topic: str) -> None:
        """Wait for the UNSUBACK.

        Raises:
            ConnectionLostError: The session ends first.
            TimeoutError: The server does not answer in time.
        """
        await self._answer(packet_id, f"the end of the subscription to {topic} (no UNSUBACK)")

    async def _answer(self, packet_id: int, what: str) -> int:
        answer: asyncio.Future[int] = self.future()
        self._by_packet_id[packet_id] = answer
        try:
            async with running_timeout(self._timeout):
                await asyncio.wait([answer])
        except TimeoutError:
            # Both may come in the same turn of the loop, and the answer counts.
            if not answer.done():
                raise TimeoutError(f"{self._server} did not acknowledge {what} within {self._timeout:g} s") from None
        finally:
            self._by_packet_id.pop(packet_id, None)
            answer.cancel()
        return answer.result()

    def _granted(self, _client: Client, packet_id: int, granted: tuple[int, ...], _properties: Properties) -> None:
        self._take(packet_id, granted[0])

    def _unsubscribed(self, _client: Client, packet_id: int, _reason_codes: tuple[int, ...]) -> None:
        self._take(packet_id, 0)

    def _take(self, packet_id: int, reason_code: int) -> None:
        answer = self._by_packet_id.get(packet_id)
        if answer is not None and not answer.done():
            answer.set_result(reason_code)
