"""An emulator of ThingsBoard's MQTT endpoint, for tests and demos.

>>> async with Emulator() as emulator:
...     emulator.add_gateway("TOKEN", name="gateway")
...     client = GatewayClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
"""

from tb_mqtt_client.emulator.devices import Carrier, Claim, Counters, Datapoint, Device, RpcResponse
from tb_mqtt_client.emulator.hooks import (
    ClientRpcError,
    ConnectAttempt,
    ConnectVerdict,
    OnClientRpc,
    OnConnect,
    OnEvent,
    OnPublish,
    OnSend,
    Publish,
    Sending,
    SendVerdict,
    Verdict,
)
from tb_mqtt_client.emulator.limits import OverLimit, RateLimits, SessionLimits
from tb_mqtt_client.emulator.ota import OtaPackage
from tb_mqtt_client.emulator.platform import VERSIONS
from tb_mqtt_client.emulator.registry import BasicCredentials, X509Credentials
from tb_mqtt_client.emulator.server import Emulator
from tb_mqtt_client.emulator.values import StoredDatapoint, StoredValue, ValueKind

__all__ = [
    "VERSIONS",
    "BasicCredentials",
    "Carrier",
    "Claim",
    "ClientRpcError",
    "ConnectAttempt",
    "ConnectVerdict",
    "Counters",
    "Datapoint",
    "Device",
    "Emulator",
    "OnClientRpc",
    "OnConnect",
    "OnEvent",
    "OnPublish",
    "OnSend",
    "OtaPackage",
    "OverLimit",
    "Publish",
    "RateLimits",
    "RpcResponse",
    "SendVerdict",
    "Sending",
    "SessionLimits",
    "StoredDatapoint",
    "StoredValue",
    "ValueKind",
    "Verdict",
    "X509Credentials",
]
