"""A question to an annotator, and its answer, as the ledger keeps it.

An answer is a position among the query's candidates, so that it does not depend on the other labels of the data set.
"""

from dataclasses import dataclass, field

from rayclean.schema import Candidate


@dataclass(frozen=True)
class Demonstration:
    """A labelled text, shown in the prompt before the text to label."""

    text: str
    answer: Candidate
    """The text's given label."""
    similarity: float | None = None
    """Cosine similarity to the query's text; None if not measured. Prompts do not show it."""
    probability: float | None = None
    """Probability that the label is right, as detection sees it; None if it is not in doubt. Prompts do not show it."""


@dataclass(frozen=True)
class Query:
    """A question about a text: which of the candidates is the correct label?"""

    unit_id: int
    """Id of the doubted unit; in classification the `example_id`."""
    text: str
    candidates: tuple[Candidate, ...]
    """The possible answers: the given and the suggested label, or all labels, in an order that depends only
    on them."""
    demonstrations: tuple[Demonstration, ...] = ()
    """Labelled texts, the most similar last."""
    given: Candidate | None = None
    """The given label; shown by prompt templates that use it."""
    suggested: Candidate | None = None
    """The label that the model suggests; shown by prompt templates that use it."""
    scored: tuple[Candidate, ...] = ()
    """Further labels whose scores calibration needs; never an answer, and not part of the key. Ignored if
    scores are not free."""


@dataclass(frozen=True)
class Annotation:
    """One answer, as the ledger stores it."""

    key: str
    """`Annotator.key(query)`, the content address of the question; no key is paid for twice."""
    unit_id: int
    """`Query.unit_id` of the question."""
    choice: int | None
    """Position of the candidate chosen by raw scores; None: abstained or failed."""
    scores: tuple[float, ...] = ()
    """Raw log-probability (or logarithm of a vote) of each candidate; () if the annotator gives none."""
    further: dict[str, float] = field(default_factory=dict)
    """Raw log-probability of each label in `Query.scored`, by word."""
    candidates: tuple[Candidate, ...] = ()
    """Candidates to which the positions refer; set by the engine."""
    raw: str = ""
    """The answer verbatim."""
    model: str = ""
    """Model and revision, as the endpoint names it."""
    prompt_hash: str = ""
    """Hash of the prompts sent."""
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
        """The kind of the error, by which failures are counted; None without an error."""
        return self.error.partition(":")[0] if self.error else None


@dataclass(frozen=True)
class Expected:
    """Expected number of requests and tokens for one query."""

    requests: int
    prompt_tokens: int
    answer_tokens: int
