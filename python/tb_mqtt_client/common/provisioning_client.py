"""Where SDK 2.0 has its ``ProvisioningClient``. The work is done in ``service/provisioning.py``, which has connections."""

from tb_mqtt_client.service.provisioning import ProvisioningClient

__all__ = ["ProvisioningClient"]
