"""The three limits that the platform has for one kind of traffic."""

from dataclasses import dataclass

from tb_mqtt_client.common.rate_limit.rate_limit import RateLimit


@dataclass
class RateLimiter:
    """Telemetry and attributes take from the last two, everything else from the first (platform_contract.md, fact 3)."""

    message_rate_limit: RateLimit
    telemetry_message_rate_limit: RateLimit
    telemetry_datapoints_rate_limit: RateLimit

    def values(self) -> list[RateLimit]:
        """All three."""
        return [self.message_rate_limit, self.telemetry_message_rate_limit, self.telemetry_datapoints_rate_limit]


def unlimited(name: str) -> RateLimiter:
    """Limits that admit everything, until the server tells its own. ``name``: whose they are, for the log."""
    return RateLimiter(
        RateLimit("", f"{name} messages"),
        RateLimit("", f"{name} telemetry messages"),
        RateLimit("", f"{name} telemetry datapoints"),
    )
