"""Verifies the checksum of firmware that is in memory."""

from __future__ import annotations

import logging

from tb_mqtt_client.service.ota.files import is_checksum, known_algorithm, new_checksum


def verify_checksum(firmware_data: bytes | None, checksum_alg: str | None, checksum: str | None, log: logging.Logger) -> bool:
    """Return whether the data has a checksum; log why if it does not, or if this cannot be verified.

    Args:
        firmware_data: The image.
        checksum_alg: The platform's name of the algorithm, in upper or lower case.
        checksum: Hexadecimal digits, in upper or lower case.
        log: Where to log.
    """
    if firmware_data is None:
        log.error("No firmware was given to verify")
        return False
    if checksum is None or checksum_alg is None:
        log.error("The firmware has no %s to verify it with", "checksum" if checksum is None else "checksum algorithm")
        return False
    if not known_algorithm(checksum_alg):
        log.error("Unknown checksum algorithm: %s", checksum_alg)
        return False
    computed = new_checksum(checksum_alg)
    computed.update(firmware_data)
    if not is_checksum(computed, checksum):
        log.error("The %s checksum of the firmware is %s, not %s", checksum_alg, computed.hexdigest(), checksum)
        return False
    return True
