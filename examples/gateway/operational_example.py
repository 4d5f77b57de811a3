"""A complete gateway, whose sub-devices are rooms that report, receive settings, and respond to RPC requests, until Ctrl-C.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway. After a lost connection, the client
reconnects and announces the rooms again automatically; data measured in the meantime is queued.
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
    """A sub-device whose shared attribute ``period`` sets the seconds between two reports."""

    def __init__(self, session: DeviceSession) -> None:
        self._session = session
        self._period = 5.0
        self._changed = asyncio.Event()
        session.set_attribute_update_callback(self._attributes_changed)
        session.set_rpc_request_callback(self._respond)

    async def report(self, gateway: GatewayClient) -> None:
        """Report until cancelled."""
        while True:
            # The client takes care of the delivery, so the result is not awaited here.
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

    def _respond(self, session: DeviceSession, request: GatewayRPCRequest) -> GatewayRPCResponse:
        """Respond to a request. An exception raised here is sent as its error."""
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
