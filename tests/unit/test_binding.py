"""Handlers by name without a client: signatures are checked by the decorator, and values when a message arrives."""

import asyncio
import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tb_mqtt_client.common.exceptions import RPCRefusal
from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.service.gateway.handlers import SubDeviceHandlers
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.handlers import Handlers, no_handler

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class Point:
    x: int
    y: int = 0


@pytest.fixture
def handlers():
    return Handlers(RPCRequest, AttributeUpdate)


def respond(function, params):
    handlers = Handlers(RPCRequest, AttributeUpdate)
    handlers.rpc(("m",))(function)
    request = RPCRequest.from_dict(1, {"method": "m", "params": params})
    return handlers.of_method("m").respond(request, {RPCRequest: request})


def two(a: int, b: float = 0.5):
    return a, b


def whole(params):
    return params


def one_int(value: int):
    return value


def optional(value: int | None):
    return value


def with_default(value: int = 7):
    return value


def structured(point: Point):
    return point


def listed(items: list[int]):
    return items


def nothing():
    return "called"


def rest(first: int, *others: int, **named: str):
    return first, others, named


def keyword_only(*, a: int, b: int = 2):
    return a, b


def with_request(request: RPCRequest, a: int):
    return request.method, a


def request_last(a: int, request: RPCRequest):
    return request.method, a


class Bound:
    def method(self, a: int):
        return a

    def __call__(self, a: int):
        return a


@pytest.mark.parametrize(
    ("function", "params", "result"),
    [
        (two, {"a": 1}, (1, 0.5)),
        (two, {"b": 2, "a": 1}, (1, 2.0)),
        (two, [1, 2], (1, 2.0)),
        (two, 1, (1, 0.5)),
        (whole, {"a": 1}, {"a": 1}),
        (whole, [1], [1]),
        (whole, None, None),
        (one_int, 5, 5),
        (one_int, [5], 5),
        (one_int, {"value": 5}, 5),
        (optional, None, None),
        (with_default, None, 7),
        (with_default, 1, 1),
        (structured, {"x": 1}, Point(1)),
        (listed, [1, 2], [1, 2]),
        (listed, {"items": [1]}, [1]),
        (nothing, None, "called"),
        (nothing, {}, "called"),
        (nothing, [], "called"),
        (rest, [1, 2, 3], (1, (2, 3), {})),
        (rest, {"first": 1, "c": "d"}, (1, (), {"c": "d"})),
        (keyword_only, {"a": 1}, (1, 2)),
        (with_request, 3, ("m", 3)),
        (with_request, {"a": 3}, ("m", 3)),
        (request_last, 3, ("m", 3)),
        (Bound().method, {"a": 1}, 1),
        (Bound(), 1, 1),
        (functools.partial(two, b=3.5), {"a": 1}, (1, 3.5)),
        (lambda a, b: a + b, [1, 2], 3),
    ],
)
def test_parameters_of_a_request_are_bound(function, params, result):
    assert respond(function, params) == result


