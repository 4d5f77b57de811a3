"""Address and login of the ThingsBoard under test, read from the environment."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from urllib.parse import urlsplit

# Clients read options that a program leaves out from the environment. The variables of the tests must not become options of the
# clients under test: TB_PASSWORD is the tenant's password here, but a device's MQTT password for a client.
_CLIENT_PREFIXES = ("TB_GW_", "TB_")


class SettingsError(Exception):
    """An environment variable for the server under test is missing or invalid."""


@dataclass(frozen=True)
class Settings:
    """The settings of a server under test. `inactivity` is its sessionInactivityTimeout in seconds."""

    url: str
    mqtt_host: str
    mqtt_port: int
    user: str
    password: str
    sysadmin_user: str
    sysadmin_password: str
    restart_command: str
    slow: bool
    inactivity: float
    start_timeout: float

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: A variable is missing or invalid; the message names it.
        """
        url = environment.get("TB_URL", "").rstrip("/")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"TB_URL must be the address of ThingsBoard's REST API, such as http://localhost:8080, not {url!r}")
        mqtt_host, mqtt_port = _address(environment.get("TB_MQTT") or parts.hostname)
        return cls(
            url=url,
            mqtt_host=mqtt_host,
            mqtt_port=mqtt_port,
            user=environment.get("TB_USER") or "tenant@thingsboard.org",
            password=environment.get("TB_PASSWORD") or "tenant",
            # Tests that need the system administrator are skipped if it is empty.
            sysadmin_user=environment.get("TB_SYSADMIN_USER", "sysadmin@thingsboard.org"),
            sysadmin_password=environment.get("TB_SYSADMIN_PASSWORD") or "sysadmin",
            restart_command=environment.get("TB_RESTART_COMMAND", ""),
            slow=environment.get("TB_SLOW", "") not in ("", "0"),
            inactivity=_seconds(environment, "TB_INACTIVITY", 600),
            start_timeout=_seconds(environment, "TB_START_TIMEOUT", 300),
        )

    @property
    def left_out(self) -> dict[str, str]:
        """Return the markers of skipped tests, each with the reason."""
        reasons = {
            "sysadmin": (self.sysadmin_user, "tests of limits: TB_SYSADMIN_USER is empty"),
            "restarts": (self.restart_command, "tests that restart the server: TB_RESTART_COMMAND is not set"),
            "slow": (self.slow, "slow tests: TB_SLOW=1 is not set"),
        }
        return {marker: reason for marker, (given, reason) in reasons.items() if not given}


def hide_from_clients(environment: MutableMapping[str, str]) -> None:
    """Remove the variables that the clients under test would read as options."""
    for name in [name for name in environment if name.startswith(_CLIENT_PREFIXES)]:
        del environment[name]


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError(f"TB_MQTT must be host:port, not {text!r}: {error}") from error
    if not host or parts.path or parts.username:
        raise SettingsError(f"TB_MQTT must be host:port, not {text!r}")
    return host, port or 1883


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise SettingsError(f"{name} must be a positive number of seconds, not {text!r}")
    return seconds
