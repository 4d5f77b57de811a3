"""Provisioning through a real broker, without and with TLS; the log of the broker shows the packets."""

import json

import pytest
from gmqtt import Client as GmqttClient

from tb_mqtt_client import AccessTokenProvisioningCredentials, DeviceClient, ProvisioningRequest, ProvisioningResponseStatus

CREDENTIALS = AccessTokenProvisioningCredentials("key", "secret")


@pytest.fixture(params=[False, True], ids=["clear", "TLS"])
def request_to(request, mosquitto):
    if request.param:
        return ProvisioningRequest(mosquitto.host, CREDENTIALS, mosquitto.tls_port, ca_cert=str(mosquitto.certificates.ca))
    return ProvisioningRequest(mosquitto.host, CREDENTIALS, mosquitto.port)


class Platform:
    """Sends ``response`` to every provisioning request."""

    def __init__(self, broker, response):
        self._broker = broker
        self._response = json.dumps(response)
        self.requested = []
        self._client = GmqttClient("platform")

    async def __aenter__(self):
        self._client.on_message = self._on_message
        await self._client.connect(self._broker.host, self._broker.port)
        self._client.subscribe("/provision/request", qos=1)
        return self

    async def __aexit__(self, *_):
        await self._client.disconnect()

    def _on_message(self, client, _topic, payload, _qos, _properties):
        self.requested.append(json.loads(payload))
        client.publish("/provision/response", self._response, qos=1)
        return 0


async def test_the_response_of_the_platform_is_returned(mosquitto, request_to):
    async with Platform(mosquitto, {"status": "NOT_FOUND", "errorMsg": "unknown"}) as platform:
        response = await DeviceClient.provision(request_to, timeout=10)
    assert (response.status, response.error) == (ProvisioningResponseStatus.NOT_FOUND, "unknown")
    assert [requested["provisionDeviceKey"] for requested in platform.requested] == ["key"]


async def test_defect_66_provisioning_without_a_response_returns_none(mosquitto, request_to):
    assert await DeviceClient.provision(request_to, timeout=0.5) is None
    mosquitto.stop()
    packets = [line.split(": ", 1)[1] for line in mosquitto.log.splitlines() if " provision" in line and "Received " in line]
    packets = [line.split(" from provision")[0] for line in packets]
    assert packets == ["Received SUBSCRIBE", "Received PUBLISH", "Received DISCONNECT"]
