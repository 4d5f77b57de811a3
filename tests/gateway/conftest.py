"""Fixtures: an emulator in a thread, and the IoT Gateway application that is connected to it."""

import sys
from pathlib import Path

import pytest
from gateway_application import WHEEL, Application, install

sys.path.append(str(Path(__file__).parents[1] / "compat" / "one_x"))
from watched_platform import WatchedPlatform


@pytest.fixture(scope="session")
def environment():
    if WHEEL is None:
        pytest.skip("needs the wheel and the package index: make gateway-test")
    return install()


@pytest.fixture
def platform_thread(request):
    """Run an emulator; a test may choose its options."""
    platform = WatchedPlatform(**getattr(request, "param", {}))
    yield platform
    platform.stop()


@pytest.fixture
def start(environment, platform_thread, tmp_path):
    """Return a function that starts the application. ``before`` is called with it first, and may change its files."""
    started = []

    def start(link=None, before=None, **options):
        application = Application(environment, platform_thread, tmp_path, link=link, **options)
        if before is not None:
            before(application)
        started.append(application.start())
        return application

    yield start
    for application in started:
        application.kill()
