"""What the tests against a running ThingsBoard share: its REST API, the entities that they make there, and the pytest plugin."""
