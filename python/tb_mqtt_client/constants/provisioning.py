"""Words of the platform's provisioning protocol (docs/platform_contract.md, section 6)."""

from enum import Enum


class ProvisioningResponseStatus(Enum):
    """The status in the platform's response to a provisioning request. ``str()`` returns the platform's word."""

    SUCCESS = "SUCCESS"
    """The response contains the device's credentials."""
    ERROR = "FAILURE"
    """The platform refused the request, or its response could not be read."""
    NOT_FOUND = "NOT_FOUND"
    """No device profile has this provisioning key and secret."""

    def __str__(self) -> str:
        return self.value


class ProvisioningCredentialsType(Enum):
    """Types of credentials with which a device connects."""

    ACCESS_TOKEN = "ACCESS_TOKEN"
    """An access token, sent as the MQTT user name."""
    MQTT_BASIC = "MQTT_BASIC"
    """MQTT client id, user name and password, of which some may be missing."""
    X509_CERTIFICATE = "X509_CERTIFICATE"
    """A client certificate, presented in the TLS handshake."""
