"""``tb-mqtt watch``: print attribute updates and server-side RPCs as they arrive, one JSON object per line."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.cli.failures import ExitCode
from tb_mqtt_client.cli.options import SECONDS, Command, connection_options, json_value, output_options
from tb_mqtt_client.cli.running import connected, run
from tb_mqtt_client.cli.settings import ConnectionOptions, Settings, load
from tb_mqtt_client.cli.terminal import Terminal
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.option_values import RPCReply
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse

NO_REPLY = "tb-mqtt watch has no reply to this method"
Event = dict[str, Any]


class Replies:
    """Builds the responses to server-side RPCs."""

    def __init__(self, by_method: dict[str, Any], default: str | None) -> None:
        """Set the results by method.

        Args:
            by_method: The result of each method.
            default: The result of all other methods, as JSON. ``None``: they get an error.
        """
        self._by_method = by_method
        self._default = default

    def to(self, request: RPCRequest) -> RPCResponse:
        """Return the response to a request. Every request gets a response, because the platform waits for it."""
        if request.method in self._by_method:
            return RPCResponse.build(request.request_id, self._by_method[request.method])
        if self._default is None:
            return RPCResponse.build(request.request_id, error=NO_REPLY)
        return RPCResponse.build(request.request_id, json.loads(self._default))


@click.command(cls=Command)
@click.option("--reply", metavar="JSON", callback=json_value, help="Reply to RPC requests with this result.  [default: an error]")
@click.option("--reply-to", nargs=2, multiple=True, metavar="METHOD JSON", help="Reply to requests of one method with this result.")
@click.option("--plain", is_flag=True, help='Send results alone, not as {"result": JSON}.')
@click.option("--count", metavar="N", type=click.IntRange(1), help="Exit after this many lines.")
@click.option("--for", "duration", **(SECONDS | {"default": None}), help="Exit after this long.")
@connection_options
@output_options
def watch(
    reply: str | None,
    reply_to: tuple[tuple[str, str], ...],
    plain: bool,
    count: int | None,
    duration: float | None,
    connection: ConnectionOptions,
    terminal: Terminal,
) -> int:
    """Print attribute updates and RPC requests as they arrive.

    Each is one JSON object on a line of stdout. --reply and --reply-to set the results of RPC requests, which are sent as
    {"result": JSON}; without a result, the reply is an error. Dashboard widgets that read the reply itself need --plain.

    \b
      tb-mqtt watch
      tb-mqtt watch --reply-to getState '{"open": true}' --reply null
    """  # noqa: D301  # \b is click's own mark
    by_method = {}
    for method, text in reply_to:
        try:
            by_method[method] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise click.UsageError(f"--reply-to {method}: {text!r} is not valid JSON ({error})") from error
    settings = load(connection, terminal.redactor)
    if plain:
        settings.config.rpc_reply = RPCReply.PLAIN
    return run(_watch(settings, Replies(by_method, reply), count, duration, terminal))


async def _watch(settings: Settings, replies: Replies, count: int | None, duration: float | None, terminal: Terminal) -> ExitCode:
    events: asyncio.Queue[Event] = asyncio.Queue()

    def on_update(update: AttributeUpdate) -> None:
        if update.deleted_keys:
            events.put_nowait({"event": "deleted", "ts": now_ms(), "keys": update.deleted_keys})
        else:
            events.put_nowait({"event": "attributes", "ts": now_ms(), "values": update.as_dict()})

    def on_request(request: RPCRequest) -> RPCResponse:
        response = replies.to(request)
        event: Event = {
            "event": "rpc",
            "ts": now_ms(),
            "id": request.request_id,
            "method": request.method,
            "params": request.params,
            "response": response.to_payload_format(settings.config.rpc_reply),
        }
        # The event is printed after the client has sent the response, because this may be the last line, after which the
        # client is stopped. The client waits for this task too; it was first, so it is woken first.
        callback_task = asyncio.current_task()
        assert callback_task is not None
        callback_task.add_done_callback(lambda _: callback_task.get_loop().call_soon(events.put_nowait, event))
        return response

    client = DeviceClient(settings.config)
    client.set_attribute_update_callback(on_update)
    client.set_rpc_request_callback(on_request)
    try:
        async with connected(client, settings), asyncio.timeout(duration):
            terminal.note(f"watching as a device of {settings.target}; press Ctrl-C to stop")
            shown = 0
            while count is None or shown < count:
                # Printed here instead of in a callback: if the reader of the output has exited, the command must end. In a
                # callback the error would be reported as a failed callback.
                terminal.document(await events.get())
                shown += 1
    except TimeoutError:
        return ExitCode.DONE
    return ExitCode.DONE
