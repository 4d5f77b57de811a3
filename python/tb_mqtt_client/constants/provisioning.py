"""What the platform says about provisioning (docs/platform_contract.md, section 6)."""

from enum import Enum


class ProvisioningResponseStatus(Enum):
    """The platform's answer to a provisioning request. ``str()`` gives its own word."""

    SUCCESS = "SUCCESS"
    ERROR = "FAILURE"
    """Also for answers that cannot be read."""
    NOT_FOUND = "NOT_FOUND"
    """No device profile has this provisioning key and secret."""

    def __str__(self) -> str:
        return self.value


class ProvisioningCredentialsType(Enum):
    """How a device shows who it is."""

    ACCESS_TOKEN = "ACCESS_TOKEN"
    MQTT_BASIC = "MQTT_BASIC"
    X509_CERTIFICATE = "X509_CERTIFICATE"
