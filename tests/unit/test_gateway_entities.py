"""Sub-devices: who they are, the sessions that a gateway knows, and the messages that announce them."""

import pytest

from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.entities.gateway.event_type import GatewayEventType
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


def test_registering():
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


def test_renaming(caplog):
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


def test_states():
    told = []
    session = DeviceSession(DeviceInfo("a", "default"), told.append)
    before = session.last_seen_at
    session.update_last_seen()
    session.update_state(DeviceSessionState.DISCONNECTED)
    assert session.last_seen_at >= before
    assert told == [session]
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


def test_messages():
    assert DeviceConnectMessage.build("a", "p").to_payload_format() == {"device": "a", "type": "p"}
    assert DeviceDisconnectMessage.build("a").to_payload_format() == {"device": "a"}
    for build in (lambda: DeviceConnectMessage.build("", "p"), lambda: DeviceDisconnectMessage.build("")):
        with pytest.raises(ValueError, match="must not be empty"):
            build()
    for cls in (DeviceConnectMessage, DeviceDisconnectMessage):
        with pytest.raises(TypeError, match="Direct instantiation"):
            cls("a")
    assert str(GatewayEventType.DEVICE_CONNECT) == "gateway.device.connect"
