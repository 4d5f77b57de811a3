"""``PublishResult`` and the names of reason codes."""

import asyncio
import copy
import pickle
import sys

import pytest

from tb_mqtt_client import Certainty, PublishResult
from tb_mqtt_client.common.async_utils import FutureMap
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.reason_codes import ReasonCode, connect_return_name, reason_name
from tb_mqtt_client.service.delivery.work_item import WorkItem

DELIVERED, REFUSED, NEVER_SENT = Certainty.DELIVERED, Certainty.REFUSED, Certainty.NEVER_SENT
UNKNOWN, PENDING, KEPT = Certainty.UNKNOWN, Certainty.PENDING, Certainty.KEPT


def result(reason_code=0, size=10, datapoints=1, topic="t"):
    return PublishResult(topic, 1, 7, size, reason_code, datapoints)


def test_merged_results_have_sums_and_the_worst_reason_code():
    merged = PublishResult.merge([result(0, 10, 2), result(0x97, 20, 3, "u"), result(0x83, 5, 1), result(-1, 1, 1)])
    assert merged == PublishResult("t", 1, -1, 36, 0x97, 7).with_certainty(UNKNOWN)
    assert not merged.is_successful()
    assert PublishResult.merge([result(0), result(-1)]).reason_code == -1
    assert PublishResult.merge([result(), result()]).is_successful()
    with pytest.raises(ValueError, match="No publish results"):
        PublishResult.merge([])


def test_a_result_has_a_dict_a_text_and_no_hash():
    one = PublishResult("t", None, 3, 4, 0)
    assert one.as_dict() == {
        "topic": "t",
        "qos": 1,
        "message_id": 3,
        "payload_size": 4,
        "reason_code": 0,
        "datapoints_count": 0,
    }
    assert repr(one) == "PublishResult(topic=t, qos=1, message_id=3, payload_size=4, reason_code=0, datapoints_count=0)"
    assert one != "t"
    assert one.with_datapoints(9) == PublishResult("t", 1, 3, 4, 0, 9)
    with pytest.raises(TypeError):
        hash(one)


@pytest.mark.parametrize(
    ("code", "certainty"), [(0, DELIVERED), (0x80, REFUSED), (0x97, REFUSED), (-1, UNKNOWN), (-2, NEVER_SENT), (-4, KEPT)]
)
def test_without_more_knowledge_the_certainty_follows_from_the_reason_code(code, certainty):
    assert result(code).certainty is certainty


@pytest.mark.parametrize("certainty", Certainty)
def test_a_certainty_can_be_set_and_is_kept(certainty):
    one = result(-1).with_certainty(certainty)
    assert one.certainty is certainty
    assert one.with_datapoints(9) == PublishResult("t", 1, 7, 10, -1, 9).with_certainty(certainty)
    assert copy.copy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one
    assert PublishResult.merge([one, one]).certainty is certainty
    assert one.as_dict() == result(-1).as_dict()
    assert (one == result(-1)) is (certainty is UNKNOWN)


def test_a_text_shows_the_certainty_of_data_that_is_not_delivered():
    assert "certainty" not in repr(result())
    assert repr(result(-1).with_certainty(NEVER_SENT)).endswith("reason_code=-1, datapoints_count=1, certainty=never_sent)")
    assert repr(result(0x99)).endswith("certainty=refused)")


def test_a_certainty_does_not_make_other_results_larger():
    assert sys.getsizeof(result()) == sys.getsizeof(result(0x97)) < sys.getsizeof(result(-1).with_certainty(PENDING))


