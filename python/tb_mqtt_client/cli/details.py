"""What a line has besides its values and their time: the form that ``store export`` writes, and ``send`` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tb_mqtt_client.cli.times import parse_ts
from tb_mqtt_client.constants.option_values import Priority
from tb_mqtt_client.entities.gateway.telemetry_metadata import TelemetryMetadata

PROFILE, METADATA, PRIORITY, EXPIRES = "profile", "metadata", "priority", "expires"
FIELDS = frozenset({PROFILE, METADATA, PRIORITY, EXPIRES})
"""The fields that a record with ``values`` may have next to its device and time."""
CONNECTOR, RECEIVED = "connector", "receivedTs"
"""The fields of metadata, as the platform names them."""


@dataclass(frozen=True, slots=True)
class Details:
    """How the values of a record are to be sent."""

    profile: str | None = None
    """The profile of the sub-device, if it is new; ``None`` for the profile of the command."""
    metadata: TelemetryMetadata | None = None
    priority: Priority = Priority.NORMAL
    expires_ms: int = 0
    """When the values expire, in milliseconds since the epoch; 0 for never."""


NO_DETAILS = Details()


def read_details(content: Mapping[str, Any], *, has_device: bool) -> Details:
    """Return the details of a record.

    Args:
        content: The fields of the record whose names are in ``FIELDS``.
        has_device: Whether the record is of a sub-device.

    Raises:
        ValueError: A field is not valid. The text names it.
    """
    if not content:
        return NO_DETAILS
    for name in (PROFILE, METADATA):
        if name in content and not has_device:
            raise ValueError(f"the field {name!r} is only for records of sub-devices (--gateway)")
    profile = content.get(PROFILE)
    if profile is not None and (not isinstance(profile, str) or not profile):
        raise ValueError(f"the field {PROFILE!r} must be a name, not {profile!r}")
    try:
        priority = Priority(content.get(PRIORITY, Priority.NORMAL))
    except ValueError:
        raise ValueError(f"the field {PRIORITY!r} must be one of {', '.join(Priority)}, not {content[PRIORITY]!r}") from None
    return Details(profile, _metadata(content.get(METADATA)), priority, _expires(content.get(EXPIRES)))


def _metadata(given: Any) -> TelemetryMetadata | None:
    if given is None:
        return None
    if not isinstance(given, dict) or given.keys() != {CONNECTOR, RECEIVED}:
        raise ValueError(f"the field {METADATA!r} must be an object with {CONNECTOR} and {RECEIVED}, not {given!r}")
    try:
        return TelemetryMetadata(given[CONNECTOR], given[RECEIVED])
    except ValueError as error:
        raise ValueError(f"the field {METADATA!r}: {error}") from None


def _expires(given: Any) -> int:
    if given is None:
        return 0
    try:
        return parse_ts(given)
    except ValueError as error:
        raise ValueError(f"the field {EXPIRES!r}: {error}") from None


def write_details(profile: str | None, metadata: Mapping[str, Any] | None, priority: Priority, expires_ms: int) -> dict[str, Any]:
    """Return the fields that ``read_details`` reads; what every other send has is left out.

    Args:
        profile: The profile of the sub-device.
        metadata: ``CONNECTOR`` and ``RECEIVED`` of the telemetry.
        priority: The priority of the send.
        expires_ms: When it expires, in milliseconds since the epoch; 0 for never.
    """
    fields: dict[str, Any] = {}
    if profile is not None:
        fields[PROFILE] = profile
    if metadata is not None:
        fields[METADATA] = metadata
    if priority is not Priority.NORMAL:
        fields[PRIORITY] = str(priority)
    if expires_ms:
        fields[EXPIRES] = expires_ms
    return fields
