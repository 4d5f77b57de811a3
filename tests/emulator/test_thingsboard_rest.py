"""The settings and the REST client of `make server-test`, tested with a small HTTP server instead of ThingsBoard."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from thingsboard.limits import LimitedTenants, Limits
from thingsboard.rest import RestClient, RestError
from thingsboard.settings import Settings, SettingsError, hide_from_clients
from thingsboard.tenant import NotStoredError, Tenant, until


class FakeServer:
    """Responds with `replies`: a list of `(status, body)` for each `(method, path)`, whose last item is repeated."""

    def __init__(self):
        self.replies = {("POST", "/api/auth/login"): [(200, {"token": "T"})]}
        self.requests = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def respond(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                fake.requests.append((self.command, self.path, self.headers, body))
                replies = fake.replies.get((self.command, path), [(404, "no such thing")])
                status, reply = replies.pop(0) if len(replies) > 1 else replies[0]
                data = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = respond

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def paths(self, method="GET"):
        return [path for one, path, *_ in self.requests if one == method and path != "/api/auth/login"]

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server():
    made = FakeServer()
    yield made
    made.close()


@pytest.fixture
def slept():
    return []


@pytest.fixture
def client(server, slept):
    return RestClient(server.url, "user", "secret", sleep=slept.append)


def test_the_first_request_logs_in_and_later_ones_use_the_token(server, client):
    server.replies["GET", "/api/thing"] = [(200, {"a": 1})]
    assert client.request("GET", "/api/thing", query={"x": "ä b"}) == client.request("GET", "/api/thing") == {"a": 1}
    assert [path for _, path, *_ in server.requests] == ["/api/auth/login", "/api/thing?x=%C3%A4+b", "/api/thing"]
    assert json.loads(server.requests[0][3]) == {"username": "user", "password": "secret"}
    assert server.requests[1][2]["X-Authorization"] == "Bearer T"


def test_an_expired_token_is_renewed_once(server, client):
    server.replies["GET", "/api/thing"] = [(200, {}), (401, "expired"), (200, {"a": 1})]
    assert client.request("GET", "/api/thing") == {}
    assert client.request("GET", "/api/thing") == {"a": 1}
    server.replies["GET", "/api/thing"] = [(401, "never")]
    with pytest.raises(RestError, match="failed with status 401: never"):
        client.request("GET", "/api/thing")


def test_a_wrong_password_names_the_user_and_the_server(server, client):
    server.replies["POST", "/api/auth/login"] = [(401, "Invalid username or password")]
    with pytest.raises(RestError, match=f"Logging in as 'user' at {server.url} failed: .*Invalid username or password") as raised:
        client.request("GET", "/api/thing")
    assert raised.value.status == 401


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_temporary_error_is_retried(server, client, slept, status):
    server.replies["GET", "/api/thing"] = [(status, "starting"), (status, "starting"), (200, "fine")]
    assert client.request("GET", "/api/thing") == "fine"
    assert slept == [0.1, 0.2]


@pytest.mark.parametrize("status", [502, 504])
def test_a_post_that_may_have_been_executed_is_not_retried(server, client, slept, status):
    """The status 504 is for an RPC without a response of the device."""
    server.replies["POST", "/api/rpc"] = [(status, "no response"), (200, "fine")]
    with pytest.raises(RestError) as raised:
        client.request("POST", "/api/rpc")
    assert raised.value.status == status
    assert not slept


def test_a_refused_request_is_not_retried(server, client, slept):
    with pytest.raises(RestError, match="GET /api/nothing failed with status 404: no such thing") as raised:
        client.request("GET", "/api/nothing")
    assert raised.value.status == 404
    assert not slept


def test_the_error_names_an_unreachable_server(slept):
    gone = FakeServer()
    gone.close()
    with pytest.raises(RestError, match=f"{gone.url}/api/auth/login failed: .*refused"):
        RestClient(gone.url, "user", "secret", patience=0.5, sleep=slept.append).request("GET", "/api/thing")
    # No request reached the server, so the POST of the login was retried.
    assert slept


async def test_an_upload_is_sent_as_a_form_with_one_file(server, client):
    server.replies["POST", "/api/otaPackage/1"] = [(200, {})]
    await client.upload("/api/otaPackage/1", b"\x00\xff", checksumAlgorithm="MD5")
    _, path, headers, body = server.requests[-1]
    assert path.endswith("?checksumAlgorithm=MD5")
    boundary = headers["Content-Type"].partition("boundary=")[2].encode()
    assert body.startswith(b"--" + boundary + b'\r\nContent-Disposition: form-data; name="file"')
    assert body.endswith(b"\r\n\r\n\x00\xff\r\n--" + boundary + b"--\r\n")


def listing(*names, key="name"):
    return {"data": [{"id": {"id": f"id of {name}"}, key: name} for name in names], "hasNext": False}


async def test_cleaning_up_removes_only_entities_with_the_prefix(server, client):
    server.replies |= {
        ("GET", "/api/tenant/devices"): [(200, listing("run-1-device", "other run-1", "run-2"))],
        ("GET", "/api/otaPackages"): [(200, listing("run-1-package", key="title"))],
        ("GET", "/api/deviceProfiles"): [(200, listing("default"))],
        ("GET", "/api/ruleChains"): [(400, "no such thing")],
        ("GET", "/api/customers"): [(200, listing("run-1-customer", key="title"))],
        ("DELETE", "/api/customer/id%20of%20run-1-customer"): [(200, "")],
        ("DELETE", "/api/device/id%20of%20run-1-device"): [(500, "trouble")],
        ("DELETE", "/api/otaPackage/id%20of%20run-1-package"): [(200, "")],
    }
    # An entity that cannot be removed does not prevent the removal of others.
    with pytest.raises(ExceptionGroup, match="run-1") as raised:
        await Tenant(client, "run-1").remove_everything()
    assert [error.status for error in raised.value.exceptions] == [500, 400]
    removed = ["device/id%20of%20run-1-device", "otaPackage/id%20of%20run-1-package", "customer/id%20of%20run-1-customer"]
    assert server.paths("DELETE") == [f"/api/{path}" for path in removed]


async def test_tenants_with_limits_and_their_profiles_are_removed_after_a_failure(server, client):
    entity = {"id": {"id": "1"}, "profileData": {"configuration": {"type": "DEFAULT", "kept": 1}}}
    server.replies |= {
        ("GET", "/api/tenantProfileInfo/default"): [(200, entity)],
        ("GET", "/api/tenantProfile/1"): [(200, entity)],
        ("POST", "/api/tenantProfile"): [(200, entity | {"name": "run-1"})],
        ("POST", "/api/tenant"): [(200, {"id": {"id": "2"}})],
        ("POST", "/api/user"): [(500, "trouble")],
        ("DELETE", "/api/tenant/2"): [(200, "")],
        ("DELETE", "/api/tenantProfile/1"): [(200, "")],
    }
    tenants = LimitedTenants(client, "run")
    with pytest.raises(RestError, match="trouble"):
        await tenants.make(Limits(device_messages="5:1"))
    await tenants.remove()
    assert server.paths("DELETE") == ["/api/tenant/2", "/api/tenantProfile/1"]
    [sent] = [json.loads(body) for method, path, _, body in server.requests if (method, path) == ("POST", "/api/tenantProfile")]
    assert sent["id"] is None
    assert sent["profileData"]["configuration"].items() >= {"kept": 1, "transportDeviceMsgRateLimit": "5:1"}.items()


async def test_waiting_returns_the_first_result_or_names_the_last():
    found = iter([None, 0, 7])

    async def read():
        return next(found)

    assert await until(read, "seven") == 7

    async def never():
        return []

    with pytest.raises(NotStoredError, match=r"did not return a value within 0.01 s; the last result was \[\]"):
        await until(never, "a value", within=0.01)


# Settings.


def test_settings_have_defaults():
    settings = Settings.from_environment({"TB_URL": "http://server:8080/"})
    assert (settings.url, settings.mqtt_host, settings.mqtt_port) == ("http://server:8080", "server", 1883)
    assert (settings.user, settings.password) == ("tenant@thingsboard.org", "tenant")
    assert (settings.sysadmin_user, settings.sysadmin_password) == ("sysadmin@thingsboard.org", "sysadmin")
    assert settings.left_out.keys() == {"restarts", "slow"}


def test_the_environment_has_precedence_over_the_defaults():
    settings = Settings.from_environment(
        {
            "TB_URL": "https://tb.example.com",
            "TB_MQTT": "[::1]:1884",
            "TB_SYSADMIN_USER": "",
            "TB_RESTART_COMMAND": "docker restart tb",
            "TB_SLOW": "1",
            "TB_INACTIVITY": "20",
        }
    )
    assert (settings.mqtt_host, settings.mqtt_port, settings.inactivity) == ("::1", 1884, 20)
    assert settings.left_out == {"sysadmin": "tests of limits: TB_SYSADMIN_USER is empty"}


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "TB_URL"),
        ({"TB_URL": "localhost:8080"}, "TB_URL"),
        ({"TB_URL": "http://a", "TB_MQTT": "host:port"}, "TB_MQTT"),
        ({"TB_URL": "http://a", "TB_MQTT": "mqtt://host"}, "TB_MQTT"),
        ({"TB_URL": "http://a", "TB_INACTIVITY": "long"}, "TB_INACTIVITY"),
    ],
)
def test_an_invalid_setting_is_named(environment, name):
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment(environment)


def test_the_password_of_the_tenant_is_hidden_from_clients():
    """Clients read options from the environment, including TB_PASSWORD."""
    environment = {"TB_PASSWORD": "tenant", "TB_GW_HOST": "x", "PATH": "/bin"}
    hide_from_clients(environment)
    assert environment == {"PATH": "/bin"}
