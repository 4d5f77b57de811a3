"""A connector for the IoT Gateway: sends known telemetry of some devices once, and answers RPC. Runs in the application."""

import os
from pathlib import Path
from threading import Event, Thread

from thingsboard_gateway.connectors.connector import Connector
from thingsboard_gateway.gateway.entities.converted_data import ConvertedData
from thingsboard_gateway.gateway.entities.datapoint_key import DatapointKey
from thingsboard_gateway.gateway.entities.telemetry_entry import TelemetryEntry


class LoadConnector(Connector, Thread):
    """Sends ``rounds`` records of ``keys`` values for each of ``devices`` devices."""

    def __init__(self, gateway, config, connector_type):
        super().__init__(daemon=True, name="load")
        self._gateway = gateway
        self._config = config
        self._type = connector_type
        self._stopped = Event()

    def open(self):
        self.start()

    def run(self):
        config = self._config
        for number in range(1, config["rounds"] + 1):
            if number == 2 and "LOAD_GO" in os.environ:
                # A measurement begins when the application has connected all devices, one after the other.
                while not Path(os.environ["LOAD_GO"]).exists():
                    if self._stopped.wait(0.01):
                        return
                Path(os.environ["LOAD_STARTED"]).touch()
            for device in range(config["devices"]):
                data = ConvertedData(f"load {device}", "load")
                values = {DatapointKey(f"key{key}"): number * 100 + key for key in range(config["keys"])}
                data.add_to_telemetry(TelemetryEntry(values, ts=1_700_000_000_000 + number))
                if number == 1:
                    data.add_to_attributes(DatapointKey("serial"), f"serial {device}")
                self._gateway.send_to_storage(self.get_name(), self.get_id(), data)
            if self._stopped.wait(config["pause"]):
                return

    def close(self):
        self._stopped.set()

    def get_id(self):
        return self._config["id"]

    def get_name(self):
        return self._config["name"]

    def get_type(self):
        return self._type

    def get_config(self):
        return self._config

    def is_connected(self):
        return True

    def is_stopped(self):
        return self._stopped.is_set()

    def _send(self, device, key, value):
        telemetry = ConvertedData(device, "load")
        telemetry.add_to_telemetry(TelemetryEntry({DatapointKey(key): value}, ts=1))
        self._gateway.send_to_storage(self.get_name(), self.get_id(), telemetry)

    def on_attributes_update(self, content):
        self._send(content["device"], "updated", str(content["data"]))

    def server_side_rpc_handler(self, content):
        device, data = content["device"], content["data"]
        if data["method"] == "send":
            self._send(device, "sent", data["params"])
        elif data["method"] == "request":
            self._gateway.request_device_attributes(
                device, ["limit"], None, lambda answer, _error: self._send(device, "requested", str(answer["value"]))
            )
        self._gateway.send_rpc_reply(device, data["id"], {"echo": data["params"]})
