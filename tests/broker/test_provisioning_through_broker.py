"""Provisioning through a real broker, in clear and over TLS: the broker's log is what was said."""

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
    """Answers every request, as far as a broker between them lets it."""

    def __init__(self, broker, answer):
        self._broker = broker
        self._answer = json.dumps(answer)
        self.asked = []
        self._client = GmqttClient("platform")

    async def __aenter__(self):
        self._client.on_message = self._on_message
        await self._client.connect(self._broker.host, self._broker.port)
        self._client.subscribe("/provision/request", qos=1)
        return self

    async def __aexit__(self, *_):
        await self._client.disconnect()

    def _on_message(self, client, _topic, payload, _qos, _properties):
        self.asked.append(json.loads(payload))
        client.publish("/provision/response", self._answer, qos=1)
        return 0


async def test_an_answer(mosquitto, request_to):
    async with Platform(mosquitto, {"status": "NOT_FOUND", "errorMsg": "unknown"}) as platform:
        response = await DeviceClient.provision(request_to, timeout=10)
    assert (response.status, response.error) == (ProvisioningResponseStatus.NOT_FOUND, "unknown")
    assert [asked["provisionDeviceKey"] for asked in platform.asked] == ["key"]


async def test_defect_66_nobody_answers(mosquitto, request_to):
    assert await DeviceClient.provision(request_to, timeout=0.5) is None
    mosquitto.stop()
    said = [line.split(": ", 1)[1] for line in mosquitto.log.splitlines() if " provision" in line and "Received " in line]
    said = [line.split(" from provision")[0] for line in said]
    assert said == ["Received SUBSCRIBE", "Received PUBLISH", "Received DISCONNECT"]
