"""JSON as written by the extension: orjson's bytes, and integers of any size as digits."""

import math
import re
import unicodedata

import orjson

MAX_DEPTH = 128
MAX_KEY_LENGTH = 255


class UnsupportedValueError(ValueError, TypeError):
    """A value cannot be written as JSON. A number that JSON does not have is a plain ``ValueError``."""


def dumps(value):
    return _written(value, "$", 0).encode()


def validate_key(key):
    if type(key) is not str:
        raise UnsupportedValueError(f"Invalid key {key!r}: expected str, got {type(key).__name__}")
    _utf8(key, "$")
    units = len(key.encode("utf-16-le")) // 2
    has_control = any(unicodedata.category(character) == "Cc" for character in key)
    is_refused = re.search(r"<\s*[A-Za-z]|\{\{.*\}\}", key, re.DOTALL)
    if not key.strip() or units > MAX_KEY_LENGTH or has_control or is_refused:
        raise ValueError(f"Invalid key {key!r}")


def digits(number):
    """Return all digits of an integer; ``str`` refuses more than 4300."""
    if -(10**4000) < number < 10**4000:
        return str(number)
    high, low = divmod(abs(number), 10**4000)
    return ("-" if number < 0 else "") + digits(high) + str(low).zfill(4000)


def _written(value, path, depth):
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"Invalid JSON value at {path}: {value} is not a JSON number, numbers must be finite")
        return orjson.dumps(value).decode()
    if type(value) is int:
        return digits(value)
    if type(value) is str:
        _utf8(value, path)
        return orjson.dumps(value).decode()
    if type(value) is bool or value is None:
        return orjson.dumps(value).decode()
    if type(value) in (list, dict):
        if depth == MAX_DEPTH:
            raise UnsupportedValueError(f"Invalid JSON value at {path}: lists and dicts must be nested at most {MAX_DEPTH} deep")
        return _container(value, path, depth + 1)
    raise UnsupportedValueError(
        f"Invalid JSON value at {path}: unsupported - {type(value).__name__} ({value!r}), "
        "allowed are None, bool, int, float, str, list and dict"
    )


def _container(value, path, depth):
    if type(value) is list:
        items = [_written(item, f"{path}[{index}]", depth) for index, item in enumerate(value)]
        return "[" + ",".join(items) + "]"
    pairs = []
    for key, item in value.items():
        if type(key) is not str:
            raise UnsupportedValueError(f"Invalid JSON key at {path}: expected str, got {type(key).__name__} ({key!r})")
        _utf8(key, path)
        pairs.append(orjson.dumps(key).decode() + ":" + _written(item, f"{path}.{key}", depth))
    return "{" + ",".join(pairs) + "}"


def _utf8(text, path):
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnsupportedValueError(f"Invalid JSON string at {path}: lone surrogates cannot be encoded as UTF-8") from None
