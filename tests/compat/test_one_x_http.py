"""``tb_device_http`` against a small HTTP server that plays the platform."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit
from zlib import crc32

import pytest
import requests

import tb_device_http
from tb_device_http import TBHTTPAPIException, TBHTTPClient, TBHTTPDevice, TBProvisionFailure

IMAGE = b"image" * 100


class Platform(ThreadingHTTPServer):
    """Answers as the platform's HTTP API of devices does, and keeps the requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.changed = threading.Condition()
        self.requests = []
        self.answers = deque()
        self.failures = deque()
        self.messages = {"attributes/updates": deque(), "rpc": deque()}
        self.shared = {}
        self.is_closing = False
        self.url = f"http://127.0.0.1:{self.server_port}"

    def note(self, *request):
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()

    def wait(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, 30), self.requests
            return list(self.requests)

    def push(self, kind, message):
        with self.changed:
            self.messages[kind].append(message)
            self.changed.notify_all()

    def next_message(self, kind):
        with self.changed:
            self.changed.wait_for(lambda: self.messages[kind] or self.is_closing, 30)
            return self.messages[kind].popleft() if self.messages[kind] else None

    def close(self):
        with self.changed:
            self.is_closing = True
            self.changed.notify_all()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, content=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def parts(self):
        url = urlsplit(self.path)
        token, _, endpoint = url.path.removeprefix("/api/v1/").partition("/")
        return token, endpoint, dict(parse_qsl(url.query))

    def do_POST(self):
        token, endpoint, _ = self.parts()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        platform = self.server
        platform.note("POST", endpoint or token, body)
        if platform.answers:
            self.reply(platform.answers.popleft())
        elif token == "provision":
            known = body["provisionDeviceKey"] == "KEY"
            reply = {"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN", "credentialsValue": "NEW"} if known else {}
            self.reply(200, json.dumps(reply or {"status": "NOT_FOUND"}).encode())
        elif token == "WRONG":
            self.reply(401)
        else:
            self.reply(200, json.dumps({"method": body["method"]}).encode() if endpoint == "rpc" else b"")

    def do_GET(self):
        _, endpoint, query = self.parts()
        platform = self.server
        if endpoint in platform.messages:
            message = platform.next_message(endpoint)
            self.reply(408) if message is None else self.reply(200, json.dumps(message).encode())
            return
        platform.note("GET", endpoint, query)
        if platform.failures:
            self.reply(platform.failures.popleft())
        elif endpoint == "firmware":
            size, chunk = int(query.get("size", len(IMAGE))), int(query.get("chunk", 0))
            self.reply(200, IMAGE[size * chunk : size * (chunk + 1)])
        else:
            self.reply(200, json.dumps({"shared": platform.shared} if platform.shared else {}).encode())


@pytest.fixture
def platform():
    platform = Platform()
    thread = threading.Thread(target=platform.serve_forever, args=(0.01,))
    thread.start()
    yield platform
    platform.close()
    thread.join()


@pytest.fixture
def device(platform):
    device = TBHTTPDevice(platform.url, "TOKEN", "thermometer")
    yield device
    device.stop_publish_worker()
    device._session.close()


def test_a_device_sends_telemetry_and_attributes(platform, device):
    assert device.connect()
    device.send_telemetry({"a": (1, 2)}, timestamp=datetime(2024, 1, 1, tzinfo=UTC), queued=False)
    device.send_attributes({"serial": "7"})
    device.send_telemetry({"b": 1}, timestamp=datetime(2024, 1, 1))
    _, values, attributes, queued = platform.wait(4)
    assert values == ("POST", "telemetry", {"ts": 1704067200000, "values": {"a": [1, 2]}})
    assert attributes == ("POST", "attributes", {"serial": "7"})
    assert queued == ("POST", "telemetry", {"ts": 1704067200000, "values": {"b": 1}})


def test_a_timezone_counts_and_without_a_time_it_is_now(platform, device):
    device.send_telemetry({"a": 1}, datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2))), queued=False)
    before = time.time() * 1000
    device.send_telemetry({"a": 1}, queued=False)
    first, second = (body["ts"] for _, _, body in platform.wait(2))
    assert first == 1704060000000
    assert before - 1 <= second <= time.time() * 1000


def test_queued_telemetry_is_sent_in_order_and_again_after_a_temporary_failure(platform, device, monkeypatch, caplog):
    monkeypatch.setattr("tb_mqtt_client.one_x.http_device.RETRY_DELAYS", (0.0,))
    platform.answers.extend([503, 429, 200, 400, 200])
    for value in range(3):
        device.send_telemetry({"a": value})
    device.start_publish_worker()
    device.start_publish_worker()
    platform.wait(5)
    device.stop_publish_worker()
    assert [body["values"]["a"] for _, _, body in platform.requests] == [0, 0, 0, 1, 2]
    assert "was refused" in caplog.text


