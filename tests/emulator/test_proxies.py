"""Clients connect through an HTTP or a SOCKS proxy; the password of the proxy is not in any text."""

import asyncio
import importlib.util
import logging
import socket
import ssl
import sys

import pytest
import trustme
from device_peer import make_client

from network_peers import HttpProxy, SocksProxy, resolve_as, running, serving
from tb_mqtt_client import DeviceClient, DeviceConfig
from tb_mqtt_client.common.exceptions import ProxyRefusedError, TBMQTTError
from tb_mqtt_client.emulator import Emulator
from tb_mqtt_client.entities.data.provisioning_request import AccessTokenProvisioningCredentials, ProvisioningRequest

SOCKS = pytest.mark.skipif(importlib.util.find_spec("python_socks") is None, reason="the extra proxy is not installed")
KINDS = pytest.mark.parametrize(
    ("scheme", "kind"),
    [("http", HttpProxy), pytest.param("socks5", SocksProxy, marks=SOCKS), pytest.param("socks5h", SocksProxy, marks=SOCKS)],
)


@KINDS
@pytest.mark.parametrize("credentials", [None, "user:hun:ter/2@"])
async def test_data_arrives_through_a_proxy(emulator, scheme, kind, credentials):
    before = "" if credentials is None else "user:hun%3Ater%2F2%40@"
    async with running(kind(credentials)) as proxy:
        client = make_client(emulator, proxy=f"{scheme}://{before}127.0.0.1:{proxy.port}")
        async with client:
            assert (await client.send_timeseries({"a": 1})).is_successful()
            await emulator.disconnect_device("TOKEN", 0x8B)
            assert (await client.send_timeseries({"a": 2})).is_successful()
            assert client.statistics.connections == 2
    assert proxy.asked == [f"{emulator.host}:{emulator.port}"] * 2


@KINDS
async def test_the_proxy_resolves_the_name_and_tls_is_with_the_server(scheme, kind, monkeypatch, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("tb.test").configure_cert(context)
    async with Emulator(ssl_context=context) as emulator, running(kind(names={"tb.test": emulator.host})) as proxy:
        emulator.add_device("TOKEN", "device")
        options = {"ca_cert": tmp_path / "ca.pem", "proxy": f"{scheme}://127.0.0.1:{proxy.port}"}
        async with make_client(emulator, host="tb.test", **options) as client:
            assert (await client.send_timeseries({"a": 1})).is_successful()
    assert proxy.asked == [f"tb.test:{emulator.port}"]


async def raised_by_connect(options):
    client = DeviceClient(options)
    with pytest.raises(OSError) as raised:  # noqa: PT011  # each test looks at class and text
        await client.connect()
    await client.stop(0)
    assert "hunter2" not in f"{raised.value!r} {raised.value}"
    return raised.value


@KINDS
async def test_wrong_credentials_for_a_proxy_raise(scheme, kind, caplog):
    caplog.set_level(logging.DEBUG)
    async with running(kind("user:secret")) as proxy:
        url = f"{scheme}://user:hunter2@127.0.0.1:{proxy.port}"
        error = await raised_by_connect({"host": "127.0.0.1", "proxy": url})
    assert isinstance(error, ProxyRefusedError)
    assert isinstance(error, TBMQTTError)
    assert f"127.0.0.1:1883 through {scheme}://127.0.0.1:{proxy.port}: the proxy" in str(error)
    assert "hunter2" not in caplog.text
    if scheme == "http":
        assert error.reply_code == 407
        assert "set its user name and password: proxy is http://user:password@host:port" in str(error)


@KINDS
async def test_the_refusal_of_a_proxy_to_connect_raises(scheme, kind):
    async with running(kind()) as proxy:
        error = await raised_by_connect({"host": "127.0.0.1", "port": 9, "proxy": f"{scheme}://127.0.0.1:{proxy.port}"})
    assert isinstance(error, ProxyRefusedError)
    assert "refused to connect" in str(error)
    assert "that the proxy allows connections to this server and port" in str(error)
    assert error.reply_code == (403 if scheme == "http" else 2)


@pytest.mark.parametrize("scheme", ["http", pytest.param("socks5", marks=SOCKS)])
async def test_a_closed_port_of_a_proxy_raises(scheme):
    error = await raised_by_connect({"host": "tb.test", "proxy": f"{scheme}://user:hunter2@127.0.0.1:1"})
    assert f"tb.test:1883 through {scheme}://127.0.0.1:1: the proxy {scheme}://127.0.0.1:1 cannot be reached" in str(error)
    assert error.errno == ConnectionRefusedError(111, "").errno


async def test_an_unknown_host_name_of_a_proxy_raises(monkeypatch):
    resolve_as(monkeypatch, {})
    error = await raised_by_connect({"host": "tb.test", "proxy": "http://proxy.invalid"})
    assert isinstance(error, socket.gaierror)
    assert "the name of the proxy http://proxy.invalid:3128 cannot be resolved" in str(error)


async def is_silent(reader, _writer):
    await reader.read()


async def is_not_a_proxy(_reader, writer):
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    writer.close()


async def has_no_end(_reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000)
    await writer.drain()


@pytest.mark.parametrize("scheme", ["http", pytest.param("socks5", marks=SOCKS)])
async def test_a_silent_proxy_leads_to_a_timeout(scheme):
    async with serving(is_silent) as port:
        options = {"host": "tb.test", "proxy": f"{scheme}://127.0.0.1:{port}", "connect_timeout": 0.2}
        error = await raised_by_connect(options)
    assert isinstance(error, TimeoutError)
    assert "the proxy did not connect within 0.2 s" in str(error)


@pytest.mark.parametrize("serve", [is_not_a_proxy, has_no_end])
@pytest.mark.parametrize("scheme", ["http", pytest.param("socks5", marks=SOCKS)])
async def test_a_server_that_is_not_a_proxy_raises(scheme, serve):
    async with serving(serve) as port:
        error = await raised_by_connect({"host": "tb.test", "proxy": f"{scheme}://127.0.0.1:{port}"})
    assert isinstance(error, ProxyRefusedError)


async def test_provisioning_works_through_a_proxy(emulator):
    emulator.add_provision_profile("KEY", "SECRET")
    async with running(HttpProxy()) as proxy:
        request = ProvisioningRequest(
            emulator.host,
            AccessTokenProvisioningCredentials("KEY", "SECRET"),
            emulator.port,
            proxy=f"http://127.0.0.1:{proxy.port}",
        )
        response = await DeviceClient.provision(request)
        async with DeviceClient(response.result) as client:
            assert (await client.send_timeseries({"a": 1})).is_successful()
    assert proxy.asked == [f"{emulator.host}:{emulator.port}"] * 2


async def test_a_socks_proxy_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "python_socks", None)
    client = DeviceClient({"host": "tb.test", "proxy": "socks5://127.0.0.1:1"})
    with pytest.raises(ModuleNotFoundError, match=r"needs the package python-socks: pip install python-socks"):
        await client.connect()
    await client.stop()


