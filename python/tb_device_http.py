"""The module ``tb_device_http`` of SDK 1.x; see docs/from_sdk_1x.md."""

from typing import TYPE_CHECKING

from tb_mqtt_client.one_x.http_device import FIRMWARE_KEYS as REQUIRED_SHARED_KEYS
from tb_mqtt_client.one_x.http_device import TBHTTPAPIException, TBHTTPClient, TBHTTPDevice, TBProvisionFailure
from tb_mqtt_client.one_x.reexports import reexports

__all__ = [
    "FW_CHECKSUM_ALG_ATTR",
    "FW_CHECKSUM_ATTR",
    "FW_SIZE_ATTR",
    "FW_STATE_ATTR",
    "FW_TITLE_ATTR",
    "FW_VERSION_ATTR",
    "REQUIRED_SHARED_KEYS",
    "TBHTTPAPIException",
    "TBHTTPClient",
    "TBHTTPDevice",
    "TBProvisionFailure",
]

FW_CHECKSUM_ATTR = "fw_checksum"
FW_CHECKSUM_ALG_ATTR = "fw_checksum_algorithm"
FW_SIZE_ATTR = "fw_size"
FW_TITLE_ATTR = "fw_title"
FW_VERSION_ATTR = "fw_version"
FW_STATE_ATTR = "fw_state"

if not TYPE_CHECKING:
    __getattr__ = reexports(
        __name__,
        {
            "ceil": "math:ceil",
            "datetime": "datetime:datetime",
            "logging": "logging",
            "queue": "queue",
            "requests": "requests",
            "threading": "threading",
            "time": "time",
            "timezone": "datetime:timezone",
            "typing": "typing",
            "verify_checksum": "sdk_utils:verify_checksum",
        },
    )
