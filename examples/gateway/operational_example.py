"""A whole gateway: rooms with sensors behind it, which report, are told their settings, and answer calls, until Ctrl-C.

TB_HOST and TB_ACCESS_TOKEN say which platform and which gateway. Lost connections are made again by themselves, and the rooms are
announced again; what is measured meanwhile waits.
"""

import asyncio
import logging
import random
from contextlib import suppress
from typing import Any

from tb_mqtt_client import AttributeUpdate, DeviceSession, GatewayClient, GatewayConfig, run
from tb_mqtt_client.common.logging_utils import configure_logging
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse

logger = logging.getLogger("rooms")

ROOMS = ("kitchen", "office", "workshop")


class Room:
    """One sub-device. Its setting is the shared attribute ``period``, the seconds between two reports."""

    def __init__(self, session: DeviceSession) -> None:
        self._session = session
        self._period = 5.0
        self._changed = asyncio.Event()
        session.set_attribute_update_callback(self._attributes_changed)
        session.set_rpc_request_callback(self._answer)

    async def report(self, gateway: GatewayClient) -> None:
        """Until cancelled."""
        while True:
            # The delivery is the client's work: nothing has to be waited for here.
            await gateway.send_device_timeseries(self._session, self._measure(), wait_for_publish=False)
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    await self._changed.wait()

    def _measure(self) -> dict[str, float]:
        return {"temperature": round(random.gauss(21, 0.5), 2), "humidity": round(random.gauss(45, 3), 1)}

    def _attributes_changed(self, session: DeviceSession, update: AttributeUpdate) -> None:
        self._period = float(update.get("period", self._period))
        logger.info("%s reports every %g s", session.device_info.device_name, self._period)
        self._changed.set()

    def _answer(self, session: DeviceSession, request: GatewayRPCRequest) -> GatewayRPCResponse:
        """What is raised here is the call's error."""
        if request.method != "get_status":
            raise ValueError(f"There is no method {request.method!r}")
        result: dict[str, Any] = self._measure() | {"period": self._period}
        return GatewayRPCResponse.build(session.device_info.device_name, request.request_id, result)


async def main() -> None:
    configure_logging()
    async with GatewayClient(GatewayConfig()) as gateway, asyncio.TaskGroup() as reports:
        await gateway.send_attributes({"rooms": list(ROOMS)})
        for name in ROOMS:
            session, _ = await gateway.connect_device(name, "room", wait_for_publish=True)
            await gateway.send_device_attributes(session, {"floor": 1})
            reports.create_task(Room(session).report(gateway), name=name)
        logger.info("%d rooms report", len(ROOMS))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(main())
