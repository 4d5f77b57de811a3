"""One session with the server: connecting, subscriptions, limits, the in-flight window, and reconnecting."""
