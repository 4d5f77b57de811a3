"""Requests, responses and updates of a device: JSON forms, refused arguments, copies and equality."""

import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest

from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.request_ids import (
    LARGEST_ID,
    AttributeRequestIdProducer,
    RequestIds,
    RPCRequestIdProducer,
)
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse, RPCStatus
from tb_mqtt_client.entities.gateway_event import GatewayEventType


async def one_of_each():
    return [
        await AttributeRequest.build(["a", "b"], None),
        AttributeUpdate([AttributeEntry("a", {"b": [1]})], deleted_keys=["c"]),
        RequestedAttributeResponse(3, [AttributeEntry("a", 1)], [AttributeEntry("b", None)]),
        await RPCRequest.build("method", {"a": [1, None]}),
        RPCResponse.build(0, {"a": 1}),
        RPCResponse.build("7", error={"code": 3}),
        RPCResponse.timed_out(1, TimeoutError("late")),
        ClaimRequest.build("secret", 10),
    ]


async def test_defect_71_values_can_be_copied_and_pickled():
    for value in await one_of_each():
        for again in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert type(again) is type(value)
            assert again == value
            assert again is not value
            assert repr(again) == repr(value)


async def test_a_deep_copy_does_not_share_lists():
    request = await AttributeRequest.build(["a"])
    deep = copy.deepcopy(request)
    deep.shared_keys.append("b")
    assert request.shared_keys == ["a"]


@pytest.mark.parametrize("cls", [AttributeRequest, RPCRequest, RPCResponse, ClaimRequest])
def test_direct_construction_is_refused(cls):
    for arguments in ((), (1, "a"), (1, None, None)):
        with pytest.raises(TypeError, match=f"^Direct instantiation of {cls.__name__} is not allowed"):
            cls(*arguments)


async def test_values_are_immutable():
    for value in await one_of_each():
        if isinstance(value, AttributeUpdate):
            continue
        with pytest.raises(FrozenInstanceError):
            value.request_id = 5


# Attribute requests.


@pytest.mark.parametrize(
    ("shared", "client", "payload"),
    [
        (None, None, {}),
        (["a", "b"], ["c"], {"sharedKeys": "a,b", "clientKeys": "c"}),
        (["a"], None, {"sharedKeys": "a"}),
        (None, ["é x"], {"clientKeys": "é x"}),
        (["a"], [], {"sharedKeys": "a"}),
        ([], ["c"], {"clientKeys": "c"}),
    ],
)
async def test_contract_9_an_empty_list_asks_for_nothing(shared, client, payload):
    request = await AttributeRequest.build(shared, client)
    assert request.to_payload_format() == payload
    assert (request.shared_keys, request.client_keys) == (shared, client)


@pytest.mark.parametrize("keys", [([], None), (None, []), ([], [])])
async def test_a_request_without_keys_is_refused(keys):
    with pytest.raises(ValueError, match="shared_keys and client_keys request nothing"):
        await AttributeRequest.build(*keys)


@pytest.mark.parametrize("keys", ["abc", ("a",), {"a"}, {"a": 1}, [1], [None], [""], ["a,b"], ["a", b"b"], 5])
async def test_defect_57_keys_are_a_list_of_str(keys):
    with pytest.raises(ValueError, match=r"^shared_keys must be None or a list of non-empty str without commas, not "):
        await AttributeRequest.build(keys)
    with pytest.raises(ValueError, match=r"^client_keys must be None or a list"):
        await AttributeRequest.build(None, keys)


async def test_a_refused_request_uses_no_id():
    AttributeRequestIdProducer.reset()
    with pytest.raises(ValueError, match="shared_keys"):
        await AttributeRequest.build("abc")
    assert (await AttributeRequest.build()).request_id == 1


async def test_a_request_copies_the_lists_of_keys():
    keys = ["a"]
    request = await AttributeRequest.build(keys, keys)
    keys.append("b")
    assert request.shared_keys == request.client_keys == ["a"]


async def test_an_attribute_request_has_the_type_of_its_event():
    request = await AttributeRequest.build(["a"], ["b"])
    assert request.event_type is GatewayEventType.DEVICE_ATTRIBUTE_REQUEST
    assert repr(request) == f"AttributeRequest(id={request.request_id}, shared_keys=['a'], client_keys=['b'])"
    assert str(request) == repr(request)


async def test_defect_48_events_have_a_session():
    for event in (await AttributeRequest.build(), AttributeUpdate([])):
        assert event.device_session is None
        event.set_device_session("session")
        assert event.device_session == "session"


# Attribute updates.


