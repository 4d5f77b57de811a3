"""The command line: ``tb-mqtt`` or ``python -m tb_mqtt_client`` (extra ``cli``).

The exit code of a command says whether it succeeded. Its result goes to stdout and everything else to stderr. Secrets are
never printed.
"""
