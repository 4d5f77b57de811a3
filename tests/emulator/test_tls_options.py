"""TLS with encrypted keys, private authorities, contexts of the user, and renewed certificates."""

import asyncio
import datetime
import ipaddress
import logging
import ssl
import threading
import traceback

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from device_peer import FAST, make_client

from engine_parts import engine_of
from tb_mqtt_client import DeviceClient, DeviceConfig
from tb_mqtt_client.emulator import Emulator, X509Credentials

PASSWORD = "correct horse"


def server_context(authority, name="127.0.0.1"):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
async def emulator(authority):
    async with Emulator(ssl_context=server_context(authority)) as emulator:
        emulator.add_device("TOKEN", "device")
        yield emulator


@pytest.fixture
def files(authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


def write_pair(folder, certificate, password=None, form=PrivateFormat.PKCS8):
    """Write the certificate of a client and its key, encrypted if there is a password. Return the options."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    certificate.cert_chain_pems[0].write_to_path(folder / "client.pem")
    (folder / "client.key").write_bytes(key.private_bytes(Encoding.PEM, form, encryption))
    return {"client_cert": folder / "client.pem", "private_key": folder / "client.key"}


@pytest.fixture
def known(authority, emulator):
    """Return a client certificate that the platform knows."""
    certificate = authority.issue_cert("client")
    emulator.add_device(X509Credentials(certificate.cert_chain_pems[0].bytes().decode()), "by certificate")
    return certificate


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL], ids=str)
@pytest.mark.parametrize("by", ["option", "environment"])
async def test_an_encrypted_private_key_is_read_with_its_password(emulator, files, known, monkeypatch, caplog, form, by):
    caplog.set_level(logging.DEBUG)
    options = {"ca_cert": files / "ca.pem", "access_token": None} | write_pair(files, known, PASSWORD, form)
    if by == "option":
        options["private_key_password"] = PASSWORD
    else:
        monkeypatch.setenv("TB_PRIVATE_KEY_PASSWORD", PASSWORD)
    async with make_client(emulator, **options) as client:
        assert (await client.send_timeseries({"a": 1})).is_successful()
        assert emulator.device("by certificate").connected
        assert PASSWORD not in f"{engine_of(client).config!r} {client.health()}"
    assert PASSWORD not in caplog.text


async def test_an_encrypted_key_without_a_password_raises_and_does_not_prompt(emulator, files, known):
    """OpenSSL would ask on the terminal, and block the event loop."""
    options = {"ca_cert": files / "ca.pem"} | write_pair(files, known, PASSWORD)
    client = make_client(emulator, **options)
    with pytest.raises(ValueError, match=r"private_key: .*client\.key is encrypted: set private_key_password"):
        await client.connect()
    await client.stop()


async def test_a_wrong_password_is_reported_and_not_quoted(emulator, files, known):
    options = {"ca_cert": files / "ca.pem", "private_key_password": "hunter2"} | write_pair(files, known, PASSWORD)
    client = make_client(emulator, **options)
    with pytest.raises(ssl.SSLError, match=r"private_key_password is not the password of .*client\.key") as raised:
        await client.connect()
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))
    await client.stop()


def test_the_key_of_another_certificate_is_refused(authority, files):
    options = write_pair(files, authority.issue_cert("client"))
    authority.issue_cert("other").private_key_pem.write_to_path(files / "client.key")
    with pytest.raises(ssl.SSLError, match="is not the key of the certificate in"):
        DeviceConfig(options).make_ssl_context()


@pytest.mark.parametrize("value", [5, b"hunter2", "hunter2" * 200, "hunter2\udc80"])
def test_an_invalid_password_is_refused_and_not_quoted(value):
    with pytest.raises(ValueError, match="private_key_password must be a") as raised:
        DeviceConfig({"private_key_password": value})
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


async def test_a_renewed_authority_is_used_at_the_next_connection(emulator, files):
    async with make_client(emulator, ca_cert=files / "ca.pem") as client:
        port = emulator.port
        await emulator.stop()
        # While it is renewed, a file may be missing or incomplete.
        (files / "ca.pem").unlink()
        await asyncio.sleep(0.02)
        (files / "ca.pem").write_text("half a certif")
        await asyncio.sleep(0.02)
        renewed = trustme.CA()
        async with Emulator(ssl_context=server_context(renewed), port=port) as back:
            back.add_device("TOKEN", "device")
            renewed.cert_pem.write_to_path(files / "ca.pem")
            assert (await client.send_timeseries({"a": 1})).is_successful()


async def test_a_renewed_certificate_of_the_client_is_used_at_the_next_connection(authority, emulator, files, known):
    options = {"ca_cert": files / "ca.pem", "access_token": None} | write_pair(files, known)
    async with make_client(emulator, **options) as client:
        assert emulator.device("by certificate").connected
        renewed = authority.issue_cert("client")
        emulator.add_device(X509Credentials(renewed.cert_chain_pems[0].bytes().decode()), "by renewed certificate")
        write_pair(files, renewed, PASSWORD)
        engine_of(client).config.private_key_password = PASSWORD
        await emulator.disconnect_device("by certificate", 0x8B)
        assert (await client.send_timeseries({"a": 1})).is_successful()
        assert emulator.device("by renewed certificate").connected


def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_a_context_of_the_user_is_used(emulator, authority):
    context = trusting(authority)
    async with make_client(emulator, ssl_context=context) as client:
        assert (await client.send_timeseries({"a": 1})).is_successful()
    assert DeviceConfig({"ssl_context": context}).use_tls()


async def test_a_function_makes_a_context_for_each_connection_without_blocking_the_loop(emulator, authority):
    called_in = []

    def make():
        called_in.append(threading.get_ident())
        if len(called_in) == 2:
            raise OSError("the smart card is away")
        return trusting(authority)

    async with make_client(emulator, ssl_context=make) as client:
        assert len(called_in) == 1
        await emulator.disconnect_device("TOKEN", 0x8B)
        assert (await client.send_timeseries({"a": 1})).is_successful()
    assert len(called_in) == 3
    assert threading.get_ident() not in called_in


async def test_files_are_read_in_another_thread(emulator, files, monkeypatch):
    read_in = []
    real = ssl.create_default_context

    def create(*args, **kwargs):
        read_in.append(threading.get_ident())
        return real(*args, **kwargs)

    monkeypatch.setattr(ssl, "create_default_context", create)
    async with make_client(emulator, ca_cert=files / "ca.pem"):
        pass
    assert read_in
    assert threading.get_ident() not in read_in


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ssl_context": lambda: None}, TypeError, r"the function given as ssl_context must return an ssl\.SSLContext, not None"),
        ({"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, ValueError, r"must be for clients \(ssl\.PROTOCOL_TLS_CLIENT\)"),
    ],
)
async def test_an_unusable_context_raises_at_connect(emulator, options, error, message):
    client = make_client(emulator, **options)
    with pytest.raises(error, match=message):
        await client.connect()
    await client.stop()


def test_an_argument_that_is_not_a_context_is_refused():
    with pytest.raises(ValueError, match=r"ssl_context must be an ssl\.SSLContext or a function"):
        DeviceConfig({"ssl_context": "tls"})
    with pytest.raises(ValueError, match="ssl_context and ca_cert exclude each other"):
        DeviceConfig({"ssl_context": ssl.create_default_context(), "ca_cert": "ca.pem"})


def lax_authority(folder):
    """Write an authority without the key identifiers that Python 3.13 requires. Return the context of its server."""
    now = datetime.datetime.now(datetime.UTC)
    key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("Company CA", "server"))

    def certificate(name, public_key, *extensions):
        builder = x509.CertificateBuilder(
            issuer, name, public_key, x509.random_serial_number(), now, now + datetime.timedelta(days=1)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)

    (folder / "lax.pem").write_bytes(certificate(issuer, key.public_key(), x509.BasicConstraints(ca=True, path_length=None)))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    (folder / "server.pem").write_bytes(certificate(subject, server_key.public_key(), names))
    (folder / "server.key").write_bytes(server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


async def test_an_authority_that_is_not_strict_is_explained_and_can_be_accepted(tmp_path):
    async with Emulator(ssl_context=lax_authority(tmp_path)) as emulator:
        emulator.add_device("TOKEN", "device")
        options = FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN", "ca_cert": tmp_path / "lax.pem"}
        strict = DeviceClient(options | {"tls_strict": True})
        with pytest.raises(ssl.SSLCertVerificationError, match="does not follow RFC 5280") as raised:
            await strict.connect()
        await strict.stop()
        assert "tls_strict=False accepts this one" in str(raised.value)
        async with DeviceClient(options | {"tls_strict": False}) as client:
            assert (await client.send_timeseries({"a": 1})).is_successful()


def test_strictness_is_left_to_python_by_default(files):
    flag = ssl.VerifyFlags.VERIFY_X509_STRICT
    by_python = bool(ssl.create_default_context().verify_flags & flag)
    for strict, expected in ((None, by_python), (True, True), (False, False)):
        context = DeviceConfig({"ca_cert": files / "ca.pem", "tls_strict": strict}).make_ssl_context()
        assert bool(context.verify_flags & flag) is expected
        assert context.verify_mode is ssl.CERT_REQUIRED