@pytest.mark.parametrize(
    ("function", "params", "text"),
    [
        (two, {}, r"m: missing a required argument: 'a'; the parameters are \(a: int, b: float = 0\.5\)"),
        (two, {"a": 1, "c": 2}, "m: got an unexpected keyword argument 'c'; the parameters are"),
        (two, [1, 2, 3], "m: too many positional arguments"),
        (two, {"a": "x"}, "m: a must be an integer, not 'x'"),
        (one_int, None, "m: missing a required argument: 'value'"),
        (one_int, "x", "m: value must be an integer, not 'x'"),
        (structured, {"y": 1}, "m: point has no 'x'; it must be an object with x, y"),
        (structured, 3, "m: point must be an object with x, y, not 3"),
        (listed, [1, "a"], r"m: items\[1\] must be an integer"),
        (nothing, 5, "m: too many positional arguments"),
        (rest, [1, "a"], r"m: others\[0\] must be an integer"),
        (rest, {"first": 1, "c": 2}, "m: c must be a string"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(function, params, text):
    with pytest.raises(RPCRefusal, match=f"^{text}"):
        respond(function, params)


def test_errors_of_a_function_are_its_own():
    def fail(value: int):
        raise ValueError(value)

    with pytest.raises(ValueError, match=r"^5$"):
        respond(fail, 5)


def unresolved(a: "NoSuchType"): ...  # noqa: F821


def of_type_checking(a: "Decimal"): ...


def unsupported(a: complex): ...


def with_update(update: AttributeUpdate): ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (unresolved, r"unresolved: the annotation of 'a' cannot be resolved \(name 'NoSuchType' is not defined\)"),
        (of_type_checking, "define its types at the top of a module, outside of functions and of `if TYPE_CHECKING`"),
        (unsupported, "unsupported: 'a' has the annotation complex, which is not supported"),
        (with_update, "the parameter 'update' is annotated with AttributeUpdate, which it does not get: it may get RPCRequest"),
        (5, "the handler must be a function or a coroutine function, not 5"),
    ],
)
def test_the_decorator_refuses_a_signature_that_is_not_possible(handlers, function, text):
    with pytest.raises(TypeError, match=text):
        handlers.rpc(("m",))(function)
    assert not handlers.methods


def test_names_of_methods(handlers):
    assert handlers.rpc(())(nothing) is nothing
    handlers.rpc(("a", "b"))(two)
    assert list(handlers.methods) == ["nothing", "a", "b"]
    with pytest.raises(ValueError, match="the method 'b' has a handler: two"):
        handlers.rpc(("c", "b"))(whole)
    assert list(handlers.methods) == ["nothing", "a", "b"]
    with pytest.raises(TypeError, match="methods must be names, not a function: write the decorator with parentheses"):
        handlers.rpc((nothing,))
    with pytest.raises(TypeError, match="methods must be names of type str, not 5"):
        handlers.rpc((5,))
    with pytest.raises(ValueError, match="methods must not be empty names"):
        handlers.rpc(("",))
    with pytest.raises(TypeError, match="has no name that could be a method"):
        handlers.rpc(())(lambda: None)


def test_a_function_can_be_removed(handlers):
    bound = Bound()
    handlers.rpc(("a", "b"))(bound.method)
    handlers.on_attribute(("a",))(bound.method)
    handlers.rpc(("c",))(two)
    assert not handlers.remove(Bound().method)
    assert handlers.remove(bound.method)
    assert list(handlers.methods) == ["c"]
    assert not handlers.has_attributes
    assert not handlers.remove(bound.method)


def test_the_error_for_an_unknown_method():
    assert no_handler("fly", ["b", "a"]) == "There is no method 'fly'; the methods are a, b"
    assert no_handler("fly", []) == "The device has no callback for RPC requests"


# Attributes.


def update_of(*deleted, **values):
    return AttributeUpdate([AttributeEntry(key, value) for key, value in values.items()], deleted_keys=list(deleted))


async def process(function, keys, update, report=None):
    """Return the positional and named arguments of the calls."""
    handlers = Handlers(RPCRequest, AttributeUpdate)
    calls = []

    @functools.wraps(function)
    def recording(*args, **kwargs):
        calls.append((args, kwargs))

    handlers.on_attribute(keys)(recording)
    for handler in handlers.of_update(update):
        await handler.process(report or InboundReport(), update, {AttributeUpdate: update})
    return calls


def interval_and_mode(interval: int = 10, mode: str | None = None): ...


def any_name(seconds: float): ...


def of_the_update(update: AttributeUpdate): ...


def all_values(**values: Any): ...


def one_and_rest(interval: int = 1, **values: str): ...


def may_be_none(interval: int | None): ...


@pytest.mark.parametrize(
    ("function", "keys", "update", "calls"),
    [
        (interval_and_mode, ("interval", "mode"), update_of(interval=5, other=1), [((5,), {})]),
        (interval_and_mode, ("interval", "mode"), update_of(interval=5, mode="a"), [((5, "a"), {})]),
        (interval_and_mode, ("interval", "mode"), update_of(mode="a"), [((), {"mode": "a"})]),
        (interval_and_mode, ("interval", "mode"), update_of(other=1), []),
        (interval_and_mode, ("interval", "mode"), update_of("interval", "mode"), [((), {"mode": None})]),
        (any_name, ("interval",), update_of(interval=5), [((5.0,), {})]),
        (nothing, ("interval", "b"), update_of(b=5), [((), {})]),
        (all_values, ("a", "b"), update_of(a=1, b=2, c=3), [((), {"a": 1, "b": 2})]),
        (one_and_rest, ("interval", "mode"), update_of(interval=1, mode="a"), [((1,), {"mode": "a"})]),
        (may_be_none, ("interval",), update_of("interval"), [((None,), {})]),
        (whole, ("interval",), update_of("interval"), [((None,), {})]),
    ],
)
async def test_attributes_of_an_update_are_bound(function, keys, update, calls):
    assert await process(function, keys, update) == calls


async def test_a_function_gets_the_update():
    update = update_of("b", a=1)
    assert await process(of_the_update, ("a", "b"), update) == [((update,), {})]


@pytest.mark.parametrize(
    ("function", "update", "text"),
    [
        (any_name, update_of(interval="a"), "any_name is not called for an attribute update: seconds must be a number, not 'a'"),
        (
            any_name,
            update_of("interval"),
            "the attribute 'interval' was deleted, and the parameter 'seconds' neither has a default",
        ),
    ],
)
async def test_an_attribute_that_does_not_fit_is_reported(caplog, function, update, text):
    report = InboundReport()
    assert await process(function, ("interval",), update, report) == []
    assert (report.malformed, report.callback_errors) == (1, 0)
    assert text in caplog.text


async def test_an_exception_of_a_function_is_reported(handlers, caplog):
    def fail(value):
        raise LookupError(value)

    async def fail_later(value):
        await asyncio.sleep(0)
        raise LookupError(value)

    report = InboundReport()
    handlers.on_attribute(("a",))(fail)
    handlers.on_attribute(("a",))(fail_later)
    update = update_of(a=1)
    with caplog.at_level(logging.DEBUG):
        for handler in handlers.of_update(update):
            await handler.process(report, update, {AttributeUpdate: update})
    assert report.callback_errors == 2
    assert caplog.text.count("LookupError: 1") == 2


def of_another(interval: int = 1, other: int = 2): ...


def without_default(interval: int, mode: str = "a"): ...


def in_order(*values): ...


def with_rpc_request(request: RPCRequest): ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (of_another, "of_another: the parameter 'other' is not one of the attributes 'interval', 'mode'"),
        (without_default, "the parameter 'interval' needs a default value, because another attribute may change alone"),
        (with_default, "with_default: the parameter 'value' is not one of the attributes"),
        (in_order, r"attributes are passed by name, never to \*arguments"),
        (with_rpc_request, "the parameter 'request' is annotated with RPCRequest, which it does not get"),
        (unsupported, "unsupported: 'a' has the annotation complex"),
    ],
)
def test_the_decorator_refuses_a_signature_that_does_not_fit_the_attributes(handlers, function, text):
    with pytest.raises(TypeError, match=text):
        handlers.on_attribute(("interval", "mode"))(function)
    assert not handlers.has_attributes


