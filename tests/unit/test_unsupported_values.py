"""Values that JSON cannot express raise one error, in every call that takes JSON values.

SDK 2.0 raised a ``TypeError`` or a ``ValueError``, depending on the call. The error is both, because programs catch either.
"""

import pytest

from tb_mqtt_client.common.exceptions import UnsupportedValueError
from tb_mqtt_client.constants.json_typing import validate_json_compatibility
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.service.formats.json_device import JsonDeviceFormat
from tb_mqtt_client.service.formats.json_values import json_publish


class Text(str):
    pass


UNSUPPORTED = [
    pytest.param(object(), id="object()"),
    *(b"x", {1}, (1,), 1j, Text("x"), {1: 2}, [{"a": {None: 1}}], "\ud800", {"\ud800": 1}),
]

CALLS = {
    "validate_json_compatibility": validate_json_compatibility,
    "json_publish": lambda value: json_publish("topic", {"a": value}),
    "RPCResponse.build(result)": lambda value: RPCResponse.build(1, value),
    "RPCResponse.build(error)": lambda value: RPCResponse.build(1, error={"a": value}),
    "GatewayRPCResponse.build(result)": lambda value: GatewayRPCResponse.build("D1", 1, value),
    "GatewayRPCResponse.build(error)": lambda value: GatewayRPCResponse.build("D1", 1, error={"a": value}),
    # A result with an error is checked when it is written.
    "RPCResponse sent": lambda value: JsonDeviceFormat().build_rpc_response(RPCResponse.build(1, value, "error")),
}


@pytest.mark.parametrize("value", UNSUPPORTED, ids=ascii)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_values_that_json_cannot_express_are_refused(call, value):
    with pytest.raises(UnsupportedValueError, match=r"^Invalid JSON \w+ at \$") as raised:
        call(value)
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, TypeError)


@pytest.mark.parametrize("value", UNSUPPORTED, ids=ascii)
async def test_parameters_of_an_rpc_request_are_checked(value):
    with pytest.raises(UnsupportedValueError, match=r"^Invalid JSON \w+ at \$"):
        await RPCRequest.build("m", value)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_numbers_that_are_not_finite_raise_a_value_error_only(call, number):
    with pytest.raises(ValueError, match="numbers must be finite") as raised:
        call(number)
    assert not isinstance(raised.value, TypeError)


def test_a_secret_key_with_a_lone_surrogate_is_refused():
    with pytest.raises(UnsupportedValueError, match="surrogate"):
        ClaimRequest.build("\ud800")


KEYS = [
    (lambda keys: AttributeRequest.of(1, keys, None), "without commas"),
    (lambda keys: AttributeRequest.of(1, ["a"], keys), "without commas"),
    (lambda keys: GatewayAttributeRequest.of(1, keys, None), "list of non-empty str"),
]


@pytest.mark.parametrize(("call", "text"), KEYS)
def test_keys_of_the_wrong_type_are_refused(call, text):
    """SDK 2.0 accepted such lists and raised a ``TypeError`` when the request was sent."""
    for wrong in ("abc", ("a",), {"a"}, [1], ["a", None], [b"x"], 5):
        with pytest.raises(UnsupportedValueError, match=text):
            call(wrong)


@pytest.mark.parametrize(("call", "text"), KEYS)
def test_an_invalid_key_of_the_right_type_is_refused(call, text):
    with pytest.raises(ValueError, match=text) as raised:
        call([""])
    assert not isinstance(raised.value, TypeError)
