"""Options of a client.

The order of precedence, the same for every option and class: an attribute assigned later, then the dict given to the
constructor, then the environment (``TB_GW_…`` before ``TB_…`` for a gateway), then the default.
"""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.network.proxy import Proxy
from tb_mqtt_client.common.network.route import CONNECT_TIMEOUT, Route
from tb_mqtt_client.common.network.tls_context import TlsFiles
from tb_mqtt_client.common.option_hints import nearest_option
from tb_mqtt_client.common.rate_limit.rate_limit import parse_window, split_windows
from tb_mqtt_client.constants.rpc_reply import RPCReply
from tb_mqtt_client.entities.server_address import (
    LARGEST_PORT,
    MQTT_OVER_TLS_PORT,
    MQTT_PORT,
    GivenServer,
    ServerAddress,
    parse_servers,
)

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
        # float() would take True.
        number = float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
    return number


_LONGEST_KEY_PASSWORD = 1024
"""Bytes: OpenSSL's own limit."""


def _key_password(name: str, value: Any) -> str:
    # The value is never quoted: it is a secret.
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a str, not of type {type(value).__name__}")  # noqa: TRY004  # one error for all options
    try:
        usable = len(value.encode()) <= _LONGEST_KEY_PASSWORD
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise ValueError(f"{name} must be a text of at most {_LONGEST_KEY_PASSWORD} bytes in UTF-8")
    return value


def _proxy_url(name: str, value: Any) -> str | None:
    # A variable that is set and empty switches the proxy off.
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


def _seconds_or_off(name: str, value: Any) -> float:
    return 0.0 if not isinstance(value, bool) and value in (0, "0", None) else _seconds(name, value)


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


RATE_LIMIT_NAMES = ("messages", "telemetry_messages", "telemetry_datapoints")


