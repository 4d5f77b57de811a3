"""Each message has a kind, by which the pipeline counts, queues and retries it."""

import pytest

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants import mqtt_topics
from tb_mqtt_client.constants.mqtt_topics import MessageKind, Route, route_of
from tb_mqtt_client.service.delivery.work_item import WorkItem


@pytest.mark.parametrize(
    ("topic", "kind", "of_sub_devices"),
    [
        ("v1/devices/me/telemetry", MessageKind.TELEMETRY, False),
        ("v2/t", MessageKind.TELEMETRY, False),
        ("v2/t/j", MessageKind.TELEMETRY, False),
        ("v1/devices/me/attributes", MessageKind.ATTRIBUTES, False),
        ("v2/a/p", MessageKind.ATTRIBUTES, False),
        (mqtt_topics.build_device_attributes_request_topic(7), MessageKind.REQUEST, False),
        ("v2/a/req/7", MessageKind.REQUEST, False),
        (mqtt_topics.build_device_rpc_request_topic(7), MessageKind.REQUEST, False),
        (mqtt_topics.build_device_rpc_response_topic(7), MessageKind.RESPONSE, False),
        (mqtt_topics.build_firmware_update_request_topic(7, 1), MessageKind.REQUEST, False),
        (mqtt_topics.build_software_update_request_topic(7, 1), MessageKind.REQUEST, False),
        ("v1/devices/me/claim", MessageKind.CLAIM, False),
        ("/provision/request", MessageKind.REQUEST, False),
        ("v1/gateway/connect", MessageKind.DEVICE_CONNECT, True),
        ("v1/gateway/disconnect", MessageKind.DEVICE_DISCONNECT, True),
        ("v1/gateway/telemetry", MessageKind.TELEMETRY, True),
        ("v1/gateway/attributes", MessageKind.ATTRIBUTES, True),
        ("v1/gateway/attributes/request", MessageKind.REQUEST, True),
        ("v1/gateway/rpc", MessageKind.RESPONSE, True),
        ("v1/gateway/claim", MessageKind.CLAIM, True),
        ("another/topic", MessageKind.OTHER, False),
    ],
)
def test_the_topic_of_a_message_determines_its_kind(topic, kind, of_sub_devices):
    assert route_of(topic) == (kind, of_sub_devices)
    message = MqttPublishMessage(topic, b"{}")
    has_datapoints = kind in {MessageKind.TELEMETRY, MessageKind.ATTRIBUTES}
    assert (message.is_service_message, message.is_device_message) == (not has_datapoints, not of_sub_devices)
    item = WorkItem(message, [])
    assert (item.kind, item.has_datapoints, item.of_sub_devices) == (kind, has_datapoints, of_sub_devices)
    assert item.is_announcement is (topic == "v1/gateway/connect")


def test_a_given_kind_has_precedence_over_that_of_the_topic():
    message = MqttPublishMessage("v1/devices/me/attributes", b"{}", route=Route(MessageKind.KEEP_ALIVE))
    assert message.is_service_message
