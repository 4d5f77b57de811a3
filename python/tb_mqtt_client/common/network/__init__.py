"""Opening a transport to a server: name resolution, TCP, proxies and TLS."""