def test_an_attribute_update_is_read_like_a_dict():
    entries = [AttributeEntry("a", 1), AttributeEntry("b", [None])]
    update = AttributeUpdate(entries)
    assert (update.keys(), update.values(), update.items()) == (["a", "b"], [1, [None]], [("a", 1), ("b", [None])])
    assert (update.get("b"), update.get("x"), update.get("x", 5)) == ([None], None, 5)
    assert update.as_dict() == {"a": 1, "b": [None]}
    assert update.deleted_keys == []
    assert update.event_type is GatewayEventType.DEVICE_ATTRIBUTE_UPDATE
    assert repr(update) == "AttributeUpdate(entries=[AttributeEntry(key=a, value=1), AttributeEntry(key=b, value=[None])])"
    assert update == AttributeUpdate(list(entries))
    assert update != AttributeUpdate(entries[:1])
    assert AttributeUpdate([], GatewayEventType.DEVICE_UPDATE).event_type is GatewayEventType.DEVICE_UPDATE
    with pytest.raises(TypeError, match="unhashable"):
        hash(update)


def test_contract_9_deletions_are_told_apart():
    update = AttributeUpdate.from_dict({"deleted": ["a", "b"]})
    assert (update.entries, update.deleted_keys) == ([], ["a", "b"])
    assert repr(update) == "AttributeUpdate(entries=[], deleted_keys=['a', 'b'])"


@pytest.mark.parametrize("data", [{"deleted": 1}, {"deleted": [1]}, {"deleted": "a"}, {"deleted": ["a"], "b": 1}, {}])
def test_attributes_that_resemble_a_deletion_are_values(data):
    update = AttributeUpdate.from_dict(data)
    assert (update.as_dict(), update.deleted_keys) == (data, [])


# Attribute responses.


def test_an_attribute_response_is_read_by_key_and_scope():
    response = RequestedAttributeResponse.from_dict({"shared": {"a": 1, "b": 2}, "client": {"a": 3, "c": None}, "request_id": 9})
    assert (response["a"], response["b"], response["c"], response.request_id) == (1, 2, None, 9)
    with pytest.raises(KeyError, match="Key 'x' not found in shared or client attributes"):
        response["x"]
    assert (response.shared_keys(), response.client_keys()) == (["a", "b"], ["a", "c"])
    assert (response.get_shared("a"), response.get_client("a"), response.get_shared("x", 5)) == (1, 3, 5)
    assert response.as_dict() == {
        "shared": [{"key": "a", "value": 1}, {"key": "b", "value": 2}],
        "client": [{"key": "a", "value": 3}, {"key": "c", "value": None}],
    }
    assert RequestedAttributeResponse.from_dict({}) == RequestedAttributeResponse(-1, [], [])
    assert repr(RequestedAttributeResponse(1, [], [])) == "RequestedAttributeResponse(request_id=1, shared=[], client=[])"


@pytest.mark.parametrize("data", [{"shared": []}, {"client": "x"}, {"shared": {"": 1}}, {"shared": {"a": float("nan")}}])
def test_invalid_attribute_responses_are_refused(data):
    with pytest.raises(ValueError, match=r"."):
        RequestedAttributeResponse.from_dict(data)


# RPC.


async def test_an_rpc_request_has_an_id_and_its_json_form():
    first, second = await RPCRequest.build("m"), await RPCRequest.build("m", {"a": 1})
    assert second.request_id == first.request_id + 1
    assert first.to_payload_format() == {"id": first.request_id, "method": "m"}
    assert second.to_payload_format() == {"id": second.request_id, "method": "m", "params": {"a": 1}}
    assert repr(second) == str(second) == f"RPCRequest(id={second.request_id}, method=m, params={{'a': 1}})"
    for params in (0, "", [], False):
        assert (await RPCRequest.build("m", params)).to_payload_format()["params"] == params


@pytest.mark.parametrize(("method", "params"), [(None, None), (b"m", None), (1, None), ("m", {1}), ("m", float("nan"))])
async def test_invalid_rpc_requests_are_refused(method, params):
    with pytest.raises(ValueError, match="Method must be a string" if not isinstance(method, str) else "JSON value"):
        await RPCRequest.build(method, params)


def test_a_server_side_rpc_request_is_read_or_refused():
    request = RPCRequest.from_dict(0, {"method": "m", "params": None, "other": 1})
    assert (request.request_id, request.method, request.params) == (0, "m", None)
    for request_id in (None, 1.5, True):
        with pytest.raises(ValueError, match="Missing request id in RPC request"):
            RPCRequest.from_dict(request_id, {"method": "m"})
    for data in ({}, {"method": None}, {"method": 5}):
        with pytest.raises(ValueError, match="Missing 'method' in RPC request"):
            RPCRequest.from_dict(1, data)


def test_an_rpc_response_has_a_status_and_its_json_form():
    response = RPCResponse.build(0, {"a": 1})
    assert (response.status, response.to_payload_format()) == (RPCStatus.SUCCESS, {"result": {"a": 1}})
    assert RPCResponse.build(0).to_payload_format() == {}
    assert RPCResponse.build(0, 0).to_payload_format() == {"result": 0}
    failed = RPCResponse.build(5, 1, "wrong")
    assert (failed.status, failed.to_payload_format()) == (RPCStatus.ERROR, {"result": 1, "error": "wrong"})
    assert repr(failed) == "RPCResponse(request_id=5, result=1, error=wrong)"
    assert failed == RPCResponse.build(5, 1, "wrong") != RPCResponse.build(5, 1, "other")
    assert RPCResponse.build(5, error={"code": 1}).error == {"code": 1}
    assert str(RPCStatus.TIMEOUT) == "TIMEOUT"


