"""A gateway's messages for its sub-devices: attribute requests, claim requests, and telemetry with metadata."""

import asyncio
import json

import pytest
from gateway_wire import Wire

from engine_parts import engine_of, sub_devices_of
from tb_mqtt_client import GatewayClient, NotConnectedError
from tb_mqtt_client.common.exceptions import RequestRefusedError
from tb_mqtt_client.emulator import Claim, Emulator, RateLimits, SessionLimits, Verdict
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest, GatewayClaimRequestBuilder
from tb_mqtt_client.entities.gateway.telemetry_metadata import TelemetryMetadata

RESPONSE = "v1/gateway/attributes/response"


@pytest.fixture
async def session(emulator, gateway):
    """Connect a device with attributes of both scopes."""
    session, _ = await gateway.connect_device("D1", wait_for_publish=True)
    emulator.device("D1").attributes.update({"c1": 1, "c2": [2], "both": "client"})
    emulator.device("D1").shared_attributes.update({"s1": "x", "s2": None, "both": "shared"})
    return session


def responses_of(session):
    arrived = asyncio.Queue()
    session.set_attribute_response_callback(lambda of_session, response: arrived.put_nowait((of_session, response)))
    return arrived


def request_tasks():
    """Return the running tasks of requests."""
    return {task for task in asyncio.all_tasks() if task.get_name() == "tb-mqtt-client request"}


# Attributes.


@pytest.mark.parametrize(
    ("shared", "client", "messages", "found"),
    [
        (["s1"], None, [{"client": False, "key": "s1"}], ({"s1": "x"}, {})),
        (None, ["c1", "c2"], [{"client": True, "keys": ["c1", "c2"]}], ({}, {"c1": 1, "c2": [2]})),
        ([], ["c1"], [{"client": True, "key": "c1"}], ({}, {"c1": 1})),
        (["missing"], None, [{"client": False, "key": "missing"}], ({}, {})),
        (["missing", "s1"], None, [{"client": False, "keys": ["missing", "s1"]}], ({"s1": "x"}, {})),
        (["s1", "s1"], None, [{"client": False, "key": "s1"}], ({"s1": "x"}, {})),
        (
            ["both"],
            ["both", "c1"],
            [{"client": True, "keys": ["both", "c1"]}, {"client": False, "key": "both"}],
            ({"both": "shared"}, {"both": "client", "c1": 1}),
        ),
    ],
)
async def test_contract_9_an_attribute_request_has_one_scope_a_message(emulator, gateway, session, shared, client, messages, found):
    """A request with both scopes is sent as two messages, and has one response."""
    wire = Wire(emulator)
    response = await gateway.request_device_attributes(session, shared, client)
    requests = [(document.pop("device"), type(document.pop("id")), document) for document in wire.of("attributes/request")]
    assert requests == [("D1", int, message) for message in messages]
    assert ({e.key: e.value for e in response.shared}, {e.key: e.value for e in response.client}) == found
    assert (response.device_name, response.device_session) == ("D1", session)
    assert {publish.qos for publish in wire.publishes} == {1}


@pytest.mark.parametrize("keys", [{}, {"shared_keys": []}, {"shared_keys": [], "client_keys": []}])
async def test_contract_9_an_attribute_request_without_keys_is_refused(emulator, gateway, session, keys):
    """The server would close the gateway's connection."""
    wire = Wire(emulator)
    with pytest.raises(ValueError, match="must name at least one key"):
        await gateway.request_device_attributes(session, **keys)
    with pytest.raises(ValueError, match="must name at least one key"):
        await gateway.send_device_attributes_request(session, await GatewayAttributeRequest.build(session, **keys))
    with pytest.raises(ValueError, match="must name at least one key"):
        await gateway.send_device_attributes_request(session, AttributeRequest.of(1, None, None))
    assert wire.publishes == []


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("kind", [AttributeRequest, GatewayAttributeRequest])
async def test_send_device_attributes_request(emulator, gateway, session, wait, kind):
    """It returns the result of the publishes. The session's callback gets the response, with the id of the request."""
    arrived = responses_of(session)
    owner = [session] if kind is GatewayAttributeRequest else []
    request = await kind.build(*owner, ["s1"], ["c1"])
    sent = await gateway.send_device_attributes_request(session, request, wait_for_publish=wait)
    result = sent if wait else await sent
    assert (result.topic, result.reason_code, result.datapoints_count) == ("v1/gateway/attributes/request", 0, 0)
    of_session, response = await arrived.get()
    assert (of_session, response.request_id, response["s1"], response["c1"]) == (session, request.request_id, "x", 1)


