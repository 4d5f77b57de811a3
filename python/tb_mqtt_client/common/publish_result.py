"""The result of a published message, or of a send."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, ClassVar

from tb_mqtt_client.constants.reason_codes import FIRST_FAILURE, LocalReasonCode, reason_name


class Certainty(StrEnum):
    """What is certain about the data of a send: whether the platform has it."""

    DELIVERED = "delivered"
    """The platform acknowledged all of the data. With QoS 0: all of it was written to the socket."""
    REFUSED = "refused"
    """The platform refused the data or its sub-device, or the client rejected the data, for example as too large. The platform
    has none of it."""
    NEVER_SENT = "never_sent"
    """The data was in no PUBLISH that was written, so the platform has none of it."""
    UNKNOWN = "unknown"
    """The platform may have all of the data or a part of it. Either a PUBLISH with the data was written and neither acknowledged
    nor clearly refused, or some messages of a split send were acknowledged and others were not."""
    PENDING = "pending"
    """The caller's ``timeout`` ended before the outcome was known. The client still has the data, and will deliver it if it
    can."""
    KEPT = "kept"
    """The client was stopped before the outcome was known. The data is on disk, in the client's store, and the next client that
    opens the store sends all data of the send, including parts that the platform may have already."""


class PublishResult:
    """The result of a published message, or of all messages that carried the datapoints of a send. Mutable, and the same object for
    sends with equally many datapoints that were in one message.

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
        self.qos: int = 1 if qos is None else qos
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

    @property
    def certainty(self) -> Certainty:
        """Whether the platform has the data.

        It follows from the reason code, unless it was set by ``with_certainty``. A result with reason code -1 that a program made
        is ``UNKNOWN``.
        """
        return _certainty_of(self.reason_code)

    def with_certainty(self, certainty: Certainty) -> PublishResult:
        """Return an equal result with this certainty."""
        return _QualifiedResult(self, certainty)

    def with_datapoints(self, datapoints_count: int) -> PublishResult:
        """Return the result of a send whose datapoints were all in this message, which may contain those of other sends too."""
        return PublishResult(self.topic, self.qos, self.message_id, self.payload_size, self.reason_code, datapoints_count)

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes of SDK 2.0 by name: all except ``certainty``."""
        return {name: getattr(self, name) for name in self._FIELDS}

    @staticmethod
    def merge(results: Sequence[PublishResult]) -> PublishResult:
        """Combine the results of several messages into one.

        Args:
            results: The results, at least one.

        Returns:
            A result with the topic and QoS of the first one, the sums of sizes and datapoints, and the worst reason code: the
            highest refusal of the server, or else the first code of ``LocalReasonCode``, or else 0. Its certainty is true of all
            data together: ``PENDING`` if the outcome of a part is pending; ``KEPT`` if a part is kept in the store; ``UNKNOWN`` if
            the platform may have a part but not all, so that sending everything again may store data twice; ``REFUSED`` if it has
            nothing and refused a part.

        Raises:
            ValueError: There is no result.
        """
        if not results:
            raise ValueError("No publish results to merge.")
        first = results[0]
        merged = PublishResult(
            first.topic,
            first.qos,
            -1,
            sum(result.payload_size for result in results),
            _worst([result.reason_code for result in results]),
            sum(result.datapoints_count for result in results),
        )
        certainty = _joint_certainty({result.certainty for result in results})
        return merged if certainty is merged.certainty else merged.with_certainty(certainty)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublishResult) and self.as_dict() == other.as_dict() and self.certainty is other.certainty

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        attributes = self.as_dict()
        if self.certainty is not Certainty.DELIVERED:
            attributes["certainty"] = self.certainty
        return f"PublishResult({', '.join(f'{name}={value}' for name, value in attributes.items())})"


def pending_result(topic: str, qos: int, payload_size: int) -> PublishResult:
    """Return the result for a caller whose ``timeout`` ended before the outcome was known."""
    result = PublishResult(topic, qos, -1, payload_size, LocalReasonCode.NOT_DELIVERED)
    return result.with_certainty(Certainty.PENDING)


class _QualifiedResult(PublishResult):
    """A result with a certainty of its own.

    It is a subclass because nearly all results are successful, and would become larger by an attribute that they do not need.
    """

    __slots__ = ("_certainty",)

    def __init__(self, result: PublishResult, certainty: Certainty) -> None:
        super().__init__(
            result.topic, result.qos, result.message_id, result.payload_size, result.reason_code, result.datapoints_count
        )
        self._certainty = certainty

    @property
    def certainty(self) -> Certainty:
        return self._certainty

    def with_datapoints(self, datapoints_count: int) -> PublishResult:
        return super().with_datapoints(datapoints_count).with_certainty(self._certainty)


_CERTAINTY_OF_LOCAL_CODES: dict[int, Certainty] = {
    LocalReasonCode.DROPPED: Certainty.NEVER_SENT,
    LocalReasonCode.KEPT: Certainty.KEPT,
}


def _certainty_of(reason_code: int) -> Certainty:
    """Return the certainty of a result of which nothing but the reason code is known."""
    if reason_code == 0:
        return Certainty.DELIVERED
    if reason_code > 0:
        return Certainty.REFUSED
    return _CERTAINTY_OF_LOCAL_CODES.get(reason_code, Certainty.UNKNOWN)


def _joint_certainty(certainties: set[Certainty]) -> Certainty:
    """Return the certainty of a send whose messages have these certainties."""
    if len(certainties) == 1:
        return next(iter(certainties))
    for certainty in (Certainty.PENDING, Certainty.KEPT):
        if certainty in certainties:
            return certainty
    if certainties <= {Certainty.REFUSED, Certainty.NEVER_SENT}:
        return Certainty.REFUSED
    return Certainty.UNKNOWN


def _worst(codes: list[int]) -> int:
    """Return the highest refusal of the server, or else the first negative code, or else 0."""
    refusals = [code for code in codes if code >= FIRST_FAILURE]
    return max(refusals) if refusals else next((code for code in codes if code != 0), 0)
