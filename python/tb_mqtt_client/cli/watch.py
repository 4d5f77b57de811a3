"""``tb-mqtt watch``: attribute updates and calls of the platform as they come, one JSON object a line."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.cli.options import SECONDS, Command, connection_options, json_value, output_options
from tb_mqtt_client.cli.outcomes import ExitCode
from tb_mqtt_client.cli.running import connected, run
from tb_mqtt_client.cli.settings import ConnectionOptions, Settings, load
from tb_mqtt_client.cli.terminal import Terminal
from tb_mqtt_client.common.clock import now_ms
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse

NO_ANSWER = "tb-mqtt watch shows calls and has no answer to this one"
Event = dict[str, Any]


class Replies:
    """Answers to calls of the platform, by method."""

    def __init__(self, by_method: dict[str, Any], default: str | None) -> None:
        """``default``: JSON for all other methods; ``None``: they get an error."""
        self._by_method = by_method
        self._default = default

    def to(self, request: RPCRequest) -> RPCResponse:
        """The answer to a call, which every call gets: the platform waits for one."""
        if request.method in self._by_method:
            return RPCResponse.build(request.request_id, self._by_method[request.method])
        if self._default is None:
            return RPCResponse.build(request.request_id, error=NO_ANSWER)
        return RPCResponse.build(request.request_id, json.loads(self._default))


@click.command(cls=Command)
@click.option("--reply", metavar="JSON", callback=json_value, help="Answer calls with this result; without it they get an error.")
@click.option("--reply-to", nargs=2, multiple=True, metavar="METHOD JSON", help="Answer calls of one method with this result.")
@click.option("--count", metavar="N", type=click.IntRange(1), help="End after so many lines.")
@click.option("--for", "duration", **(SECONDS | {"default": None}), help="End after so long.")
@connection_options
@output_options
def watch(
    reply: str | None,
    reply_to: tuple[tuple[str, str], ...],
    count: int | None,
    duration: float | None,
    connection: ConnectionOptions,
    terminal: Terminal,
) -> int:
    """Show attribute updates and calls of the platform as they come.

    Each is one JSON object on a line of stdout. The platform gets the answer that --reply or --reply-to give, as
    {"result": JSON}.

    \b
      tb-mqtt watch
      tb-mqtt watch --reply-to getState '{"open": true}' --reply null
    """  # noqa: D301  # \b is click's own mark
    by_method = {}
    for method, text in reply_to:
        try:
            by_method[method] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise click.UsageError(f"--reply-to {method}: {text!r} is no JSON ({error})") from error
    settings = load(connection, terminal.redactor)
    return run(_watch(settings, Replies(by_method, reply), count, duration, terminal))


async def _watch(settings: Settings, replies: Replies, count: int | None, duration: float | None, terminal: Terminal) -> ExitCode:
    events: asyncio.Queue[Event] = asyncio.Queue()

    def updated(update: AttributeUpdate) -> None:
        if update.deleted_keys:
            events.put_nowait({"event": "deleted", "ts": now_ms(), "keys": update.deleted_keys})
        else:
            events.put_nowait({"event": "attributes", "ts": now_ms(), "values": update.as_dict()})

    def called(request: RPCRequest) -> RPCResponse:
        response = replies.to(request)
        call = {"event": "rpc", "ts": now_ms(), "id": request.request_id, "method": request.method, "params": request.params}
        event = call | {"answer": response.to_payload_format()}
        # Told after the answer is on its way: this may be the last line, and then the client is stopped. The client, which
        # waits for this task too and began earlier, is woken first.
        callback_task = asyncio.current_task()
        assert callback_task is not None
        callback_task.add_done_callback(lambda _: callback_task.get_loop().call_soon(events.put_nowait, event))
        return response

    client = DeviceClient(settings.config)
    client.set_attribute_update_callback(updated)
    client.set_rpc_request_callback(called)
    try:
        async with connected(client, settings), asyncio.timeout(duration):
            terminal.note(f"watching as a device of {settings.target}; Ctrl-C ends it")
            shown = 0
            while count is None or shown < count:
                # Written here and not in a callback: a reader that has left must end this, not look like a broken callback.
                terminal.document(await events.get())
                shown += 1
    except TimeoutError:
        return ExitCode.DONE
    return ExitCode.DONE
