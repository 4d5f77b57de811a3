"""The path from which programs written for SDK 2.0 import the producers of request ids."""

from tb_mqtt_client.entities.data.request_ids import AttributeRequestIdProducer, RPCRequestIdProducer

__all__ = ["AttributeRequestIdProducer", "RPCRequestIdProducer"]
