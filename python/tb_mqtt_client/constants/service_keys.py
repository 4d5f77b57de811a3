"""Keys of telemetry messages (docs/platform_contract.md, section 3)."""

from typing import Final

TELEMETRY_TIMESTAMP_PARAMETER: Final = "ts"
"""The time of a record, in milliseconds since the epoch."""
TELEMETRY_VALUES_PARAMETER: Final = "values"
"""The datapoints of a record, as ``{key: value}``."""
