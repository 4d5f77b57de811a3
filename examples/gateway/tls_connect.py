"""Connect a gateway over TLS, with an access token or with a certificate of the gateway's own.

TB_HOST, and TB_PORT (8883 on most platforms), say where. Then one of:

- TB_TLS=1 and TB_ACCESS_TOKEN: the server's certificate is judged by the system's authorities;
- TB_CA_CERT=ca.pem and TB_ACCESS_TOKEN: by the authority in that file;
- TB_CLIENT_CERT=cert.pem and TB_PRIVATE_KEY=key.pem (and TB_CA_CERT): the certificate is the gateway's credentials.

All of these may begin with TB_GW_ too, for a machine that is a device with a gateway beside it.
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
