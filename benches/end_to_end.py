"""Shared parts of the end-to-end benchmarks: this package, the program that a careful user writes by hand, and a listener."""

import asyncio
import struct

import orjson
from gmqtt import Client as GmqttClient

from tb_mqtt_client import DeviceClient, GatewayClient

WINDOW = 100


def expected(calls):
    """Return ``{(device, ts, key): value}`` of sends of dicts."""
    return {
        (name, record["ts"], key): value
        for name, data in calls
        for record in (data if isinstance(data, list) else [data])
        for key, value in record["values"].items()
    }


class Subscriber:
    """Subscribes to a topic, and has ``_receive`` called with each message."""

    TOPIC = "v1/devices/me/telemetry"

    def __init__(self, broker):
        self._broker = broker
        self._complete = asyncio.Event()

    async def __aenter__(self):
        subscribed = asyncio.Event()
        self._client = GmqttClient("listener")
        self._client.on_message = self._receive
        self._client.on_subscribe = lambda *_: subscribed.set()
        await self._client.connect(self._broker.host, self._broker.port)
        self._client.subscribe(self.TOPIC, qos=1)
        await subscribed.wait()
        return self

    async def __aexit__(self, *_):
        await self._client.disconnect()


class Listener(Subscriber):
    """Subscribes to the telemetry that the broker receives: ``{(device, ts, key): value}``; ``None`` is the device itself."""

    TOPIC = "v1/#"

    def __init__(self, broker):
        super().__init__(broker)
        self.received = {}
        self._wanted = 0

    async def until(self, count):
        self._wanted = count
        if len(self.received) < count:
            self._complete.clear()
            await self._complete.wait()
        return self.received

    def _receive(self, _client, topic, payload, _qos, _properties):
        document = orjson.loads(payload)
        by_device = document.items() if topic == "v1/gateway/telemetry" else [(None, document)]
        if topic.endswith("/telemetry"):
            for device, records in by_device:
                for record in records if isinstance(records, list) else [records]:
                    for key, value in record["values"].items():
                        self.received[device, record["ts"], key] = value
        if len(self.received) >= self._wanted:
            self._complete.set()
        return 0


class Ours:
    """This package."""

    def __init__(self, broker, names=(), **options):
        config = {"host": broker.host, "port": broker.port, "access_token": "t", "limits_timeout": 0.05} | options
        self._client = (GatewayClient if names else DeviceClient)(config)
        self._names = names
        self.sessions = {}

    async def start(self):
        await self._client.connect()
        connected = [await self._client.connect_device(name) for name in self._names]
        self.sessions = {session.device_info.device_name: session for session, _ in connected}
        await asyncio.gather(*(future for _, [future] in connected))

    async def start_offline(self):
        await self._client.start()

    async def send_later(self, data):
        await self._client.send_timeseries(data, wait_for_publish=False)

    async def send(self, calls):
        """Send everything without waiting, then wait for all results. Return the number of acknowledged datapoints."""
        futures = []
        client = self._client
        if self.sessions:
            sessions = self.sessions
            for name, data in calls:
                futures.append(await client.send_device_timeseries(sessions[name], data, wait_for_publish=False))
        else:
            for _, data in calls:
                futures += await client.send_timeseries(data, wait_for_publish=False)
        datapoints = 0
        for future in futures:
            result = await future
            datapoints += result.datapoints_count if result.is_successful() else 0
        return datapoints

    async def enqueue(self, calls):
        """Do what ``send`` does with plain functions, a few hundred sends at a time. For a device only."""
        deliveries = []
        for number, (_, data) in enumerate(calls, 1):
            deliveries.append(self._client.enqueue_timeseries(data))
            if not number % 500:
                await asyncio.sleep(0)
        results = [await delivery for delivery in deliveries]
        return sum(result.datapoints_count for result in results if result.is_successful())

    @property
    def statistics(self):
        return self._client.statistics

    async def round_trip(self, data):
        return await self._client.send_timeseries(data)

    async def stop(self, **options):
        await self._client.stop(**options)


class HandWritten:
    """orjson and gmqtt with QoS 1 and an in-flight window; datapoints count as acknowledged at the PUBACK."""

    def __init__(self, broker, names=()):
        self._broker = broker
        self._topic = "v1/gateway/telemetry" if names else "v1/devices/me/telemetry"
        self._in_flight = 0
        self._window_open = asyncio.Event()
        self._client = GmqttClient("by-hand")
        handler = self._client._package_handler

        def puback(_cmd, packet):
            handler.id_generator.free_id(struct.unpack_from("!H", packet)[0])
            self._in_flight -= 1
            self._window_open.set()

        # gmqtt has no public callback for a PUBACK, and searches a heap of all packets for the acknowledged one.
        handler._handle_puback_packet = puback
        self._client._persistent_storage.push_message = lambda _mid, _package: None

    async def start(self):
        await self._client.connect(self._broker.host, self._broker.port)

    async def send(self, calls):
        datapoints = 0
        for name, data in calls:
            datapoints += len(data["values"]) if isinstance(data, dict) else sum(len(record["values"]) for record in data)
            document = data if name is None else {name: data if isinstance(data, list) else [data]}
            await self.publish_when_open(document)
        await self.settled()
        return datapoints

    async def publish_when_open(self, document):
        """Publish a document, or bytes that are ready, once the window has space."""
        while self._in_flight >= WINDOW:
            self._window_open.clear()
            await self._window_open.wait()
        self._in_flight += 1
        payload = document if isinstance(document, bytes) else orjson.dumps(document)
        self._client.publish(self._topic, payload, qos=1)

    async def settled(self):
        """Wait until everything is acknowledged."""
        while self._in_flight:
            self._window_open.clear()
            await self._window_open.wait()

    async def round_trip(self, data):
        return await self.send([(None, data)])

    async def stop(self):
        await self._client.disconnect()
