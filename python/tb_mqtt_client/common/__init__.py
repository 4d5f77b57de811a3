"""Building blocks that know no client."""
