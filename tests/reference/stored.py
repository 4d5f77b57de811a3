"""What the platform stores for the JSON text of a value (platform_contract.md, section 3)."""

import json
import re
from decimal import Decimal


def stored(text):
    """``(type, value as text)``; ``None`` for what is dropped."""
    if re.match(r"[-0-9]", text):
        return stored_number(text)
    value = json.loads(text)
    if value is None:
        return None
    if isinstance(value, bool):
        return "BOOLEAN", str(value)
    if not isinstance(value, str):
        return "JSON", text
    # commons-lang's NumberUtils.isParsable: no exponent, no hexadecimal digits.
    return stored_number(value) if re.fullmatch(r"-?[0-9]*\.?[0-9]+", value, re.ASCII) else ("STRING", value)


def stored_number(text):
    number = Decimal(text)
    # With an exponent or without: what is written like a decimal, 1.0, is one.
    if number == number.to_integral_value() and not ("." in text and "e" not in text):
        return ("LONG" if -(2**63) <= number < 2**63 else "STRING"), str(int(number))
    if -number.as_tuple().exponent <= 16:
        return "DOUBLE", str(float(number))
    return "STRING", ""  # the contract does not say which notation of the decimal it is
