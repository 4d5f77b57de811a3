"""Provisioning requests and responses: JSON forms, invalid payloads, and secrets in texts."""

import copy
import json
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tb_mqtt_client import DeviceConfig
from tb_mqtt_client.common.provisioning_response import ProvisioningResponse
from tb_mqtt_client.constants.provisioning import ProvisioningCredentialsType, ProvisioningResponseStatus
from tb_mqtt_client.entities.data.provisioning_request import (
    AccessTokenProvisioningCredentials,
    BasicProvisioningCredentials,
    ProvisioningCredentials,
    ProvisioningRequest,
    X509ProvisioningCredentials,
)
from tb_mqtt_client.service.formats.json_device import JsonDeviceFormat

TOKEN = AccessTokenProvisioningCredentials("key", "secret")
SUCCESS = {"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN", "credentialsValue": "issued"}
CREDENTIALS = ("access_token", "username", "password", "client_id", "ca_cert", "client_cert", "private_key")


@pytest.fixture
def certificate(tmp_path):
    path = tmp_path / "cert.pem"
    path.write_text("\n-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n\n")
    return path


def x509(certificate):
    return X509ProvisioningCredentials("key", "secret", "key.pem", str(certificate), "ca.pem")


def given_credentials(config):
    return {name: value for name in CREDENTIALS if (value := getattr(config, name)) is not None}


# Requests.


def test_a_minimal_request_has_only_the_required_fields():
    payload = ProvisioningRequest("host", TOKEN).to_payload_format()
    assert list(payload.items()) == [
        ("provisionDeviceKey", "key"),
        ("provisionDeviceSecret", "secret"),
        ("credentialsType", "ACCESS_TOKEN"),
    ]


def test_a_request_with_a_token_has_its_fields():
    credentials = AccessTokenProvisioningCredentials("key", "secret", "token")
    payload = ProvisioningRequest("host", credentials, device_name="name", gateway=True).to_payload_format()
    assert list(payload.items())[2:] == [
        ("deviceName", "name"),
        ("gateway", True),
        ("token", "token"),
        ("credentialsType", "ACCESS_TOKEN"),
    ]


def test_a_request_with_basic_credentials_has_their_fields():
    payload = ProvisioningRequest("host", BasicProvisioningCredentials("key", "secret", "id", "user", "word")).to_payload_format()
    assert list(payload.items())[2:] == [
        ("username", "user"),
        ("password", "word"),
        ("clientId", "id"),
        ("credentialsType", "MQTT_BASIC"),
    ]


def test_a_request_with_a_certificate_has_its_text(certificate):
    payload = ProvisioningRequest("host", x509(certificate)).to_payload_format()
    text = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----"
    assert list(payload.items())[2:] == [("hash", text), ("credentialsType", "X509_CERTIFICATE")]


def test_an_empty_device_name_is_sent():
    assert ProvisioningRequest("host", TOKEN, device_name="").to_payload_format()["deviceName"] == ""


@pytest.mark.parametrize(("key", "secret"), [("", "secret"), ("key", "")])
async def test_key_and_secret_are_required(key, secret):
    request = ProvisioningRequest("host", AccessTokenProvisioningCredentials(key, secret))
    with pytest.raises(ValueError, match=r"^ProvisioningRequest must have valid device key and secret\.$"):
        JsonDeviceFormat().build_provision_request(request)


