"""Sub-devices: identity, registry of sessions, callbacks, and announcements."""

import pytest

from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway_event import GatewayEvent, GatewayEventType
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession


def test_device_info():
    info = DeviceInfo("name", "profile")
    again = DeviceInfo.from_dict(info.to_dict())
    assert again == info
    assert hash(again) == hash(info)
    info.rename("other")
    assert (info.device_name, info.original_name) == ("other", "name")
    assert again != info
    assert hash(again) == hash(info)
    with pytest.raises(AttributeError, match="rename"):
        info.device_name = "x"
    with pytest.raises(KeyError):
        DeviceInfo.from_dict({"device_id": str(info.device_id)})
    with pytest.raises(ValueError, match="UUID"):
        DeviceInfo.from_dict({"device_name": "n", "device_id": "x"})


def test_a_registered_session_is_found_until_it_is_unregistered():
    manager = DeviceManager()
    session = manager.register("a", "profile")
    assert manager.register("a") is session
    assert manager.get_by_id(session.device_info.device_id) is session
    assert manager.is_connected(session.device_info.device_id)
    assert list(manager.all()) == [session]
    assert manager.all_devices == {session.device_info.device_id: session}
    manager.unregister(session.device_info.device_id)
    manager.unregister(session.device_info.device_id)
    assert manager.get_by_name("a") is None
    assert not manager.is_connected(session.device_info.device_id)


def test_a_renamed_session_is_found_by_both_names(caplog):
    manager = DeviceManager()
    session, other = manager.register("a"), manager.register("b")
    manager.rename_device("a", "c")
    assert manager.get_by_name("c") is session
    assert manager.get_by_name("a") is session
    assert session.identity.name == "c"
    with pytest.raises(ValueError, match="there is a device 'b' already"):
        manager.rename_device("c", "b")
    manager.rename_device("missing", "x")
    assert "no device 'missing'" in caplog.text
    manager.unregister(session.device_info.device_id)
    assert list(manager.all()) == [other]


def test_a_change_of_state_is_reported_to_the_manager():
    reported = []
    session = DeviceSession(DeviceInfo("a", "default"), reported.append)
    before = session.last_seen_at
    session.update_last_seen()
    session.update_state(DeviceSessionState.DISCONNECTED)
    assert session.last_seen_at >= before
    assert reported == [session]
    assert not session.state.is_connected()
    manager = DeviceManager()
    first, second = manager.register("a"), manager.register("b")
    first.update_state(DeviceSessionState.CONNECTION_LOST)
    assert manager.connected_devices == {second}


def test_sessions_are_equal_by_the_devices_id():
    info = DeviceInfo("a", "default")
    assert DeviceSession(info) == DeviceSession(info)
    assert DeviceSession(info) != DeviceSession(DeviceInfo("a", "default"))
    assert len({DeviceSession(info), DeviceSession(info)}) == 1


def test_defect_41_connected_devices_are_correct_from_the_start():
    manager = DeviceManager()
    session = manager.register("a")
    assert manager.connected_devices == {session}
    assert manager.is_connected(session.device_info.device_id)
    session.update_state(DeviceSessionState.DISCONNECTED)
    session.update_state(DeviceSessionState.DISCONNECTED)
    assert manager.connected_devices == set()
    manager.unregister(session.device_info.device_id)
    assert not manager.is_connected(session.device_info.device_id)
    session.update_state(DeviceSessionState.CONNECTED)


def test_defect_42_an_invalid_id_is_refused():
    with pytest.raises(ValueError, match="UUID"):
        DeviceInfo.from_dict({"device_name": "n", "device_id": "no id"})
    info = DeviceInfo("n", "default")
    assert info.original_name == "n"
    with pytest.raises(AttributeError, match="Cannot modify attribute"):
        info.original_name = "x"


def test_defect_43_a_renamed_session_is_found_again():
    manager = DeviceManager()
    session = manager.register("a")
    places, infos = {session: 1}, {session.device_info}
    manager.rename_device("a", "b")
    assert places[session] == 1
    assert session.device_info in infos


