"""The limit for which a connection ended: data and requests of one client, on a fake clock."""

import pytest

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limiter import unlimited
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.work_item import WorkItem


class Sender:
    """Publishes admitted messages, ten times a second."""

    def __init__(self):
        self.now = 10**9
        backpressure = BackpressureController(clock=lambda: self.now / 1e9)
        self.admission = Admission(unlimited("device"), unlimited("gateway"), backpressure, lambda: self.now)

    def publish(self, seconds, *, requests):
        """Return the messages that were published in the last tenth of a second."""
        for _ in range(seconds * 10):
            self.now += 10**8
            data = [MqttPublishMessage("v1/devices/me/telemetry", b"{}", datapoints=30)]
            others = [MqttPublishMessage(f"v1/devices/me/attributes/request/{number}", b"{}") for number in range(requests)]
            items = [WorkItem(message, [], message.datapoints) for message in (*data, *others)]
            published = [item for item in items if not self.admission.try_take(item)]
        return published

    def limited(self):
        """Return the kinds of traffic of which a limit was learned."""
        return {"data" if "telemetry" in limit["limit"] else "requests" for limit in self.admission.learned_limits()}


@pytest.mark.parametrize(("requests", "expected"), [(2, {"data", "requests"}), (0, {"data"})])
def test_requests_are_blamed_if_slower_data_changes_nothing(requests, expected):
    """The server does not say which limit it is. Data that is slowed down for requests would hardly flow again."""
    sender = Sender()
    sender.admission.disconnected_for_limit(sender.publish(5, requests=requests), "test")
    assert sender.limited() == {"data"}
    for _ in range(20):
        if in_flight := sender.publish(1, requests=requests):
            sender.admission.disconnected_for_limit(in_flight, "test")
            break
    assert sender.limited() == expected
