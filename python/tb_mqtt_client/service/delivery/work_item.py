"""The items of the delivery pipeline's queues: sends whose data is not packed yet, and messages with their history."""

from __future__ import annotations

from typing import Final, TypeAlias

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink, Payload
from tb_mqtt_client.common.async_utils import DeliveryFuture, SendReceipt
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import Certainty, PublishResult
from tb_mqtt_client.constants.mqtt_topics import MessageKind
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.service.delivery.terms import SendTerms

QueuedUplink: TypeAlias = tuple[EncodedUplink, SendReceipt, int, SendTerms | None]
"""An accepted send: its datapoints, the receipt of its result (the future, or an object of the store), its place among all sends
(that of an earlier send, unless the queue policy or the store needs its own), and its terms, if it has any. A plain tuple: there
may be a million of them."""
ENCODED: Final = 0
FUTURE: Final = 1
NUMBER: Final = 2
TERMS: Final = 3


def has_attributes(uplink: QueuedUplink) -> bool:
    """Return whether a send has attributes, which the platform keeps in the order of their arrival."""
    return uplink[ENCODED].attribute_count > 0


class WorkItem:
    """One message in the pipeline: its content, the futures of its result, and its history."""

    packed: Payload | None = None
    """The sends that the payload was packed from, and where their data is in it."""
    device: DeviceIdentity | None = None
    """The sub-device of a message without datapoints, or the new name of the only device of a message with datapoints."""
    devices = 1
    """Devices in the payload, each of which the server counts as a message."""
    superseded = 0
    """Datapoints of the message that a later value of the same key and timestamp in its payload replaces."""
    payload_limit = 0
    """The largest size that the payload could have had, in bytes, for the statistics."""
    checked: int = -1
    """The value of `Admission.changes` when the message was last found to be within the limits."""
    resend = True
    """Whether the message is published again if its connection ends before the acknowledgement."""
    losses = 0
    """Connections that ended while the message was in flight, and possibly because of it."""
    strikes = 0
    """Refusals for a failure of the platform that the message may have caused, see `Suspects.count_failure`."""
    first_failure: float | None = None
    """Monotonic seconds of the first refusal for a failure of the platform."""
    data_before = 0
    """The number of messages with datapoints that the server had acknowledged at the last of these refusals."""
    certainty: Certainty = Certainty.NEVER_SENT
    """What earlier publishes of the message, or of the one that it is a part of, mean for the data. A publish in flight does not
    change this, because its outcome will."""
    accepted_at: float | None = None
    """When the oldest send of the message was accepted, in monotonic seconds; ``None`` if that is not known."""
    published_at: float | None = None
    """When the message was published last, in monotonic seconds."""
    stamp: object = None
    """The totals of published traffic when the message was published, see `LearnedLimits`."""

    def __init__(self, message: MqttPublishMessage, futures: list[DeliveryFuture], datapoints: int = 0) -> None:
        """Create the item of a message.

        Args:
            message: The packet.
            futures: Futures that are resolved with the message's result.
            datapoints: Datapoints whose outcome is the message's outcome, superseded ones included.
        """
        self.message = message
        self.futures = futures
        self.datapoints = datapoints
        self.kind: MessageKind
        self.of_sub_devices: bool
        self.kind, self.of_sub_devices = message.route
        self.has_datapoints: bool = self.kind.has_datapoints

    @classmethod
    def of(cls, message: MqttPublishMessage, *, resend: bool = True) -> WorkItem:
        """Return the item of a message that a program or a request made."""
        item = cls(message, message.delivery_futures, message.datapoints)
        item.device, item.resend = message.device, resend
        return item

    @property
    def is_announcement(self) -> bool:
        """Whether the message announces a sub-device."""
        return self.kind is MessageKind.DEVICE_CONNECT

    @property
    def identities(self) -> list[DeviceIdentity]:
        """The sub-devices that the data or the request is for."""
        if self.device is not None:
            return [self.device]
        return self.packed.device_identities() if self.packed is not None else []

    def rewrite(self, payload: bytes, device: DeviceIdentity) -> None:
        """Replace the payload of a message of one device by one under the device's new name.

        The packed form keeps the old name: parts of the message are renamed when it is split.
        """
        self.message.payload = payload
        self.message.payload_size = len(payload)
        self.device = device
        # A longer name may take the payload over the limit.
        self.checked = -1

    def note_lost(self) -> None:
        """Note that the connection ended before the message was acknowledged."""
        # A message that was published while its connection was closing was not written.
        if self.message.is_sent:
            self.certainty = Certainty.UNKNOWN

    def note_refused(self) -> None:
        """Note that the platform refused the message, which is published again."""
        # The platform may have taken the data of some devices of a message that it refused (docs/platform_contract.md,
        # section 4).
        if self.devices > 1:
            self.certainty = Certainty.UNKNOWN
        elif self.certainty is Certainty.NEVER_SENT:
            self.certainty = Certainty.REFUSED

    def note_failed(self) -> None:
        """Note that the platform failed while it processed the message."""
        self.certainty = Certainty.UNKNOWN

    def result(self, reason_code: int) -> PublishResult:
        """Return the result of the message."""
        message = self.message
        packet_id = message.message_id if message.message_id is not None else -1
        result = PublishResult(message.topic, message.qos, packet_id, message.payload_size, reason_code, self.datapoints)
        return result if reason_code == 0 else result.with_certainty(self._certainty_with(reason_code))

    def _certainty_with(self, reason_code: int) -> Certainty:
        """Return the certainty of a result that is not successful. After a loss, a refusal of a later publish proves nothing."""
        if reason_code == LocalReasonCode.KEPT:
            return Certainty.KEPT
        if self.certainty is Certainty.UNKNOWN:
            return Certainty.UNKNOWN
        if reason_code > 0:
            return Certainty.REFUSED
        if self.certainty is Certainty.NEVER_SENT and self.message.is_sent:
            return Certainty.UNKNOWN
        return self.certainty

    def __repr__(self) -> str:
        return repr(self.message)


Queued: TypeAlias = QueuedUplink | WorkItem
"""A send whose data is not packed yet, or a message."""
