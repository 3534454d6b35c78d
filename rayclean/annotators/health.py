"""The health check of an endpoint: whether it is up and serves the model."""

import asyncio
import time
from typing import Any

from rayclean.annotators.endpoint import EndpointClient, EndpointError
from rayclean.errors import AnnotationError
from rayclean.plugins import did_you_mean


async def wait_until_healthy(endpoint: EndpointClient, base_url: str, model: str, timeout: float) -> None:
    """Wait until the endpoint lists its models, and check that `model` is among them.

    An endpoint without a list of models passes, since the probe of the prompt form checks it.

    Raises:
        AnnotationError: the endpoint stays down, refuses the key, has no OpenAI-compatible API, or serves
            other models.
    """
    start = time.monotonic()
    while True:
        try:
            served = _names(await endpoint.request("GET", "models"))
            break
        except EndpointError as error:
            if error.status in (401, 403):
                raise AnnotationError(
                    f"{base_url} refuses the API key ({error}); see annotator.api_key_env"
                ) from error
            if error.status in (404, 405):
                return
            if error.kind in ("invalid", "client"):
                raise AnnotationError(
                    f"{base_url} is no OpenAI-compatible API ({error}); does annotator.base_url end in /v1?"
                ) from error
            if time.monotonic() - start >= timeout:
                raise AnnotationError(
                    f"{base_url} is not up after {timeout:g} s ({error}); start it, correct "
                    "annotator.base_url, or raise annotator.health_timeout"
                ) from error
            await asyncio.sleep(min(2.0, max(timeout / 10, 0.05)))
    if model not in served:
        raise AnnotationError(f"{base_url} does not serve {model!r}: {did_you_mean(model, served)}")


def _names(answer: dict[str, Any]) -> list[str]:
    """Names of the models in an answer to GET /models."""
    try:
        return [str(row["id"]) for row in answer["data"]]
    except (KeyError, TypeError):
        raise EndpointError("invalid", "no list of models") from None
