"""The three limits that the platform has for one kind of traffic."""

from collections.abc import Mapping
from dataclasses import dataclass

from tb_mqtt_client.common.rate_limit.rate_limit import RateLimit


@dataclass
class RateLimiter:
    """The three limits of one kind of traffic.

    Messages with telemetry or attributes take tokens of the last two limits, all other messages of the first one
    (docs/platform_contract.md, fact 3).
    """

    message_rate_limit: RateLimit
    telemetry_message_rate_limit: RateLimit
    telemetry_datapoints_rate_limit: RateLimit

    def values(self) -> list[RateLimit]:
        """Return the three limits."""
        return [self.message_rate_limit, self.telemetry_message_rate_limit, self.telemetry_datapoints_rate_limit]


def unlimited(name: str) -> RateLimiter:
    """Return limits without a window, which the server's announced limits replace.

    Args:
        name: The name of the traffic for the log, such as "gateway".
    """
    return RateLimiter(
        RateLimit("", f"{name} messages"),
        RateLimit("", f"{name} telemetry messages"),
        RateLimit("", f"{name} telemetry datapoints"),
    )


def own_limits(texts: Mapping[str, str]) -> RateLimiter:
    """Return the limits that the user configured. They are used in full, because they count only messages of this client.

    Args:
        texts: ``"100:1,3000:60"`` by ``messages``, ``telemetry_messages`` and
            ``telemetry_datapoints``; a missing one does not limit.
    """
    names = "messages", "telemetry_messages", "telemetry_datapoints"
    limits = [RateLimit(texts.get(name), f"your own limit of {name}", percentage=100) for name in names]
    return RateLimiter(*limits)
