"""Errors of ``connect()`` name the server, the cause and a remedy, and have the class that programs catch."""

import asyncio
import copy
import logging
import pickle
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from device_peer import make_client

from network_peers import resolve_as, serving, swallowing_address
from tb_mqtt_client import ConnectionLostError, ConnectionRefusedByServer, DeviceClient, NotConnectedError
from tb_mqtt_client.emulator import Emulator
from tb_mqtt_client.entities.data.provisioning_request import AccessTokenProvisioningCredentials, ProvisioningRequest

SHORT = 0.2
"""Seconds of a time limit that is meant to end."""


async def raised_by_connect(options):
    client = DeviceClient(options)
    try:
        with pytest.raises(OSError) as raised:  # noqa: PT011  # each test checks class and text
            await client.connect()
    finally:
        await client.stop(0)
    error = raised.value
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(twin), str(twin)) == (type(error), str(error))
    return error


async def closes(_reader, writer):
    writer.close()


async def is_silent(reader, _writer):
    await reader.read()


async def respond_as_web_server(reader, writer):
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


@pytest.fixture
def authority():
    return trustme.CA()


@asynccontextmanager
async def tls_emulator(authority, *names, **options):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*(names or ("127.0.0.1",)), **options).configure_cert(context)
    async with Emulator(ssl_context=context) as emulator:
        emulator.add_device("TOKEN", "device")
        yield emulator


