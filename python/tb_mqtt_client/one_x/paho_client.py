"""The object that SDK 1.x has as ``client._client``: as much of paho's client as programs reach through it."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol
from urllib.parse import quote

from tb_mqtt_client.one_x.paho_names import MQTTErrorCode
from tb_mqtt_client.one_x.paho_topics import MessageCallback, Topics, topics_of

PROXY_SCHEMES = {1: "socks4", 2: "socks5", 3: "http"}
"""Numbers of PySocks for the kinds of proxies."""


NEVER_CALLED = {
    "on_publish": "get() and is_published() of the result of a send tell whether it is acknowledged",
    "on_subscribe": "subscribe() returns when the server has accepted the subscription",
    "on_unsubscribe": "unsubscribe() returns when the request is sent",
    "on_log": "the client logs through logging; set the level of the logger tb_mqtt_client",
    "on_connect_fail": "the function that connect() of the client is given is called at each refusal",
}
"""Callbacks of paho that nothing would call, and what to do."""


class Owner(Protocol):
    """The client of SDK 1.x that the object belongs to."""

    def _on_connect(
        self, client: Any, userdata: Any, connect_flags: Any, result_code: Any, properties: Any, *extra_params: Any
    ) -> None: ...
    def _on_disconnect(
        self, client: Any, userdata: Any, disconnect_flags: Any, reason: Any = None, properties: Any = None
    ) -> None: ...
    def _on_message(self, client: Any, userdata: Any, message: Any) -> None: ...
    def _publish_raw(self, topic: str, payload: bytes) -> Any: ...
    def _set_credentials(self, username: str | None, password: str | None) -> None: ...
    def disconnect(self) -> MQTTErrorCode: ...
    def max_inflight_messages_set(self, inflight: int) -> None: ...
    def max_queued_messages_set(self, queue_size: int) -> None: ...
    def reconnect_delay_set(self, min_delay: float = 1, max_delay: float = 120) -> None: ...


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
    """Options of the connection, functions that are called when it is established and lost, and messages of any topic.

    What paho offers and this package does not have raises an error that says what to do.
    """

    def __init__(self, owner: Owner, client_id: str, name: str) -> None:
        self._owner = owner
        self._client_id = client_id.encode()
        self._name = name
        # Programs replace these. They are called with the arguments of paho's callbacks of version 2.
        self._on_connect: Callable[..., Any] = owner._on_connect
        self._on_disconnect: Callable[..., Any] = owner._on_disconnect
        self._on_message: MessageCallback | None = owner._on_message
        self._userdata: Any = None
        self.topics: Topics = Topics()
        """What the program subscribes to, in addition to the client."""
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

    @property
    def on_message(self) -> MessageCallback | None:
        """The function that gets the messages that no function of ``message_callback_add`` gets.

        It is the client's own at first. A program that replaces it gets all messages of the platform. The client's callbacks for
        attributes, RPC and firmware are then not called, as with paho.
        """
        return self._on_message

    @on_message.setter
    def on_message(self, value: MessageCallback | None) -> None:
        self._on_message = value

    def received(self, topic: str, payload: bytes) -> None:
        """Pass a message of the server to the program. Called in the thread for callbacks."""
        message = Message(topic, payload)
        callbacks = self.topics.callbacks_of(topic) or ([self._on_message] if self._on_message is not None else [])
        for callback in callbacks:
            callback(self, self._userdata, message)

    def publish(self, topic: str, payload: Any = None, qos: int = 0, retain: bool = False, properties: Any = None) -> Any:
        """Publish a message, with QoS 1 and again after a lost connection.

        Args:
            topic: A topic without wildcards. Telemetry and attributes are counted for the limits as those of the ``send_...``
                methods are.
            payload: ``bytes``, text, a number, or ``None`` for an empty payload.
            qos: Not used: the client chooses the QoS.
            retain: Not used: the platform retains nothing.
            properties: Not used: the platform evaluates none.

        Returns:
            The message, with ``rc``, ``mid``, ``is_published()`` and ``wait_for_publish()``.

        Raises:
            ValueError: The topic is not valid, or the payload is not what the topic carries, or is too large.
            TypeError: ``payload`` has another type.
        """
        if isinstance(payload, bytes | bytearray):
            content = bytes(payload)
        elif isinstance(payload, str | int | float) or payload is None:
            content = b"" if payload is None else str(payload).encode()
        else:
            raise TypeError(f"payload must be bytes, text, a number or None, not {payload!r}")
        return self._owner._publish_raw(topic, content)

    def subscribe(self, topic: Any, qos: int = 0, options: Any = None, properties: Any = None) -> tuple[MQTTErrorCode, int | None]:
        """Subscribe to topics in addition to those of the client. Subscriptions survive a reconnect.

        Before ``connect`` of the client, this has an effect when the client is connected.

        Args:
            topic: A topic filter, a tuple of a filter and its QoS, or a list of these.
            qos: Not used.
            options: Not used.
            properties: Not used.

        Returns:
            paho's code, and the number of the subscription.

        Raises:
            ValueError: A filter is not valid.
        """
        return self.topics.subscribe(topics_of(topic))

    def unsubscribe(self, topic: Any, properties: Any = None) -> tuple[MQTTErrorCode, int]:
        """End subscriptions that ``subscribe`` made; the client itself stays subscribed to the topics that it needs.

        Args:
            topic: A topic filter, or a list of them.
            properties: Not used.

        Returns:
            The code 0, and a number.
        """
        return self.topics.unsubscribe(topics_of(topic))

    def message_callback_add(self, sub: str, callback: MessageCallback) -> None:
        """Pass messages that match a topic filter to a function, in place of ``on_message``.

        Args:
            sub: The filter. This does not subscribe to it.
            callback: Gets this object, the user data, and the message with ``topic`` and ``payload``.
        """
        self.topics.set_callback(sub, callback)

    def message_callback_remove(self, sub: str) -> None:
        """Undo ``message_callback_add``."""
        self.topics.remove_callback(sub)

    def user_data_set(self, userdata: Any) -> None:
        """Set the object that callbacks get as their second argument."""
        self._userdata = userdata

    def user_data_get(self) -> Any:
        """Return the object that callbacks get as their second argument."""
        return self._userdata

    def username_pw_set(self, username: str | None, password: str | None = None) -> None:
        """Use other credentials from the next ``connect`` of the client on."""
        self._owner._set_credentials(username, password)

    def max_inflight_messages_set(self, inflight: int) -> None:
        """As ``max_inflight_messages_set`` of the client."""
        self._owner.max_inflight_messages_set(inflight)

    def max_queued_messages_set(self, queue_size: int) -> PahoClient:
        """As ``max_queued_messages_set`` of the client."""
        self._owner.max_queued_messages_set(queue_size)
        return self

    def reconnect_delay_set(self, min_delay: float = 1, max_delay: float = 120) -> None:
        """As ``reconnect_delay_set`` of the client."""
        self._owner.reconnect_delay_set(min_delay, max_delay)

    def disconnect(self, reasoncode: Any = None, properties: Any = None) -> MQTTErrorCode:
        """As ``disconnect`` of the client."""
        return self._owner.disconnect()

    def ws_set_options(self, path: str = "/mqtt", headers: Mapping[str, str] | None = None) -> NoReturn:
        """Raise ``NotImplementedError``: the client does not speak MQTT over WebSockets."""
        raise NotImplementedError(
            "MQTT over WebSockets is not supported: connect to the MQTT port of the server (1883, or 8883 with TLS). To pass a "
            "firewall that allows only HTTP, use proxy_set() with an HTTP proxy"
        )

    def will_set(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise ``NotImplementedError``: the platform publishes no will."""
        raise NotImplementedError("the platform publishes no will: it sets a device inactive when its connection ends")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"_client.{name} is not available, because this package does not use paho: use the methods of the client itself "
            f"(connect(), disconnect(), send_telemetry() and so on; get() of a result waits for its acknowledgement). "
            f"The page differences-1x lists what _client has"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in NEVER_CALLED:
            raise AttributeError(f"_client.{name} would never be called: {NEVER_CALLED[name]}")
        super().__setattr__(name, value)

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
            cert_reqs: ``ssl.CERT_NONE`` does not verify the server. All others verify it: for a client, ``ssl.CERT_OPTIONAL`` is
                as ``ssl.CERT_REQUIRED``.
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
        if cert_reqs == ssl.CERT_NONE:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
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
        self._ssl_context.check_hostname = not value and self._ssl_context.verify_mode != ssl.CERT_NONE

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
