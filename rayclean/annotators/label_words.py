"""The prompt form `label_words`: log-probabilities of the labels' words as continuations of the prompt.

The answer is a candidate by construction; one forward pass serves all labels whose words are one token.
Words of several tokens share a trie: log P(w1 w2 | p) = log P(w1 | p) + log P(w2 | p w1), one prompt per
inner node. All are one request, the root first, whose prompt the deeper ones find in the prefix cache.

A node where only one word goes on is asked, too: without it a word would score what all words do that begin
alike ("ent" of "entailment" and of "entertainment"), depending on the other words of the question.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rayclean.annotators.base import MAX_MEASURED, PROMPT_CHARACTERS, best_position
from rayclean.annotators.endpoint import EndpointError, Post
from rayclean.annotators.model_source import model_source
from rayclean.annotators.prompts import Prompt, prompt_hash, with_fewer_demonstrations
from rayclean.annotators.query import Annotation, Expected, Query
from rayclean.annotators.token_scores import score_tokens
from rayclean.errors import AnnotationError, ConfigError
from rayclean.schema import Label

if TYPE_CHECKING:
    from rayclean.annotators.openai import OpenAIAnnotator

MAX_IDS = 128
"""Most token ids of which vLLM returns log-probabilities; all prompts of a request have the same."""
LEAST_CHARS = 32
"""Least length to which a text is cut to make a prompt fit."""

TokenIds = tuple[int, ...]


class LabelWordsForm:
    """Prompt form that scores the label words as completions."""

    REQUESTS = 1
    """Concurrent requests of a query."""
    DEMONSTRATIONS = 4
    """Number by default: one to five tell a small model what the words stand for."""
    REQUIREMENT = (
        "It must return log-probabilities of given token ids (vLLM >= 0.29 does); "
        "otherwise set annotator.form = 'choice'"
    )
    """End of the error message about an endpoint that the probe refuses."""

    def __init__(self, config: "OpenAIAnnotator.Config", prompt: Prompt, labels: Sequence[Label]):
        self.config = config
        self.prompt = prompt
        self.labels = tuple(labels)
        self._words: LabelWords | None = None

    def calibration(self, num_classes: int) -> str:
        """By control questions, or with many classes by a content-free text."""
        return "controls" if num_classes <= MAX_MEASURED else "content_free"

    def identity(self) -> dict[str, Any]:
        """The option on which answers depend, except the prompt: the length to which prompts are cut."""
        return {"max_prompt_tokens": self.config.max_prompt_tokens}

    def sent(self, query: Query) -> list[Any]:
        """The uncut prompt, and the candidates' words, each with whether its end is scored."""
        words = [candidate.word for candidate in query.candidates]
        ends = [any(other != word and other.startswith(word) for other in words) for word in words]
        return [self.prompt.render(query), list(zip(words, ends, strict=True))]

    def prompts(self, query: Query) -> tuple[str, ...]:
        """The one prompt, whatever its number of tokens."""
        return (self.prompt.render(query),)

    def load(self) -> None:
        """Load the tokenizer, which takes seconds.

        Raises:
            AnnotationError: the tokenizer does not exist.
            ConfigError: it cannot separate the words from the prompt.
        """
        anchor = self.prompt.render(Query(0, "x", ())).rsplit("\n", 1)[-1]
        self._words = LabelWords(
            load_tokenizer(self.config.tokenizer or self.config.model), self.labels, anchor
        )

    async def probe(self, post: Post, model: str) -> None:
        """Score the label words after a prompt that none of them continues naturally.

        Raises:
            EndpointError: the endpoint returns no log-probabilities, or samples a disallowed token.
        """
        assert self._words is not None  # set by load()
        ids = trie(self._words.tokens(label.word for label in self.labels))[()][:MAX_IDS]
        prompt = self._words.encode("The capital of France is the city of")
        await score_tokens(post, model, [prompt], ids)

    def expected(self, query: Query) -> Expected:
        """Estimate the requests and tokens of one query.

        The further prompts of words of several tokens are not counted, since their number depends on the
        tokenizer.
        """
        tokens = len(self.prompt.render(query)) // PROMPT_CHARACTERS
        return Expected(1, min(tokens, self.config.max_prompt_tokens), 1)

    async def answer(self, post: Post, query: Query, unanswered: Annotation) -> Annotation:
        """`unanswered` completed by the scores of the candidates and of the query's further labels.

        Raises:
            EndpointError: a request failed, or its answer is unusable.
        """
        assert self._words is not None  # set by load()
        prompt, tokens = self._fit(self._words, query)
        offered, further = ([each.word for each in some] for some in (query.candidates, query.scored))
        words = self._words.tokens(offered, further)
        found: dict[TokenIds, dict[int, float]] = {}
        prompt_tokens = answer_tokens = 0
        try:
            for group in _groups(trie(words)):
                ids = sorted({token for _, children in group for token in children})
                prompts = [[*tokens, *node] for node, _ in group]
                rows, paid = await score_tokens(post, unanswered.model, prompts, ids)
                prompt_tokens, answer_tokens = prompt_tokens + paid, answer_tokens + len(prompts)
                for (node, children), row in zip(group, rows, strict=True):
                    found.setdefault(node, {}).update({token: row[token] for token in children})
        except EndpointError as error:
            raise error.paid(prompt_tokens, answer_tokens) from None
        scores = {
            word: sum(found[tokens[:depth]][token] for depth, token in enumerate(tokens))
            for word, tokens in words.items()
        }
        by_position = tuple(scores.pop(candidate.word) for candidate in query.candidates)
        return replace(
            unanswered,
            choice=best_position(by_position),
            scores=by_position,
            further=scores,
            raw=json.dumps({" ".join(map(str, node)): row for node, row in found.items()}),
            prompt_hash=prompt_hash(prompt),
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
        )

    def _fit(self, words: "LabelWords", query: Query) -> tuple[str, list[int]]:
        """The prompt and its tokens, cut to at most `max_prompt_tokens` if possible."""
        chars = min(len(query.text), self.config.max_text_chars)
        while True:
            prompt = self.prompt.render(query, max_text_chars=chars)
            tokens = words.encode(prompt)
            excess = len(tokens) / self.config.max_prompt_tokens
            if excess <= 1 or (not query.demonstrations and chars <= LEAST_CHARS):
                return prompt, tokens
            if query.demonstrations:
                query = with_fewer_demonstrations(query)
            else:
                chars = max(int(chars / excess * 0.95), LEAST_CHARS)


