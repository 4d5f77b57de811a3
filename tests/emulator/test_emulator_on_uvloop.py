"""The emulator on uvloop, which programs for SDK 2.0 use."""

import asyncio
import ssl

import pytest
import trustme
from raw_mqtt import raw_client

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.emulator import Emulator, X509Credentials

uvloop = pytest.importorskip("uvloop")


def test_a_client_and_the_emulator_on_uvloop():
    async def main():
        async with asyncio.timeout(10), Emulator() as emulator:
            emulator.add_device("TOKEN", "device")
            client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
            client.set_rpc_request_callback(lambda request: request.method)
            await client.connect()
            assert (await client.send_timeseries({"a": 1})).is_successful()
            assert await emulator.call_rpc("device", "m") == {"result": "m"}
            await emulator.stop()
            await emulator.start()
            await client.stop()
            return emulator.counters.datapoints

    assert uvloop.run(main()) == 1


def test_certificates_on_uvloop():
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(server)
    authority.configure_trust(client)
    server.verify_mode = ssl.CERT_OPTIONAL
    certificate = authority.issue_cert("thermometer")
    certificate.configure_cert(client)

    async def main():
        async with Emulator(ssl_context=server) as emulator:
            emulator.add_device(X509Credentials(certificate.cert_chain_pems[0].bytes().decode()), "thermometer")
            async with raw_client(emulator, ssl=client) as raw:
                assert (await raw.connect(None))[1][1] == 0
            return emulator.device("thermometer").counters.connections

    assert uvloop.run(main()) == 1


def test_a_client_that_stops_reading_on_uvloop():
    """The emulator pauses and resumes reading."""

    async def main():
        async with Emulator(accept_any_token=True) as emulator, raw_client(emulator) as client:
            await client.connect()
            client.write(b"\xc0\0" * 50_000)
            return {await client.read() for _ in range(50_000)}

    assert uvloop.run(main()) == {(0xD0, b"")}


def test_an_inactive_client_on_uvloop():
    async def main():
        async with Emulator(inactivity_timeout=0.05, accept_any_token=True) as emulator, raw_client(emulator) as client:
            await client.connect()
            return await client.read()

    assert uvloop.run(main()) == (0xE0, b"\x83\0")
