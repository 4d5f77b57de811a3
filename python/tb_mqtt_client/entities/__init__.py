"""Values: datapoints, uplink messages, events."""
