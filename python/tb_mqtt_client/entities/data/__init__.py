"""Values that a device sends and receives."""
