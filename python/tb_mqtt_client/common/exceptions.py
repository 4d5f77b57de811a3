"""Errors that the clients raise.

TBMQTTError
+-- NotConnectedError (also AttributeError, which SDK 2.0 raised)
+-- ConnectionLostError (also ConnectionError)
+-- ConnectionRefusedByServer (also ConnectionError)
+-- SubscriptionRefusedError
+-- RequestRefusedError
+-- RPCError
+-- NoDeviceSessionError (also TypeError, and AttributeError, which SDK 2.0 raised)
+-- DeviceNotConnectedError (also ValueError)
+-- BackpressureException
"""

from typing import Any

from tb_mqtt_client.constants.reason_codes import connect_return_name, reason_name


class TBMQTTError(Exception):
    """Base of the errors of this package."""


class NotConnectedError(TBMQTTError, AttributeError):
    """Something was sent before ``connect()``, or after ``stop()``."""


class ConnectionLostError(TBMQTTError, ConnectionError):
    """The connection ended while something was awaited on it."""


class ConnectionRefusedByServer(TBMQTTError, ConnectionError):  # named after what happened, as ConnectionRefusedError is
    """The server answered CONNECT with a refusal."""

    def __init__(self, reason_code: int, protocol_version: int) -> None:
        """``protocol_version``: 5, or 4 for MQTT 3.1.1, by which ``reason_code`` is meant."""
        super().__init__(f"The server refused the connection: {connect_return_name(reason_code, protocol_version)}")
        self.reason_code = reason_code
        self.protocol_version = protocol_version


class SubscriptionRefusedError(TBMQTTError):
    """The server does not send messages of a topic."""

    def __init__(self, topic: str, reason_code: int) -> None:
        super().__init__(f"The server refused the subscription to {topic}: {reason_name(reason_code)}")
        self.topic = topic
        self.reason_code = reason_code


class RequestRefusedError(TBMQTTError):
    """The server did not take a request, so that no answer will come."""

    def __init__(self, topic: str, reason_code: int) -> None:
        super().__init__(f"The platform did not take the request on {topic}: {reason_name(reason_code)}")
        self.topic = topic
        self.reason_code = reason_code


class RPCError(TBMQTTError):
    """A remote procedure call ended otherwise than with a result. ``response`` is the ``RPCResponse``."""

    def __init__(self, response: Any) -> None:
        super().__init__(response.error)
        self.response = response


class NoDeviceSessionError(TBMQTTError, TypeError, AttributeError):
    """Something is no session of a sub-device."""


class DeviceNotConnectedError(TBMQTTError, ValueError):
    """A session is not one of this gateway, or not any more."""


class BackpressureException(TBMQTTError):  # SDK 2.0's name
    """The queue is full, and the queue policy is to raise."""

    def __init__(self, message: str = "Client is under backpressure. Please retry later.") -> None:
        super().__init__(message)
