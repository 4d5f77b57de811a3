"""``TBDeviceMqttClient`` of SDK 1.x."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.common.turn import Turn
from tb_mqtt_client.entities.connection_event import (
    ClientFailed,
    Connected,
    ConnectionEvent,
    ConnectionLost,
    ConnectRefused,
)
from tb_mqtt_client.one_x import settings
from tb_mqtt_client.one_x.connection import GET_TIMEOUT, Connection
from tb_mqtt_client.one_x.constants import (
    ATTRIBUTES_TOPIC,
    ATTRIBUTES_TOPIC_REQUEST,
    CLAIMING_TOPIC,
    FW_TITLE_ATTR,
    FW_VERSION_ATTR,
    GATEWAY_MAIN_TOPIC,
    RPC_REQUEST_TOPIC,
    RPC_RESPONSE_TOPIC,
    TELEMETRY_TOPIC,
    TBFirmwareState,
    TBQoSException,
    TBSendMethod,
    TBTimeoutException,
)
from tb_mqtt_client.one_x.core import DeviceCore
from tb_mqtt_client.one_x.paho_client import ConnectFlags, DisconnectFlags, PahoClient
from tb_mqtt_client.one_x.paho_names import MQTTErrorCode, ReasonCodes
from tb_mqtt_client.one_x.provisioning import ProvisionClient, provision_request
from tb_mqtt_client.one_x.publish_info import NotSentMessage, RecordInfo, RefusedMessage, SentMessages, TBPublishInfo
from tb_mqtt_client.one_x.rate_limits import RateLimit, parse_windows
from tb_mqtt_client.one_x.splitting import split_message
from tb_mqtt_client.one_x.subscriptions import AttributeSubscriptions
from tb_mqtt_client.one_x.times import Times
from tb_mqtt_client.one_x.uplinks import Encoded, encode_attributes, encode_timeseries
from tb_mqtt_client.one_x.values import dumps
from tb_mqtt_client.service.requests.raw import raw_message

HANDLED = (ATTRIBUTES_TOPIC, RPC_REQUEST_TOPIC, GATEWAY_MAIN_TOPIC)
"""How the topics begin of which messages are passed to the program."""
EVENT_SECONDS = 5.0
"""Seconds that ``connect`` waits until the callback for connections has returned."""
DEFAULT_QOS = 1
SERVER_CLOSED = 0x80
"""The reason code of a connection that ended without a reason code: an unspecified error."""


Config = TypeVar("Config", bound=DeviceConfig)


class TBDeviceMqttClient:
    """A device. Methods may be called from any thread, also in callbacks, which run in a thread of their own.

    docs/differences-1x.md lists what differs from SDK 1.x.
    """

    EMPTY_RATE_LIMIT: ClassVar[RateLimit] = RateLimit("0:0", "Empty")
    _counted_topics: ClassVar[tuple[str, ...]] = (TELEMETRY_TOPIC, ATTRIBUTES_TOPIC)
    """Topics whose payloads have datapoints."""

    def __init__(
        self,
        host: str,
        port: int = 1883,
        username: str | None = None,
        password: str | None = None,
        quality_of_service: int | None = None,
        client_id: str = "",
        chunk_size: int = 0,
        messages_rate_limit: str = "DEFAULT_MESSAGES_RATE_LIMIT",
        telemetry_rate_limit: str = "DEFAULT_TELEMETRY_RATE_LIMIT",
        telemetry_dp_rate_limit: str = "DEFAULT_TELEMETRY_DP_RATE_LIMIT",
        max_payload_size: int = 8196,
        **kwargs: Any,
    ) -> None:
        """Create a client that is not connected. Nothing is started.

        Args:
            host: The name or the address of the server.
            port: The port of the server.
            username: The access token, or the user name of MQTT basic credentials.
            password: The password of MQTT basic credentials.
            quality_of_service: 0 or 1; ``None`` for 1.
            client_id: The MQTT client id; a random one if it is empty.
            chunk_size: Bytes of firmware to request at once; 0 for the default.
            messages_rate_limit: A limit of messages without datapoints, such as ``"10:1,60:60"``, in addition to the server's.
            telemetry_rate_limit: A limit of messages with datapoints.
            telemetry_dp_rate_limit: A limit of datapoints.
            max_payload_size: Is replaced by the server's when the client is connected.
            **kwargs: ``rate_limit`` and ``dp_rate_limit``, as in versions before 1.10.

        Raises:
            TBQoSException: ``quality_of_service`` is neither 0 nor 1.
        """
        self.quality_of_service: int = DEFAULT_QOS if quality_of_service is None else quality_of_service
        _require_qos(self.quality_of_service)
        self._host = host
        self._port = port
        self._credentials = {"username": username, "password": password, "client_id": client_id or None}
        if "rate_limit" in kwargs:
            messages_rate_limit = telemetry_rate_limit = kwargs["rate_limit"]
        telemetry_dp_rate_limit = kwargs.get("dp_rate_limit", telemetry_dp_rate_limit)
        self._own_limits = _own_limits(messages_rate_limit, telemetry_rate_limit, telemetry_dp_rate_limit)
        by_host = partial(RateLimit.get_rate_limit_by_host, host)
        self._messages_rate_limit = RateLimit(by_host(messages_rate_limit), "Rate limit for messages")
        self._telemetry_rate_limit = RateLimit(by_host(telemetry_rate_limit), "Rate limit for telemetry messages")
        self._telemetry_dp_rate_limit = RateLimit(by_host(telemetry_dp_rate_limit), "Rate limit for telemetry data points")
        self.max_payload_size: int = max_payload_size
        self.rate_limits_received: bool = False
        self.service_configuration_callback: Callable[..., Any] = self.on_service_configuration
        self.stopped: bool = False
        self.current_firmware_info: dict[str, Any] = {
            "current_fw_title": "Initial",
            "current_fw_version": "v0",
            "fw_state": TBFirmwareState.IDLE.value,
        }
        self.firmware_info: dict[str, Any] = {}
        self.firmware_data: bytes = b""
        self.firmware_received: bool = False
        self._refuses_types = False
        """Whether values of types that cannot be sent are refused alone, instead of raising."""
        self._chunk_size = chunk_size
        self._on_firmware: Callable[[Any, bytes, str], Any] | None = None
        self._updates_firmware = False
        self._lock = threading.RLock()
        self._connecting = threading.Lock()
        self._event_processed = Turn()
        self._callback_thread = 0
        self._connection: Connection | None = None
        self._is_reported_connected = False
        self._runs_connect_callback = False
        self._reconnect_delays = (1.0, 120.0)
        self._connect_callback: Callable[..., Any] | None = None
        self._rpc_handler: Callable[[str, Any], Any] | None = None
        self._rpc_number = 0
        self._subscriptions = AttributeSubscriptions()
        self._times = Times()
        self._client = PahoClient(self, client_id or "", f"{host}:{port}")
        self._client.is_open = lambda: self._connection is not None and self._connection.is_open

    # The connection.

    def _make_core(self, options: dict[str, Any]) -> DeviceCore:
        """Return the asyncio client that does the work."""
        return DeviceCore(self._config(DeviceConfig, options))

    def _config(self, kind: type[Config], options: dict[str, Any]) -> Config:
        """Return the configuration of a client.

        Credentials and TLS are those of the program, as in SDK 1.x: environment variables for them belong to other clients.
        """
        config = kind(options)
        config.access_token = config.ca_cert = config.client_cert = config.private_key = None
        config.username, config.password = self._credentials["username"], self._credentials["password"]
        config.client_id = self._credentials["client_id"]
        config.use_system_ca = False
        return config

    def _options(self, keepalive: int) -> dict[str, Any]:
        client = self._client
        given: dict[str, Any] = self._credentials | {
            "host": self._host,
            "port": self._port,
            "qos": self.quality_of_service,
            "keepalive": max(1, keepalive),
            "reconnect_delay_min": self._reconnect_delays[0],
            "reconnect_delay_max": max(self._reconnect_delays),
            "max_inflight_messages": max(1, client._max_inflight_messages),
            "rate_limit_percentage": settings.DEFAULT_RATE_LIMIT_PERCENTAGE,
            "rate_limits": self._own_limits or None,
            "ssl_context": client.tls_context,
            "proxy": client.proxy,
        }
        if client._max_queued_messages > 0:
            given["max_queued_messages"] = client._max_queued_messages
        return {name: value for name, value in given.items() if value is not None}

    def connect(
        self,
        callback: Callable[..., Any] | None = None,
        min_reconnect_delay: float = 1,
        timeout: float = 120,
        tls: bool = False,
        ca_certs: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        keepalive: int = 120,
    ) -> None:
        """Connect, and stay connected until ``disconnect``.

        Returns when the session is set up. If the server refuses the connection or does not respond, the client continues to
        connect in the background. Does nothing while the client is connected or connecting.

        Args:
            callback: Called at each connection and each refusal, with client, user data, flags and the reason code, and also with
                properties and ``tb_client`` if it has a parameter of that name.
            min_reconnect_delay: Seconds: the upper bound of the random delay before an attempt to reconnect, which grows.
            timeout: Seconds: the largest value of that bound.
            tls: Whether to use TLS.
            ca_certs: Path of the authorities of the server's certificate; ``None`` for those of the system.
            cert_file: Path of the client's certificate.
            key_file: Path of its key.
            keepalive: Seconds of the MQTT keep-alive.

        Raises:
            OSError: The server cannot be reached: ``ConnectionRefusedError``, ``socket.gaierror``, ``ssl.SSLError`` and others.
        """
        self._connect_callback = callback if callback is not None else self._connect_callback
        self._reconnect_delays = (max(0.001, min_reconnect_delay), max(0.001, timeout, min_reconnect_delay))
        if tls:
            self._client.tls_set(ca_certs, cert_file, key_file)
        with self._connecting:
            self.stopped = False
            if self._connection is not None and self._connection.is_wanted:
                self._connection.resume()
                return
            self._connection = self._new_connection(self._make_core(self._options(keepalive)))
            self._event_processed = Turn()
            self._client.topics.open(self._connection.subscribe)
            try:
                self._connection.connect()
            except BaseException:
                self._client.topics.close()
                raise
            self._client._thread = self._connection.thread
        if threading.get_ident() != self._callback_thread:
            # So that `is_connected` and the limits are right when this returns, unless a callback of the program takes long.
            self._event_processed.wait(EVENT_SECONDS)

    def _new_connection(self, core: DeviceCore) -> Connection:
        return Connection(core, self._connection_event, self._client.received, get_timeout=GET_TIMEOUT)

    def _set_credentials(self, username: str | None, password: str | None) -> None:
        self._credentials |= {"username": username, "password": password}

    def disconnect(self) -> MQTTErrorCode:
        """Send queued data for at most 3 seconds, and close the connection. ``connect`` works again.

        Returns:
            The code 0.
        """
        connection = self._connection
        self._client.topics.close()
        if connection is not None:
            connection.disconnect()
        self._client._thread = None
        if self._is_reported_connected:
            flags = DisconnectFlags(is_disconnect_packet_from_server=False)
            self._client._on_disconnect(self._client, self._client._userdata, flags, ReasonCodes(0, "Normal disconnection"), None)
        self._is_reported_connected = False
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def stop(self) -> None:
        """Let no call of ``get`` wait any longer. The connection stays open until ``disconnect``."""
        self.stopped = True
        if self._connection is not None:
            self._connection.release()

    def is_connected(self) -> bool:
        """Return whether the client is connected, as far as its callback for connections knows."""
        return self._is_reported_connected

    @property
    def _TBDeviceMqttClient__is_connected(self) -> bool:  # programs read it
        return self._is_reported_connected

    def _connection_event(self, event: ConnectionEvent) -> None:
        """Call paho's callbacks. Runs in the thread for callbacks."""
        self._callback_thread = threading.get_ident()
        try:
            self._process(event)
        finally:
            if isinstance(event, Connected | ConnectRefused):
                self._event_processed.give()

    def _process(self, event: ConnectionEvent) -> None:
        client = self._client
        if isinstance(event, Connected):
            self._take_session(event)
            self._call_connect_callback(ReasonCodes(0, "Success"))
        elif isinstance(event, ConnectRefused):
            self._call_connect_callback(ReasonCodes(event.reason_code))
        elif isinstance(event, ConnectionLost | ClientFailed):
            code = getattr(event, "reason_code", None)
            flags = DisconnectFlags(is_disconnect_packet_from_server=code is not None)
            reason = ReasonCodes(SERVER_CLOSED if code is None else code, None if code is not None else event.reason)
            self.rate_limits_received = False
            client._on_disconnect(client, client._userdata, flags, reason, None)

    def _take_session(self, event: Connected) -> None:
        limits = event.limits
        configuration = {
            "maxPayloadSize": limits["max_packet_size"],
            "maxInflightMessages": self._client._max_inflight_messages,
            "rateLimits": limits["device"],
            "gatewayRateLimits": limits["gateway"],
        }
        self.service_configuration_callback(0, configuration, None)

    def _call_connect_callback(self, reason: ReasonCodes) -> None:
        self._runs_connect_callback = True
        try:
            self._client._on_connect(self._client, self._client._userdata, ConnectFlags(), reason, None)
        finally:
            self._runs_connect_callback = False

    def _take_limits(self, device: Mapping[str, Any], sub_devices: Mapping[str, Any]) -> None:
        """Show the announced limits to programs. The client itself keeps within them."""
        show_limits(
            device,
            messages=self._messages_rate_limit,
            telemetryMessages=self._telemetry_rate_limit,
            telemetryDataPoints=self._telemetry_dp_rate_limit,
        )

    def _on_connect(
        self, client: Any, userdata: Any, connect_flags: Any, result_code: Any, properties: Any, *extra_params: Any
    ) -> None:
        if result_code == 0:
            self._is_reported_connected = True
            settings.log.info("Connected to %s:%d", self._host, self._port)
        else:
            settings.log.error("%s:%d refuses the connection: %s", self._host, self._port, result_code)
        callback = self._connect_callback
        if not callable(callback):
            return
        if "tb_client" in signature(callback).parameters:
            callback(client, userdata, connect_flags, result_code, properties, *extra_params, tb_client=self)
        else:
            callback(client, userdata, connect_flags, result_code, *extra_params)

    def _on_disconnect(self, client: Any, userdata: Any, disconnect_flags: Any, reason: Any = None, properties: Any = None) -> None:
        self._is_reported_connected = False
        level = logging.INFO if reason == 0 else logging.WARNING
        settings.log.log(level, "Disconnected from %s:%d: %s", self._host, self._port, reason)

    def max_inflight_messages_set(self, inflight: int) -> None:
        """Set how many messages may be unacknowledged at a time, from the next ``connect`` on.

        Args:
            inflight: The number; a negative one is logged and ignored.
        """
        if inflight < 0:
            settings.log.error("The number of messages in flight must not be negative, as is %d", inflight)
            return
        self._client._max_inflight_messages = inflight

    def max_queued_messages_set(self, queue_size: int) -> None:
        """Set how many sends may be queued, from the next ``connect`` on.

        Args:
            queue_size: The number; 0 for the default.

        Raises:
            ValueError: The number is negative.
        """
        if queue_size < 0:
            raise ValueError(f"queue_size must not be negative, as is {queue_size}")
        self._client._max_queued_messages = queue_size

    def reconnect_delay_set(self, min_delay: float = 1, max_delay: float = 120) -> None:
        """Set the bounds of the delay before an attempt to reconnect, in seconds, from the next ``connect`` on."""
        self._reconnect_delays = (max(0.001, min_delay), max(0.001, max_delay))

    # Sends.

    def send_telemetry(
        self, telemetry: Any, quality_of_service: int | None = None, timeout: float = settings.DEFAULT_TIMEOUT
    ) -> TBPublishInfo:
        """Send timeseries.

        Args:
            telemetry: ``{key: value}``, ``{"ts": milliseconds, "values": {key: value}}``, or a list of these.
            quality_of_service: 0 or 1; the client's own QoS is used.
            timeout: Not used: the result says when the data is delivered.

        Returns:
            The result; its ``get`` waits.

        Raises:
            TypeError: A value cannot be written as JSON.
            TBQoSException: ``quality_of_service`` is neither 0 nor 1.
        """
        self._check_qos(quality_of_service)
        connection = self._connection
        if connection is not None and connection.core.send_record("", telemetry, info := RecordInfo(connection)):
            return info
        time = self._times.of("", telemetry)
        return self._times.sent("", time, self._send(encode_timeseries(telemetry, time, refuses_types=self._refuses_types), ""))

    def send_attributes(
        self, attributes: Any, quality_of_service: int | None = None, timeout: float = settings.DEFAULT_TIMEOUT
    ) -> TBPublishInfo:
        """Send client attributes.

        Args:
            attributes: ``{key: value}``, or a list of these.
            quality_of_service: 0 or 1; the client's own QoS is used.
            timeout: Not used: the result says when the data is delivered.

        Returns:
            The result; its ``get`` waits.

        Raises:
            TypeError: A value cannot be written as JSON.
            TBQoSException: ``quality_of_service`` is neither 0 nor 1.
        """
        self._check_qos(quality_of_service)
        return self._send(encode_attributes(attributes, refuses_types=self._refuses_types), "")

    def _check_qos(self, quality_of_service: int | None) -> None:
        if quality_of_service is not None and quality_of_service not in (0, 1):
            _require_qos(quality_of_service)

    @staticmethod
    def _split_message(message_pack: Any, datapoints_max_count: int, max_payload_size: int) -> list[dict[str, Any]]:
        """Cut telemetry into messages. Some programs use this private method; the client does not, see ``split_message``."""
        return split_message(message_pack, datapoints_max_count, max_payload_size)

    def _send(self, encoded: Encoded, device: str) -> TBPublishInfo:
        connection = self._connection
        if connection is None:
            return self._not_sent("connect() was not called")
        try:
            messages: list[Any] = [connection.send(uplink) for uplink in encoded.uplinks]
        except NotConnectedError as error:
            return self._not_sent(str(error))
        if encoded.refused:
            self._report_refused(device, encoded.refused)
            messages.append(RefusedMessage(connection))
        return TBPublishInfo(messages)

    def _report_refused(self, device: str, refused: list[str]) -> None:
        """Log datapoints that are not sent, each of which is a text with its key."""
        of_device = f" of {device!r:.60}" if device else ""
        settings.log.error("%d datapoints%s are not sent: %s", len(refused), of_device, "; ".join(refused[:5]))

    def _deliver(self, topic: str, payload: bytes, device: DeviceIdentity | None = None) -> TBPublishInfo:
        """Send a message without datapoints. What cannot be sent is logged, and has a code."""
        connection = self._connection
        if connection is None:
            return self._not_sent("connect() was not called")
        try:
            return TBPublishInfo([connection.deliver(partial(connection.core.publish_for, topic, payload, device))])
        except NotConnectedError as error:
            return self._not_sent(str(error))
        except ValueError as error:
            settings.log.error("A message is not sent to %s: %s", topic, error)
            return TBPublishInfo([RefusedMessage(connection)])

    def _not_sent(self, why: str) -> TBPublishInfo:
        settings.log.error("Nothing is sent to %s:%d: %s", self._host, self._port, why)
        return TBPublishInfo([NotSentMessage()])

    def _publish_data(
        self,
        data: Any,
        topic: str,
        qos: int | None,
        timeout: float = settings.DEFAULT_TIMEOUT,
        device: str | None = None,
        msg_rate_limit: Any = None,
        dp_rate_limit: Any = None,
    ) -> TBPublishInfo:
        """Publish a JSON value to any topic. Some programs use this private method."""
        self._check_qos(qos)
        return self._publish_to(topic, data)

    def _publish_to(self, topic: str, content: Any) -> TBPublishInfo:
        """Publish a JSON value. Datapoints are counted for the limits as those of the ``send_...`` methods."""
        if topic == TELEMETRY_TOPIC:
            return self.send_telemetry(content)
        if topic == ATTRIBUTES_TOPIC:
            return self.send_attributes(content)
        return self._deliver(topic, dumps(content))

    def _publish_raw(self, topic: str, payload: bytes) -> Any:
        """Publish a payload, and return its message. ``_client.publish`` calls this.

        Raises:
            ValueError: The topic is not valid, or is one of telemetry or attributes and the payload is not JSON.
        """
        if topic in self._counted_topics:
            try:
                info = self._publish_to(topic, json.loads(payload))
            except json.JSONDecodeError as error:
                raise ValueError(f"payload must be JSON on {topic}: {error}") from error
        else:
            raw_message(topic, payload)
            info = self._deliver(topic, payload)
        return info.message_info[0] if len(info.message_info) == 1 else SentMessages(info)

    def _send_request(
        self,
        _type: TBSendMethod,
        kwargs: Mapping[str, Any],
        timeout: float = settings.DEFAULT_TIMEOUT,
        device: str | None = None,
        msg_rate_limit: Any = None,
        dp_rate_limit: Any = None,
    ) -> TBPublishInfo:
        """Publish a JSON value, as ``_publish_data``. The client itself subscribes to all topics of the platform."""
        if _type is not TBSendMethod.PUBLISH:
            return TBPublishInfo([])
        return self._publish_data(kwargs["payload"], kwargs["topic"], kwargs.get("qos"))

    def _subscribe_to_topic(self, topic: str, qos: int | None = None, timeout: float = settings.DEFAULT_TIMEOUT) -> TBPublishInfo:
        """Do nothing: the client itself subscribes to all topics of the platform."""
        return TBPublishInfo([])

    def send_rpc_reply(
        self, req_id: Any, resp: Any, quality_of_service: int | None = None, wait_for_publish: bool | None = False
    ) -> None:
        """Send the response to a server-side RPC request.

        Args:
            req_id: The id of the request.
            resp: The result, a JSON value. A text that is JSON is sent as that JSON.
            quality_of_service: 0 or 1; another value is logged, and nothing is sent.
            wait_for_publish: Whether to wait until the platform has acknowledged the response.

        Raises:
            TypeError: JSON cannot express ``resp``.
        """
        if quality_of_service not in (None, 0, 1):
            settings.log.error("Quality of service must be 0 or 1, not %r: the RPC response is not sent", quality_of_service)
            return
        info = self._deliver(f"{RPC_RESPONSE_TOPIC}{req_id}", dumps(_parsed(resp)))
        if wait_for_publish:
            info.get()

    def send_rpc_call(self, method: str, params: Any, callback: Callable[[int, Any, Any], Any]) -> None:
        """Send a client-side RPC request.

        Args:
            method: The name of the method.
            params: A JSON value.
            callback: Gets the number of the request, the response and ``None``. It is not called without a response.
        """
        with self._lock:
            self._rpc_number += 1
            number = self._rpc_number

        def answered(content: Any, error: BaseException | None) -> None:
            if error is not None:
                settings.log.warning("The RPC request %r has no response: %s", method, error)
            else:
                callback(number, content, None)

        self._request(f"{RPC_REQUEST_TOPIC}{number}", lambda core, answer: core.call_content(method, params, answer), answered)

    def claim(self, secret_key: str, duration: int = 30000) -> TBPublishInfo:
        """Allow users who know a secret to claim the device.

        Args:
            secret_key: The secret.
            duration: Milliseconds for which the device can be claimed.
        """
        return self._deliver(CLAIMING_TOPIC, dumps({"secretKey": secret_key, "durationMs": duration}))

    # Attributes.

    def request_attributes(
        self,
        client_keys: Iterable[str] | None = None,
        shared_keys: Iterable[str] | None = None,
        callback: Callable[..., Any] | tuple[Callable[..., Any], Any] | None = None,
    ) -> TBPublishInfo:
        """Request attributes; without keys, all of them.

        Args:
            client_keys: Names of client attributes.
            shared_keys: Names of shared attributes.
            callback: Gets ``{"client": {...}, "shared": {...}}`` and ``None``; ``None`` and a ``TBTimeoutException`` if there is
                no response in 20 s. With ``(callback, extra)``, it gets ``extra`` as the third argument.
        """
        client, shared = _keys(client_keys), _keys(shared_keys)
        return self._request(
            ATTRIBUTES_TOPIC_REQUEST, lambda core, answer: core.request_content(shared, client, answer), partial(pass_on, callback)
        )

    def _request(
        self, topic: str, begin: Callable[[Any, Any], Any], answered: Callable[[Any, BaseException | None], None]
    ) -> TBPublishInfo:
        connection = self._connection
        if connection is None:
            return self._not_sent("connect() was not called")
        try:
            return TBPublishInfo([connection.request(topic, partial(begin, connection.core), answered)])
        except NotConnectedError as error:
            return self._not_sent(str(error))
        except (ValueError, TypeError) as error:
            settings.log.error("A request is not sent to %s: %s", topic, error)
            return TBPublishInfo([RefusedMessage(connection)])

    def subscribe_to_all_attributes(self, callback: Callable[..., Any]) -> int:
        """Call a function with every update of shared attributes, and return the number of the subscription."""
        return self.subscribe_to_attribute("*", callback)

    def subscribe_to_attribute(self, key: str, callback: Callable[..., Any]) -> int:
        """Call a function with updates in which an attribute is.

        Args:
            key: The key of the attribute; ``"*"`` for all.
            callback: Gets the whole update and ``None``.

        Returns:
            The number of the subscription, which is kept until it is removed, also after a reconnect.
        """
        return self._subscriptions.add(key, callback, is_repeated=self._runs_connect_callback)

    def unsubscribe_from_attribute(self, subscription_id: int | str) -> None:
        """Remove a subscription by its number, or all with ``"*"``."""
        if not self._subscriptions.remove(subscription_id) and subscription_id != "*":
            settings.log.debug("Unknown subscription %s", subscription_id)

    def clean_device_sub_dict(self) -> None:
        """Remove all subscriptions."""
        self._subscriptions.remove("*")

    def set_server_side_rpc_request_handler(self, handler: Callable[[str, Any], Any] | None) -> None:
        """Set the function that gets the id (a text) and the content of each server-side RPC request."""
        self._rpc_handler = handler

    # Messages of the platform.

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        """Process a message. Runs in the thread for callbacks."""
        if not message.topic.startswith(HANDLED):
            return
        try:
            content = self._decode(message)
        except ValueError as error:
            settings.log.error("A message on %s is not JSON: %s", message.topic, error)
            return
        self._on_decoded_message(content, message)

    @staticmethod
    def _decode(message: Any) -> Any:
        return json.loads(message.payload)

    def _on_decoded_message(self, content: Any, message: Any) -> None:
        if message.topic.startswith(RPC_REQUEST_TOPIC):
            if self._rpc_handler is not None:
                self._rpc_handler(message.topic.removeprefix(RPC_REQUEST_TOPIC), content)
        elif message.topic == ATTRIBUTES_TOPIC and isinstance(content, dict):
            for callback in self._subscriptions.callbacks("*", *content):
                callback(content, None)
            if {FW_TITLE_ATTR, FW_VERSION_ATTR} & content.keys():
                self._firmware_assigned(content)

    # Limits of the platform.

    def request_service_configuration(self, callback: Callable[..., Any]) -> None:
        """Request the limits of the session.

        Args:
            callback: Gets the number of the request, the response and ``None``.
        """
        self.send_rpc_call("getSessionLimits", {"timeout": 5000}, callback)

    def on_service_configuration(self, _: Any, response: Any, *args: Any, **kwargs: Any) -> None:
        """Show the limits in the platform's response to ``getSessionLimits`` to programs.

        This is called for each session. A program that replaces ``service_configuration_callback`` may call it.
        """
        if not isinstance(response, Mapping) or "error" in response:
            settings.log.warning("The server does not announce its limits: %s", response)
        else:
            size = response.get("maxPayloadSize")
            if size:
                self.max_payload_size = int(size * settings.DEFAULT_RATE_LIMIT_PERCENTAGE / 100)
            self._take_limits(response.get("rateLimits") or {}, response.get("gatewayRateLimits") or {})
        self.rate_limits_received = True

    # Firmware.

    def get_firmware_update(self) -> None:
        """Install the assigned firmware, if it is not installed already, in the background.

        The image goes to the function that ``set_on_firmware_received_callback`` sets, or to a file with the title as its name.
        """
        connection = self._connection
        if connection is None:
            self._not_sent("connect() was not called")
            return
        self._updates_firmware = True
        updater = connection.core.firmware_updater
        updater.current_firmware_info = self.current_firmware_info
        bridged = connection.runtime.bridge("on_firmware_received", self._firmware_received)

        async def update() -> None:
            task = await connection.core.update_firmware(bridged, save_firmware=False, chunk_size=self._chunk_size or None)
            task.add_done_callback(lambda _: setattr(self, "current_firmware_info", updater.current_firmware_info))

        try:
            connection.run(update)
        except RuntimeError:
            settings.log.info("A firmware update is running already")
        except NotConnectedError as error:
            self._not_sent(str(error))

    def _firmware_assigned(self, content: Mapping[str, Any]) -> None:
        """Start an update if an attribute update assigns other firmware than the device has."""
        self.firmware_info = {**self.firmware_info, **content}
        title, version = self.firmware_info.get(FW_TITLE_ATTR), self.firmware_info.get(FW_VERSION_ATTR)
        current = self.current_firmware_info
        if (title, version) != (current.get("current_fw_title"), current.get("current_fw_version")):
            self.get_firmware_update()

    def _firmware_received(self, data: bytes, info: Mapping[str, Any]) -> None:
        title, version = str(info["current_fw_title"]), str(info["current_fw_version"])
        self.firmware_data = data
        self.firmware_received = True
        if self._on_firmware is not None:
            self._on_firmware(self, data, version)
        else:
            # The last part of the title only: the platform allows any text.
            Path(Path(title).name).write_bytes(data)

    def set_on_firmware_received_callback(self, on_firmware_received: Callable[[Any, bytes, str], Any] | None) -> None:
        """Set the function that gets this client, the image as ``bytes``, and the version; ``None`` writes the image to a file."""
        self._on_firmware = on_firmware_received

    def update_firmware_info(
        self,
        title: str | None = None,
        version: str | None = None,
        state: TBFirmwareState | str | None = None,
        error: str | None = None,
    ) -> None:
        """Report the installed firmware or the state of an update to the platform.

        Args:
            title: The title of the installed firmware; ``None`` keeps it.
            version: Its version; ``None`` keeps it.
            state: The state; ``None`` keeps it.
            error: Why the update failed.
        """
        info = dict(self.current_firmware_info)
        if title is not None:
            info["current_fw_title"] = title
        if version is not None:
            info["current_fw_version"] = version
        if state is not None:
            info["fw_state"] = state.value if isinstance(state, TBFirmwareState) else state
        self.current_firmware_info = info
        if self._connection is not None:
            self._connection.core.firmware_updater.current_firmware_info = info
        self.send_telemetry(info | ({} if error is None else {"fw_error": error}))

    # Provisioning.

    @staticmethod
    def provision(
        host: str,
        provision_device_key: str,
        provision_device_secret: str,
        port: int = 1883,
        device_name: str | None = None,
        access_token: str | None = None,
        client_id: str | None = None,
        username: str | None = None,
        password: str | None = None,
        hash: str | None = None,  # the name of SDK 1.x
        gateway: bool | None = None,
    ) -> dict[str, Any] | None:
        """Request the credentials of a new device.

        Args:
            host: The name or the address of the server.
            provision_device_key: The provisioning key of the device profile.
            provision_device_secret: The provisioning secret of the device profile.
            port: The port; 8883 uses TLS.
            device_name: The name; ``None`` for a name generated by the platform.
            access_token: The wanted access token.
            client_id: The wanted client id of MQTT basic credentials.
            username: The wanted user name.
            password: The wanted password.
            hash: The certificate (PEM) of the device.
            gateway: Whether the device is a gateway.

        Returns:
            The response, such as ``{"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN", "credentialsValue": "..."}``; ``None``
            if there is none within 60 s.

        Raises:
            OSError: The server cannot be reached.
        """
        request = provision_request(
            provision_device_key,
            provision_device_secret,
            device_name,
            access_token,
            client_id,
            username,
            password,
            hash,
            gateway,
        )
        client = ProvisionClient(host, port, request)
        client.provision()
        return client.get_credentials()


