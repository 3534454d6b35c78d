"""The annotator seam: how a doubtful label is put to an annotator, and how the answer comes back.

An annotator turns a list of queries into a list of annotations in the order asked. It never raises for a
single query: a failed one is an annotation with `error` filled and no label. It does raise `AnnotationError`
from `start`, before anything was paid: when its endpoint is down, serves another model, or ignores the
constraint to the candidates.

Whether an answer changes a label (calibration, acceptance) is not decided here: an annotation keeps raw
scores, so that another acceptance or calibration reads the ledger again and sends no query (`decisions.py`).

An answer is a position among the query's candidates, and its key is a hash of what is sent. Neither knows the
data set's other labels: with a class more, a class renamed or the label set in another order, the questions
that stay the same are answered from the ledger.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from rayclean.annotators.model_server import ModelServer
from rayclean.hashing import digest
from rayclean.plugins import Options
from rayclean.schema import Candidate, Label
from rayclean.tasks.base import Task

MAX_SCORED = 32
"""Most classes for which every label is scored for every text, which batch calibration needs."""

PROMPT_CHARACTERS = 4
"""Characters of a prompt's token, about."""
PROMPT_TOKENS = 40
"""Tokens of a prompt beside its texts, where only the annotator knows the prompt."""
ANSWER_TOKENS = 8
"""Tokens of the answer to a request: a letter or a word, perhaps in JSON."""


BUDGET_OPTIONS = ("max_queries", "max_tokens", "max_cost", "price_prompt", "price_answer")
"""Options of every annotator on which no answer depends, only how many there are."""


@dataclass(frozen=True)
class Demonstration:
    """A labelled text that the prompt shows before the text to label."""

    text: str
    answer: Candidate
    """The text's given label."""
    similarity: float | None = None
    """Cosine to the query's text; None where not measured. Prompts do not show it."""


@dataclass(frozen=True)
class Query:
    """One question: which of the candidates is right about the text?"""

    unit_id: int
    """What is doubted; in classification the `example_id`."""
    text: str
    candidates: tuple[Candidate, ...]
    """The only possible answers: the given and the suggested one, or all, in an order that depends on nothing
    but themselves (`tasks.base.in_order`)."""
    demonstrations: tuple[Demonstration, ...] = ()
    """Labelled texts, the most similar last."""
    given: Candidate | None = None
    """The given label; shown by prompt templates that use it."""
    suggested: Candidate | None = None
    """The label that the model suggests; shown by prompt templates that use it."""
    scored: tuple[Candidate, ...] = ()
    """Further labels whose score calibration needs; never an answer, and no part of the key. Ignored where
    scores cost extra."""


@dataclass(frozen=True)
class Annotation:
    """One answer, as the ledger keeps it for ever."""

    key: str
    """`Annotator.key(query)`, the content address of the question: no key is paid for twice."""
    unit_id: int
    """`Query.unit_id`."""
    choice: int | None
    """Position of the chosen candidate, by raw scores; None: abstained or failed."""
    scores: tuple[float, ...] = ()
    """Raw log-probability (or logarithm of a vote) of each candidate; () where the annotator gives none."""
    further: dict[str, float] = field(default_factory=dict)
    """Raw log-probability by word, of `Query.scored`."""
    candidates: tuple[Candidate, ...] = ()
    """The candidates that the positions count; the engine fills them in."""
    raw: str = ""
    """The answer verbatim."""
    model: str = ""
    """Model and revision, as the endpoint names it."""
    prompt_hash: str = ""
    """Hash over the prompts that were sent."""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    error: str | None = None
    """`kind: message`; kinds: timeout, connection, rate_limit, server, client, invalid, outside."""
    written: float = 0.0
    """Unix time of the answer."""
    session: str = ""
    """Name of the ledger's session that paid for the answer."""

    @property
    def error_kind(self) -> str | None:
        """The kind of the error, under which failures are counted; None without an error."""
        return self.error.partition(":")[0] if self.error else None


@dataclass(frozen=True)
class Expected:
    """Requests and tokens that the answer to one query is expected to take."""

    requests: int
    prompt_tokens: int
    answer_tokens: int


