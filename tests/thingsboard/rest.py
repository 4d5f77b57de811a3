"""A client of ThingsBoard's REST API with the parts that the tests need, based on the standard library and threads."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import quote, urlencode

# Responses of a starting server or of the proxy in front of it, and 429 for its REST rate limit. The request was not executed.
_TRY_AGAIN = frozenset({429, 503})
# The request may have been executed, so only idempotent ones are retried. 504 also means that a device did not reply to an RPC.
_TRY_AGAIN_IF_HARMLESS = frozenset({502, 504})
_HARMLESS = frozenset({"GET", "DELETE"})


class RestError(Exception):
    """ThingsBoard refused a request or could not be reached."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RestClient:
    """Access to the REST API as one user. Logs in on the first request, and again when the token has expired."""

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        timeout: float = 30,
        patience: float = 30,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Create a client. `timeout` limits one request, `patience` the time to wait for an unavailable server, in seconds."""
        self.url = url.rstrip("/")
        self.user = user
        self._password = password
        self._timeout = timeout
        self._patience = patience
        self._sleep = sleep
        self._token: str | None = None

    async def get(self, path: str, /, **query: Any) -> Any:
        return await asyncio.to_thread(self.request, "GET", path, query=query)

    async def post(self, path: str, body: Any = None, /, **query: Any) -> Any:
        return await asyncio.to_thread(self.request, "POST", path, body, query=query)

    async def delete(self, path: str, /, **query: Any) -> Any:
        return await asyncio.to_thread(self.request, "DELETE", path, query=query)

    async def upload(self, path: str, data: bytes, /, **query: Any) -> Any:
        """Upload one file as a form."""
        return await asyncio.to_thread(self.request, "POST", path, File(data), query=query)

    def request(self, method: str, path: str, body: Any = None, *, query: dict[str, Any] | None = None) -> Any:
        """Send a request and return the response: parsed JSON, or text if it is not JSON. Blocks.

        Raises:
            RestError: The server refuses the request or cannot be reached in time.
        """
        if self._token is None:
            self.login()
        try:
            return self._persistent(method, path, body, query)
        except RestError as error:
            if error.status != 401:
                raise
        self.login()
        return self._persistent(method, path, body, query)

    def anonymous(self, method: str, path: str, body: Any = None, *, query: dict[str, Any] | None = None) -> Any:
        """Send a request without logging in before; otherwise like `request`. Blocks."""
        return self._persistent(method, path, body, query)

    def login(self) -> None:
        """Get a token.

        Raises:
            RestError: The user or the password is wrong, or the server cannot be reached.
        """
        self._token = None
        try:
            self._token = self._persistent("POST", "/api/auth/login", {"username": self.user, "password": self._password})["token"]
        except RestError as error:
            raise RestError(f"Logging in as {self.user!r} at {self.url} failed: {error}", error.status) from error

    def _persistent(self, method: str, path: str, body: Any, query: dict[str, Any] | None = None) -> Any:
        """Send a request, and repeat it while the server is unavailable unless it may have been executed and is not idempotent."""
        deadline = time.monotonic() + self._patience
        delay = 0.1
        while True:
            try:
                return self._once(method, path, body, query)
            except urllib.error.HTTPError as error:
                text = error.read().decode(errors="replace")
                failure = RestError(f"{method} {path} failed with status {error.code}: {text}", error.code)
                may_repeat = error.code in _TRY_AGAIN or (method in _HARMLESS and error.code in _TRY_AGAIN_IF_HARMLESS)
            except (OSError, HTTPException) as error:
                cause = error.reason if isinstance(error, urllib.error.URLError) else error
                failure = RestError(f"{method} {self.url}{path} failed: {cause or type(cause).__name__}")
                may_repeat = method in _HARMLESS or isinstance(cause, ConnectionRefusedError)
            if not may_repeat or time.monotonic() + delay > deadline:
                raise failure
            self._sleep(delay)
            delay = min(2 * delay, 5)

    def _once(self, method: str, path: str, body: Any, query: dict[str, Any] | None) -> Any:
        url = self.url + quote(path) + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json, text/plain, */*"}
        if self._token is not None:
            headers["X-Authorization"] = f"Bearer {self._token}"
        data = None
        if isinstance(body, File):
            headers["Content-Type"], data = body.form()
        elif body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)
        response: HTTPResponse
        with urllib.request.urlopen(request, timeout=self._timeout) as response:
            text = response.read().decode()
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text


class File:
    """A file to upload: the part `file` of a form."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def form(self) -> tuple[str, bytes]:
        """Return the content type and the body."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        return f"multipart/form-data; boundary={boundary}", head.encode() + self._data + f"\r\n--{boundary}--\r\n".encode()
