"""Subscriptions and downlinks of one session (docs/platform_contract.md, sections 1 and 2)."""

from __future__ import annotations

from typing import Any

from tb_mqtt_client.emulator import codec, payloads
from tb_mqtt_client.emulator.codec import MQTT_5, NO_SUBSCRIPTION_EXISTED, SUCCESS, TOPIC_FILTER_INVALID
from tb_mqtt_client.emulator.devices import Device, PendingRpc
from tb_mqtt_client.emulator.platform import SessionView
from tb_mqtt_client.emulator.topics import ATTRIBUTE_UPDATES, RPC_REQUESTS, SUBSCRIBABLE, matching_filter, needs_subscription


class Downlinks:
    """Manages the subscriptions of one client and sends its downlinks."""

    def __init__(self, session: SessionView) -> None:
        self._session = session
        self._platform = session.platform
        self._subscriptions: dict[str, int] = {}
        # Downlinks use the topic family of the latest subscription.
        self._attributes_filter: str | None = None
        self._rpc_filter: str | None = None
        self._unacknowledged_rpc: dict[int, PendingRpc] = {}

    @property
    def subscriptions(self) -> frozenset[str]:
        """The topic filters to which the client is subscribed."""
        return frozenset(self._subscriptions)

    def subscribe(self, first_byte: int, body: bytes) -> None:
        """Process a SUBSCRIBE."""
        packet_id, subscriptions = codec.decode_subscribe(first_byte, body, self._session.level)
        granted = []
        for topic_filter, qos in subscriptions:
            if topic_filter in SUBSCRIBABLE:
                if self._takes_effect(topic_filter):
                    self._begin(topic_filter, min(qos, 1))
                granted.append(min(qos, 1))
            else:
                granted.append(TOPIC_FILTER_INVALID if self._session.level >= MQTT_5 else 0x80)
        self._session.write(codec.encode_suback(packet_id, granted, self._session.level))
        device = self._session.device
        if device is not None and any(topic_filter in RPC_REQUESTS for topic_filter, _ in subscriptions):
            self._platform.rpc.subscribed(device)

    def unsubscribe(self, first_byte: int, body: bytes) -> None:
        """Process an UNSUBSCRIBE."""
        packet_id, filters = codec.decode_unsubscribe(first_byte, body, self._session.level)
        codes = []
        for topic_filter in filters:
            if topic_filter not in self._subscriptions:
                codes.append(NO_SUBSCRIPTION_EXISTED)
            else:
                codes.append(SUCCESS)
                if self._takes_effect(topic_filter):
                    self._end(topic_filter)
        self._session.write(codec.encode_unsuback(packet_id, codes, self._session.level))

    def send(self, topic: str, payload: bytes) -> bool:
        """Send a message. Return False if its topic needs a subscription that the client does not have."""
        topic_filter = matching_filter(topic) or ""
        if needs_subscription(topic_filter) and topic_filter not in self._subscriptions:
            return False
        # Without a subscription the platform sends at QoS 1 (docs/platform_contract.md, fact 7).
        qos = self._subscriptions.get(topic_filter, 1)
        if qos:
            self._session.last_downlink_id += 1
        self._session.count("downlinks")
        self._session.write(codec.encode_publish(topic, payload, qos, self._session.last_downlink_id % 65536, self._session.level))
        return True

    def send_attributes(self, values: dict[str, Any]) -> bool:
        """Send an attribute update, or `{"deleted": [...]}`, to the client itself. Return False if it is not subscribed."""
        return self._attributes_filter is not None and self.send(self._attributes_filter, payloads.encode_json(values))

    def send_rpc(self, device: Device, rpc: PendingRpc) -> bool:
        """Send an RPC request to the client itself. Return False if it is not subscribed."""
        topic_filter = self._rpc_filter
        request = payloads.encode_json({"method": rpc.method, "params": rpc.params})
        if topic_filter is None or not self.send(f"{topic_filter[:-1]}{rpc.id}", request):
            return False
        if self._subscriptions[topic_filter]:
            # The platform gives the request up without a PUBACK (docs/platform_contract.md, section 2).
            downlink_id = self._session.last_downlink_id
            self._unacknowledged_rpc[downlink_id] = rpc
            self._session.timers.after(self._platform.rpc_ack_timeout, self._rpc_unacknowledged, device, downlink_id)
        else:
            self._delivered(device, rpc)
        return True

    def acknowledged(self, packet_id: int) -> None:
        """Process a PUBACK."""
        self._session.count("downlink_pubacks")
        # The platform looks up its unwrapped counter, so it finds no request beyond 65535 (docs/platform_contract.md, section 1).
        rpc = self._unacknowledged_rpc.pop(packet_id, None)
        if rpc is not None and self._session.device is not None:
            self._delivered(self._session.device, rpc)

    def _delivered(self, device: Device, rpc: PendingRpc) -> None:
        # The new status of the RPC takes a message token, but the platform does not check the limit.
        self._platform.meter.take(device, None)
        self._platform.rpc.acknowledged(device, rpc)

    def _rpc_unacknowledged(self, device: Device, downlink_id: int) -> None:
        rpc = self._unacknowledged_rpc.pop(downlink_id, None)
        if rpc is not None:
            self._platform.rpc.unacknowledged(device, rpc)

    def _takes_effect(self, topic_filter: str) -> bool:
        """Take a message token and return True if the subscription takes effect.

        Only some subscriptions reach the core and need a token. Without one the platform acknowledges the subscription nevertheless
        (docs/platform_contract.md, section 2).
        """
        device = self._session.device
        return device is None or not needs_subscription(topic_filter) or self._platform.meter.take(device, None)

    def _begin(self, topic_filter: str, qos: int) -> None:
        self._subscriptions[topic_filter] = qos
        if topic_filter in ATTRIBUTE_UPDATES:
            self._attributes_filter = topic_filter
        elif topic_filter in RPC_REQUESTS:
            self._rpc_filter = topic_filter

    def _end(self, topic_filter: str) -> None:
        """End a subscription; the platform keeps one subscription per kind, across topic families."""
        del self._subscriptions[topic_filter]
        if topic_filter in ATTRIBUTE_UPDATES:
            self._attributes_filter = None
        elif topic_filter in RPC_REQUESTS:
            self._rpc_filter = None
