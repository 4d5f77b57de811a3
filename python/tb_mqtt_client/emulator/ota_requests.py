"""Requests for chunks of firmware and software (contract section 7)."""

from __future__ import annotations

from tb_mqtt_client.emulator.devices import Device
from tb_mqtt_client.emulator.ota import OtaError, OtaPackage
from tb_mqtt_client.emulator.payloads import int32
from tb_mqtt_client.emulator.platform import Platform
from tb_mqtt_client.emulator.topics import ota_request


class OtaRequests:
    """What a connection remembers of its requests: by request id the chunk size and the package."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._sizes: dict[str, int] = {}
        self._packages: dict[str, OtaPackage] = {}

    def answer(self, device: Device, topic: str, payload: bytes) -> tuple[str, bytes]:
        """Return topic and payload of the chunk. Raises `OtaError`, `UnexpectedPayloadError` and `RateLimitedError`."""
        kind, request_id, number = ota_request(topic)
        chunk = int32(number, "chunk number")
        size = int32(payload.decode(errors="replace"), "chunk size") if payload else 0
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
