"""The code that one datapoint of a device runs through, from the send to its result."""

import itertools
import sys
from pathlib import Path

import pytest
from device_peer import make_client

import tb_mqtt_client

ROOT = Path(tb_mqtt_client.__file__).parent
MOST_MOVES = 50
"""Moves between modules that the path may have. Lower it when the path gets shorter."""


@pytest.fixture
async def client(emulator):
    client = make_client(emulator)
    await client.connect()
    yield client
    await client.stop()


async def modules_of_a_send(client):
    """Return the modules of the package that one awaited send enters, one after the other.

    It is the shortest way of some sends: now and then, a timer runs in between, or a send is the one whose time is noted.
    """
    for value in range(20):
        await client.send_timeseries({"a": value})
    return min([await entered_by_a_send(client) for _ in range(5)], key=len)


async def entered_by_a_send(client):
    entered = []

    def note(frame, event, _argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT):
            entered.append(path.relative_to(ROOT).with_suffix("").as_posix())

    sys.setprofile(note)
    try:
        await client.send_timeseries({"a": 99})
    finally:
        sys.setprofile(None)
    # The emulator runs in the same loop.
    return [module for module in entered if not module.startswith("emulator/")]


async def test_a_device_runs_no_code_for_sub_devices(client):
    entered = set(await modules_of_a_send(client))
    assert "service/message_service" in entered
    assert not {module for module in entered if module.startswith("service/gateway/") or "sub_device" in module}


async def test_the_path_moves_seldom_between_modules(client):
    entered = await modules_of_a_send(client)
    moves = sum(one != other for one, other in itertools.pairwise(entered))
    assert moves <= MOST_MOVES
