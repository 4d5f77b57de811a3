"""What became of a publish, or of all publishes that carried a call's datapoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tb_mqtt_client.constants.reason_codes import FIRST_FAILURE, reason_name


class PublishResult:
    """The platform's answer. Reason code 0 is success; ``constants/reason_codes.py`` says what the others mean."""

    _FIELDS = ("topic", "qos", "message_id", "payload_size", "reason_code", "datapoints_count")
    __slots__ = _FIELDS

    def __init__(
        self,
        topic: str,
        qos: int | None,
        message_id: int,
        payload_size: int,
        reason_code: int,
        datapoints_count: int = 0,
    ) -> None:
        """``message_id``: packet id of the message, -1 if there was none or several. ``payload_size``: bytes on the wire."""
        self.topic = topic
        self.qos = 1 if qos is None else qos
        self.message_id = message_id
        self.payload_size = payload_size
        self.reason_code = reason_code
        self.datapoints_count = datapoints_count

    def is_successful(self) -> bool:
        """Whether the platform acknowledged all of it."""
        return self.reason_code == 0

    @property
    def reason(self) -> str:
        """Name of the reason code."""
        return reason_name(self.reason_code)

    def with_datapoints(self, datapoints_count: int) -> PublishResult:
        """Return the result of one call whose datapoints were all in the publish, together with those of others perhaps."""
        return PublishResult(self.topic, self.qos, self.message_id, self.payload_size, self.reason_code, datapoints_count)

    def as_dict(self) -> dict[str, Any]:
        """All attributes by name."""
        return {name: getattr(self, name) for name in self._FIELDS}

    @staticmethod
    def merge(results: Sequence[PublishResult]) -> PublishResult:
        """One result for several publishes: sums, and the worst reason code. Raises ``ValueError`` for none."""
        if not results:
            raise ValueError("No publish results to merge.")
        first = results[0]
        return PublishResult(
            first.topic,
            first.qos,
            -1,
            sum(result.payload_size for result in results),
            _worst([result.reason_code for result in results]),
            sum(result.datapoints_count for result in results),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublishResult) and self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        attributes = ", ".join(f"{name}={value}" for name, value in self.as_dict().items())
        return f"PublishResult({attributes})"


def _worst(codes: list[int]) -> int:
    """The highest refusal of the platform, else the first code of the client's own, else success."""
    refusals = [code for code in codes if code >= FIRST_FAILURE]
    return max(refusals) if refusals else next((code for code in codes if code != 0), 0)