def test_an_exception_becomes_the_error_of_an_rpc_response():
    with pytest.raises(KeyError) as caught:
        {}["missing"]
    error = RPCResponse.build(1, error=caught.value).error
    assert (error["message"], error["type"]) == ("'missing'", "KeyError")
    assert '{}["missing"]' in error["details"]
    assert RPCResponse.build(1, error=ValueError("unraised")).error["details"] == "ValueError: unraised\n"


@pytest.mark.parametrize("error", [1, ["a"], b"x", object()])
def test_an_invalid_error_of_an_rpc_response_is_refused(error):
    with pytest.raises(ValueError, match="Error must be a string, dictionary, or an exception instance"):
        RPCResponse.build(1, error=error)


def test_rpc_responses_that_json_cannot_express_are_refused():
    with pytest.raises(ValueError, match=r"\$\.a"):
        RPCResponse.build(1, {"a": object()})
    with pytest.raises(ValueError, match=r"\$\.a"):
        RPCResponse.build(1, error={"a": {1}})


@pytest.mark.parametrize(
    ("reply", "status", "error"),
    [
        ({"value": 1}, RPCStatus.SUCCESS, None),
        ({"value": 1, "error": None}, RPCStatus.SUCCESS, None),
        (None, RPCStatus.SUCCESS, None),
        ("timeout", RPCStatus.SUCCESS, None),
        (["error"], RPCStatus.SUCCESS, None),
        ({"error": "no rule"}, RPCStatus.ERROR, "no rule"),
        ({"error": {"code": 5}, "value": 1}, RPCStatus.ERROR, {"code": 5}),
        ({"error": 0}, RPCStatus.ERROR, 0),
        ({"error": "timeout"}, RPCStatus.TIMEOUT, "timeout"),
    ],
)
def test_contract_9_result_error_and_timeout_are_three_outcomes(reply, status, error):
    response = RPCResponse.of_reply(4, reply)
    assert (response.status, response.error, response.result, response.request_id) == (status, error, reply, 4)


def test_an_rpc_response_after_a_timeout_has_that_status():
    response = RPCResponse.timed_out(1, TimeoutError("late"))
    assert (response.status, response.error["type"], response.result) == (RPCStatus.TIMEOUT, "TimeoutError", None)


# Claiming.


@pytest.mark.parametrize(
    ("request_", "payload"),
    [
        (ClaimRequest.build("s", 10), {"secretKey": "s", "durationMs": 10_000}),
        (ClaimRequest.build("s", 0), {"secretKey": "s", "durationMs": 0}),
        (ClaimRequest.build("", None), {"secretKey": ""}),
        (ClaimRequest.build(), {"secretKey": "", "durationMs": 60_000_000}),
    ],
)
def test_contract_9_claim_duration_in_seconds_and_empty_secret(request_, payload):
    assert request_.to_payload_format() == payload


def test_defect_56_the_default_duration_is_the_documented_one():
    assert ClaimRequest.build("s").duration == 60_000 == 16 * 3600 + 40 * 60


def test_a_claim_request_hides_its_secret_and_checks_its_arguments():
    request = ClaimRequest.build("s", 10)
    assert hash(request) == hash(ClaimRequest.build("s", 10))
    assert repr(request) == "ClaimRequest(secret_key=***, duration=10)"
    assert repr(ClaimRequest.build("", 10)) == "ClaimRequest(secret_key=, duration=10)"
    for secret in (None, 5, b"s"):
        with pytest.raises(ValueError, match="Secret key must be a string"):
            ClaimRequest.build(secret)
    with pytest.raises(ValueError, match="surrogate"):
        ClaimRequest.build("\ud800")
    for duration in (-1, 1.5, "5", True, 2**63 // 1000 + 1):
        with pytest.raises(ValueError, match="Duration must be a non-negative integer representing seconds"):
            ClaimRequest.build("s", duration)


# Ids.


async def test_producers_of_request_ids_count_from_1():
    for producer in (RPCRequestIdProducer, AttributeRequestIdProducer):
        producer.reset()
        assert [await producer.get_next(), await producer.get_next()] == [1, 2]
    RPCRequestIdProducer.reset()
    assert (await RPCRequestIdProducer.get_next(), await AttributeRequestIdProducer.get_next()) == (1, 3)


def test_ids_on_the_wire_are_32_bit_and_not_in_use():
    first, second = RequestIds(), RequestIds()
    assert [first.next(), first.next(), second.next()] == [1, 2, 1]
    near_the_end = RequestIds(LARGEST_ID - 1)
    assert [near_the_end.next(), near_the_end.next(in_use={1, 2})] == [2**31 - 1, 3]
