"""The ThingsBoard MQTT client: devices and gateways, asyncio in front, Rust where it counts."""

from tb_mqtt_client._native import __version__
from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.delivery import Delivery
from tb_mqtt_client.common.exceptions import (
    BackpressureException,
    ConnectionLostError,
    ConnectionRefusedByServer,
    DeviceNotConnectedError,
    NoDeviceSessionError,
    NotAStoreError,
    NotConnectedError,
    ProxyRefusedError,
    QueueFullError,
    RequestRefusedError,
    RPCRefusal,
    StoreError,
    StoreFormatError,
    StoreFullError,
    StoreInUseError,
    StoreOwnerError,
    SubscriptionRefusedError,
    TBMQTTError,
    UnsupportedValueError,
)
from tb_mqtt_client.common.provisioning_response import ProvisioningResponse
from tb_mqtt_client.common.publish_result import Certainty, PublishResult
from tb_mqtt_client.common.runner import run
from tb_mqtt_client.constants.firmware import FirmwareStates
from tb_mqtt_client.constants.option_values import ClockMode, Priority, QueuePolicy, Replay, RPCReply, TimestampSource
from tb_mqtt_client.constants.provisioning import ProvisioningResponseStatus
from tb_mqtt_client.entities.connection_event import (
    ClientFailed,
    Connected,
    ConnectFailed,
    Connecting,
    ConnectionEvent,
    ConnectionLost,
    ConnectRefused,
    EventsDropped,
    PublishingPaused,
    QueueHigh,
    QueueLow,
)
from tb_mqtt_client.entities.data.assigned_package import AssignedPackage
from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.provisioning_request import (
    AccessTokenProvisioningCredentials,
    BasicProvisioningCredentials,
    ProvisioningRequest,
    X509ProvisioningCredentials,
)
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse, RPCStatus
from tb_mqtt_client.entities.data.timeseries_entry import TimeseriesEntry
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest, GatewayClaimRequestBuilder
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.entities.gateway.telemetry_metadata import TelemetryMetadata
from tb_mqtt_client.entities.store import Durability, Store, WhenFull
from tb_mqtt_client.service.delivery.statistics import Statistics
from tb_mqtt_client.service.device.client import DeviceClient
from tb_mqtt_client.service.gateway.client import GatewayClient
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.life_cycle import ClientState
from tb_mqtt_client.service.ota.update import UpdateResult
from tb_mqtt_client.service.store.receipts import StoredDelivery

__all__ = [
    "AccessTokenProvisioningCredentials",
    "AssignedPackage",
    "AttributeEntry",
    "AttributeRequest",
    "AttributeUpdate",
    "BackpressureException",
    "BasicProvisioningCredentials",
    "Certainty",
    "ClaimRequest",
    "ClientFailed",
    "ClientState",
    "ClockMode",
    "ConnectFailed",
    "ConnectRefused",
    "Connected",
    "Connecting",
    "ConnectionEvent",
    "ConnectionLost",
    "ConnectionLostError",
    "ConnectionRefusedByServer",
    "Delivery",
    "DeviceClient",
    "DeviceConfig",
    "DeviceNotConnectedError",
    "DeviceSession",
    "DeviceSessionState",
    "Durability",
    "EventsDropped",
    "FirmwareStates",
    "GatewayAttributeRequest",
    "GatewayClaimRequest",
    "GatewayClaimRequestBuilder",
    "GatewayClient",
    "GatewayConfig",
    "GatewayRPCRequest",
    "GatewayRPCResponse",
    "GatewayRequestedAttributeResponse",
    "NoDeviceSessionError",
    "NotAStoreError",
    "NotConnectedError",
    "Priority",
    "ProvisioningRequest",
    "ProvisioningResponse",
    "ProvisioningResponseStatus",
    "ProxyRefusedError",
    "PublishResult",
    "PublishingPaused",
    "QueueFullError",
    "QueueHigh",
    "QueueLow",
    "QueuePolicy",
    "RPCRefusal",
    "RPCReply",
    "RPCRequest",
    "RPCResponse",
    "RPCStatus",
    "Replay",
    "RequestRefusedError",
    "RequestedAttributeResponse",
    "Statistics",
    "Store",
    "StoreError",
    "StoreFormatError",
    "StoreFullError",
    "StoreInUseError",
    "StoreOwnerError",
    "StoredDelivery",
    "SubscriptionRefusedError",
    "TBMQTTError",
    "TelemetryMetadata",
    "TimeseriesEntry",
    "TimestampSource",
    "UnsupportedValueError",
    "UpdateResult",
    "WhenFull",
    "X509ProvisioningCredentials",
    "__version__",
    "run",
]