def test_unusable_certificate_files_are_refused(tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_text(" \n")
    assert x509(empty).public_cert is None
    with pytest.raises(ValueError, match=r"public_cert_path: .*empty\.pem must be a certificate, but is empty"):
        ProvisioningRequest("host", x509(empty)).to_payload_format()
    with pytest.raises(FileNotFoundError):
        x509(tmp_path / "missing.pem")


async def test_a_request_is_published_with_qos_1():
    message = JsonDeviceFormat().build_provision_request(ProvisioningRequest("host", TOKEN))
    assert (message.topic, message.qos, message.datapoints) == ("/provision/request", 1, 1)
    assert json.loads(message.payload)["provisionDeviceKey"] == "key"


def test_the_base_class_cannot_be_constructed():
    with pytest.raises(TypeError):
        ProvisioningCredentials("key", "secret")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("host", {"host": ""}),
        ("host", {"host": None}),
        ("host", {"host": 5}),
        ("credentials", {"credentials": None}),
        ("credentials", {"credentials": "secret"}),
        ("port", {"port": 0}),
        ("port", {"port": 65536}),
        ("port", {"port": "1883"}),
        ("port", {"port": True}),
        ("device_name", {"device_name": 5}),
        ("ca_cert", {"ca_cert": 5}),
    ],
)
def test_an_invalid_argument_of_a_request_is_named(name, arguments):
    with pytest.raises(ValueError, match=f"^{name} must be") as raised:
        ProvisioningRequest(**({"host": "host", "credentials": TOKEN} | arguments))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("provision_device_key", lambda: AccessTokenProvisioningCredentials(None, "secret")),
        ("provision_device_secret", lambda: AccessTokenProvisioningCredentials("key", b"secret")),
        ("access_token", lambda: AccessTokenProvisioningCredentials("key", "secret", 5)),
        ("client_id", lambda: BasicProvisioningCredentials("key", "secret", 5)),
        ("username", lambda: BasicProvisioningCredentials("key", "secret", username=[])),
        ("password", lambda: BasicProvisioningCredentials("key", "secret", password=b"secret")),
        ("public_cert_path", lambda: X509ProvisioningCredentials("key", "secret", "a", None, "b")),
        ("ca_cert_path", lambda: X509ProvisioningCredentials("key", "secret", "a", "b", None)),
    ],
)
def test_an_invalid_argument_of_credentials_is_named(name, make):
    with pytest.raises(ValueError, match=f"^{name} must be a") as raised:
        make()
    assert "secret'" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"port": 8883}, True),
        ({"port": 8883, "tls": False}, False),
        ({"ca_cert": "ca.pem"}, True),
        ({"tls": True}, True),
    ],
)
def test_port_authority_and_option_decide_about_tls(options, expected):
    assert ProvisioningRequest("host", TOKEN, **options).use_tls() is expected


# Responses.


def build(payload, credentials=TOKEN, **options):
    return ProvisioningResponse.build(ProvisioningRequest("host", credentials, 1884, **options), payload)


def test_a_response_with_a_token_makes_a_configuration():
    response = build(SUCCESS)
    assert (response.status, response.error) == (ProvisioningResponseStatus.SUCCESS, None)
    assert response.credentials_type is ProvisioningCredentialsType.ACCESS_TOKEN
    assert (response.result.host, response.result.port) == ("host", 1884)
    assert given_credentials(response.result) == {"access_token": "issued"}
    assert not response.result.use_tls()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"clientId": "id", "userName": "user", "password": "word"}, {"client_id": "id", "username": "user", "password": "word"}),
        ({"clientId": "id", "userName": None, "password": None}, {"client_id": "id"}),
        ({"userName": "user"}, {"username": "user"}),
        ({"clientId": "", "userName": "user", "password": ""}, {"username": "user"}),
    ],
)
def test_contract_9_provisioning_the_credentials_type_of_the_reply_counts(value, expected):
    """An existing device keeps its type of credentials, which may differ from the requested type."""
    response = build({"status": "SUCCESS", "credentialsType": "MQTT_BASIC", "credentialsValue": value})
    assert given_credentials(response.result) == expected
    assert response.credentials_type is ProvisioningCredentialsType.MQTT_BASIC


def test_credentials_without_a_type_have_the_requested_type(certificate):
    """SDK 2.0 did the same."""
    untyped = {"status": "SUCCESS", "credentialsValue": "issued"}
    assert given_credentials(build(untyped).result) == {"access_token": "issued"}
    basic = BasicProvisioningCredentials("key", "secret", "id", "user", "word")
    response = build(untyped | {"credentialsValue": {"userName": "user"}}, basic)
    assert given_credentials(response.result) == {"username": "user"}
    assert response.credentials_type is ProvisioningCredentialsType.MQTT_BASIC
    response = build({"status": "SUCCESS"}, x509(certificate))
    assert given_credentials(response.result)["client_cert"] == str(certificate)
    assert response.credentials_type is ProvisioningCredentialsType.X509_CERTIFICATE


