"""A stand-in for the platform's MQTT endpoint, for tests, demos and users' own tests.

>>> async with Emulator() as emulator:
...     emulator.add_gateway("TOKEN", name="gateway")
...     client = GatewayClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
"""

from tb_mqtt_client.emulator.hooks import OnPublish, Publish, Verdict
from tb_mqtt_client.emulator.platform import BasicCredentials, Counters, Datapoint, Device, RateLimits, SessionLimits
from tb_mqtt_client.emulator.server import Emulator

__all__ = [
    "BasicCredentials",
    "Counters",
    "Datapoint",
    "Device",
    "Emulator",
    "OnPublish",
    "Publish",
    "RateLimits",
    "SessionLimits",
    "Verdict",
]
