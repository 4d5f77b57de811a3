"""The timestamps of telemetry that is sent without ``ts``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.option_values import TimestampSource

UNSTAMPED_SENDS_A_BATCH: Final = 1000
"""Each send without a timestamp may need a message of its own. Messages take more memory than queued sends, so that few sends are
packed at a time."""


def stamp_of(source: TimestampSource) -> Callable[[], int | None]:
    """Return the function whose result is the timestamp of telemetry without ``ts``, in milliseconds since the epoch.

    Its result is ``None`` if the platform sets the timestamp.
    """
    return now_ms if source is TimestampSource.CLIENT else _none


def _none() -> None: ...


def check_unstamped(encoded: EncodedUplink) -> None:
    """Check telemetry that may be sent without a timestamp.

    Raises:
        ValueError: It has a key that the platform would not take for a key in a record without a timestamp.
    """
    if (key := encoded.key_that_needs_ts()) is not None:
        raise ValueError(
            f"Invalid key {key!r}: telemetry with this key must have a ts, because the platform reads it as a part of the record, "
            "not as a key, where there is no timestamp"
        )
