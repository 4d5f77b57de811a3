"""Events of a gateway reach all handlers of their type, or the session to which they belong."""

import asyncio

import pytest

from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.entities.gateway_event import GatewayEvent, GatewayEventType
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.requests.dispatch import InboundReport

CONNECT = GatewayEventType.GATEWAY_CONNECT


@pytest.fixture
def report():
    return InboundReport()


@pytest.fixture
def dispatcher(report):
    return DirectEventDispatcher(report)


async def test_defect_47_all_handlers_are_called(dispatcher):
    """Functions and coroutine functions get the arguments of the dispatch, and the first result in order is returned."""
    seen, event = [], GatewayEvent(CONNECT)

    def plain(*arguments, **options):
        seen.append(("plain", arguments, options))

    async def coroutine(*arguments, **options):
        await asyncio.sleep(0)
        seen.append(("coroutine", arguments, options))
        return "of the coroutine"

    dispatcher.register(CONNECT, plain)
    dispatcher.register(CONNECT, coroutine)
    dispatcher.register(CONNECT, lambda *_, **__: "later")
    dispatcher.register(GatewayEventType.GATEWAY_DISCONNECT, pytest.fail)
    assert await dispatcher.dispatch(event, 1, key=2) == "of the coroutine"
    assert seen == [("plain", (event, 1), {"key": 2}), ("coroutine", (event, 1), {"key": 2})]


async def test_a_handler_is_registered_once(dispatcher):
    seen = []
    for _ in range(2):
        dispatcher.register(CONNECT, seen.append)
    await dispatcher.dispatch(GatewayEvent(CONNECT))
    assert len(seen) == 1
    for _ in range(2):
        dispatcher.unregister(CONNECT, seen.append)
    dispatcher.unregister(GatewayEventType.DEVICE_UPDATE, seen.append)
    assert await dispatcher.dispatch(GatewayEvent(CONNECT)) is None
    assert len(seen) == 1


def stops(*_):
    raise StopIteration


def divides(*_):
    return 1 / 0


async def divides_later(*_):
    await asyncio.sleep(0)
    return 1 / 0


async def is_cancelled(*_):
    raise asyncio.CancelledError


@pytest.mark.parametrize("failing", [divides, divides_later, stops, is_cancelled, lambda: None])
async def test_an_error_of_a_handler_does_not_stop_others(dispatcher, report, failing, caplog):
    """Its error is counted, and logged with its traceback."""
    seen = []
    dispatcher.register(CONNECT, failing)
    dispatcher.register(CONNECT, lambda event: seen.append(event) or "result")
    assert await dispatcher.dispatch(GatewayEvent(CONNECT)) == "result"
    assert (len(seen), report.callback_errors) == (1, 1)
    [record] = caplog.records
    assert "The callback for gateway.connect" in record.message
    assert record.exc_info is not None


async def test_a_handler_that_does_not_end_does_not_stop_others(dispatcher):
    seen = asyncio.Event()
    dispatcher.register(CONNECT, lambda _: asyncio.Event().wait())
    dispatcher.register(CONNECT, lambda _: seen.set())
    dispatch = asyncio.create_task(dispatcher.dispatch(GatewayEvent(CONNECT)))
    await seen.wait()
    dispatch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dispatch


async def test_an_exception_can_be_returned_as_a_result(dispatcher, report):
    result = ValueError("of interest")
    dispatcher.register(CONNECT, lambda _: result)
    dispatcher.register(CONNECT, lambda _: "other")
    assert await dispatcher.dispatch(GatewayEvent(CONNECT)) is result
    assert report.callback_errors == 0


async def test_handlers_can_register_and_unregister_handlers(dispatcher):
    seen = []

    def once(_event):
        dispatcher.unregister(CONNECT, once)
        dispatcher.register(CONNECT, seen.append)

    dispatcher.register(CONNECT, once)
    for _ in range(2):
        await dispatcher.dispatch(GatewayEvent(CONNECT))
    assert len(seen) == 1


async def test_only_the_session_of_an_event_gets_it(dispatcher, report):
    session, event = DeviceSession(DeviceInfo("D1", "default")), AttributeUpdate([])
    dispatcher.register(event.event_type, pytest.fail)
    session.set_attribute_update_callback(lambda of_session, of_event: (of_session, of_event))
    assert await dispatcher.dispatch(event, device_session=session) == (session, event)
    session.set_attribute_update_callback(divides)
    with pytest.raises(ZeroDivisionError):
        await dispatcher.dispatch(event, device_session=session)
    assert report.callback_errors == 0


def test_an_argument_that_is_not_callable_is_refused(dispatcher):
    for wrong in (None, 5, "callback"):
        with pytest.raises(TypeError, match=r"^callback must be a function or a coroutine function"):
            dispatcher.register(CONNECT, wrong)
