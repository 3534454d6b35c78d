"""The annotator seam: how a doubtful label is put to an annotator, and how the answer comes back.

An annotator turns a list of queries into a list of annotations in the order asked. It never raises for a
single query: a failed one is an annotation with `error` filled and no label. It does raise `AnnotationError`
from `start`, before anything was paid: when its endpoint is down, serves another model, or ignores the
constraint to the candidates.

Whether an answer changes a label (calibration, acceptance) is not decided here: an annotation keeps raw
scores, so that another acceptance or calibration reads the ledger again and sends no query (`decisions.py`).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from rayclean.hashing import digest
from rayclean.plugins import Options
from rayclean.schema import Label

MAX_SCORED = 32
"""Most classes for which every label is scored for every text, which batch calibration needs."""

PROMPT_CHARACTERS = 4
"""Characters of a prompt's token, about."""
PROMPT_TOKENS = 40
"""Tokens of a prompt beside its texts, where only the annotator knows the prompt."""
ANSWER_TOKENS = 8
"""Tokens of the answer to a request: a letter or a word, perhaps in JSON."""


@dataclass(frozen=True)
class Demonstration:
    """A labelled text that the prompt shows before the text to label."""

    text: str
    label: int
    """Index of the text's given label."""
    similarity: float | None = None
    """Cosine to the query's text; None where not measured. Not part of a key: its last digits depend on the
    machine."""


@dataclass(frozen=True)
class Query:
    """One question: which of the candidates is the label of the text?"""

    example_id: int
    text: str
    candidates: tuple[Label, ...]
    """The only possible answers: the given and the suggested label, or all K, in an order without meaning."""
    demonstrations: tuple[Demonstration, ...] = ()
    """Labelled texts, the most similar last."""
    previous_label: int | None = None
    """Index of the given label; shown by prompt templates that use it."""
    suggested_label: int | None = None
    """Index of the label that the model suggests; shown by prompt templates that use it."""
    scored: tuple[Label, ...] = ()
    """Further labels whose score calibration needs; never an answer. Ignored where scores cost extra."""


@dataclass(frozen=True)
class Annotation:
    """One answer, as the ledger keeps it for ever."""

    key: str
    """`Annotator.key(query)`, the content address of the question: no key is paid for twice."""
    example_id: int
    label: int | None
    """Index of the chosen candidate by raw scores; None: abstained or failed."""
    scores: dict[int, float] = field(default_factory=dict)
    """Raw log-probability (or logarithm of a vote) by label index, of candidates and `Query.scored`."""
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

    `annotate` may be called concurrently; an annotator that talks to an endpoint does its own retries and
    time-outs.
    """

    class Config(Options):
        """Options beside `name`; fields listed in `OPERATIONAL` change no answer."""

        concurrency: int = 16
        """Queries in flight at once; also the most answers that a crash can make you pay for twice."""

        OPERATIONAL: ClassVar[tuple[str, ...]] = ("concurrency",)

    billable: ClassVar[bool] = True
    """Whether answers cost something: the same question is then never asked twice at once, and forecasts name
    a price."""
    calibrated: ClassVar[bool] = False
    """Whether scores are unbiased log-probabilities already, so that no calibration is applied to them."""

    def __init__(self, config: Any, labels: Sequence[Label], seed: int = 0):
        self.config = config
        self.labels = tuple(labels)
        self.seed = seed

    def check(self) -> None:
        """Check cheaply, in the driver and before any work, that the options can work here.

        Raises:
            ConfigError: they cannot (no address, a missing environment variable).
        """

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
            query,
            example_id=-1,
            text="N/A",
            demonstrations=(),
            previous_label=None,
            suggested_label=None,
            scored=(),
        )

    def expected(self, query: Query) -> Expected:
        """An estimate of what answering takes, without a tokenizer: by the length of all texts and
        `PROMPT_TOKENS` more.
        """
        characters = len(query.text) + sum(len(shown.text) for shown in query.demonstrations)
        return Expected(1, characters // PROMPT_CHARACTERS + PROMPT_TOKENS, ANSWER_TOKENS)

    def identity(self) -> dict[str, Any]:
        """Everything but the query on which an answer depends: class, options, template, model, words."""
        return {"class": type(self).__qualname__, "options": self.config.identity()}

    def key(self, query: Query) -> str:
        """Content address of a question: equal keys mean that one answer serves both.

        `example_id` is not part of it: two examples with the same text, candidates and demonstrations are one
        question.
        """
        return self.address(query)

    def address(self, query: Query, *further: Any) -> str:
        """Hash over the annotator's identity, the query's content and whatever else an answer depends on."""
        content = {
            "text": query.text,
            "candidates": [asdict(label) for label in query.candidates],
            "demonstrations": [{"text": shown.text, "label": shown.label} for shown in query.demonstrations],
            "previous_label": query.previous_label,
            "predicted_label": query.suggested_label,
            "scored": [asdict(label) for label in query.scored],
        }
        text = json.dumps(
            [self.identity(), content, *further], sort_keys=True, ensure_ascii=False, default=str
        )
        return digest(text)

    async def start(self) -> None:
        """Connect and probe.

        Raises:
            AnnotationError: the endpoint is down, serves another model, or ignores the constraint.
        """

    async def annotate(self, queries: Sequence[Query]) -> list[Annotation]:
        """Answer queries: one annotation per query, in the order asked."""
        raise NotImplementedError

    async def close(self) -> None:
        """Release what `start` opened."""
