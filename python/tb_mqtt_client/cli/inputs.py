"""The inputs of ``tb-mqtt agent``: standard input, a UNIX socket, and a directory of files."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tb_mqtt_client.cli.agent_settings import AgentSettings
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.forwarder import Forwarder
from tb_mqtt_client.cli.reading import InputReader, Parse
from tb_mqtt_client.cli.terminal import Terminal, counted
from tb_mqtt_client.common.tasks import Tasks, report_failure

UNFINISHED: tuple[str, ...] = (".tmp", ".part")
"""Endings of files that a program is still writing, and renames when they are complete."""
DONE: str = ".done"
"""The ending of files that were read."""
BAD: str = ".bad"
"""The ending of files with bad lines."""
NO_DESCRIPTORS: tuple[int, ...] = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of accept() that end when this process or others close something. The connection waits meanwhile (accept(2))."""
PAUSE_SECONDS: float = 1.0
"""Seconds until the next accept() after such an error, which no event ends."""


async def read_standard_input(parse: Parse, forwarder: Forwarder) -> None:
    """Forward the records of standard input until its end."""
    await forwarder.forward(InputReader(0, parse).batches())


# The socket.


async def serve_socket(path: str, parse: Parse, forwarder: Forwarder, terminal: Terminal) -> None:
    """Forward what programs write to a UNIX socket, until this is cancelled.

    A connection is one input. When the program has closed its side for writing, and its records are on disk, it gets a line:
    ``{"records": 3, "bad_lines": 0}``, or ``{"error": "..."}``.

    Raises:
        CommandError: The socket cannot be created.
    """
    tasks = Tasks(report_failure)
    with _listening(path) as server:
        try:
            while True:
                connection = await _accept(server, path, terminal)
                tasks.start(_serve(connection, parse, forwarder), "input of a socket", runs_callbacks=False)
        finally:
            await tasks.end_all()


async def _accept(server: socket.socket, path: str, terminal: Terminal) -> socket.socket:
    """Return the next connection. Failures that concern one connection, or will pass, are reported."""
    is_reported = False
    while True:
        try:
            connection, _ = await asyncio.get_running_loop().sock_accept(server)
        except OSError as error:
            if error.errno == errno.ECONNABORTED:
                terminal.note(f"A program closed its connection to {path} before it was accepted", "warning")
                continue
            if error.errno not in NO_DESCRIPTORS:
                raise
            if not is_reported:
                is_reported = True
                why = f"{error.strerror}; trying again every {PAUSE_SECONDS:g} s"
                terminal.note(f"A connection to {path} has to wait: {why}", "warning")
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        return connection


async def _serve(connection: socket.socket, parse: Parse, forwarder: Forwarder) -> None:
    with connection:
        # A thread reads, and must block.
        connection.setblocking(True)
        reader = InputReader(connection.fileno(), parse)
        try:
            records, bad_lines = await forwarder.forward(reader.batches())
            answer: dict[str, object] = {"records": records, "bad_lines": bad_lines}
        except CommandError as error:
            answer = {"error": str(error)}
        finally:
            # A read that waits returns, also if this is cancelled. The program may have closed the connection.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
            # Another connection may get the number of a closed descriptor.
            await reader.stop()
        connection.setblocking(False)
        # The program may not wait for the answer.
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(connection, json.dumps(answer).encode() + b"\n")


