"""The command line: ``tb-mqtt`` or ``python -m tb_mqtt_client``, extra ``cli``.

The rule: a command's exit code tells the truth, its result goes to stdout, all else to stderr, and no secret to either.
"""
