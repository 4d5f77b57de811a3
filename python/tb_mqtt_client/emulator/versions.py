"""What the versions of the platform do differently on the wire (contract sections 0, 4, 5 and 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

Version: TypeAlias = Literal["3.7", "3.8", "4.2", "4.2.1", "4.3"]
NEWEST: Final[Version] = "4.3"


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """The differences by name, so that no other module compares versions."""

    # 3.8: getSessionLimits, `metadata` of gateway telemetry, `gateway` in a provision request
    answers_session_limits: bool = True
    reads_metadata: bool = True
    provisions_gateways: bool = True
    # 4.2.1: one PUBACK a gateway publish, and PUBACK 0x97 when it is over a limit
    acknowledges_gateway_once: bool = True
    # 4.3: PUBACK 0x97 for a connect over the device limit of the tenant; 4.2.1 says nothing
    acknowledges_connect_over_device_limit: bool = True


_4_3: Final = ServerVersion()
_4_2_1: Final = replace(_4_3, acknowledges_connect_over_device_limit=False)
_4_2: Final = replace(_4_2_1, acknowledges_gateway_once=False)
_3_7: Final = replace(_4_2, answers_session_limits=False, reads_metadata=False, provisions_gateways=False)

_VERSIONS: Final = {"3.7": _3_7, "3.8": _4_2, "4.2": _4_2, "4.2.1": _4_2_1, "4.3": _4_3}
VERSIONS: Final = tuple(_VERSIONS)


def server_version(version: str) -> ServerVersion:
    """Raises `ValueError` for a version that the emulator does not know."""
    if version not in _VERSIONS:
        raise ValueError(f"version must be one of {', '.join(VERSIONS)}, not {version!r}")
    return _VERSIONS[version]
