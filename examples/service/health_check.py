"""Exit with 0 if the service on this machine is healthy, for the HEALTHCHECK of a container.

Set HEALTH_PORT as for service.py.
"""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("HEALTH_PORT", "8080")), timeout=3)
try:
    connection.request("GET", "/")
    response = connection.getresponse()
    print(response.status, response.read().decode())
    sys.exit(0 if response.status == 200 else 1)
except OSError as error:
    sys.exit(f"The service does not respond: {error}")