async def test_the_result_of_one_scope_has_a_packet_id(gateway, session):
    request = await AttributeRequest.build(["s1"])
    assert (await gateway.send_device_attributes_request(session, request)).message_id > 0


async def test_defect_39_requests_are_forgotten_after_their_response(emulator, gateway, session):
    """A request may be sent again and again, also on the next connection."""
    arrived = responses_of(session)
    request = await AttributeRequest.build(["s1"], ["c1"])
    for connection in range(2):
        for _ in range(3):
            await gateway.send_device_attributes_request(session, request, wait_for_publish=False)
            with pytest.raises(RuntimeError, match=rf"Request ID {request.request_id} is already registered\."):
                await gateway.send_device_attributes_request(session, request)
            await arrived.get()
        if not connection:
            await emulator.disconnect_device("GATEWAY")
            await gateway.send_device_timeseries(session, {"a": 1})
    await asyncio.sleep(0)
    responses = sub_devices_of(gateway).downlink.attribute_responses
    assert (len(responses.pending), responses.requests) == (0, {})
    assert request_tasks() == set()


async def test_requests_of_several_devices_at_the_same_time(emulator, gateway):
    """Responses may arrive in any order."""
    sessions = [(await gateway.connect_device(f"D{number}"))[0] for number in range(5)]
    for number, session in enumerate(sessions):
        await gateway.send_device_attributes(session, {"n": number, "twice": number * 2})
    wire = Wire(emulator)
    wire.verdict = lambda publish: Verdict.acknowledge() if not publish.topic.endswith("/request") else Verdict.refuse(0)
    requested = [
        asyncio.create_task(gateway.request_device_attributes(session, client_keys=[key]))
        for session in sessions
        for key in ("n", "twice")
    ]
    requests = [await wire.next("attributes/request") for _ in requested]
    assert len({request["id"] for request in requests}) == 10
    for request in reversed(requests):
        value = int(request["device"][1:]) * (2 if request["key"] == "twice" else 1)
        await emulator.publish_to("GATEWAY", RESPONSE, {"id": request["id"], "device": request["device"], "value": value})
    responses = await asyncio.gather(*requested)
    assert [response.client[0].value for response in responses] == [0, 0, 1, 2, 2, 4, 3, 6, 4, 8]


async def test_a_response_with_one_value_for_several_keys(emulator, gateway, session, caplog):
    """The key of the value is unknown."""
    wire = Wire(emulator)
    wire.verdict = lambda publish: Verdict.refuse(0) if publish.topic.endswith("/request") else None
    requested = asyncio.create_task(gateway.request_device_attributes(session, ["a", "b"]))
    request = await wire.next("attributes/request")
    await emulator.publish_to("GATEWAY", RESPONSE, {"id": request["id"], "device": "D1", "value": 1})
    assert (await requested).as_dict() == {"shared": [], "client": []}
    assert "one value for the 2 keys" in caplog.text


async def test_a_response_with_values_for_a_single_key(emulator, gateway, session):
    wire = Wire(emulator)
    wire.verdict = lambda publish: Verdict.refuse(0) if publish.topic.endswith("/request") else None
    requested = asyncio.create_task(gateway.request_device_attributes(session, ["a"]))
    request = await wire.next("attributes/request")
    await emulator.publish_to("GATEWAY", RESPONSE, {"id": request["id"], "device": "D1", "values": {"a": 1}})
    assert (await requested)["a"] == 1


