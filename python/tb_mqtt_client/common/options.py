"""The options of the clients: defaults, environment variables, and how each value is checked and converted."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Final, TypeVar

from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.network.proxy import Proxy
from tb_mqtt_client.common.network.route import CONNECT_TIMEOUT
from tb_mqtt_client.common.rate_limit.rate_limit import parse_window, split_windows
from tb_mqtt_client.constants.option_values import ClockMode, QueuePolicy, Replay, RPCReply, TimestampSource
from tb_mqtt_client.entities.server_address import LARGEST_PORT, MQTT_PORT, parse_servers
from tb_mqtt_client.entities.store import Store

logger: ExtendedLogger = get_logger(__name__)

DEFAULT_MAX_QUEUED_BYTES: Final = 256 * 2**20
RELEASED: Final = datetime(2026, 11, 1, tzinfo=UTC)
"""No device runs this version earlier, so a clock that says so is not set. Move it with each release."""
RATE_LIMIT_NAMES: Final = ("messages", "telemetry_messages", "telemetry_datapoints")
"""Keys of the option ``rate_limits``."""

_LARGEST_INT32 = 2**31 - 1
_LARGEST_INT64 = 2**63 - 1
_LONGEST_MQTT_STRING = 65_535
"""Bytes: the length of a string is a 16-bit number (MQTT 5, section 1.5.4)."""
_LONGEST_KEY_PASSWORD = 1024
"""Bytes: a limit of OpenSSL."""


@dataclass(frozen=True)
class Option:
    """An option of a client."""

    default: Any
    convert: Callable[[str, Any], Any]
    """Converts a value, or raises ``ValueError`` with the name of the option or variable, which is its first argument."""
    variable: str | None = None
    """The environment variable without its prefix (``TB_`` or ``TB_GW_``); ``None`` if there is none."""


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{name} must be a str, not {value!r}")  # noqa: TRY004  # one error for all options
    return os.fspath(value)


def _mqtt_string(name: str, value: Any) -> str:
    # The error does not quote the value, which may be a secret.
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a str, not of type {type(value).__name__}")  # noqa: TRY004  # one error for all options
    try:
        valid = "\0" not in value and len(value.encode()) <= _LONGEST_MQTT_STRING
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise ValueError(f"{name} must be at most {_LONGEST_MQTT_STRING} bytes of UTF-8 without NUL characters, as MQTT requires")
    return value


def _key_password(name: str, value: Any) -> str:
    # The error does not quote the value, which is a secret.
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a str, not of type {type(value).__name__}")  # noqa: TRY004  # one error for all options
    try:
        valid = len(value.encode()) <= _LONGEST_KEY_PASSWORD
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise ValueError(f"{name} must be at most {_LONGEST_KEY_PASSWORD} bytes of UTF-8")
    return value


def _flag(name: str, value: Any) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise ValueError(f"{name} must be true or false, not {value!r}")


def _whole(low: int, high: int) -> Callable[[str, Any], int]:
    def convert(name: str, value: Any) -> int:
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        # int() accepts 1883.7 and True.
        if number is None or isinstance(value, bool) or (isinstance(value, float) and value != number):
            raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
        if not low <= number <= high:
            raise ValueError(f"{name} must be from {low} to {high}, not {number}")
        return number

    return convert


def _seconds(name: str, value: Any) -> float:
    try:
        # float() accepts True.
        number = float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
    return number


def _seconds_or_off(name: str, value: Any) -> float:
    return 0.0 if not isinstance(value, bool) and value in (0, "0", None) else _seconds(name, value)


def _proxy_url(name: str, value: Any) -> str | None:
    # An environment variable that is set to an empty text turns the proxy off.
    if value == "":
        return None
    Proxy.parse(name, value)
    url: str = value
    return url


def _context(name: str, value: Any) -> ssl.SSLContext | Callable[[], ssl.SSLContext]:
    if not isinstance(value, ssl.SSLContext) and not callable(value):
        text = f"{name} must be an ssl.SSLContext or a function that returns one, not {value!r}"
        raise ValueError(text)  # noqa: TRY004  # one error for all options
    given: ssl.SSLContext | Callable[[], ssl.SSLContext] = value
    return given


C = TypeVar("C", bound=StrEnum)


def _choice(kind: type[C]) -> Callable[[str, Any], C]:
    def convert(name: str, value: Any) -> C:
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"{name} must be one of {', '.join(kind)}, not {value!r}") from None

    return convert


def _share(name: str, value: Any) -> float:
    try:
        # float() accepts True.
        share = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError):
        share = 0.0
    if not 0 < share < 1:
        raise ValueError(f"{name} must be a number between 0 and 1, not {value!r}")
    return share


def _moment(name: str, value: Any) -> datetime:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise ValueError(f'{name} must be a datetime with a timezone, or ISO 8601 such as "2026-01-31T00:00:00Z", not {value!r}')
    return moment


def _qos(name: str, value: Any) -> int:
    qos = _whole(0, 2)(name, value)
    if qos == 2:
        logger.warning("%s is 2, which ThingsBoard does not support; using 1 instead", name)
        return 1
    return qos


def _rate_limits(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(f'{name} must be a dict such as {{"telemetry_messages": "100:1"}}, not {value!r}')  # noqa: TRY004  # one error for all options
    for key, text in value.items():
        if key not in RATE_LIMIT_NAMES:
            raise ValueError(f"the keys of {name} must be among {', '.join(RATE_LIMIT_NAMES)}, not {key!r}")
        try:
            valid = text is None or all(min(parse_window(window)) > 0 for window in split_windows(text) or [text])
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise ValueError(f'{name}[{key!r}] must be windows of count:seconds such as "100:1,3000:60", not {text!r}')
    return {key: text for key, text in value.items() if text is not None}


DEVICE_OPTIONS: Final[Mapping[str, Option]] = {
    "host": Option(None, parse_servers, "HOST"),
    **{name: Option(None, _mqtt_string, name.upper()) for name in ("access_token", "username", "password", "client_id")},
    **{name: Option(None, _text, name.upper()) for name in ("ca_cert", "client_cert", "private_key")},
    "private_key_password": Option(None, _key_password, "PRIVATE_KEY_PASSWORD"),
    "proxy": Option(None, _proxy_url, "PROXY"),
    "port": Option(MQTT_PORT, _whole(1, LARGEST_PORT), "PORT"),
    "qos": Option(1, _qos, "QOS"),
    "use_system_ca": Option(False, _flag, "TLS"),
    "verify_hostname": Option(True, _flag),
    "tls_strict": Option(None, _flag),
    "ssl_context": Option(None, _context),
    "connect_timeout": Option(CONNECT_TIMEOUT, _seconds),
    "connect_in_background": Option(False, _flag, "CONNECT_IN_BACKGROUND"),
    "mqtt_version": Option(5, _whole(4, 5)),
    "keepalive": Option(60, _whole(1, 65535)),
    "max_queued_messages": Option(1_000_000, _whole(1, _LARGEST_INT32)),
    "max_queued_bytes": Option(DEFAULT_MAX_QUEUED_BYTES, _whole(1, _LARGEST_INT64)),
    "queue_policy": Option(QueuePolicy.WAIT, _choice(QueuePolicy)),
    "store": Option(None, Store.of, "STORE"),
    "replay": Option(Replay.LIVE_FIRST, _choice(Replay)),
    "backlog_share": Option(0.5, _share),
    # There are 65,535 packet ids, and service messages and subscriptions need some too.
    "max_inflight_messages": Option(100, _whole(1, 65_000)),
    "ack_timeout": Option(30.0, _seconds),
    "reconnect_delay_min": Option(1.0, _seconds),
    "reconnect_delay_max": Option(30.0, _seconds),
    "rate_limit_percentage": Option(80, _whole(1, 100), "DEFAULT_RATE_LIMIT_PERCENTAGE"),
    "rate_limits": Option(None, _rate_limits),
    "timestamps": Option(TimestampSource.CLIENT, _choice(TimestampSource), "TIMESTAMPS"),
    "clock": Option(ClockMode.TRUST, _choice(ClockMode), "CLOCK"),
    "clock_valid_from": Option(RELEASED, _moment, "CLOCK_VALID_FROM"),
    "clock_synchronized": Option(True, _flag, "CLOCK_SYNCHRONIZED"),
    "round_floats": Option(True, _flag, "ROUND_FLOATS"),
    "limits_timeout": Option(5.0, _seconds),
    "backpressure_delay": Option(1.0, _seconds),
    "rpc_callback_timeout": Option(60.0, _seconds),
    "max_inbound_messages": Option(1000, _whole(1, _LARGEST_INT32)),
    "rpc_reply": Option(RPCReply.WRAPPED, _choice(RPCReply)),
}
"""The options of ``DeviceConfig`` by name."""

GATEWAY_OPTIONS: Final[Mapping[str, Option]] = {
    **DEVICE_OPTIONS,
    "combine_devices": Option(True, _flag),
    "announce_unknown_devices": Option(False, _flag),
    "announce_delay_min": Option(1.0, _seconds),
    "announce_delay_max": Option(300.0, _seconds),
    "announce_attempts": Option(None, _whole(1, _LARGEST_INT32)),
    "announce_timeout": Option(None, _seconds),
    "sub_device_keepalive": Option(240.0, _seconds_or_off),
}
"""The options of ``GatewayConfig`` by name."""

_OTHER_NAMES = {
    "ca": "ca_cert",
    "cafile": "ca_cert",
    "cert": "client_cert",
    "certfile": "client_cert",
    "clientid": "client_id",
    "hostname": "host",
    "key": "private_key",
    "keyfile": "private_key",
    "server": "host",
    "ssl": "use_system_ca",
    "timeout": "connect_timeout",
    "tls": "use_system_ca",
    "token": "access_token",
    "url": "host",
    "user": "username",
}
"""Names that other libraries use for an option."""


def nearest_option(name: Any, options: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown option: ``", did you mean 'port'?"``, or a full stop without a guess.

    Args:
        name: The unknown name.
        options: The known names.
    """
    known = _OTHER_NAMES | {option: option for option in options}
    near = get_close_matches(str(name).lower(), known, n=1)
    return f", did you mean {known[near[0]]!r}?" if near else "."
