"""From a gmqtt client to its CONNACK."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from gmqtt import Client, MQTTConnectError

from tb_mqtt_client.common.exceptions import ConnectionLostError, ConnectionRefusedByServer
from tb_mqtt_client.common.running_timeout import running_timeout

CONNECT_TIMEOUT = 10.0
"""Seconds from the first packet to the CONNACK."""


async def connect_until_connack(
    client: Client,
    host: str,
    port: int,
    keepalive: int,
    ssl_context: ssl.SSLContext | None,
    version: int,
    lost: asyncio.Event,
    cause: Callable[[], str],
) -> None:
    """Connect. gmqtt's own ``connect()`` waits for ever when the server closes before its CONNACK, so ``lost`` is watched too.

    Raises ``OSError`` when there is no connection to be had or it is lost, for ``cause()``; ``ConnectionRefusedByServer`` with the
    CONNACK's reason; and ``TimeoutError`` when the server says nothing.
    """
    connecting = asyncio.ensure_future(client.connect(host, port, ssl=ssl_context or False, keepalive=keepalive, version=version))
    losing = asyncio.ensure_future(lost.wait())
    try:
        async with running_timeout(CONNECT_TIMEOUT):
            await asyncio.wait({connecting, losing}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            raise ConnectionResetError(f"{host}:{port} closed the connection before its CONNACK ({cause()})")
        try:
            connecting.result()
        except MQTTConnectError as refusal:
            raise ConnectionRefusedByServer(refusal._code, version) from None
    finally:
        connecting.cancel()
        losing.cancel()
        await asyncio.gather(connecting, losing, return_exceptions=True)
    if lost.is_set():
        raise ConnectionLostError(f"{host}:{port} closed the connection right after its CONNACK ({cause()})")