@contextlib.contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    if not hasattr(socket, "AF_UNIX"):
        raise CommandError("Python has no UNIX sockets on this system", ExitCode.USAGE, "read a directory or standard input")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        server.bind(path)
        server.listen()
        server.setblocking(False)
    except OSError as error:
        server.close()
        raise CommandError(f"The socket {path} cannot be created: {error.strerror or error}", ExitCode.USAGE) from error
    try:
        yield server
    finally:
        server.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that has ended without removing it."""
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if not is_socket:
            raise FileExistsError(errno.EEXIST, "there is another file at this path", path)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise FileExistsError(errno.EADDRINUSE, "another process listens on it", path)


# The directory.


async def read_directory(settings: AgentSettings, forwarder: Forwarder, terminal: Terminal, *, once: bool) -> None:
    """Forward the records of the files in a directory, oldest first, and remove each file when its records are on disk.

    Args:
        settings: The directory, and what happens to files.
        forwarder: Takes the records.
        terminal: Prints remarks.
        once: Whether to end when the files that are there have been read.

    Raises:
        CommandError: The directory cannot be read or watched, or the store cannot take the records.
    """
    folder = Path(settings.directory or "")
    if not await asyncio.to_thread(folder.is_dir):
        raise CommandError(f"{folder} is not a directory", ExitCode.USAGE)
    if once:
        await _read_all(folder, settings, forwarder, terminal)
        return
    async for _ in _changes(folder):
        await _read_all(folder, settings, forwarder, terminal)


async def _changes(folder: Path) -> AsyncIterator[None]:
    """Yield at once, and whenever files were completed or moved into a directory. The kernel reports it; nothing polls."""
    try:
        from asyncinotify import Inotify, Mask  # noqa: PLC0415  # optional
    except ImportError as error:
        raise CommandError(
            "Watching a directory needs the package asyncinotify, and Linux",
            ExitCode.USAGE,
            "install the extra agent, or use --once",
        ) from error
    with Inotify() as inotify:
        mask = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR
        try:
            inotify.add_watch(folder, mask)
        except OSError as error:
            raise CommandError(f"{folder} cannot be watched: {error.strerror or error}", ExitCode.USAGE) from error
        # The watch exists before the first look, so that no file is missed.
        yield
        async for event in inotify:
            if event.mask & (Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.IGNORED):
                raise CommandError(f"{folder} was removed or renamed", ExitCode.REFUSED)
            # The agent's own renaming is not a reason to look again. Without a name, events were lost.
            if event.name is None or _is_complete(event.name.name):
                yield


async def _read_all(folder: Path, settings: AgentSettings, forwarder: Forwarder, terminal: Terminal) -> None:
    for path in _files(folder, settings.pattern):
        await _read(path, settings, forwarder, terminal)


def _files(folder: Path, pattern: str) -> list[Path]:
    """Return the complete files, oldest first."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_complete(entry.name) and fnmatchcase(entry.name, pattern) and entry.is_file(follow_symlinks=False):
                    # Another program may take the file meanwhile.
                    with contextlib.suppress(FileNotFoundError):
                        found.append((entry.stat().st_mtime_ns, entry.name))
    except OSError as error:
        raise CommandError(f"{folder} cannot be read: {error.strerror}", ExitCode.USAGE) from error
    return [folder / name for _, name in sorted(found)]


def _is_complete(name: str) -> bool:
    return not name.startswith(".") and not name.endswith((*UNFINISHED, DONE, BAD))


async def _read(path: Path, settings: AgentSettings, forwarder: Forwarder, terminal: Terminal) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        # Another program has taken it since.
        return
    except OSError as error:
        terminal.note(f"{path} cannot be read: {error.strerror}", "warning")
        return
    reader = InputReader(descriptor, settings.parser())
    try:
        records, bad_lines = await forwarder.forward(reader.batches())
    except CommandError as error:
        if error.exit_code is not ExitCode.USAGE:
            raise
        # Such as a header that is not usable. The file is kept.
        terminal.note(f"{path.name}: {error}", "warning")
        forwarder.bad_lines += 1
        records, bad_lines = 0, 1
    finally:
        await reader.stop()
        os.close(descriptor)
    try:
        _put_away(path, BAD if bad_lines else DONE if settings.after == "rename" else None)
    except OSError as error:
        # It would be sent again whenever the agent looks.
        text = f"{path} is in the store, but cannot be removed or renamed: {error.strerror}"
        raise CommandError(text, ExitCode.REFUSED) from error
    terminal.note(f"{path.name}: {counted(records, 'record')}" + (f", {counted(bad_lines, 'bad line')}" if bad_lines else ""))


def _put_away(path: Path, ending: str | None) -> None:
    """Append an ending to the name of a file that was read, or delete the file without one. No other file is replaced."""
    if ending is None:
        path.unlink()
        return
    target, number = path.with_name(path.name + ending), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.{number}{ending}")
    path.rename(target)
