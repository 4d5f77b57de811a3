"""Splits messages of a gateway's sub-devices."""

from __future__ import annotations

from tb_mqtt_client.entities.gateway.gateway_uplink_message import GatewayUplinkMessage
from tb_mqtt_client.service.base_message_splitter import UplinkSplitter


class GatewayMessageSplitter(UplinkSplitter[GatewayUplinkMessage]):
    """Splits ``GatewayUplinkMessage`` objects, one device per message."""

    MAX_PAYLOAD_SIZE_MARGIN = 50
    _gateway = True
    _message_class = GatewayUplinkMessage
