"""Shared attribute updates and deletions, and responses to attribute requests (docs/platform_contract.md, sections 2 and 4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tb_mqtt_client.emulator.devices import Device
from tb_mqtt_client.emulator.payloads import AttributeKeys, GatewayAttributeRequest


def set_shared(device: Device, values: Mapping[str, Any]) -> bool:
    """Store shared attributes and send the update. Return False if the device is not connected or not subscribed."""
    device.shared_attributes.update(values)
    return send_update(device, values)


def send_update(device: Device, values: Mapping[str, Any]) -> bool:
    """Send an update without storing it. Return False if the device is not connected or not subscribed."""
    return device.session is not None and device.session.send_attributes(device, dict(values))


def delete_shared(device: Device, keys: Iterable[str]) -> bool:
    """Delete shared attributes and send `{"deleted": [...]}` with all of the keys, known or not.

    Return False if the device is not connected or not subscribed.
    """
    deleted = list(keys)
    for key in deleted:
        device.shared_attributes.pop(key, None)
    return device.session is not None and device.session.send_attributes(device, {"deleted": deleted})


def response(device: Device, keys: AttributeKeys) -> dict[str, Any]:
    """Return the response to a device: `{"client": {...}, "shared": {...}}`, without empty scopes."""
    client_keys, shared_keys = keys
    if not client_keys and not shared_keys:
        found = {"client": _client(device), "shared": dict(device.shared_attributes)}
    else:
        found = {
            "client": _found(_client(device), client_keys or ()),
            "shared": _found(device.shared_attributes, shared_keys or ()),
        }
    return {scope: values for scope, values in found.items() if values}


def gateway_response(device: Device, request: GatewayAttributeRequest) -> dict[str, Any]:
    """Return the response to a gateway.

    It has `value` for one requested key, `values` for several, and neither if no attribute was found. A request without keys
    gets all attributes of both scopes as `values`, and a scope with a single attribute as `value`.
    """
    reply: dict[str, Any] = {"id": request.id, "device": request.device}
    scopes = [_client(device) if request.client_scope else device.shared_attributes]
    if not request.keys:
        scopes = [_client(device), device.shared_attributes]
    for scope in scopes:
        found = _found(scope, request.keys) if request.keys else scope
        if len(found) == 1 and len(set(request.keys)) <= 1:
            reply["value"] = next(iter(found.values()))
        elif found:
            reply["values"] = reply.get("values", {}) | found
    return reply


def _client(device: Device) -> dict[str, Any]:
    """Return the client attributes as they are stored: the string "7" as the number 7."""
    return {key: value.value for key, value in device.stored_attributes.items()}


def _found(attributes: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: attributes[key] for key in keys if key in attributes}
