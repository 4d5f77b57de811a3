"""A service reports its life to a service manager, which the tests play: a datagram socket, by path and by abstract name."""

import asyncio
import os
import signal
import socket
import sys
import textwrap

import pytest
from device_peer import make_client

from engine_parts import engine_of
from programs import running
from tb_mqtt_client import NotConnectedError
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.systemd import SystemdService

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="systemd runs on Linux")


class ServiceManager:
    """Receives what a service sends."""

    def __init__(self, address):
        self.environment = {"NOTIFY_SOCKET": address}
        self.received = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(address.replace("@", "\0"))

    def close(self):
        self._socket.close()

    async def next(self):
        """Return the next datagram as a dict."""
        async with asyncio.timeout(30):
            text = (await asyncio.get_running_loop().sock_recv(self._socket, 10_000)).decode()
        self.received.append(dict(line.split("=", 1) for line in text.split("\n")))
        return self.received[-1]

    async def until(self, name):
        """Return the first datagram that has a variable."""
        while name not in (datagram := await self.next()):
            pass
        return datagram

    def rest(self):
        """Return the datagrams that have arrived."""
        found = []
        while True:
            try:
                found.append(dict(line.split("=", 1) for line in self._socket.recv(10_000).decode().split("\n")))
            except BlockingIOError:
                return found

    def names(self):
        return [name for datagram in self.received for name in datagram if name not in {"STATUS", "WATCHDOG"}]


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    address = str(tmp_path / "notify") if request.param == "path" else f"@tb-mqtt-{os.getpid()}-{id(tmp_path)}"
    manager = ServiceManager(address)
    yield manager
    manager.close()


async def test_a_service_is_ready_with_its_first_session_and_stops_its_clients(emulator, manager):
    client = make_client(emulator)
    async with SystemdService(client, environment=manager.environment):
        await manager.until("READY")
        await client.send_timeseries({"a": 1})
    stopping = await manager.until("STOPPING")
    assert stopping["EXTEND_TIMEOUT_USEC"] == "25000000"
    assert (await manager.until("STATUS"))["STATUS"] == "stopped: acknowledged 1, queued 0"
    assert manager.names() == ["READY", "STOPPING", "EXTEND_TIMEOUT_USEC"]
    assert emulator.device("device").telemetry[0].value == 1
    with pytest.raises(NotConnectedError):
        await client.send_timeseries({"a": 2})


async def test_a_service_without_a_network_is_not_ready(emulator, manager):
    client = make_client(emulator, access_token="UNKNOWN")
    async with SystemdService(client, environment=manager.environment):
        while "; " not in (await manager.until("STATUS"))["STATUS"]:
            pass
        assert manager.names() == []


async def test_a_service_with_a_store_is_ready_without_a_network(emulator, manager, tmp_path):
    client = make_client(emulator, access_token="UNKNOWN", store=str(tmp_path / "store"))
    async with SystemdService(client, environment=manager.environment, stop_timeout=1):
        await manager.until("READY")
        assert engine_of(client).mqtt_manager.connections == 0


async def test_queued_data_is_sent_at_the_end(emulator, manager):
    client = make_client(emulator, max_inflight_messages=1)
    emulator.on_publish = lambda publish: Verdict.delay(0.02) if publish.topic.endswith("/telemetry") else None
    async with SystemdService(client, environment=manager.environment):
        for number in range(50):
            await client.send_timeseries({"ts": 1 + number, "values": {"n": number}}, wait_for_publish=False)
    assert len(emulator.device("device").telemetry) == 50


async def test_the_watchdog_is_notified_while_data_moves(emulator, manager):
    environment = manager.environment | {"WATCHDOG_USEC": "20000"}
    client = make_client(emulator)
    async with SystemdService(client, environment=environment):
        for _ in range(3):
            await manager.until("WATCHDOG")


async def stalled(caplog):
    """Wait until the service has found that the data does not move, which no event reports."""
    async with asyncio.timeout(60):
        while "The watchdog is not notified any more" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_watchdog_is_not_notified_while_data_does_not_move(emulator, manager, caplog):
    environment = manager.environment | {"WATCHDOG_USEC": "20000"}
    client = make_client(emulator)
    held = asyncio.Event()
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    async with SystemdService(client, environment=environment, stall_timeout=0.05, stop_timeout=0.01):
        await manager.until("READY")
        await client.send_timeseries({"a": 1}, wait_for_publish=False)
        await stalled(caplog)
        manager.rest()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(held.wait(), 0.2)
        assert not [datagram for datagram in manager.rest() if "WATCHDOG" in datagram]


async def test_the_watchdog_is_not_notified_after_a_client_has_failed(emulator, manager, caplog):
    environment = manager.environment | {"WATCHDOG_USEC": "20000"}
    client = make_client(emulator)
    async with SystemdService(client, environment=environment):
        await manager.until("READY")
        # As a defect would end it.
        next(task for task in asyncio.all_tasks() if task.get_name() == "tb-mqtt-client initial queue").cancel()
        await stalled(caplog)


async def test_without_a_service_manager_nothing_is_sent(emulator):
    client = make_client(emulator)
    async with SystemdService(client, environment={}):
        await client.wait_connected(10)


async def test_no_client_is_left_if_one_cannot_start(emulator, tmp_path):
    (tmp_path / "file").write_text("not a store")
    first, second = make_client(emulator), make_client(emulator, store=str(tmp_path / "file"))
    with pytest.raises(OSError, match="file"):
        async with SystemdService(first, second, environment={}):
            pass
    assert not first.state.accepts_sends


def program(emulator, extra=""):
    options = {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"}
    return textwrap.dedent(f"""
        import asyncio
        from tb_mqtt_client import DeviceClient, run
        from tb_mqtt_client.systemd import SystemdService

        def reload():
            print("reloaded", flush=True)

        async def main():
            client = DeviceClient({options})
            async with SystemdService(client{extra}):
                await client.send_timeseries({{"a": 1}})
                print("go", flush=True)
                await asyncio.Event().wait()

        run(main())
    """)


async def test_sigterm_stops_a_service_in_order(emulator, manager):
    async with running("-c", program(emulator), **manager.environment) as child:
        await child.printed("go")
        child.signal(signal.SIGTERM)
        assert (await child.ended(), child.errors) == (0, "")
    await manager.until("STOPPING")
    assert manager.names()[:2] == ["READY", "STOPPING"]


async def test_sighup_reloads(emulator, manager):
    async with running("-c", program(emulator, ", on_reload=reload"), **manager.environment) as child:
        await child.printed("go")
        await manager.until("READY")
        child.signal(signal.SIGHUP)
        await child.printed("reloaded")
        assert (await manager.until("RELOADING"))["MONOTONIC_USEC"].isdecimal()
        await manager.until("READY")
        child.signal(signal.SIGTERM)
        await child.ended()
