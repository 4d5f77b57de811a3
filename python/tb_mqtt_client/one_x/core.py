"""The asyncio clients under the classes of SDK 1.x, and their threads.

The rule: every message of the platform is passed on as it is, in order, and the program sends the responses to server-side RPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink
from tb_mqtt_client.common.async_utils import DeliveryFuture, SendReceipt
from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.exceptions import NotConnectedError, TBMQTTError
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RESPOND_LATER
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.one_x.times import are_plain_records
from tb_mqtt_client.service.device.client import DeviceClient
from tb_mqtt_client.service.gateway.client import GatewayClient
from tb_mqtt_client.service.gateway.device_session import DeviceSession

REQUEST_TIMEOUT = 20.0
"""Seconds to wait for requested attributes, as in SDK 1.x."""
RPC_TIMEOUT = 65.0
"""Seconds to wait for the response to a client-side RPC; the platform itself responds after 60 s at the latest."""

Tap = Callable[[str, bytes], None]
"""Called in the event loop with topic and payload of each message. It must not block."""
Answer = Callable[[Any, BaseException | None], None]
"""Called in the event loop with the response to a request, or with the error."""


class DeviceCore(DeviceClient):
    """A device whose messages and requests are those of SDK 1.x."""

    def __init__(self, config: DeviceConfig) -> None:
        super().__init__(config)
        self.set_rpc_request_callback(_respond_later)
        self._life = self._engine.life
        self._submissions = self._engine.message_service.submissions
        self.find_session: Callable[[str], DeviceSession | None] = _no_session
        """Returns the session of a sub-device; ``None`` if it is not announced."""

    def send_record(self, device: str, record: Any, receiver: SendReceipt) -> bool:
        """Send records of telemetry with a time, with as few calls as possible: most sends of programs are such records.

        Args:
            device: An empty text, or the name of a sub-device.
            record: ``{"ts": integer, "values": {key: value}}``, or a list of these.
            receiver: Gets the result.

        Returns:
            False if the data needs the ordinary way, and nothing was sent: it has another form, the device is not announced, a
            value has to be converted or refused, or nothing may be sent.
        """
        if not self._life.accepts_sends or not are_plain_records(record):
            return False
        identity = None
        if device:
            session = self.find_session(device)
            if session is None:
                return False
            identity = session.identity
        try:
            self._submissions.put(EncodedUplink.timeseries(record, 0, identity, True), receiver)
        except (ValueError, TypeError, NotConnectedError):
            return False
        return True

    @property
    def settled_datapoints(self) -> int:
        """How many datapoints the platform has acknowledged or refused; any thread may read it."""
        counter = self._engine.message_service.counter
        return counter.acknowledged + counter.rejected

    def tap(self, tap: Tap) -> None:
        """Call a function with each message of the platform."""
        self._engine.mqtt_manager.inbound.tap("#", tap)

    async def call_after(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function in the event loop after some seconds, unless the client is stopped before."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            function()

        self._engine.tasks.start(wait(), "delay of SDK 1.x", runs_callbacks=False)

    async def publish_for(self, topic: str, payload: bytes, device: DeviceIdentity | None = None) -> DeliveryFuture:
        """Queue a message without datapoints, and return the future of its result.

        Args:
            topic: The topic.
            payload: The payload.
            device: The sub-device that must be announced before.

        Raises:
            ValueError: The payload is too large for the session.
            NotConnectedError: Nothing may be sent.
        """
        message = MqttPublishMessage(topic, payload)
        message.device = device
        return self._sends.send_message(message)

    async def request_content(self, shared: list[str] | None, client: list[str] | None, answer: Answer) -> None:
        """Request attributes, and pass the content of the platform's response to a function.

        Args:
            shared: Names of shared attributes.
            client: Names of client attributes. Without any, all attributes are requested.
            answer: Gets ``{"client": {key: value}, "shared": {key: value}}``, without scopes that are empty.
        """
        request = await AttributeRequest.build(shared, client)
        response = self._engine.requests.attributes(request, REQUEST_TIMEOUT)

        async def content() -> dict[str, Any]:
            result = await response
            scopes = {"client": result.client, "shared": result.shared}
            return {scope: _values(entries) for scope, entries in scopes.items() if entries}

        self._answer(content(), answer)

    async def call_content(self, method: str, params: Any, answer: Answer) -> None:
        """Send a client-side RPC request, and pass the content of the response to a function."""
        response = self._engine.requests.rpc(await RPCRequest.build(method, params), RPC_TIMEOUT)

        async def content() -> Any:
            return (await response).result

        self._answer(content(), answer)

    def _answer(self, content: Coroutine[Any, Any, Any], answer: Answer) -> None:
        async def wait() -> None:
            try:
                found = await content
            except (TimeoutError, TBMQTTError, asyncio.CancelledError) as error:
                answer(None, error)
                if isinstance(error, asyncio.CancelledError):
                    raise
            else:
                answer(found, None)

        task = self._engine.tasks.start(wait(), "request of SDK 1.x", runs_callbacks=False)
        # A task that is cancelled before its first step does not close the coroutine that it would have awaited.
        task.add_done_callback(lambda _: content.close())


def _respond_later(*_: object) -> Any:
    return RESPOND_LATER


def _no_session(_device: str) -> None:
    """Return the session of a sub-device of a device, which has none."""


def _values(entries: list[AttributeEntry]) -> dict[str, Any]:
    return {entry.key: entry.value for entry in entries}


class GatewayCore(GatewayClient, DeviceCore):
    """A gateway whose messages and requests, and those of its sub-devices, are those of SDK 1.x."""

    def __init__(self, config: GatewayConfig) -> None:
        super().__init__(config)
        # Reading the sessions of the event loop is safe in other threads: the dicts are never replaced while they are read.
        self.find_session: Callable[[str], DeviceSession | None] = self.device_manager.get_by_name

    async def announced_session(self, name: str) -> DeviceSession:
        """Return the session of a sub-device, and announce the device if there is none.

        SDK 1.x sent data for unknown devices, which the platform then connected with the profile "default".
        """
        session = self.device_manager.get_by_name(name)
        if session is None:
            session, _ = await self.announce(name, "default")
        return session

    async def announce(self, name: str, profile: str) -> tuple[DeviceSession, DeliveryFuture]:
        """Announce a sub-device, and return its session and the future of the result."""
        session, [delivery] = await self.connect_device(name, profile)
        session.set_rpc_request_callback(_respond_later)
        return session, delivery

    async def announced(self, name: str, profile: str) -> DeliveryFuture:
        """Announce a sub-device, and return the future of the result."""
        return (await self.announce(name, profile))[1]

    async def leave(self, name: str) -> DeliveryFuture:
        """Disconnect a sub-device, and return the future of the result."""
        session = await self.announced_session(name)
        return (await self.disconnect_device(session))[1][0]

    async def request_device_content(
        self, name: str, shared: list[str] | None, client: list[str] | None, answer: Answer
    ) -> DeliveryFuture:
        """Request attributes of a sub-device, and pass the content of the platform's response to a function.

        Args:
            name: The name of the device.
            shared: Names of shared attributes.
            client: Names of client attributes.
            answer: Gets ``{"id": id, "device": name}`` with ``value`` for one key, and with ``values`` for several.

        Returns:
            The future of the result of the request's message.
        """
        session = await self.announced_session(name)
        request = await GatewayAttributeRequest.build(session, shared, client)
        delivery, response = self._sub_devices.requests.attributes(request, REQUEST_TIMEOUT)
        keys = list(dict.fromkeys([*(shared or ()), *(client or ())]))

        async def content() -> dict[str, Any]:
            result = await response
            values = _values([*result.shared, *result.client])
            return {"id": result.request_id, "device": result.device_name} | _found(keys, values)

        self._answer(content(), answer)
        return delivery


def _found(keys: list[str], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values as the platform writes them (docs/platform_contract.md, section 4)."""
    if not values:
        return {}
    return {"value": values.get(keys[0])} if len(keys) == 1 else {"values": values}
