"""The events of an example's story. Labels and answers are as people read them; numbers are those of the run's tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rayclean.plain_values import plain_value


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a run knows of an example."""

    kind: ClassVar[str]
    """Name of the event in JSON."""
    part: str = ""
    """What of the example it is about, by the name of a class; empty where that is the whole example."""

    def to_json(self) -> dict[str, Any]:
        """The event as JSON values: its kind as `event`, then its fields."""
        return {"event": self.kind, **plain_value(self)}


@dataclass(frozen=True)
class Probability:
    """An answer and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Relative:
    """Another example, beside the one that the story is about."""

    example_id: int
    name: str
    """The user's key, or file and row; its id where neither is known."""
    given_label: str | None
    text: str
    similarity: float | None = None
    """Cosine of the features of both; None where none was asked for."""


@dataclass(frozen=True)
class DetectorSays:
    """What one detector makes of a unit."""

    name: str
    quality: float
    """Lower = more likely wrong."""
    vote: bool
    """Whether it calls the given label wrong."""


@dataclass(frozen=True, kw_only=True)
class Loaded(Event):
    """`load` made an example of a row."""

    kind: ClassVar[str] = "loaded"
    split: str
    """train, dev or test; of test examples no label is doubted."""
    characters: int
    tokens: int | None
    """Where labels are tags of tokens."""


@dataclass(frozen=True, kw_only=True)
class Rejected(Event):
    """`load` could not use a row."""

    kind: ClassVar[str] = "rejected"
    file: str
    row: int
    reason: str
    value: str
    """The beginning of what was wrong."""


@dataclass(frozen=True, kw_only=True)
class Given(Event):
    """The label that the data came with."""

    kind: ClassVar[str] = "given"
    label: str | None
    """None where there is none."""


@dataclass(frozen=True, kw_only=True)
class TrueLabel(Event):
    """The true label, which is known for measuring only and decides nothing."""

    kind: ClassVar[str] = "true_label_for_measuring_only"
    label: str


@dataclass(frozen=True, kw_only=True)
class Related(Event):
    """Examples that share a fold with this one, because they are copies of its text or of its group."""

    kind: ClassVar[str] = "related"
    copies: int
    """Number of other examples with the same text, case and blanks aside."""
    group: int
    """Number of other examples that must be in the same fold, copies among them."""
    learnt_from: bool
    """Whether models learn from this one, of all copies of its text."""
    shown: tuple[Relative, ...]
    """Some of the copies."""


@dataclass(frozen=True, kw_only=True)
class Predicted(Event):
    """What a model predicts, as the table of `predict` has it."""

    kind: ClassVar[str] = "predicted"
    by: str
    """Name of an expert; `all` for the mean of all of them, by which is decided."""
    mode: str | None
    """`predict.mode`."""
    fold: int | None
    """The fold that the model had not seen; None where it is not out of fold."""
    likeliest: tuple[Probability, ...]
    """The likeliest answers, and the given one whatever its place."""


@dataclass(frozen=True, kw_only=True)
class Neighbours(Event):
    """The nearest other texts by the features of `predict`."""

    kind: ClassVar[str] = "neighbours"
    nearest: tuple[Relative, ...]


@dataclass(frozen=True, kw_only=True)
class Judged(Event):
    """What `detect` makes of a label."""

    kind: ClassVar[str] = "judged"
    given: str
    given_probability: float
    """Of the given label being right, as detection sees it."""
    suggested: str
    suggested_probability: float
    quality: float
    """Of all detectors together; lower = more likely wrong."""
    detectors: tuple[DetectorSays, ...]
    suspect: bool
    rank: int | None
    """Place among the suspects, 0 = the most doubtful; None for others."""
    suspects: int | None
    """Number of suspects of the run."""
    control: int | None
    """Place among the labels that are as good as known, by which annotators are measured; None for others."""
    reason: str
    """The detectors that vote against it; empty where it is no suspect."""


@dataclass(frozen=True, kw_only=True)
class Trained(Event):
    """What the final training made of it."""

    kind: ClassVar[str] = "trained"
    method: str
    label: str
    """The label that it was trained on."""
    quality: float | None
    """The method's, of this label; lower = more likely wrong."""
    columns: Mapping[str, Any]
    """The method's columns at the end."""
    epochs: Mapping[int, Mapping[str, Any]]
    """The same after every epoch, by its number."""


@dataclass(frozen=True)
class Story:
    """All that a run knows of an example, or of a row that became none."""

    run: str
    """Folder of the run."""
    example_id: int | None
    """None for a row that was rejected."""
    key: str | None
    """The user's (`dataset.id`)."""
    file: str | None
    row: int | None
    """0-based, in the file."""
    text: str
    unfinished: tuple[str, ...]
    """Verbs that have not finished, of which the story can know nothing."""
    events: tuple[Event, ...]
    """In order of time."""

    @property
    def name(self) -> str:
        """The key, else file and row, else the id."""
        if self.key is not None:
            return self.key
        return str(self.example_id) if self.file is None else f"{self.file}:{self.row}"

    def to_json(self) -> dict[str, Any]:
        """The story as JSON values."""
        names = ("run", "example_id", "key", "file", "row", "text", "unfinished")
        about = {name: plain_value(getattr(self, name)) for name in names}
        return about | {"events": [event.to_json() for event in self.events]}
