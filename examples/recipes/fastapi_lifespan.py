"""A FastAPI application that forwards what it gets to ThingsBoard. Its client lives as long as the application.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device. Run it with one worker, because the platform
keeps one session for each device: `uvicorn fastapi_lifespan:app`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from tb_mqtt_client import DeviceClient, QueueFullError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    client = DeviceClient()
    # Returns at once, so that the application also starts while the platform is away.
    await client.start()
    app.state.client = client
    yield
    # Sends queued data, for at most 10 seconds.
    await client.stop(timeout=10)


app = FastAPI(lifespan=lifespan)


@app.post("/telemetry")
async def telemetry(values: dict[str, bool | int | float | str], request: Request) -> dict[str, Any]:
    """Send values, and respond when the platform has acknowledged them."""
    client: DeviceClient = request.app.state.client
    result = await client.send_timeseries(values, timeout=5)
    return result.as_dict() | {"certainty": result.certainty}


@app.post("/telemetry/later", status_code=202)
async def telemetry_later(values: dict[str, bool | int | float | str], request: Request) -> dict[str, int]:
    """Queue values, and respond at once."""
    client: DeviceClient = request.app.state.client
    try:
        client.enqueue_timeseries(values)
    except QueueFullError as full:
        raise HTTPException(503, str(full), headers={"Retry-After": "5"}) from full
    return {"queued": client.statistics.queued}


@app.get("/ready")
async def ready(request: Request) -> dict[str, Any]:
    """Respond with 200 while data is accepted, and with 503 otherwise."""
    client: DeviceClient = request.app.state.client
    health = client.health()
    if not client.state.accepts_sends:
        raise HTTPException(503, health)
    return health
