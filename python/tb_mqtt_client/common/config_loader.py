"""Options of the clients.

Of several sources the first one wins: an attribute that is assigned later, the dict passed to the constructor, the environment
(``TB_GW_...`` before ``TB_...`` for a gateway), the default.
"""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from tb_mqtt_client.common.network.proxy import Proxy
from tb_mqtt_client.common.network.route import Route
from tb_mqtt_client.common.network.tls_context import TlsFiles
from tb_mqtt_client.common.options import DEVICE_OPTIONS, GATEWAY_OPTIONS, Option, nearest_option
from tb_mqtt_client.constants.option_values import ClockMode, QueuePolicy, Replay, RPCReply, TimestampSource
from tb_mqtt_client.entities.server_address import MQTT_OVER_TLS_PORT, MQTT_PORT, GivenServer, ServerAddress
from tb_mqtt_client.entities.store import Store


class DeviceConfig:
    """Options of a ``DeviceClient``.

    Each attribute is also a key of the dict that the constructor takes. An environment variable, where one is named, sets the
    option unless the dict does.

    ``host`` (``TB_HOST``) is a name or an address, ``host:port``, or a URL (``mqtts://host`` means TLS on port 8883). A list of
    these, or a text with commas, names several servers; the attribute is then the name of the first one, and ``servers()`` returns
    all.

    Raises:
        TypeError: The argument is not a dict.
        ValueError: An option is unknown or its value is not allowed; also raised by an assignment. The text names the option.
    """

    _options: ClassVar[Mapping[str, Option]] = DEVICE_OPTIONS
    _prefixes: ClassVar[tuple[str, ...]] = ("TB_",)

    port: int
    """The port of servers whose ``host`` does not name one (``TB_PORT``)."""
    access_token: str | None
    """The device's access token (``TB_ACCESS_TOKEN``)."""
    username: str | None
    """The user name of MQTT basic credentials (``TB_USERNAME``)."""
    password: str | None
    """The password of MQTT basic credentials (``TB_PASSWORD``)."""
    client_id: str | None
    """The MQTT client id (``TB_CLIENT_ID``)."""
    ca_cert: str | None
    """Path of a PEM file with the authorities that sign the server's certificate, in place of the system's (``TB_CA_CERT``)."""
    client_cert: str | None
    """Path of a PEM file with the client's certificate (``TB_CLIENT_CERT``)."""
    private_key: str | None
    """Path of a PEM file with the private key of ``client_cert`` (``TB_PRIVATE_KEY``)."""
    private_key_password: str | None
    """The password of an encrypted ``private_key`` (``TB_PRIVATE_KEY_PASSWORD``)."""
    proxy: str | None
    """``http://user:password@host:3128`` or ``socks5://host:1080``, which needs the extra ``proxy`` (``TB_PROXY``)."""
    qos: int
    """QoS of telemetry and attributes, 0 or 1 (``TB_QOS``)."""
    use_system_ca: bool
    """Use TLS and trust the system's certificate authorities (``TB_TLS``)."""
    verify_hostname: bool
    """Require that the server's certificate is for the server's name."""
    tls_strict: bool | None
    """Require that certificates follow RFC 5280 to the letter. ``None`` is Python's default: required from Python 3.13 on."""
    ssl_context: ssl.SSLContext | Callable[[], ssl.SSLContext] | None
    """A context in place of the other TLS options, or a function that returns one and is called in a thread for each connection."""
    connect_timeout: float
    """Seconds that an attempt to connect may take, from resolving the server's name to the CONNACK."""
    connect_in_background: bool
    """Whether ``async with`` calls ``start()``, which does not wait for a connection, in place of ``connect()``
    (``TB_CONNECT_IN_BACKGROUND``)."""
    mqtt_version: int
    """5, or 4 for MQTT 3.1.1."""
    keepalive: int
    """Seconds of the MQTT keep-alive."""
    max_queued_messages: int
    """The number of messages that may be queued."""
    max_queued_bytes: int
    """Bytes of encoded data that may be queued."""
    queue_policy: QueuePolicy
    """What a ``send_...`` call does when the queue is full."""
    store: Store | None
    """Where accepted sends are kept on disk until their results are known: a path, a ``Store``, or a dict of its fields
    (``TB_STORE``, a path). ``None``: in memory only."""
    replay: Replay
    """Whether new data goes out as it comes (``"live_first"``) or behind the backlog of a store (``"in_order"``)."""
    backlog_share: float
    """With ``"live_first"``, the share of the limits that the backlog gets while new data could use everything, between 0 and 1."""
    max_inflight_messages: int
    """The number of messages that may be published and not yet acknowledged."""
    ack_timeout: float
    """Seconds without the acknowledgement of a message after which the connection is closed."""
    reconnect_delay_min: float
    """Seconds: the upper bound of the random delay before an attempt to reconnect, at the beginning of an outage. It grows with the
    length of the outage."""
    reconnect_delay_max: float
    """Seconds: the largest value of that bound."""
    rate_limit_percentage: int
    """The share of the server's rate limits that the client uses, in percent (``TB_DEFAULT_RATE_LIMIT_PERCENTAGE``)."""
    rate_limits: dict[str, str] | None
    """Limits in addition to the server's, as windows of ``count:seconds``, for example ``{"telemetry_messages": "100:1,3000:60"}``.
    The keys are ``messages``, ``telemetry_messages`` and ``telemetry_datapoints``. The client uses 100 % of them."""
    timestamps: TimestampSource
    """Whether telemetry without ``ts`` gets the time of the send (``"client"``), or is sent without a timestamp, so that the
    platform sets the time of its arrival (``"server"``) (``TB_TIMESTAMPS``)."""
    clock: ClockMode
    """What the client does while the clock of the device is not set: use it (``"trust"``), hold telemetry without ``ts`` until it
    is (``"wait"``), or also correct a ``ts`` that the program took from it (``"correct"``) (``TB_CLOCK``)."""
    clock_valid_from: datetime
    """An earlier clock is not set (``TB_CLOCK_VALID_FROM``). The default is a date before the release of this version."""
    clock_synchronized: bool
    """Whether a clock counts as set only when the kernel of a Linux device reports it as synchronized, or when the client saw it
    being set (``TB_CLOCK_SYNCHRONIZED``)."""
    round_floats: bool
    """Round floats with more than 16 decimal places, which the platform would store as text, to 16 places. If false, every float is
    sent in its shortest form (``TB_ROUND_FLOATS``)."""
    limits_timeout: float
    """Seconds to wait for the server's rate limits. ThingsBoard before 3.8 and other brokers never send them."""
    backpressure_delay: float
    """Seconds for which publishing pauses after a refusal for a quota. The pause doubles, up to 60 s, until an acknowledgement."""
    rpc_callback_timeout: float
    """Seconds that the callback for server-side RPC may take."""
    max_inbound_messages: int
    """The number of received messages of one topic that may wait for their callback. Further ones are refused."""
    rpc_reply: RPCReply
    """Send the result of a server-side RPC as ``{"result": value}`` (``"wrapped"``) or as the value alone (``"plain"``)."""

    _servers: tuple[GivenServer, ...]

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        if config is not None and not isinstance(config, Mapping):
            # The error does not quote the value, which may be an access token.
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
            raise ValueError(f"ssl_context and {files[0]} exclude each other: load the certificates into your own context")
        sources = {}
        for name, option in self._options.items():
            value, sources[name] = self._value(name, option, given.get(name))
            if name != "host":
                # `__setattr__` would convert the value again: its errors would not name the variable, and it would warn twice.
                object.__setattr__(self, name, value)
            else:
                servers = value or ()
        self._take_servers(servers, sources)

    # Hidden from type checkers, which would otherwise allow assignments to any name.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            option = self._options.get(name)
            if option is not None and (value is not None or option.default is not None):
                value = option.convert(name, value)
            if name == "host":
                # An assignment wins over all earlier values of port and TLS.
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
        """Set host, port and TLS from the servers that a user wrote as ``host``.

        Args:
            servers: The servers, which may be none.
            sources: Where each option is from; the smaller number wins. A missing option counts as weaker than ``host``.
        """
        host_source = sources.get("host", 0)
        tls = next((server.tls for server in servers if server.tls is not None), None)
        if tls is False and self.use_tls():
            raise ValueError("host says mqtt://, which is without TLS, but other options require TLS: write mqtts://")
        if tls and sources.get("use_system_ca", math.inf) <= host_source and not self.use_tls():
            raise ValueError("host says mqtts://, which is TLS, but use_system_ca is false: remove one of them")
        port_source = sources.get("port", math.inf)
        ports = {server.port for server in servers}
        if ports and None not in ports and port_source == host_source and self.port not in ports:
            raise ValueError(f"host names port {servers[0].port}, but port is {self.port}: remove one of them")
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
        """Return the names of all options."""
        return tuple(cls._options)

    def _value(self, name: str, option: Option, given: Any) -> tuple[Any, float]:
        """Return the value of an option, and a number for its source: the smaller number wins."""
        if given is not None:
            return option.convert(name, given), 0
        for source, prefix in enumerate(self._prefixes, start=1):
            variable = f"{prefix}{option.variable}"
            if option.variable is not None and variable in os.environ:
                return option.convert(variable, os.environ[variable]), source
        return option.default, math.inf

    def servers(self) -> tuple[ServerAddress, ...]:
        """Return all servers in the order in which the client tries them."""
        return tuple(ServerAddress(server.host, server.port or self.port) for server in self._servers)

    def routes(self) -> tuple[Route, ...]:
        """Return how to reach each server.

        Reads the TLS files, or calls the function given as ``ssl_context``.

        Raises:
            FileNotFoundError: As ``make_ssl_context``; so are ``ValueError``, ``ssl.SSLError`` and ``TypeError``.
        """
        context = self.make_ssl_context()
        proxy = None if self.proxy is None else Proxy.parse("proxy", self.proxy)
        return tuple(Route(server, context, proxy, self.connect_timeout, self.ca_cert) for server in self.servers())

    def use_tls(self) -> bool:
        """Return True if the connection is encrypted."""
        return self.use_system_ca or any(one is not None for one in (self.ssl_context, self.ca_cert, self.client_cert))

    def use_tls_auth(self) -> bool:
        """Return True if ``ca_cert``, ``client_cert`` and ``private_key`` are all set."""
        return bool(self.ca_cert and self.client_cert and self.private_key)

    def make_ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context for a connection.

        Returns:
            The context given as ``ssl_context``, the result of the function given as ``ssl_context``, or a new context made of the
            other options. ``None`` without TLS.

        Raises:
            FileNotFoundError: A file is missing; the text names the option.
            ValueError: Only one of ``client_cert`` and ``private_key`` is set, the key is encrypted and there is no
                ``private_key_password``, or ``ssl_context`` is for servers.
            ssl.SSLError: A file is not a valid certificate or key, they do not belong together, or the password is wrong.
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
    """Options of a ``GatewayClient``: those of ``DeviceConfig`` and those for sub-devices.

    Environment variables that begin with ``TB_GW_`` are read before those that begin with ``TB_``.
    """

    _options: ClassVar[Mapping[str, Option]] = GATEWAY_OPTIONS
    _prefixes: ClassVar[tuple[str, ...]] = ("TB_GW_", "TB_")

    combine_devices: bool
    """Send datapoints of several sub-devices in one payload."""
    announce_unknown_devices: bool
    """Accept the name of a sub-device in place of its session, and announce devices that are not known, with the profile
    "default"."""
    announce_delay_min: float
    """Seconds before the client announces a sub-device again that the platform refused for a temporary reason. The delay
    about doubles with each attempt."""
    announce_delay_max: float
    """Seconds: the largest delay between two announcements of such a sub-device."""
    announce_attempts: int | None
    """The number of announcements after which the client gives up on a sub-device and rejects its data; ``None`` for no limit."""
    announce_timeout: float | None
    """Seconds after the first refusal when the client gives up on a sub-device and rejects its data; ``None`` for no limit."""
    sub_device_keepalive: float
    """Seconds after a sub-device's last uplink until the client sends a keep-alive for it; 0 sends none. Without it the platform
    ends the session of a quiet sub-device after 600 s, and the sub-device then receives no RPC and no attribute update."""

    @classmethod
    def from_device_config(cls, config: DeviceConfig) -> GatewayConfig:
        """Return a gateway's configuration with the options of a device's configuration."""
        made = cls({name: getattr(config, name) for name in DEVICE_OPTIONS if name != "host"})
        if config._servers:
            # Copied as parsed: parsing again could find a conflict between `port` and the port of one server.
            object.__setattr__(made, "_servers", config._servers)
            object.__setattr__(made, "host", config.host)
        return made