class Annotator:
    """Base of all annotators. Subclasses override `annotate`, and `start` / `close` if they open something.

    Whoever uses an annotator asks what it can do (`server`, `billable`, `expected`), never which one it is.

    `annotate` may be called concurrently; an annotator that talks to an endpoint does its own retries and
    time-outs.
    """

    class Config(Options):
        """Options beside `name`; fields listed in `OPERATIONAL` change no answer."""

        concurrency: int = Field(16, ge=1)
        """Queries in flight at once; also the most answers that a crash can make you pay for twice."""
        max_queries: int | None = Field(None, ge=0)
        """Budget of queries sent by `relabel`; answers found in the ledger cost nothing. Budgets hold per
        relabelling: they survive a crash, and count anew once the configuration of relabel, or of a verb
        before it, changes."""
        max_tokens: int | None = Field(None, ge=0)
        """Budget of tokens, prompt and answer together, for relabel and once more for a method that asks
        while it trains."""
        max_cost: float | None = Field(None, ge=0)
        """Budget in currency; needs `price_prompt` and `price_answer`."""
        price_prompt: float = Field(0.0, ge=0)
        """Price in currency per million prompt tokens."""
        price_answer: float = Field(0.0, ge=0)
        """Price in currency per million answer tokens."""

        OPERATIONAL: ClassVar[tuple[str, ...]] = ("concurrency",)

        @model_validator(mode="after")
        def _cost_needs_prices(self) -> Self:
            if self.max_cost is not None and not (self.price_prompt or self.price_answer):
                raise ValueError("max_cost needs price_prompt and price_answer (currency per million tokens)")
            return self

    billable: ClassVar[bool] = True
    """Whether answers cost something: the same question is then never asked twice at once, and forecasts name
    a price."""
    calibrated: ClassVar[bool] = False
    """Whether scores are unbiased log-probabilities already, so that no calibration is applied to them."""

    task: Task | None = None
    """The task whose units are asked about; None where every unit is an example."""

    def __init__(self, config: Any, labels: Sequence[Label], seed: int = 0):
        self.config = config
        self.labels = tuple(labels)
        self.seed = seed

    def check(self) -> None:
        """Check cheaply, in the driver and before any work, that the options can work here.

        Raises:
            ConfigError: they cannot (no address, a missing environment variable).
        """

    def server(self) -> ModelServer | None:
        """The language model that must be served while this annotator is asked; None: it brings none."""
        return None

    def at(self, base_url: str, tokenizer: str) -> Self:
        """The same annotator (same identity, same keys), connected to the running server that it asked for.

        Args:
            base_url: the server's address, with `/v1`.
            tokenizer: folder or hub id of the served model's tokenizer.
        """
        return self

    def demonstrations(self, count: int, selector: str) -> tuple[int, str]:
        """Number and selector of a query's demonstrations, where the config says `count` and `selector`."""
        return count, selector

    def calibration(self, configured: str, num_classes: int) -> str:
        """How scores become probabilities: `none`, `batch` or `content_free`.

        Args:
            configured: `relabel.calibration`; `auto` leaves it to the annotator.
            num_classes: number of classes K.
        """
        return "none" if self.calibrated or configured == "auto" else configured

    def content_free(self, query: Query) -> Query:
        """The same question about a text without content: the scores of its answer are the annotator's bias.

        Reference: Zhao et al., "Calibrate before use", ICML 2021, section 4.
        """
        return replace(
            query, unit_id=-1, text="N/A", demonstrations=(), given=None, suggested=None, scored=()
        )

    def expected(self, query: Query) -> Expected:
        """An estimate of what answering takes, without a tokenizer: by the length of all texts and
        `PROMPT_TOKENS` more.
        """
        characters = len(query.text) + sum(len(shown.text) for shown in query.demonstrations)
        return Expected(1, characters // PROMPT_CHARACTERS + PROMPT_TOKENS, ANSWER_TOKENS)

    def identity(self) -> dict[str, Any]:
        """Everything but the query's own content on which an answer depends."""
        options = self.config.identity()
        return {
            "class": type(self).__qualname__,
            "options": {name: value for name, value in options.items() if name not in BUDGET_OPTIONS},
        }

    def sent(self, query: Query) -> Any:
        """The content of a query on which the answer depends, as JSON values: what is sent, and no more.

        `unit_id` is not part of it: two examples with the same text, candidates and demonstrations are one
        question. Neither are the values of the candidates, which nobody is shown, nor their places in a label
        set.
        """
        return {
            "text": query.text,
            "candidates": [shown(candidate) for candidate in query.candidates],
            "demonstrations": [[each.text, each.answer.word] for each in query.demonstrations],
            "given": query.given and query.given.word,
            "suggested": query.suggested and query.suggested.word,
        }

    def key(self, query: Query) -> str:
        """Content address of a question: equal keys mean that one answer serves both."""
        content = [self.identity(), self.sent(query)]
        return digest(json.dumps(content, sort_keys=True, ensure_ascii=False, default=str))

    async def start(self) -> None:
        """Connect and probe.

        Raises:
            AnnotationError: the endpoint is down, serves another model, or ignores the constraint.
        """

    async def annotate(self, queries: Sequence[Query]) -> Sequence[Annotation | None]:
        """Answer queries: one annotation per query, in the order asked; None where there is no answer yet (a
        person has not come to it), which is no error and is asked again.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Release what `start` opened."""


def shown(candidate: Candidate) -> list[str]:
    """The part of a candidate that an annotator is shown: its word and its definition."""
    return [candidate.word, candidate.definition]


def best_position(scores: Sequence[float], tolerance: float = 0.0) -> int | None:
    """Position of the highest score; None where two of them tie, within a tolerance, or there is none.

    >>> best_position([-2.0, -1.0]), best_position([-1.0, -1.0]), best_position([-1.0])
    (1, None, 0)
    """
    ranked = sorted(range(len(scores)), key=lambda position: -scores[position])
    if not ranked or (len(ranked) > 1 and scores[ranked[0]] - scores[ranked[1]] <= tolerance):
        return None
    return ranked[0]
