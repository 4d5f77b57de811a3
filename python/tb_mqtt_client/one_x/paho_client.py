"""The object that SDK 1.x has as ``client._client``: as much of paho's client as programs reach through it."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote

from tb_mqtt_client.one_x.paho_names import MQTTErrorCode

PROXY_SCHEMES = {1: "socks4", 2: "socks5", 3: "http"}
"""Numbers of PySocks for the kinds of proxies."""


class Owner(Protocol):
    """The client of SDK 1.x that the object belongs to."""

    def _on_connect(
        self, client: Any, userdata: Any, connect_flags: Any, result_code: Any, properties: Any, *extra_params: Any
    ) -> None: ...
    def _on_disconnect(
        self, client: Any, userdata: Any, disconnect_flags: Any, reason: Any = None, properties: Any = None
    ) -> None: ...


class Message:
    """A received message, as paho's ``MQTTMessage``."""

    def __init__(self, topic: str, payload: bytes) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = 1
        self.retain = False
        self.mid = 0


class ConnectFlags:
    """The flags of a CONNACK. The platform keeps no sessions."""

    session_present = False


class DisconnectFlags:
    """How a connection ended."""

    def __init__(self, *, is_disconnect_packet_from_server: bool) -> None:
        self.is_disconnect_packet_from_server = is_disconnect_packet_from_server


class PahoClient:
    """Options of the connection, and the functions that are called when it is established and lost."""

    def __init__(self, owner: Owner, client_id: str, name: str) -> None:
        self._client_id = client_id.encode()
        self._name = name
        # Programs replace these. They are called with the arguments of paho's callbacks of version 2.
        self._on_connect: Callable[..., Any] = owner._on_connect
        self._on_disconnect: Callable[..., Any] = owner._on_disconnect
        self._ssl = False
        self._context: ssl.SSLContext | None = None
        self._thread: threading.Thread | None = None
        self._max_inflight_messages = 100
        self._max_queued_messages = 0
        self._out_messages: dict[int, Any] = {}
        self._in_messages: dict[int, Any] = {}
        self._out_packet: list[Any] = []
        self._out_message_mutex = threading.RLock()
        self.proxy: str | None = None
        """The URL of the proxy."""
        self.is_open: Callable[[], bool] = lambda: False

    @property
    def on_connect(self) -> Callable[..., Any]:
        """The function that is called when the server has accepted or refused the connection."""
        return self._on_connect

    @on_connect.setter
    def on_connect(self, value: Callable[..., Any]) -> None:
        self._on_connect = value

    @property
    def on_disconnect(self) -> Callable[..., Any]:
        """The function that is called when the connection is lost or closed."""
        return self._on_disconnect

    @on_disconnect.setter
    def on_disconnect(self, value: Callable[..., Any]) -> None:
        self._on_disconnect = value

    def is_connected(self) -> bool:
        """Return whether there is a session."""
        return self.is_open()

    def tls_set(
        self,
        ca_certs: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        cert_reqs: ssl.VerifyMode | None = None,
        tls_version: int | None = None,
        ciphers: str | None = None,
        keyfile_password: str | None = None,
        alpn_protocols: list[str] | None = None,
    ) -> None:
        """Use TLS 1.2 or newer from the next connection on.

        Args:
            ca_certs: Path of the authorities of the server's certificate; ``None`` for those of the system.
            certfile: Path of the client's certificate.
            keyfile: Path of its key; ``None`` if it is in ``certfile``.
            cert_reqs: ``ssl.CERT_NONE`` and ``ssl.CERT_OPTIONAL`` do not verify the server. ``None`` verifies it.
            tls_version: Not used: the newest version that both sides support is negotiated.
            ciphers: The ciphers of TLS 1.2, as OpenSSL names them.
            keyfile_password: The password of an encrypted key.
            alpn_protocols: The protocols to offer.

        Raises:
            FileNotFoundError: A file is missing.
            ssl.SSLError: A file is not a certificate or a key.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert_reqs is not None and cert_reqs != ssl.CERT_REQUIRED:
            context.check_hostname = False
            context.verify_mode = cert_reqs
        if ca_certs is not None:
            context.load_verify_locations(ca_certs)
        else:
            context.load_default_certs()
        if certfile is not None:
            context.load_cert_chain(certfile, keyfile, keyfile_password)
        if ciphers is not None:
            context.set_ciphers(ciphers)
        if alpn_protocols is not None:
            context.set_alpn_protocols(alpn_protocols)
        self.tls_set_context(context)

    def tls_set_context(self, context: ssl.SSLContext | None = None) -> None:
        """Use TLS with a context of the program; ``None`` for a default one."""
        self._ssl_context = ssl.create_default_context() if context is None else context

    def tls_insecure_set(self, value: bool) -> None:
        """Set whether the server's certificate may be for another name.

        Raises:
            ValueError: ``tls_set`` was not called before.
        """
        if self._ssl_context is None:
            raise ValueError("tls_set() must be called before tls_insecure_set()")
        self._ssl_context.check_hostname = not value and self._ssl_context.verify_mode is ssl.CERT_REQUIRED

    @property
    def _ssl_context(self) -> ssl.SSLContext | None:
        return self._context

    @_ssl_context.setter
    def _ssl_context(self, context: ssl.SSLContext | None) -> None:
        # The IoT Gateway passes the context of one client to the next one, and expects TLS there.
        self._context = context
        self._ssl = context is not None

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """The context to connect with; ``None`` without TLS, which a program may also turn off with ``_ssl = False``."""
        return self._context if self._ssl else None

    def proxy_set(self, **proxy_args: Any) -> None:
        """Connect through a proxy from the next connection on.

        Args:
            **proxy_args: ``proxy_type`` (the numbers of PySocks: 1 for SOCKS 4, 2 for SOCKS 5, 3 for HTTP), ``proxy_addr``,
                ``proxy_port``, ``proxy_username``, ``proxy_password``. SOCKS needs the extra ``proxy``.

        Raises:
            ValueError: The kind of proxy is unknown.
        """
        kind = PROXY_SCHEMES.get(proxy_args.get("proxy_type", 0))
        if kind is None or not proxy_args.get("proxy_addr"):
            raise ValueError(f"proxy_type must be one of {', '.join(map(str, PROXY_SCHEMES))}, and proxy_addr a host name")
        user, password = proxy_args.get("proxy_username"), proxy_args.get("proxy_password")
        credentials = "" if user is None else f"{quote(user, '')}:{quote(password or '', '')}@"
        port = proxy_args.get("proxy_port") or (8080 if kind == "http" else 1080)
        self.proxy = f"{kind}://{credentials}{proxy_args['proxy_addr']}:{port}"

    def enable_logger(self, logger: logging.Logger | None = None) -> None:
        """Do nothing: the client logs through ``logging`` always."""

    def disable_logger(self) -> None:
        """Do nothing, see ``enable_logger``."""

    def loop_start(self) -> MQTTErrorCode:
        """Do nothing: the client has its own thread."""
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def loop_stop(self) -> MQTTErrorCode:
        """Forget the thread. The connection is closed by ``disconnect`` of the client."""
        self._thread = None
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def __repr__(self) -> str:
        return f"<MQTT client of {self._name}>"
