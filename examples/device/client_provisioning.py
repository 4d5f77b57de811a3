"""Let the platform create a device, then connect with the credentials that it returns.

Set TB_HOST to the platform, TB_PORT if its port is not 1883, and PROVISION_KEY and PROVISION_SECRET to the key and secret of
the device profile.
"""

import os
import sys

from tb_mqtt_client import DeviceClient, DeviceConfig, run
from tb_mqtt_client.constants.provisioning import ProvisioningResponseStatus
from tb_mqtt_client.entities.data.provisioning_request import AccessTokenProvisioningCredentials, ProvisioningRequest


async def main() -> None:
    address = DeviceConfig()
    credentials = AccessTokenProvisioningCredentials(os.environ["PROVISION_KEY"], os.environ["PROVISION_SECRET"])
    request = ProvisioningRequest(address.host or "localhost", credentials, address.port, device_name="thermometer 42")

    response = await DeviceClient.provision(request, timeout=10)
    if response is None:
        sys.exit("The platform does not respond")
    if response.status is not ProvisioningResponseStatus.SUCCESS:
        sys.exit(f"{response.status}: {response.error}")

    # A real device stores these credentials, because it is provisioned only once.
    async with DeviceClient(response.result) as client:
        result = await client.send_timeseries({"temperature": 21.5})
        print("The new device has sent its first telemetry:", result.reason)


if __name__ == "__main__":
    run(main())
