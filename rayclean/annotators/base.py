"""The interface of annotators: queries about doubtful labels, and annotations as answers.

An annotator turns a list of queries into a list of annotations in the same order. It never raises for a
single query: a failed query gives an annotation with `error` and no label. `start` raises `AnnotationError`,
before anything is paid for, if the endpoint is down, serves another model, or ignores the constraint to the
candidates.

Calibration and acceptance, which decide whether an answer changes a label, are in `decisions.py`. An
annotation keeps raw scores, so that their change only reads the ledger again and sends no query.

An answer is a position among the query's candidates, and its key is a hash of the query's content. Neither
depends on the other labels of the data set: if a class is added or renamed, or the labels are reordered,
unchanged questions are answered from the ledger.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from rayclean.annotators.model_server import ModelServer
from rayclean.annotators.query import Annotation, Expected, Query
from rayclean.hashing import digest
from rayclean.plugins import Options
from rayclean.schema import Candidate, Label
from rayclean.tasks.base import Task

MAX_MEASURED = 32
"""Most classes whose words' biases control questions can tell; more are told by a content-free text."""

PROMPT_CHARACTERS = 4
"""Approximate number of characters per token of a prompt."""
PROMPT_TOKENS = 40
"""Estimate of the tokens of a prompt in addition to its texts."""
ANSWER_TOKENS = 8
"""Estimate of the tokens of an answer: a letter or a word, perhaps in JSON."""


NEAREST_OF_ANY = "nearest_of_any"
"""Selector of an annotator whose demonstrations vote: the nearest examples, whatever their label, suspects too."""

BUDGET_OPTIONS = ("max_queries", "max_tokens", "max_cost", "price_prompt", "price_answer", "currency")
"""Options of every annotator that limit the number of answers, or say what they cost, and do not affect any answer."""


