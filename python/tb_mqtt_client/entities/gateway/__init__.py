"""Values of gateways: sub-devices, their requests and responses, and events."""