@pytest.mark.parametrize(
    "url",
    [
        "proxy.test:3128",
        "ftp://h:1",
        "http://",
        "http://h:0x50",
        "http://h:99999",
        "http://h/path",
        "http://h?q",
        5,
        "socks4://h",
        "https://h",
    ],
)
def test_an_invalid_url_of_a_proxy_is_refused(url):
    with pytest.raises(ValueError, match="proxy must"):
        DeviceConfig({"proxy": url})


@pytest.mark.parametrize(
    "url", ["htp://user:hunter2@h:1", "user:hunter2@h", "http://user:hunter2@h:port", "https://user:hunter2@h"]
)
def test_an_invalid_url_of_a_proxy_is_not_quoted(url, monkeypatch):
    with pytest.raises(ValueError, match="proxy must") as raised:
        DeviceConfig({"proxy": url})
    assert "hunter2" not in str(raised.value)
    monkeypatch.setenv("TB_PROXY", url)
    with pytest.raises(ValueError, match="TB_PROXY must") as raised:
        DeviceConfig()
    assert "hunter2" not in str(raised.value)


def test_no_repr_shows_the_password_of_a_proxy():
    config = DeviceConfig({"host": "h", "proxy": "http://user:hunter2@proxy.test:3128"})
    [route] = config.routes()
    assert str(route.proxy) == "http://proxy.test:3128"
    assert "hunter2" not in f"{config!r} {route!r} {route} {route.proxy!r}"


def test_an_empty_option_or_variable_switches_the_proxy_off(monkeypatch):
    monkeypatch.setenv("TB_PROXY", "http://environment")
    assert DeviceConfig().proxy == "http://environment"
    assert DeviceConfig({"proxy": "http://given"}).proxy == "http://given"
    assert DeviceConfig({"proxy": ""}).proxy is None
    monkeypatch.setenv("TB_PROXY", "")
    assert DeviceConfig().proxy is None


async def test_a_cancelled_connect_leaves_no_connection_to_the_proxy():
    closed = asyncio.Event()

    async def serve(reader, _writer):
        await reader.read()
        closed.set()

    async with serving(serve) as port:
        client = DeviceClient({"host": "tb.test", "proxy": f"http://127.0.0.1:{port}"})
        connecting = asyncio.ensure_future(client.connect())
        await asyncio.sleep(0.05)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        async with asyncio.timeout(10):
            await closed.wait()
        await client.stop()
