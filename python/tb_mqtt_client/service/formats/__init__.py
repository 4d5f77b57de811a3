"""Payload formats: how messages are written and read."""
