"""The result of a published message, or of a send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tb_mqtt_client.constants.reason_codes import FIRST_FAILURE, reason_name


class PublishResult:
    """The result of a published message, or of all messages that carried the datapoints of a send. Mutable.

    Attributes:
        topic: The topic of the message.
        qos: The QoS with which it was published.
        message_id: The packet id of the message; -1 if there was no message or there were several.
        payload_size: The size of the payloads in bytes.
        reason_code: 0 for success. The other codes are described in ``constants/reason_codes.py``.
        datapoints_count: The number of datapoints.
    """

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
        """Keep the values; a ``qos`` of ``None`` means 1."""
        self.topic = topic
        self.qos = 1 if qos is None else qos
        self.message_id = message_id
        self.payload_size = payload_size
        self.reason_code = reason_code
        self.datapoints_count = datapoints_count

    def is_successful(self) -> bool:
        """Return True if the platform acknowledged all of the data."""
        return self.reason_code == 0

    @property
    def reason(self) -> str:
        """The name of the reason code, such as "Quota exceeded"."""
        return reason_name(self.reason_code)

    def with_datapoints(self, datapoints_count: int) -> PublishResult:
        """Return the result of a send whose datapoints were all in this message, which may contain those of other sends too."""
        return PublishResult(self.topic, self.qos, self.message_id, self.payload_size, self.reason_code, datapoints_count)

    def as_dict(self) -> dict[str, Any]:
        """Return all attributes by name."""
        return {name: getattr(self, name) for name in self._FIELDS}

    @staticmethod
    def merge(results: Sequence[PublishResult]) -> PublishResult:
        """Combine the results of several messages into one.

        Args:
            results: The results, at least one.

        Returns:
            A result with the topic and QoS of the first one, the sums of sizes and datapoints, and the worst reason code: the
            highest refusal of the server, or else the first code of ``LocalReasonCode``, or else 0.

        Raises:
            ValueError: There is no result.
        """
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
    """Return the highest refusal of the server, or else the first negative code, or else 0."""
    refusals = [code for code in codes if code >= FIRST_FAILURE]
    return max(refusals) if refusals else next((code for code in codes if code != 0), 0)
