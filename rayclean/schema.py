"""The tables that verbs write and read, the label set, and the columns' names.

Every table is keyed by `example_id` (int64), never by position. Labels are int32 indices into the label set,
whose names, words and definitions are in `load/labels.json`. The shards of all verbs have the same names
(`part-00003.parquet` of predictions holds exactly the examples of `part-00003.parquet` of examples), so that
work is divided, resumed and joined shard by shard in constant memory.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.class_names import ClassNames
from rayclean.errors import ConfigError

SPLIT_TRAIN, SPLIT_DEV, SPLIT_TEST = "train", "dev", "test"

EXAMPLES = pa.schema(
    [("example_id", pa.int64()), ("text", pa.string()), ("given_label", pa.int32()), ("split", pa.string())]
)
"""`load/examples/` (split train or dev) and `load/test/` (split test, where given_label may be null)."""

TRUTH = pa.schema([("example_id", pa.int64()), ("true_label", pa.int32())])
"""`load/truth/`: true labels, for evaluation alone. true_label is null where the truth is not known."""

FormName = Literal["class", "classes", "tags"]
"""What a label is in a table: one class, a set of classes, or a tag for each token."""

LABEL_TYPES: dict[FormName, pa.DataType] = {
    "class": pa.int32(),  # index of the class
    "classes": pa.list_(pa.int32()),  # sorted indices of the classes that apply; [] = none of them
    "tags": pa.list_(pa.int32()),  # one per token: 0 = O, 1 + 2 c = B- of entity class c, 2 + 2 c = I- of c
}
"""Type of `given_label` and `true_label`; null = not known, whatever the form."""


def examples_schema(form: FormName) -> pa.Schema:
    """`load/examples/` and `load/test/` for a form of labels: `EXAMPLES` with labels of its type and, where they are
    tags, a column `tokens`, whose tokens joined by one blank are the text; blanks inside of a token are no-break spaces there.

    >>> examples_schema("tags").names
    ['example_id', 'text', 'tokens', 'given_label', 'split']
    """
    schema = EXAMPLES.set(2, pa.field("given_label", LABEL_TYPES[form]))
    return schema.insert(2, pa.field("tokens", pa.list_(pa.string()))) if form == "tags" else schema


def truth_schema(form: FormName) -> pa.Schema:
    """`load/truth/` for a form of labels: `TRUTH` with labels of its type."""
    return TRUTH.set(1, pa.field("true_label", LABEL_TYPES[form]))


REJECTED = pa.schema(
    [("source", pa.string()), ("row", pa.int64()), ("reason", pa.string()), ("value", pa.string())]
)
"""`load/rejected/`: file, 0-based row in it, why it was rejected, and the offending value's beginning."""


GROUPS = pa.schema([("example_id", pa.int64()), ("group", pa.int64())])
"""`load/groups/`: what an example belongs to, as a hash of `dataset.group`; absent without it."""

FOLDS = pa.schema([
    ("example_id", pa.int64()), ("group", pa.int64()), ("copies", pa.int64()), ("fold", pa.int16()), ("stands", pa.bool_()),
])  # fmt: skip
"""`predict/folds/`: the fold of every example, the number that all examples share which must be in one fold (copies of a
text, or the group that the data name), the number that copies of its text share, and whether it is the one among them that
models learn from."""

TRAINED_LABEL = "trained_label"
"""Column of `train/dynamics/`: the label that an example was trained on, in the form of the task. The method's
`quality` is about this label, which after relabelling need not be the given one."""


def predictions(num_classes: int) -> pa.Schema:
    """`predict/predictions/`: one row per example, with the probabilities of all K classes."""
    return pa.schema(
        [
            ("example_id", pa.int64()),
            ("given_label", pa.int32()),
            ("given_probability", pa.float32()),
            ("predicted_label", pa.int32()),
            ("predicted_probability", pa.float32()),
            ("runner_up_label", pa.int32()),
            ("runner_up_probability", pa.float32()),
            ("margin", pa.float32()),  # given_probability - the highest other probability, in [-1, 1]
            ("fold", pa.int16()),  # the fold whose model did not see the example; -1 in sample or given
            ("probabilities", pa.list_(pa.float32(), num_classes)),
        ]
    )