def test_a_response_for_a_certificate_makes_a_configuration(certificate):
    payload = {"status": "SUCCESS", "credentialsType": "X509_CERTIFICATE", "credentialsValue": "hash"}
    paths = {"ca_cert": "ca.pem", "client_cert": str(certificate), "private_key": "key.pem"}
    assert given_credentials(build(payload, x509(certificate)).result) == paths
    authority = build(payload, x509(certificate), ca_cert="other.pem").result
    assert given_credentials(authority) == paths | {"ca_cert": "other.pem"}
    # The device has a certificate that is not known to this program.
    response = build(payload)
    assert given_credentials(response.result) == {}
    assert response.credentials_type is ProvisioningCredentialsType.X509_CERTIFICATE


def test_a_token_can_be_the_response_to_a_certificate(certificate):
    assert given_credentials(build(SUCCESS, x509(certificate)).result) == {"access_token": "issued"}
    over_tls = build(SUCCESS, x509(certificate), tls=True).result
    assert given_credentials(over_tls) == {"access_token": "issued", "ca_cert": "ca.pem"}


def test_the_device_uses_tls_like_the_request():
    config = build(SUCCESS, tls=True, verify_hostname=False).result
    assert (config.use_tls(), config.ca_cert, config.verify_hostname) == (True, None, False)
    assert build(SUCCESS, ca_cert="ca.pem").result.ca_cert == "ca.pem"


@pytest.mark.parametrize(
    ("payload", "status", "error"),
    [
        ({"status": "NOT_FOUND", "errorMsg": "Provision data was not found!"}, "NOT_FOUND", "Provision data was not found!"),
        ({"status": "FAILURE", "errorMsg": "Failed to provision device!"}, "ERROR", "Failed to provision device!"),
        ({"status": "FAILURE"}, "ERROR", None),
        ({"status": "SOMETHING", "errorMsg": 5}, "ERROR", "5"),
        ({"status": ["SUCCESS"]}, "ERROR", None),
        ({}, "ERROR", None),
    ],
)
def test_contract_9_provisioning_not_found_and_failure_are_told_apart(payload, status, error):
    response = build(payload)
    assert (response.status, response.result, response.error) == (ProvisioningResponseStatus[status], None, error)


@pytest.mark.parametrize(
    "payload",
    [
        {"status": "SUCCESS"},
        {"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN"},
        {"status": "SUCCESS", "credentialsType": "MQTT_BASIC"},
    ],
)
def test_a_success_without_credentials_is_refused(payload):
    with pytest.raises(KeyError):
        build(payload)


@pytest.mark.parametrize(
    "payload",
    [
        SUCCESS | {"credentialsType": "LWM2M_CREDENTIALS"},
        SUCCESS | {"credentialsType": None},
        SUCCESS | {"credentialsValue": None},
        SUCCESS | {"credentialsValue": ""},
        SUCCESS | {"credentialsType": "MQTT_BASIC"},
        SUCCESS | {"credentialsType": "MQTT_BASIC", "credentialsValue": {}},
        SUCCESS | {"credentialsType": "MQTT_BASIC", "credentialsValue": {"userName": 5}},
    ],
)
def test_a_success_with_invalid_credentials_is_refused(payload):
    with pytest.raises(ValueError, match=r"credentialsValue|CredentialsType|userName"):
        build(payload)


def test_credentials_in_the_environment_are_ignored(monkeypatch):
    for name in ("HOST", *(credential.upper() for credential in CREDENTIALS)):
        monkeypatch.setenv(f"TB_{name}", "environment")
    monkeypatch.setenv("TB_PORT", "99")
    monkeypatch.setenv("TB_TLS", "true")
    monkeypatch.setenv("TB_QOS", "0")
    config = build({"status": "SUCCESS", "credentialsType": "MQTT_BASIC", "credentialsValue": {"userName": "user"}}).result
    assert (config.host, config.port, config.qos, config.use_tls()) == ("host", 1884, 0, False)
    assert given_credentials(config) == {"username": "user"}


