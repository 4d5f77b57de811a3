"""``PublishResult`` and the names of reason codes."""

import pytest

from tb_mqtt_client import PublishResult
from tb_mqtt_client.constants.reason_codes import ReasonCode, connect_return_name, reason_name


def result(reason_code=0, size=10, datapoints=1, topic="t"):
    return PublishResult(topic, 1, 7, size, reason_code, datapoints)


def test_merged_results_have_sums_and_the_worst_reason_code():
    merged = PublishResult.merge([result(0, 10, 2), result(0x97, 20, 3, "u"), result(0x83, 5, 1), result(-1, 1, 1)])
    assert merged == PublishResult("t", 1, -1, 36, 0x97, 7)
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
