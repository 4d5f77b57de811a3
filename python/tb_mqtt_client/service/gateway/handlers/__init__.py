"""What is done with each kind of message that a gateway gets for its sub-devices."""