@pytest.fixture
def ca_file(authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


async def test_an_unknown_host_name_is_named(monkeypatch):
    resolve_as(monkeypatch, {})
    error = await raised_by_connect({"host": "no-such-host.invalid"})
    assert isinstance(error, socket.gaierror)
    assert error.errno == socket.EAI_NONAME
    assert "no-such-host.invalid:1883: the name 'no-such-host.invalid' cannot be resolved" in str(error)
    assert "check the spelling" in str(error)


async def test_a_name_server_that_does_not_respond_is_a_timeout(monkeypatch):
    resolve_as(monkeypatch, {"tb.test": None})
    error = await raised_by_connect({"host": "tb.test", "connect_timeout": SHORT})
    assert isinstance(error, TimeoutError)
    text = "tb.test:1883: the name 'tb.test' was not resolved within 0.2 s; check this machine's DNS settings"
    assert str(error) == f"{text} [troubleshooting: name-server-does-not-respond]"


async def test_a_closed_port_is_named():
    error = await raised_by_connect({"host": "127.0.0.1", "port": 1})
    assert isinstance(error, ConnectionRefusedError)
    assert "127.0.0.1:1: nothing listens on port 1; check that the server is running" in str(error)


async def test_an_address_that_does_not_respond_is_a_timeout():
    with swallowing_address() as (host, port):
        error = await raised_by_connect({"host": host, "port": port, "connect_timeout": SHORT})
    assert isinstance(error, TimeoutError)
    assert str(error).startswith(f"{host}:{port}: the server did not respond within 0.2 s; a firewall may drop the packets")


async def test_a_missing_connack_is_a_timeout():
    async with serving(is_silent) as port:
        error = await raised_by_connect({"host": "127.0.0.1", "port": port, "connect_timeout": SHORT})
    assert isinstance(error, TimeoutError)
    assert f"127.0.0.1:{port}: the server accepted the connection, but sent no CONNACK within 0.2 s" in str(error)
    assert "if it is a port for TLS (usually 8883), use use_system_ca=True, or ca_cert for your own certificate authority" in str(
        error
    )


async def test_a_server_that_is_silent_in_the_tls_handshake_is_a_timeout():
    async with serving(is_silent) as port:
        error = await raised_by_connect({"host": f"mqtts://127.0.0.1:{port}", "connect_timeout": SHORT})
    assert isinstance(error, TimeoutError)
    assert (
        f"127.0.0.1:{port}: the server did not respond to the TLS handshake within 0.2 s; check that this is the port for TLS"
        in str(error)
    )


async def test_a_connection_that_the_server_closes_is_reported():
    async with serving(closes) as port:
        error = await raised_by_connect({"host": "127.0.0.1", "port": port})
    assert isinstance(error, ConnectionResetError)
    assert f"127.0.0.1:{port}: the server closed the connection before sending a CONNACK; check that this is an MQTT port" in str(
        error
    )


async def test_a_connection_that_the_server_closes_in_the_tls_handshake_is_reported():
    async with serving(closes) as port:
        error = await raised_by_connect({"host": f"mqtts://127.0.0.1:{port}"})
    assert f"127.0.0.1:{port}: port {port} does not " in str(error)
    assert "TLS" in str(error)


async def test_the_port_of_a_web_server_is_recognized():
    async with serving(respond_as_web_server) as port:
        error = await raised_by_connect({"host": "127.0.0.1", "port": port})
    assert isinstance(error, ConnectionError)
    assert (
        f"127.0.0.1:{port}: port {port} is the port of a web server, not of MQTT; check that this is an MQTT port (usually 1883"
        in str(error)
    )


async def test_tls_on_a_port_without_tls_is_recognized(emulator):
    error = await raised_by_connect({"host": f"mqtts://{emulator.host}:{emulator.port}"})
    assert isinstance(error, OSError)
    assert f"{emulator.host}:{emulator.port}: port {emulator.port} does not" in str(error)
    assert "TLS" in str(error)


async def test_a_connection_without_tls_to_a_port_with_tls_is_recognized(authority):
    async with tls_emulator(authority) as emulator:
        error = await raised_by_connect({"host": emulator.host, "port": emulator.port})
    assert isinstance(error, ConnectionError)
    assert f"{emulator.host}:{emulator.port}: " in str(error)
    assert "use_system_ca=True, or ca_cert for your own certificate authority" in str(error)


async def test_an_untrusted_authority_is_explained(authority):
    async with tls_emulator(authority) as emulator:
        error = await raised_by_connect({"host": f"mqtts://{emulator.host}:{emulator.port}"})
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert error.verify_code
    assert error.reason == "CERTIFICATE_VERIFY_FAILED"
    assert "is signed by an untrusted authority; for your own certificate authority use ca_cert" in str(error)


async def test_a_certificate_of_another_authority_names_the_file(authority, ca_file):
    async with tls_emulator(trustme.CA()) as emulator:
        error = await raised_by_connect({"host": emulator.host, "port": emulator.port, "ca_cert": ca_file})
    assert f"check that {ca_file} is the authority that signed it" in str(error)


async def test_a_certificate_for_another_name_is_explained(authority, ca_file):
    async with tls_emulator(authority, "platform.example") as emulator:
        error = await raised_by_connect({"host": emulator.host, "port": emulator.port, "ca_cert": ca_file})
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert "the server's certificate is not for '127.0.0.1'" in str(error)
    assert "verify_hostname=False accepts any" in str(error)


def refuse_one_client(listening, context):
    """Refuse a client with an alert of OpenSSL; a server of asyncio would close without one."""
    connection, _ = listening.accept()
    with pytest.raises(ssl.SSLError), context.wrap_socket(connection, server_side=True):
        pass
    connection.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_missing_client_certificate_is_explained(authority, ca_file, version):
    """With TLS 1.3, the refusal comes after the client has finished the handshake and sent its CONNECT."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listening:
        refusing = asyncio.ensure_future(asyncio.to_thread(refuse_one_client, listening, context))
        error = await raised_by_connect({"host": "127.0.0.1", "port": listening.getsockname()[1], "ca_cert": ca_file})
        await refusing
    assert "client_cert and private_key" in str(error)
    # The end of the connection may arrive before the alert.
    assert "rejected this client in the TLS handshake" in str(error) or "may require a client certificate" in str(error)


async def test_a_connection_that_ends_after_the_tls_handshake_suggests_a_client_certificate(authority, ca_file):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with serving(closes, ssl=context) as port:
        error = await raised_by_connect({"host": "127.0.0.1", "port": port, "ca_cert": ca_file})
    assert isinstance(error, ConnectionResetError)
    assert "the server may require a client certificate (client_cert and private_key)" in str(error)


async def test_a_connection_that_ends_during_the_set_up_of_the_session_is_lost():
    async def serve(reader, writer):
        await reader.read(1)
        writer.write(b"\x20\x03\x00\x00\x00")
        await reader.readuntil(b"v1/devices/me/")
        writer.close()

    async with serving(serve) as port:
        error = await raised_by_connect({"host": "127.0.0.1", "port": port, "access_token": "T"})
    assert isinstance(error, ConnectionLostError)
    assert str(error).startswith(f"127.0.0.1:{port}: the connection ended")


async def test_the_end_of_a_connection_is_logged_with_the_server(emulator, caplog):
    async with make_client(emulator) as client:
        await emulator.disconnect_device("TOKEN", 0x8B)
        assert (await client.send_timeseries({"a": 1})).is_successful()
        # Without the server, for which health() has other fields.
        assert client.health()["last_disconnect"].startswith("DISCONNECT from the server")
    assert f"The connection ended: {emulator.host}:{emulator.port}: DISCONNECT from the server" in caplog.text


@pytest.mark.parametrize("version", [5, 4])
async def test_a_wrong_token_is_refused_and_not_quoted(emulator, version):
    error = await raised_by_connect(
        {"host": emulator.host, "port": emulator.port, "access_token": "WRONG-TOKEN", "mqtt_version": version}
    )
    assert isinstance(error, ConnectionRefusedByServer)
    assert isinstance(error, ConnectionError)
    assert error.protocol_version == version
    assert f"{emulator.host}:{emulator.port}: the server has no device with these credentials" in str(error)
    assert "Manage credentials" in str(error)
    assert "WRONG-TOKEN" not in str(error)


async def test_missing_credentials_name_the_option(emulator):
    error = await raised_by_connect({"host": emulator.host, "port": emulator.port})
    assert "set the device's access token: access_token (or TB_ACCESS_TOKEN)" in str(error)


async def test_a_failed_reconnect_is_logged_with_the_server_and_the_advice(emulator, caplog):
    caplog.set_level(logging.WARNING, "tb_mqtt_client")
    async with make_client(emulator):
        port = emulator.port
        await emulator.stop()
        async with asyncio.timeout(10):
            while "nothing listens" not in caplog.text:  # noqa: ASYNC110  # the log has no event
                await asyncio.sleep(0.005)
    assert f"127.0.0.1:{port}: nothing listens on port {port}; check that the server is running" in caplog.text


async def test_provisioning_with_tls_on_a_port_without_tls_is_recognized():
    async with serving(closes) as port:
        request = ProvisioningRequest("127.0.0.1", AccessTokenProvisioningCredentials("KEY", "SECRET"), port, tls=True)
        with pytest.raises(OSError, match=f"127.0.0.1:{port}: port {port} does not .*TLS"):
            await DeviceClient.provision(request)


async def test_sends_before_connect_and_after_stop_have_different_errors(emulator):
    client = make_client(emulator)
    with pytest.raises(NotConnectedError, match=r"^connect\(\) or start\(\) must be called before anything is sent$"):
        await client.send_timeseries({"a": 1})
    async with client:
        pass
    with pytest.raises(NotConnectedError, match=r"^the client is stopped: connect\(\) or start\(\) must be called again"):
        await client.send_timeseries({"a": 1})