def test_telemetry_that_cannot_be_sent_stays_queued_when_the_thread_is_stopped(platform, device, monkeypatch, caplog):
    monkeypatch.setattr("tb_mqtt_client.one_x.http_device.RETRY_DELAYS", (3600.0,))
    platform.answers.extend([503, 503])
    has_failed = threading.Event()
    device.logger.addFilter(noting := lambda _record: has_failed.set() or True)
    device.send_telemetry({"a": 1})
    device.start_publish_worker()
    assert has_failed.wait(30)
    device.logger.removeFilter(noting)
    device.stop_publish_worker()
    assert "1 telemetry messages stay queued" in caplog.text
    device.start_publish_worker()
    device.stop_publish_worker()
    assert [body["values"] for _, _, body in platform.requests] == [{"a": 1}] * 3


def test_a_wrong_token_is_reported(platform, caplog):
    device = TBHTTPDevice(platform.url, "WRONG")
    assert not device.connect()
    assert device._publisher is None
    assert "not reachable" in caplog.text
    assert "WRONG" not in caplog.text
    with pytest.raises(requests.exceptions.HTTPError, match="401"):
        device.send_attributes({"a": 1})


def test_the_connection_is_tested_with_an_empty_message(platform, device, caplog):
    assert device.test_connection() is True
    assert platform.requests == [("POST", "telemetry", {})]
    platform.answers.append(503)
    assert device.test_connection() is False
    assert f"{platform.url} is not reachable: 503" in caplog.text
    assert device._publisher is None


def test_an_endpoint_is_requested_by_its_name(platform, device):
    platform.shared = {"limit": 7}
    assert device._get_data({"sharedKeys": "limit"}, "attributes") == {"shared": {"limit": 7}}
    assert device._get_data(params={}, endpoint="attributes", timeout=5) == {"shared": {"limit": 7}}
    assert platform.requests == [("GET", "attributes", {"sharedKeys": "limit"}), ("GET", "attributes", {})]
    platform.failures.append(404)
    with pytest.raises(requests.exceptions.HTTPError, match="404"):
        device._get_data({}, "attributes")
    assert device._publish_data({"method": "now"}, "rpc", 5) == {"method": "now"}
    assert device._publish_data({"a": 1}, "attributes") == {}


PROGRAM = """
import logging, sys
from datetime import datetime, timezone
from threading import Event
from tb_device_http import TBHTTPDevice

logging.basicConfig(level=logging.WARNING)
url = sys.argv[1]
device = TBHTTPDevice.provision(host=url, device_name="My Device", device_key="KEY", device_secret="SECRET")
print(device)
assert device.connect()
device.timeout = 10
device.send_telemetry({"temp": 41}, timestamp=datetime(2024, 1, 1, tzinfo=timezone.utc), queued=False)
for value in range(3):
    device.send_telemetry({"queued": value}, timestamp=datetime(2024, 1, 2, tzinfo=timezone.utc))
device.send_attributes({"active": True})
print(device.request_attributes(client_keys=["active"], shared_keys=["limit"]))
print(device.send_rpc(name="getTime", params={"zone": "UTC"}))
updated, called = Event(), Event()

def on_attributes(update):
    print("update", update)
    updated.set()

def on_rpc(request):
    device.send_rpc(name=request["method"], params={"done": True}, rpc_id=request["id"])
    called.set()

device.subscribe("attributes", on_attributes)
device.subscribe("rpc", callback=on_rpc)
assert updated.wait(30) and called.wait(30)
device.unsubscribe("attributes")
device.unsubscribe("rpc")
device.stop_publish_worker()
"""


def test_a_program_uses_everything_and_ends(platform):
    """A program in the forms of SDK 1.x, in a process of its own: nothing of it keeps the process alive."""
    platform.shared = {"limit": 7}
    platform.push("attributes/updates", {"limit": 8})
    platform.push("rpc", {"id": 0, "method": "restart", "params": {}})
    command = [sys.executable, "-W", "error", "-c", PROGRAM, platform.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"<ThingsBoard ({platform.url}) HTTP device My Device>",
        "{'shared': {'limit': 7}}",
        "{'method': 'getTime'}",
        "update {'limit': 8}",
    ]
    telemetry = [body for _, endpoint, body in platform.requests if endpoint == "telemetry"]
    assert telemetry[0] == {}
    assert {"ts": 1704067200000, "values": {"temp": 41}} in telemetry
    queued = [body["values"]["queued"] for body in telemetry if "queued" in body.get("values", {})]
    assert queued == [0, 1, 2]
    assert ("POST", "attributes", {"active": True}) in platform.requests
    assert ("POST", "rpc/0", {"method": "restart", "params": {"done": True}}) in platform.requests


