"""Connect a gateway over TLS, with an access token or with a client certificate.

Set TB_HOST and TB_PORT (8883 on most platforms), and one of these:

- TB_TLS=1 and TB_ACCESS_TOKEN to verify the server's certificate with the system's authorities;
- TB_CA_CERT=ca.pem and TB_ACCESS_TOKEN to verify it with the authority in that file;
- TB_CLIENT_CERT=cert.pem and TB_PRIVATE_KEY=key.pem (and TB_CA_CERT) to use a client certificate as the gateway's credentials.

All of these variables may also start with TB_GW_, so that a device and a gateway on one machine have their own settings.
"""

import ssl
import sys

from tb_mqtt_client import ConnectionRefusedByServer, GatewayClient, GatewayConfig, run


async def main() -> None:
    config = GatewayConfig()
    if not config.use_tls():
        sys.exit("Set TB_TLS=1, TB_CA_CERT, or TB_CLIENT_CERT and TB_PRIVATE_KEY")
    try:
        async with GatewayClient(config) as gateway:
            meter, _ = await gateway.connect_device("meter 7", "meter")
            result = await gateway.send_device_timeseries(meter, {"encrypted": True})
            print("Connected over TLS:", result.reason)
    except ssl.SSLCertVerificationError as error:
        sys.exit(f"The server's certificate is not trusted: {error.verify_message}")
    except ConnectionRefusedByServer as error:
        sys.exit(str(error))


if __name__ == "__main__":
    run(main())
