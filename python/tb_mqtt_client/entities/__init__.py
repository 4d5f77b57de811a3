"""Value types: datapoints, messages, requests, responses and events."""
