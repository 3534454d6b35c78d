"""Scores of label words: the log-probability that a model puts on each word right after the prompt.

Words of several tokens share a trie: log P(w1 w2 | p) = log P(w1 | p) + log P(w2 | p w1), one prompt per inner node.
The root is asked first, the deeper nodes after it, so that they find the prompt in the server's prefix cache.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from rayclean.annotators.endpoint import EndpointClient, EndpointError, usage
from rayclean.annotators.model_source import model_source
from rayclean.errors import AnnotationError, ConfigError
from rayclean.schema import Label

MAX_IDS = 128
"""vLLM answers at most so many token ids per request."""

Tokens = tuple[int, ...]


class LabelWords:
    """The label words as tokens.

    Args:
        tokenizer: the model's own (Hugging Face).
        labels: all labels.
        anchor: the line that every prompt ends with ("Category:"); a word's tokens are what it adds to it.
    """

    def __init__(self, tokenizer: Any, labels: Sequence[Label], anchor: str):
        self.tokenizer = tokenizer
        bare = self.encode(anchor)
        words: dict[int, Tokens] = {}
        for label in labels:
            whole = self.encode(f"{anchor} {label.word}")
            if whole[: len(bare)] != bare or len(whole) == len(bare):
                raise ConfigError(
                    f"label {label.name!r}: the tokenizer cannot part the word {label.word!r} from the prompt"
                )
            words[label.index] = tuple(whole[len(bare) :])
        ends = {word[:length] for word in words.values() for length in range(1, len(word))}
        newline = tuple(self.encode(f"{anchor} x\n")[len(self.encode(f"{anchor} x")) :])
        # A word that begins another one would always win against it: its end belongs to its score.
        self.tokens = {index: word + newline if word in ends else word for index, word in words.items()}

    def encode(self, text: str) -> list[int]:
        """Token ids, special tokens at the beginning included."""
        return [int(token) for token in self.tokenizer(text)["input_ids"]]

    def trie(self, indices: Iterable[int]) -> dict[Tokens, list[int]]:
        """Inner nodes (the tokens so far) and the ids asked there, the root first."""
        nodes: dict[Tokens, set[int]] = {}
        for index in indices:
            word = self.tokens[index]
            for depth, token in enumerate(word):
                nodes.setdefault(word[:depth], set()).add(token)
        return {node: sorted(nodes[node]) for node in sorted(nodes, key=lambda node: (len(node), node))}

    def score(self, indices: Iterable[int], found: dict[Tokens, dict[int, float]]) -> dict[int, float]:
        """Sum of the log-probabilities along each word."""
        return {
            index: sum(
                found[self.tokens[index][:depth]][token] for depth, token in enumerate(self.tokens[index])
            )
            for index in indices
        }


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a built-in model, a .gguf file, a folder or a hub id; no code of the repository is run.

    Raises:
        AnnotationError: it is not there.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_source(name), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise AnnotationError(
            f"the label words cannot be scored without the model's tokenizer, and {name!r} holds none "
            f"({str(error).splitlines()[0][:200]}); set annotator.tokenizer to its folder or hub id, or annotator.form = 'choice'"
        ) from error


async def ask_tokens(
    endpoint: EndpointClient, model: str, prompts: Sequence[Sequence[int]], ids: Sequence[int]
) -> tuple[list[dict[int, float]], int, list[int]]:
    """Log-probability of the token `ids` after each prompt.

    Returns:
        A dict by token id per prompt; the number of prompt tokens that were paid; the token sampled after each prompt.

    Raises:
        EndpointError: the request failed, or the answer is not what was asked for.
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
    answer = await endpoint.post("completions", body)
    scores: dict[int, dict[int, float]] = {}
    sampled: dict[int, int] = {}
    try:
        for choice in answer["choices"]:
            index = int(choice["index"])
            found = {
                _token_id(token): float(score)
                for token, score in choice["logprobs"]["top_logprobs"][0].items()
            }
            sampled[index] = _token_id(choice["logprobs"]["tokens"][0])
            scores[index] = {token: found[token] for token in ids}
        paid = usage(answer)[0] or sum(map(len, prompts))
        ordered = (
            [scores[index] for index in range(len(prompts))],
            paid,
            [sampled[i] for i in range(len(prompts))],
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise EndpointError(
            "invalid",
            f"no log-probabilities for the token ids that were asked ({type(error).__name__} {error})",
        ).paid(*usage(answer)) from None
    if any(not -1e5 < score <= 1e-3 for row in ordered[0] for score in row.values()):
        raise EndpointError("invalid", "log-probabilities outside (-inf, 0]").paid(*usage(answer))
    for token in ordered[2]:
        if token not in ids:
            raise EndpointError(
                "outside", f"the endpoint sampled token {token}, which is none of the allowed {list(ids)[:8]}"
            ).paid(*usage(answer))
    return ordered


def _token_id(token: str) -> int:
    prefix, _, number = token.partition(":")
    if prefix != "token_id":
        raise ValueError(f"expected token_id:N, got {token[:40]!r}")
    return int(number)
