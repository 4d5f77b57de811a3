"""A signal between threads, which an interrupt of the waiting thread does not disturb."""

import sys
import threading

import pytest

from tb_mqtt_client.common.turn import Turn

SECONDS = 30


def test_a_turn_that_is_given_lets_its_thread_continue():
    turn, continued = Turn(), []
    thread = threading.Thread(target=lambda: continued.append(turn.wait(None)))
    thread.start()
    turn.give()
    thread.join(SECONDS)
    turn.give()
    assert (continued, turn.wait(0)) == ([True], True)


@pytest.mark.parametrize("timeout", [0, -1.5, 0.001])
def test_a_turn_that_is_not_given_in_time(timeout):
    turn = Turn()
    assert not turn.wait(timeout)
    turn.give()
    assert turn.wait(timeout)


def waits_until_step(turn, step, ended):
    """Wait for a turn; raise ``KeyboardInterrupt`` at one of the steps of Python on this way."""
    left = [step]

    def trace(_frame, _event, _argument):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        ended.append(turn.wait(0.001))
    except KeyboardInterrupt:
        ended.append("interrupted")
    finally:
        sys.settrace(None)


def test_a_turn_whose_thread_is_interrupted_anywhere_can_be_given():
    for step in range(1, 1000):
        turn, ended = Turn(), []
        waiting = threading.Thread(target=waits_until_step, args=(turn, step, ended))
        waiting.start()
        waiting.join(SECONDS)
        giving = threading.Thread(target=turn.give, daemon=True)
        giving.start()
        giving.join(SECONDS)
        assert not giving.is_alive()
        if ended != ["interrupted"]:
            break
    assert (ended, step > 2) == ([False], True)
