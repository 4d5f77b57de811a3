"""Fixtures of several unit tests."""

import asyncio

import pytest


@pytest.fixture(scope="module")
def runner():
    """Run the examples of a test in one event loop, which saves most of the time."""
    with asyncio.Runner() as runner:
        yield runner
