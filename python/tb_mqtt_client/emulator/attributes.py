"""Attributes on the server: updates and deletions of shared ones to the device, and the answers to requests.

Source: docs/platform_contract.md, sections 2 and 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tb_mqtt_client.emulator.devices import Device
from tb_mqtt_client.emulator.payloads import AttributeKeys, GatewayAttributeRequest


def set_shared(device: Device, values: Mapping[str, Any]) -> bool:
    """Store, and send the update. Returns False when the device is not subscribed to it."""
    device.shared_attributes.update(values)
    return send_update(device, values)


def send_update(device: Device, values: Mapping[str, Any]) -> bool:
    """Send an update without storing it. Returns False when the device is not subscribed to it."""
    return device.session is not None and device.session.send_attributes(device, dict(values))


def delete_shared(device: Device, keys: Iterable[str]) -> bool:
    """Delete, and send `{"deleted": [...]}` with all of the keys, known or not."""
    deleted = list(keys)
    for key in deleted:
        device.shared_attributes.pop(key, None)
    return device.session is not None and device.session.send_attributes(device, {"deleted": deleted})


def answer(device: Device, keys: AttributeKeys) -> dict[str, Any]:
    """`{"client": {...}, "shared": {...}}`, each only if something was found."""
    client_keys, shared_keys = keys
    if not client_keys and not shared_keys:
        found = {"client": _client(device), "shared": dict(device.shared_attributes)}
    else:
        found = {
            "client": _found(_client(device), client_keys or ()),
            "shared": _found(device.shared_attributes, shared_keys or ()),
        }
    return {scope: values for scope, values in found.items() if values}


def gateway_answer(device: Device, request: GatewayAttributeRequest) -> dict[str, Any]:
    """Return `value` when one key was asked for, `values` when several were, neither when nothing was found.

    A request without keys gets all attributes of both scopes in one object, and a scope with a single one as `value`.
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
    """What the device sent comes back as it is stored: "7" as 7."""
    return {key: value.value for key, value in device.stored_attributes.items()}


def _found(attributes: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: attributes[key] for key in keys if key in attributes}
