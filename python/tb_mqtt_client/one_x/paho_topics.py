"""What programs of SDK 1.x do with topics through ``client._client``: publish, subscribe, and take messages as paho passes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from tb_mqtt_client.common.exceptions import SubscriptionRefusedError
from tb_mqtt_client.one_x import settings
from tb_mqtt_client.one_x.paho_names import MQTTErrorCode
from tb_mqtt_client.service.requests.dispatch import matches

MessageCallback = Callable[[Any, Any, Any], Any]
"""Gets paho's client, the user data and the message."""
Remove = Callable[[], None]
"""Ends a subscription."""


class Subscriber(Protocol):
    """Subscribes in the current connection and in all later ones."""

    def __call__(self, topic_filter: str) -> Remove:
        """Subscribe, and return a function that ends the subscription.

        Raises:
            ValueError: The filter is not valid.
            SubscriptionRefusedError: The server refuses the subscription.
        """


class Topics:
    """The topic filters that a program has subscribed to, and its callbacks for messages. They outlive connections."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._last_mid = 0
        self._subscriptions: dict[str, Remove | None] = {}
        self._subscribe: Subscriber | None = None
        self._callbacks: dict[str, MessageCallback] = {}

    def open(self, subscribe: Subscriber) -> None:
        """Subscribe to all filters with a new client.

        Args:
            subscribe: Subscribes.
        """
        with self._lock:
            self._subscribe = subscribe
            for topic_filter in self._subscriptions:
                self._add(topic_filter)

    def close(self) -> None:
        """Keep the filters for the next client."""
        with self._lock:
            self._subscribe = None
            self._subscriptions = dict.fromkeys(self._subscriptions)

    def subscribe(self, filters: Iterable[str]) -> tuple[MQTTErrorCode, int | None]:
        """Subscribe to topic filters, now and in each later session.

        Returns:
            paho's code and a number of the subscription. The code is 12 (not authorized) if the server refuses a subscription.

        Raises:
            ValueError: A filter is not valid.
        """
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        with self._lock:
            for topic_filter in filters:
                if topic_filter not in self._subscriptions and not self._add(topic_filter):
                    code = MQTTErrorCode.MQTT_ERR_ACL_DENIED
            self._last_mid += 1
            return code, self._last_mid if code == 0 else None

    def _add(self, topic_filter: str) -> bool:
        if self._subscribe is None:
            self._subscriptions[topic_filter] = None
            return True
        try:
            self._subscriptions[topic_filter] = self._subscribe(topic_filter)
        except SubscriptionRefusedError as error:
            settings.log.error("%s", error)
            return False
        return True

    def unsubscribe(self, filters: Iterable[str]) -> tuple[MQTTErrorCode, int]:
        """End subscriptions of the program. Filters that it has not subscribed to are ignored, as paho does."""
        with self._lock:
            for topic_filter in filters:
                remove = self._subscriptions.pop(topic_filter, None)
                if remove is not None:
                    remove()
            self._last_mid += 1
            return MQTTErrorCode.MQTT_ERR_SUCCESS, self._last_mid

    def set_callback(self, topic_filter: str, callback: MessageCallback) -> None:
        """Pass messages that match a filter to a function, in place of the function for all messages."""
        with self._lock:
            self._callbacks = self._callbacks | {topic_filter: callback}

    def remove_callback(self, topic_filter: str) -> None:
        """Remove the function of a filter, if there is one."""
        with self._lock:
            self._callbacks = {other: one for other, one in self._callbacks.items() if other != topic_filter}

    def callbacks_of(self, topic: str) -> Sequence[MessageCallback]:
        """Return the functions for messages of a topic."""
        return [callback for topic_filter, callback in self._callbacks.items() if matches(topic_filter, topic)]


def topics_of(topic: Any, qos: Any = 0) -> list[str]:
    """Return the topic filters in the arguments of paho's ``subscribe`` and ``unsubscribe``.

    Args:
        topic: A filter, a tuple of a filter and its options, or a list of these.
        qos: Not used: the client chooses the QoS.

    Raises:
        ValueError: There is no filter.
    """
    entries = topic if isinstance(topic, list) else [topic]
    filters = [entry[0] if isinstance(entry, tuple) else entry for entry in entries]
    if not filters or not all(isinstance(one, str) and one for one in filters):
        raise ValueError(f"topic must be a topic filter, a tuple of a filter and its QoS, or a list of these, not {topic!r}")
    return filters
