"""HTTP client of an OpenAI-compatible endpoint: retries until a deadline, errors by kind, and a secret key.

The `openai` package is not used, for four reasons: when a deadline ends its retries, it does not report the
last failure; a truncated body raises a bare JSONDecodeError; it sends the organization, project and custom
headers of the environment (OPENAI_*) to every endpoint; and its import takes seconds in every process.
Requests are sent by `aiohttp`: `httpx` needs 4 ms of a core for each with 32 connections, and more the more
there are, which is 250 requests a second at best, whatever the server could do; `aiohttp` needs 0.3 ms.
"""

import asyncio
import itertools
import json
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx

from rayclean.errors import ConfigError

FIRST_WAIT, MAX_BACKOFF, MAX_JITTER = 0.25, 30.0, 0.5
"""Seconds between two attempts: the first wait, which doubles with every attempt; its maximum; and the
maximal random addition, which spreads the retries of queries that failed together."""
MAX_BODY = 16 * 1024 * 1024
"""Most bytes of an answer; a model's is a few hundred."""
SHORTEST_SECRET = 8
"""Least number of characters of a key that is looked for in answers."""
MAX_RETRY_AFTER = 60.0
"""Most seconds to wait for a `Retry-After` of the server."""

Post = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Coroutine that sends a JSON body to a path of the endpoint and returns the JSON object of the answer."""


class EndpointError(Exception):
    """A request that failed.

    Attributes:
        kind: timeout, connection, rate_limit, server, client, invalid or outside.
        transient: whether the same request may succeed later.
        retry_after: seconds that the server asked to wait; None if it did not.
        status: HTTP status; None without an answer.
        prompt_tokens: prompt tokens charged although the answer is unusable.
        answer_tokens: answer tokens charged although the answer is unusable.
    """

    def __init__(self, kind: str, message: str, *, transient: bool = False, retry_after: float | None = None,
                 status: int | None = None):  # fmt: skip
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.transient = transient
        self.retry_after = retry_after
        self.status = status
        self.prompt_tokens = 0
        self.answer_tokens = 0

    def paid(self, prompt_tokens: int, answer_tokens: int) -> "EndpointError":
        """This error, with further charged tokens."""
        self.prompt_tokens += prompt_tokens
        self.answer_tokens += answer_tokens
        return self


def usage(answer: dict[str, Any]) -> tuple[int, int]:
    """Prompt and answer tokens that an endpoint reports for an answer; 0 if it reports none."""
    counted = answer.get("usage")
    if not isinstance(counted, dict):
        return 0, 0
    prompt, completion = (counted.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return prompt if isinstance(prompt, int) else 0, completion if isinstance(completion, int) else 0


class EndpointClient:
    """One endpoint and its connection pool, made on the event loop that will use it.

    Args:
        base_url: the endpoint's address with the version part ("http://127.0.0.1:8000/v1").
        api_key_env: name of the environment variable that holds the key; None: no key is sent.
        timeout: seconds per request.
        connections: most concurrent connections.

    Raises:
        ConfigError: the environment variable is not set.
    """

    def __init__(self, base_url: str, api_key_env: str | None, timeout: float, connections: int):
        self.timeout = timeout
        self._key = api_key(api_key_env)
        self._base = base_url.rstrip("/")
        self._proxy = _proxy(base_url)
        # Certificates as httpx chooses them, which needs none of the operating system.
        tls = httpx.create_ssl_context() if base_url.startswith("https:") else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=tls),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=aiohttp.ClientTimeout(total=timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def within(self, seconds: float) -> Post:
        """A `Post` that retries after transient failures, until `seconds` from now for all its calls
        together.

        Waits between attempts grow exponentially; a longer `Retry-After` of the server takes precedence (up
        to a minute). The `Post` raises `EndpointError` for a failure that is not transient, and the last
        failure at the deadline.
        """
        return partial(self._post, seconds=seconds, until=asyncio.get_running_loop().time() + seconds)

    async def _post(self, path: str, body: dict[str, Any], *, seconds: float, until: float) -> dict[str, Any]:
        failure = EndpointError("timeout", f"no answer within {seconds:g} s", transient=True)
        try:
            async with asyncio.timeout_at(until):
                for backoff in _backoffs():
                    try:
                        return await self.request("POST", path, body)
                    except EndpointError as error:
                        failure = error
                    wait = max(backoff, min(failure.retry_after or 0.0, MAX_RETRY_AFTER))
                    if not failure.transient or asyncio.get_running_loop().time() + wait >= until:
                        break
                    await asyncio.sleep(wait)
        except TimeoutError:
            pass
        raise failure from None

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send one request and return the JSON object of the answer.

        Raises:
            EndpointError: the request failed.
        """
        try:
            async with self._session.request(
                method, f"{self._base}/{path}", json=body, proxy=self._proxy, allow_redirects=False
            ) as response:
                content = await _bounded(response)
        except TimeoutError as error:
            raise EndpointError("timeout", f"no answer within {self.timeout:g} s", transient=True) from error
        except (aiohttp.InvalidURL, ValueError) as error:
            raise EndpointError("client", f"{type(error).__name__} {error}".strip()) from error
        except aiohttp.ClientError as error:
            message = f"{type(error).__name__} {error}".strip()
            raise EndpointError("connection", message, transient=True) from error
        status, excerpt = response.status, self._excerpt(content)
        if status != 200:
            transient = status in (408, 409, 429) or status >= 500
            raise EndpointError(_kind(status), f"HTTP {status}: {excerpt}", transient=transient,
                                retry_after=_retry_after(response), status=status)  # fmt: skip
        try:
            answer = json.loads(self._without_key(content))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            found = "an HTML page" if b"<html" in content[:500].lower() else "no JSON"
            raise EndpointError("invalid", f"{found}: {excerpt}", status=status) from None
        if not isinstance(answer, dict):
            raise EndpointError("invalid", f"expected a JSON object: {excerpt}", status=status)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    def _without_key(self, content: bytes) -> bytes:
        """A body with the key redacted: what an endpoint says goes into the ledger and the report. A stand-in for a key
        (`x`, `EMPTY`) is no secret, and may be a part of any answer.
        """
        key = self._key or ""
        return content if len(key) < SHORTEST_SECRET else content.replace(key.encode(), b"***")

    def _excerpt(self, content: bytes) -> str:
        """The beginning of a body on one line, with the key redacted."""
        text = " ".join(content[:4000].decode(errors="replace").split())
        return (text.replace(self._key, "***") if self._key else text)[:160]