def features(dim: int) -> pa.Schema:
    """`predict/features/`: one embedding per example, for retrieval and for heads on frozen encoders."""
    return pa.schema([("example_id", pa.int64()), ("features", pa.list_(pa.float32(), dim))])


def findings(detectors: Sequence[str]) -> pa.Schema:
    """`detect/findings/`: the combined quality, and each detector's own quality and vote."""
    combined = [
        ("unit_id", pa.int64()),
        ("example_id", pa.int64()),
        ("given_label", pa.int32()),
        ("suggested_label", pa.int32()),
        ("given_value", pa.string()),  # JSON, where the number of an answer does not say it; else null
        ("suggested_value", pa.string()),
        ("given_probability", pa.float32()),  # of the answers being right, as detection sees it
        ("suggested_probability", pa.float32()),
        ("quality", pa.float32()),  # lower = more likely wrong
        ("suspect", pa.bool_()),
        ("rank", pa.int64()),  # 0 = most doubtful; -1 = not a suspect
        (
            "control",
            pa.int64(),
        ),  # place among the control questions about labels that are as good as known; else -1
        ("reason", pa.string()),
    ]
    by_detector = [
        (f"{kind}_{name}", type_)
        for name in detectors
        for kind, type_ in (("quality", pa.float32()), ("vote", pa.bool_()))
    ]
    return pa.schema([*combined, *by_detector])


LABELS = pa.schema(
    [
        ("unit_id", pa.int64()),
        ("example_id", pa.int64()),
        ("given_label", pa.int32()),
        ("final_label", pa.int32()),
        ("final_value", pa.string()),  # JSON, where the number of an answer does not say it; else null
        (
            "source",
            pa.string(),
        ),  # given (never doubted), kept, changed, referred, abstained, error, unasked, audited, reverted
        (
            "confidence",
            pa.float32(),
        ),  # probability of the final label, against its rival; null where never doubted
        (
            "annotator",
            pa.string(),
        ),  # name of the annotator that decided; null where the label was never doubted
        ("split", pa.string()),
    ]
)
"""`relabel/labels/`: the answer of every unit and its source; then `key`, `file`, `row` (`ORIGINS`), and both labels by name."""


@dataclass(frozen=True)
class Label:
    """One class: index, name, the word that a language model scores for it, and definition ('' if none)."""

    index: int
    name: str
    word: str
    definition: str = ""


@dataclass(frozen=True)
class Candidate:
    """One possible answer to a query; it is known by what it says, never by a position in a label set."""

    value: str
    """The answer as JSON text: the name of a class, in classification."""
    word: str
    """The answer as prompts show it and as a language model scores it."""
    definition: str = ""
    """What the answer means; '' if nobody has said."""

    @classmethod
    def of(cls, label: Label) -> "Candidate":
        """The candidate that stands for a class.

        >>> Candidate.of(Label(1, "SPAM", "spam"))
        Candidate(value='"SPAM"', word='spam', definition='')
        """
        return cls(json.dumps(label.name, ensure_ascii=False), label.word, label.definition)


