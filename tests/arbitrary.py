"""Arbitrary JSON values and payloads, for property tests of incoming messages."""

import json

from hypothesis import strategies as st


def json_values(max_size=None, max_leaves=100):
    """Return a strategy of JSON values. ``max_size`` limits lists and objects, ``max_leaves`` a whole value."""
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda children: st.lists(children, max_size=max_size) | st.dictionaries(st.text(), children, max_size=max_size),
        max_leaves=max_leaves,
    )


def payloads(values, max_size=None):
    """Return a strategy of payloads: any bytes of at most ``max_size``, and ``values`` as JSON."""
    return st.binary(max_size=max_size) | st.builds(lambda value: json.dumps(value).encode(), values)
