"""Passes messages of topics to callbacks of the program, in addition to what the client does with them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from tb_mqtt_client.service.requests.callbacks import Callback, call_reporting, require_callable
from tb_mqtt_client.service.requests.dispatch import InboundDispatcher, InboundReport


class RawSubscriptions:
    """The topic filters for which the program has callbacks, and their subscriptions."""

    def __init__(self, dispatcher: InboundDispatcher, report: InboundReport) -> None:
        """Start without callbacks.

        Args:
            dispatcher: Passes the messages on.
            report: Counts and logs the exceptions of callbacks.
        """
        self._dispatcher = dispatcher
        self._report = report
        self._filters: list[str] = []

    def topics(self, others: Collection[str]) -> list[str]:
        """Return the topic filters to subscribe to, except ``others``, to which the client subscribes anyway."""
        return [topic_filter for topic_filter in dict.fromkeys(self._filters) if topic_filter not in others]

    def add(self, topic_filter: str, callback: Callback[None]) -> Callable[[], bool]:
        """Call a function with topic and payload of each message that matches a filter.

        Returns:
            A function that ends this. It returns True if the subscription is no longer needed.

        Raises:
            ValueError: The filter is not valid in MQTT.
            TypeError: ``callback`` cannot be called.
        """
        require_callable("callback", callback)
        _check_filter(topic_filter)
        what = f"messages of {topic_filter}"
        remove = self._dispatcher.register_further(topic_filter, partial(call_reporting, self._report, what, callback))
        self._filters.append(topic_filter)
        is_removed = False

        def end() -> bool:
            nonlocal is_removed
            if is_removed:
                return False
            is_removed = True
            remove()
            self._filters.remove(topic_filter)
            return topic_filter not in self._filters

        return end


def _check_filter(topic_filter: str) -> None:
    """Check a topic filter by MQTT 5, section 4.7."""
    if not isinstance(topic_filter, str):
        raise TypeError(f"topic_filter must be a str, not {topic_filter!r}")
    levels = topic_filter.split("/")
    wildcards_are_levels = all(level in {"+", "#"} or not {"+", "#"} & {*level} for level in levels)
    if not topic_filter or "\0" in topic_filter or not wildcards_are_levels or "#" in levels[:-1]:
        raise ValueError(
            f"topic_filter must be a topic, in which + may stand for a level and # for the last ones, not {topic_filter!r}"
        )
