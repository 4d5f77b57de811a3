"""Asks the platform for the chunks of a package (docs/platform_contract.md, section 7).

The rule: the answer to a request is the message on its own topic that comes while it is waited for. Everything else, a chunk
that comes twice or late for one, is nobody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.exceptions import ConnectionLostError, SubscriptionRefusedError, TBMQTTError
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.firmware import PackageKind
from tb_mqtt_client.constants.mqtt_topics import (
    DEVICE_FIRMWARE_ERROR_TOPIC,
    DEVICE_FIRMWARE_UPDATE_RESPONSE_TOPIC,
    DEVICE_SOFTWARE_ERROR_TOPIC,
    DEVICE_SOFTWARE_UPDATE_RESPONSE_TOPIC,
    build_firmware_update_request_topic,
    build_software_update_request_topic,
)
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.ota.files import PackageFile

logger = get_logger(__name__)

DEFAULT_CHUNK_SIZE = 32 * 1024
"""Bytes. The platform takes up to its largest payload, 65536 unless it is set otherwise."""
ATTEMPTS = 5
"""How often in a row a chunk may fail to come."""

ProgressCallback = Callable[[int], Awaitable[None]]
"""Called with the bytes so far after each chunk."""


class PackageUpdateError(TBMQTTError):
    """An update cannot go on; the text is what the platform is told."""


class _WrongChunkError(Exception):
    """A chunk of another length than was asked for."""


async def download(chunks: PackageChunks, file: PackageFile, size: int, chunk_size: int, on_progress: ProgressCallback) -> None:
    """Fetch ``size`` bytes. After a lost connection it goes on at the chunk where it stopped.

    Raises ``PackageUpdateError`` when a chunk cannot be had, ``OSError`` when it cannot be written, and ``TBMQTTError`` when the
    server knows nothing of packages.
    """
    # By an old one the platform gives the package of then.
    chunks.use_new_request_id()
    number = failures = 0
    while file.received < size:
        expected = min(chunk_size, size - file.received)
        try:
            chunk = _of_length(await chunks.get(number, chunk_size), expected)
        except (TimeoutError, ConnectionLostError, PackageRefusedError, _WrongChunkError) as error:
            failures += 1
            cause = "the platform does not answer" if isinstance(error, TimeoutError) else str(error)
            logger.debug("Chunk %d of a package did not come: %s", number, cause)
            if failures == ATTEMPTS or _is_final(error):
                raise PackageUpdateError(f"chunk {number}: {cause}") from error
            if not isinstance(error, TimeoutError):
                # What the platform keeps by the old one is of no use, or gone with the connection.
                chunks.use_new_request_id()
            if number == 0 and chunk_size > 1 and _is_too_large(error):
                # A smaller one has not failed so far.
                chunk_size, failures = chunk_size // 2, 0
        else:
            await asyncio.to_thread(file.append, chunk)
            number += 1
            failures = 0
            await on_progress(file.received)


def _of_length(chunk: bytes, expected: int) -> bytes:
    if len(chunk) != expected:
        # Without a byte: the platform has lost the package from its cache (docs/platform_contract.md, section 7).
        raise _WrongChunkError(f"it has {len(chunk)} bytes instead of {expected}")
    return chunk


def _is_final(error: Exception) -> bool:
    return isinstance(error, PackageRefusedError) and error.refusal == "NOT_FOUND"


def _is_too_large(error: Exception) -> bool:
    return isinstance(error, PackageRefusedError) and error.refusal == "PAYLOAD_TOO_LARGE"


LONGEST_REFUSAL = 100
"""Characters of a refusal that are shown."""


@dataclass(frozen=True)
class _Topics:
    """Of one kind of package."""

    response: str
    errors: tuple[str, ...]
    build_request: Callable[[int, int], str]


_TOPICS = {
    PackageKind.FIRMWARE: _Topics(
        DEVICE_FIRMWARE_UPDATE_RESPONSE_TOPIC, (DEVICE_FIRMWARE_ERROR_TOPIC,), build_firmware_update_request_topic
    ),
    # The platform tells the errors of software on the firmware's topic.
    PackageKind.SOFTWARE: _Topics(
        DEVICE_SOFTWARE_UPDATE_RESPONSE_TOPIC,
        (DEVICE_FIRMWARE_ERROR_TOPIC, DEVICE_SOFTWARE_ERROR_TOPIC),
        build_software_update_request_topic,
    ),
}


class PackageRefusedError(TBMQTTError):
    """The platform gives no chunk, and ends the connection."""

    def __init__(self, refusal: str) -> None:
        """``refusal``: NOT_FOUND, FAILURE or PAYLOAD_TOO_LARGE."""
        super().__init__(f"the platform says {refusal}")
        self.refusal = refusal


class PackageChunks:
    """The chunks of one package; one request at a time."""

    def __init__(
        self, manager: MQTTManager, admission: Admission, kind: PackageKind, timeout: float, next_request_id: Callable[[], int]
    ) -> None:
        """``timeout``: seconds that an answer may take. ``next_request_id`` gives numbers that are new on this connection."""
        self._manager = manager
        self._admission = admission
        self._topics = _TOPICS[kind]
        self._timeout = timeout
        self._next_request_id = next_request_id
        self._request_id: int | None = None
        self._is_counted = False
        self._closed = False
        self._session = 0
        self._session_end: asyncio.Future[Any] | None = None
        self._answer_topic = ""
        self._answer: asyncio.Future[bytes] | None = None
        manager.register_handler(self._topics.response, self._receive_chunk)
        for topic in self._topics.errors:
            manager.register_handler(topic, self._receive_error)

    async def get(self, number: int, chunk_size: int) -> bytes:
        """One chunk; empty past the end of the package, and when the platform has lost it from its cache.

        Waits for a session. Raises ``TimeoutError`` when there is no answer, ``ConnectionLostError`` when the connection ends
        first, ``PackageRefusedError``, and ``TBMQTTError`` when the server knows nothing of packages.
        """
        message, answer_topic = await self._ready(number, chunk_size)
        answer: asyncio.Future[bytes] = self._manager.session_future()
        answer.add_done_callback(_look_at)
        message.delivery_futures[0].add_done_callback(partial(_fail_if_refused, answer))
        self._answer_topic, self._answer = answer_topic, answer
        try:
            self._manager.publish_now(message)
            async with asyncio.timeout(self._timeout):
                return await answer
        except PackageRefusedError:
            await self._until_disconnected()
            raise
        finally:
            answer.cancel()
            self._answer = None

    def use_new_request_id(self) -> None:
        """Make the platform look for the package again: it keeps what it found, and the chunk size, by request id."""
        self._request_id = None

    def close(self) -> None:
        """Unsubscribe, and hear nothing more."""
        if self._closed:
            return
        self._closed = True
        for topic in (self._topics.response, *self._topics.errors):
            self._manager.unregister_handler(topic)
            if self._session == self._manager.connections:
                self._manager.send_unsubscribe(topic)
        if self._session_end is not None:
            self._session_end.cancel()

    async def _ready(self, number: int, chunk_size: int) -> tuple[MqttPublishMessage, str]:
        """A request that may go now, and the topic of its answer."""
        while True:
            await self._manager.wait_writable_for_service()
            if self._session != self._manager.connections:
                await self._enter_session()
                continue
            if self._request_id is None:
                self._request_id, self._is_counted = self._next_request_id(), False
            topic = self._topics.build_request(self._request_id, number)
            message = MqttPublishMessage(topic, str(chunk_size).encode())
            message.resend = False
            # The platform counts the first request of an id only.
            if not self._is_counted and (wait := self._admission.try_take(message)):
                await self._admission.wait(wait)
                continue
            self._is_counted = True
            return message, topic.replace("/request/", "/response/")

    async def _enter_session(self) -> None:
        """Subscribe: a session knows nothing of the one before it, request ids included."""
        self._session = self._manager.connections
        self._session_end = self._manager.session_future()
        self._session_end.add_done_callback(_look_at)
        self.use_new_request_id()
        try:
            async with asyncio.timeout(self._timeout):
                for topic in (self._topics.response, *self._topics.errors):
                    await self._subscribe(topic)
        except BaseException:
            self._session = 0
            raise

    async def _subscribe(self, topic: str) -> None:
        """A server that refuses may send all the same (docs/platform_contract.md, fact 7)."""
        try:
            await self._manager.subscribe(topic)
        except SubscriptionRefusedError as refusal:
            logger.info("%s", refusal)

    async def _until_disconnected(self) -> None:
        """The platform ends the connection after a refusal; whatever is asked before would be lost."""
        if self._session_end is not None:
            await asyncio.wait([self._session_end], timeout=self._timeout)

    async def _receive_chunk(self, topic: str, payload: bytes) -> None:
        answer = self._answer
        if answer is None or answer.done() or topic != self._answer_topic:
            logger.debug("A chunk on %s was not asked for, or comes late", topic)
            return
        answer.set_result(payload)

    async def _receive_error(self, topic: str, payload: bytes) -> None:
        refusal = payload.decode(errors="replace")[:LONGEST_REFUSAL]
        answer = self._answer
        if answer is None or answer.done():
            logger.debug("%r on %s while nothing is asked for", refusal, topic)
            return
        self._manager.expect_disconnect()
        answer.set_exception(PackageRefusedError(refusal))


def _fail_if_refused(answer: asyncio.Future[bytes], delivery: Delivery) -> None:
    if not delivery.cancelled() and not delivery.result().is_successful() and not answer.done():
        answer.set_exception(TBMQTTError(f"the server refused the request of a chunk: {delivery.result().reason}"))


def _look_at(future: asyncio.Future[Any]) -> None:
    """An exception that nobody waits for any more is of no interest."""
    if not future.cancelled():
        future.exception()
