"""What a device publishes on its own topics (docs/platform_contract.md, sections 2, 3, 5 and 7)."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any

from tb_mqtt_client.emulator import attributes, payloads
from tb_mqtt_client.emulator.codec import PublishPacket
from tb_mqtt_client.emulator.devices import Claim, Device
from tb_mqtt_client.emulator.hooks import ClientRpcError, OnClientRpc
from tb_mqtt_client.emulator.ota import OtaError, OtaPackage
from tb_mqtt_client.emulator.platform import ACCEPTED, NO_ANSWER, Answer, Platform, SessionView
from tb_mqtt_client.emulator.topics import RPC_REQUEST_V1, Uplink, ota_request, response_prefix


class DeviceUplinks:
    """The device's half of a session."""

    def __init__(self, session: SessionView) -> None:
        self._session = session
        self._platform = session.platform
        self._rpc = _ClientRpc(session)
        self._ota = _OtaRequests(session.platform)

    def take(self, uplink: Uplink, rest: str, packet: PublishPacket, device: Device) -> Answer:
        """Process a message. Raises the errors of `payloads`, `RateLimitedError` and `OtaError`."""
        if uplink is Uplink.TELEMETRY:
            records = payloads.telemetry_records(self._json(packet), self._platform.now())
            if not records:
                # `[]` is accepted and never acknowledged (docs/platform_contract.md, section 3).
                return NO_ANSWER
            self._platform.take_telemetry(device, records)
        elif uplink is Uplink.ATTRIBUTES:
            self._platform.take_attributes(device, payloads.attributes(self._json(packet)))
        elif uplink is Uplink.RPC_RESPONSE:
            self._platform.take_rpc_response(device, _adapted_id(rest), packet.payload)
        elif uplink is Uplink.RPC_REQUEST:
            self._rpc_request(packet, rest, device)
        elif uplink is Uplink.ATTRIBUTE_REQUEST:
            self._attribute_request(packet, rest, device)
        elif uplink is Uplink.CLAIM:
            claim = payloads.claim(self._json(packet)) if packet.payload.strip() else Claim()
            self._platform.take_claim(device, claim)
        elif uplink is Uplink.OTA_REQUEST:
            self._session.reply(*self._ota.answer(device, packet.topic, packet.payload))
        elif uplink is Uplink.PROTOBUF:
            raise payloads.BadPayloadError("the emulator has no device profiles with Protobuf")
        else:
            # A topic of provisioning, or one that only the platform publishes on.
            raise AssertionError(f"{uplink} is not an uplink of a device")
        return ACCEPTED

    def _attribute_request(self, packet: PublishPacket, rest: str, device: Device) -> None:
        request_id = _adapted_id(rest)
        keys = payloads.attribute_keys(self._json(packet))
        self._platform.spend(device)
        if any("" in (scope or ()) for scope in keys):
            # The core fails, and the error is swallowed (docs/platform_contract.md, section 2).
            return
        answer = payloads.encode_json(attributes.answer(device, keys))
        self._session.reply(f"{response_prefix(packet.topic, rest)}{request_id}", answer)

    def _rpc_request(self, packet: PublishPacket, rest: str, device: Device) -> None:
        request_id = payloads.request_id(rest)
        method, params = payloads.rpc_request(self._json(packet))
        prefix = response_prefix(packet.topic, rest)
        limits = self._platform.announced_limits
        if method == "getSessionLimits" and packet.topic.startswith(RPC_REQUEST_V1) and limits is not None:
            reply = limits.reply(max_payload_size=self._platform.max_payload_size, is_gateway=device.is_gateway)
            self._session.reply(f"{prefix}{request_id}", payloads.encode_json(reply))
        else:
            self._platform.spend(device)
            self._rpc.begin(device, request_id, method, params, prefix)

    def _json(self, packet: PublishPacket) -> Any:
        return payloads.decode_json(packet.payload, exact=self._platform.keep_data)


def _adapted_id(text: str) -> int:
    """Return the id of a request whose adaptor turns every error into a refusal of the payload (docs/platform_contract.md,
    section 8).
    """
    try:
        return payloads.request_id(text)
    except payloads.UnexpectedPayloadError as error:
        raise payloads.BadPayloadError(str(error)) from error


class _ClientRpc:
    """Calls of one session to the server."""

    def __init__(self, session: SessionView) -> None:
        self._session = session
        self._pending: set[int] = set()
        # The family of the latest request serves all replies (docs/platform_contract.md, section 2).
        self._response_prefix = ""

    def begin(self, device: Device, call_id: int, method: str, params: Any, response_prefix: str) -> None:
        platform = self._session.platform
        self._response_prefix = response_prefix
        self._pending.add(call_id)
        # An id used again meets the timer of its first use: the platform has one entry an id (docs/platform_contract.md,
        # section 2).
        self._session.timers.after(platform.client_rpc_timeout, self._expire, call_id)
        handler = self._session.hooks.on_client_rpc
        if handler is not None:
            self._session.background.start(self._handle(handler, device, call_id, method, params))

    async def _handle(self, handler: OnClientRpc, device: Device, call_id: int, method: str, params: Any) -> None:
        try:
            reply = handler(device, method, params)
            if isawaitable(reply):
                reply = await reply
        except ClientRpcError as error:
            reply = {"error": str(error)}
        # A handler that took longer than the timeout still has its answer sent: the platform passes it on.
        self._pending.discard(call_id)
        self._answer(call_id, reply)

    def _expire(self, call_id: int) -> None:
        if call_id in self._pending:
            self._pending.discard(call_id)
            self._answer(call_id, {"error": "timeout"})

    def _answer(self, call_id: int, reply: Any) -> None:
        self._session.send(f"{self._response_prefix}{call_id}", payloads.encode_json(reply))


class _OtaRequests:
    """What a connection remembers of its requests: by request id the chunk size and the package."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._sizes: dict[str, int] = {}
        self._packages: dict[str, OtaPackage] = {}

    def answer(self, device: Device, topic: str, payload: bytes) -> tuple[str, bytes]:
        """Return topic and payload of the chunk. Raises `OtaError`, `UnexpectedPayloadError` and `RateLimitedError`."""
        kind, request_id, number = ota_request(topic)
        chunk = payloads.int32(number, "chunk number")
        size = payloads.int32(payload.decode(errors="replace"), "chunk size") if payload else 0
        if size > 0:
            self._sizes[request_id] = size
        else:
            size = self._sizes.get(request_id, 0)
        if size > self._platform.max_payload_size:
            raise OtaError("PAYLOAD_TOO_LARGE")
        package = self._packages.get(request_id)
        if package is None:
            # Only the first request under an id reaches the platform's core, and counts.
            self._platform.spend(device)
            package = self._packages[request_id] = self._platform.packages.request(device, kind)
        return f"v2/{kind}/response/{request_id}/chunk/{number}", self._platform.packages.chunk(package, size, chunk)
