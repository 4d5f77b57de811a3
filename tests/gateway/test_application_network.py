"""The IoT Gateway, unmodified, connects through proxies and with certificates that it does not verify."""

import contextlib
import ssl

import pytest
import trustme
from gateway_application import has_everything

from network_peers import HttpProxy, running

QUIET = {"devices": 3, "rounds": 2}
NAME = "tb.test"
"""A name that only the proxies know, so that nothing arrives beside them."""


@pytest.fixture
def run_proxy(platform_thread):
    """Return a function that runs a proxy in the thread of the platform."""
    stack = contextlib.AsyncExitStack()

    def run_proxy(proxy):
        platform_thread.run(stack.enter_async_context(running(proxy)))
        return proxy

    yield run_proxy
    platform_thread.run(stack.aclose())


def cut(platform, application):
    """End the connection of the gateway, and wait until the connector has sent everything through the next one."""
    gateway = platform.emulator.device("gateway")
    session = gateway.session
    platform.run(platform.emulator.disconnect_device("gateway"))
    application.wait_until(lambda: gateway.session not in {None, session})


def test_an_http_proxy(platform_thread, start, run_proxy):
    """Every connection goes through the proxy, which also resolves the name of the server."""
    proxy = run_proxy(HttpProxy(names={NAME: platform_thread.host}))
    options = {"host": NAME, "proxy_host": "127.0.0.1", "proxy_port": proxy.port}
    application = start(thingsboard=options, **QUIET)
    application.wait_until(lambda: has_everything(platform_thread, application))
    cut(platform_thread, application)
    assert application.interrupt() == 0
    assert "Traceback" not in application.output
    assert proxy.asked == [f"{NAME}:{platform_thread.port}"] * 2


# TLS with a certificate that is not verified, or only in part.

AUTHORITY, UNKNOWN = trustme.CA(), trustme.CA()


def tls_of(authority, name):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return {"ssl_context": context}


OF_ADDRESS, OF_OTHER_NAME, OF_UNKNOWN = tls_of(AUTHORITY, "127.0.0.1"), tls_of(AUTHORITY, NAME), tls_of(UNKNOWN, NAME)


@pytest.mark.parametrize(
    ("platform_thread", "options", "verifies"),
    [(OF_OTHER_NAME, {"insecure": True}, True), (OF_UNKNOWN, {}, False), (OF_UNKNOWN, {"insecure": True}, False)],
    indirect=["platform_thread"],
    ids=["a certificate for another name", "an unknown authority", "an unknown authority and another name"],
)
def test_certificates_that_are_not_verified(platform_thread, start, tmp_path, options, verifies):
    """With ``insecure``, the name in the certificate does not count; without ``caCert``, nothing in it does."""
    security = {"type": "tlsAccessToken", "accessToken": "GATEWAY", "tls": True, **options}
    if verifies:
        security["caCert"] = str(tmp_path / "ca.pem")
        AUTHORITY.cert_pem.write_to_path(security["caCert"])
    application = start(thingsboard={"security": security}, **QUIET)
    application.wait_until(lambda: has_everything(platform_thread, application))
    cut(platform_thread, application)
    assert application.interrupt() == 0
    assert "Traceback" not in application.output


@pytest.mark.parametrize(
    ("platform_thread", "options"),
    [(OF_OTHER_NAME, {}), (OF_UNKNOWN, {"insecure": True})],
    indirect=["platform_thread"],
    ids=["another name", "an unknown authority"],
)
def test_a_certificate_that_is_refused(platform_thread, start, tmp_path, options):
    """The application says why it does not connect, sends nothing, and ends at Ctrl-C."""
    security = {"type": "tlsAccessToken", "accessToken": "GATEWAY", "caCert": str(tmp_path / "ca.pem"), **options}
    AUTHORITY.cert_pem.write_to_path(security["caCert"])
    application = start(thingsboard={"security": security}, **QUIET)
    application.wait_until(lambda: "certificate" in application.output)
    assert application.interrupt() == 0
    assert platform_thread.emulator.counters.connections == 0


@pytest.mark.parametrize("platform_thread", [OF_ADDRESS], indirect=True)
def test_tls_through_an_http_proxy(platform_thread, start, run_proxy, tmp_path):
    """TLS is with the server, not with the proxy."""
    proxy = run_proxy(HttpProxy())
    security = {"type": "tlsAccessToken", "accessToken": "GATEWAY", "caCert": str(tmp_path / "ca.pem")}
    AUTHORITY.cert_pem.write_to_path(security["caCert"])
    options = {"security": security, "proxy_host": "127.0.0.1", "proxy_port": proxy.port}
    application = start(thingsboard=options, **QUIET)
    application.wait_until(lambda: has_everything(platform_thread, application))
    assert application.interrupt() == 0
    assert proxy.asked == [f"{platform_thread.host}:{platform_thread.port}"]
