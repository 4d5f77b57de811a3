"""Measure one program in this process: read a job from stdin, and write results to stdout, one JSON document per line.

It is run by its path, also by the interpreter of another environment, of Python 3.11 or newer. It imports nothing but the standard
library and the program that it measures: an SDK has modules with the names of this package's modules.

A job has: ``program`` (a key of ``PROGRAMS``), ``work`` (``encode``, ``split`` or ``send``), ``path`` (folders to import from
first), ``corpus`` (a file), ``gateway``, ``max_payload``, ``max_datapoints``, ``rounds``, ``payloads`` (a file to write), and for
``send`` ``servers``: the server of the checked round, and the server of the timed rounds, which may be the same.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TextIO

Job = dict[str, Any]
Sends = list[tuple[str | None, list[dict[str, Any]]]]
Server = dict[str, Any]

OUT: TextIO = sys.stdout
"""Where results are written."""
ENDLESS = 600.0
"""Seconds to wait for acknowledgements; the parent process ends this one earlier."""


class Program:
    """A program whose work is measured. A subclass has a method for each work that it can do, and its name."""

    name: str = ""

    def __init__(self, job: Job, sends: Sends) -> None:
        self.job: Job = job
        self.gateway: bool = job["gateway"]
        self.sends: Sends = sends
        self.runner: asyncio.Runner = asyncio.Runner()

    def prepare(self) -> None:
        """Prepare one round; this is not measured."""

    def encode(self) -> list[Any]:
        """Encode each send, and return the results."""
        raise NotImplementedError

    def split(self) -> list[Any]:
        """Return payloads within the limits."""
        raise NotImplementedError

    def payloads(self, result: list[Any]) -> list[bytes]:
        """Return the payloads that are in the result of ``encode`` or ``split``."""
        return result

    def connect(self, server: Server) -> None:
        """Connect to a server; the sub-devices are announced."""
        raise NotImplementedError

    def send(self) -> int:
        """Send everything without waiting, then wait for all acknowledgements. Return the number of acknowledged datapoints."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """Close the connection."""
        raise NotImplementedError


class Own(Program):
    """The package that this file belongs to."""

    def __init__(self, job: Job, sends: Sends) -> None:
        super().__init__(job, sends)
        package, native = import_module("tb_mqtt_client"), import_module("tb_mqtt_client._native")
        if native.build_profile != "release":
            raise ImportError("the extension is a debug build, which measures nothing: build it in release mode")
        self.name: str = f"tb_mqtt_client {package.__version__}"
        self._client_class = package.GatewayClient if self.gateway else package.DeviceClient
        self._native = native
        names = {name for name, _ in sends}
        self._identities = {name: None if name is None else native.DeviceIdentity(name) for name in names}
        self._sessions: dict[str | None, Any] = {}

    def encode(self) -> list[Any]:
        timeseries, identities = self._native.EncodedUplink.timeseries, self._identities
        return [timeseries(data, 0, identities[name]) for name, data in self.sends]

    def split(self) -> list[Any]:
        return self._packed(self.encode(), self.job["max_payload"], self.job["max_datapoints"])

    def payloads(self, result: list[Any]) -> list[bytes]:
        encoded = bool(result) and not isinstance(result[0], bytes)
        return [data for uplink in result for data in self._packed([uplink], 2**28, 0)] if encoded else result

    def _packed(self, uplinks: list[Any], max_size: int, max_datapoints: int) -> list[bytes]:
        packed = self._native.pack_timeseries(
            uplinks, gateway=self.gateway, max_size=max_size, max_datapoints=max_datapoints, max_devices=0
        )
        return [payload.data for payload in packed.payloads]

    def connect(self, server: Server) -> None:
        self.runner.run(self._connect(server))

    async def _connect(self, server: Server) -> None:
        self._client = self._client_class(server)
        await self._client.connect()
        if self.gateway:
            connected = [await self._client.connect_device(name) for name in sorted(filter(None, self._identities))]
            self._sessions = {session.device_info.device_name: session for session, _ in connected}
            await asyncio.gather(*(future for _, futures in connected for future in futures))

    def send(self) -> int:
        return self.runner.run(self._send())

    async def _send(self) -> int:
        futures = []
        client, sessions = self._client, self._sessions
        for name, data in self.sends:
            if name is None:
                futures += await client.send_timeseries(data, wait_for_publish=False)
            else:
                futures.append(await client.send_device_timeseries(sessions[name], data, wait_for_publish=False))
        acknowledged = 0
        for future in futures:
            result = await future
            acknowledged += result.datapoints_count if result.is_successful() else 0
        return acknowledged

    def disconnect(self) -> None:
        self.runner.run(self._client.stop())


class Dumps(Program):
    """A serializer, which knows neither limits nor devices: ``split`` writes all sends as one document."""

    def _prepare_with(self, dumps: Callable[[Any], bytes]) -> None:
        self._dumps = dumps
        grouped: dict[str | None, list[Any]] = {}
        for name, records in self.sends:
            grouped.setdefault(name, []).extend(records)
        self._document: Any = grouped if self.gateway else grouped[None]
        self._calls: list[Any] = [{name: data} if self.gateway else data for name, data in self.sends]

    def encode(self) -> list[Any]:
        dumps = self._dumps
        return [dumps(data) for data in self._calls]

    def split(self) -> list[Any]:
        return [self._dumps(self._document)]


class Orjson(Dumps):
    """``orjson.dumps``."""

    def __init__(self, job: Job, sends: Sends) -> None:
        super().__init__(job, sends)
        orjson = import_module("orjson")
        self.name: str = f"orjson.dumps {orjson.__version__}"
        self._prepare_with(orjson.dumps)


class StandardJson(Dumps):
    """``json.dumps`` of Python, to bytes."""

    name: str = "json.dumps"

    def __init__(self, job: Job, sends: Sends) -> None:
        super().__init__(job, sends)
        self._prepare_with(lambda data: json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())


class SdkOne(Program):
    """SDK 1.x: its splitter for each send, and its client."""

    def __init__(self, job: Job, sends: Sends) -> None:
        super().__init__(job, sends)
        # If a package is missing, the SDK would install it.
        os.environ["PIP_NO_INDEX"] = "1"
        self._device, self._gateway = import_module("tb_device_mqtt"), import_module("tb_gateway_mqtt")
        check_origin(self._device, job)
        self.name: str = f"SDK {version_of('tb-mqtt-client', '1.')}"
        self._dumps = import_module("orjson").dumps

    def split(self) -> list[Any]:
        cut, dumps = self._device.TBDeviceMqttClient._split_message, self._dumps
        datapoints, size = self.job["max_datapoints"], self.job["max_payload"]
        if self.gateway:
            return [dumps({name: part["data"]}) for name, data in self.sends for part in cut(data, datapoints, size)]
        return [dumps(part["data"]) for _, data in self.sends for part in cut(data, datapoints, size)]

    def connect(self, server: Server) -> None:
        module = self._gateway.TBGatewayMqttClient if self.gateway else self._device.TBDeviceMqttClient
        self._client = module(server["host"], server["port"], server["access_token"])
        self._client.connect()
        wait_until(self._client.is_connected, "session")
        # A broker that is not a platform announces no limits, and the client sends without them.
        until = time.monotonic() + 2
        while not self._client.rate_limits_received and time.monotonic() < until:
            time.sleep(0.01)
        if self.gateway:
            for name in sorted({name for name, _ in self.sends if name is not None}):
                self._client.gw_connect_device(name).get()

    def send(self) -> int:
        client = self._client
        if self.gateway:
            infos = [client.gw_send_telemetry(name, data) for name, data in self.sends]
        else:
            infos = [client.send_telemetry(data) for _, data in self.sends]
        acknowledged = 0
        for info, (_, data) in zip(infos, self.sends, strict=True):
            for one in info.message_info:
                one.wait_for_publish(ENDLESS)
            acknowledged += sum(len(record["values"]) for record in data) if info.rc() == 0 else 0
        return acknowledged

    def disconnect(self) -> None:
        self._client.disconnect()
        self._client.stop()


class SdkTwo(Program):
    """SDK 2.0: its messages and adapters with one batch of all sends, and its client."""

    def __init__(self, job: Job, sends: Sends) -> None:
        super().__init__(job, sends)
        kind = "gateway" if self.gateway else "device"
        client, adapter = asyncio.run(self._import(kind))
        check_origin(client, job)
        self.name: str = f"SDK {version_of('thingsboard-python-client-sdk', '2.')}"
        self._message = import_module("tb_mqtt_client.common.mqtt_message").MqttPublishMessage
        self._client_class = client.GatewayClient if self.gateway else client.DeviceClient
        self._adapter = adapter.JsonGatewayMessageAdapter if self.gateway else adapter.JsonMessageAdapter
        self._topic = "v1/gateway/telemetry" if self.gateway else "v1/devices/me/telemetry"
        self._copies: Sends = []
        self._sessions: dict[str | None, Any] = {}

    async def _import(self, kind: str) -> tuple[Any, Any]:
        # It needs a running event loop, and then selects uvloop for those that are made later.
        place = f"tb_mqtt_client.service.{kind}"
        return import_module(f"{place}.client"), import_module(f"{place}.message_adapter")

    def prepare(self) -> None:
        # The SDK removes `ts` and `values` from the dicts that it is given.
        self._copies = [(name, [dict(record) for record in data]) for name, data in self.sends]

    def split(self) -> list[Any]:
        return self.runner.run(self._split())

    async def _split(self) -> list[bytes]:
        if self.gateway and not self._sessions:
            self._sessions = {name: _Session(name) for name, _ in self.sends}
        build, topic, message = self._client_class._build_uplink_message_for_telemetry, self._topic, self._message
        adapter = self._adapter(self.job["max_payload"], self.job["max_datapoints"])
        messages = [message(topic, build(data, self._sessions.get(name)), 1) for name, data in self._copies]
        return [one.payload for one in adapter.build_uplink_messages(messages)]

    def connect(self, server: Server) -> None:
        self.runner.run(self._connect(server))

    async def _connect(self, server: Server) -> None:
        self._client = self._client_class({name: server[name] for name in ("host", "port", "access_token")})
        await self._client.connect()
        if self.gateway:
            for name in sorted({name for name, _ in self.sends if name is not None}):
                session, _ = await self._client.connect_device(name, wait_for_publish=True)
                self._sessions[name] = session

    def send(self) -> int:
        return self.runner.run(self._send())

    async def _send(self) -> int:
        found = []
        for name, data in self._copies:
            datapoints = sum(len(record["values"]) for record in data)
            if name is None:
                futures = await self._client.send_timeseries(data, wait_for_publish=False)
            else:
                futures = await self._client.send_device_timeseries(self._sessions[name], data, wait_for_publish=False)
            found.append((futures if isinstance(futures, list | tuple) else [futures], datapoints))
        acknowledged = 0
        for futures, datapoints in found:
            results = [await future for future in futures]
            acknowledged += datapoints if all(result.is_successful() for result in results) else 0
        return acknowledged

    def disconnect(self) -> None:
        self.runner.run(self._client.stop())


class _Session:
    """What the SDK's messages read of a sub-device session."""

    def __init__(self, name: str | None) -> None:
        self.device_info: _Session = self
        self.device_name: str | None = name
        self.device_profile: str = "default"


