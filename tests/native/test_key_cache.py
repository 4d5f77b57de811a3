"""Encoded keys are remembered by the identity of their string, which is never visible in what is written."""

import gc
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from tb_mqtt_client import _native

NOW = 1_700_000_000_000


def sent(values):
    """Return the values as the platform receives them."""
    uplink = _native.EncodedUplink.timeseries(values, NOW)
    [payload] = _native.pack_timeseries([uplink], gateway=False, max_size=10_000_000).payloads
    [record] = orjson.loads(payload.data)
    return record["values"]


@pytest.mark.parametrize("keys", [1, 20, 3000])
@pytest.mark.parametrize("length", [1, 3, 4, 7, 8, 15, 16, 31, 32, 33, 44, 45, 46, 255])
def test_any_number_and_length_of_keys(keys, length):
    """More keys than are remembered, and keys that are too long to be remembered, are written too."""
    names = [f"{index:x}".rjust(length, "k")[-length:] for index in range(keys)]
    values = {name: index for index, name in enumerate(names)}
    for _ in range(3):
        assert sent(values) == values


def test_new_strings_at_addresses_of_old_ones():
    """The address of a string that is gone may be another key's, so a remembered string is kept alive."""
    for number in range(10_000):
        values = {f"key {number % 3500}": number}
        assert sent(values) == values


def test_keys_of_parsed_json_and_literals_in_turn():
    """Most keys are new objects for a while, then none: the cache rests and is used again."""
    source = random.Random(3)
    for part in range(60):
        for number in range(50):
            values = {f"{part % 2}/{key}": source.random() < 0.5 for key in range(10)}
            values = json.loads(json.dumps(values)) if part % 20 < 15 else values
            assert sent(values) == values, (part, number)


def test_parsed_keys_at_the_places_of_others():
    """New strings are compared with the keys that were at their places before, which may have escapes or be longer."""
    for number in range(100):
        assert sent({f"{number} {key}": key for key in range(10)}) == {f"{number} {key}": key for key in range(10)}
    keys = ['a"b', 'a\\"b', "a\\\\b", "ab", "abc", "ä", "k" * 32, "k" * 31 + "l", "l" + "k" * 31, "k" * 45, "k" * 46]
    source = random.Random(4)
    for number in range(400):
        # Now and then more keys than are compared.
        chosen = source.sample(keys, source.randrange(1, len(keys))) + [f"more {key}" for key in range(70 * (number % 50 == 0))]
        values = json.loads(json.dumps(dict.fromkeys(chosen, number)))
        assert sent(values) == values


def test_few_strings_are_kept_alive():
    gc.collect()
    before = sys.getallocatedblocks()
    for number in range(30_000):
        _native.EncodedUplink.timeseries({f"temporary {number}": 1}, NOW)
    gc.collect()
    assert sys.getallocatedblocks() - before < 3000


@pytest.mark.parametrize("key", ["", " ", "a\n", "<b", "{{a}}", "\udc80", 5, None])
def test_refused_keys_are_refused_again(key):
    for _ in range(3):
        with pytest.raises(ValueError, match=r"^Invalid "):
            _native.EncodedUplink.timeseries({"good": 1, key: 2}, NOW)
        assert sent({"good": 3}) == {"good": 3}


def test_a_value_that_sends_while_it_is_refused():
    """The message of an error contains the value's repr(), which may use the encoder of the same thread."""

    class Sends:
        def __repr__(self):
            return str(sent({"inner": 1}))

    for _ in range(2):
        with pytest.raises(ValueError, match=r"'inner': 1"):
            _native.EncodedUplink.timeseries({"outer": Sends()}, NOW)
        assert sent({"outer": 1, "inner": 2}) == {"outer": 1, "inner": 2}


def test_threads_share_keys():
    values = [{f"key {key}": key + number for key in range(number, number + 300)} for number in range(8)]

    def work(number):
        return all(sent(values[(number + turn) % 8]) == values[(number + turn) % 8] for turn in range(50))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))
