"""Programs with narrow types type-check. `make lint` runs mypy on this file, where an unused ignore is an error."""

from __future__ import annotations

import pytest

from tb_mqtt_client import DeviceClient, RPCRequest, RPCResponse, StoredDelivery, UnsupportedValueError
from tb_mqtt_client.constants.json_typing import JSONCompatibleType

Reading = float | None

TEXTS: dict[str, str] = {"a": "b"}
NUMBERS: list[int] = [1, 2]
TREE: dict[str, list[dict[str, Reading]]] = {"readings": [{"t": 21.5, "h": None}]}
VALUES: list[JSONCompatibleType] = [None, True, 1, 1.5, "text", TEXTS, NUMBERS, TREE, [TREE], {"a": NUMBERS}]


async def test_narrow_types_are_accepted_as_json_values() -> None:
    for request in (
        await RPCRequest.build("m", TEXTS),
        await RPCRequest.build("m", NUMBERS),
        await RPCRequest.build("m", TREE),
    ):
        assert isinstance(request.params, dict | list)
    for response in (
        RPCResponse.build(1, TEXTS),
        RPCResponse.build(1, TREE),
        RPCResponse.build(1, error=TEXTS),
        RPCResponse.build(1, error=ValueError("wrong")),
    ):
        assert response.request_id == 1
    assert len([await RPCRequest.build("m", value) for value in VALUES]) == len(VALUES)


async def call(client: DeviceClient) -> None:
    """Check the types of these calls; this function is not run."""
    await client.call_rpc("m", TEXTS)
    await client.call_rpc("m", NUMBERS)
    await client.call_rpc("m", TREE, timeout=1)
    await client.call_rpc("m", {1})  # type: ignore[arg-type]


async def send(client: DeviceClient) -> None:
    """Check the types of the futures of sends; this function is not run."""
    [delivery] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    delivery.stored  # type: ignore[attr-defined]  # noqa: B018  # a client without a store has no such future
    if isinstance(delivery, StoredDelivery):
        await delivery.stored


async def test_values_that_are_not_json_are_type_errors() -> None:
    with pytest.raises(UnsupportedValueError):
        await RPCRequest.build("m", {1})  # type: ignore[arg-type]
    with pytest.raises(UnsupportedValueError):
        await RPCRequest.build("m", {"a": object()})  # type: ignore[dict-item]
    with pytest.raises(UnsupportedValueError):
        await RPCRequest.build("m", {1: "a"})  # type: ignore[dict-item]
