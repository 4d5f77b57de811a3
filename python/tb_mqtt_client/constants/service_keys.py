"""Keys of telemetry messages."""

from typing import Final

TELEMETRY_TIMESTAMP_PARAMETER: Final = "ts"
TELEMETRY_VALUES_PARAMETER: Final = "values"
