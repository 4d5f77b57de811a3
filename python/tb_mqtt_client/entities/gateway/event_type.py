"""What can happen at a gateway."""

from enum import Enum


class GatewayEventType(Enum):
    """Types of events; ``str()`` gives the value."""

    GATEWAY_CONNECT = "gateway.connect"
    GATEWAY_DISCONNECT = "gateway.disconnect"
    DEVICE_CONNECT = "gateway.device.connect"
    DEVICE_DISCONNECT = "gateway.device.disconnect"
    DEVICE_UPDATE = "gateway.device.update"
    DEVICE_UPLINK = "gateway.device.uplink"
    DEVICE_ATTRIBUTE_REQUEST = "gateway.device.attribute.request"
    DEVICE_ATTRIBUTE_UPDATE = "gateway.device.attribute.update"
    DEVICE_REQUESTED_ATTRIBUTE_RESPONSE = "gateway.device.requested.attribute.response"
    DEVICE_SESSION_STATE_CHANGE = "gateway.device.session.state.change"
    DEVICE_RPC_REQUEST = "gateway.device.rpc.request"
    DEVICE_RPC_RESPONSE = "gateway.device.rpc.response"
    GATEWAY_CLAIM_REQUEST = "gateway.gateway.claim"
    RPC_REQUEST_RECEIVE = "device.rpc.request"
    RPC_RESPONSE_SEND = "device.rpc.response"

    def __str__(self) -> str:
        return self.value
