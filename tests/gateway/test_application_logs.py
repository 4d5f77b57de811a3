"""The IoT Gateway, unmodified, with all its loggers at DEBUG: its rotating files, and the handler that sends lines as telemetry."""

import json

import pytest
from gateway_application import has_everything

LOGGERS = ("service", "connector", "converter", "tb_connection", "storage", "extension")


def set_levels(application, level, **options):
    """Set the level of all loggers of the application, and options of its handlers for files."""
    path = application.config / "logs.json"
    logs = json.loads(path.read_text())
    for name in LOGGERS:
        logs["loggers"][name]["level"] = level
    logs["root"]["level"] = level
    for handler in logs["handlers"].values():
        if "filename" in handler:
            handler.update(options)
    path.write_text(json.dumps(logs))


def log_of(application, name):
    """Return what is in a log file and in its rotated ones."""
    return "".join(path.read_text() for path in (application.folder / "logs").glob(f"{name}.log*"))


@pytest.mark.parametrize("level", ["DEBUG", "TRACE"])
def test_everything_is_logged_to_files_that_are_rotated(platform_thread, start, level):
    """All loggers of the process are as detailed as this, also those of this package, and nothing is logged in a circle."""
    application = start(before=lambda application: set_levels(application, level, maxBytes=20_000, backupCount=50), rounds=5)
    application.wait_until(lambda: has_everything(platform_thread, application))
    assert application.interrupt() == 0
    assert "Traceback" not in application.output
    assert "Logging error" not in application.output
    assert len(list((application.folder / "logs").glob("service.log*"))) > 1
    assert f"Connected to {platform_thread.host}:{platform_thread.port}" in log_of(application, "tb_connection")


def test_lines_are_sent_as_telemetry(platform_thread, start):
    """The platform asks for them with a shared attribute, and ends that with another one."""
    application = start(before=lambda application: set_levels(application, "DEBUG"), devices=3, rounds=1)
    application.wait_until(lambda: has_everything(platform_thread, application))

    def set_shared(values):
        # The application logs the values at DEBUG.
        platform_thread.run(platform_thread.emulator.set_shared_attributes("gateway", values))
        application.wait_until(lambda: str(values) in log_of(application, "service"))

    def lines():
        # Of lines with the same millisecond and logger, the platform keeps the last one.
        return [value for key, value in platform_thread.values("gateway") if key == "SERVICE_LOGS"]

    set_shared({"RemoteLoggingLevel": "DEBUG"})
    for number in range(5):
        set_shared({"mark": number})
    application.wait_until(lambda: sum("|DEBUG|" in line for line in lines()) >= 5)
    set_shared({"RemoteLoggingLevel": "NONE"})
    set_shared({"mark": 6})
    assert application.interrupt() == 0
    # Lines about the sending of lines would follow each other without an end.
    assert len(lines()) < 30
    assert "Logs queue is full" not in application.output
    assert "Traceback" not in application.output
