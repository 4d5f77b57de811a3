"""Console of the emulator on the command line: printed events, and commands read from standard input."""

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
  rpc DEVICE METHOD [PARAMS]     call a method of the device and print its reply; PARAMS is JSON
  set DEVICE KEY=VALUE ...       set shared attributes, also as one JSON object; a VALUE that is not JSON is a string
  delete DEVICE KEY ...          delete shared attributes
  devices                        list all devices
  help                           print this text
Quote names that contain spaces. Press Ctrl-C to stop the emulator.
"""

_LONGEST_TEXT: Final = 500
_LINES_PER_SECOND: Final = 50


class CommandError(Exception):
    """A command cannot be executed; the message says why."""


class EventPrinter:
    """Prints events, at most 50 lines per second, and the number of lines left out."""

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
        """Cancel the timer and print the number of lines left out."""
        self._timers.cancel()
        self._next_second()

    def _next_second(self) -> None:
        if self._left_out:
            self._write(f"... and {counted(self._left_out, 'more line')}")
        self._printed = self._left_out = 0


class Console:
    """Executes commands, one per line."""

    def __init__(self, emulator: Emulator, write: Callable[[str], object], report: Callable[[Exception], None]) -> None:
        self._emulator = emulator
        self._write = write
        self._background = Background(report)
        self._unread = b""

    def open(self) -> None:
        """Start reading standard input, if there is one."""
        if sys.stdin is None:
            return
        if hasattr(signal, "SIGTTIN"):
            # Reading the terminal stops a background job of a shell; with the signal ignored, the read fails instead.
            signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        try:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read)
        except PermissionError:
            # epoll refuses regular files, which are always readable.
            while self._read():
                pass
        except (NotImplementedError, OSError, ValueError):
            # Commands cannot be read on Windows, or from streams that are not files.
            return

    async def close(self) -> None:
        """Cancel the running commands."""
        await self._background.stop()

    def execute(self, line: str) -> None:
        """Start a command; print its result or its failure."""
        if line.strip():
            self._background.start(self._print_result(self._run(line.strip())))

    def _read(self) -> bool:
        """Start the commands that have arrived. Return False at the end of the input."""
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
            self.execute(line.decode(errors="replace"))
        return bool(data)

    async def _print_result(self, command: Coroutine[Any, Any, str]) -> None:
        try:
            result = await command
        except (CommandError, LookupError, TimeoutError) as error:
            # str() of a KeyError is quoted; the emulator raises LookupError itself, which is not.
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
            raise CommandError("usage: rpc DEVICE METHOD [PARAMS]")
        params = None
        if text:
            try:
                params = json.loads(text)
            except ValueError as error:
                raise CommandError(f"PARAMS {text!r} is not valid JSON: {error}") from error
        reply = await self._emulator.call_rpc(device, method, params)
        return f"{device} replied to {method}: {json.dumps(reply, ensure_ascii=False)}"

    async def _set(self, text: str) -> str:
        device, text = _word(text)
        values = _values(text)
        if not values:
            raise CommandError("usage: set DEVICE KEY=VALUE ...")
        sent = await self._emulator.set_shared_attributes(device, values)
        return f"{device}: {counted(len(values), 'shared attribute')} set, {_outcome(sent)}"

    async def _delete(self, text: str) -> str:
        device, text = _word(text)
        keys = _words(text)
        if not keys:
            raise CommandError("usage: delete DEVICE KEY ...")
        sent = await self._emulator.delete_shared_attributes(device, keys)
        return f"{device}: {counted(len(keys), 'shared attribute')} deleted, {_outcome(sent)}"

    def _describe(self, name: str) -> str:
        device = self._emulator.device(name)
        through = f" through {device.gateway.name}" if device.gateway is not None else ""
        state = f"connected{through}" if device.connected else "not connected"
        return f"{name}: {state}, {counted(device.counters.datapoints, 'datapoint')}"


def printable(text: str) -> str:
    """Return text that is safe to print on a terminal: control characters escaped, and cut to 500 characters."""
    cut = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}... ({len(text):,} characters)"
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in cut)


def counted(number: int, noun: str) -> str:
    """Return the number with its noun, for example "1 session" or "1,234 sessions"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _outcome(sent: bool) -> str:
    return "update sent" if sent else "update not sent: the device is not connected or not subscribed"


def _word(text: str) -> tuple[str, str]:
    """Return the first word, which may be quoted, and the remaining text."""
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
        raise CommandError(f"{text!r} cannot be parsed: {error}") from error


def _values(text: str) -> dict[str, Any]:
    """Parse `KEY=VALUE ...` or a JSON object."""
    if text.startswith("{"):
        try:
            document: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise CommandError(f"{text!r} is not valid JSON: {error}") from error
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
