"""A gateway without an event loop: it sends telemetry of three sub-devices and waits for the results.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway.
"""

from tb_mqtt_client.sync import GatewayClient


def main() -> None:
    with GatewayClient() as gateway:
        sessions = [gateway.connect_device(f"Meter {number}", "meter")[0] for number in range(3)]
        deliveries = [
            gateway.send_device_timeseries(session, {"power": 100 * number}, wait=False) for number, session in enumerate(sessions)
        ]
        for session, delivery in zip(sessions, deliveries, strict=True):
            print(f"{session.device_info.device_name}: {delivery.result().reason}")


if __name__ == "__main__":
    main()
