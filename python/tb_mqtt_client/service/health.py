"""Describes the current state of a client as JSON values, for a health endpoint, a dashboard or a log."""

from __future__ import annotations

from typing import Any

from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.statistics import Statistics
from tb_mqtt_client.service.formats.json_session_limits import SessionLimits
from tb_mqtt_client.service.message_service import MessageService
from tb_mqtt_client.service.mqtt_manager import MQTTManager


def health_snapshot(
    manager: MQTTManager, admission: Admission, limits: SessionLimits, statistics: Statistics, messages: MessageService
) -> dict[str, Any]:
    """Return all fields of ``Statistics``, and the state of the connection.

    - ``connected``: whether there is a connection; ``ready``: whether its session is set up, so that data is sent; ``since``: when
      the connection was established or lost, in milliseconds since the epoch, ``None`` before the first one.
    - ``last_disconnect``: why the last session ended; ``last_disconnect_code``: the reason code of the server's DISCONNECT.
    - ``limited``: whether a message waits for a limit or for the end of a pause; ``paused_seconds``: the remaining time of a pause.
    - ``limits``: the limits of the session. With ``announced`` false these are the defaults, for a server that does not announce
      its own. ``max_payload_size``: bytes of a telemetry payload, as ``client.max_payload_size``; ``max_packet_size``: bytes of an
      MQTT packet without its first two to five (the remaining length). ``device``, ``gateway``: announced rate limits.
      ``learned``: a dict for each limit that the server enforces without announcing it: ``limit`` (its name), ``per_second`` (in
      use), ``estimate`` (of the limit, per second), ``source`` (the refusal that it was learned from) and ``refusals`` (their
      number).
    - ``backlog``: see ``BacklogPace.state``.
    - ``oldest_seconds``: the age of the oldest datapoint that waits to be published; ``None`` if none waits.
    - ``delays``: see ``Delays`` and ``DelayHistogram.as_dict``.
    """
    end = manager.last_end
    return {
        "connected": manager.is_connected(),
        "ready": manager.is_ready(),
        "since": manager.since,
        "mqtt_version": manager.mqtt_version,
        "last_disconnect_code": None if end is None or end.reason_code is None else int(end.reason_code),
        "limited": admission.limited,
        "paused_seconds": admission.backpressure.remaining(),
        "limits": limits_snapshot(admission, limits),
        "backlog": messages.backlog_pace.state(),
        "oldest_seconds": messages.oldest_seconds(),
        "delays": messages.delays.as_dict(),
        **statistics.as_dict(),
    }


def limits_snapshot(admission: Admission, limits: SessionLimits) -> dict[str, Any]:
    """Return ``limits`` of ``health_snapshot``."""
    payload_limits = admission.payload_limits(of_sub_devices=False)
    return {
        "announced": limits.announced,
        "max_payload_size": payload_limits.max_payload_size,
        "max_packet_size": payload_limits.max_packet_size,
        "device": dict(limits.device),
        "gateway": dict(limits.gateway),
        "learned": admission.learned_limits(),
    }
