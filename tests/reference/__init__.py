"""The contract of ``tb_mqtt_client._native`` in pure Python, written to be evidently correct. It is not shipped.

It shares no code with the package. The property tests compare the extension with it, and so does a benchmark.
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
