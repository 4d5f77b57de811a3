"""The client of SDK 1.x for the platform's HTTP API of devices, over ``requests``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Self

from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.common.turn import Turn
from tb_mqtt_client.one_x.checksums import verify_checksum
from tb_mqtt_client.one_x.values import plain_value

FIRMWARE_KEYS: Final = ["fw_checksum", "fw_checksum_algorithm", "fw_size", "fw_title", "fw_version"]
LONG_POLL: Final = {"attributes": "attributes/updates", "rpc": "rpc"}
"""What can be subscribed to, and the path of the request that waits for it."""
NO_MESSAGE: Final = {408, 504}
"""Status codes of a long poll in which nothing happened."""
RETRY_DELAYS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds to wait after failed requests of a thread; the last one repeats."""
HTTP_QUOTA: Final = 429

log: logging.Logger = logging.getLogger("TBHTTPDevice")


class TBHTTPAPIException(Exception):
    """The platform or the program uses the HTTP API of devices in a way that is not allowed."""


class TBProvisionFailure(TBHTTPAPIException):
    """The platform did not provision the device."""


def _requests() -> Any:
    """Return the module ``requests``.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        return import_module("requests")
    except ModuleNotFoundError as missing:
        text = "TBHTTPDevice needs the package requests: pip install 'tb-mqtt-client[http]'"
        raise ModuleNotFoundError(text, name="requests") from missing


class _Subscription:
    """A thread that requests messages of one kind until it is stopped."""

    def __init__(self, work: Callable[[_Subscription], None], name: str) -> None:
        self.stopped = Turn()
        self.thread = threading.Thread(target=work, args=(self,), name=name, daemon=True)


class TBHTTPDevice:
    """A device that uses HTTP. Methods that send raise the exceptions of ``requests``."""

    def __init__(self, host: str, token: str, name: str | None = None, chunk_size: int = 0) -> None:
        """Create a client; nothing is sent yet.

        Args:
            host: The address of the platform, such as ``https://thingsboard.example.com``.
            token: The access token of the device.
            name: A name for log lines.
            chunk_size: Bytes of firmware to request at once; 0 for all.

        Raises:
            ModuleNotFoundError: The extra ``http`` is not installed.
        """
        self._host = host.rstrip("/")
        self._token = token
        self._name = name
        self._timeout = 30.0
        self._session = _requests().Session()
        self._session.headers["Content-Type"] = "application/json"
        self._subscriptions: dict[str, _Subscription] = {}
        self._lock = threading.Lock()
        # Unlike a condition, this queue works on if Ctrl-C interrupts a caller. The stopped publishers are in it, too.
        self._outgoing: SimpleQueue[dict[str, Any] | _Subscription] = SimpleQueue()
        self._unsent: dict[str, Any] | None = None
        self._publisher: _Subscription | None = None
        self.current_firmware_info: dict[str, Any] = {"current_fw_title": None, "current_fw_version": None}
        self.chunk_size = chunk_size

    def __repr__(self) -> str:
        return f"<ThingsBoard ({self.host}) HTTP device {self.name}>"

    @property
    def host(self) -> str:
        """The address of the platform."""
        return self._host

    @property
    def name(self) -> str | None:
        """The name of the device in log lines."""
        return self._name

    @property
    def timeout(self) -> float:
        """Seconds that a request may take."""
        return self._timeout

    @timeout.setter
    def timeout(self, value: float) -> None:
        self._timeout = value

    @property
    def api_base_url(self) -> str:
        """The address of the device's API, which contains the access token."""
        return f"{self.host}/api/v1/{self.token}"

    @property
    def token(self) -> str:
        """The access token."""
        return self._token

    @property
    def logger(self) -> logging.Logger:
        """The logger of all devices."""
        return log

    @property
    def log_level(self) -> str:
        """The name of the level from which on the logger logs."""
        return logging.getLevelName(log.getEffectiveLevel())

    @log_level.setter
    def log_level(self, value: int | str) -> None:
        log.setLevel(value)

    def test_connection(self) -> bool:
        """Return whether the platform accepts an empty message of the device; log the cause if it does not."""
        try:
            self._publish_data({}, "telemetry")
        except _requests().exceptions.RequestException as error:
            log.error("%s is not reachable: %s", self.host, self._without_token(error))  # noqa: TRY400
            return False
        return True

    def connect(self) -> bool:
        """Test the connection, and start the thread for queued telemetry.

        Returns:
            False if the test failed; the thread is not started then.
        """
        if not self.test_connection():
            return False
        self.start_publish_worker()
        return True

    def start_publish_worker(self) -> None:
        """Start the thread that sends queued telemetry, unless it is running."""
        with self._lock:
            if self._publisher is None:
                self._publisher = _Subscription(self._publish_queued, "publish_worker")
                self._publisher.thread.start()

    def stop_publish_worker(self) -> None:
        """Stop the thread that sends queued telemetry, after everything that is queued, and wait for it.

        If the platform does not take the telemetry, the rest stays queued, and ``start_publish_worker`` sends it.
        """
        with self._lock:
            publisher, self._publisher = self._publisher, None
        if publisher is None:
            return
        publisher.stopped.give()
        self._outgoing.put(publisher)
        if publisher.thread is not threading.current_thread():
            publisher.thread.join()

    def send_telemetry(self, telemetry: Mapping[str, Any], timestamp: datetime | None = None, queued: bool = True) -> None:
        """Send telemetry.

        Args:
            telemetry: ``{key: value}``.
            timestamp: The time of the values; without a timezone it is in UTC. ``None`` for the current time.
            queued: Whether the thread that ``connect`` starts sends it. After a failure that may be temporary, it tries again.
                Otherwise the telemetry is sent before this returns.

        Raises:
            TypeError: A value cannot be written as JSON.
            requests.exceptions.RequestException: It was not sent, with ``queued=False``.
        """
        if timestamp is not None and timestamp.tzinfo is None:
            timestamp = timestamp.replace(tzinfo=UTC)
        ts = now_ms() if timestamp is None else int(timestamp.timestamp() * 1000)
        payload = {"ts": ts, "values": plain_value(telemetry)}
        if queued:
            self._outgoing.put(payload)
        else:
            self._publish_data(payload, "telemetry")

    def send_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Send client attributes.

        Args:
            attributes: ``{key: value}``.

        Raises:
            TypeError: A value cannot be written as JSON.
            requests.exceptions.RequestException: They were not sent.
        """
        self._publish_data(attributes, "attributes")

    def send_rpc(self, name: str, params: Mapping[str, Any] | None = None, rpc_id: int | None = None) -> dict[str, Any]:
        """Send a client-side RPC request, or the response to a server-side RPC request.

        Args:
            name: The name of the method.
            params: The parameters, or the result.
            rpc_id: The id of the server-side RPC request; ``None`` for a client-side RPC request.

        Returns:
            The response of the platform.

        Raises:
            TypeError: A value cannot be written as JSON.
            requests.exceptions.RequestException: It was not sent.
        """
        request = {"method": name, "params": params or {}}
        response: dict[str, Any] = self._publish_data(request, "rpc" if rpc_id is None else f"rpc/{rpc_id}")
        return response

    def request_attributes(self, client_keys: list[str] | None = None, shared_keys: list[str] | None = None) -> dict[str, Any]:
        """Request attributes.

        Args:
            client_keys: Names of client attributes.
            shared_keys: Names of shared attributes. Without any keys, all attributes are requested.

        Returns:
            ``{"client": {key: value}, "shared": {key: value}}``, without scopes that have no value.

        Raises:
            requests.exceptions.RequestException: No response arrived.
        """
        given = {"clientKeys": client_keys, "sharedKeys": shared_keys}
        response: dict[str, Any] = self._get_data({name: ",".join(keys) for name, keys in given.items() if keys}, "attributes")
        return response

    def subscribe(self, endpoint: str, callback: Callable[[Any], Any] | None = None) -> None:
        """Receive attribute updates or server-side RPC requests in a thread, in place of an earlier subscription.

        Args:
            endpoint: ``"attributes"`` or ``"rpc"``.
            callback: Is called with each message. ``None`` logs them.

        Raises:
            ValueError: ``endpoint`` has another value.
        """
        if endpoint not in LONG_POLL:
            raise ValueError(f"endpoint must be 'attributes' or 'rpc', not {endpoint!r}")
        called = callback or (lambda message: log.info("%s: %s", endpoint, message))
        subscription = _Subscription(lambda own: self._receive(own, endpoint, called), f"subscribe_{endpoint}")
        with self._lock:
            if endpoint in self._subscriptions:
                self._subscriptions[endpoint].stopped.give()
            self._subscriptions[endpoint] = subscription
        subscription.thread.start()

    def unsubscribe(self, endpoint: str) -> None:
        """End a subscription. A callback that is running is not waited for, and none is called afterwards.

        Args:
            endpoint: ``"attributes"`` or ``"rpc"``.

        Raises:
            ValueError: ``endpoint`` has another value.
        """
        if endpoint not in LONG_POLL:
            raise ValueError(f"endpoint must be 'attributes' or 'rpc', not {endpoint!r}")
        with self._lock:
            subscription = self._subscriptions.pop(endpoint, None)
        if subscription is not None:
            subscription.stopped.give()

    @classmethod
    def provision(cls, host: str, device_name: str, device_key: str, device_secret: str) -> Self:
        """Request credentials from the platform.

        Args:
            host: The address of the platform.
            device_name: The name of the new device.
            device_key: The provisioning key of the device profile.
            device_secret: The provisioning secret of the device profile.

        Returns:
            A client of the new device.

        Raises:
            TBProvisionFailure: The platform refuses, or does not return an access token.
            requests.exceptions.RequestException: No response arrived.
        """
        request = {"deviceName": device_name, "provisionDeviceKey": device_key, "provisionDeviceSecret": device_secret}
        response = _requests().post(f"{host.rstrip('/')}/api/v1/provision", json=request, timeout=30)
        response.raise_for_status()
        device = response.json()
        if device.get("status") != "SUCCESS" or device.get("credentialsType") != "ACCESS_TOKEN":
            raise TBProvisionFailure(device)
        return cls(host=host, token=device["credentialsValue"], name=device_name)

    def get_firmware_update(self) -> bool:
        """Install the assigned firmware, if it is not installed already: write it to a file with the title as its name.

        Returns:
            Whether there is new firmware, and its checksum is right.

        Raises:
            requests.exceptions.RequestException: A request fails.
            OSError: The file cannot be written.
        """
        self._publish_data({"ts": now_ms(), "values": self.current_firmware_info}, "telemetry")
        assigned = self.request_attributes(shared_keys=FIRMWARE_KEYS).get("shared", {})
        title, version = assigned.get("fw_title"), assigned.get("fw_version")
        current = self.current_firmware_info
        if title is None or (title, version) == (current["current_fw_title"], current["current_fw_version"]):
            return False
        self._report_firmware("DOWNLOADING")
        image = self._firmware(title, version, int(assigned.get("fw_size") or 0))
        self._report_firmware("DOWNLOADED")
        if not verify_checksum(image, assigned.get("fw_checksum_algorithm"), assigned.get("fw_checksum"), log):
            self._report_firmware("FAILED", fw_error="the checksum is wrong")
            return False
        self._report_firmware("VERIFIED")
        # Only the last part of the title, which the platform does not restrict.
        Path(Path(str(title)).name).write_bytes(image)
        current.update(current_fw_title=title, current_fw_version=version)
        self._report_firmware("UPDATED")
        return True

    def _report_firmware(self, state: str, **more: Any) -> None:
        values = {**self.current_firmware_info, "fw_state": state, **more}
        self._publish_data({"ts": now_ms(), "values": values}, "telemetry")

    def _firmware(self, title: str, version: str, size: int) -> bytes:
        chunks = -(-size // self.chunk_size) if self.chunk_size and size else 1
        return b"".join(self._firmware_chunk(title, version, number) for number in range(chunks))

    def _firmware_chunk(self, title: str, version: str, number: int) -> bytes:
        params: dict[str, Any] = {"title": title, "version": version}
        if self.chunk_size:
            params |= {"size": self.chunk_size, "chunk": number}
        response = self._session.get(f"{self.api_base_url}/firmware", params=params, timeout=self.timeout)
        response.raise_for_status()
        content: bytes = response.content
        return content

    def _publish_data(self, data: Any, endpoint: str, timeout: float | None = None) -> Any:
        """POST data, and return the JSON value of the response, or an empty dict."""
        url = f"{self.api_base_url}/{endpoint}"
        response = self._session.post(url, json=plain_value(data), timeout=timeout or self.timeout)
        response.raise_for_status()
        return response.json() if response.content else {}

    def _get_data(self, params: Mapping[str, Any], endpoint: str, timeout: float | None = None) -> Any:
        """GET an endpoint, and return the JSON value of the response."""
        response = self._session.get(f"{self.api_base_url}/{endpoint}", params=params, timeout=timeout or self.timeout)
        response.raise_for_status()
        return response.json()

    def _without_token(self, error: Exception) -> str:
        return str(error).replace(self.token, "***")

    def _publish_queued(self, own: _Subscription) -> None:
        failures = 0
        while (payload := self._next_queued(own)) is not None:
            try:
                self._publish_data(payload, "telemetry")
            except _requests().exceptions.RequestException as error:
                if self._may_be_temporary(error):
                    failure = self._without_token(error)
                    if own.stopped.is_given:
                        # One is in hand, and the publisher is in the queue.
                        log.error("%d telemetry messages stay queued: %s", self._outgoing.qsize(), failure)  # noqa: TRY400
                        return
                    log.warning("Telemetry is sent again, because sending it failed: %s", failure)
                    own.stopped.wait(RETRY_DELAYS[min(failures, len(RETRY_DELAYS) - 1)])
                    failures += 1
                    continue
                log.error("Telemetry was refused: %s", self._without_token(error))  # noqa: TRY400
            failures = 0
            self._unsent = None

    def _next_queued(self, own: _Subscription) -> dict[str, Any] | None:
        """Wait for queued telemetry, and return the oldest, which stays unsent; ``None`` if the thread is to end."""
        while self._unsent is None:
            taken = self._outgoing.get()
            if taken is own:
                return None
            # A publisher that was stopped before may have left its end in the queue.
            if not isinstance(taken, _Subscription):
                self._unsent = taken
        return self._unsent

    @staticmethod
    def _may_be_temporary(error: Any) -> bool:
        """Return whether the same request may succeed later: there is no response, or one of a server that is in trouble."""
        status = getattr(error.response, "status_code", None)
        return status is None or status == HTTP_QUOTA or status >= 500

    def _receive(self, own: _Subscription, endpoint: str, callback: Callable[[Any], Any]) -> None:
        """Call a function with each message, until the subscription ends."""
        requests = _requests()
        failures = 0
        # The platform ends a long poll without a message after its timeout; the client waits a little longer.
        params = {"timeout": int(self.timeout * 1000)}
        # A session is for one thread.
        with requests.Session() as session:
            while not own.stopped.is_given:
                try:
                    response = session.get(f"{self.api_base_url}/{LONG_POLL[endpoint]}", params=params, timeout=self.timeout + 5)
                    if response.status_code in NO_MESSAGE:
                        failures = 0
                        continue
                    response.raise_for_status()
                    message = response.json()
                except requests.exceptions.RequestException as error:
                    log.warning("The subscription to %s continues after a failure: %s", endpoint, self._without_token(error))
                    own.stopped.wait(RETRY_DELAYS[min(failures, len(RETRY_DELAYS) - 1)])
                    failures += 1
                    continue
                failures = 0
                if own.stopped.is_given:
                    return
                try:
                    callback(message)
                except Exception:
                    log.exception("The callback for %s failed", endpoint)


class TBHTTPClient(TBHTTPDevice):
    """The former name of ``TBHTTPDevice``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Create a client, as ``TBHTTPDevice`` does, and log that the name is deprecated."""
        super().__init__(*args, **kwargs)
        log.warning("TBHTTPClient is deprecated, use TBHTTPDevice")
