"""Loggers of the package."""

import logging
import logging.config

import pytest

from tb_mqtt_client.common.logging_utils import TRACE_LEVEL, ExtendedLogger, get_logger


def test_defect_67_the_processs_logger_class_is_left_alone():
    get_logger("tb_mqtt_client.test")
    assert logging.getLoggerClass() is logging.Logger
    assert type(logging.getLogger("somebody else's")) is logging.Logger


def test_defect_67_a_logger_that_was_made_before_has_trace(caplog):
    logging.getLogger("made before")
    logger = get_logger("made before")
    assert isinstance(logger, ExtendedLogger)
    with caplog.at_level(TRACE_LEVEL, "made before"):
        logger.trace("%d of %d", 1, 2)
    [record] = caplog.records
    assert (record.levelno, record.getMessage(), record.filename) == (TRACE_LEVEL, "1 of 2", "test_logging.py")


def test_without_a_name_it_is_this_modules():
    assert get_logger().name == "tb_mqtt_client.common.logging_utils"


def test_loggers_of_another_class_are_left_as_they_are():
    class Theirs(logging.Logger):
        pass

    logging.setLoggerClass(Theirs)
    try:
        logging.getLogger("theirs")
    finally:
        logging.setLoggerClass(logging.Logger)
    assert type(get_logger("theirs")) is Theirs


@pytest.mark.parametrize("add", ["handler", "filter"])
def test_a_handler_or_filter_that_raises_is_printed_and_breaks_nothing(add, capsys):
    """Every line that the client logs goes to the program's handlers: theirs must not lose a message or end a connection."""

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