PROGRAMS: dict[str, type[Program]] = {"own": Own, "orjson": Orjson, "json": StandardJson, "sdk1": SdkOne, "sdk2": SdkTwo}


def check_origin(module: Any, job: Job) -> None:
    """Raise ``ImportError`` if a module of an SDK is not from one of the folders of the job."""
    path = Path(module.__file__).resolve()
    if not any(path.is_relative_to(Path(folder).resolve()) for folder in job["path"]):
        raise ImportError(f"{module.__name__} was imported from {path}")


def version_of(distribution: str, major: str) -> str:
    """Return the version of an SDK: that of its distribution, or ``1.x`` if it is imported from its sources."""
    try:
        # This package and SDK 1.x are distributions with the same name.
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        version = ""
    return version if version.startswith(major) else f"{major}x"


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Wait until a condition is true. Raise ``TimeoutError`` after half a minute."""
    end = time.monotonic() + 30
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} within 30 s")
        time.sleep(0.01)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the result of a function, with its seconds of wall time and of CPU time of this process."""
    gc.collect()
    gc.freeze()
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    gc.unfreeze()
    return result, seconds, cpu_seconds


def report(**facts: Any) -> None:
    """Write one line for the parent process."""
    print(json.dumps(facts), file=OUT, flush=True)


