"""From a coroutine to an exit code: signals, connections and the failures that were to be expected."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from tb_mqtt_client.cli.causes import explain
from tb_mqtt_client.cli.outcomes import CommandError, ExitCode
from tb_mqtt_client.cli.settings import Settings
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.exceptions import TBMQTTError
from tb_mqtt_client.service.device.client import DeviceClient


def run(work: Coroutine[Any, Any, ExitCode]) -> int:
    """Run a command's coroutine. Ctrl-C and SIGTERM cancel it: it ends as it does otherwise, with its sums."""
    terminated = False

    async def until_signal() -> ExitCode:
        task = asyncio.current_task()

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            if task is not None:
                task.cancel()

        # Not to be had on Windows.
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await work

    try:
        return asyncio.run(until_signal())
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except asyncio.CancelledError:
        if terminated:
            return ExitCode.TERMINATED
        raise
    except BrokenPipeError:
        # Whoever read our output has left (`| head`). What is still buffered must not fail at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13


@asynccontextmanager
async def connected(client: DeviceClient, settings: Settings) -> AsyncIterator[None]:
    """A client that is connected inside and stopped after it. Raises ``CommandError`` when there is no connection."""
    try:
        try:
            async with asyncio.timeout(settings.connect_timeout):
                await client.connect()
        except (OSError, TBMQTTError, TimeoutError) as error:
            raise no_connection(error, settings.config) from error
        yield
    finally:
        await client.stop()


def no_connection(error: Exception, config: DeviceConfig) -> CommandError:
    """Why there is no connection, for the person in front of it."""
    cause = explain(error, config)
    return CommandError(f"No connection to {config.host}:{config.port}: {cause.finding}", ExitCode.NO_CONNECTION, cause.advice)
