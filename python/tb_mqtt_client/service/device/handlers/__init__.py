"""What is done with each kind of message that a device gets."""
