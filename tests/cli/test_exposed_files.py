"""A warning names each file with a secret that all users can read, and the command that protects it."""

import os
import tempfile
from pathlib import Path

import pytest
import trustme

from tb_mqtt_client.cli import secrets

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
TOKEN = 'access_token = "DEVICE-TOKEN"\n'


@pytest.fixture
def reachable():
    """Yield a folder that every user can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if not all(parent.stat().st_mode & 0o001 for parent in folder.resolve().parents):
            pytest.skip("the folder for temporary files is private")
        yield folder


def file_with(path, text, mode):
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--config", TOKEN),
        ("--config", 'username = "u"\npassword = "DEVICE-TOKEN"\n'),
        ("--config", 'proxy = "http://user:password@127.0.0.1:1"\n'),
        ("--token-file", "DEVICE-TOKEN\n"),
    ],
)
@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o604, True), (0o600, False), (0o640, False), (0o660, False)])
async def test_warns_about_a_secret_file_that_all_users_can_read(tb_mqtt, emulator, device, reachable, option, text, mode, warned):
    file = file_with(reachable / "secret", text, mode)
    del device["TB_ACCESS_TOKEN"]
    done = await tb_mqtt("send", "a=1", option, str(file), env=device)
    assert done.code == (3 if "password" in text or "proxy" in text else 0)
    warning = f"{file} holds a secret, and all users of this machine can read it: chmod 600 {file}\n"
    assert (warning in done.err) == warned
    assert "DEVICE-TOKEN" not in done.err
    assert warning not in (await tb_mqtt("send", "a=1", "--quiet", option, str(file), env=device)).err


async def test_warns_about_a_file_that_the_config_file_names(tb_mqtt, device, reachable):
    file_with(reachable / "tb.toml", 'token_file = "token"\n', 0o644)
    file_with(reachable / "token", "DEVICE-TOKEN\n", 0o644)
    done = await tb_mqtt("send", "a=1", "--config", "tb.toml", env=device, cwd=reachable)
    assert (done.code, done.err.count("holds a secret")) == (0, 1)
    assert done.err.endswith("chmod 600 token\n")


async def test_warns_about_a_private_key_that_all_users_can_read(tb_mqtt, device, reachable):
    authority = trustme.CA()
    certificate = authority.issue_cert("device.example")
    certificate.cert_chain_pems[0].write_to_path(reachable / "cert.pem")
    certificate.private_key_pem.write_to_path(reachable / "key.pem")
    (reachable / "key.pem").chmod(0o644)
    done = await tb_mqtt("doctor", "--client-cert", "cert.pem", "--private-key", "key.pem", env=device, cwd=reachable)
    assert done.err.endswith("key.pem holds a secret, and all users of this machine can read it: chmod 600 key.pem\n")


async def test_does_not_warn_about_a_file_without_a_secret(tb_mqtt, device, reachable):
    file = file_with(reachable / "tb.toml", "keepalive = 7\n", 0o644)
    done = await tb_mqtt("send", "a=1", "--config", str(file), env=device)
    assert (done.code, done.err) == (0, "")


def test_file_in_a_private_folder_is_not_exposed(reachable):
    (reachable / "inner").mkdir()
    file = file_with(reachable / "inner" / "token", "t", 0o644)
    assert secrets.is_exposed(file)
    (reachable / "inner").chmod(0o700)
    assert not secrets.is_exposed(file)


def test_mounted_secrets_and_pipes_are_not_exposed(reachable, monkeypatch):
    file = file_with(reachable / "token", "t", 0o644)
    monkeypatch.setattr(secrets, "MOUNTED_SECRETS", reachable)
    assert not secrets.is_exposed(file)
    monkeypatch.undo()
    pipe = reachable / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o644)
    assert not secrets.is_exposed(pipe)
