"""Publishes on the device topics (docs/platform_contract.md, sections 2, 3, 5 and 7)."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any

from tb_mqtt_client.emulator import attributes, payloads
from tb_mqtt_client.emulator.codec import PublishPacket
from tb_mqtt_client.emulator.devices import Claim, Device
from tb_mqtt_client.emulator.hooks import ClientRpcError, OnClientRpc
from tb_mqtt_client.emulator.ota import OtaError, OtaPackage
from tb_mqtt_client.emulator.platform import ACCEPTED, UNACKNOWLEDGED, Outcome, Platform, SessionView
from tb_mqtt_client.emulator.topics import RPC_REQUEST_V1, Uplink, ota_request, response_prefix


class DeviceUplinks:
    """Processes the publishes on device topics in one session."""

    def __init__(self, session: SessionView) -> None:
        self._session = session
        self._platform = session.platform
        self._rpc = _ClientRpc(session)
        self._ota = _OtaRequests(session.platform)

    def take(self, uplink: Uplink, rest: str, packet: PublishPacket, device: Device) -> Outcome:
        """Process a message and return how it is acknowledged.

        Raises:
            BadPayloadError: The payload is refused.
            UnexpectedPayloadError: The payload makes the platform close the connection.
            RateLimitedError: A rate limit is exceeded.
            OtaError: A chunk cannot be served.
        """
        if uplink is Uplink.TELEMETRY:
            records = payloads.telemetry_records(self._json(packet), self._platform.now())
            if not records:
                # `[]` is accepted and never acknowledged (docs/platform_contract.md, section 3).
                return UNACKNOWLEDGED
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
            self._session.reply(*self._ota.respond(device, packet.topic, packet.payload))
        elif uplink is Uplink.PROTOBUF:
            raise payloads.BadPayloadError("the emulator does not support Protobuf payloads")
        else:
            # The caller passes device topics only.
            raise AssertionError(f"{uplink} is not an uplink of a device")
        return ACCEPTED

    def _attribute_request(self, packet: PublishPacket, rest: str, device: Device) -> None:
        request_id = _adapted_id(rest)
        keys = payloads.attribute_keys(self._json(packet))
        self._platform.spend(device)
        if any("" in (scope or ()) for scope in keys):
            # The core fails and the platform sends no reply (docs/platform_contract.md, section 2).
            return
        response = payloads.encode_json(attributes.response(device, keys))
        self._session.reply(f"{response_prefix(packet.topic, rest)}{request_id}", response)

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
            self._rpc.handle(device, request_id, method, params, prefix)

    def _json(self, packet: PublishPacket) -> Any:
        return payloads.decode_json(packet.payload, exact=self._platform.keep_data)


def _adapted_id(text: str) -> int:
    """Parse a request id; on these topics an invalid one counts as a bad payload (docs/platform_contract.md, section 8)."""
    try:
        return payloads.request_id(text)
    except payloads.UnexpectedPayloadError as error:
        raise payloads.BadPayloadError(str(error)) from error


class _ClientRpc:
    """Client-side RPC of one session: one reply per request, or `{"error": "timeout"}` when the handler takes too long."""

    def __init__(self, session: SessionView) -> None:
        self._session = session
        self._pending: set[int] = set()
        # All replies use the topic family of the latest request (docs/platform_contract.md, section 2).
        self._response_prefix = ""

    def handle(self, device: Device, request_id: int, method: str, params: Any, response_prefix: str) -> None:
        """Start the handler of a request and its timeout."""
        platform = self._session.platform
        self._response_prefix = response_prefix
        self._pending.add(request_id)
        # The timer of its first use ends a reused id; the platform has one entry per id (docs/platform_contract.md, section 2).
        self._session.timers.after(platform.client_rpc_timeout, self._expire, request_id)
        handler = self._session.hooks.on_client_rpc
        if handler is not None:
            self._session.background.start(self._run(handler, device, request_id, method, params))

    async def _run(self, handler: OnClientRpc, device: Device, request_id: int, method: str, params: Any) -> None:
        try:
            reply = handler(device, method, params)
            if isawaitable(reply):
                reply = await reply
        except ClientRpcError as error:
            reply = {"error": str(error)}
        # A reply after the timeout is sent too: the platform passes it on.
        self._pending.discard(request_id)
        self._respond(request_id, reply)

    def _expire(self, request_id: int) -> None:
        if request_id in self._pending:
            self._pending.discard(request_id)
            self._respond(request_id, {"error": "timeout"})

    def _respond(self, request_id: int, reply: Any) -> None:
        self._session.send(f"{self._response_prefix}{request_id}", payloads.encode_json(reply))


class _OtaRequests:
    """Serves chunks of one session, and remembers the chunk size and the package of each request id."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._sizes: dict[str, int] = {}
        self._packages: dict[str, OtaPackage] = {}

    def respond(self, device: Device, topic: str, payload: bytes) -> tuple[str, bytes]:
        """Return topic and payload of the requested chunk.

        Raises:
            OtaError: There is no package, or the chunk size is too large.
            UnexpectedPayloadError: The chunk number or size is not an int32.
            RateLimitedError: A rate limit is exceeded.
        """
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
            # Only the first request with an id reaches the platform's core and counts against the limits.
            self._platform.spend(device)
            package = self._packages[request_id] = self._platform.packages.request(device, kind)
        return f"v2/{kind}/response/{request_id}/chunk/{number}", self._platform.packages.chunk(package, size, chunk)
