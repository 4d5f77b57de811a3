"""docs/troubleshooting.md has a section for each cause, and errors lead to it."""

import errno
import re
import socket
from pathlib import Path

import pytest

from tb_mqtt_client import DeviceConfig
from tb_mqtt_client.cli.failures import explain
from tb_mqtt_client.common.network.connection_failure import Failure, Topic
from tb_mqtt_client.common.network.route import Step

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
SECTIONS = re.findall(r"^### (.+)\n\n((?:(?!^#).*\n)*)", PAGE, re.MULTILINE)


def anchor(title):
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def test_the_page_and_the_causes_agree():
    anchors = [anchor(title) for title, _ in SECTIONS]
    assert len(anchors) == len(set(anchors))
    assert set(anchors) == set(Topic)


@pytest.mark.parametrize(("title", "text"), SECTIONS, ids=[title for title, _ in SECTIONS])
def test_a_section_has_a_symptom_a_cause_and_advice(title, text):
    assert re.findall(r"^- \*\*(.+?):\*\* \S", text, re.MULTILINE) == ["Symptom", "Cause", "What to do"]


def test_every_topic_is_used():
    package = Path(__file__).parents[2] / "python" / "tb_mqtt_client"
    source = "".join(path.read_text() for path in package.rglob("*.py"))
    assert {name for name in Topic.__members__ if f"Topic.{name}" not in source} == set()


@pytest.mark.parametrize(
    ("step", "error", "topic"),
    [
        (Step.NAME, socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "unknown-name"),
        (Step.NAME, TimeoutError(), "name-server-does-not-respond"),
        (Step.TCP, ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "nothing-listens"),
        (Step.TCP, OSError(errno.ENETUNREACH, "unreachable"), "no-route"),
        (Step.TCP, TimeoutError(), "no-reply"),
        (Step.TCP, OSError(errno.EACCES, "not permitted"), "other-failures"),
        (Step.TLS, TimeoutError(), "no-tls-reply"),
        (Step.MQTT, TimeoutError(), "no-connack"),
        (Step.MQTT, ConnectionError("closed"), "closed-before-connack"),
    ],
)
def test_errors_name_their_section(step, error, topic):
    [route] = DeviceConfig({"host": "tb.test", "access_token": "TOKEN"}).routes()
    raised = Failure.of(route, step, error).raised()
    assert str(raised).endswith(f" [troubleshooting: {topic}]")
    assert explain(raised).topic == topic