def test_defect_44_a_former_name_leads_to_the_session_until_it_is_used_again():
    manager = DeviceManager()
    session, other = manager.register("a"), manager.register("other")
    manager.rename_device("a", "b")
    manager.rename_device("a", "c")
    assert (manager.get_by_name("c"), manager.get_by_name("a")) == (session, session)
    # A new device may have the former name of another device.
    assert manager.get_by_name("b") is None
    assert manager.resolve("b") is session
    assert manager.register("b") is not session
    assert manager.resolve("b") is manager.get_by_name("b")
    with pytest.raises(ValueError, match="there is a device 'other' already"):
        manager.rename_device("c", "other")
    assert (manager.get_by_name("c"), manager.get_by_name("other")) == (session, other)
    for wrong in ("", None):
        with pytest.raises(ValueError, match="Device name must not be empty"):
            manager.rename_device("c", wrong)
    assert repr(manager) == "DeviceManager(['other', 'c', 'b'])"


def test_an_unregistered_session_has_no_manager():
    manager = DeviceManager()
    session = manager.register("a")
    manager.rename_device("a", "b")
    assert session.manager is manager
    manager.unregister(session.device_info.device_id)
    assert session.manager is None
    assert [manager.resolve(name) for name in ("a", "b")] == [None, None]
    assert manager.register("a") is not session


KINDS = ("attribute_update", "attribute_response", "rpc_request", "state_change")


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_are_set_by_the_id_of_a_device(kind):
    manager = DeviceManager()
    session = manager.register("a")
    set_callback = getattr(manager, f"set_{kind}_callback")

    def callback(*_):
        raise AssertionError

    set_callback(session.device_info.device_id, callback)
    set_callback(manager.register("b").device_info.device_id, None)
    set_callback(DeviceInfo("a", "default").device_id, callback)
    name = "_state_change_callback" if kind == "state_change" else f"{kind}_callback"
    assert getattr(session, name) is callback
    for wrong in (1, "callback", [callback]):
        with pytest.raises(TypeError, match="cb must be a function"):
            set_callback(session.device_info.device_id, wrong)
    set_callback(session.device_info.device_id, None)
    assert getattr(session, name) is None


def test_a_state_callback_is_a_plain_function():
    async def callback(_):
        raise AssertionError

    with pytest.raises(TypeError, match="must be a plain function"):
        DeviceSession(DeviceInfo("a", "default")).set_state_change_callback(callback)


async def test_events_go_to_the_callback_for_their_type_and_class():
    session, reported = DeviceSession(DeviceInfo("a", "default")), []
    request = GatewayRPCRequest.from_dict({"device": "a", "data": {"id": 0, "method": "m"}})
    events = {
        "attribute_update": AttributeUpdate([AttributeEntry("a", 1)]),
        "attribute_response": GatewayRequestedAttributeResponse(1),
        "rpc_request": request,
    }
    for event in events.values():
        assert await session.handle_event_to_device(event) is None

    def plain(of_session, event):
        reported.append((of_session, event))
        return "plain"

    async def coroutine(of_session, event):
        return plain(of_session, event) + " no more"

    for callback, result in ((plain, "plain"), (coroutine, "plain no more")):
        for kind, event in events.items():
            getattr(session, f"set_{kind}_callback")(callback)
            assert await session.handle_event_to_device(event) == result
            assert reported.pop() == (session, event)
    # The event has the right type, but another class.
    assert await session.handle_event_to_device(GatewayEvent(GatewayEventType.DEVICE_RPC_REQUEST)) is None
    assert await session.handle_event_to_device(GatewayEvent(GatewayEventType.DEVICE_CONNECT)) is None
    assert reported == []


async def test_exceptions_of_a_callback_are_raised():
    session = DeviceSession(DeviceInfo("a", "default"))
    session.set_attribute_update_callback(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await session.handle_event_to_device(AttributeUpdate([]))


def test_connect_and_disconnect_messages_have_their_json_form():
    assert DeviceConnectMessage.build("a", "p").to_payload_format() == {"device": "a", "type": "p"}
    assert DeviceDisconnectMessage.build("a").to_payload_format() == {"device": "a"}
    for build in (lambda: DeviceConnectMessage.build("", "p"), lambda: DeviceDisconnectMessage.build("")):
        with pytest.raises(ValueError, match="must not be empty"):
            build()
    for cls in (DeviceConnectMessage, DeviceDisconnectMessage):
        with pytest.raises(TypeError, match="Direct instantiation"):
            cls("a")
    assert str(GatewayEventType.DEVICE_CONNECT) == "gateway.device.connect"
