"""The client of one device."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Mapping
from typing import Any, Literal, Self, overload

from tb_mqtt_client.common.async_utils import Delivery, seconds_or_none
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.provisioning_response import ProvisioningResponse
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.firmware import PackageKind
from tb_mqtt_client.constants.json_typing import JSONCompatibleType
from tb_mqtt_client.constants.mqtt_topics import DEVICE_CLAIM_TOPIC
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.provisioning_request import ProvisioningRequest
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.delivery.statistics import Statistics
from tb_mqtt_client.service.device.provisioning import ProvisioningClient
from tb_mqtt_client.service.engine import Engine
from tb_mqtt_client.service.life_cycle import ClientState
from tb_mqtt_client.service.ota.update import UpdateResult
from tb_mqtt_client.service.ota.updater import DEFAULT_CHUNK_TIMEOUT, FirmwareUpdater
from tb_mqtt_client.service.requests.callbacks import Callback, require_callable

logger = get_logger(__name__)

DEFAULT_TIMEOUT = 3.0
ATTRIBUTES_TIMEOUT = 30.0
"""Seconds to wait for requested attributes: the platform does not answer when something goes wrong there."""


class DeviceClient:
    """Sends a device's data, and answers each call with what became of it.

    ``config`` is a ``DeviceConfig``, a dict of its options, or ``None`` for the environment. Delivery is at least once: what
    is not acknowledged when a connection ends is sent again on the next one.
    """

    DEFAULT_TIMEOUT = DEFAULT_TIMEOUT
    """Seconds that most methods wait for a response, unless they are given another time."""

    def __init__(self, config: DeviceConfig | Mapping[str, Any] | None = None) -> None:
        self._engine = Engine(config if isinstance(config, DeviceConfig) else DeviceConfig(config))
        self.firmware_updater = FirmwareUpdater(self._engine)
        """What ``update_firmware`` uses; says which firmware and software the device has."""

    @property
    def max_payload_size(self) -> int | None:
        """Bytes of the largest telemetry payload in this session; ``None`` before the first one."""
        return self._engine.max_payload_size

    @property
    def state(self) -> ClientState:
        """What the client is doing, and whether sends are accepted; see ``ClientState``."""
        return self._engine.life.state

    @property
    def statistics(self) -> Statistics:
        """Counts of what became of all datapoints, see ``Statistics``."""
        return self._engine.statistics

    def health(self) -> dict[str, Any]:
        """Return the client's current state as JSON values: the connection, the limits, and all of ``statistics``."""
        return self._engine.health()

    async def connect(self) -> None:
        """Connect, and stay connected until ``disconnect`` or ``stop`` is called.

        Returns when the session is set up: subscribed, with the server's limits. After a refusal that may pass ("server busy")
        it is tried again; otherwise the first attempt decides. If this raises, no task is left, and queued data is sent on the
        next connection. Waits until a ``disconnect`` or ``stop`` in progress is over. Sub-devices of a gateway are announced
        again automatically. Does nothing while the client is connected or reconnecting.

        Raises:
            OSError: The server cannot be reached, or violates MQTT.
            TimeoutError: The server does not answer in time; also an ``OSError``.
            ConnectionRefusedByServer: The server refuses the connection, with its reason; also a ``ConnectionError``.
            NotConnectedError: The client was disconnected or stopped meanwhile.
            ValueError: No host is configured.
            RuntimeError: The running event loop is not the one of the first ``connect``.
        """
        await self._engine.connect()

    async def disconnect(self) -> None:
        """Close the connection. Queued data stays queued, and ``connect`` works again.

        Requests that wait for a response end with a ``NotConnectedError``. Running callbacks are cancelled, except one that
        calls this method. An update is cancelled. Sub-devices of a gateway stay registered.

        Raises:
            RuntimeError: The running event loop is not the one of ``connect``.
        """
        await self._engine.disconnect()

    async def stop(self, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Send what is queued for at most ``timeout`` seconds, close, and answer the rest as not delivered.

        Callbacks for server-side RPC that are running may finish within this time; they can still send, and their replies
        are sent.

        Args:
            timeout: Seconds; ``None`` for no limit. With 0 the client stops at once.

        Raises:
            RuntimeError: The running event loop is not the one of ``connect``.
            TypeError: ``timeout`` is not a number of seconds.
        """
        await self._engine.stop(timeout)

    async def __aenter__(self) -> Self:
        """Connect. If that raises, nothing of the client is left."""
        try:
            await self.connect()
        except BaseException:
            await self.stop(timeout=0)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the client, as ``stop()`` does."""
        await self.stop()

    @staticmethod
    async def provision(
        provision_request: ProvisioningRequest, timeout: float | None = DEFAULT_TIMEOUT
    ) -> ProvisioningResponse | None:
        """Ask the platform for a device's credentials, on a connection of its own.

        ``response.status`` is SUCCESS, NOT_FOUND (key and secret are of no profile) or ERROR; ``response.result`` of a success is
        the ``DeviceConfig`` to connect with. ``None`` when ``timeout`` seconds are over (``None``: no limit).

        Raises ``ValueError`` for a request without key or secret, ``OSError`` when the server cannot be reached,
        ``ConnectionRefusedByServer`` with its reason, ``ConnectionLostError`` when it closes without an answer, and
        ``TBMQTTError`` when it refuses the request.
        """
        if not isinstance(provision_request, ProvisioningRequest):
            raise TypeError(f"provision_request must be a ProvisioningRequest, not {provision_request!r}")
        client = ProvisioningClient(provision_request.host, provision_request.port, provision_request)
        try:
            async with asyncio.timeout(seconds_or_none(timeout)):
                return await client.provision()
        except TimeoutError:
            logger.error("No answer to a provisioning request from %s:%d", provision_request.host, provision_request.port)  # noqa: TRY400
            return None

    @overload
    async def send_timeseries(
        self, data: Any, wait_for_publish: Literal[True] = ..., timeout: float | None = ...
    ) -> PublishResult: ...
    @overload
    async def send_timeseries(self, data: Any, wait_for_publish: Literal[False], timeout: float | None = ...) -> list[Delivery]: ...
    @overload
    async def send_timeseries(
        self, data: Any, wait_for_publish: bool = ..., timeout: float | None = ...
    ) -> PublishResult | list[Delivery]: ...
    async def send_timeseries(
        self, data: Any, wait_for_publish: bool = True, timeout: float | None = None
    ) -> PublishResult | list[Delivery]:
        """Send a ``TimeseriesEntry``, ``{"ts": ts, "values": {...}}``, ``{key: value}``, or a list that mixes them.

        ``ts`` is milliseconds since the epoch or a ``datetime`` with a timezone; data without it gets the current time.

        Returns the ``PublishResult`` of all its datapoints, or a list with one future of it when ``wait_for_publish`` is false.
        After ``timeout`` seconds (``None``: no limit) the result has reason code -1 and the data stays queued. Waits while
        the queues are full. Raises ``ValueError`` for data that the platform cannot store.
        """
        return await self._engine.send_timeseries(data, wait_for_publish, timeout)

    async def send_telemetry(self, *args: Any, **kwargs: Any) -> PublishResult | list[Delivery]:
        """``send_timeseries`` by its old name."""
        warnings.warn("send_telemetry is deprecated, use send_timeseries", DeprecationWarning, stacklevel=2)
        result: PublishResult | list[Delivery] = await self.send_timeseries(*args, **kwargs)
        return result

    @overload
    async def send_attributes(
        self, attributes: Any, wait_for_publish: Literal[True] = ..., timeout: float | None = ...
    ) -> PublishResult: ...
    @overload
    async def send_attributes(
        self, attributes: Any, wait_for_publish: Literal[False], timeout: float | None = ...
    ) -> list[Delivery]: ...
    @overload
    async def send_attributes(
        self, attributes: Any, wait_for_publish: bool = ..., timeout: float | None = ...
    ) -> PublishResult | list[Delivery]: ...
    async def send_attributes(
        self, attributes: Any, wait_for_publish: bool = True, timeout: float | None = DEFAULT_TIMEOUT
    ) -> PublishResult | list[Delivery]:
        """Send client attributes: ``{key: value}``, an ``AttributeEntry`` or a list of them. Otherwise as ``send_timeseries``."""
        return await self._engine.send_attributes(attributes, wait_for_publish, timeout)

    async def send_rpc_response(self, response: RPCResponse) -> PublishResult:
        """Answer a call of the platform; what the callback for calls gives is sent by itself.

        Waits for the acknowledgement as ``send_attributes`` does. Raises ``ValueError`` for a response that is too large or whose
        id the platform cannot have given.
        """
        _require("response", response, RPCResponse)
        message = self._engine.format.build_rpc_response(response)
        return await self._engine.wait_for(
            self._engine.send_message(message), message.topic, message.payload_size, self.DEFAULT_TIMEOUT
        )

    @overload
    async def claim_device(
        self, claim_request: ClaimRequest, wait_for_publish: Literal[True] = ..., timeout: float | None = ...
    ) -> PublishResult: ...
    @overload
    async def claim_device(
        self, claim_request: ClaimRequest, wait_for_publish: Literal[False], timeout: float | None = ...
    ) -> Delivery: ...
    @overload
    async def claim_device(
        self, claim_request: ClaimRequest, wait_for_publish: bool = ..., timeout: float | None = ...
    ) -> PublishResult | Delivery: ...
    async def claim_device(
        self, claim_request: ClaimRequest, wait_for_publish: bool = True, timeout: float | None = DEFAULT_TIMEOUT
    ) -> PublishResult | Delivery:
        """Let the device be claimed by who knows the secret.

        The result says that the platform took the request; whether it allows claiming it tells nobody. A future of the result when
        ``wait_for_publish`` is false.
        """
        _require("claim_request", claim_request, ClaimRequest)
        seconds_or_none(timeout)
        message = self._engine.format.build_claim_request(claim_request)
        delivery = self._engine.send_message(message)
        if not wait_for_publish:
            return delivery
        return await self._engine.wait_for(delivery, DEVICE_CLAIM_TOPIC, message.payload_size, timeout)

    @overload
    async def send_rpc_request(
        self,
        rpc_request: RPCRequest,
        callback: None = ...,
        wait_for_publish: Literal[True] = ...,
        timeout: float | None = ...,
    ) -> RPCResponse: ...
    @overload
    async def send_rpc_request(
        self,
        rpc_request: RPCRequest,
        callback: Callback[Any] | None = ...,
        wait_for_publish: bool = ...,
        timeout: float | None = ...,
    ) -> RPCResponse | asyncio.Future[RPCResponse] | asyncio.Future[RPCResponse | None] | None: ...
    async def send_rpc_request(
        self,
        rpc_request: RPCRequest,
        callback: Callback[Any] | None = None,
        wait_for_publish: bool = True,
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> RPCResponse | asyncio.Future[RPCResponse] | asyncio.Future[RPCResponse | None] | None:
        """Call the platform, and give its ``RPCResponse``, or a future of it when ``wait_for_publish`` is false.

        Its ``status`` tells a result from an error and from the platform's own timeout (60 s); ``result`` is the whole reply.
        Raises ``TimeoutError`` after ``timeout`` seconds, ``ConnectionLostError`` when the connection ends between call and
        answer, ``RequestRefusedError`` when the platform does not take the call, and ``NotConnectedError`` when the client is
        disconnected.

        With a ``callback``, plain or coroutine function, that gets an ``RPCResponse`` in each of these cases, and ``None`` is
        given when no answer came. What the callback raises is raised here.
        """
        _require("rpc_request", rpc_request, RPCRequest)
        if callback is None:
            response = self._engine.requests.rpc(rpc_request, timeout)
            return await response if wait_for_publish else response
        require_callable("callback", callback)
        response = self._engine.requests.rpc(rpc_request, timeout)
        passed = self._engine.requests.pass_rpc_response(rpc_request, response, callback, awaited=wait_for_publish)
        return await passed if wait_for_publish else passed

    async def call_rpc(
        self, method: str, params: JSONCompatibleType = None, timeout: float | None = DEFAULT_TIMEOUT
    ) -> RPCResponse:
        """Call the platform: ``send_rpc_request`` without a request object."""
        return await self._engine.requests.rpc(await RPCRequest.build(method, params), timeout)

    async def send_attribute_request(
        self,
        attribute_request: AttributeRequest,
        callback: Callback[Any],
        timeout: float | None = ATTRIBUTES_TIMEOUT,
        on_error: Callback[Any] | None = None,
    ) -> None:
        """Ask for attributes, and call ``callback``, plain or coroutine function, with the ``RequestedAttributeResponse``.

        The platform may never answer: after ``timeout`` seconds, or when the client is disconnected, the log says so and
        ``on_error`` is called with the exception instead. A lost connection is no end, the request is sent again on the next one.
        Raises ``RuntimeError`` for a request that is waiting for its answer already.
        """
        _require("attribute_request", attribute_request, AttributeRequest)
        require_callable("callback", callback)
        if on_error is not None:
            require_callable("on_error", on_error)
        response = self._engine.requests.attributes(attribute_request, timeout)
        self._engine.requests.pass_to_callback(attribute_request, response, "requested attributes", callback, on_error)

    async def request_attributes(
        self,
        shared_keys: list[str] | None = None,
        client_keys: list[str] | None = None,
        timeout: float | None = ATTRIBUTES_TIMEOUT,
    ) -> RequestedAttributeResponse:
        """Ask for attributes and give the answer: the named ones, or all when no list is given.

        Raises ``TimeoutError`` when there is none after ``timeout`` seconds, ``ValueError`` for keys that cannot be asked for, and
        ``NotConnectedError`` when the client is disconnected.
        """
        return await self._engine.requests.attributes(await AttributeRequest.build(shared_keys, client_keys), timeout)

    async def update_firmware(
        self,
        on_received_callback: Callback[Any] | None = None,
        save_firmware: bool = True,
        firmware_save_path: str | os.PathLike[str] | None = None,
        *,
        kind: PackageKind | str = PackageKind.FIRMWARE,
        on_package: Callback[Any] | None = None,
        on_progress: Callback[Any] | None = None,
        chunk_size: int | None = None,
        chunk_timeout: float = DEFAULT_CHUNK_TIMEOUT,
        keep_watching: bool = False,
    ) -> asyncio.Task[UpdateResult]:
        """Ask which firmware is assigned, and if it is another one fetch it, check it, and let a callback install it.

        Returns at once. The task that is returned gives an ``UpdateResult``, and raises for no update that fails; to cancel it, to
        disconnect or to stop the client gives the update up. All states are sent as telemetry (``fw_state``, and ``fw_error``
        with FAILED).

        ``on_package(package, path)`` gets the ``AssignedPackage`` and where its image is; a package of which the platform has only
        the ``url`` comes without a path. ``on_received_callback(image, info)`` gets the image as bytes, for which it is read into
        memory as a whole. Both are plain or coroutine functions, are called in the state UPDATING, and make it FAILED when they
        raise. The image is kept in the folder ``firmware_save_path`` (``None``: the current one) under the title's base name,
        unless ``save_firmware`` is false: then it is gone after the callbacks.

        ``kind``: ``"fw"``, or ``"sw"`` for the device's software. ``on_progress(received, size)`` is called with bytes, after each
        chunk. ``chunk_size``: bytes, 32 KiB unless given, and at most what the server takes. ``chunk_timeout``: seconds until a
        chunk is asked for again. ``keep_watching``: go on with whatever is assigned later, until the task is cancelled.

        Raises ``ValueError`` or ``TypeError`` that names an argument, ``NotConnectedError`` before ``connect()``, and
        ``RuntimeError`` while another update runs.
        """
        return await self.firmware_updater.update(
            on_received_callback,
            save_firmware,
            firmware_save_path,
            kind=kind,
            on_package=on_package,
            on_progress=on_progress,
            chunk_size=chunk_size,
            chunk_timeout=chunk_timeout,
            keep_watching=keep_watching,
        )

    def set_attribute_update_callback(self, callback: Callback[Any] | None) -> None:
        """Call this, plain or coroutine function, with each ``AttributeUpdate``, one after the other; ``None``: nothing.

        It may be set before ``connect``, and set anew at any time. A deletion has no entries but ``deleted_keys``.
        """
        if callback is not None:
            require_callable("callback", callback)
        self._engine.downlink.attribute_updates.set_callback(callback)

    def set_rpc_request_callback(self, callback: Callback[Any] | None) -> None:
        """Let this, plain or coroutine function, answer the platform's calls (``RPCRequest``); ``None``: each gets an error.

        It returns an ``RPCResponse`` or any JSON value, which is the result. The platform gets the result as ``{"result": value}``,
        or alone with ``rpc_reply="plain"`` and ``RPCResponse.plain``. It gets an error when the callback raises, returns something
        else, or takes longer than ``rpc_callback_timeout``. Calls run side by side.
        """
        if callback is not None:
            require_callable("callback", callback)
        self._engine.downlink.rpc_requests.set_callback(callback)


def _require(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be made by {kind.__name__}.build(), not {value!r}")
