"""Send a file with columns through a client."""

from __future__ import annotations

import asyncio

from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.cli.columns import ColumnFile
from tb_mqtt_client.cli.failures import CommandError, ExitCode


async def send_columns(client: DeviceClient, file: ColumnFile, timeout: float) -> None:
    """Send all rows of a file, and wait for their acknowledgements.

    Args:
        client: A connected client.
        file: The file.
        timeout: Seconds without an acknowledgement after which sending gives up.

    Raises:
        CommandError: A column or a row cannot be sent, or nothing is acknowledged for ``timeout`` seconds.
    """
    loop = asyncio.get_running_loop()
    is_sending = True
    try:
        async with asyncio.timeout(timeout) as deadline:

            def progressed() -> None:
                # The next rows are read when enough of those before them are acknowledged.
                if is_sending and not deadline.expired():
                    deadline.reschedule(loop.time() + timeout)

            table = file.reader(lambda: loop.call_soon_threadsafe(progressed))
            try:
                if isinstance(client, GatewayClient):
                    await client.send_table(table, ts=file.ts, device=file.columns.device, profile=file.profile)
                else:
                    await client.send_table(table, ts=file.ts)
            finally:
                is_sending = False
    except TimeoutError:
        advice = "is the connection up? --verbose shows the log, and tb-mqtt doctor checks each step"
        raise CommandError(f"No acknowledgement for {timeout:g} s", ExitCode.TIMEOUT, advice) from None
    except ValueError as error:
        raise CommandError(f"The file is not usable: {error}", ExitCode.USAGE) from error
