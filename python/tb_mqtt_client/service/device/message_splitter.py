"""Splits messages of a device."""

from __future__ import annotations

from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessage
from tb_mqtt_client.service.base_message_splitter import UplinkSplitter


class MessageSplitter(UplinkSplitter[DeviceUplinkMessage]):
    """Splits ``DeviceUplinkMessage`` objects."""

    _gateway = False
    _message_class = DeviceUplinkMessage
