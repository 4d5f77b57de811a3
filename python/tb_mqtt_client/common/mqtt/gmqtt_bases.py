"""The classes of gmqtt that this package extends, with types: gmqtt has none, so checkers would not know the subclasses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from typing import Any

    class Message:
        """The content of a PUBLISH."""

        topic: Any
        payload: Any
        qos: int
        retain: bool
        properties: dict[str, Any]

    class BaseMQTTProtocol(asyncio.StreamReaderProtocol):
        """Writes packets to a transport."""

        proto_ver: int
        _transport: Any
        _connection: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def write_data(self, data: bytes) -> None: ...
        def pause_writing(self) -> None: ...
        def resume_writing(self) -> None: ...

    class MQTTProtocol(BaseMQTTProtocol):
        """Writes the packets of a client."""

        id_generator: Any

        def send_publish(self, message: Message) -> tuple[int | None, bytes]: ...
        def send_disconnect(self, reason_code: int = 0, **properties: Any) -> None: ...

    class MQTTConnection:
        """A connection of a client."""

        _protocol: Any
        _transport: Any
        _keepalive: int
        _keep_connection_callback: asyncio.TimerHandle

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def subscribe(self, subscription: Any, **kwargs: Any) -> int: ...
        def unsubscribe(self, topic: Any, **kwargs: Any) -> int: ...
        def _send_ping_request(self) -> None: ...
        async def close(self) -> None: ...

else:
    from gmqtt import Message
    from gmqtt.mqtt.connection import MQTTConnection
    from gmqtt.mqtt.protocol import BaseMQTTProtocol, MQTTProtocol

__all__ = ["BaseMQTTProtocol", "MQTTConnection", "MQTTProtocol", "Message"]