class LabelWords:
    """The tokens of the label words.

    Args:
        tokenizer: Hugging Face tokenizer of the model.
        labels: all labels.
        anchor: last line of every prompt ("Category:"); a word's tokens are those that it adds to this line.

    Raises:
        ConfigError: the tokens of a word merge with those of the anchor.
    """

    def __init__(self, tokenizer: Any, labels: Sequence[Label], anchor: str):
        self.tokenizer = tokenizer
        bare = self.encode(anchor)
        words: dict[str, TokenIds] = {}
        for label in labels:
            whole = self.encode(f"{anchor} {label.word}")
            if whole[: len(bare)] != bare or len(whole) == len(bare):
                raise ConfigError(
                    f"label {label.name!r}: the tokenizer cannot separate the word {label.word!r} "
                    "from the prompt"
                )
            words[label.word] = tuple(whole[len(bare) :])
        self._words = words
        self._end = tuple(self.encode(f"{anchor} x\n")[len(self.encode(f"{anchor} x")) :])

    def tokens(self, candidates: Iterable[str], further: Iterable[str] = ()) -> dict[str, TokenIds]:
        """The tokens of the words of one question.

        A word with which another one begins would always score higher, so its end, a line break, is scored too. Whether a
        candidate is such a word is decided among the candidates, so that an answer does not depend on labels that are not
        offered.
        """
        offered = {word: self._words[word] for word in candidates}
        words = offered | {word: self._words[word] for word in further}
        among, of_all = _beginnings(offered), _beginnings(words)
        return {
            word: tokens + self._end if tokens in (among if word in offered else of_all) else tokens
            for word, tokens in words.items()
        }

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, including special tokens at the beginning."""
        return [int(token) for token in self.tokenizer(text)["input_ids"]]


def _beginnings(words: Mapping[str, TokenIds]) -> set[TokenIds]:
    return {tokens[:length] for tokens in words.values() for length in range(1, len(tokens))}


def trie(words: Mapping[str, TokenIds]) -> dict[TokenIds, list[int]]:
    """The trie of some words: next token ids by the tokens so far, starting with the root (no tokens)."""
    nodes: dict[TokenIds, set[int]] = {}
    for tokens in words.values():
        for depth, token in enumerate(tokens):
            nodes.setdefault(tokens[:depth], set()).add(token)
    return {node: sorted(nodes[node]) for node in sorted(nodes, key=lambda node: (len(node), node))}


def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a built-in model, a .gguf file, a folder or a hub id, without running code from
    it.

    Raises:
        AnnotationError: there is no tokenizer of this name.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_source(name), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise AnnotationError(
            f"the label words cannot be scored without the model's tokenizer, and {name!r} holds none "
            f"({str(error).splitlines()[0][:200]}); set annotator.tokenizer to its folder or hub id, "
            "or annotator.form = 'choice'"
        ) from error


def _groups(nodes: Mapping[TokenIds, list[int]]) -> list[list[tuple[TokenIds, list[int]]]]:
    """Group the nodes of a trie, with their children, into requests of at most `MAX_IDS` token ids, in order of depth."""
    groups: list[list[tuple[TokenIds, list[int]]]] = [[]]
    ids: set[int] = set()
    for node, children in nodes.items():
        for start in range(0, len(children), MAX_IDS):
            piece = children[start : start + MAX_IDS]
            if len(ids | set(piece)) > MAX_IDS:
                groups.append([])
                ids = set()
            groups[-1].append((node, piece))
            ids |= set(piece)
    return groups