class LabelSet:
    """The classes of a data set, in index order.

    >>> labels = LabelSet([Label(0, "HAM", "fine"), Label(1, "SPAM", "spam")])
    >>> len(labels), labels[1].word, labels.index("HAM")
    (2, 'spam', 0)
    """

    def __init__(self, labels: Iterable[Label]):
        self.labels = tuple(labels)
        self._classes = ClassNames([label.name for label in self.labels])
        assert [label.index for label in self.labels] == list(range(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Label:
        return self.labels[index]

    def __iter__(self) -> Any:
        return iter(self.labels)

    def index(self, name: str) -> int | None:
        """Index of the class that a person means by a name (`ClassNames.find`), None if it is not in the set."""
        return self._classes.find(name)

    def candidate(self, index: int) -> Candidate:
        """The candidate that stands for the class with an index."""
        return Candidate.of(self.labels[index])

    def in_order(self, indices: Iterable[int]) -> list[int]:
        """Indices in the order in which queries offer their classes: by word, so that a class more, or the
        label set in another order, changes no query about other classes.

        >>> LabelSet([Label(0, "SPORT", "sport"), Label(1, "ART", "art")]).in_order([0, 1])
        [1, 0]
        """
        return sorted(indices, key=lambda index: (self.labels[index].word, self.labels[index].name))

    @property
    def names(self) -> list[str]:
        """All names, in index order."""
        return [label.name for label in self.labels]

    def described(self, words: Mapping[str, str], definitions: Mapping[str, str]) -> "LabelSet":
        """The same classes with the words and definitions of a config: rewording a prompt re-reads no data.

        Raises:
            ConfigError: a word or definition for a label that is not in the set, or two for one label.
        """
        word, definition = self._by_index("words", words), self._by_index("definitions", definitions)
        return LabelSet(
            replace(label, word=word.get(label.index, label.name), definition=definition.get(label.index, ""))
            for label in self.labels
        )

    def _by_index(self, section: str, by_name: Mapping[str, str]) -> dict[int, str]:
        found = {self._classes.require(name, f"dataset.{section}"): text for name, text in by_name.items()}
        if len(found) < len(by_name):
            raise ConfigError(f"dataset.{section}: two of {list(by_name)} are one class; keep one text")
        return found

    def to_json(self) -> str:
        """The content of `load/labels.json`."""
        return json.dumps([asdict(label) for label in self.labels], indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "LabelSet":
        """Inverse of `to_json`."""
        return cls(Label(**row) for row in json.loads(text))


def matrix(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float32]:
    """A fixed-size-list column as an array [rows, size], without a copy where Arrow allows it."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    size = array.type.list_size
    return np.asarray(array.flatten().to_numpy(zero_copy_only=False)).reshape(-1, size)


def list_column(values: npt.NDArray[np.float32]) -> pa.Array:
    """An array [rows, size] as a fixed-size-list column."""
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


UNANSWERED, ABSTAINED = -1, -2
"""Values in the place of a queried example's label. UNANSWERED: no answer came, because the budget ended or the annotator
failed. ABSTAINED: the annotator did not choose, or its answer does not decide."""


@dataclass(frozen=True)
class MethodQueries:
    """The queries of a training method before one epoch, as plain arrays.

    Training makes them and annotators answer them; neither package imports the other, and both see this module.
    """

    ids: npt.NDArray[np.int64]
    """[Q] `example_id` of the queried examples, the most wanted first."""
    given: npt.NDArray[np.int64]
    """[Q] given labels of the queried examples."""
    predicted: npt.NDArray[np.int64]
    """[Q] labels that the networks suggest, other than the given ones."""
    log_odds: npt.NDArray[np.float64]
    """[Q] log P(predicted) - log P(given), by the networks."""
    neighbours: npt.NDArray[np.int64]
    """[Q, M] `example_id` of the demonstrations, the most similar first; -1 = none. Their texts and the query's all differ."""
    neighbour_labels: npt.NDArray[np.int64]
    """[Q, M] labels that the demonstrations show."""
    similarity: npt.NDArray[np.float32]
    """[Q, M] cosine similarity of demonstration and query; NaN where demonstrations were drawn at random."""
    candidates: Literal["binary", "all"]
    """Possible answers: the given and the predicted label, or every label."""
    accept: float
    """Least probability that `predicted` is right, by networks and answer together, for it to be the answer."""
