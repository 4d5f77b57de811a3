"""MQTT below gmqtt's interface: bytes, packets, acknowledgements and keep-alive of one connection."""