INTERRUPTED = """
import signal
import sys
from tb_device_http import TBHTTPDevice
device = TBHTTPDevice(sys.argv[1], "TOKEN")
device.start_publish_worker()
is_sending, interrupts = False, 0
def interrupt(*_):
    global is_sending
    if is_sending:
        is_sending = False
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
for number in range(2000):
    try:
        is_sending = True
        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (number % 25 + 1))
        device.send_telemetry({"a": number})
        is_sending = False
    except KeyboardInterrupt:
        interrupts += 1
signal.setitimer(signal.ITIMER_REAL, 0)
device.send_telemetry({"a": "last"})
device.stop_publish_worker()
print("interrupted" if interrupts else "")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no timer signals")
def test_interrupted_sends_do_not_stop_the_thread_that_sends(platform):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, platform.url], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
    assert [body["values"] for _, endpoint, body in platform.requests if endpoint == "telemetry"][-1] == {"a": "last"}


def test_rpc_in_both_directions(platform, device):
    assert device.send_rpc("now") == {"method": "now"}
    received, done = [], threading.Event()
    device.subscribe("rpc", lambda message: (received.append(message), done.set()))
    platform.push("rpc", {"id": 3, "method": "restart", "params": {}})
    assert done.wait(30)
    device.send_rpc("restart", {"ok": True}, rpc_id=3)
    device.unsubscribe("rpc")
    assert received == [{"id": 3, "method": "restart", "params": {}}]
    assert platform.wait(2)[1] == ("POST", "rpc/3", {"method": "restart", "params": {"ok": True}})


def test_attributes_are_requested_and_updated(platform, device, caplog):
    platform.shared = {"limit": 7}
    assert device.request_attributes(["a", "b"], ["limit"]) == {"shared": {"limit": 7}}
    assert platform.requests == [("GET", "attributes", {"clientKeys": "a,b", "sharedKeys": "limit"})]
    received, done = [], threading.Event()

    def callback(message):
        received.append(message)
        if len(received) == 1:
            raise RuntimeError("a defect")
        done.set()

    device.subscribe("attributes", callback)
    platform.push("attributes/updates", {"limit": 8})
    platform.push("attributes/updates", {"limit": 9})
    assert done.wait(30)
    device.unsubscribe("attributes")
    assert received == [{"limit": 8}, {"limit": 9}]
    assert "a defect" in caplog.text


@pytest.mark.parametrize("method", ["subscribe", "unsubscribe"])
def test_an_unknown_endpoint_raises(device, method):
    with pytest.raises(ValueError, match="'attributes' or 'rpc', not 'telemetry'"):
        getattr(device, method)("telemetry")


def test_a_device_is_provisioned(platform):
    device = TBHTTPDevice.provision(platform.url, "new", "KEY", "SECRET")
    assert (device.token, device.name, device.host) == ("NEW", "new", platform.url)
    with pytest.raises(TBProvisionFailure, match="NOT_FOUND"):
        TBHTTPDevice.provision(platform.url, "new", "OTHER", "SECRET")
    assert issubclass(TBProvisionFailure, TBHTTPAPIException)


@pytest.mark.parametrize("chunk_size", [0, 128, 500])
def test_firmware_is_downloaded_and_verified(platform, tmp_path, monkeypatch, chunk_size):
    monkeypatch.chdir(tmp_path)
    platform.shared = {
        "fw_title": "../image.bin",
        "fw_version": "2",
        "fw_size": len(IMAGE),
        "fw_checksum": "0123",
        "fw_checksum_algorithm": "CRC32",
    }
    device = TBHTTPDevice(platform.url, "TOKEN", chunk_size=chunk_size)
    assert not device.get_firmware_update()
    platform.shared["fw_checksum"] = crc32(IMAGE).to_bytes(4, "little").hex()
    assert device.get_firmware_update()
    assert (tmp_path / "image.bin").read_bytes() == IMAGE
    assert not device.get_firmware_update()
    states = [body["values"].get("fw_state") for method, _, body in platform.requests if method == "POST"]
    assert states == [None, "DOWNLOADING", "DOWNLOADED", "FAILED", None, "DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATED", None]


def test_properties_and_names(device, platform, caplog):
    assert (device.host, device.name, device.timeout) == (platform.url, "thermometer", 30)
    device.timeout = 5
    assert device.timeout == 5
    assert device.api_base_url == f"{platform.url}/api/v1/TOKEN"
    assert repr(device) == f"<ThingsBoard ({platform.url}) HTTP device thermometer>"
    assert device.logger is logging.getLogger("TBHTTPDevice")
    level = device.log_level
    device.log_level = "DEBUG"
    assert device.log_level == "DEBUG"
    device.log_level = level
    assert isinstance(TBHTTPClient(platform.url, "TOKEN"), TBHTTPDevice)
    assert "deprecated" in caplog.text
    assert tb_device_http.requests is requests
