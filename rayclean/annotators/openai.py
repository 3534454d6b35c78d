"""An annotator that queries any OpenAI-compatible endpoint, in two prompt forms.

- `label_words` (`label_words.py`): completion form. The score of a label is the log-probability of its word as
  the continuation of the prompt, which suits small models. It needs an endpoint that returns
  log-probabilities of given token ids (vLLM >= 0.29).
- `choice` (`choice_form.py`): chat form for large models. The answer is constrained to a letter, or to a word with more
  than two candidates.

Both show the definitions of the candidates. By default they are blind: nothing in a prompt tells which candidate is the
given label, and which the model suggests (`shows_given`).

`start` probes the endpoint with a question that has no natural answer among the candidates, and refuses an
endpoint that ignores the constraint or returns no log-probabilities.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from rayclean.annotators.base import Annotator
from rayclean.annotators.choice_form import ChoiceForm
from rayclean.annotators.endpoint import EndpointClient, EndpointError, api_key
from rayclean.annotators.health import wait_until_healthy
from rayclean.annotators.label_words import LabelWordsForm
from rayclean.annotators.prompts import Prompt, template_source, with_fewer_demonstrations
from rayclean.annotators.query import Annotation, Expected, Query
from rayclean.errors import AnnotationError, ConfigError
from rayclean.plugins import Credential
from rayclean.schema import Candidate, Label

FORMS: dict[str, type[ChoiceForm] | type[LabelWordsForm]] = {
    "label_words": LabelWordsForm,
    "choice": ChoiceForm,
}


class OpenAIAnnotator(Annotator):
    """Annotator that sends queries to an endpoint."""

    class Config(Annotator.Config):
        """Options of the endpoint, the model and the prompt."""

        base_url: str | None = None
        """Address with the version part, such as `http://127.0.0.1:8000/v1`."""
        model: str = ""
        """Name of the model at the endpoint."""
        tokenizer: str | None = None
        """`label_words` only: the model's tokenizer, a folder or hub id; `None`: `model`."""
        api_key_env: str | None = None
        """Name of the environment variable that holds the API key (not the key itself); `None`: no key."""
        form: Literal["label_words", "choice"] = "label_words"
        """Prompt form: `label_words` scores each label's word, `choice` asks for a constrained answer; a task
        whose candidates are texts of their own, such as `tagging`, has `choice` alone."""
        constraint: Literal["structured_outputs", "json_schema"] = "structured_outputs"
        """`choice` only: constraint of answers by vLLM's field, or by OpenAI's `response_format`."""
        logprobs: bool = True
        """`choice` only: whether to read the letters' log-probabilities; `False`: the chosen letter has
        probability 1."""
        instruction: str = "Label each text."
        """First line of every prompt, which describes the texts and the meaning of the labels."""
        shows_given: bool = False
        """Whether prompts show the previous annotation (the given label) and the model's prediction. A blind
        annotator's answer is a second opinion; one that is shown them may repeat them."""
        template: str | None = None
        """Path of a Jinja file that replaces the form's template (`rayclean/annotators/templates/`)."""
        max_text_chars: int = Field(1000, ge=16)
        """Most characters of a text; longer ones are cut."""
        max_demonstration_chars: int = Field(400, ge=16)
        """Most characters of a demonstration; longer ones are cut."""
        max_prompt_tokens: int = Field(1000, ge=32)
        """`label_words` only: most tokens of a prompt; longer ones lose demonstrations, the least similar
        first and as many of each candidate, then the text is cut."""
        timeout: float = Field(60.0, gt=0)
        """Seconds per request."""
        deadline: float = Field(300.0, gt=0)
        """Seconds per query, including all retries; longer than the restart of a replica."""
        health_timeout: float = Field(60.0, ge=0)
        """Seconds to wait at the start for an endpoint that does not answer yet."""

        OPERATIONAL: ClassVar[tuple[str, ...]] = (
            "base_url", "tokenizer", "api_key_env", "timeout", "deadline", "health_timeout", "concurrency",
        )  # fmt: skip

        @field_validator("api_key_env")
        @classmethod
        def _is_a_name(cls, variable: str | None) -> str | None:
            """Refuse the key itself, which is easily put here and must not be repeated in a message."""
            if variable is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
                raise Credential(
                    "this is the name of no environment variable (letters, digits and _). If it is the key itself: export "
                    "it (export OPENAI_API_KEY=...) and write the name of the variable here"
                )
            return variable

        def identity(self) -> dict[str, Any]:
            """The options on which answers depend, with the template as text instead of its path."""
            return {**super().identity(), "template": template_source(self.template, self.form)}

    CONCURRENCY: ClassVar[int] = 32
    config: Config

    def __init__(self, config: Any, labels: Sequence[Label], seed: int = 0):
        super().__init__(config, labels, seed)
        source = template_source(config.template, config.form)
        self.prompt = Prompt(
            source, config.instruction, labels, config.max_text_chars, config.max_demonstration_chars,
            config.shows_given,
        )  # fmt: skip
        self._form = FORMS[config.form](config, self.prompt, self.labels)
        self._endpoint: EndpointClient | None = None

    @property
    def shows_given(self) -> bool:
        """As configured."""
        return self.config.shows_given

    @property
    def model_name(self) -> str:
        """The model's name in requests, keys and the ledger."""
        return self.config.model

    def identity(self) -> dict[str, Any]:
        """The model, the prompt form and its options; everything else is part of the prompts."""
        return {"model": self.model_name, "form": self.config.form, **self._form.identity()}

    def sent(self, query: Query) -> Any:
        """The rendered prompts and the scored words."""
        return self._form.sent(query)

    def possible_prompts(self, query: Query) -> Iterator[tuple[str, ...]]:
        """Those of the prompt form, with ever fewer demonstrations."""
        yield self._form.prompts(query)
        while query.demonstrations:
            query = with_fewer_demonstrations(query)
            yield self._form.prompts(query)

    def check(self) -> None:
        """Refuse options that cannot work: no address, no model, no key, equal words."""
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
        """Refuse labels with the same word, which answers cannot distinguish.

        Raises:
            ConfigError: two labels have the same word, or a label has none.
        """
        seen: dict[str, str] = {}
        for label in self.labels:
            other = seen.setdefault(label.word.strip().lower(), label.name)
            if other != label.name or not label.word.strip():
                raise ConfigError(
                    f"labels {other!r} and {label.name!r} have the same word {label.word!r}: "
                    "set dataset.words"
                )

    def calibration(self, configured: str, num_classes: int) -> str:
        """The configured calibration; with `auto` that of the prompt form."""
        return self._form.calibration(num_classes) if configured == "auto" else configured

    def demonstrations(self, count: int | None, selector: str) -> tuple[int, str]:
        """As configured; else as many as suit the prompt form."""
        return self._form.DEMONSTRATIONS if count is None else count, selector

    def content_free(self, query: Query) -> Query:
        """The same question about a content-free text; with label words, one question serves every pair of
        candidates, since all words are scored at once.
        """
        neutral = super().content_free(query)
        if self.config.form != "label_words":
            return neutral
        return replace(neutral, candidates=tuple(map(Candidate.of, self.labels)))

    def expected(self, query: Query) -> Expected:
        """Estimate the requests and tokens of a query by the prompt form, without the endpoint."""
        return self._form.expected(query)

    async def start(self) -> None:
        """Wait until the endpoint is healthy, then probe it."""
        config = self.config
        assert config.base_url is not None  # checked by check()
        self._endpoint = EndpointClient(
            config.base_url, config.api_key_env, config.timeout, self._form.REQUESTS * self.concurrency
        )
        await wait_until_healthy(self._endpoint, config.base_url, self.model_name, config.health_timeout)
        self._form.load()
        try:
            await self._form.probe(self._endpoint.within(config.deadline), self.model_name)
        except EndpointError as error:
            raise AnnotationError(
                f"{config.base_url} failed the start-up probe of annotator.form = {config.form!r} ({error}). "
                f"{self._form.REQUIREMENT}"
            ) from error

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        """Answer the queries one after the other; `Engine` asks several at the same time."""
        return [await self._annotate(query) for query in queries]

    async def close(self) -> None:
        """Close the connections."""
        if self._endpoint is not None:
            await self._endpoint.close()

    async def _annotate(self, query: Query) -> Annotation:
        assert self._endpoint is not None  # set by start()
        unanswered = Annotation(self.key(query), query.unit_id, None, model=self.model_name)
        try:
            return await self._form.answer(self._endpoint.within(self.config.deadline), query, unanswered)
        except EndpointError as error:  # unusable answers are charged as well
            return replace(
                unanswered,
                error=str(error)[:500],
                prompt_tokens=error.prompt_tokens,
                answer_tokens=error.answer_tokens,
            )
