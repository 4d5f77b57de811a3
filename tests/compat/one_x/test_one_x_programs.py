"""Programs for SDK 1.x, in the forms of its examples, run as processes of their own against the emulator."""

import json
import os
import ssl
import subprocess
import sys
import textwrap

import pytest
import trustme

from tb_mqtt_client.emulator import OtaPackage, X509Credentials

BEGIN = """
import logging, os, signal, sys, time
# A shell that starts the tests in the background lets them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Without a buffer, each print is several writes, between which another thread may print.
sys.stdout.reconfigure(line_buffering=True)
from threading import Event
from tb_device_mqtt import TBDeviceMqttClient, TBPublishInfo
from tb_gateway_mqtt import TBGatewayMqttClient
HOST, PORT = os.environ["HOST"], int(os.environ["PORT"])
"""


@pytest.fixture
def start(platform_thread, tmp_path):
    """Return a function that starts a program in an empty folder."""
    started = []

    def start(program):
        environment = {**os.environ, "HOST": platform_thread.host, "PORT": str(platform_thread.port)}
        command = [sys.executable, "-W", "error", "-c", BEGIN + textwrap.dedent(program)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


def wait_for(process, line):
    """Read the output of a program until it has printed a line."""
    seen = []
    for text in process.stdout:
        seen.append(text)
        if text.strip() == line:
            return
    raise AssertionError(f"{line!r} was not printed: {''.join(seen)}")


def result_of(process):
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


def test_a_pack_of_telemetry_is_sent_and_the_program_ends_after_stop(platform_thread, start):
    program = start("""
        telemetry_with_ts = {"ts": int(round(time.time() * 1000)), "values": {"temperature": 42.1, "humidity": 70}}
        client = TBDeviceMqttClient(HOST, PORT, username="TOKEN")
        client.max_inflight_messages_set(50)
        client.connect()
        results = []
        result = True
        for i in range(0, 100):
            results.append(client.send_telemetry(telemetry_with_ts))
        for tmp_result in results:
            result &= tmp_result.get() == TBPublishInfo.TB_ERR_SUCCESS
        print("Result " + str(result))
        client.stop()
    """)
    assert "Result True" in result_of(program)
    assert {key for _, key, _ in platform_thread.stored()} == {"temperature", "humidity"}


def test_a_program_that_sends_and_ends_loses_nothing(platform_thread, start):
    program = start("""
        client = TBDeviceMqttClient(HOST, PORT, "TOKEN")
        client.connect()
        for i in range(1, 501):
            client.send_telemetry({"ts": i, "values": {"a": i}})
        client.send_attributes({"sensorModel": "DHT-22", "attr_2": "value"})
    """)
    result_of(program)
    assert len(platform_thread.stored()) == 500
    assert platform_thread.emulator.device("device").attributes == {"sensorModel": "DHT-22", "attr_2": "value"}


def test_a_program_subscribes_to_attributes(platform_thread, start):
    program = start("""
        def on_attributes_change(result, exception):
            if exception is not None:
                print("Exception: " + str(exception))
            else:
                print(result)

        client = TBDeviceMqttClient(HOST, PORT, username="TOKEN")
        client.connect()
        sub_id_1 = client.subscribe_to_attribute("uploadFrequency", on_attributes_change)
        sub_id_2 = client.subscribe_to_all_attributes(on_attributes_change)
        client.unsubscribe_from_attribute(sub_id_1)
        client.unsubscribe_from_attribute(sub_id_2)
        sub_id_1 = client.subscribe_to_attribute("uploadFrequency", on_attributes_change)
        print("ready")
        while not client.stopped:
            time.sleep(0.01)
    """)
    wait_for(program, "ready")
    platform_thread.run(platform_thread.emulator.set_shared_attributes("device", {"uploadFrequency": 5}))
    wait_for(program, "{'uploadFrequency': 5}")


def test_a_program_requests_attributes_and_calls_an_rpc(platform_thread, start):
    platform_thread.emulator.device("device").shared_attributes.update({"targetFirmwareVersion": "1.2"})
    platform_thread.emulator.on_client_rpc = lambda _device, method, params: {"time": 5}
    program = start("""
        done = Event()

        def on_attributes_change(result, exception=None):
            print(result, exception)
            client.send_rpc_call("getTime", {}, callback)

        def callback(request_id, resp_body, exception):
            print("request id: {request_id}, response body: {resp_body}".format(request_id=request_id, resp_body=resp_body))
            done.set()

        client = TBDeviceMqttClient(HOST, PORT, username="TOKEN")
        client.connect()
        client.request_attributes(["configuration"], ["targetFirmwareVersion"], callback=on_attributes_change)
        assert done.wait(30)
        client.disconnect()
    """)
    output = result_of(program)
    assert "{'shared': {'targetFirmwareVersion': '1.2'}} None" in output
    assert "request id: 1, response body: {'time': 5}" in output


def test_a_program_responds_to_rpc(platform_thread, start):
    program = start("""
        client = TBDeviceMqttClient(HOST, PORT, username="TOKEN")

        def on_server_side_rpc_request(request_id, request_body):
            print(request_body)
            if request_body["method"] == "getCPULoad":
                client.send_rpc_reply(request_id, {"CPU percent": 7})
            elif request_body["method"] == "getMemoryUsage":
                client.send_rpc_reply(request_id, '{"Memory": 5}')

        client.set_server_side_rpc_request_handler(on_server_side_rpc_request)
        client.connect()
        print("ready")
        Event().wait()
    """)
    wait_for(program, "ready")
    call_rpc = platform_thread.emulator.call_rpc
    assert platform_thread.run(call_rpc("device", "getCPULoad", {})) == {"CPU percent": 7}
    assert platform_thread.run(call_rpc("device", "getMemoryUsage", {})) == {"Memory": 5}


def test_a_program_is_provisioned_and_claims(platform_thread, start):
    program = start("""
        credentials = TBDeviceMqttClient.provision(
            host=HOST, port=PORT, provision_device_key="KEY", provision_device_secret="SECRET", device_name="provisioned"
        )
        if credentials is not None and credentials.get("status") == "SUCCESS":
            username, password, client_id = credentials["credentialsValue"], None, None
            client = TBDeviceMqttClient(HOST, PORT, username=username, password=password, client_id=client_id)
            client.connect()
            rc = client.claim(secret_key="DEVICE_SECRET_KEY", duration=30000).get()
            if rc == 0:
                print("Claiming request was sent.")
            client.disconnect()
    """)
    assert "Claiming request was sent." in result_of(program)
    assert "provisioned" in platform_thread.emulator.devices


def test_a_program_updates_its_firmware(platform_thread, start, tmp_path):
    platform_thread.run(platform_thread.emulator.assign_package("device", OtaPackage("app.bin", "2.0", b"image" * 1000)))
    program = start("""
        client = TBDeviceMqttClient(HOST, PORT, username="TOKEN", chunk_size=1024)
        client.connect()
        client.get_firmware_update()
        while client.current_firmware_info["current_fw_version"] != "2.0":
            time.sleep(0.01)
        client.disconnect()
    """)
    result_of(program)
    assert (tmp_path / "app.bin").read_bytes() == b"image" * 1000


def test_a_gateway_program_serves_devices(platform_thread, start):
    program = start("""
        gateway = TBGatewayMqttClient(HOST, PORT, username="GATEWAY")

        def callback(result):
            print("update", result)

        def attributes(result, exception):
            print("attributes", result["device"], result["value"])

        def rpc_request_response(client, request_body):
            method = request_body["data"]["method"]
            device = request_body["device"]
            req_id = request_body["data"]["id"]
            if method == "setTarget":
                gateway.gw_send_rpc_reply(device, req_id, {"target": request_body["data"]["params"]})
            else:
                print("unknown method", method)

        gateway.connect()
        gateway.gw_connect_device("Test Device A1")
        gateway.gw_set_server_side_rpc_request_handler(rpc_request_response)
        gateway.gw_subscribe_to_attribute("Test Device A1", "temperature", callback)
        gateway.gw_subscribe_to_all_attributes(callback)
        gateway.gw_send_attributes("Test Device A1", {"atr1": 1, "atr2": True, "atr3": "value3"})
        telemetry_array = {"temperature": 42, "humidity": 24}
        assert gateway.gw_send_telemetry("Test Device A1", telemetry_array).get() == TBPublishInfo.TB_ERR_SUCCESS
        gateway.gw_request_client_attributes("Test Device A1", ["atr3"], attributes)
        while True:
            time.sleep(1)
    """)
    wait_for(program, "attributes Test Device A1 value3")
    assert sorted(platform_thread.values("Test Device A1")) == [("humidity", 24), ("temperature", 42)]
    assert platform_thread.run(platform_thread.emulator.call_rpc("Test Device A1", "setTarget", 21)) == {"target": 21}
    platform_thread.run(platform_thread.emulator.set_shared_attributes("Test Device A1", {"limit": 1}))
    wait_for(program, "update {'device': 'Test Device A1', 'data': {'limit': 1}}")


def test_ctrl_c_ends_a_program_that_waits(start):
    program = start("""
        client = TBDeviceMqttClient(HOST, PORT, "TOKEN")
        client.connect()
        try:
            print("ready")
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            client.disconnect()
            print("disconnected")
    """)
    wait_for(program, "ready")
    program.send_signal(2)
    assert "disconnected" in result_of(program)


def tls_of_server(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("provisioned").cert_chain_pems[0].bytes().decode()
OVER_TLS = {"ssl_context": tls_of_server(AUTHORITY)}


@pytest.fixture
def certificate(tmp_path):
    """Write the certificates of server and client to the folder of the program, and return that of the client."""
    AUTHORITY.cert_pem.write_to_path(tmp_path / "mqttserver.pub.pem")
    issued = AUTHORITY.issue_cert("client")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "mqttclient.nopass.pem")
    return X509Credentials(issued.cert_chain_pems[0].bytes().decode())


@pytest.mark.parametrize("platform_thread", [OVER_TLS], indirect=True)
def test_a_program_uses_tls_with_a_certificate(platform_thread, start, certificate):
    platform_thread.emulator.add_device(certificate, "by certificate")
    program = start("""
        client = TBDeviceMqttClient(HOST, PORT)
        client.connect(tls=True, ca_certs="mqttserver.pub.pem", cert_file="mqttclient.nopass.pem")
        result = client.send_telemetry({"temperature": 41.9, "humidity": 69})
        print(result.get() == TBPublishInfo.TB_ERR_SUCCESS)
        client.disconnect()
    """)
    assert "True" in result_of(program)
    assert sorted(platform_thread.values("by certificate")) == [("humidity", 69), ("temperature", 41.9)]


@pytest.mark.parametrize("platform_thread", [OVER_TLS], indirect=True)
def test_a_gateway_program_uses_tls_with_a_token(platform_thread, start, certificate):
    program = start("""
        gateway = TBGatewayMqttClient(HOST, PORT, "GATEWAY")
        gateway.connect(tls=True, ca_certs="mqttserver.pub.pem")
        gateway.gw_connect_device("Example Name")
        gateway.gw_send_telemetry("Example Name", {"temperature": 41.9})
        gateway.gw_disconnect_device("Example Name")
        gateway.disconnect()
    """)
    result_of(program)
    assert platform_thread.values("Example Name") == [("temperature", 41.9)]
    assert not platform_thread.emulator.device("Example Name").connected


@pytest.mark.parametrize("platform_thread", [OVER_TLS], indirect=True)
def test_connect_of_a_program_raises_if_the_server_is_not_trusted(platform_thread, start):
    program = start("""
        client = TBDeviceMqttClient(HOST, PORT, "TOKEN")
        try:
            client.connect(tls=True)
        except OSError as error:
            print(type(error).__mro__)
    """)
    assert "ssl.SSLError" in result_of(program)


def test_a_program_sends_what_its_machine_does_as_often_as_the_platform_says(platform_thread, start):
    """The period is a shared attribute, which is requested at the start and changed by an update; an RPC request has a response."""
    platform_thread.emulator.device("device").shared_attributes.update({"uploadFrequency": 1000})
    program = start("""
        uploadFrequency, changed = 5, Event()
        client = None

        def on_server_side_rpc_request(request_id, request_body):
            if request_body["method"] == "getCPULoad":
                client.send_rpc_reply(request_id, {"CPU load": 7})

        def sync_state(result, exception=None):
            global uploadFrequency
            if exception is not None:
                print("Exception: " + str(exception))
            else:
                uploadFrequency = result["shared"]["uploadFrequency"]
                changed.set()

        def on_upload_frequency_change(value, error):
            global uploadFrequency
            uploadFrequency = value["uploadFrequency"]
            changed.set()

        client = TBDeviceMqttClient(HOST, PORT, username="TOKEN")
        client.connect()
        client.request_attributes(shared_keys=["uploadFrequency"], callback=sync_state)
        client.subscribe_to_attribute("uploadFrequency", on_upload_frequency_change)
        client.set_server_side_rpc_request_handler(on_server_side_rpc_request)
        client.send_attributes({"ip_address": "127.0.0.1", "macaddress": "02:00"}).get()
        while not client.stopped:
            assert changed.wait(30)
            changed.clear()
            client.send_telemetry({"cpu_usage": 1.5, "period": uploadFrequency}).get()
            print("sent", uploadFrequency)
    """)
    wait_for(program, "sent 1000")
    assert platform_thread.emulator.device("device").attributes == {"ip_address": "127.0.0.1", "macaddress": "02:00"}
    assert platform_thread.run(platform_thread.emulator.call_rpc("device", "getCPULoad", {})) == {"CPU load": 7}
    platform_thread.run(platform_thread.emulator.set_shared_attributes("device", {"uploadFrequency": 1}))
    wait_for(program, "sent 1")
    assert platform_thread.values() == [("cpu_usage", 1.5), ("period", 1000), ("cpu_usage", 1.5), ("period", 1)]


def test_a_gateway_program_lets_a_device_be_claimed(platform_thread, start):
    program = start("""
        client = TBGatewayMqttClient(HOST, PORT, "GATEWAY")
        client.connect()
        rc = client.gw_claim(device_name="TEST DEVICE", secret_key="TEST", duration=30000).get()
        if rc == 0:
            print("Claiming request was sent.")
        client.stop()
        client.disconnect()
    """)
    assert "Claiming request was sent." in result_of(program)
    [claim] = platform_thread.emulator.device("TEST DEVICE").claims
    assert (claim.secret_key, claim.duration_ms) == ("TEST", 30000)


def test_a_gateway_program_requests_attributes_of_its_devices(platform_thread, start):
    program = start("""
        answers, done = [], Event()

        def callback(result, exception, *extra):
            if exception is not None:
                print("Exception: " + str(exception))
            answers.append((result["device"], result.get("value", result.get("values")), *extra))
            if len(answers) == 3:
                done.set()

        gateway = TBGatewayMqttClient(HOST, PORT, "GATEWAY")
        gateway.connect()
        gateway.gw_connect_device("Test Device A2", "boiler").get()
        gateway.gw_send_attributes("Test Device A2", {"atr1": 1, "atr2": True}).get()
        print("ready")
        sys.stdin.readline()
        gateway.gw_request_shared_attributes("Test Device A2", ["limit"], callback)
        gateway.gw_request_client_attributes("Test Device A2", ["atr1", "atr2"], callback)
        gateway.gw_request_client_attributes("Test Device A2", ["atr1"], (callback, "extra"))
        assert done.wait(30)
        print(sorted(answers, key=str))
        gateway.disconnect()
    """)
    wait_for(program, "ready")
    platform_thread.run(platform_thread.emulator.set_shared_attributes("Test Device A2", {"limit": 5}))
    output, _ = program.communicate("\n", timeout=60)
    assert "[('Test Device A2', 1, 'extra'), ('Test Device A2', 5), ('Test Device A2', {'atr1': 1, 'atr2': True})]" in output, (
        output
    )


@pytest.mark.parametrize(
    ("arguments", "credentials"),
    [
        ("", {"credentialsType": "ACCESS_TOKEN"}),
        ("access_token='chosen'", {"credentialsType": "ACCESS_TOKEN", "credentialsValue": "chosen"}),
        (
            "username='user', password='word', client_id='id'",
            {
                "credentialsType": "MQTT_BASIC",
                "credentialsValue": {"userName": "user", "password": "word", "clientId": "id"},
            },
        ),
        (f"hash={CERTIFICATE!r}", {"credentialsType": "X509_CERTIFICATE", "credentialsValue": CERTIFICATE}),
    ],
)
def test_a_program_is_provisioned_with_credentials_of_each_kind(platform_thread, start, arguments, credentials):
    program = start(f"""
        import json
        found = TBDeviceMqttClient.provision(HOST, "KEY", "SECRET", PORT, device_name="new one", {arguments})
        print(json.dumps(found))
    """)
    found = json.loads(result_of(program).splitlines()[-1])
    assert found["status"] == "SUCCESS"
    assert credentials.items() <= found.items()