def _require_qos(quality_of_service: Any) -> None:
    if quality_of_service not in (0, 1):
        settings.log.error("Quality of service must be 0 or 1, not %r", quality_of_service)
        raise TBQoSException("Quality of service (qos) value must be 0 or 1")


def _own_limits(messages: str, telemetry: str, datapoints: str) -> dict[str, str]:
    """Return the limits that the program sets, as the client takes them: the share of them that SDK 1.x used."""
    given = {"messages": messages, "telemetry_messages": telemetry, "telemetry_datapoints": datapoints}
    percentage = settings.DEFAULT_RATE_LIMIT_PERCENTAGE
    limits = {}
    for name, text in given.items():
        # The words that begin with DEFAULT_ stand for limits that the server announces.
        windows = {} if text.startswith("DEFAULT_") else parse_windows(text)
        if windows:
            limits[name] = ",".join(f"{max(1, count * percentage // 100)}:{seconds}" for seconds, count in windows.items())
    return limits


def show_limits(announced: Mapping[str, Any], **limits: RateLimit) -> None:
    """Set limits to the announced ones with their names."""
    for name, limit in limits.items():
        if announced.get(name):
            limit.set_limit(str(announced[name]), settings.DEFAULT_RATE_LIMIT_PERCENTAGE)


def _keys(keys: Iterable[str] | None) -> list[str] | None:
    return [keys] if isinstance(keys, str) else list(keys) if keys else None


def _parsed(resp: Any) -> Any:
    if not isinstance(resp, str):
        return resp
    try:
        return json.loads(resp)
    except ValueError:
        return resp


def pass_on(callback: Any, content: Any, error: BaseException | None) -> None:
    """Call the callback of a request, which may be a tuple with an extra argument."""
    if callback is None:
        return
    function, *extra = callback if isinstance(callback, tuple) else (callback,)
    if error is None:
        function(content, None, *extra)
    else:
        function(None, TBTimeoutException(f"Timeout while waiting for a reply from ThingsBoard: {error}"), *extra)
