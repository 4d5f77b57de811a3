"""Metadata of a sub-device's telemetry, from which the platform computes latencies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TelemetryMetadata:
    """Source and time of telemetry, for ``GatewayClient.send_device_timeseries`` and ThingsBoard 3.8 and later.

    The platform does not store it with the telemetry. Once a minute it reports ``gatewayMetrics`` of the gateway: the time from
    ``received_ts`` until the telemetry was published, and from then until it arrived, for each connector
    (docs/platform_contract.md, section 4). The client adds the time of publishing when it writes the payload, so the time in its
    queue counts as the gateway's.

    Raises:
        ValueError: A field is not valid. The platform would refuse all data of the sub-device in the message.
    """

    connector: str
    """The name of the connector that received the values."""
    received_ts: int
    """When the connector received the values, in milliseconds since the epoch."""

    def __post_init__(self) -> None:
        if not isinstance(self.connector, str) or not self.connector:
            raise ValueError(f"connector must be a non-empty str, not {self.connector!r}")
        if type(self.received_ts) is not int or not 0 <= self.received_ts < 2**63:
            raise ValueError(f"received_ts must be milliseconds since the epoch as an int, not {self.received_ts!r}")