def test_an_attribute_without_a_parameter_is_refused(handlers):
    with pytest.raises(TypeError, match="there is no parameter for the attribute 'b'"):

        @handlers.on_attribute(("a", "b"))
        def changed(a: int = 1): ...


def test_names_of_attributes(handlers):
    with pytest.raises(ValueError, match="keys must name at least one attribute"):
        handlers.on_attribute(())
    with pytest.raises(TypeError, match="keys must be names, not a function"):
        handlers.on_attribute((nothing,))


# Sub-devices.


def test_handlers_for_a_name_come_before_those_for_a_pattern():
    handlers = SubDeviceHandlers(lambda: Handlers(RPCRequest, AttributeUpdate))
    every, boilers, two_names = handlers.of("*"), handlers.of("boiler*"), handlers.of(["boiler 1", "pump"])
    assert handlers.of(("pump", "boiler 1")) is two_names
    assert handlers.matching({"boiler 1"}) == [two_names, every, boilers]
    assert handlers.matching({"Boiler 1"}) == [every]
    assert handlers.matching({"new name", "boiler 7"}) == [every, boilers]


@pytest.mark.parametrize(
    ("devices", "error", "text"),
    [
        (5, TypeError, "devices"),
        ([5], TypeError, r"devices must be a name, a pattern such as 'boiler\*', or several of them, not \[5\]"),
        ([], ValueError, "devices must name at least one device"),
        ("", ValueError, "devices must name at least one device"),
    ],
)
def test_devices_that_are_no_names_are_refused(devices, error, text):
    with pytest.raises(error, match=text):
        SubDeviceHandlers(lambda: None).of(devices)


@pytest.mark.parametrize("error", ["out of range", {"code": 3, "limits": [0, 1]}])
def test_a_refusal_has_its_error(error):
    assert RPCRefusal(error).error == error


@pytest.mark.parametrize(("error", "kind"), [(None, TypeError), (5, TypeError), ({"a": object()}, ValueError)])
def test_a_refusal_needs_an_error_that_json_can_express(error, kind):
    with pytest.raises(kind):
        RPCRefusal(error)