async def test_a_request_without_a_response(emulator, gateway, session, caplog):
    emulator.on_publish = lambda publish: Verdict.refuse(0) if publish.topic.endswith("/request") else None
    with pytest.raises(TimeoutError, match=r"Timed out waiting for attributes of D1 \(requestId=\d+\)"):
        await gateway.request_device_attributes(session, ["a"], ["b"], timeout=0.01)
    result = await gateway.send_device_attributes_request(session, await AttributeRequest.build(["a"]), timeout=0.01)
    assert result.is_successful()
    await asyncio.wait(request_tasks())
    assert "got no response: Timed out waiting for attributes of D1" in caplog.text
    # A late response belongs to no request: a new request has another id.
    await emulator.publish_to("GATEWAY", RESPONSE, {"id": 1, "device": "D1", "value": 1})
    emulator.on_publish = None
    assert (await gateway.request_device_attributes(session, ["s1"]))["s1"] == "x"
    assert gateway.statistics.inbound_unexpected == 1


async def test_a_request_that_the_platform_refuses(emulator, gateway, session):
    emulator.on_publish = lambda publish: Verdict.refuse(0x87) if publish.topic.endswith("/request") else None
    with pytest.raises(RequestRefusedError, match="Not authorized"):
        await gateway.request_device_attributes(session, ["a"], ["b"])
    result = await gateway.send_device_attributes_request(session, await AttributeRequest.build(["a"]))
    assert result.reason_code == 0x87


async def test_a_request_with_one_refused_scope_raises(emulator, gateway, session):
    """A response with only one of the scopes would be incomplete."""
    emulator.on_publish = lambda publish: Verdict.refuse(0x80) if b'"client":false' in publish.payload else None
    with pytest.raises(RequestRefusedError, match="Unspecified error"):
        await gateway.request_device_attributes(session, ["a"], ["c1"])


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_a_request_is_sent_again_after_a_lost_connection(emulator, gateway, session, acknowledged):
    arrived, wire = responses_of(session), Wire(emulator)
    lost = Verdict.refuse(0) if acknowledged else Verdict.ignore()
    wire.verdict = lambda publish: lost if publish.topic.endswith("/request") else None
    sent = await gateway.send_device_attributes_request(
        session, await AttributeRequest.build(["s1"], ["c1"]), wait_for_publish=False
    )
    for _ in range(2):
        await wire.next("attributes/request")
    wire.verdict = lambda _: None
    await emulator.disconnect_device("GATEWAY")
    _, response = await arrived.get()
    assert (response["s1"], response["c1"]) == ("x", 1)
    assert (await sent).is_successful()
    # The requests wait until the device is announced again.
    kinds = [publish.topic.rpartition("gateway/")[2] for publish in wire.publishes]
    assert kinds == ["attributes/request"] * 2 + ["connect"] + ["attributes/request"] * 2


async def test_a_response_after_the_device_was_renamed(emulator, gateway, session):
    wire, states = Wire(emulator), asyncio.Queue()
    wire.verdict = lambda publish: Verdict.refuse(0) if publish.topic.endswith("/request") else None
    requested = asyncio.create_task(gateway.request_device_attributes(session, ["a"]))
    request = await wire.next("attributes/request")
    session.set_state_change_callback(lambda session: states.put_nowait(session.state))
    for name in ("D2", "D3"):
        await emulator.rename_device("D1" if name == "D2" else "D2", name)
        await states.get()
        await states.get()
    await emulator.publish_to("GATEWAY", RESPONSE, {"id": request["id"], "device": "D2", "value": 1})
    response = await requested
    assert (response["a"], response.device_name) == (1, "D3")


