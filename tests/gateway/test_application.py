"""The official IoT Gateway, unmodified, runs on this package: everything but faults. `make gateway-test` sets GATEWAY_WHEEL."""

import json
import ssl

import pytest
import trustme
from gateway_application import STORAGES, doubled, has_everything

from tb_mqtt_client.emulator import X509Credentials

QUIET = {"devices": 3, "rounds": 1}
"""Options of the connector for tests that need no load."""


def ask(platform, device, method, params=None):
    return platform.run(platform.emulator.call_rpc(device, method, params))


def set_shared(platform, device, values):
    platform.run(platform.emulator.set_shared_attributes(device, values))


@pytest.mark.parametrize("storage", STORAGES)
def test_the_application_loses_and_doubles_nothing_and_ends(platform_thread, start, storage):
    application = start(storage=storage)
    application.wait_until(lambda: has_everything(platform_thread, application))
    device = platform_thread.emulator.device("load 3")
    assert (device.profile, device.attributes["serial"]) == ("load", "serial 3")
    assert application.interrupt() == 0
    assert "Traceback" not in application.output
    assert doubled(platform_thread, application) == 0


def test_rpc_and_attributes_pass_in_both_directions(platform_thread, start):
    application = start(**QUIET)
    application.wait_until(lambda: has_everything(platform_thread, application))
    assert ask(platform_thread, "load 1", "echo", {"x": 1}) == {"echo": {"x": 1}}
    assert ask(platform_thread, "gateway", "gateway_ping") == {"code": 200, "resp": "pong"}
    assert ask(platform_thread, "gateway", "gateway_devices")["resp"] == dict.fromkeys(application.names, "Load")
    set_shared(platform_thread, "load 1", {"limit": 5})
    application.wait_until(lambda: (1, "updated", "{'limit': 5}") in platform_thread.stored("load 1"))
    ask(platform_thread, "load 1", "request")
    application.wait_until(lambda: (1, "requested", "5") in platform_thread.stored("load 1"))
    assert application.interrupt() == 0


def test_renamed_and_deleted_devices_are_followed(platform_thread, start):
    application = start(**QUIET)
    application.wait_until(lambda: has_everything(platform_thread, application))
    platform_thread.run(platform_thread.emulator.rename_device("load 1", "renamed"))
    platform_thread.run(platform_thread.emulator.delete_device("load 2"))
    application.wait_until(lambda: "load 2" not in ask(platform_thread, "gateway", "gateway_devices")["resp"])
    assert ask(platform_thread, "renamed", "send", 5) == {"echo": 5}
    application.wait_until(lambda: (1, "sent", 5) in platform_thread.stored("renamed"))
    assert "load 1" not in platform_thread.emulator.devices
    assert application.interrupt() == 0


def server_context(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("gateway")


@pytest.mark.parametrize("platform_thread", [{"ssl_context": server_context(AUTHORITY)}], indirect=True)
@pytest.mark.parametrize("kind", ["tlsAccessToken", "tlsPrivateKey"])
def test_tls_with_a_token_or_with_a_certificate(platform_thread, start, tmp_path, kind):
    security = {"type": kind, "caCert": str(tmp_path / "ca.pem")}
    AUTHORITY.cert_pem.write_to_path(security["caCert"])
    if kind == "tlsAccessToken":
        security["accessToken"] = "GATEWAY"
        name = "gateway"
    else:
        security |= {"cert": str(tmp_path / "cert.pem"), "privateKey": str(tmp_path / "key.pem")}
        CERTIFICATE.cert_chain_pems[0].write_to_path(security["cert"])
        CERTIFICATE.private_key_pem.write_to_path(security["privateKey"])
        name = "by certificate"
        platform_thread.emulator.add_gateway(X509Credentials(CERTIFICATE.cert_chain_pems[0].bytes().decode()), name)
    application = start(thingsboard={"security": security}, **QUIET)
    application.wait_until(lambda: has_everything(platform_thread, application))
    assert platform_thread.emulator.device(name).connected
    assert application.interrupt() == 0


def test_the_gateway_provisions_itself_and_keeps_its_credentials(platform_thread, start):
    provisioning = {"type": "ACCESS_TOKEN", "provisionDeviceKey": "KEY", "provisionDeviceSecret": "SECRET", "deviceName": "new"}
    application = start(thingsboard={"security": None, "provisioning": provisioning}, **QUIET)
    application.wait_until(lambda: has_everything(platform_thread, application))
    assert platform_thread.emulator.device("new").connected
    credentials = json.loads((application.config / ".credentials").read_text())
    assert credentials["credentialsType"] == "ACCESS_TOKEN"
    assert application.interrupt() == 0


def test_the_platform_changes_the_configuration(platform_thread, start):
    """The connector is started again with other options, and then the connection with another token."""
    application = start(thingsboard={"remoteConfiguration": True}, **QUIET)
    gateway = platform_thread.emulator.device("gateway")
    application.wait_until(lambda: {"general_configuration", "Load"} <= gateway.attributes.keys())
    application.wait_until(lambda: has_everything(platform_thread, application))
    connector = gateway.attributes["Load"]
    changed = {**connector, "class": "LoadConnector", "logLevel": "INFO", "ts": connector["ts"] + 1}
    changed["configurationJson"] = {**application.load, "rounds": 2}
    set_shared(platform_thread, "gateway", {"Load": changed})
    application.load["rounds"] = 2
    application.wait_until(lambda: has_everything(platform_thread, application))

    platform_thread.emulator.add_gateway("OTHER", "other")
    general = {**gateway.attributes["general_configuration"]}
    general["security"] = {"type": "accessToken", "accessToken": "OTHER"}
    general["ts"] += 1
    set_shared(platform_thread, "gateway", {"general_configuration": general})
    application.wait_until(lambda: platform_thread.emulator.device("other").connected)
    application.wait_until(lambda: not gateway.connected)
    assert application.interrupt() == 0


def test_statistics_arrive(platform_thread, start):
    """The application sends them every 10 s at most."""
    statistics = {"enable": True, "statsSendPeriodInSeconds": 10}
    application = start(thingsboard={"statistics": statistics}, **QUIET)

    def pushed():
        return sum(value["platformMsgPushed"] for key, value in platform_thread.values("gateway") if key == "serviceStats")

    application.wait_until(lambda: pushed() >= len(application.names))
    assert {"machineStats", "serviceStats", "connectorsStats"} <= dict(platform_thread.values("gateway")).keys()
    assert application.interrupt() == 0
