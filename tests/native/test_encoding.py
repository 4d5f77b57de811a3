"""The extension writes the bytes of orjson, and refuses values that JSON cannot represent, with their path."""

import json
import pickle

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
import tb_mqtt_client
from tb_mqtt_client import _native
from tb_mqtt_client.common import exceptions

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", [_native, reference], ids=["native", "reference"])

texts = st.text(st.characters(exclude_categories=["Cs"]))
leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)


class Text(str):
    pass


class Number(int):
    pass


@given(values)
def test_same_bytes_as_orjson(value):
    """The bytes are equal for every value that orjson writes."""
    assert _native.dumps(value) == orjson.dumps(value) == reference.dumps(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_orjsons(value):
    assert _native.dumps(value) == orjson.dumps(value)


@IMPLEMENTATIONS
@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**64, -(2**200), 10**5000, -(10**5000) + 7, 2**64 - 1], ids=hex)
def test_contract_9_integers_of_any_size(implementation, value):
    written = implementation.dumps(value).decode()
    high, low = written.lstrip("-")[:-4000], written[-4000:].lstrip("-")
    number = int(low) + (int(high) * 10**4000 if high else 0)
    assert (-number if written.startswith("-") else number) == value


@IMPLEMENTATIONS
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"^Invalid JSON value at \$: nan is not"),
        ([float("inf")], r"^Invalid JSON value at \$\[0\]: inf is not"),
        ({"a": -float("inf")}, r"^Invalid JSON value at \$\.a: -inf is not"),
        ({"x": [1, {"y": object}]}, r"^Invalid JSON value at \$\.x\[1\]\.y: unsupported - type \(<class 'object'>\)"),
        ((1,), r"^Invalid JSON value at \$: unsupported - tuple \(\(1,\)\)"),
        ({1}, "unsupported - set"),
        (b"x", "unsupported - bytes"),
        (Text("x"), "unsupported - Text"),
        (Number(1), "unsupported - Number"),
        ({"a": {1: 2}}, r"^Invalid JSON key at \$\.a: expected str, got int \(1\)"),
        ({Text("x"): 1}, r"^Invalid JSON key at \$: expected str, got Text"),
        ("\ud800", r"at \$: lone surrogates"),
        ({"\ud800": 1}, r"at \$: lone surrogates"),
    ],
)
def test_refusals(implementation, value, message):
    with pytest.raises(ValueError, match=message) as raised:
        implementation.dumps(value)
    # A number that JSON lacks is of a type that it has.
    assert isinstance(raised.value, TypeError) == ("is not" not in message)


def test_the_class_of_unsupported_values():
    """SDK 2.0 raised a TypeError, and its check of RPC parameters a ValueError, so programs catch either."""
    cls = _native.UnsupportedValueError
    assert cls.__bases__ == (ValueError, TypeError)
    assert cls is exceptions.UnsupportedValueError is tb_mqtt_client.UnsupportedValueError
    # A traceback names the place that programs import it from.
    assert f"{cls.__module__}.{cls.__qualname__}" == "tb_mqtt_client.common.exceptions.UnsupportedValueError"
    assert cls.__doc__
    with pytest.raises(cls) as raised:
        _native.dumps(object)
    twin = pickle.loads(pickle.dumps(raised.value))
    assert (type(twin), twin.args) == (cls, raised.value.args)


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@IMPLEMENTATIONS
def test_depth(implementation):
    """128 nested lists are written, one more is refused, and no depth ends the process."""
    assert implementation.dumps(nested(128)) == b"[" * 128 + b"1" + b"]" * 128
    for value in (nested(129), nested(100_000)):
        for error in (ValueError, TypeError):
            with pytest.raises(error, match="nested at most 128 deep"):
                implementation.dumps(value)
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="at most 128 deep"):
        implementation.dumps(endless)


# docs/platform_contract.md, section 3.
REFUSED_BY_THE_PLATFORM = [
    "CO2 <ppm>", "List<int>", "0<x<1", "a<b", "a < b", "<script>", "{{x}}", "a {{ b }} c", "{{\u00e9}}", "a\0", "tab\tbed", "a\x7f",
    "a\u0085b", "x" * 256, "\u00e9" * 256, "\U0001f600" * 128,
]  # fmt: skip
STORED_BY_THE_PLATFORM = [
    "T<5", "p<0.05", "a & b", "a < 5", "a<", "<", "a>b", "->", "{x}", "{{x", "x}}", "}}{{", "a|b~c", "x" * 255, "\u00e9" * 255,
    "\U0001f600" * 127, "\U0001f600" * 127 + "x", "F\u00fcllstand",
]  # fmt: skip


@IMPLEMENTATIONS
@pytest.mark.parametrize("key", ["", " ", "\t\n", "\u00a0", "\x1f", None, 1, Text("x"), "\ud800", *REFUSED_BY_THE_PLATFORM])
def test_refused_keys(implementation, key):
    with pytest.raises(ValueError, match="Invalid") as raised:
        implementation.validate_key(key)
    assert isinstance(raised.value, TypeError) == (type(key) is not str or key == "\ud800")


@IMPLEMENTATIONS
@pytest.mark.parametrize("key", ["a", " a", '"\\', *STORED_BY_THE_PLATFORM])
def test_keys(implementation, key):
    assert implementation.validate_key(key) is None


@given(texts | st.text("ab <>{}\t\u00e9\u0085\x7f\U0001f600"))
def test_keys_as_the_reference(key):
    outcomes = []
    for implementation in (_native, reference):
        try:
            implementation.validate_key(key)
            outcomes.append(True)
        except ValueError:
            outcomes.append(False)
    assert outcomes[0] == outcomes[1]


def test_a_repr_that_fails_does_not_hide_the_refusal():
    class Rude:
        def __repr__(self):
            raise RuntimeError

    with pytest.raises(ValueError, match=r"at \$\.a: unsupported - Rude \(\?\)"):
        _native.dumps({"a": Rude()})


def test_a_repr_that_encodes_is_harmless():
    class Reentrant:
        def __repr__(self):
            return _native.dumps({"inner": [1, 2]}).decode()

    with pytest.raises(ValueError, match="unsupported - Reentrant"):
        _native.EncodedUplink.timeseries({"a": 1, "b": Reentrant()}, 1)
    assert json.loads(_native.dumps({"a": "b"})) == {"a": "b"}


@given(
    st.lists(
        st.tuples(st.text("ab", min_size=1, max_size=2), st.dictionaries(st.text("abc", min_size=1), leaves, min_size=1)),
        max_size=4,
    )
)
def test_timeseries_of_devices_are_those_of_each_device(given_calls):
    calls = [(_native.DeviceIdentity(name), data) for name, data in given_calls]
    uplinks = _native.EncodedUplink.timeseries_of_devices(calls, 7, False)
    for (device, data), uplink in zip(calls, uplinks, strict=True):
        alone = _native.EncodedUplink.timeseries(data, 7, device, False)
        assert uplink.device == device
        assert uplink.timeseries_entries() == alone.timeseries_entries()
        assert (uplink.nbytes, uplink.conversions) == (alone.nbytes, alone.conversions)


def test_an_error_of_one_device_names_the_device():
    calls = [(_native.DeviceIdentity("good"), {"a": 1}), (_native.DeviceIdentity('a "bad" one'), {"a": float("nan")})]
    with pytest.raises(ValueError, match="nan") as raised:
        _native.EncodedUplink.timeseries_of_devices(calls, 7)
    assert raised.value.__notes__ == ['In the data of device "a \\"bad\\" one".']
