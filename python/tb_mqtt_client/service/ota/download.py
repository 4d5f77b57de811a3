"""Requests the chunks of a package from the platform (docs/platform_contract.md, section 7).

The rule: the response to a request is the first message on the response topic of that request, while the request is pending.
Everything else, such as a late or repeated chunk, is ignored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.exceptions import ConnectionLostError, SubscriptionRefusedError, TBMQTTError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
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
from tb_mqtt_client.service.delivery.work_item import WorkItem
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.ota.files import PackageFile

logger: ExtendedLogger = get_logger(__name__)

DEFAULT_CHUNK_SIZE = 32 * 1024
"""Bytes. The platform accepts up to its largest payload, which is 65536 by default."""
ATTEMPTS = 5
"""Requests for one chunk that may fail in a row."""

ProgressCallback = Callable[[int], Awaitable[None]]
"""Called with the number of received bytes after each chunk."""


class PackageUpdateError(TBMQTTError):
    """An update cannot continue. The text is sent to the platform as ``fw_error`` or ``sw_error``."""


class _WrongChunkError(Exception):
    """A chunk has another length than the requested one."""


async def download(chunks: PackageChunks, file: PackageFile, size: int, chunk_size: int, on_progress: ProgressCallback) -> None:
    """Append ``size`` bytes of a package to a file. A lost connection is followed by a request for the next missing chunk.

    Args:
        chunks: The connection's chunks of the package.
        file: An open file.
        size: Bytes of the package.
        chunk_size: Bytes of a chunk. It is halved as long as the platform refuses the first chunk as too large.
        on_progress: Called after each chunk.

    Raises:
        PackageUpdateError: The platform does not send a chunk.
        OSError: A chunk cannot be written.
        TBMQTTError: The server does not support packages.
    """
    # For a used request id, the platform would serve the package that it cached for that id.
    chunks.use_new_request_id()
    number = failures = 0
    while file.received < size:
        expected = min(chunk_size, size - file.received)
        try:
            chunk = _of_length(await chunks.get(number, chunk_size), expected)
        except (TimeoutError, ConnectionLostError, PackageRefusedError, _WrongChunkError) as error:
            failures += 1
            cause = "the platform did not respond" if isinstance(error, TimeoutError) else str(error)
            logger.debug("Chunk %d of a package was not received: %s", number, cause)
            if failures == ATTEMPTS or _is_final(error):
                raise PackageUpdateError(f"chunk {number}: {cause}") from error
            if not isinstance(error, TimeoutError):
                # The package that the platform cached for the old id is unusable, or the cache ended with the connection.
                chunks.use_new_request_id()
            if number == 0 and chunk_size > 1 and _is_too_large(error):
                # A smaller size has not failed yet.
                chunk_size, failures = chunk_size // 2, 0
        else:
            await asyncio.to_thread(file.append, chunk)
            number += 1
            failures = 0
            await on_progress(file.received)


def _of_length(chunk: bytes, expected: int) -> bytes:
    if len(chunk) != expected:
        # An empty chunk means that the platform evicted the package from its cache (docs/platform_contract.md, section 7).
        raise _WrongChunkError(f"it has {len(chunk)} bytes instead of {expected}")
    return chunk


def _is_final(error: Exception) -> bool:
    return isinstance(error, PackageRefusedError) and error.refusal == "NOT_FOUND"


def _is_too_large(error: Exception) -> bool:
    return isinstance(error, PackageRefusedError) and error.refusal == "PAYLOAD_TOO_LARGE"


LONGEST_REFUSAL = 100
"""Characters of a refusal that are logged and reported."""


@dataclass(frozen=True)
class _Topics:
    """Topics of one kind of package."""

    response: str
    errors: tuple[str, ...]
    build_request: Callable[[int, int], str]


_TOPICS = {
    PackageKind.FIRMWARE: _Topics(
        DEVICE_FIRMWARE_UPDATE_RESPONSE_TOPIC, (DEVICE_FIRMWARE_ERROR_TOPIC,), build_firmware_update_request_topic
    ),
    # The platform publishes errors of software on the firmware's topic.
    PackageKind.SOFTWARE: _Topics(
        DEVICE_SOFTWARE_UPDATE_RESPONSE_TOPIC,
        (DEVICE_FIRMWARE_ERROR_TOPIC, DEVICE_SOFTWARE_ERROR_TOPIC),
        build_software_update_request_topic,
    ),
}


class PackageRefusedError(TBMQTTError):
    """The platform refuses to send a chunk, and closes the connection."""

    def __init__(self, refusal: str) -> None:
        """Create an error from the platform's text: NOT_FOUND, FAILURE or PAYLOAD_TOO_LARGE."""
        super().__init__(f"the platform reported {refusal}")
        self.refusal = refusal


