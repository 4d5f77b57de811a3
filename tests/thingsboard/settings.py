"""Where the ThingsBoard under test is and how to log in, read from the environment."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from urllib.parse import urlsplit

# The client reads options that a program leaves out from the environment, too. None of these may leak into the clients under
# test; TB_PASSWORD, for one, is the tenant's password here and a device's MQTT password there.
_CLIENT_PREFIXES = ("TB_GW_", "TB_")


class SettingsError(Exception):
    """The environment does not say which server to test, or says it in an invalid form."""


@dataclass(frozen=True)
class Settings:
    """One server under test. `inactivity` is its sessionInactivityTimeout in seconds."""

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
        """Return the settings.

        Raises:
            SettingsError: A variable is missing or malformed; the text names it.
        """
        url = environment.get("TB_URL", "").rstrip("/")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"TB_URL must be the address of ThingsBoard's REST API, as http://localhost:8080, not {url!r}")
        mqtt_host, mqtt_port = _address(environment.get("TB_MQTT") or parts.hostname)
        return cls(
            url=url,
            mqtt_host=mqtt_host,
            mqtt_port=mqtt_port,
            user=environment.get("TB_USER") or "tenant@thingsboard.org",
            password=environment.get("TB_PASSWORD") or "tenant",
            # Set to nothing, it leaves out the tests that need it.
            sysadmin_user=environment.get("TB_SYSADMIN_USER", "sysadmin@thingsboard.org"),
            sysadmin_password=environment.get("TB_SYSADMIN_PASSWORD") or "sysadmin",
            restart_command=environment.get("TB_RESTART_COMMAND", ""),
            slow=environment.get("TB_SLOW", "") not in ("", "0"),
            inactivity=_seconds(environment, "TB_INACTIVITY", 600),
            start_timeout=_seconds(environment, "TB_START_TIMEOUT", 300),
        )

    @property
    def left_out(self) -> dict[str, str]:
        """Markers of the tests that these settings leave out, each with the reason."""
        reasons = {
            "sysadmin": (self.sysadmin_user, "tests of limits: TB_SYSADMIN_USER is set to nothing"),
            "restarts": (self.restart_command, "tests that restart the server: TB_RESTART_COMMAND is not set"),
            "slow": (self.slow, "slow tests: TB_SLOW=1 is not set"),
        }
        return {marker: reason for marker, (given, reason) in reasons.items() if not given}


def hide_from_clients(environment: MutableMapping[str, str]) -> None:
    """Remove the variables that the clients under test would take for their own options."""
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
        raise SettingsError(f"{name} must be a number of seconds above 0, not {text!r}")
    return seconds
