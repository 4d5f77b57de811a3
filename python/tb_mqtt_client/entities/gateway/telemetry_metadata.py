"""Where a sub-device's telemetry came from, and when: the platform makes statistics of latencies from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TelemetryMetadata:
    """For ``GatewayClient.send_device_timeseries``, and for platforms of 3.8 and later (docs/platform_contract.md, section 4).

    The platform removes it from the telemetry, and reports ``gatewayMetrics`` of the gateway once a minute: by connector, how long
    telemetry took from ``received_ts`` until it was published, and from there to the platform.

    ``connector``: a name. ``received_ts``: when the connector received the values, in milliseconds since the epoch. When they are
    published is filled in by the client when it writes the payload: the time in its queue counts as the gateway's. Raises
    ``ValueError`` for anything else, since the platform refuses the whole device's part of a message for that.
    """

    connector: str
    received_ts: int

    def __post_init__(self) -> None:
        if not isinstance(self.connector, str) or not self.connector:
            raise ValueError(f"connector must be a non-empty str, not {self.connector!r}")
        if type(self.received_ts) is not int or not 0 <= self.received_ts < 2**63:
            raise ValueError(f"received_ts must be milliseconds since the epoch as an int, not {self.received_ts!r}")
