"""Connect over TLS, with an access token or with a client certificate.

Set TB_HOST and TB_PORT (8883 on most platforms), and one of these:

- TB_TLS=1 and TB_ACCESS_TOKEN to verify the server's certificate with the system's authorities;
- TB_CA_CERT=ca.pem and TB_ACCESS_TOKEN to verify it with the authority in that file;
- TB_CLIENT_CERT=cert.pem and TB_PRIVATE_KEY=key.pem (and TB_CA_CERT) to use a client certificate as the device's credentials.
"""

import ssl
import sys

from tb_mqtt_client import ConnectionRefusedByServer, DeviceClient, DeviceConfig, run


async def main() -> None:
    config = DeviceConfig()
    if not config.use_tls():
        sys.exit("Set TB_TLS=1, TB_CA_CERT, or TB_CLIENT_CERT and TB_PRIVATE_KEY")
    try:
        async with DeviceClient(config) as client:
            result = await client.send_timeseries({"encrypted": True})
            print("Connected over TLS:", result.reason)
    except ssl.SSLCertVerificationError as error:
        sys.exit(f"The server's certificate is not trusted: {error.verify_message}")
    except ConnectionRefusedByServer as error:
        sys.exit(str(error))


if __name__ == "__main__":
    run(main())
