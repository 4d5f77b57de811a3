"""The ThingsBoard MQTT client: devices and gateways, asyncio in front, Rust where it counts."""

from tb_mqtt_client._native import __version__
from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig, QueuePolicy
from tb_mqtt_client.common.exceptions import (
    BackpressureException,
    ConnectionLostError,
    ConnectionRefusedByServer,
    NotConnectedError,
    RequestRefusedError,
    SubscriptionRefusedError,
    TBMQTTError,
)
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.statistics import Statistics
from tb_mqtt_client.constants.firmware import FirmwareStates
from tb_mqtt_client.constants.provisioning import ProvisioningResponseStatus
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
from tb_mqtt_client.entities.data.provisioning_response import ProvisioningResponse
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse, RPCStatus
from tb_mqtt_client.entities.data.timeseries_entry import TimeseriesEntry
from tb_mqtt_client.service.device.client import DeviceClient
from tb_mqtt_client.service.device.package_update import UpdateResult
from tb_mqtt_client.service.gateway.client import GatewayClient
from tb_mqtt_client.service.gateway.device_session import DeviceSession

__all__ = [
    "AccessTokenProvisioningCredentials",
    "AssignedPackage",
    "AttributeEntry",
    "AttributeRequest",
    "AttributeUpdate",
    "BackpressureException",
    "BasicProvisioningCredentials",
    "ClaimRequest",
    "ConnectionLostError",
    "ConnectionRefusedByServer",
    "DeviceClient",
    "DeviceConfig",
    "DeviceSession",
    "FirmwareStates",
    "GatewayClient",
    "GatewayConfig",
    "NotConnectedError",
    "ProvisioningRequest",
    "ProvisioningResponse",
    "ProvisioningResponseStatus",
    "PublishResult",
    "QueuePolicy",
    "RPCRequest",
    "RPCResponse",
    "RPCStatus",
    "RequestRefusedError",
    "RequestedAttributeResponse",
    "Statistics",
    "SubscriptionRefusedError",
    "TBMQTTError",
    "TimeseriesEntry",
    "UpdateResult",
    "X509ProvisioningCredentials",
    "__version__",
]
