"""The classes of SDK 1.x, on top of the blocking clients.

The modules of SDK 1.x (``tb_device_mqtt``, ``tb_gateway_mqtt``, ``tb_device_http``, ``sdk_utils``) are next to this package, and
have little more than the names. docs/differences-1x.md lists where the behaviour differs on purpose.
"""
