"""Conversions of numbers that the platform would store as text (docs/platform_contract.md, section 3)."""

import math
from decimal import Decimal

PLACES = 16
DIGITS = 6


class Numbers:
    def __init__(self, round_floats):
        self.round_floats = round_floats
        self.rounded = self.as_text = 0

    @property
    def conversions(self):
        return self.rounded, self.as_text

    def written(self, value):
        """Return ``value``, or the float that is written instead."""
        if type(value) not in (int, float) or not math.isfinite(value):
            return value
        # repr has the digits of the shortest form. The platform reads it with Java's BigDecimal, which counts places so too.
        exponent = Decimal(repr(value)).as_tuple().exponent if type(value) is float else 0
        if exponent < -PLACES:
            if self.round_floats and digits_left(value) >= DIGITS:
                self.rounded += 1
                return round(value, PLACES)
            self.as_text += 1
        elif exponent >= 0 and not -(2**63) <= int(value) < 2**63:
            self.as_text += 1
        return value


def digits_left(value):
    """Return the digits of ``value``, rounded to ``PLACES`` places, from the first that is not 0 to the last place."""
    units = int(Decimal(value).quantize(Decimal(10) ** -PLACES).scaleb(PLACES))
    return len(str(abs(units))) if units else 0
