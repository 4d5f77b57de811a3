"""What a gateway adds: its sub-devices and their events."""
