"""The server's limits, and when to hold back."""
