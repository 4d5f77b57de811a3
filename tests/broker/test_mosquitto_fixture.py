"""The broker fixture itself, with plain gmqtt: if this fails, failures of other tests here prove nothing about the client."""

import asyncio
import os
import socket
import ssl
from contextlib import suppress

import gmqtt
import pytest

TIMEOUT = 5


async def round_trip(port: int, host: str, context: ssl.SSLContext | bool = False) -> bytes:
    """Publish with QoS 1 to an own subscription, and return the received payload."""
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    subscribed = asyncio.Event()
    client = gmqtt.Client("fixture-check")
    client.on_subscribe = lambda *_: subscribed.set()

    def on_message(_client, _topic, payload, _qos, _properties):
        received.set_result(payload)
        return 0

    client.on_message = on_message
    async with asyncio.timeout(TIMEOUT):
        await client.connect(host, port, ssl=context)
        try:
            client.subscribe("check/#", qos=1)
            await subscribed.wait()
            client.publish("check/it", b"hello", qos=1)
            return await received
        finally:
            # Plain gmqtt passes on the error of OpenSSL when the broker's last packet crosses the client's end of TLS.
            with suppress(ssl.SSLError):
                await client.disconnect()


async def test_a_message_arrives_without_tls(mosquitto):
    assert await round_trip(mosquitto.port, mosquitto.host) == b"hello"
    assert "check/it" in mosquitto.log


async def test_a_message_arrives_over_tls(mosquitto):
    context = mosquitto.certificates.client_context()
    assert await round_trip(mosquitto.tls_port, mosquitto.host, context) == b"hello"


async def test_a_client_refuses_a_certificate_of_another_authority(mosquitto):
    with pytest.raises(ssl.SSLCertVerificationError):
        await round_trip(mosquitto.tls_port, mosquitto.host, ssl.create_default_context())


async def test_a_message_arrives_with_a_client_certificate(mosquitto):
    files = mosquitto.certificates
    context = files.client_context(cert=files.client_cert, key=files.client_key)
    assert await round_trip(mosquitto.mtls_port, mosquitto.host, context) == b"hello"


@pytest.mark.parametrize("stranger", [False, True], ids=["none", "of another authority"])
def test_the_broker_refuses_a_client_without_a_certificate_of_its_authority(mosquitto, stranger):
    files = mosquitto.certificates
    shown = {"cert": files.stranger_cert, "key": files.stranger_key} if stranger else {}
    context = files.client_context(**shown)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _expect_a_response(mosquitto, context)


def _expect_a_response(mosquitto, context):
    plain = socket.create_connection((mosquitto.host, mosquitto.mtls_port), timeout=TIMEOUT)
    with plain, context.wrap_socket(plain, server_hostname=mosquitto.host) as connection:
        # With TLS 1.3, a client notices a refusal only when it reads.
        connection.sendall(b"\x10")
        assert connection.recv(1) == b"", "the broker responded to a client without a valid certificate"
        raise ConnectionResetError


async def test_a_restart_keeps_the_ports(mosquitto):
    mosquitto.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(mosquitto.host, mosquitto.port)
    mosquitto.start()
    assert await round_trip(mosquitto.port, mosquitto.host) == b"hello"


def test_stop_leaves_no_process(mosquitto):
    pid = mosquitto.pid
    mosquitto.stop()
    assert not mosquitto.running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
