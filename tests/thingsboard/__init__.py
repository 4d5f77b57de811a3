"""Helpers of the tests against a running ThingsBoard: its REST API, test entities and the pytest plugin."""
