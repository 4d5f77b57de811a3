"""Lets a thread wait until its send is on disk."""

from __future__ import annotations

from tb_mqtt_client.common.async_utils import SendReceipt
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.turn import Turn


class UntilStored:
    """The receipt of a send of another thread, which waits until the send is on disk or has its result."""

    __slots__ = ("_safe", "receiver")

    def __init__(self, receiver: SendReceipt) -> None:
        """Pass the result on to a receipt of the program."""
        self.receiver: SendReceipt = receiver
        self._safe = Turn()

    def wait(self, timeout: float | None) -> bool:
        """Wait in the thread of the caller. Return False if the send is neither on disk nor has its result after ``timeout`` s."""
        return self._safe.wait(timeout)

    def note_stored(self, _: object = None) -> None:
        """Let the caller continue."""
        self._safe.give()

    def done(self) -> bool:
        """Return whether the outcome was set."""
        return self.receiver.done()

    def cancelled(self) -> bool:
        """Return whether the caller was cancelled."""
        return self.receiver.cancelled()

    def set_result(self, result: PublishResult, /) -> None:
        """Set the outcome, and let the caller continue."""
        self.receiver.set_result(result)
        self._safe.give()
