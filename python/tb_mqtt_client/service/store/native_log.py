"""Opens the log of the native core, and translates its errors."""

from __future__ import annotations

import hashlib

from tb_mqtt_client import _native
from tb_mqtt_client._native import StoreLog
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.exceptions import NotAStoreError, StoreFormatError, StoreInUseError, StoreOwnerError
from tb_mqtt_client.service.store.forks import watch_forks
from tb_mqtt_client.service.store.log import SendLog


def open_log(path: str, owner: str, max_segment_bytes: int, *, waits: bool = False) -> SendLog:
    """Open the files of a store. Run this in the thread of the store.

    Args:
        path: The directory.
        owner: Identifies platform and credential, see ``owner_of``.
        max_segment_bytes: Bytes of one file.
        waits: Whether to wait while another process has the store. This cannot be interrupted.

    Raises:
        StoreError: Another client has the store, or it is not a store of this client.
        OSError: The disk failed.
    """
    try:
        log = StoreLog.open(path, owner, max_segment_bytes=max_segment_bytes, waits=waits)
    except _native.StoreInUseError as error:
        raise StoreInUseError(str(error)) from error
    except _native.StoreOwnerError as error:
        raise StoreOwnerError(str(error)) from error
    except _native.StoreFormatError as error:
        raise StoreFormatError(str(error)) from error
    except _native.NotAStoreError as error:
        raise NotAStoreError(str(error)) from error
    watch_forks(log)
    return log


def owner_of(config: DeviceConfig) -> str:
    """Return the text that identifies the platform and the credential of a client: its servers, and a hash.

    A password or a certificate may be renewed. They belong to the same device as long as the user name, the client id and the path
    of the certificate are the same.
    """
    credential = [config.access_token or "", config.username or "", config.client_id or "", config.client_cert or ""]
    digest = hashlib.sha256("\0".join(credential).encode()).hexdigest()
    return f"{','.join(sorted(str(server) for server in config.servers()))} {digest}"