def _proxy(base_url: str) -> str | None:
    """The proxy of the environment for an address; None for this machine, and for hosts that the environment excepts."""
    address = urlsplit(base_url)
    host = address.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or proxy_bypass(host):
        return None
    proxies = getproxies()
    return proxies.get(address.scheme) or proxies.get("all")


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer, decompressed.

    Raises:
        EndpointError: it is longer than any answer.
    """
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > MAX_BODY:
            raise EndpointError("invalid", f"an answer of more than {MAX_BODY:,} bytes")
    return bytes(content)


def api_key(variable: str | None) -> str | None:
    """The key in an environment variable; None without a variable.

    Raises:
        ConfigError: the variable is not set, or holds characters that no HTTP header can carry.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()  # secrets in files often end in a line break
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"annotator.api_key_env: the key in {_shown(variable)} holds characters that no HTTP header can carry "
            "(line breaks, non-ASCII letters); export it again"
        )
    if not key:
        raise ConfigError(
            f"annotator.api_key_env: the environment variable {_shown(variable)} is not set; export it first "
            "(on a cluster: where `ray start` runs on the head node)"
        )
    return key


def _shown(variable: str) -> str:
    """The name of a variable for a message; not shown unless written like one, since it may be the key itself.

    >>> _shown("OPENAI_API_KEY"), _shown("a8F3kd92LkQz")
    ("'OPENAI_API_KEY'", 'that it names')
    """
    return repr(variable) if variable.isupper() and len(variable) <= 40 else "that it names"


def _kind(status: int) -> str:
    """The kind of error of an HTTP status."""
    named = {408: "timeout", 429: "rate_limit"}
    return named.get(status, "server" if status >= 500 else "client")


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    try:
        return max(float(response.headers["retry-after"]), 0.0)
    except (KeyError, ValueError):  # HTTP dates are rare, and the growing waits are a substitute
        return None


def _backoffs() -> Iterator[float]:
    """Infinite sequence of the seconds to wait after the first, second, ... failed attempt."""
    for attempt in itertools.count():
        yield min(FIRST_WAIT * 2.0 ** min(attempt, 16), MAX_BACKOFF) + random.uniform(0.0, MAX_JITTER)
