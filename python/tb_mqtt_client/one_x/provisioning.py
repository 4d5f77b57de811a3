"""Provisioning as in SDK 1.x, which returns the platform's response as it is."""

from __future__ import annotations

import asyncio
import json
import os
from functools import partial
from typing import Any, Final

from tb_mqtt_client._native import dumps
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.entities.data.provisioning_request import AccessTokenProvisioningCredentials, ProvisioningRequest
from tb_mqtt_client.one_x.constants import PROVISION_TOPIC_REQUEST, PROVISION_TOPIC_RESPONSE
from tb_mqtt_client.service.device.provisioning import ProvisioningClient
from tb_mqtt_client.service.formats.json_device import JsonDeviceFormat
from tb_mqtt_client.sync.runtime import Runtime

PROVISION_TIMEOUT: Final = 60.0
"""Seconds to wait for the response to a provisioning request."""


class _PlainFormat(JsonDeviceFormat):
    """Sends a given request, and returns the response as a dict."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__()
        self._request = request

    def build_provision_request(self, request: ProvisioningRequest) -> MqttPublishMessage:
        return MqttPublishMessage(PROVISION_TOPIC_REQUEST, dumps(self._request))

    def parse_provisioning_response(self, request: ProvisioningRequest, payload: bytes) -> Any:
        return json.loads(payload)


class _PlainClient(ProvisioningClient):
    def __init__(self, server: ProvisioningRequest, request: dict[str, Any]) -> None:
        super().__init__(server.host, server.port, server)
        self._format = _PlainFormat(request)


def provision_request(
    key: str,
    secret: str,
    device_name: str | None,
    access_token: str | None,
    client_id: str | None,
    username: str | None,
    password: str | None,
    certificate: str | None,
    gateway: bool | None,
) -> dict[str, Any]:
    """Return a provisioning request for the credentials that are given (docs/platform_contract.md, section 6)."""
    request: dict[str, Any] = {"provisionDeviceKey": key, "provisionDeviceSecret": secret}
    if access_token is not None:
        request |= {"token": access_token, "credentialsType": "ACCESS_TOKEN"}
    elif username is not None or password is not None or client_id is not None:
        parts = {"username": username, "password": password, "clientId": client_id}
        request |= {name: part for name, part in parts.items() if part is not None} | {"credentialsType": "MQTT_BASIC"}
    elif certificate is not None:
        request |= {"hash": certificate, "credentialsType": "X509_CERTIFICATE"}
    if device_name is not None:
        request["deviceName"] = device_name
    if gateway is not None:
        request["gateway"] = gateway
    return request


async def provision(host: str, port: int, request: dict[str, Any], timeout: float) -> dict[str, Any] | None:
    """Send a provisioning request, and return the platform's response; ``None`` if there is none in time.

    On port 8883, the certificate of the server is verified, with the authorities in the file that ``TB_CA_CERT`` names or those of
    the system.

    Raises:
        OSError: The server cannot be reached.
        TBMQTTError: The server refuses the request.
    """
    credentials = AccessTokenProvisioningCredentials(request["provisionDeviceKey"], request["provisionDeviceSecret"])
    server = ProvisioningRequest(host, credentials, port=port)
    if server.use_tls():
        server.ca_cert = os.environ.get("TB_CA_CERT")
    try:
        async with asyncio.timeout(timeout):
            response: Any = await _PlainClient(server, request).provision()
    except TimeoutError:
        return None
    return response if isinstance(response, dict) else None


class ProvisionClient:
    """Sends one provisioning request on a connection of its own."""

    PROVISION_REQUEST_TOPIC = PROVISION_TOPIC_REQUEST
    PROVISION_RESPONSE_TOPIC = PROVISION_TOPIC_RESPONSE

    def __init__(self, host: str, port: int, provision_request: dict[str, Any]) -> None:
        """Keep the request; nothing is sent.

        Args:
            host: The name or the address of the server.
            port: The port; 8883 uses TLS.
            provision_request: The JSON object of the request.
        """
        self._host = host
        self._port = port
        self._request = provision_request
        self._credentials: dict[str, Any] | None = None

    def provision(self, timeout: float = PROVISION_TIMEOUT) -> None:
        """Send the request, and wait for the response.

        Args:
            timeout: Seconds.

        Raises:
            OSError: The server cannot be reached.
        """
        self._credentials = Runtime.run_once(partial(provision, self._host, self._port, self._request, timeout))

    def get_credentials(self) -> dict[str, Any] | None:
        """Return the platform's response; ``None`` if there was none."""
        return self._credentials