async def test_disconnect_ends_requests(emulator, gateway, session):
    emulator.on_publish = lambda publish: Verdict.refuse(0) if publish.topic.endswith("/request") else None
    requested = asyncio.create_task(gateway.request_device_attributes(session, ["a"], ["b"], timeout=None))
    sent = await gateway.send_device_attributes_request(session, await AttributeRequest.build(["a"]))
    assert sent.is_successful()
    await gateway.disconnect()
    with pytest.raises(NotConnectedError, match="the client was disconnected before the response arrived"):
        await requested


async def test_disconnect_device_ends_its_requests(emulator, gateway, session):
    emulator.on_publish = lambda publish: Verdict.refuse(0) if publish.topic.endswith("/request") else None
    requested = asyncio.create_task(gateway.request_device_attributes(session, ["a"], ["b"], timeout=None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await gateway.disconnect_device(session)
    with pytest.raises(NotConnectedError, match="'D1' was disconnected or deleted"):
        await requested


async def test_a_cancelled_request_is_not_published(emulator, make_gateway):
    emulator.limits = SessionLimits(gateway_rate_limits=RateLimits(messages="2:100"))
    gateway = make_gateway(rate_limit_percentage=100)
    await gateway.connect()
    session, _ = await gateway.connect_device("D1", wait_for_publish=True)
    wire = Wire(emulator)
    requested = asyncio.create_task(gateway.request_device_attributes(session, ["a"]))
    for _ in range(5):
        await asyncio.sleep(0)
    requested.cancel()
    await asyncio.wait([requested])
    await asyncio.sleep(0)
    assert engine_of(gateway).message_service.is_empty()
    await gateway.stop()
    assert wire.of("attributes/request") == []


async def test_a_response_callback_that_raises(emulator, gateway, session, caplog):
    session.set_attribute_response_callback(lambda *_: 1 / 0)
    await gateway.send_device_attributes_request(session, await AttributeRequest.build(["s1"]))
    await asyncio.wait(request_tasks())
    assert gateway.statistics.callback_errors == 1
    assert "The callback for requested attributes of D1 failed" in caplog.text
    assert (await gateway.request_device_attributes(session, ["s1"]))["s1"] == "x"


async def test_requests_wait_for_the_announcement_of_their_device(emulator, gateway):
    """Otherwise the platform would create the device with the wrong profile (docs/platform_contract.md, section 4)."""
    wire = Wire(emulator)
    wire.verdict = lambda publish: Verdict.delay(0.02) if publish.topic.endswith("/connect") else None
    session, _ = await gateway.connect_device("D1", "p")
    claim = GatewayClaimRequestBuilder().add_device_request(session, ClaimRequest.build("s")).build()
    await asyncio.gather(
        gateway.request_device_attributes(session, ["a"]),
        gateway.send_device_claim_request(session, claim),
        gateway.send_device_timeseries(session, {"a": 1}),
    )
    assert wire.publishes[0].topic == "v1/gateway/connect"
    assert len(wire.publishes) == 4
    assert emulator.device("D1").profile == "p"


# Claiming.


@pytest.mark.parametrize("wait", [True, False])
async def test_claiming_several_devices(emulator, gateway, session, wait):
    other, _ = await gateway.connect_device("D2")
    request = GatewayClaimRequest.build()
    request.add_device_request(session, ClaimRequest.build("secret", 30))
    request.add_device_request(other, ClaimRequest.build("", None))
    request.add_device_request("D9", ClaimRequest.build("s", 1))
    sent = await gateway.send_device_claim_request(session, request, wait_for_publish=wait)
    result = sent if wait else await sent
    assert (result.topic, result.reason_code, result.datapoints_count, result.qos) == ("v1/gateway/claim", 0, 0, 1)
    claims = {name: emulator.device(name).claims for name in ("D1", "D2", "D9")}
    assert claims == {"D1": [Claim("secret", 30_000)], "D2": [Claim()], "D9": [Claim("s", 1000)]}
    assert request.device_session is None


# Telemetry with metadata.


async def test_metadata_of_telemetry(emulator, gateway, session):
    """The client adds the time of the publish, and the platform removes the metadata from the telemetry."""
    wire = Wire(emulator)
    futures = [
        await gateway.send_device_timeseries(session, {"ts": 5, "values": {"a": 1}}, wait_for_publish=False),
        await gateway.send_device_timeseries(
            session, {"ts": 5, "values": {"a": 2}}, wait_for_publish=False, metadata=TelemetryMetadata("modbus", 1_000)
        ),
        await gateway.send_device_timeseries(session, {"ts": 5, "values": {"a": 3}}, wait_for_publish=False),
        await gateway.send_device_timeseries(
            session, [{"b": 1}, {"ts": 6, "values": {"b": 2}}], False, metadata=TelemetryMetadata('"opc"', 2_000)
        ),
    ]
    results = await asyncio.gather(*futures)
    assert [(result.reason_code, result.datapoints_count) for result in results] == [(0, 1), (0, 1), (0, 1), (0, 2)]
    [payload] = wire.of("telemetry")
    published = payload["D1"][1]["metadata"]["publishedTs"]
    assert published > 1_700_000_000_000
    modbus = {"connector": "modbus", "receivedTs": 1_000, "publishedTs": published}
    opc = {"connector": '"opc"', "receivedTs": 2_000, "publishedTs": published}
    assert [(record["values"], record.get("metadata")) for record in payload["D1"]] == [
        ({"a": 1}, None),
        ({"a": 2}, modbus),
        ({"a": 3}, None),
        ({"b": 1}, opc),
        ({"b": 2}, opc),
    ]
    device = emulator.device("D1")
    assert list(device.metadata) == [modbus, opc, opc]
    assert [(point.key, point.value) for point in device.telemetry] == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]


@pytest.mark.parametrize("version", ["4.3", "3.7"])
async def test_contract_4_a_datapoint_may_have_the_key_metadata(version):
    """The client always sends a timestamp: without one, the key would make the message invalid."""
    async with Emulator(version=version) as emulator:
        emulator.add_gateway("GATEWAY", "gateway")
        gateway = GatewayClient({"host": emulator.host, "port": emulator.port, "access_token": "GATEWAY", "limits_timeout": 0.1})
        await gateway.connect()
        session, _ = await gateway.connect_device("D1")
        for data in ({"metadata": 1}, {"metadata": {"connector": "x"}}, {"ts": 1, "values": {"metadata": "x"}}):
            assert (await gateway.send_device_timeseries(session, data)).is_successful()
        assert [(point.key, point.value) for point in emulator.device("D1").telemetry] == [
            ("metadata", 1),
            ("metadata", {"connector": "x"}),
            ("metadata", "x"),
        ]
        await gateway.stop()


@pytest.mark.parametrize("payload", [b"\xff", b"{", b"[]", b"{}", {"id": "1", "device": "D1"}, {"id": 1, "device": ""}, {"id": 1}])
async def test_malformed_and_unexpected_responses(emulator, gateway, session, payload):
    await emulator.publish_to("GATEWAY", RESPONSE, payload)
    assert (await gateway.request_device_attributes(session, ["s1"]))["s1"] == "x"
    statistics = gateway.statistics
    assert statistics.inbound_malformed + statistics.inbound_unexpected == 1


async def test_a_response_with_invalid_attributes(emulator, gateway, session):
    """It is reported, and the request stays pending."""
    wire = Wire(emulator)
    wire.verdict = lambda publish: Verdict.refuse(0) if publish.topic.endswith("/request") else None
    requested = asyncio.create_task(gateway.request_device_attributes(session, ["a", "b"]))
    request = await wire.next("attributes/request")
    response = {"id": request["id"], "device": "D1"}
    for values in ({"": 1}, [1], "x"):
        await emulator.publish_to("GATEWAY", RESPONSE, json.dumps(response | {"values": values}).encode())
    await emulator.publish_to("GATEWAY", RESPONSE, response | {"values": {"a": 1}})
    assert (await requested)["a"] == 1
    assert gateway.statistics.inbound_malformed == 3
