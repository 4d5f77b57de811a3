"""Times that are not in milliseconds are reported once, and a datetime can be given as a time."""

import functools
import logging
from datetime import UTC, datetime

import pytest

from tb_mqtt_client import TimeseriesEntry

MOMENT = datetime(2026, 1, 31, 12, 0, 0, 1000, tzinfo=UTC)
SECONDS = 1769860800
MICROSECONDS_OF_1975 = 170_000_000_000_000


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if "ts=" in record.getMessage() and record.levelno == logging.WARNING]


FORMS = {
    "dict": lambda ts: {"ts": ts, "values": {"a": 1}},
    "entry": lambda ts: TimeseriesEntry("a", 1, ts),
    "list": lambda ts: [{"b": 1}, {"ts": ts, "values": {"a": 1}}],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("ts", "unit", "stored_as"),
    [
        (SECONDS, "seconds", "1970-01-21T11:37:40+00:00"),
        (float(SECONDS), "seconds", "1970-01-21T11:37:40+00:00"),
        (MICROSECONDS_OF_1975, "microseconds", "7357-"),
    ],
)
async def test_a_time_that_is_not_in_milliseconds_is_reported_once(device, emulator, caplog, form, ts, unit, stored_as):
    for _ in range(3):
        result = await device.send_timeseries(form(ts))
        assert result.is_successful()
    [warning] = warnings(caplog)
    assert f"ts={int(ts)} looks like {unit}, and is stored as {stored_as}" in warning
    assert [point.ts for point in emulator.device("device").telemetry if point.key == "a"][-1] == int(ts)


async def test_a_gateway_reports_its_own_data_and_that_of_its_devices_once(gateway, caplog):
    meter, _ = await gateway.connect_device("meter")
    await gateway.send_device_timeseries(meter, {"ts": SECONDS, "values": {"a": 1}})
    await gateway.send_timeseries({"ts": SECONDS, "values": {"a": 1}})
    assert len(warnings(caplog)) == 1


async def test_times_in_milliseconds_are_not_reported(device, caplog):
    """This includes times of 1970, which devices without a clock send, and times before 1970."""
    for ts in (None, 0, 1, 99_999_999, -SECONDS, 100_000_000_000, 1769860800000, 99_999_999_999_999, MOMENT):
        await device.send_timeseries({"ts": ts, "values": {"a": 1}})
    assert warnings(caplog) == []


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_a_datetime_is_stored_in_milliseconds(device, emulator, form):
    await device.send_timeseries(form(MOMENT))
    assert [point.ts for point in emulator.device("device").telemetry if point.key == "a"] == [1769860800001]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("ts", [253402300800000, 1769860800000000, datetime(2026, 1, 31)])
async def test_a_time_that_the_platform_cannot_store_is_refused_at_the_call(device, form, ts):
    with pytest.raises(ValueError, match="Invalid ts"):
        await device.send_timeseries(form(ts))
    assert device.statistics.accepted == 0


@pytest.mark.parametrize("key", ["CO2 <ppm>", "{{x}}", "a\0b", "\U0001f600" * 128, " "])
async def test_a_key_that_the_platform_cannot_store_is_refused_at_the_call(gateway, key):
    """The platform would also drop the keys of other sends in the same message."""
    meter, _ = await gateway.connect_device("meter")
    calls = [
        gateway.send_timeseries,
        gateway.send_attributes,
        functools.partial(gateway.send_device_timeseries, meter),
        functools.partial(gateway.send_device_attributes, meter),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="Invalid key"):
            await call({"good": 1, key: 2})
    assert gateway.statistics.accepted == 0
