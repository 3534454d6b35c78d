"""HTTP to an OpenAI-compatible endpoint: retries, deadline, errors by kind. The API key never leaves this file."""

import asyncio
import json
import os
from typing import Any

import httpx
import tenacity

from rayclean.errors import ConfigError

LONGEST_WAIT = 60.0
"""Seconds; a longer `Retry-After` is cut to this."""


class EndpointError(Exception):
    """A request that failed for good.

    Attributes:
        kind: timeout, connection, rate_limit, server, client, invalid or outside.
        transient: whether the same request may succeed later.
        retry_after: seconds that the server asked to wait, if it did.
        status: HTTP status, None without an answer.
        prompt_tokens: paid for an answer that is of no use.
        answer_tokens: the same.
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
        """Itself, with so many tokens more on the bill."""
        self.prompt_tokens += prompt_tokens
        self.answer_tokens += answer_tokens
        return self


def usage(answer: dict[str, Any]) -> tuple[int, int]:
    """Prompt and answer tokens that an answer says it cost; 0 where it does not say."""
    said = answer.get("usage")
    said = said if isinstance(said, dict) else {}
    counts = (said.get("prompt_tokens"), said.get("completion_tokens"))
    prompt, written = (count if isinstance(count, int) else 0 for count in counts)
    return prompt, written


class EndpointClient:
    """One endpoint, one connection pool.

    Args:
        base_url: with the version part ("http://127.0.0.1:8000/v1").
        api_key_env: name of the environment variable that holds the key; None: no key is sent.
        timeout: seconds per request.
        deadline: seconds per `post`, all retries together.
        connections: open at once.

    Raises:
        ConfigError: the environment variable is not set.
    """

    def __init__(
        self, base_url: str, api_key_env: str | None, timeout: float, deadline: float, connections: int
    ):
        self.deadline = deadline
        self.timeout = timeout
        self._key = api_key(api_key_env)
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=timeout,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON object that the endpoint answers; transient failures are repeated until the deadline.

        Waits grow exponentially with jitter; a longer `Retry-After` of the server is honoured (up to a minute).

        Raises:
            EndpointError: failed for good, or the deadline is over.
        """
        last: EndpointError | None = None
        try:
            async with asyncio.timeout(self.deadline):
                async for attempt in tenacity.AsyncRetrying(
                    retry=tenacity.retry_if_exception(lambda e: isinstance(e, EndpointError) and e.transient),
                    stop=tenacity.stop_before_delay(self.deadline),
                    wait=_wait,
                    reraise=True,
                ):
                    with attempt:
                        try:
                            return await self.request("POST", path, body)
                        except EndpointError as error:
                            last = error
                            raise
        except TimeoutError:
            raise last or EndpointError(
                "timeout", f"no answer within {self.deadline:g} s", transient=True
            ) from None
        raise AssertionError("unreachable: the retry loop returns or raises")

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One attempt.

        Raises:
            EndpointError: it failed.
        """
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.TimeoutException as error:
            raise EndpointError("timeout", f"no answer within {self.timeout:g} s", transient=True) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise EndpointError(
                "connection", f"{type(error).__name__} {error}".strip(), transient=True
            ) from error
        except httpx.HTTPError as error:
            raise EndpointError("client", f"{type(error).__name__} {error}".strip()) from error
        status = response.status_code
        if status != 200:
            raise EndpointError(
                _kind(status),
                f"HTTP {status}: {self._excerpt(response)}",
                transient=status in (408, 409, 429) or status >= 500,
                retry_after=_retry_after(response),
                status=status,
            )
        try:
            answer = response.json()
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            what = "an HTML page" if "<html" in response.text[:500].lower() else "no JSON"
            raise EndpointError("invalid", f"{what}: {self._excerpt(response)}", status=status) from None
        if not isinstance(answer, dict):
            raise EndpointError(
                "invalid", f"expected a JSON object: {self._excerpt(response)}", status=status
            )
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _excerpt(self, response: httpx.Response) -> str:
        text = " ".join(response.text[:1000].split())
        return (text.replace(self._key, "***") if self._key else text)[:160]


def api_key(variable: str | None) -> str | None:
    """The key in an environment variable.

    Raises:
        ConfigError: the variable is not set, or holds what no HTTP header can carry.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()  # files with secrets like to end in a line break
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"annotator.api_key_env: the key in {variable!r} holds characters that no HTTP header can carry "
            "(line breaks, non-ASCII letters); export it again"
        )
    if not key:
        raise ConfigError(
            f"annotator.api_key_env: the environment variable {variable!r} is not set; export it first (on a cluster: where `ray start` runs on the head node)"
        )
    return key


def _kind(status: int) -> str:
    if status == 408:
        return "timeout"
    if status == 429:
        return "rate_limit"
    return "server" if status >= 500 else "client"


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(float(response.headers["retry-after"]), 0.0)
    except (KeyError, ValueError):  # an HTTP date: rare, and the growing waits do as well
        return None


_growing = tenacity.wait_exponential_jitter(initial=0.25, max=30, jitter=0.5)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, EndpointError) and error.retry_after else 0.0
    return max(float(_growing(state)), min(asked, LONGEST_WAIT))
