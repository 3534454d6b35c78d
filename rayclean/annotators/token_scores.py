"""Log-probabilities of given tokens after a prompt, as vLLM's completion API returns them."""

from collections.abc import Sequence
from typing import Any

from rayclean.annotators.endpoint import EndpointError, Post, usage


async def score_tokens(
    post: Post, model: str, prompts: Sequence[Sequence[int]], ids: Sequence[int]
) -> tuple[list[dict[int, float]], int]:
    """Log-probability of each token of `ids` after each prompt, in one request.

    Returns:
        A dict by token id per prompt, and the number of charged prompt tokens.

    Raises:
        EndpointError: the request failed, or the answer lacks the log-probabilities.
    """
    body = {
        "model": model,
        "prompt": [list(prompt) for prompt in prompts],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": len(ids),
        "logprob_token_ids": list(ids),
        "allowed_token_ids": list(ids),
        "return_tokens_as_token_ids": True,
    }
    response = await post("completions", body)
    try:
        rows = _read_scores(response, len(prompts), ids)
    except EndpointError as error:
        raise error.paid(*usage(response)) from None
    return rows, usage(response)[0] or sum(map(len, prompts))


def _read_scores(response: dict[str, Any], count: int, ids: Sequence[int]) -> list[dict[int, float]]:
    """Read and check the log-probabilities by token id of each of `count` prompts."""
    scores: dict[int, dict[int, float]] = {}
    sampled: dict[int, int] = {}
    try:
        for choice in response["choices"]:
            index, logprobs = int(choice["index"]), choice["logprobs"]
            found = {_token_id(token): float(x) for token, x in logprobs["top_logprobs"][0].items()}
            sampled[index] = _token_id(logprobs["tokens"][0])
            scores[index] = {token: found[token] for token in ids}
        rows = [scores[index] for index in range(count)]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__} {error}"
        message = f"no log-probabilities for the token ids that were asked ({reason})"
        raise EndpointError("invalid", message) from None
    if any(not -1e5 < score <= 1e-3 for row in rows for score in row.values()):
        raise EndpointError("invalid", "log-probabilities outside (-inf, 0]")
    for token in sampled.values():
        if token not in ids:
            message = f"the endpoint sampled token {token}, which is none of the allowed {list(ids)[:8]}"
            raise EndpointError("outside", message)
    return rows


def _token_id(token: str) -> int:
    prefix, _, number = token.partition(":")
    if prefix != "token_id":
        raise ValueError(f"expected token_id:N, got {token[:40]!r}")
    return int(number)
