"""The gateway client and its sub-devices."""
