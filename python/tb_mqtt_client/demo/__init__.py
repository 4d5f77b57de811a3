"""Send this machine's own metrics through a GatewayClient: ``python -m tb_mqtt_client.demo``, extra ``demo``."""
