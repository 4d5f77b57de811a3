"""``TBGatewayMqttClient`` of SDK 1.x."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.config_loader import GatewayConfig
from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.entities.connection_event import ClientFailed, Connected, ConnectionEvent, ConnectionLost, ConnectRefused
from tb_mqtt_client.one_x import application, settings
from tb_mqtt_client.one_x.application import ApplicationRecord, ApplicationSends
from tb_mqtt_client.one_x.connection import Connection
from tb_mqtt_client.one_x.constants import (
    GATEWAY_ATTRIBUTES_REQUEST_TOPIC,
    GATEWAY_ATTRIBUTES_RESPONSE_TOPIC,
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_CLAIMING_TOPIC,
    GATEWAY_DISCONNECT_TOPIC,
    GATEWAY_RPC_TOPIC,
    GATEWAY_TELEMETRY_TOPIC,
)
from tb_mqtt_client.one_x.core import DeviceCore, GatewayCore
from tb_mqtt_client.one_x.device import TBDeviceMqttClient, pass_on, show_limits
from tb_mqtt_client.one_x.paho_names import MQTTErrorCode
from tb_mqtt_client.one_x.publish_info import RecordInfo, RefusedMessage, TBPublishInfo
from tb_mqtt_client.one_x.rate_limits import RateLimit
from tb_mqtt_client.one_x.subscriptions import AttributeSubscriptions
from tb_mqtt_client.one_x.uplinks import encode_attributes, encode_timeseries
from tb_mqtt_client.one_x.values import dumps


class TBGatewayAPI:
    """An empty class of SDK 1.x."""


class TBGatewayMqttClient(TBDeviceMqttClient):
    """A gateway. Sub-devices that were not connected are connected with the profile "default" when something is sent for them."""

    _counted_topics = (*TBDeviceMqttClient._counted_topics, GATEWAY_TELEMETRY_TOPIC, GATEWAY_ATTRIBUTES_TOPIC)

    def __init__(
        self,
        host: str,
        port: int = 1883,
        username: str | None = None,
        password: str | None = None,
        gateway: Any = None,
        quality_of_service: int = 1,
        client_id: str = "",
        messages_rate_limit: str = "DEFAULT_MESSAGES_RATE_LIMIT",
        telemetry_rate_limit: str = "DEFAULT_TELEMETRY_RATE_LIMIT",
        telemetry_dp_rate_limit: str = "DEFAULT_TELEMETRY_DP_RATE_LIMIT",
        device_messages_rate_limit: str = "DEFAULT_MESSAGES_RATE_LIMIT",
        device_telemetry_rate_limit: str = "DEFAULT_TELEMETRY_RATE_LIMIT",
        device_telemetry_dp_rate_limit: str = "DEFAULT_TELEMETRY_DP_RATE_LIMIT",
        **kwargs: Any,
    ) -> None:
        """Create a client that is not connected. Nothing is started.

        Args:
            host: The name or the address of the server.
            port: The port of the server.
            username: The access token, or the user name of MQTT basic credentials.
            password: The password of MQTT basic credentials.
            gateway: The object of the application that the client belongs to, as the IoT Gateway passes it. With it, data that the
                platform will never take counts as done, because the IoT Gateway would send it again forever.
            quality_of_service: 0 or 1. Messages for sub-devices always have QoS 1.
            client_id: The MQTT client id; a random one if it is empty.
            messages_rate_limit: As for ``TBDeviceMqttClient``.
            telemetry_rate_limit: As for ``TBDeviceMqttClient``.
            telemetry_dp_rate_limit: As for ``TBDeviceMqttClient``.
            device_messages_rate_limit: Shown in ``_devices_connected_through_gateway_messages_rate_limit``; the server's applies.
            device_telemetry_rate_limit: Likewise.
            device_telemetry_dp_rate_limit: Likewise.
            **kwargs: As for ``TBDeviceMqttClient``.

        Raises:
            TBQoSException: ``quality_of_service`` is neither 0 nor 1.
        """
        super().__init__(
            host,
            port,
            username,
            password,
            quality_of_service,
            client_id,
            messages_rate_limit=messages_rate_limit,
            telemetry_rate_limit=telemetry_rate_limit,
            telemetry_dp_rate_limit=telemetry_dp_rate_limit,
            **kwargs,
        )
        self.gateway = gateway
        self._application = ApplicationSends() if gateway is not None else None
        self._refuses_types = gateway is not None
        self._losses = 0
        """How many connections were lost or closed, so that the end of a grace knows whether it is still about the last one."""
        self._is_in_grace = False
        by_host = partial(RateLimit.get_rate_limit_by_host, host)
        text = "Rate limit for devices connected through the gateway, "
        self._devices_connected_through_gateway_messages_rate_limit = RateLimit(
            by_host(device_messages_rate_limit), f"{text}messages"
        )
        self._devices_connected_through_gateway_telemetry_messages_rate_limit = RateLimit(
            by_host(device_telemetry_rate_limit), f"{text}telemetry messages"
        )
        self._devices_connected_through_gateway_telemetry_datapoints_rate_limit = RateLimit(
            by_host(device_telemetry_dp_rate_limit), f"{text}telemetry data points"
        )
        self._gw_subscriptions: dict[int, str] = {}
        """The subscribed topics. SDK 1.x removed them when they were acknowledged; the IoT Gateway looks for two of them."""
        self._sub_device_updates = AttributeSubscriptions()
        self.devices_server_side_rpc_request_handler: Callable[..., Any] | None = None
        self.device_disconnect_callback: Callable[..., Any] | None = None

    def _make_core(self, options: dict[str, Any]) -> DeviceCore:
        return GatewayCore(self._config(GatewayConfig, options))

    def _new_connection(self, core: DeviceCore) -> Connection:
        if self._application is None:
            return super()._new_connection(core)
        return Connection(
            core,
            self._connection_event,
            self._client.received,
            get_timeout=application.GET_TIMEOUT,
            more_with_progress=application.MORE_WITH_PROGRESS,
            stop_timeout=application.STOP_TIMEOUT,
            forgives_refusals=True,
        )

    def _process(self, event: ConnectionEvent) -> None:
        """Tell the application about a lost connection only if the client cannot reconnect soon."""
        connection = self._connection
        if self._application is not None and connection is not None:
            if isinstance(event, ConnectionLost) and self._is_reported_connected:
                self._losses += 1
                self._is_in_grace = True
                settings.log.info("The connection is lost, and its data is sent again: %s", event.reason)
                connection.call_after(application.GRACE, self._end_grace, self._losses, event)
                return
            if isinstance(event, Connected) and self._is_in_grace:
                self._is_in_grace = False
                self._take_session(event)
                return
            if isinstance(event, ClientFailed):
                self._is_in_grace = False
            elif isinstance(event, ConnectRefused) and event.permanent:
                self._end_grace(self._losses, ConnectionLost(event.reason, event.reason_code))
        super()._process(event)

    def _end_grace(self, number: int, event: ConnectionLost) -> None:
        """Tell the application about a lost connection, unless it came back in the meantime."""
        if self._is_in_grace and number == self._losses:
            self._is_in_grace = False
            super()._process(event)

    def disconnect(self) -> MQTTErrorCode:
        """As ``TBDeviceMqttClient.disconnect``."""
        self._is_in_grace = False
        return super().disconnect()

    def _report_refused(self, device: str, refused: list[str]) -> None:
        if self._application is None:
            super()._report_refused(device, refused)
        else:
            self._application.refusals.report(device, len(refused), refused)

    def send_telemetry(
        self, telemetry: Any, quality_of_service: int | None = None, timeout: float = settings.DEFAULT_TIMEOUT
    ) -> TBPublishInfo:
        """As ``TBDeviceMqttClient.send_telemetry``; what the IoT Gateway sends again is not sent while the client still has it."""
        send = partial(super().send_telemetry, quality_of_service=quality_of_service, timeout=timeout)
        return send(telemetry) if self._application is None else self._application.telemetry("", telemetry, send)

    def send_attributes(
        self, attributes: Any, quality_of_service: int | None = None, timeout: float = settings.DEFAULT_TIMEOUT
    ) -> TBPublishInfo:
        """As ``TBDeviceMqttClient.send_attributes``."""
        send = partial(super().send_attributes, quality_of_service=quality_of_service, timeout=timeout)
        return send(attributes) if self._application is None else self._application.attributes("", attributes, send)

    def _take_limits(self, device: Mapping[str, Any], sub_devices: Mapping[str, Any]) -> None:
        super()._take_limits(device, sub_devices)
        show_limits(
            sub_devices,
            messages=self._devices_connected_through_gateway_messages_rate_limit,
            telemetryMessages=self._devices_connected_through_gateway_telemetry_messages_rate_limit,
            telemetryDataPoints=self._devices_connected_through_gateway_telemetry_datapoints_rate_limit,
        )

    def _on_connect(self, client: Any, userdata: Any, flags: Any, result_code: Any, properties: Any, *extra_params: Any) -> None:
        if result_code == 0:
            topics = (GATEWAY_ATTRIBUTES_TOPIC, GATEWAY_ATTRIBUTES_RESPONSE_TOPIC, GATEWAY_RPC_TOPIC)
            self._gw_subscriptions = dict(enumerate(topics, 1))
        super()._on_connect(client, userdata, flags, result_code, properties, *extra_params)

    def get_subscriptions_in_progress(self) -> bool:
        """Return False: the client subscribes before it is connected."""
        return False

    # Sub-devices.

    def _gateway_core(self) -> GatewayCore | None:
        core = self._connection.core if self._connection is not None else None
        return core if isinstance(core, GatewayCore) else None

    def _identity(self, device: str) -> DeviceIdentity:
        """Return the identity of a sub-device, which is announced if it is not known.

        Raises:
            NotConnectedError: ``connect`` was not called, or the client is disconnected.
            ValueError: The name cannot be one.
        """
        core, connection = self._gateway_core(), self._connection
        if core is None or connection is None:
            raise NotConnectedError("connect() was not called")
        session = core.find_session(device)
        if session is None:
            session = connection.run(partial(core.announced_session, device))
        return session.identity

    def gw_connect_device(self, device_name: str, device_type: str = "default") -> TBPublishInfo:
        """Announce a sub-device, which is announced again after each reconnect.

        Args:
            device_name: The name.
            device_type: The profile of a device that is created.
        """
        return self._of_device(device_name, lambda core: core.announced(device_name, device_type))

    def gw_disconnect_device(self, device_name: str) -> TBPublishInfo:
        """Disconnect a sub-device, which is not announced again."""
        core = self._gateway_core()
        session = core.device_manager.get_by_name(device_name) if core is not None else None
        if session is None and core is not None:
            return TBPublishInfo([])
        return self._of_device(device_name, lambda core: core.leave(device_name))

    def _of_device(self, device: str, make: Callable[[GatewayCore], Any]) -> TBPublishInfo:
        """Send a message without datapoints for a sub-device. What cannot be sent is logged, and has a code."""
        core, connection = self._gateway_core(), self._connection
        if core is None or connection is None:
            return self._not_sent("connect() was not called")
        try:
            return TBPublishInfo([connection.deliver(partial(make, core))])
        except NotConnectedError as error:
            return self._not_sent(str(error))
        except (ValueError, TypeError) as error:
            settings.log.error("A message of %r is not sent: %s", device, error)
            return TBPublishInfo([RefusedMessage(connection)])

    def gw_send_telemetry(self, device: str, telemetry: Any, quality_of_service: int = 1) -> TBPublishInfo:
        """Send timeseries of a sub-device.

        Args:
            device: The name of the sub-device.
            telemetry: As for ``send_telemetry``. Records may have ``metadata`` with ``connector`` and ``receivedTs``.
            quality_of_service: 0 or 1; QoS 1 is used.

        Returns:
            The result; its ``get`` waits.

        Raises:
            TypeError: A value cannot be written as JSON; not in the IoT Gateway, which would skip other data then.
            TBQoSException: ``quality_of_service`` is neither 0 nor 1.
        """
        if quality_of_service != 1:
            self._check_qos(quality_of_service)
        application, connection = self._application, self._connection
        if application is None:
            return self._send_telemetry_of(device, telemetry)
        if connection is not None and device and not application.may_have_sent(device):
            record = ApplicationRecord(connection, device, telemetry, application)
            if connection.core.send_record(device, telemetry, record):
                application.note(record)
                return record
        return application.telemetry(device, telemetry, partial(self._send_telemetry_of, device))

    def _send_telemetry_of(self, device: str, telemetry: Any) -> TBPublishInfo:
        connection = self._connection
        if connection is not None and device and connection.core.send_record(device, telemetry, record := RecordInfo(connection)):
            return record
        time = self._times.of(device, telemetry)
        info = self._send_of(device, partial(encode_timeseries, telemetry, time, refuses_types=self._refuses_types))
        return self._times.sent(device, time, info)

    def gw_send_attributes(self, device: str, attributes: Any, quality_of_service: int = 1) -> TBPublishInfo:
        """Send client attributes of a sub-device.

        Args:
            device: The name of the sub-device.
            attributes: As for ``send_attributes``.
            quality_of_service: 0 or 1; QoS 1 is used.

        Returns:
            The result; its ``get`` waits.

        Raises:
            TypeError: A value cannot be written as JSON; not in the IoT Gateway, which would skip other data then.
            TBQoSException: ``quality_of_service`` is neither 0 nor 1.
        """
        self._check_qos(quality_of_service)
        send = partial(self._send_attributes_of, device)
        return send(attributes) if self._application is None else self._application.attributes(device, attributes, send)

    def _send_attributes_of(self, device: str, attributes: Any) -> TBPublishInfo:
        return self._send_of(device, partial(encode_attributes, attributes, refuses_types=self._refuses_types))

    def _send_of(self, device: str, encode: Callable[[DeviceIdentity], Any]) -> TBPublishInfo:
        connection = self._connection
        try:
            return self._send(encode(self._identity(device)), device)
        except NotConnectedError as error:
            return self._not_sent(str(error))
        except (ValueError, TypeError) as error:
            if isinstance(error, TypeError) and self._application is None:
                raise
            # The name cannot be that of a device.
            self._report_refused(device, [str(error)])
        return self._not_sent("connect() was not called") if connection is None else TBPublishInfo([RefusedMessage(connection)])

    def _publish_to(self, topic: str, content: Any) -> TBPublishInfo:
        sends = {GATEWAY_TELEMETRY_TOPIC: self.gw_send_telemetry, GATEWAY_ATTRIBUTES_TOPIC: self.gw_send_attributes}
        send = sends.get(topic)
        if send is None:
            return super()._publish_to(topic, content)
        if not isinstance(content, Mapping):
            raise ValueError(  # noqa: TRY004  # the payload has the wrong content, not the argument the wrong type
                f"payload must have the data of each device by its name on {topic}, not {content!r:.100}"
            )
        infos = [send(device, data) for device, data in content.items()]
        return TBPublishInfo([message for info in infos for message in info.message_info])

    def gw_claim(
        self, device_name: str, secret_key: str, duration: int, claiming_request: Mapping[str, Any] | None = None
    ) -> TBPublishInfo:
        """Allow users who know a secret to claim a sub-device.

        Args:
            device_name: The name of the sub-device.
            secret_key: The secret.
            duration: Milliseconds for which the device can be claimed.
            claiming_request: ``{device: {"secretKey": secret, "durationMs": milliseconds}}`` in place of the other arguments.
        """
        request = claiming_request or {device_name: {"secretKey": secret_key, "durationMs": duration}}
        return self._deliver(GATEWAY_CLAIMING_TOPIC, dumps(request))

    def gw_send_rpc_reply(self, device: str, req_id: int, resp: Any, quality_of_service: int | None = None) -> TBPublishInfo | None:
        """Send the response to a server-side RPC request to a sub-device.

        Args:
            device: The name of the sub-device.
            req_id: The id of the request.
            resp: The result, a JSON value.
            quality_of_service: 0 or 1; another value is logged, and nothing is sent.
        """
        if quality_of_service not in (None, 0, 1):
            settings.log.error("Quality of service must be 0 or 1, not %r: the RPC response is not sent", quality_of_service)
            return None
        payload = dumps({"device": device, "id": req_id, "data": resp})
        return self._of_device(device, lambda core: _publish_of(core, device, payload))

    # Attributes of sub-devices.

    def gw_request_shared_attributes(self, device_name: str, keys: Iterable[str], callback: Any) -> TBPublishInfo:
        """Request shared attributes of a sub-device.

        Args:
            device_name: The name of the sub-device.
            keys: The keys.
            callback: Gets ``{"id", "device", "value" or "values"}`` and ``None``; ``None`` and a ``TBTimeoutException`` if there is
                no response in 20 s. With ``(callback, extra)``, it gets ``extra`` as the third argument.
        """
        return self._request_of(device_name, keys, callback, of_client=False)

    def gw_request_client_attributes(self, device_name: str, keys: Iterable[str], callback: Any) -> TBPublishInfo:
        """Request client attributes of a sub-device, as ``gw_request_shared_attributes`` requests shared ones."""
        return self._request_of(device_name, keys, callback, of_client=True)

    def _request_of(self, device: str, keys: Iterable[str], callback: Any, *, of_client: bool) -> TBPublishInfo:
        names = [keys] if isinstance(keys, str) else list(keys)
        shared, client = (None, names) if of_client else (names, None)
        return self._request(
            GATEWAY_ATTRIBUTES_REQUEST_TOPIC,
            lambda core, answer: core.request_device_content(device, shared, client, answer),
            partial(pass_on, callback),
        )

    def gw_subscribe_to_all_attributes(self, callback: Callable[[Any], Any]) -> int:
        """Call a function with all updates of shared attributes of all sub-devices, and return the subscription's number."""
        return self.gw_subscribe_to_attribute("*", "*", callback)

    def gw_subscribe_to_all_device_attributes(self, device: str, callback: Callable[[Any], Any]) -> int:
        """Call a function with all updates of a sub-device's shared attributes, and return the subscription's number."""
        return self.gw_subscribe_to_attribute(device, "*", callback)

    def gw_subscribe_to_attribute(self, device: str, attribute: str, callback: Callable[[Any], Any]) -> int:
        """Call a function with updates of a sub-device's shared attribute, in place of an earlier function for it.

        Args:
            device: The name of the sub-device; ``"*"`` for all.
            attribute: The key; ``"*"`` for all.
            callback: Gets ``{"device": name, "data": {key: value}}``.

        Returns:
            The number of the subscription, which is kept until it is removed, also after a reconnect.
        """
        return self._sub_device_updates.replace((device, attribute), callback)

    def gw_unsubscribe(self, subscription_id: int | str) -> None:
        """Remove a subscription by its number, or all with ``"*"``."""
        self._sub_device_updates.remove(subscription_id)

    def gw_set_server_side_rpc_request_handler(self, handler: Callable[[Any, Any], Any] | None) -> None:
        """Set the function that gets this client and ``{"device", "data": {"id", "method", "params"}}`` of RPC requests."""
        self.devices_server_side_rpc_request_handler = handler

    def _on_decoded_message(self, content: Any, message: Any, **kwargs: Any) -> None:
        topic = message.topic
        if topic == GATEWAY_ATTRIBUTES_TOPIC:
            device, data = content.get("device"), content.get("data") or {}
            places = [("*", "*"), (device, "*"), *((device, key) for key in data)]
            for callback in self._sub_device_updates.callbacks(*places):
                callback(content)
        elif topic == GATEWAY_RPC_TOPIC:
            if self.devices_server_side_rpc_request_handler is not None:
                self.devices_server_side_rpc_request_handler(self, content)
        elif topic == GATEWAY_DISCONNECT_TOPIC:
            if self.device_disconnect_callback is not None:
                self.device_disconnect_callback(self, content)
        else:
            super()._on_decoded_message(content, message)


async def _publish_of(core: GatewayCore, device: str, payload: bytes) -> Any:
    session = await core.announced_session(device)
    return await core.publish_for(GATEWAY_RPC_TOPIC, payload, session.identity)
