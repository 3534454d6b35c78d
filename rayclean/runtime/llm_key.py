"""An API key for the HTTP endpoints of Ray Serve, which has no authentication of its own.

Where a language model is served to several users (`cluster/kuberay/rayservice.yaml`), the environment of all
nodes contains

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=rayclean.runtime.llm_key:middlewares
    RAYCLEAN_API_KEY=<the key>

and clients send `Authorization: Bearer <the key>`, like OpenAI's clients. Ray's health check needs no key.
"""

import hmac
import os

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

KEY = "RAYCLEAN_API_KEY"
OPEN = ("/-/healthz",)
SHORTEST = 16
"""Least number of characters of a key."""


class ApiKey:
    """ASGI middleware that answers 401 to requests without the key."""

    def __init__(self, app: ASGIApp, key: str):
        self.app, self.expected = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] not in ("http", "websocket") or scope.get("path") in OPEN:
            await self.app(scope, receive, send)
            return
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if scope["type"] == "http" and hmac.compare_digest(sent, self.expected):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":  # no websocket is served
            await send({"type": "websocket.close", "code": 1008})
            return
        error = {
            "message": "missing or wrong API key",
            "type": "invalid_request_error",
            "code": "invalid_api_key",
        }
        await JSONResponse({"error": error}, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)


def middlewares() -> list[Middleware]:
    """The middlewares that Ray Serve's HTTP proxy applies to every request.

    Raises:
        RuntimeError: the key is missing or too short; the proxy does not start then.
    """
    key = os.environ.get(KEY, "")
    if len(key) < SHORTEST:
        raise RuntimeError(
            f"{KEY} must hold at least {SHORTEST} characters, got {len(key)}: make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'` and set it where `ray start` runs"
        )
    return [Middleware(ApiKey, key=key)]