class PackageChunks:
    """Requests the chunks of one package, one at a time."""

    def __init__(
        self, manager: MQTTManager, admission: Admission, kind: PackageKind, timeout: float, next_request_id: Callable[[], int]
    ) -> None:
        """Register handlers for the kind's topics, until ``close``.

        Args:
            manager: Publishes the requests.
            admission: Admits the requests that the platform counts.
            kind: Firmware or software.
            timeout: Seconds to wait for a response.
            next_request_id: Returns a number that was not used yet on this connection.
        """
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
        self._response_topic = ""
        self._response: asyncio.Future[bytes] | None = None
        manager.register_handler(self._topics.response, self._receive_chunk)
        for topic in self._topics.errors:
            manager.register_handler(topic, self._receive_error)

    async def get(self, number: int, chunk_size: int) -> bytes:
        """Wait for a session, request a chunk, and return it.

        Args:
            number: The chunk's number, from 0.
            chunk_size: Bytes of each chunk but the last.

        Returns:
            The chunk. It is empty past the end of the package, and if the platform evicted the package from its cache.

        Raises:
            TimeoutError: The platform does not respond.
            ConnectionLostError: The connection ends before the response.
            PackageRefusedError: The platform refuses the request.
            TBMQTTError: The server does not support packages.
        """
        request, response_topic = await self._ready(number, chunk_size)
        response: asyncio.Future[bytes] = self._manager.session_future()
        response.add_done_callback(_retrieve_exception)
        request.futures[0].add_done_callback(partial(_fail_if_refused, response))
        self._response_topic, self._response = response_topic, response
        try:
            self._manager.publish_now(request)
            async with asyncio.timeout(self._timeout):
                return await response
        except PackageRefusedError:
            await self._wait_disconnected()
            raise
        finally:
            response.cancel()
            self._response = None

    def use_new_request_id(self) -> None:
        """Make the platform look for the package again: for each request id it caches the package and the chunk size."""
        self._request_id = None

    def close(self) -> None:
        """Unsubscribe from the topics, and unregister their handlers."""
        if self._closed:
            return
        self._closed = True
        for topic in (self._topics.response, *self._topics.errors):
            self._manager.unregister_handler(topic)
            if self._session == self._manager.connections:
                self._manager.send_unsubscribe(topic)
        if self._session_end is not None:
            self._session_end.cancel()

    async def _ready(self, number: int, chunk_size: int) -> tuple[WorkItem, str]:
        """Wait until a request may be published. Return it, and the topic of its response."""
        while True:
            await self._manager.wait_writable_for_service()
            if self._session != self._manager.connections:
                await self._enter_session()
                continue
            if self._request_id is None:
                self._request_id, self._is_counted = self._next_request_id(), False
            topic = self._topics.build_request(self._request_id, number)
            request = WorkItem.of(MqttPublishMessage(topic, str(chunk_size).encode()), resend=False)
            # The platform counts only the first request with an id (docs/platform_contract.md, section 5).
            if not self._is_counted and (wait := self._admission.try_take(request)):
                await self._admission.wait(wait)
                continue
            self._is_counted = True
            return request, topic.replace("/request/", "/response/")

    async def _enter_session(self) -> None:
        """Subscribe in a new session, and use a new request id: the platform keeps nothing from the session before."""
        self._session = self._manager.connections
        self._session_end = self._manager.session_future()
        self._session_end.add_done_callback(_retrieve_exception)
        self.use_new_request_id()
        try:
            async with asyncio.timeout(self._timeout):
                for topic in (self._topics.response, *self._topics.errors):
                    await self._subscribe(topic)
        except BaseException:
            self._session = 0
            raise

    async def _subscribe(self, topic: str) -> None:
        """Subscribe to a topic. A server that refuses may send on it anyway (docs/platform_contract.md, fact 7)."""
        try:
            await self._manager.subscribe(topic)
        except SubscriptionRefusedError as refusal:
            logger.info("%s", refusal)

    async def _wait_disconnected(self) -> None:
        """Wait until the platform closes the connection, as it does after a refusal: requests until then would be lost."""
        if self._session_end is not None:
            await asyncio.wait([self._session_end], timeout=self._timeout)

    async def _receive_chunk(self, topic: str, payload: bytes) -> None:
        response = self._response
        if response is None or response.done() or topic != self._response_topic:
            logger.debug("A chunk on %s is ignored: it is late, or was not requested", topic)
            return
        response.set_result(payload)

    async def _receive_error(self, topic: str, payload: bytes) -> None:
        refusal = payload.decode(errors="replace")[:LONGEST_REFUSAL]
        response = self._response
        if response is None or response.done():
            logger.debug("%r on %s is ignored: no request is pending", refusal, topic)
            return
        self._manager.expect_disconnect()
        response.set_exception(PackageRefusedError(refusal))


def _fail_if_refused(response: asyncio.Future[bytes], delivery: DeliveryFuture) -> None:
    if not delivery.cancelled() and not delivery.result().is_successful() and not response.done():
        response.set_exception(TBMQTTError(f"the server refused the request for a chunk: {delivery.result().reason}"))


def _retrieve_exception(future: asyncio.Future[Any]) -> None:
    """Retrieve an exception that no caller may be waiting for, which asyncio would log otherwise."""
    if not future.cancelled():
        future.exception()
