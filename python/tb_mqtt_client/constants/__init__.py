"""Constants of the protocol: topics, MQTT reason codes, keys of JSON messages, values of options."""
