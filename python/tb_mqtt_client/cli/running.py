"""Run the coroutine of a command, and turn signals and connection failures into exit codes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import tb_mqtt_client
from tb_mqtt_client.cli.failures import CommandError, ExitCode, explain
from tb_mqtt_client.cli.settings import Settings
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.exceptions import StoreError, StoreInUseError, TBMQTTError
from tb_mqtt_client.common.network.connection_failure import failure_of
from tb_mqtt_client.service.device.client import DeviceClient


def run(work: Coroutine[Any, Any, ExitCode]) -> int:
    """Run the coroutine of a command, and return its exit code.

    Ctrl-C and SIGTERM cancel the coroutine, so that it can close its session and print its totals.
    """
    try:
        return tb_mqtt_client.run(work, sigterm_exit_code=ExitCode.TERMINATED)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit:
        return ExitCode.TERMINATED
    except BrokenPipeError:
        # The reader of the output has exited (`| head`). Buffered output must not fail when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13


@asynccontextmanager
async def connected(client: DeviceClient, settings: Settings) -> AsyncIterator[None]:
    """Connect a client on entry, and stop it on exit.

    Raises:
        CommandError: If the client cannot connect within ``settings.connect_timeout`` seconds, or cannot open its store.
    """
    try:
        try:
            async with asyncio.timeout(settings.connect_timeout):
                await client.connect()
        except StoreError as error:
            raise CommandError(str(error), ExitCode.REFUSED if isinstance(error, StoreInUseError) else ExitCode.USAGE) from error
        except (OSError, TBMQTTError, TimeoutError) as error:
            raise no_connection(error, settings.config) from error
        yield
    finally:
        await client.stop()


def no_connection(error: Exception, config: DeviceConfig) -> CommandError:
    """Return an error that explains why a client could not connect, and what to try next."""
    cause, failure = explain(error), failure_of(error)
    where = failure.where if failure is not None else ", ".join(map(str, config.servers()))
    return CommandError(f"No connection to {where}: {cause.finding}", ExitCode.NO_CONNECTION, cause.advice)
