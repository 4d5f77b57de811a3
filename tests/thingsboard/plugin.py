"""The pytest plugin of `make server-test`: the option, markers, deselected tests and tenants."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from thingsboard.limits import LimitedTenants
from thingsboard.rest import RestClient, RestError
from thingsboard.settings import Settings, SettingsError, hide_from_clients
from thingsboard.tenant import Tenant

# The prefix of the names of all entities that this run creates on the server.
PREFIX = f"tbmqtt-{uuid.uuid4().hex[:8]}"
_SERVER_TESTS = Path(__file__).parents[1] / "server"
_MARKERS = {
    "slow": "takes minutes; enabled by TB_SLOW=1",
    "sysadmin": "creates a tenant with limits, which needs the system administrator",
    "restarts": "restarts the server with TB_RESTART_COMMAND",
}
OpenTenant: TypeAlias = Callable[[], AbstractAsyncContextManager[Tenant]]

_settings = pytest.StashKey[Settings | None]()
_left = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("thingsboard").addoption(
        "--thingsboard",
        action="store_true",
        help="run tests/server and tests/contract against the ThingsBoard at TB_URL and TB_MQTT, as `make server-test` does",
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker, meaning in _MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: with a ThingsBoard server: {meaning}")
    config.addinivalue_line("markers", "emulator_lacks(fact): the emulator differs from the server in this respect")
    config.stash[_settings] = None
    config.stash[_left] = []
    if config.getoption("--thingsboard"):
        try:
            config.stash[_settings] = Settings.from_environment(os.environ)
        except SettingsError as error:
            raise pytest.UsageError(str(error)) from error
        hide_from_clients(os.environ)


def pytest_report_header(config: pytest.Config) -> list[str]:
    settings = config.stash[_settings]
    if settings is None:
        return ["ThingsBoard: not used; tests/contract runs against the emulator, tests/server is skipped (see `make server-test`)"]
    lines = [f"ThingsBoard: {settings.url}, MQTT at {settings.mqtt_host}:{settings.mqtt_port}, tenant of {settings.user}"]
    lines.append(f"ThingsBoard: names of created entities start with {PREFIX}-")
    return lines + [f"ThingsBoard: skipped: {reason}" for reason in settings.left_out.values()]


def pytest_sessionstart(session: pytest.Session) -> None:
    """End the run immediately, with one message, if the server cannot be used."""
    settings = session.config.stash[_settings]
    if settings is None:
        return
    try:
        RestClient(settings.url, settings.user, settings.password).login()
        socket.create_connection((settings.mqtt_host, settings.mqtt_port), timeout=10).close()
    except RestError as error:
        pytest.exit(f"{error}\nSet the tenant user with TB_USER and TB_PASSWORD.", pytest.ExitCode.USAGE_ERROR)
    except OSError as error:
        address = f"{settings.mqtt_host}:{settings.mqtt_port}"
        pytest.exit(f"The MQTT port {address} (TB_MQTT) cannot be reached: {error}", pytest.ExitCode.USAGE_ERROR)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # None leaves the decision to other plugins.
    return True if config.stash[_settings] is None and collection_path == _SERVER_TESTS else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    settings = config.stash[_settings]
    if settings is None:
        for item in items:
            if lacks := item.get_closest_marker("emulator_lacks"):
                item.add_marker(pytest.mark.xfail(reason=f"the emulator: {lacks.args[0]}", strict=True))
        return
    left_out = settings.left_out.keys()
    deselected = [item for item in items if any(item.get_closest_marker(marker) for marker in left_out)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in set(deselected)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove devices that the gateway of a test announced after the end of the test."""
    settings = session.config.stash[_settings]
    if settings is not None and hasattr(session, "items"):
        tenant = Tenant(RestClient(settings.url, settings.user, settings.password), PREFIX)
        try:
            session.config.stash[_left] = asyncio.run(tenant.remove_everything())
        except (RestError, ExceptionGroup) as error:
            session.config.stash[_left] = [f"{PREFIX}...: {error!r}"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name in config.stash[_left]:
        terminalreporter.write_line(f"ThingsBoard: left after the tests, now removed unless an error is shown: {name}")


@pytest.fixture(scope="session")
def thingsboard(pytestconfig: pytest.Config) -> Settings | None:
    """Return the settings of the server under test, or None without one."""
    return pytestconfig.stash[_settings]


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture(scope="session")
def _tenant_rest(thingsboard: Settings | None) -> RestClient:
    assert thingsboard is not None, "this test needs a ThingsBoard: make server-test"
    return RestClient(thingsboard.url, thingsboard.user, thingsboard.password, patience=thingsboard.start_timeout)


@pytest.fixture
def open_tenant(_tenant_rest: RestClient, _numbers: Iterator[int]) -> OpenTenant:
    """Return a context manager that opens the tenant of TB_USER and finally removes the entities created in it."""

    @asynccontextmanager
    async def open_it() -> AsyncIterator[Tenant]:
        made = Tenant(_tenant_rest, f"{PREFIX}-{next(_numbers)}")
        try:
            yield made
        finally:
            await made.remove_everything()

    return open_it


@pytest.fixture
async def tenant(open_tenant: OpenTenant) -> AsyncIterator[Tenant]:
    """Yield the tenant of TB_USER for one test."""
    async with open_tenant() as made:
        yield made


@pytest.fixture(scope="session")
def _sysadmin_rest(thingsboard: Settings | None) -> RestClient:
    assert thingsboard is not None, "this test needs a ThingsBoard: make server-test"
    client = RestClient(thingsboard.url, thingsboard.sysadmin_user, thingsboard.sysadmin_password)
    try:
        client.login()
    except RestError as error:
        pytest.fail(
            f"{error}\nTests of limits need the system administrator: set TB_SYSADMIN_USER and TB_SYSADMIN_PASSWORD, "
            "or leave these tests out with TB_SYSADMIN_USER= (set to nothing).",
            pytrace=False,
        )
    return client


@pytest.fixture
async def limited_tenants(_sysadmin_rest: RestClient, _numbers: Iterator[int]) -> AsyncIterator[LimitedTenants]:
    """Yield an object that creates tenants with limits; they are removed after the test."""
    tenants = LimitedTenants(_sysadmin_rest, f"{PREFIX}-{next(_numbers)}")
    yield tenants
    await tenants.remove()
