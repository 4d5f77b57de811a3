"""The module ``sdk_utils`` of SDK 1.x; see docs/from_sdk_1x.md."""

import logging
from typing import TYPE_CHECKING

from tb_mqtt_client.one_x import checksums
from tb_mqtt_client.one_x.reexports import reexports

log: logging.Logger = logging.getLogger(__name__)

if not TYPE_CHECKING:
    __getattr__ = reexports(
        __name__,
        {
            "CalledProcessError": "subprocess:CalledProcessError",
            "crc32": "zlib:crc32",
            "hash": "mmh3:hash",
            "hash128": "mmh3:hash128",
            "install_package": "tb_mqtt_client.one_x.install:install_package",
            "md5": "hashlib:md5",
            "sha256": "hashlib:sha256",
            "sha384": "hashlib:sha384",
            "sha512": "hashlib:sha512",
        },
    )


def verify_checksum(firmware_data: bytes | None, checksum_alg: str | None, checksum: str | None) -> bool:
    """Return whether firmware has a checksum.

    Args:
        firmware_data: The image.
        checksum_alg: The platform's name of the algorithm: MD5, SHA256, SHA384, SHA512, CRC32, MURMUR3_32 or MURMUR3_128.
        checksum: Hexadecimal digits, in upper or lower case.

    Returns:
        False also if an argument is ``None`` or the algorithm is unknown; the reason is logged.

    Raises:
        ModuleNotFoundError: The algorithm needs the extra ``firmware``.
    """
    return checksums.verify_checksum(firmware_data, checksum_alg, checksum, log)