def _rate_limits(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(f'{name} must be a dict such as {{"telemetry_messages": "100:1"}}, not {value!r}')  # noqa: TRY004  # one error for all options
    for key, text in value.items():
        if key not in RATE_LIMIT_NAMES:
            raise ValueError(f"{name} has the keys {', '.join(RATE_LIMIT_NAMES)}, not {key!r}")
        try:
            usable = text is None or all(min(parse_window(window)) > 0 for window in split_windows(text) or [text])
        except (TypeError, ValueError):
            usable = False
        if not usable:
            raise ValueError(f'{name}[{key!r}] must be windows of count:seconds such as "100:1,3000:60", not {text!r}')
    return {key: text for key, text in value.items() if text is not None}


@dataclass(frozen=True)
class _Option:
    default: Any
    convert: Callable[[str, Any], Any]
    variable: str | None = None
    """Name in the environment, without the prefix."""


_TEXT = {
    "host": _Option(None, parse_servers, "HOST"),
    **{name: _Option(None, _mqtt_string, name.upper()) for name in ("access_token", "username", "password", "client_id")},
    **{name: _Option(None, _text, name.upper()) for name in ("ca_cert", "client_cert", "private_key")},
    "private_key_password": _Option(None, _key_password, "PRIVATE_KEY_PASSWORD"),
    "proxy": _Option(None, _proxy_url, "PROXY"),
}
_LARGEST = 2**31 - 1
DEFAULT_MAX_QUEUED_BYTES = 256 * 2**20


class DeviceConfig:
    """Options of a ``DeviceClient``: attributes, keys of the dict and, for some, environment variables.

    From the environment too (``TB_HOST`` and so on): ``host``, ``port`` (1883), ``access_token``, ``username``, ``password``,
    ``client_id``, ``qos`` (1), the paths of PEM files ``ca_cert``, ``client_cert``, ``private_key``, and ``private_key_password``.

    - ``host``: a name or an address, ``host:port``, or a URL (``mqtts://host`` is TLS on port 8883); a list of these, or a text
      with commas, names several servers. The attribute is the first one's name; ``servers()`` returns all.
    - ``use_system_ca`` (``TB_TLS``): TLS with the system's certificate authorities. ``verify_hostname``: as it says.
      ``tls_strict``: whether certificates must follow RFC 5280 to the letter, on which Python 3.13 and later insist by default.
    - ``ssl_context``: an ``ssl.SSLContext``, or a function that returns one and is called in a thread for each connection, in place
      of the other TLS options.
    - ``proxy`` (``TB_PROXY``): ``http://user:password@host:3128`` or ``socks5://host:1080``; the second needs the extra ``proxy``.
    - ``connect_timeout``: seconds from the server's name to its CONNACK.
    - ``mqtt_version``: 5, or 4 for 3.1.1. ``keepalive``: seconds.
    - ``max_queued_messages``, ``max_queued_bytes``: what may wait between a call and the wire.
    - ``queue_policy``: ``"wait"``, ``"raise"``, ``"drop_oldest"`` or ``"drop_newest"`` when that is full, see ``QueuePolicy``.
    - ``max_inflight_messages``: publishes without an acknowledgement. ``ack_timeout``: seconds until a connection is given up on
      which one is missing.
    - ``reconnect_delay_min``, ``reconnect_delay_max``: seconds, the bounds of the delay before the first and any later attempt.
    - ``rate_limit_percentage`` (``TB_DEFAULT_RATE_LIMIT_PERCENTAGE``): how much of the server's limits is used.
    - ``rate_limits``: limits of your own, in addition to the server's, for all that the client publishes:
      ``{"messages": "50:1", "telemetry_messages": "100:1,3000:60", "telemetry_datapoints": "2000:1"}``. All of them is used.
    - ``round_floats`` (``TB_ROUND_FLOATS``): floats of more than 16 decimal places, which the platform would store as text, are
      rounded to 16. When it is false every float is sent in its shortest form.
    - ``limits_timeout``: seconds to wait for the server's limits; servers before 3.8 and other brokers never tell them.
    - ``backpressure_delay``: seconds for which publishing pauses when the server says that a quota was exceeded; the pause doubles,
      up to a minute, while the server acknowledges nothing.
    - ``rpc_callback_timeout``: seconds that the callback for the platform's RPC calls may take.
    - ``max_inbound_messages``: messages of the server that may wait for the callbacks of their topic; more are refused.
    - ``rpc_reply``: ``"wrapped"`` sends the result of a server-side RPC as ``{"result": value}``, ``"plain"`` as the value alone.

    Raises ``ValueError`` for unknown keys and for values that are not allowed, those of an assignment too.
    """

    _options: ClassVar[dict[str, _Option]] = {
        **_TEXT,
        "port": _Option(MQTT_PORT, _whole(1, LARGEST_PORT), "PORT"),
        "qos": _Option(1, _qos, "QOS"),
        "use_system_ca": _Option(False, _flag, "TLS"),
        "verify_hostname": _Option(True, _flag),
        "tls_strict": _Option(None, _flag),
        "ssl_context": _Option(None, _context),
        "connect_timeout": _Option(CONNECT_TIMEOUT, _seconds),
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
        "rate_limits": _Option(None, _rate_limits),
        "round_floats": _Option(True, _flag, "ROUND_FLOATS"),
        "limits_timeout": _Option(5.0, _seconds),
        "backpressure_delay": _Option(1.0, _seconds),
        "rpc_callback_timeout": _Option(60.0, _seconds),
        "max_inbound_messages": _Option(1000, _whole(1, _LARGEST)),
        "rpc_reply": _Option(RPCReply.WRAPPED, _rpc_reply),
    }
    _prefixes: ClassVar[tuple[str, ...]] = ("TB_",)

    port: int
    _servers: tuple[GivenServer, ...]
    access_token: str | None
    username: str | None
    password: str | None
    client_id: str | None
    ca_cert: str | None
    client_cert: str | None
    private_key: str | None
    private_key_password: str | None
    proxy: str | None
    qos: int
    use_system_ca: bool
    verify_hostname: bool
    tls_strict: bool | None
    ssl_context: ssl.SSLContext | Callable[[], ssl.SSLContext] | None
    connect_timeout: float
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
    rate_limits: dict[str, str] | None
    round_floats: bool
    limits_timeout: float
    backpressure_delay: float
    rpc_callback_timeout: float
    max_inbound_messages: int
    rpc_reply: RPCReply

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        if config is not None and not isinstance(config, Mapping):
            # A text is not quoted: it may be an access token.
            raise TypeError(
                f"config must be a {type(self).__name__} or a dict such as "
                f'{{"host": "tb.example.com", "access_token": "..."}}, not of type {type(config).__name__}'
            )
        given = dict(config or {})
        unknown = given.keys() - self._options.keys()
        if unknown:
            name = min(unknown, key=str)
            raise ValueError(f"Unknown option {name!r}{nearest_option(name, self._options)} Allowed are {', '.join(self._options)}")
        files = sorted({"ca_cert", "client_cert", "private_key"} & given.keys())
        if given.get("ssl_context") is not None and files:
            raise ValueError(f"ssl_context and {files[0]}: give one of them, a context of your own has its own certificates")
        sources = {}
        for name, option in self._options.items():
            value, sources[name] = self._value(name, option, given.get(name))
            if name != "host":
                # Past the conversion of assignments: an error names the variable, and a warning comes once.
                object.__setattr__(self, name, value)
            else:
                servers = value or ()
        self._take_servers(servers, sources)

    # Hidden from type checkers, which would take every name for assignable.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            option = self._options.get(name)
            if option is not None and (value is not None or option.default is not None):
                value = option.convert(name, value)
            if name == "host":
                # What is assigned later wins over all that was given before.
                self._take_servers(value or (), {})
            else:
                super().__setattr__(name, value)

    else:

        @property
        def host(self) -> str | None:
            """Name or address of the first server."""

        @host.setter
        def host(self, value: str | Sequence[str] | None) -> None: ...

    def _take_servers(self, servers: tuple[GivenServer, ...], sources: Mapping[str, float]) -> None:
        """Set host, port and TLS from what a user wrote as ``host``.

        Args:
            servers: None, one or several.
            sources: Where each option is from; the smaller number wins. An option that is missing counts as weaker than ``host``.
        """
        host_source = sources.get("host", 0)
        tls = next((server.tls for server in servers if server.tls is not None), None)
        if tls is False and self.use_tls():
            raise ValueError("host says mqtt://, which is without TLS, but the other options ask for TLS: write mqtts://")
        if tls and sources.get("use_system_ca", math.inf) <= host_source and not self.use_tls():
            raise ValueError("host says mqtts://, which is TLS, but use_system_ca is false: leave one of them out")
        port_source = sources.get("port", math.inf)
        ports = {server.port for server in servers}
        if ports and None not in ports and port_source == host_source and self.port not in ports:
            raise ValueError(f"host names the port {servers[0].port} and port is {self.port}: leave one of them out")
        if tls and not self.use_tls():
            object.__setattr__(self, "use_system_ca", True)
        if tls and (port_source == math.inf and (sources or self.port == MQTT_PORT)):
            object.__setattr__(self, "port", MQTT_OVER_TLS_PORT)
        if len(servers) == 1:
            [server] = servers
            if server.port is not None and port_source >= host_source:
                object.__setattr__(self, "port", server.port)
            servers = (GivenServer(server.host),)
        object.__setattr__(self, "_servers", servers)
        object.__setattr__(self, "host", servers[0].host if servers else None)

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """All options."""
        return tuple(cls._options)

    def _value(self, name: str, option: _Option, given: Any) -> tuple[Any, float]:
        """Return the value of an option, and a number for where it is from: the smaller one wins."""
        if given is not None:
            return option.convert(name, given), 0
        for source, prefix in enumerate(self._prefixes, start=1):
            variable = f"{prefix}{option.variable}"
            if option.variable is not None and variable in os.environ:
                return option.convert(variable, os.environ[variable]), source
        return option.default, math.inf

    def servers(self) -> tuple[ServerAddress, ...]:
        """Return all servers in the order in which they are tried."""
        return tuple(ServerAddress(server.host, server.port or self.port) for server in self._servers)

    def routes(self) -> tuple[Route, ...]:
        """Return how each server is reached. Files are read now, or the function given as ``ssl_context`` is called.

        Raises as ``make_ssl_context`` does.
        """
        context = self.make_ssl_context()
        proxy = None if self.proxy is None else Proxy.parse("proxy", self.proxy)
        return tuple(Route(server, context, proxy, self.connect_timeout, self.ca_cert) for server in self.servers())

    def use_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.use_system_ca or any(one is not None for one in (self.ssl_context, self.ca_cert, self.client_cert))

    def use_tls_auth(self) -> bool:
        """Whether the client shows a certificate to a server whose authority is given."""
        return bool(self.ca_cert and self.client_cert and self.private_key)

    def make_ssl_context(self) -> ssl.SSLContext | None:
        """Return a new context, ``None`` without TLS. With ``ssl_context`` it is that one, or what that function returns.

        ``ca_cert`` replaces the system's authorities.

        Raises:
            FileNotFoundError: A file is missing; the text names the option.
            ValueError: Only one of ``client_cert`` and ``private_key`` is set, the key is encrypted and there is no
                ``private_key_password``, or ``ssl_context`` is for servers.
            ssl.SSLError: A file is not what its option says, or the password is wrong.
            TypeError: The function does not return a context.
        """
        if not self.use_tls():
            return None
        given = self.ssl_context
        if given is None:
            files = TlsFiles(self.ca_cert, self.client_cert, self.private_key, self.private_key_password)
            return replace(files, verify_hostname=self.verify_hostname, strict=self.tls_strict).context()
        context = given if isinstance(given, ssl.SSLContext) else given()
        if not isinstance(context, ssl.SSLContext):
            raise TypeError(f"the function given as ssl_context must return an ssl.SSLContext, not {context!r}")
        if context.protocol is ssl.PROTOCOL_TLS_SERVER:
            raise ValueError("ssl_context must be for clients (ssl.PROTOCOL_TLS_CLIENT), not for servers")
        return context

    def __repr__(self) -> str:
        auth = "token" if self.access_token else "user/pass"
        return (
            f"{type(self).__name__}(host={','.join(map(str, self._servers)) or None}, port={self.port}, auth={auth} "
            f"client_id={self.client_id} tls={self.use_tls()})"
        )


class GatewayConfig(DeviceConfig):
    """Options of a ``GatewayClient``: those of ``DeviceConfig``, from ``TB_GW_HOST`` and so on before ``TB_HOST``.

    - ``combine_devices``: datapoints of several sub-devices travel in one payload.
    - ``announce_delay_min``, ``announce_delay_max``: seconds, the bounds of the delay before a sub-device is announced again that
      the platform refused for a reason that may pass. Each delay is about twice as long as the one before.
    - ``announce_attempts``, ``announce_timeout`` (seconds since the first refusal): when to give such a device up and reject its
      data. ``None``, the default of both, is never.
    - ``sub_device_keepalive``: seconds after a sub-device's last uplink until it gets a keep-alive, 0 for none. Without one the
      platform ends the session of a quiet device after 600 s, and the device gets no RPC and no attribute update.
    """

    _options: ClassVar[dict[str, _Option]] = {
        **DeviceConfig._options,
        "combine_devices": _Option(True, _flag),
        "announce_delay_min": _Option(1.0, _seconds),
        "announce_delay_max": _Option(300.0, _seconds),
        "announce_attempts": _Option(None, _whole(1, _LARGEST)),
        "announce_timeout": _Option(None, _seconds),
        "sub_device_keepalive": _Option(240.0, _seconds_or_off),
    }
    _prefixes: ClassVar[tuple[str, ...]] = ("TB_GW_", "TB_")

    combine_devices: bool
    announce_delay_min: float
    announce_delay_max: float
    announce_attempts: int | None
    announce_timeout: float | None
    sub_device_keepalive: float

    @classmethod
    def from_device_config(cls, config: DeviceConfig) -> GatewayConfig:
        """The same options for a gateway."""
        made = cls({name: getattr(config, name) for name in DeviceConfig._options if name != "host"})
        if config._servers:
            # As they were read: a port that one of them names is not in conflict with that of the others.
            object.__setattr__(made, "_servers", config._servers)
            object.__setattr__(made, "host", config.host)
        return made