# Invalid payloads.


def dictionaries(values):
    keys = st.sampled_from(["status", "credentialsType", "credentialsValue", "errorMsg", "clientId", "userName", "password"])
    words = st.sampled_from(["SUCCESS", "NOT_FOUND", "ACCESS_TOKEN", "MQTT_BASIC", "X509_CERTIFICATE", ""])
    return st.dictionaries(keys, words | values)


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda some: st.lists(some) | dictionaries(some))


@example(b'{"status": "SUCCESS", "credentialsType": "MQTT_BASIC", "credentialsValue": {"clientId": []}}')
@given(st.binary() | dictionaries(json_values).map(lambda value: json.dumps(value).encode()))
@example(b'{"status":"SUCCESS","credentialsType":"MQTT_BASIC","credentialsValue":{"clientId":[]}}')
def test_any_payload_makes_a_response(payload):
    """Any payload makes a response: a success with a configuration, or an error without one."""
    response = JsonDeviceFormat().parse_provisioning_response(ProvisioningRequest("host", TOKEN), payload)
    assert (response.status is ProvisioningResponseStatus.SUCCESS) == isinstance(response.result, DeviceConfig)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"[]", "not a JSON object"),
        (b"", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (json.dumps({"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN"}).encode(), "lacks 'credentialsValue'"),
        (json.dumps(SUCCESS | {"credentialsType": "MQTT_BASIC"}).encode(), "must be an object"),
    ],
)
def test_an_unreadable_response_is_a_failure(payload, error):
    response = JsonDeviceFormat().parse_provisioning_response(ProvisioningRequest("host", TOKEN), payload)
    assert response.status is ProvisioningResponseStatus.ERROR
    assert error in response.error
    assert "issued" not in response.error


# Objects.


def test_direct_construction_is_refused():
    with pytest.raises(TypeError, match=r"^Direct instantiation of ProvisioningResponse is not allowed"):
        ProvisioningResponse(ProvisioningResponseStatus.SUCCESS)


def test_defect_71_responses_and_requests_can_be_copied_and_pickled(certificate):
    failed = build({"status": "FAILURE", "errorMsg": "text"})
    again = [copy.copy(failed), copy.deepcopy(failed), pickle.loads(pickle.dumps(failed))]
    assert again == [failed] * 3
    succeeded = pickle.loads(pickle.dumps(build(SUCCESS)))
    assert (succeeded.status, succeeded.result.access_token) == (ProvisioningResponseStatus.SUCCESS, "issued")
    for credentials in (TOKEN, BasicProvisioningCredentials("key", "secret", "id"), x509(certificate)):
        request = ProvisioningRequest("host", credentials, 8883, "name", True, ca_cert="ca.pem")
        for other in (copy.deepcopy(request), pickle.loads(pickle.dumps(request))):
            assert vars(other) == vars(request)


def test_responses_are_frozen():
    with pytest.raises(AttributeError):
        build(SUCCESS).status = None


def test_texts_show_no_secret(certificate):
    credentials = [
        AccessTokenProvisioningCredentials("KEY", "SECRET", "TOKEN"),
        BasicProvisioningCredentials("KEY", "SECRET", "ID", "USER", "WORD"),
        X509ProvisioningCredentials("KEY", "SECRET", "key.pem", str(certificate), "ca.pem"),
    ]
    shown = "".join(repr(ProvisioningRequest("host", one)) for one in credentials)
    shown += repr(build(SUCCESS | {"credentialsValue": "TOKEN"}))
    assert not any(secret in shown for secret in ("KEY", "SECRET", "TOKEN,", "=TOKEN", "ID,", "WORD", "BEGIN"))
    assert repr(build(SUCCESS)) == (
        "ProvisioningResponse(status=SUCCESS, "
        "result=DeviceConfig(host=host, port=1884, auth=token client_id=None tls=False), error=None)"
    )
