"""A remote call of the server, from its beginning to its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class RpcCall:
    """An RPC of the server that has not ended."""

    id: int
    method: str
    params: Any
    oneway: bool
    # what the device answered; None for a one-way call
    answer: asyncio.Future[bytes | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    # a notice of the platform waits in its database until it is acknowledged
    persisted: bool = False
    sent: bool = False

    def end(self, payload: bytes | None) -> None:
        if not self.answer.done():
            self.answer.set_result(payload)

    def describe(self) -> str:
        return f"{self.method!r} (id {self.id})"
