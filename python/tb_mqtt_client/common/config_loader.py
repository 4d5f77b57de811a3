"""Options of a client.

The order of precedence, the same for every option and class: an attribute assigned later, then the dict given to the
constructor, then the environment (``TB_GW_…`` before ``TB_…`` for a gateway), then the default.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.constants.rpc_reply import RPCReply

logger = get_logger(__name__)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{name} must be a str, not {value!r}")  # noqa: TRY004  # one error for all options
    return os.fspath(value)


_LONGEST_MQTT_STRING = 65_535
"""Bytes: its length has 16 bits (MQTT 5, section 1.5.4)."""


def _mqtt_string(name: str, value: Any) -> str:
    # The value is never told: it may be a secret.
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a str, not of type {type(value).__name__}")  # noqa: TRY004  # one error for all options
    try:
        carried = "\0" not in value and len(value.encode()) <= _LONGEST_MQTT_STRING
    except UnicodeEncodeError:
        carried = False
    if not carried:
        raise ValueError(f"{name} must be a text that MQTT can carry: UTF-8 of at most {_LONGEST_MQTT_STRING} bytes, without a NUL")
    return value


_LONGEST_LABEL = 63
"""Between the dots of a name (RFC 1035, section 2.3.4)."""


def _host(name: str, value: Any) -> str:
    host = _text(name, value)
    try:
        # The codec of other alphabets takes milliseconds to load.
        labels = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        labels = "\0"
    *inner, last = labels.split(".")
    if "\0" in labels or not all(inner) or any(len(label) > _LONGEST_LABEL for label in (*inner, last)):
        raise ValueError(f"{name} must be a name or an address, not {value!r}")
    return host


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
        # int() would take 1883.7 and True.
        if number is None or isinstance(value, bool) or (isinstance(value, float) and value != number):
            raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
        if not low <= number <= high:
            raise ValueError(f"{name} must be from {low} to {high}, not {number}")
        return number

    return convert


def _seconds(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number of seconds, not {value!r}") from None
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
    return number


class QueuePolicy(StrEnum):
    """What a ``send_...`` call does when the queue is full."""

    WAIT = "wait"
    """It waits for room."""
    RAISE = "raise"
    """It raises ``BackpressureException``, and nothing is accepted."""
    DROP_OLDEST = "drop_oldest"
    """The calls that wait longest are answered with reason code -2 and given up."""
    DROP_NEWEST = "drop_newest"
    """It is itself answered with reason code -2 and given up."""


def _policy(name: str, value: Any) -> QueuePolicy:
    try:
        return QueuePolicy(value)
    except ValueError:
        raise ValueError(f"{name} must be one of {', '.join(QueuePolicy)}, not {value!r}") from None


def _rpc_reply(name: str, value: Any) -> RPCReply:
    try:
        return RPCReply(value)
    except ValueError:
        raise ValueError(f"{name} must be one of {', '.join(RPCReply)}, not {value!r}") from None


def _qos(name: str, value: Any) -> int:
    qos = _whole(0, 2)(name, value)
    if qos == 2:
        logger.warning("The platform has no QoS 2: %s 1 is used", name)
        return 1
    return qos


@dataclass(frozen=True)
class _Option:
    default: Any
    convert: Callable[[str, Any], Any]
    variable: str | None = None
    """Name in the environment, without the prefix."""


_TEXT = {
    "host": _Option(None, _host, "HOST"),
    **{name: _Option(None, _mqtt_string, name.upper()) for name in ("access_token", "username", "password", "client_id")},
    **{name: _Option(None, _text, name.upper()) for name in ("ca_cert", "client_cert", "private_key")},
}
_LARGEST = 2**31 - 1
DEFAULT_MAX_QUEUED_BYTES = 256 * 2**20


class DeviceConfig:
    """Options of a ``DeviceClient``: attributes, keys of the dict and, for some, environment variables.

    From the environment too (``TB_HOST`` and so on): ``host``, ``port`` (1883), ``access_token``, ``username``, ``password``,
    ``client_id``, ``qos`` (1), and the paths of PEM files ``ca_cert``, ``client_cert``, ``private_key``.

    - ``use_system_ca`` (``TB_TLS``): TLS with the system's certificate authorities. ``verify_hostname``: as it says.
    - ``mqtt_version``: 5, or 4 for 3.1.1. ``keepalive``: seconds.
    - ``max_queued_messages``, ``max_queued_bytes``: what may wait between a call and the wire.
    - ``queue_policy``: ``"wait"``, ``"raise"``, ``"drop_oldest"`` or ``"drop_newest"`` when that is full, see ``QueuePolicy``.
    - ``max_inflight_messages``: publishes without an acknowledgement. ``ack_timeout``: seconds until a connection is given up on
      which one is missing.
    - ``reconnect_delay_min``, ``reconnect_delay_max``: seconds, the bounds of the delay before the first and any later attempt.
    - ``rate_limit_percentage`` (``TB_DEFAULT_RATE_LIMIT_PERCENTAGE``): how much of the server's limits is used.
    - ``round_floats`` (``TB_ROUND_FLOATS``): floats of more than 16 decimal places, which the platform would store as text, are
      rounded to 16. When it is false every float is sent in its shortest form.
    - ``limits_timeout``: seconds to wait for the server's limits; servers before 3.8 and other brokers never tell them.
    - ``backpressure_delay``: seconds for which publishing pauses when the server says that a quota was exceeded.
    - ``rpc_callback_timeout``: seconds that the callback for the platform's RPC calls may take.
    - ``max_inbound_messages``: messages of the server that may wait for the callbacks of their topic; more are refused.
    - ``rpc_reply``: ``"wrapped"`` sends the result of a server-side RPC as ``{"result": value}``, ``"plain"`` as the value alone.

    Raises ``ValueError`` for unknown keys and for values that are not allowed, those of an assignment too.
    """

    _options: ClassVar[dict[str, _Option]] = {
        **_TEXT,
        "port": _Option(1883, _whole(1, 65535), "PORT"),
        "qos": _Option(1, _qos, "QOS"),
        "use_system_ca": _Option(False, _flag, "TLS"),
        "verify_hostname": _Option(True, _flag),
        "mqtt_version": _Option(5, _whole(4, 5)),
        "keepalive": _Option(60, _whole(1, 65535)),
        "max_queued_messages": _Option(1_000_000, _whole(1, _LARGEST)),
        "max_queued_bytes": _Option(DEFAULT_MAX_QUEUED_BYTES, _whole(1, 2**63 - 1)),
        "queue_policy": _Option(QueuePolicy.WAIT, _policy),
        # Packet ids are 16 bits, and service messages and subscriptions need some too.
        "max_inflight_messages": _Option(100, _whole(1, 65_000)),
        "ack_timeout": _Option(30.0, _seconds),
        "reconnect_delay_min": _Option(1.0, _seconds),
        "reconnect_delay_max": _Option(30.0, _seconds),
        "rate_limit_percentage": _Option(80, _whole(1, 100), "DEFAULT_RATE_LIMIT_PERCENTAGE"),
        "round_floats": _Option(True, _flag, "ROUND_FLOATS"),
        "limits_timeout": _Option(5.0, _seconds),
        "backpressure_delay": _Option(10.0, _seconds),
        "rpc_callback_timeout": _Option(60.0, _seconds),
        "max_inbound_messages": _Option(1000, _whole(1, _LARGEST)),
        "rpc_reply": _Option(RPCReply.WRAPPED, _rpc_reply),
    }
    _prefixes: ClassVar[tuple[str, ...]] = ("TB_",)

    host: str | None
    port: int
    access_token: str | None
    username: str | None
    password: str | None
    client_id: str | None
    ca_cert: str | None
    client_cert: str | None
    private_key: str | None
    qos: int
    use_system_ca: bool
    verify_hostname: bool
    mqtt_version: int
    keepalive: int
    max_queued_messages: int
    max_queued_bytes: int
    queue_policy: QueuePolicy
    max_inflight_messages: int
    ack_timeout: float
    reconnect_delay_min: float
    reconnect_delay_max: float
    rate_limit_percentage: int
    round_floats: bool
    limits_timeout: float
    backpressure_delay: float
    rpc_callback_timeout: float
    max_inbound_messages: int
    rpc_reply: RPCReply

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        given = dict(config or {})
        unknown = given.keys() - self._options.keys()
        if unknown:
            raise ValueError(f"Unknown option {sorted(unknown)[0]!r}, allowed are {', '.join(self._options)}")
        for name, option in self._options.items():
            # Past the conversion of assignments: an error names the variable, and a warning comes once.
            object.__setattr__(self, name, self._value(name, option, given.get(name)))

    # Hidden from type checkers, which would take every name for assignable.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            option = self._options.get(name)
            if option is not None and (value is not None or option.default is not None):
                value = option.convert(name, value)
            super().__setattr__(name, value)

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """All options."""
        return tuple(cls._options)

    def _value(self, name: str, option: _Option, given: Any) -> Any:
        if given is not None:
            return option.convert(name, given)
        for prefix in self._prefixes:
            variable = f"{prefix}{option.variable}"
            if option.variable is not None and variable in os.environ:
                return option.convert(variable, os.environ[variable])
        return option.default

    def use_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.use_system_ca or self.ca_cert is not None or self.client_cert is not None

    def use_tls_auth(self) -> bool:
        """Whether the client shows a certificate to a server whose authority is given."""
        return bool(self.ca_cert and self.client_cert and self.private_key)

    def ssl_context(self) -> ssl.SSLContext | None:
        """The context of the connection, ``None`` without TLS. ``ca_cert`` replaces the system's authorities.

        Raises ``FileNotFoundError`` that names the option, ``ValueError`` when only one of ``client_cert`` and ``private_key`` is
        set, and ``ssl.SSLError`` for files that are no certificates.
        """
        if not self.use_tls():
            return None
        if bool(self.client_cert) != bool(self.private_key):
            raise ValueError("client_cert and private_key must be set together")
        for name in ("ca_cert", "client_cert", "private_key"):
            path = getattr(self, name)
            if path and not Path(path).is_file():
                raise FileNotFoundError(f"{name}: there is no file {path}")
        context = ssl.create_default_context(cafile=self.ca_cert)
        context.check_hostname = self.verify_hostname
        if self.client_cert and self.private_key:
            context.load_cert_chain(self.client_cert, self.private_key)
        return context

    def __repr__(self) -> str:
        auth = "token" if self.access_token else "user/pass"
        return (
            f"{type(self).__name__}(host={self.host}, port={self.port}, auth={auth} "
            f"client_id={self.client_id} tls={self.use_tls()})"
        )


class GatewayConfig(DeviceConfig):
    """Options of a ``GatewayClient``: those of ``DeviceConfig``, from ``TB_GW_HOST`` and so on before ``TB_HOST``.

    - ``combine_devices``: datapoints of several sub-devices travel in one payload.
    - ``announce_delay_min``, ``announce_delay_max``: seconds, the bounds of the delay before a sub-device is announced again that
      the platform refused for a reason that may pass. Each delay is about twice as long as the one before.
    - ``announce_attempts``, ``announce_timeout`` (seconds since the first refusal): when to give such a device up and reject its
      data. ``None``, the default of both, is never.
    """

    _options: ClassVar[dict[str, _Option]] = {
        **DeviceConfig._options,
        "combine_devices": _Option(True, _flag),
        "announce_delay_min": _Option(1.0, _seconds),
        "announce_delay_max": _Option(300.0, _seconds),
        "announce_attempts": _Option(None, _whole(1, _LARGEST)),
        "announce_timeout": _Option(None, _seconds),
    }
    _prefixes: ClassVar[tuple[str, ...]] = ("TB_GW_", "TB_")

    combine_devices: bool
    announce_delay_min: float
    announce_delay_max: float
    announce_attempts: int | None
    announce_timeout: float | None

    @classmethod
    def from_device_config(cls, config: DeviceConfig) -> GatewayConfig:
        """The same options for a gateway."""
        return cls({name: getattr(config, name) for name in DeviceConfig._options})
