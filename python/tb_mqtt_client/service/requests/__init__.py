"""Requests and responses in both directions, and the callbacks of the user that take part."""
