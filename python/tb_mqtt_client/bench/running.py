"""Run the workers of a measurement, one after the other, and check what each of them produced."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tb_mqtt_client.bench.corpus import Corpus, Points, difference, points_of
from tb_mqtt_client.bench.peers import Peer
from tb_mqtt_client.bench.sink import DEVICE, GATEWAY

LINE: int = 2**28
"""The longest line of a process, in bytes: the datapoints that an emulator has received."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of payloads."""

    payload: int
    """Bytes."""
    datapoints: int
    """Datapoints in a payload; 0 for no limit."""


@dataclass(slots=True)
class Measurement:
    """What was measured of one program."""

    name: str
    seconds: list[float] = field(default_factory=list)
    """Wall time of each round."""
    cpu_seconds: list[float] = field(default_factory=list)
    """CPU time of the program's process in each round, of all threads."""
    payloads: int | None = None
    payload_bytes: int | None = None
    largest: int = 0
    """Bytes of the largest payload."""
    acknowledged: list[int] = field(default_factory=list)
    """Acknowledged datapoints of the rounds that are not timed."""
    problem: str = ""
    """What is wrong with the result; empty if it is correct."""
    unavailable: str = ""
    """Why nothing was measured."""

    def median(self) -> float:
        """Return the median wall time of a round in seconds."""
        return statistics.median(self.seconds)

    def median_cpu(self) -> float:
        """Return the median CPU time of a round in seconds."""
        return statistics.median(self.cpu_seconds)


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of ``send``."""

    checked: dict[str, Any]
    timed: dict[str, Any]
    received: Callable[[], Any] | None
    """Returns the datapoints that ``checked`` has received since the last time, awaited; ``None`` if the server cannot say."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One measurement of several programs with one corpus."""

    work: str
    """``encode``, ``split`` or ``send``."""
    corpus: Corpus
    limits: Limits
    rounds: int
    folder: Path
    """Where the files are that are exchanged with the workers."""
    timeout: float
    """Seconds that one program may take."""
    reached: Callable[[], None]
    """Called after each round."""

    async def measure(self, peer: Peer, servers: Servers | None = None, wrapper: tuple[str, ...] = ()) -> Measurement:
        """Measure one program.

        Args:
            peer: The program.
            servers: Where to send to, for ``send``.
            wrapper: A command that runs the worker, such as a profiler.
        """
        corpus_file, payload_file = self.folder / "corpus.json", self.folder / "payloads"
        if not corpus_file.exists():
            self.corpus.save(corpus_file)
        job = {
            "program": peer.program,
            "work": self.work,
            "path": peer.path,
            "corpus": str(corpus_file),
            "gateway": self.corpus.is_gateway,
            "max_payload": self.limits.payload,
            "max_datapoints": self.limits.datapoints,
            "rounds": self.rounds,
            "payloads": str(payload_file),
            "servers": [] if servers is None else [servers.checked, servers.timed],
        }
        measured = Measurement(peer.label)
        try:
            async with asyncio.timeout(self.timeout), _started(peer, wrapper) as (process, errors):
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps(job).encode() + b"\n")
                process.stdin.close()
                async for line in process.stdout:
                    # A profiler writes lines of its own.
                    if line.startswith(b"{"):
                        self._take(json.loads(line), measured)
                code = await process.wait()
                await errors
        except TimeoutError:
            measured.problem = f"not finished after {self.timeout:g} s"
            return measured
        if measured.unavailable or measured.problem:
            return measured
        if code or len(measured.seconds) < self.rounds:
            lines = errors.result().decode(errors="replace").strip().splitlines()
            measured.problem = f"it ended with exit code {code}: {lines[-1] if lines else 'without a message'}"
        elif servers is None:
            measured.problem = self._check(payload_file.read_bytes().splitlines(), peer, measured)
        else:
            measured.problem = await self._check_sends(servers, measured)
        return measured

    def _take(self, line: dict[str, Any], measured: Measurement) -> None:
        if "seconds" in line:
            measured.seconds.append(line["seconds"])
            measured.cpu_seconds.append(line["cpu"])
            self.reached()
            return
        measured.name = line.get("name", measured.name)
        measured.unavailable = line.get("unavailable", measured.unavailable)
        measured.problem = line.get("failed", measured.problem)
        measured.payloads = line.get("payloads", measured.payloads)
        measured.payload_bytes = line.get("payload_bytes", measured.payload_bytes)
        measured.largest = line.get("largest", measured.largest)
        if "acknowledged" in line:
            measured.acknowledged.append(line["acknowledged"])

    def _check(self, payloads: list[bytes], peer: Peer, measured: Measurement) -> str:
        """Return what is wrong with the payloads of the first round, or an empty text."""
        found: Points = {}
        most = 0
        for payload in payloads:
            try:
                points = points_of(payload, gateway=self.corpus.is_gateway)
            except ValueError as error:
                return str(error)
            most = max(most, len(points))
            found |= points
        return difference(self.corpus.points, found) or self._over_limits(peer, measured.largest, most)

    def _over_limits(self, peer: Peer, largest: int, most: int) -> str:
        if self.work != "split" or not peer.has_limits:
            return ""
        if largest > self.limits.payload:
            return f"the largest payload has {largest:,} bytes, more than the limit of {self.limits.payload:,}"
        if 0 < self.limits.datapoints < most:
            return f"a payload has {most:,} datapoints, more than the limit of {self.limits.datapoints:,}"
        return ""

    async def _check_sends(self, servers: Servers, measured: Measurement) -> str:
        wrong = [count for count in measured.acknowledged if count != self.corpus.datapoints]
        if wrong:
            return f"{wrong[0]:,} of {self.corpus.datapoints:,} datapoints were acknowledged"
        if servers.received is None:
            return ""
        found: Points = {(device, ts, key): value for device, ts, values in await servers.received() for key, value in values}
        return difference(self.corpus.points, found)


@asynccontextmanager
async def _started(peer: Peer, wrapper: tuple[str, ...]) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.Task[bytes]]]:
    """Run a worker, and end it on exit. Yield it with a task that reads its stderr."""
    environment = dict(os.environ)
    if peer.path:
        # The folders there may contain this package.
        environment.pop("PYTHONPATH", None)
    pipe = asyncio.subprocess.PIPE
    command = (*wrapper, peer.interpreter, str(peer.worker))
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, limit=LINE)
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    try:
        yield process, errors
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await errors


@asynccontextmanager
async def emulators(gateway: bool, max_payload: int) -> AsyncIterator[Servers]:
    """Run the emulators of ``sink.py``."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "tb_mqtt_client.bench.sink", str(max_payload))
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=LINE)
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def received() -> Any:
        stdin.write(b"\n")
        return json.loads(await stdout.readline())["received"]

    try:
        ports = json.loads(await stdout.readline())
        server = {"host": "127.0.0.1", "access_token": GATEWAY if gateway else DEVICE}
        yield Servers(server | {"port": ports["checked"]}, server | {"port": ports["timed"]}, received)
    finally:
        stdin.close()
        await process.wait()
