"""What the emulator prints when it runs from the command line, and the commands that it takes there."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tb_mqtt_client.emulator.background import Background, Timers
from tb_mqtt_client.emulator.server import Emulator

HELP: Final = """\
commands:
  rpc DEVICE METHOD [PARAMS]     make a server-side RPC, and print the reply; PARAMS is JSON
  set DEVICE KEY=VALUE ...       set shared attributes; a VALUE that is not JSON is a text. A JSON object is taken, too
  delete DEVICE KEY ...          delete shared attributes
  devices                        list all devices
  help                           print this text
Quote a name that has spaces in it. Ctrl-C stops the emulator.
"""

_LONGEST_TEXT: Final = 500
_LINES_PER_SECOND: Final = 50


class CommandError(Exception):
    """A command cannot be carried out; the text says why."""


class EventPrinter:
    """Prints events, at most 50 lines a second, and how many it left out."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._timers = Timers()
        self._printed = 0
        self._left_out = 0

    def __call__(self, event: str) -> None:
        if not self._printed:
            self._timers.after(1.0, self._next_second)
        if self._printed < _LINES_PER_SECOND:
            self._printed += 1
            self._write(printable(event))
        else:
            self._left_out += 1

    def close(self) -> None:
        """Print what is due, and end the timer."""
        self._timers.cancel()
        self._next_second()

    def _next_second(self) -> None:
        if self._left_out:
            self._write(f"... and {counted(self._left_out, 'more line')}")
        self._printed = self._left_out = 0


class Console:
    """Carries out commands, one a line."""

    def __init__(self, emulator: Emulator, write: Callable[[str], object], report: Callable[[Exception], None]) -> None:
        self._emulator = emulator
        self._write = write
        self._background = Background(report)
        self._unread = b""

    def open(self) -> None:
        """Read standard input from now on, if there is one."""
        if sys.stdin is None:
            return
        if hasattr(signal, "SIGTTIN"):
            # A shell's background job that reads the terminal would be stopped; like this the read fails.
            signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        try:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read)
        except PermissionError:
            # A regular file is always readable, which epoll refuses to wait for.
            while self._read():
                pass
        except (NotImplementedError, OSError, ValueError):
            # Commands cannot be read on Windows, or from streams that are not files.
            return

    async def close(self) -> None:
        """End the commands that run."""
        await self._background.stop()

    def begin(self, line: str) -> None:
        """Carry out a command; a failure is printed."""
        if line.strip():
            self._background.start(self._print_result(self._run(line.strip())))

    def _read(self) -> bool:
        """Begin the commands that were typed. Return False at the end of the input."""
        descriptor = sys.stdin.fileno()
        try:
            data = os.read(descriptor, 65536)
        except OSError:
            data = b""
        *lines, self._unread = (self._unread + data).split(b"\n")
        if not data:
            asyncio.get_running_loop().remove_reader(descriptor)
            lines, self._unread = [self._unread], b""
        for line in lines:
            self.begin(line.decode(errors="replace"))
        return bool(data)

    async def _print_result(self, command: Coroutine[Any, Any, str]) -> None:
        try:
            result = await command
        except (CommandError, LookupError, TimeoutError) as error:
            # The text of a KeyError would be quoted; LookupError itself is not.
            result = f"error: {error}"
        for line in result.splitlines():
            self._write(printable(line))

    async def _run(self, line: str) -> str:
        name, rest = _word(line)
        if name == "rpc":
            return await self._rpc(rest)
        if name == "set":
            return await self._set(rest)
        if name == "delete":
            return await self._delete(rest)
        if name == "devices":
            return "\n".join(self._describe(device) for device in self._emulator.devices)
        if name == "help":
            return HELP
        raise CommandError(f"unknown command {name!r}; type help for a list")

    async def _rpc(self, text: str) -> str:
        device, text = _word(text)
        method, text = _word(text)
        if not method:
            raise CommandError("write rpc DEVICE METHOD [PARAMS]")
        params = None
        if text:
            try:
                params = json.loads(text)
            except ValueError as error:
                raise CommandError(f"PARAMS must be JSON, not {text!r}: {error}") from error
        reply = await self._emulator.call_rpc(device, method, params)
        return f"{device} replied to {method}: {json.dumps(reply, ensure_ascii=False)}"

    async def _set(self, text: str) -> str:
        device, text = _word(text)
        values = _values(text)
        if not values:
            raise CommandError("write set DEVICE KEY=VALUE ...")
        sent = await self._emulator.set_shared_attributes(device, values)
        return f"{device}: {counted(len(values), 'shared attribute')} set, {_outcome(sent)}"

    async def _delete(self, text: str) -> str:
        device, text = _word(text)
        keys = _words(text)
        if not keys:
            raise CommandError("write delete DEVICE KEY ...")
        sent = await self._emulator.delete_shared_attributes(device, keys)
        return f"{device}: {counted(len(keys), 'shared attribute')} deleted, {_outcome(sent)}"

    def _describe(self, name: str) -> str:
        device = self._emulator.device(name)
        through = f" through {device.gateway.name}" if device.gateway is not None else ""
        state = f"connected{through}" if device.connected else "not connected"
        return f"{name}: {state}, {counted(device.counters.datapoints, 'datapoint')}"


def printable(text: str) -> str:
    """Return a text that a terminal can show: escaped where it would move the cursor, and cut if it is long."""
    cut = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}... ({len(text):,} characters)"
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in cut)


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _outcome(sent: bool) -> str:
    return "update sent" if sent else "kept until the device asks: it is not connected or not subscribed"


def _word(text: str) -> tuple[str, str]:
    """Split off the first word, which may be quoted."""
    text = text.lstrip()
    if text[:1] in ("'", '"'):
        word, _, rest = text[1:].partition(text[0])
    else:
        word, _, rest = text.partition(" ")
    return word, rest.strip()


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise CommandError(f"{text!r} cannot be read: {error}") from error


def _values(text: str) -> dict[str, Any]:
    """Read `KEY=VALUE ...`, or a JSON object."""
    if text.startswith("{"):
        try:
            document: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise CommandError(f"{text!r} is not JSON: {error}") from error
        return document
    values = {}
    for word in _words(text):
        key, separator, value = word.partition("=")
        if not key or not separator:
            raise CommandError(f"{word!r} is not KEY=VALUE")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values
