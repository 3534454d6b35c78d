"""Any OpenAI-compatible endpoint as annotator, in two prompt forms.

`label_words`: completion form; the score of a label is the log-probability of its word right after the text. The
    answer is a candidate by construction, and one forward pass serves all labels. What makes small models useful.
    Needs an endpoint that returns log-probabilities of given token ids (vLLM >= 0.29).
`choice`: chat form for large models; the two definitions, the previous annotation and the model's prediction stand in
    the prompt, the answer is constrained to a letter (a name for more than two). Both orders are asked and the
    probabilities averaged, which cancels a preference for A.

At the start a probe asks what has no natural answer among the candidates, and refuses an endpoint that ignores the
constraint or returns no log-probabilities.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from rayclean.annotators.base import MAX_SCORED, PROMPT_CHARACTERS, Annotation, Annotator, Expected, Query
from rayclean.annotators.choice import ask_choice, expected_choice, probe_choice
from rayclean.annotators.endpoint import EndpointClient, EndpointError, api_key
from rayclean.annotators.health import wait_until_healthy
from rayclean.annotators.label_words import MAX_IDS, LabelWords, Tokens, ask_tokens, load_tokenizer
from rayclean.annotators.prompts import Prompt, prompt_hash, template_source
from rayclean.errors import AnnotationError, ConfigError
from rayclean.schema import Label


class OpenAIAnnotator(Annotator):
    """Asks an endpoint; keeps no state but its connections."""

    class Config(Annotator.Config):
        """Where, whom and how to ask."""

        base_url: str | None = None
        """Address with the version part: `http://127.0.0.1:8000/v1`."""
        model: str = ""
        """The model's name at the endpoint."""
        tokenizer: str | None = None
        """`label_words` only: the model's tokenizer, a folder or hub id; `None`: `model`."""
        api_key_env: str | None = None
        """Name of the environment variable that holds the API key (never the key itself); `None`: no key."""
        form: Literal["label_words", "choice"] = "label_words"
        """Prompt form, see the top of this file."""
        constraint: Literal["structured_outputs", "json_schema"] = "structured_outputs"
        """`choice` only: how the answer is held to the candidates: vLLM's own field, or OpenAI's `response_format`."""
        logprobs: bool = True
        """`choice` only: read the letters' log-probabilities; `False` for endpoints without: answers are 0 or 1."""
        instruction: str = "Label each text."
        """First line of every prompt: what the texts are and what the label says of them."""
        template: str | None = None
        """Jinja file of your own instead of the form's template (`rayclean/annotators/templates/`)."""
        max_text_chars: int = Field(1000, ge=16)
        """Longer texts are cut."""
        max_demonstration_chars: int = Field(400, ge=16)
        """Longer demonstrations are cut."""
        max_prompt_tokens: int = Field(1000, ge=32)
        """`label_words` only: above it demonstrations are left out, the least similar first, then the text is cut."""
        timeout: float = Field(60.0, gt=0)
        """Seconds per request."""
        deadline: float = Field(300.0, gt=0)
        """Seconds per query, all retries together: longer than a replica takes to come back."""
        health_timeout: float = Field(60.0, ge=0)
        """Seconds to wait at the start for an endpoint that does not answer yet."""
        concurrency: int = Field(32, ge=1)
        """Queries in flight at once; also the most answers that a crash can make you pay twice."""

        OPERATIONAL: ClassVar[tuple[str, ...]] = (
            "base_url", "tokenizer", "api_key_env", "timeout", "deadline", "health_timeout", "concurrency",
        )  # fmt: skip

        def identity(self) -> dict[str, Any]:
            """The options on which answers depend; of a template its text, not its place."""
            return {**super().identity(), "template": template_source(self.template, self.form)}

    config: Config

    def __init__(self, config: Any, labels: Sequence[Label], seed: int = 0):
        super().__init__(config, labels, seed)
        self.prompt = Prompt(
            template_source(config.template, config.form),
            config.instruction,
            labels,
            config.max_text_chars,
            config.max_demonstration_chars,
        )
        self._endpoint: EndpointClient | None = None
        self._words: LabelWords | None = None
        self._identity: dict[str, Any] | None = None

    @property
    def model_name(self) -> str:
        """The model's name, as requests, keys and the ledger carry it."""
        return self.config.model

    def identity(self) -> dict[str, Any]:
        """Options, model, template text, label words and definitions; no address."""
        if self._identity is None:
            labels = [[label.name, label.word, label.definition] for label in self.labels]
            self._identity = {**super().identity(), "model": self.model_name, "labels": labels}
        return self._identity

    def check(self) -> None:
        """See base class."""
        if not self.config.base_url:
            raise ConfigError("annotator.base_url is required, for example 'http://127.0.0.1:8000/v1'")
        if not self.config.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"annotator.base_url must begin with http:// or https://, got {self.config.base_url!r}"
            )
        if not self.model_name:
            raise ConfigError(
                "annotator.model is required: the model's name at the endpoint (see <base_url>/models)"
            )
        api_key(self.config.api_key_env)
        self.check_words()

    def check_words(self) -> None:
        """Two labels with the same word could not be told apart.

        Raises:
            ConfigError: there are such labels.
        """
        seen: dict[str, str] = {}
        for label in self.labels:
            other = seen.setdefault(label.word.strip().lower(), label.name)
            if other != label.name or not label.word.strip():
                raise ConfigError(
                    f"labels {other!r} and {label.name!r} have the same word {label.word!r}: set dataset.words"
                )

    def calibration(self, configured: str, num_classes: int) -> str:
        """See base class. Label words are calibrated; a choice is not: both orders were asked, and only the candidates
        have scores, so a label's mean would hold the confusions of the data beside the model's taste.
        """
        if configured == "auto" and self.config.form == "label_words":
            return "batch" if num_classes <= MAX_SCORED else "content_free"
        return super().calibration(configured, num_classes)

    def content_free(self, query: Query) -> Query:
        """See base class; label words are scored all at once, so that one question serves every pair of candidates."""
        blank = super().content_free(query)
        return replace(blank, candidates=self.labels) if self.config.form == "label_words" else blank

    def expected(self, query: Query) -> Expected:
        """See base class. Of a label word of several tokens, all but the first cost the prompt again, which is not counted:
        only the model's tokenizer knows.
        """
        if self.config.form == "choice":
            return expected_choice(query, self.prompt)
        tokens = len(self.prompt.render(query)) // PROMPT_CHARACTERS
        return Expected(1, min(tokens, self.config.max_prompt_tokens), 1)

    async def start(self) -> None:
        """Wait until the endpoint is healthy, then probe it."""
        config = self.config
        assert config.base_url is not None  # check() came first
        # A query may hold two connections: both orders of a choice.
        self._endpoint = EndpointClient(
            config.base_url, config.api_key_env, config.timeout, config.deadline, 2 * config.concurrency
        )
        await wait_until_healthy(self._endpoint, config.base_url, self.model_name, config.health_timeout)
        try:
            if config.form == "choice":
                await probe_choice(self._endpoint, self.model_name, config.constraint, config.logprobs)
            else:
                await self._probe_words(self._endpoint)
        except EndpointError as error:
            raise AnnotationError(
                f"{config.base_url} failed the start-up probe of annotator.form = {config.form!r} ({error}). "
                + (
                    "It must hold answers to the candidates: try annotator.constraint = 'json_schema' or 'structured_outputs', "
                    "and annotator.logprobs = false if it has no log-probabilities"
                    if config.form == "choice"
                    else "It must return log-probabilities of given token ids (vLLM >= 0.29 does); "
                    "otherwise set annotator.form = 'choice'"
                )
            ) from error

    async def _probe_words(self, endpoint: EndpointClient) -> None:
        self._words = LabelWords(
            load_tokenizer(self.config.tokenizer or self.config.model), self.labels, self._anchor()
        )
        ids = self._words.trie(label.index for label in self.labels)[()][:MAX_IDS]
        await ask_tokens(
            endpoint, self.model_name, [self._words.encode("The capital of France is the city of")], ids
        )

    def _anchor(self) -> str:
        return self.prompt.render(Query(0, "x", self.labels[:2])).rsplit("\n", 1)[-1]

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        """See base class."""
        return [await self._annotate(query) for query in queries]

    async def close(self) -> None:
        """See base class."""
        if self._endpoint is not None:
            await self._endpoint.close()

    async def _annotate(self, query: Query) -> Annotation:
        assert self._endpoint is not None, "start() first"
        blank = Annotation(
            key=self.key(query), example_id=query.example_id, label=None, model=self.model_name
        )
        try:
            if self.config.form == "choice":
                return await ask_choice(self._endpoint, blank, query, self.prompt, self.config)
            return await self._score_words(self._endpoint, blank, query)
        except EndpointError as error:  # an answer that is of no use is paid for all the same
            return replace(
                blank,
                error=str(error)[:500],
                prompt_tokens=error.prompt_tokens,
                answer_tokens=error.answer_tokens,
            )

    async def _score_words(self, endpoint: EndpointClient, blank: Annotation, query: Query) -> Annotation:
        assert self._words is not None
        prompt, tokens = self._fit(query)
        indices = [label.index for label in dict.fromkeys((*query.candidates, *query.scored))]
        (_, root), *deeper = self._words.trie(indices).items()
        found: dict[Tokens, dict[int, float]] = {(): {}}
        paid = requests = 0
        try:
            for start in range(0, len(root), MAX_IDS):
                ids = root[start : start + MAX_IDS]
                (row,), cost, _ = await ask_tokens(endpoint, self.model_name, [tokens], ids)
                found[()] |= row
                paid, requests = paid + cost, requests + 1
            for group in _groups(deeper):
                ids = sorted({token for _, children in group for token in children})
                prompts = [[*tokens, *node] for node, _ in group]
                rows, cost, _ = await ask_tokens(endpoint, self.model_name, prompts, ids)
                for (node, children), row in zip(group, rows, strict=True):
                    found[node] = {token: row[token] for token in children}
                paid, requests = paid + cost, requests + len(prompts)
        except EndpointError as error:
            raise error.paid(paid, requests) from None
        scores = self._words.score(indices, found)
        ranked = sorted(query.candidates, key=lambda label: -scores[label.index])
        tie = len(ranked) > 1 and scores[ranked[0].index] == scores[ranked[1].index]
        raw = {" ".join(map(str, node)): row for node, row in found.items()}
        return replace(
            blank,
            label=None if tie else ranked[0].index,
            scores=scores,
            raw=json.dumps(raw),
            prompt_hash=prompt_hash(prompt),
            prompt_tokens=paid,
            answer_tokens=requests,
        )

    def _fit(self, query: Query) -> tuple[str, list[int]]:
        """The prompt and its tokens, at most `max_prompt_tokens` where cutting can achieve it."""
        assert self._words is not None
        keep, chars = len(query.demonstrations), min(len(query.text), self.config.max_text_chars)
        while True:
            prompt = self.prompt.render(query, demonstrations=keep, max_text_chars=chars)
            tokens = self._words.encode(prompt)
            excess = len(tokens) / self.config.max_prompt_tokens
            if excess <= 1 or (keep == 0 and chars <= 32):
                return prompt, tokens
            if keep:
                keep -= 1
            else:
                chars = max(int(chars / excess * 0.95), 32)


def _groups(nodes: list[tuple[Tokens, list[int]]]) -> list[list[tuple[Tokens, list[int]]]]:
    """Nodes whose asked ids fit together into one request."""
    groups: list[list[tuple[Tokens, list[int]]]] = []
    ids: set[int] = set()
    for node, children in nodes:
        if not groups or len(ids | set(children)) > MAX_IDS:
            groups.append([])
            ids = set()
        groups[-1].append((node, children))
        ids |= set(children)
    return groups
