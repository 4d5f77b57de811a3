"""The contract of ``tb_mqtt_client._native`` in pure Python, written so that a reader sees that it is right. Not shipped.

It shares no code with the package, and is the oracle of the property tests and a peer of the benchmarks.
"""

from reference.buckets import TokenBuckets, take_all
from reference.encoding import MAX_DEPTH, MAX_KEY_LENGTH, dumps, validate_key
from reference.entries import AttributeEntry, DeviceIdentity, EncodedUplink, TimeseriesEntry
from reference.packing import pack_attributes, pack_timeseries, split_attributes, split_timeseries

__all__ = [
    "MAX_DEPTH",
    "MAX_KEY_LENGTH",
    "AttributeEntry",
    "DeviceIdentity",
    "EncodedUplink",
    "TimeseriesEntry",
    "TokenBuckets",
    "dumps",
    "pack_attributes",
    "pack_timeseries",
    "split_attributes",
    "split_timeseries",
    "take_all",
    "validate_key",
]
