"""From the name of a server to an open transport: addresses, proxies and TLS."""
