"""Registers of Modbus meters as telemetry of sub-devices of a gateway.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway. Needs the package pymodbus. Optional:
MODBUS_HOST (default: 127.0.0.1), MODBUS_PORT (default: 502) and INTERVAL, the seconds between two readings (default: 5).
"""

import asyncio
import logging
import os
import time

from pymodbus import ModbusException
from pymodbus.client import AsyncModbusTcpClient

from tb_mqtt_client import GatewayClient, run

METERS = {1: "meter 1", 2: "meter 2"}
"""The names of the sub-devices by their Modbus address."""
INTERVAL = float(os.environ.get("INTERVAL", "5"))
logger = logging.getLogger("modbus")


async def read(modbus: AsyncModbusTcpClient, address: int) -> dict[str, float]:
    """Read voltage and power: two 32-bit floats from register 0 on."""
    response = await modbus.read_holding_registers(0, count=4, device_id=address)
    if response.isError():
        raise ModbusException(f"device {address}: {response}")
    values = modbus.convert_from_registers(response.registers, modbus.DATATYPE.FLOAT32)
    # A list of floats, because there are registers for several.
    assert isinstance(values, list)
    return {name: round(float(value), 2) for name, value in zip(("voltage", "power"), values, strict=True)}


async def main() -> None:
    logging.basicConfig(level="INFO")
    logging.getLogger("pymodbus").setLevel("ERROR")
    modbus = AsyncModbusTcpClient(os.environ.get("MODBUS_HOST", "127.0.0.1"), port=int(os.environ.get("MODBUS_PORT", "502")))
    async with GatewayClient() as gateway:
        sessions = {address: (await gateway.connect_device(name, "meter"))[0] for address, name in METERS.items()}
        await modbus.connect()
        while True:
            began = time.time_ns() // 1_000_000
            for address, session in sessions.items():
                try:
                    values = await read(modbus, address)
                except ModbusException as error:
                    # pymodbus connects again by itself.
                    logger.warning("%s is not read: %s", METERS[address], error)
                    continue
                # Not awaited: a slow platform must not delay the next reading.
                gateway.enqueue_device_timeseries(session, {"ts": began, "values": values})
            await asyncio.sleep(INTERVAL)


if __name__ == "__main__":
    run(main())
