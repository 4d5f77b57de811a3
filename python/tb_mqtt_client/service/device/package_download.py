"""Fetches an image chunk by chunk into a file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tb_mqtt_client.common.exceptions import ConnectionLostError, TBMQTTError
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.service.device.package_chunks import PackageChunks, PackageRefusedError
from tb_mqtt_client.service.device.package_file import PackageFile

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
        # Without a byte: the platform has lost the package from its cache (platform_contract.md, section 7).
        raise _WrongChunkError(f"it has {len(chunk)} bytes instead of {expected}")
    return chunk


def _is_final(error: Exception) -> bool:
    return isinstance(error, PackageRefusedError) and error.refusal == "NOT_FOUND"


def _is_too_large(error: Exception) -> bool:
    return isinstance(error, PackageRefusedError) and error.refusal == "PAYLOAD_TOO_LARGE"