class Annotator:
    """Base of all annotators. Subclasses override `annotate`, and `start` / `close` if they open something.

    Callers use its capabilities (`server`, `billable`, `expected`) and never test for its class.

    `annotate` may be called concurrently; an annotator of an endpoint handles retries and time-outs.
    """

    class Config(Options):
        """Options in addition to `name`; no answer depends on those listed in `OPERATIONAL`."""

        concurrency: int | None = Field(None, ge=1)
        """Number of concurrent queries; after a crash, at most twice as many answers are paid for again: those in flight,
        and as many that were received and not recorded yet. `None`: 16; of an endpoint 32; of a served model what keeps
        its server busy (on GPUs twice `max_num_seqs` for every replica)."""
        max_queries: int | None = Field(None, ge=0)
        """Budget of queries sent by `relabel`; answers found in the ledger are free. Budgets apply to one
        relabelling, including restarts after a crash; a change of the configuration of relabel or of an
        earlier verb resets them."""
        max_tokens: int | None = Field(None, ge=0)
        """Budget of tokens of prompts and answers together, for relabel and again for a method that asks
        during training."""
        max_cost: float | None = Field(None, ge=0)
        """Budget in `currency`; needs `price_prompt` or `price_answer`."""
        price_prompt: float = Field(0.0, ge=0)
        """Price of a million prompt tokens, in `currency`."""
        price_answer: float = Field(0.0, ge=0)
        """Price of a million answer tokens, in `currency`."""
        currency: str | None = None
        """What prices and `max_cost` are in, as three capital letters ("USD", "EUR"); needed where there are any."""

        OPERATIONAL: ClassVar[tuple[str, ...]] = ("concurrency",)

        @field_validator("currency")
        @classmethod
        def _three_letters(cls, currency: str | None) -> str | None:
            if currency is not None and not re.fullmatch("[A-Z]{3}", currency):
                raise ValueError(f"expected three capital letters, such as 'USD' or 'EUR', got {currency!r}")
            return currency

        @model_validator(mode="after")
        def _cost_needs_prices(self) -> Self:
            if self.max_cost is not None and not (self.price_prompt or self.price_answer):
                raise ValueError("max_cost needs price_prompt and price_answer (money per million tokens)")
            money = [name for name in ("price_prompt", "price_answer", "max_cost") if getattr(self, name)]
            if money and self.currency is None:
                written = " and ".join(money)
                raise ValueError(
                    f"{written} without a currency: write beside it, for example, currency = 'USD'"
                )
            return self

    CONCURRENCY: ClassVar[int] = 16
    """Number of concurrent queries where the config does not say."""
    billable: ClassVar[bool] = True
    """Whether answers cost money: then equal questions are never asked concurrently, and forecasts include a
    price."""
    calibrated: ClassVar[bool] = False
    """Whether scores are unbiased log-probabilities, which need no calibration."""
    asks: ClassVar[bool] = True
    """Whether there are answers at all; else the model alone decides."""
    independent: ClassVar[bool] = True
    """Whether answers come from elsewhere than the model's predictions. Others are no second opinion: control
    questions, which the model knows best, would overrate them, and they count for nothing."""
    chooses_texts: ClassVar[bool] = True
    """Whether it can choose between candidates that are texts of their own (`Task.candidates_are_labels`)."""

    task: Task | None = None
    """The task whose units are asked about; None where every unit is an example."""

    def __init__(self, config: Any, labels: Sequence[Label], seed: int = 0):
        self.config = config
        self.labels = tuple(labels)
        self.seed = seed

    @property
    def concurrency(self) -> int:
        """Number of concurrent queries."""
        return self.config.concurrency or self.CONCURRENCY

    @property
    def shows_given(self) -> bool:
        """Whether it tells whom it asks which candidate is the given label. Then half of the control questions name the
        other one, so that whoever repeats the given label is right no more often than by chance.
        """
        return False

    def check(self) -> None:
        """Check the options cheaply, in the driver and before any work.

        Raises:
            ConfigError: they cannot work (no address, a missing environment variable).
        """

    def server(self) -> ModelServer | None:
        """The language model that must be served while this annotator is asked; None if it needs none."""
        return None

    def at(self, base_url: str, tokenizer: str, requests: int) -> Self:
        """The same annotator (same identity, same keys), connected to the running server of its model.

        Args:
            base_url: the server's address, with `/v1`.
            tokenizer: folder or hub id of the served model's tokenizer.
            requests: number of concurrent requests that keep the server busy.
        """
        return self

    def demonstrations(self, count: int | None, selector: str) -> tuple[int, str]:
        """Number and selector of a query's demonstrations.

        Args:
            count: number in the config; None: the annotator chooses.
            selector: selector in the config, `nearest` or `random`.
        """
        return count or 0, selector

    def calibration(self, configured: str, num_classes: int) -> str:
        """The calibration of scores: `none`, `controls` or `content_free`.

        Args:
            configured: `relabel.calibration`; with `auto` the annotator chooses.
            num_classes: number of classes K.
        """
        return "none" if self.calibrated or configured == "auto" else configured

    def content_free(self, query: Query) -> Query:
        """The same question about a content-free text; the scores of its answer measure the annotator's bias.

        Reference: Zhao et al., "Calibrate before use", ICML 2021, section 4.
        """
        return replace(
            query, unit_id=-1, text="N/A", demonstrations=(), given=None, suggested=None, scored=()
        )

    def expected(self, query: Query) -> Expected:
        """Estimate the requests and tokens of a query without a tokenizer, by the length of all texts plus
        `PROMPT_TOKENS`.
        """
        characters = len(query.text) + sum(len(shown.text) for shown in query.demonstrations)
        return Expected(1, characters // PROMPT_CHARACTERS + PROMPT_TOKENS, ANSWER_TOKENS)

    def identity(self) -> dict[str, Any]:
        """Everything on which an answer depends, except the content of the query."""
        options = self.config.identity()
        return {
            "class": type(self).__qualname__,
            "options": {name: value for name, value in options.items() if name not in BUDGET_OPTIONS},
        }

    def sent(self, query: Query) -> Any:
        """The content of a query that is sent, on which the answer depends, as JSON values.

        It excludes `unit_id`, so examples with the same text, candidates and demonstrations are one question,
        and the values and label indices of the candidates, which are not shown.
        """
        return {
            "text": query.text,
            "candidates": [shown(candidate) for candidate in query.candidates],
            "demonstrations": [[each.text, each.answer.word] for each in query.demonstrations],
            "given": query.given and query.given.word,
            "suggested": query.suggested and query.suggested.word,
        }

    def possible_prompts(self, query: Query) -> Iterator[tuple[str, ...]]:
        """The prompts that may have been sent about a query, as far as they follow from it: first the whole ones, then those
        with fewer demonstrations. `prompt_hash` of an answer says which of them it was; none where prompts are not texts.
        """
        yield from ()

    def key(self, query: Query) -> str:
        """Content address of a question; queries with equal keys share one answer."""
        content = [self.identity(), self.sent(query)]
        return digest(json.dumps(content, sort_keys=True, ensure_ascii=False, default=str))

    async def start(self) -> None:
        """Connect to the endpoint and probe it.

        Raises:
            AnnotationError: the endpoint is down, serves another model, or ignores the constraint.
        """

    async def annotate(self, queries: Sequence[Query]) -> Sequence[Annotation | None]:
        """Answer queries: one annotation per query, in order; None if there is no answer yet (from a human
        annotator), which is no error and is asked again.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Release the resources that `start` opened."""


def shown(candidate: Candidate) -> list[str]:
    """The visible part of a candidate: its word and its definition."""
    return [candidate.word, candidate.definition]


def best_position(scores: Sequence[float], tolerance: float = 0.0) -> int | None:
    """Position of the highest score; None for a tie within a tolerance, or without scores.

    >>> best_position([-2.0, -1.0]), best_position([-1.0, -1.0]), best_position([-1.0])
    (1, None, 0)
    """
    ranked = sorted(range(len(scores)), key=lambda position: -scores[position])
    if not ranked or (len(ranked) > 1 and scores[ranked[0]] - scores[ranked[1]] <= tolerance):
        return None
    return ranked[0]