@pytest.mark.parametrize(
    ("parts", "certainty"),
    [
        ([DELIVERED], DELIVERED),
        ([DELIVERED, DELIVERED], DELIVERED),
        ([REFUSED, REFUSED], REFUSED),
        ([NEVER_SENT, NEVER_SENT], NEVER_SENT),
        # The platform has a part of the data: sending everything again would store that part twice.
        ([DELIVERED, NEVER_SENT], UNKNOWN),
        ([DELIVERED, REFUSED], UNKNOWN),
        ([DELIVERED, UNKNOWN], UNKNOWN),
        ([REFUSED, UNKNOWN], UNKNOWN),
        ([NEVER_SENT, UNKNOWN], UNKNOWN),
        # The platform has nothing, and refused a part.
        ([REFUSED, NEVER_SENT], REFUSED),
        ([DELIVERED, KEPT], KEPT),
        ([REFUSED, UNKNOWN, KEPT], KEPT),
        ([DELIVERED, REFUSED, NEVER_SENT, UNKNOWN, KEPT, PENDING], PENDING),
    ],
)
def test_the_certainty_of_a_split_send_is_true_of_all_its_data(parts, certainty):
    results = [result(0 if part is DELIVERED else -1).with_certainty(part) for part in parts]
    assert PublishResult.merge(results).certainty is certainty
    assert PublishResult.merge(results[::-1]).certainty is certainty


async def test_a_message_passes_its_certainty_on_to_its_sends():
    futures = FutureMap()
    loop_future = asyncio.get_running_loop().create_future
    split, small, first, second = loop_future(), loop_future(), loop_future(), loop_future()
    futures.register_shares(first, [(split, 3), (small, 2)])
    futures.register_shares(second, [(split, 1)])
    first.set_result(result(-1, datapoints=5).with_certainty(NEVER_SENT))
    futures.child_resolved(first)
    assert (small.result().datapoints_count, small.result().certainty) == (2, NEVER_SENT)
    second.set_result(result())
    futures.child_resolved(second)
    assert (split.result().datapoints_count, split.result().reason_code, split.result().certainty) == (4, -1, UNKNOWN)


def message(devices=1):
    item = WorkItem(MqttPublishMessage("v1/devices/me/telemetry", b"{}"), [], 1)
    item.devices = devices
    return item


def lost(item):
    item.note_lost()


def refused(item):
    item.message.mark_as_sent(1)
    item.note_refused()


def written(item):
    item.message.mark_as_sent(1)


@pytest.mark.parametrize(
    ("devices", "history", "not_delivered", "refused_by_server"),
    [
        (1, [], NEVER_SENT, REFUSED),
        (1, [written], UNKNOWN, REFUSED),
        (1, [written, lost], UNKNOWN, UNKNOWN),
        # A connection that was closing already when the message should have been written.
        (1, [lost], NEVER_SENT, REFUSED),
        # A refusal for a quota answers a publish, but not one that was lost before.
        (1, [refused], REFUSED, REFUSED),
        (1, [refused, lost], UNKNOWN, UNKNOWN),
        (1, [written, lost, refused], UNKNOWN, UNKNOWN),
        # The platform may have taken the data of some of the devices.
        (2, [refused], UNKNOWN, UNKNOWN),
    ],
)
def test_the_certainty_of_a_message_depends_on_all_its_publishes(devices, history, not_delivered, refused_by_server):
    item = message(devices)
    for event in history:
        event(item)
    assert item.result(-1).certainty is not_delivered
    assert item.result(0x99).certainty is refused_by_server
    assert item.result(0).certainty is DELIVERED


@pytest.mark.parametrize(
    ("code", "part"),
    [
        (0x00, "Success"),
        (0x10, "No matching subscribers"),
        (0x83, "Implementation specific error"),
        (0x87, "Not authorized"),
        (0x8E, "Session taken over"),
        (0x95, "Packet too large"),
        (0x96, "Message rate too high"),
        (0x97, "Quota exceeded"),
        (0x99, "Payload format invalid"),
        (0x9F, "Connection rate exceeded"),
    ],
)
def test_defect_30_contract_9_names_of_the_specification(code, part):
    assert part.lower() in reason_name(code).lower()


def test_other_codes_have_names():
    assert "0x77" in reason_name(0x77).lower()
    assert reason_name(-1)
    assert ReasonCode.PACKET_TOO_LARGE == 0x95
    assert "not authori" in connect_return_name(5, 4).lower()
    assert "bad user name" in connect_return_name(0x86, 5).lower()
