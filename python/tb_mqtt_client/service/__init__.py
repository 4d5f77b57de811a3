"""The clients and the road to the broker."""
