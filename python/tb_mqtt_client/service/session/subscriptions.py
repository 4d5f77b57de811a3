"""Subscriptions, and everything else that waits for a response in the current session.

Invariant: when a session ends, everything that waits for a response in it fails.
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
    """Subscribes and unsubscribes, and fails waiting futures when the session ends. One object serves all sessions in turn."""

    def __init__(self) -> None:
        self._by_packet_id: dict[int, asyncio.Future[int]] = {}
        self._futures: set[asyncio.Future[Any]] = set()
        self._server = "the server"
        self.timeout: float = 0.0
        """Seconds that the server has for a SUBACK or UNSUBACK; each connection sets it."""

    def listen_to(self, client: Client, server: str, timeout: float) -> None:
        """Receive the SUBACKs and UNSUBACKs of a new connection.

        Args:
            client: The gmqtt client of the connection.
            server: The server, as errors name it.
            timeout: Seconds that the server has for each of them.
        """
        self._server, self.timeout = server, timeout
        client.on_subscribe = self._granted
        client.on_unsubscribe = self._unsubscribed

    def future(self) -> asyncio.Future[Any]:
        """Return a future for a response in this session; it fails with ``ConnectionLostError`` if the session ends first."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def end(self, cause: str) -> None:
        """Fail all waiting futures, because the session has ended."""
        for waiting in list(self._futures):
            if not waiting.done():
                waiting.set_exception(ConnectionLostError(f"the connection ended: {cause}"))

    async def subscribe(self, client: Client, topic: str, qos: int, *, no_local: bool) -> None:
        """Subscribe, and wait for the SUBACK.

        Raises:
            SubscriptionRefusedError: The server refuses.
            ConnectionLostError: The session ends first.
            TimeoutError: The server does not respond in time.
        """
        packet_id = client.subscribe(topic, qos=qos, no_local=no_local)
        reason_code = await self._acknowledgement(packet_id, f"the subscription to {topic} (no SUBACK)")
        if reason_code >= FIRST_FAILURE:
            raise SubscriptionRefusedError(topic, reason_code)

    async def unsubscribed(self, packet_id: int, topic: str) -> None:
        """Wait for the UNSUBACK.

        Raises:
            ConnectionLostError: The session ends first.
            TimeoutError: The server does not respond in time.
        """
        await self._acknowledgement(packet_id, f"the end of the subscription to {topic} (no UNSUBACK)")

    async def _acknowledgement(self, packet_id: int, what: str) -> int:
        acknowledgement: asyncio.Future[int] = self.future()
        self._by_packet_id[packet_id] = acknowledgement
        try:
            async with running_timeout(self.timeout):
                await asyncio.wait([acknowledgement])
        except TimeoutError:
            # Both may happen in the same iteration of the event loop; the acknowledgement counts.
            if not acknowledgement.done():
                raise TimeoutError(f"{self._server} did not acknowledge {what} within {self.timeout:g} s") from None
        finally:
            self._by_packet_id.pop(packet_id, None)
            acknowledgement.cancel()
        return acknowledgement.result()

    def _granted(self, _client: Client, packet_id: int, granted: tuple[int, ...], _properties: Properties) -> None:
        self._take(packet_id, granted[0])

    def _unsubscribed(self, _client: Client, packet_id: int, _reason_codes: tuple[int, ...]) -> None:
        self._take(packet_id, 0)

    def _take(self, packet_id: int, reason_code: int) -> None:
        acknowledgement = self._by_packet_id.get(packet_id)
        if acknowledgement is not None and not acknowledgement.done():
            acknowledgement.set_result(reason_code)
