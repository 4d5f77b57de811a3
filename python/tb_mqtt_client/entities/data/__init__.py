"""What a device sends and receives."""
