"""Send this machine's metrics through a ``GatewayClient``: ``python -m tb_mqtt_client.demo`` (extra ``demo``)."""
