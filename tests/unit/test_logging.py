"""Loggers of the package leave those of other packages unchanged."""

import logging
import logging.config

import pytest

from tb_mqtt_client.common.logging_utils import TRACE_LEVEL, ExtendedLogger, get_logger


def test_defect_67_the_logger_class_of_the_process_is_not_changed():
    get_logger("tb_mqtt_client.test")
    assert logging.getLoggerClass() is logging.Logger
    assert type(logging.getLogger("another package")) is logging.Logger


def test_defect_67_a_logger_that_existed_before_gets_trace(caplog):
    logging.getLogger("made before")
    logger = get_logger("made before")
    assert isinstance(logger, ExtendedLogger)
    with caplog.at_level(TRACE_LEVEL, "made before"):
        logger.trace("%d of %d", 1, 2)
    [record] = caplog.records
    assert (record.levelno, record.getMessage(), record.filename) == (TRACE_LEVEL, "1 of 2", "test_logging.py")


def test_the_default_logger_is_that_of_the_module():
    assert get_logger().name == "tb_mqtt_client.common.logging_utils"


def test_loggers_of_another_class_are_not_changed():
    class Theirs(logging.Logger):
        pass

    logging.setLoggerClass(Theirs)
    try:
        logging.getLogger("theirs")
    finally:
        logging.setLoggerClass(logging.Logger)
    assert type(get_logger("theirs")) is Theirs


@pytest.mark.parametrize("add", ["handler", "filter"])
def test_an_error_of_a_handler_or_filter_is_printed_and_not_raised(add, capsys):
    """Handlers belong to the program; their errors must not lose a message or end a connection."""

    class Raising(logging.Handler):
        def emit(self, _record):
            raise RuntimeError("the disk is full")

        def filter(self, _record):
            if add == "filter":
                raise RuntimeError("the disk is full")
            return True

    logger, raising = get_logger("tb_mqtt_client.test_raising"), Raising()
    getattr(logger, f"add{add.capitalize()}")(raising)
    logger.warning("a line")
    assert "RuntimeError: the disk is full" in capsys.readouterr().err
