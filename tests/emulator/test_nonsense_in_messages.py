"""Messages of the server with a known topic and valid JSON, but unexpected content, are counted and logged."""

import asyncio
import json
import random

import pytest

TOPICS = (
    "v1/devices/me/attributes",
    "v1/devices/me/attributes/response/1",
    "v1/devices/me/rpc/request/1",
    "v1/devices/me/rpc/request/x",
    "v1/devices/me/rpc/response/1",
    "v1/gateway/attributes",
    "v1/gateway/attributes/response",
    "v1/gateway/connect",
    "v1/gateway/disconnect",
    "v1/gateway/rpc",
    "v2/fw/error",
    "v2/fw/response/1/chunk/0",
)
KEYS = (
    "device", "deviceName", "id", "method", "params", "data", "reason", "name", "newName", "oldName", "deleted", "value", "values",
    "client", "shared", "error", "result", "status", "fw_title", "fw_size", "gateway_device_renamed", "gateway_device_deleted",
)  # fmt: skip
SCALARS = (
    None, True, False, 0, -1, 1, 2**31, 2**64, -(2**63), 10**300, 1.5, float("nan"), float("inf"),
    "", "meter", "\ud800", "1", "{}", "m" * 300,
)  # fmt: skip


def nonsense(dice, depth=0):
    kind = dice.random()
    if kind < 0.5 or depth > 3:
        return dice.choice(SCALARS)
    if kind < 0.65:
        return [nonsense(dice, depth + 1) for _ in range(dice.randrange(3))]
    return {dice.choice(KEYS): nonsense(dice, depth + 1) for _ in range(dice.randrange(5))}


def client_tasks():
    return {task.get_name() for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()}


@pytest.mark.parametrize("seed", range(5))
async def test_unexpected_content_causes_no_error_and_ends_no_task(emulator, gateway, seed):
    dice, contexts = random.Random(seed), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    session, _ = await gateway.connect_device("meter", wait_for_publish=True)
    for owner in (gateway, session):
        owner.set_attribute_update_callback(lambda *_: None)
        owner.set_rpc_request_callback(lambda *_: 1)
    before = client_tasks()
    server = emulator.device("gateway").session
    for number in range(500):
        if number % 100 == 0:
            asking = asyncio.ensure_future(gateway.request_attributes(shared_keys=["a"], timeout=0.05))
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        content = {key: nonsense(dice) for key in dice.sample(KEYS, 3)} if dice.random() < 0.8 else nonsense(dice)
        server.send(dice.choice(TOPICS), json.dumps(content).encode())
        await asyncio.sleep(0)
    # The client reads these messages before the acknowledgement.
    again, _ = await gateway.connect_device("another", wait_for_publish=True)
    assert (await gateway.send_device_timeseries(again, {"a": 1})).is_successful()
    await asyncio.wait([asking])
    assert contexts == []
    assert before <= client_tasks()
    assert gateway.statistics.reconnects == 0
