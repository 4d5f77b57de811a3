"""Timers by key: each key is due once, at the last time that was set."""

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from passing_loop import Clock

from tb_mqtt_client.common.timing import Timetable


@pytest.fixture
def clock():
    loop = Clock()
    yield loop
    loop.close()


def table_in(clock):
    due = []
    table = Timetable(lambda key: due.append((clock.now, key)))

    def run(method, *arguments):
        async def call():
            return method(*arguments)

        return clock.run_until_complete(call())

    return table, due, run


KEYS = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(1, 20)),
        st.tuples(st.just("remove"), KEYS),
        st.tuples(st.just("pass"), st.integers(1, 10)),
    ),
    max_size=30,
)


@given(STEPS)
def test_each_key_is_due_once_at_the_last_time_set(steps):
    with closing(Clock()) as clock:
        judge(clock, steps)


def judge(clock, steps):
    table, due, run = table_in(clock)
    expected, times = [], {}
    for step, *arguments in steps:
        if step == "set":
            run(table.set, *arguments)
            times[arguments[0]] = clock.now + arguments[1]
        elif step == "remove":
            run(table.remove, *arguments)
            times.pop(arguments[0], None)
        else:
            until = clock.now + arguments[0]
            expected += [(when, key) for key, when in times.items() if when <= until]
            times = {key: when for key, when in times.items() if when > until}
            clock.run_until(until)
        assert {key for key in "abc" if key in table} == set(times)
        assert sorted(due) == sorted(expected)


def test_all_keys_share_one_timer(clock):
    table, _, run = table_in(clock)
    for key in range(1000):
        run(table.set, key, 1000 - key)
    assert clock.pending_timers == 1
    run(table.clear)
    assert (len(table), clock.pending_timers) == (0, 0)


def test_an_exception_for_one_key_does_not_affect_the_others(clock):
    due, errors = [], []

    def on_due(key):
        due.append(key)
        if key == "bad":
            raise ZeroDivisionError

    clock.set_exception_handler(lambda _, context: errors.append(type(context["exception"])))
    table = Timetable(on_due)

    async def fill():
        for key in ("bad", "good"):
            table.set(key, 1)

    clock.run_until_complete(fill())
    clock.run_until(1)
    assert (due, errors) == (["bad", "good"], [ZeroDivisionError])


def test_a_key_can_be_set_again_when_it_is_due(clock):
    due = []

    def on_due(key):
        due.append(clock.now)
        if len(due) < 3:
            table.set(key, 5)

    table = Timetable(on_due)

    async def begin():
        table.set("a", 5)

    clock.run_until_complete(begin())
    clock.run_until(100)
    assert due == [5, 10, 15]
