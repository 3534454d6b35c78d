"""The events of `relabel`, of auditors and of reverts in an example's story."""

from dataclasses import dataclass
from typing import ClassVar

from rayclean.stories.events import Event, Probability


@dataclass(frozen=True)
class Shown:
    """A demonstration of a question: another example with the label that it was given."""

    example_id: int
    text: str
    answer: str
    similarity: float | None
    """Cosine of the features of both; None where it was drawn at random."""


@dataclass(frozen=True, kw_only=True)
class Asked(Event):
    """A question to an annotator."""

    kind: ClassVar[str] = "asked"
    annotator: str
    """Its name in the config."""
    purpose: str
    """`suspect`, `control question`, or `beyond the suspects`."""
    candidates: tuple[str, ...]
    demonstrations: tuple[Shown, ...]
    prompts: tuple[str, ...]
    """What it read, one for each request; none where it reads no prompts."""
    prompts_are: str
    """`as sent` (by their hash), `uncut` (what was sent was cut to the model's length, or the template has changed since), or
    `not recorded` (nothing says that they were sent)."""
    problem: str | None = None
    """Why the prompts cannot be shown, if they cannot."""


@dataclass(frozen=True, kw_only=True)
class Answered(Event):
    """An answer in the ledger; of a question that another run or `train` asked, too."""

    kind: ClassVar[str] = "answered"
    annotator: str | None
    """Its name in the config; None where no question of this run's relabel is known that it answers."""
    session: str
    """What asked: `relabel-...` or `train ...`, with the fingerprint of the verb."""
    model: str
    choice: str | None
    """None: it did not choose, or failed."""
    scores: tuple[Probability, ...]
    """Probability of every candidate before calibration; they need not add up to 1."""
    raw: str
    error: str | None
    prompt_tokens: int
    answer_tokens: int
    cost: float | None
    """At the prices of the config; None where it names none."""
    currency: str | None
    seconds: float
    time: float | None
    """Unix time; None where it is not known."""


@dataclass(frozen=True, kw_only=True)
class Decided(Event):
    """The decision on a suspect, before reverts."""

    kind: ClassVar[str] = "decided"
    decision: str
    """One of `annotations.DECISIONS`."""
    given: str
    suggested: str
    choice: str | None
    """The annotator's, its bias removed."""
    confidence: float | None
    """The annotator's probability of its choice."""
    model_probability: float
    """That the suggested label is right rather than the given one, before anybody answered."""
    evidence: float
    """What the answer added to its log-odds."""
    probability: float
    """The same after the answer and after all audits."""
    by_machine: str
    """The decision without an auditor's word on this label."""
    annotator: str | None
    auditor: str | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class AskedBeyond(Event):
    """LLM disagreement: what the annotator said of a label that nobody doubts; such labels do not change."""

    kind: ClassVar[str] = "asked_beyond"
    suggested: str
    choice: str | None
    vote: bool
    """Whether it denies the given label."""
    quality: float
    """How probably the given label is right, by model and answer."""
    probability: float
    """That the suggested label is right."""


@dataclass(frozen=True, kw_only=True)
class AuditorAnswered(Event):
    """An auditor's answer."""

    kind: ClassVar[str] = "audited"
    auditor: str
    said: str
    """`label`, `neither` or `unsure`."""
    label: str | None
    """The right label by the auditor."""
    form: str
    time: float


@dataclass(frozen=True, kw_only=True)
class Reverted(Event):
    """A person took a change back, or applied it again."""

    kind: ClassVar[str] = "reverted"
    reverted: bool
    """False: it was applied again."""
    time: float


@dataclass(frozen=True, kw_only=True)
class Final(Event):
    """The label after all of this."""

    kind: ClassVar[str] = "final"
    label: str
    changed: bool
    """Whether it is another one than the given."""
    source: str | None
    """`given`, a decision, `audited` or `reverted`; None for the label of an example as its units make it up."""
    confidence: float | None
    decided_by: str | None
    """Annotator or auditor."""
