"""Loggers are named after their modules; warnings about single messages are told once a minute a kind."""

import ast
import logging

import pytest
from test_import_direction import MODULES, PACKAGE

from tb_mqtt_client.common.logging_utils import OccasionalLog


def test_one_of_a_kind_a_minute_and_the_number_of_the_others(caplog):
    now = 0.0
    log = OccasionalLog(logging.getLogger("tb_mqtt_client.test"), seconds=60, clock=lambda: now)
    with caplog.at_level(logging.DEBUG, "tb_mqtt_client.test"):
        for number in range(3):
            log.warn_of("a", "refused %d", number)
        log.warn_of("b", "lost")
        now = 60.0
        log.warn_of("a", "refused %d", 3)
        now = 120.0
        log.warn_of("a", "refused %d", 4)
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines == [
        ("WARNING", "refused 0"),
        ("DEBUG", "refused 1"),
        ("DEBUG", "refused 2"),
        ("WARNING", "lost"),
        ("WARNING", "refused 3 (and 2 more like this since the last such line)"),
        ("WARNING", "refused 4"),
    ]


@pytest.mark.parametrize("name", MODULES)
def test_loggers_are_below_the_package(name):
    """A module logs through ``get_logger(__name__)``, so that ``logging.getLogger("tb_mqtt_client")`` rules them all."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if not isinstance(node, ast.Call) or name == "common.logging_utils":
            continue
        called = ast.unparse(node.func)
        assert called not in {f"logging.{level}" for level in ("debug", "info", "warning", "error", "exception", "critical", "log")}
        if called in {"get_logger", "logging.getLogger"}:
            assert [ast.unparse(argument) for argument in node.args] in (["__name__"], [repr(PACKAGE)])