def measure(job: Job) -> None:
    """Do the work once to check it, then the rounds."""
    sends = [(name, data) for name, data in json.loads(Path(job["corpus"]).read_text(encoding="utf-8"))]
    try:
        program = PROGRAMS[job["program"]](job, sends)
    except ImportError as error:
        report(unavailable=f"{error}")
        return
    report(name=program.name)
    if job["work"] == "send":
        measure_sends(program, job)
        return
    work = getattr(program, job["work"])
    program.prepare()
    payloads = program.payloads(work())
    Path(job["payloads"]).write_bytes(b"\n".join(payloads))
    report(payloads=len(payloads), payload_bytes=sum(map(len, payloads)), largest=max(map(len, payloads), default=0))
    for _ in range(job["rounds"]):
        program.prepare()
        _, seconds, cpu = timed(work)
        report(seconds=seconds, cpu=cpu)


def measure_sends(program: Program, job: Job) -> None:
    """Send once to the first server, and the rounds to the second one."""
    for index, (server, rounds) in enumerate(zip(job["servers"], (1, job["rounds"]), strict=True)):
        program.connect(server)
        # The first round on a connection is not reported: sockets and caches are cold.
        for number in range(rounds + index):
            program.prepare()
            acknowledged, seconds, cpu = timed(program.send)
            if index and number:
                report(seconds=seconds, cpu=cpu)
            else:
                report(acknowledged=acknowledged)
        program.disconnect()


def main() -> None:
    """Run one job."""
    job = json.loads(sys.stdin.readline())
    # In place of the folder of this file, whose modules could hide those of the measured program.
    sys.path[0:1] = job["path"]
    try:
        measure(job)
    except Exception as error:
        report(failed=f"{type(error).__name__}: {error}")
        raise


def run() -> None:
    """Run a job, and end the process whatever threads the measured program has left running."""
    global OUT  # noqa: PLW0603  # set when the process begins
    # What a measured program prints must not be taken for a result.
    OUT = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    code = 1
    try:
        main()
        code = 0
    except Exception:  # noqa: BLE001  # it is reported in full, and the process ends
        traceback.print_exc()
    OUT.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
