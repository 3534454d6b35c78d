"""Sequence tagging: a label is a tag for each token, which mark spans of C entity classes; of each class it is
doubted whether its spans are right.

The tags are those of the scheme BIO (Ramshaw & Marcus, "Text Chunking using Transformation-Based Learning", 1995, in
the form of CoNLL-2002): 0 = O, outside of all spans; 1 + 2 c = B-, the first token of a span of entity class c;
2 + 2 c = I-, a further token of it.
"""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.functional.spans import Span, span_scores, spans_of, tags_of
from rayclean.schema import Candidate, Label, LabelSet
from rayclean.tasks import probabilities as tables
from rayclean.tasks.base import IGNORED, LOWEST_LOGIT, Task, unit_table

if TYPE_CHECKING:
    from torch import Tensor

GIVEN, PREDICTED, OTHER = range(3)
"""Answers of a unit: its spans are those that were given, those that the model predicts, or others."""


class Tagging(Task):
    """A tag per token. The labels are the entity classes; the head has one number per tag. A unit is (example,
    entity class c); its answers are 3 c (`GIVEN`), 3 c + 1 (`PREDICTED`) and 3 c + 2 (`OTHER`), and their values are
    the spans as JSON. The tokens are the words of the text between single blanks: `load` leaves no blank inside of one.
    """

    label_form = "tags"
    per_token = True
    units_are_examples = False
    candidates_are_labels = False
    # Means over tokens rank sentences, but are no probabilities of whole spans: on Yoruba news with tags by gazetteers one in
    # five of the suggestions was right that the model was surest of.
    decides_alone = False
    units_are_called = "entity classes of sentences"

    @property
    def outputs(self) -> int:
        """1 + 2 C: O, and B- and I- of each entity class."""
        return 1 + 2 * len(self.labels)

    @property
    def units_per_example(self) -> int:
        """C: one per entity class."""
        return len(self.labels)

    @property
    def output_names(self) -> list[str]:
        """`O`, `B-PER`, `I-PER`, ..."""
        return ["O", *(f"{mark}-{name}" for name in self.labels.names for mark in "BI")]

    def targets(self, column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Tags [B, T], T tokens of the longest text, at least one; -1 behind the end of shorter ones."""
        lengths, values = tables.list_parts(column)
        tags = np.full((len(lengths), int(lengths.max(initial=1))), IGNORED, dtype=np.int64)
        tags[np.arange(tags.shape[1]) < lengths[:, None]] = values
        return tags

    def loss(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Mean over the tokens of cross-entropy; 0 for a text without a token that counts."""
        from torch.nn import functional as F

        each = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
        return each.sum(1) / (targets != IGNORED).sum(1).clamp(min=1)

    def correct(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Share of the tokens whose likeliest tag is right; 1 for a text without a token that counts."""
        counts = targets != IGNORED
        wrong = ((logits.argmax(-1) != targets) & counts).sum(1)
        return 1 - wrong.float() / counts.sum(1).clamp(min=1)

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Softmax over the tags. P(O) is 1 only of tokens that were not read: of others the greatest float32 below 1, to
        which softmax would round up where the network is sure.
        """
        found = tables.softmax(logits)
        read = (logits[:, 0] != 0) | (logits[:, 1:] != LOWEST_LOGIT).any(axis=1)
        found[read, 0] = np.minimum(found[read, 0], np.nextafter(np.float32(1), np.float32(0)))
        return found

    def probability_column(
        self, probabilities: npt.NDArray[np.float32], offsets: npt.NDArray[np.int64] | None
    ) -> pa.Array:
        """A list of one list per token, the probability of each tag."""
        assert offsets is not None
        starts = np.arange(len(probabilities) + 1) * self.outputs
        tokens = pa.ListArray.from_arrays(starts.astype(np.int32), pa.array(probabilities.reshape(-1)))
        return pa.ListArray.from_arrays(offsets.astype(np.int32), tokens)

    @property
    def answers(self) -> LabelSet:
        """`PER as given`, `PER as predicted`, `other PER`, ...: 3 C of them."""
        found = []
        for label in self.labels:
            names = f"{label.name} as given", f"{label.name} as predicted", f"other {label.name}"
            found += [
                Label(3 * label.index + kind, name, name, label.definition) for kind, name in enumerate(names)
            ]
        return LabelSet(found)

    def unread(self, probabilities: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Whether P(O) of the last token is 1."""
        column = probabilities.combine_chunks()
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        outside = column.flatten().flatten().to_numpy(zero_copy_only=False)[:: self.outputs]
        found = lengths > 0
        found[found] = outside[np.cumsum(lengths)[found] - 1] == 1.0
        return np.asarray(found)

    def predicted_labels(self, probabilities: pa.ChunkedArray) -> pa.Array:
        """The most probable tag of each token, made whole: an I- that follows nothing of its class begins a span."""
        tags = [np.argmax(row, axis=-1).tolist() if row else [] for row in probabilities.to_pylist()]
        return pa.array([tags_of(spans_of(row), len(row)) for row in tags], self.label_type)

    def unit_rows(self, examples: pa.Table, label: str = "given_label") -> pa.Table:
        """C rows per example, by example and entity class; `given_value` are the spans of the label."""
        classes = self.units_per_example
        values: list[str | None] = []
        for tags in examples[label].to_pylist():
            values += [None] * classes if tags is None else _values(tags, classes)
        codes = np.tile(3 * np.arange(classes, dtype=np.int32) + GIVEN, len(examples))
        unknown = np.array([value is None for value in values], dtype=bool)
        given = pa.array(codes, pa.int32(), mask=unknown)
        return unit_table(examples, label, classes, given, pa.array(values, pa.string()))

    def unit_probabilities(self, predictions: pa.Table) -> npt.NDArray[np.float32]:
        """[N C, 3 C]: of a class whose spans are predicted as given, P(given) = (1 + q) / 2, else q / 2, where q is the
        geometric mean of the probabilities of the given tags, over the tokens of the given and the predicted spans;
        where there is no span, of "no tag of the class", over all tokens. The rest is P(predicted).
        """
        classes = len(self.labels)
        found = np.zeros((len(predictions), classes, 3 * classes), dtype=np.float32)
        for row, (tags, p) in enumerate(self._sentences(predictions)):
            given, predicted = (_spans_by_class(each, classes) for each in (tags, _suggested_tags(p, tags)))
            for c in range(classes):
                q = _label_probability(p, tags, c, [*given[c], *predicted[c]])
                found[row, c, 3 * c + GIVEN] = ((1 + q) if given[c] == predicted[c] else q) / 2
                found[row, c, 3 * c + PREDICTED] = 1 - found[row, c, 3 * c + GIVEN]
        return found.reshape(-1, 3 * classes)

    def suggested_values(self, predictions: pa.Table) -> pa.Array:
        """The predicted spans of each class."""
        values: list[str] = []
        for tags, p in self._sentences(predictions):
            values += _values(_suggested_tags(p, tags), len(self.labels))
        return pa.array(values, pa.string())

    def _sentences(self, predictions: pa.Table) -> Iterator[tuple[list[int], npt.NDArray[np.float64]]]:
        """The given tags of every example, and the probabilities [T, outputs] of its T tokens."""
        column = predictions["probabilities"].combine_chunks()
        values = column.flatten().flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        parts = np.split(values.reshape(-1, self.outputs), np.cumsum(lengths)[:-1])
        yield from zip(predictions["given_label"].to_pylist(), parts, strict=True)

    def candidate(self, answer: int, value: str | None, text: str) -> Candidate:
        """The text with the spans of the answer in brackets: `[PER Ada Lovelace] met [PER Babbage]`."""
        if value is None:
            return self.answers.candidate(answer)
        label = self.labels[answer // 3]
        words = text.split(" ")
        for start, stop in json.loads(value):
            words[start] = f"[{label.word} {words[start]}"
            words[stop - 1] += "]"
        return Candidate(value, " ".join(words), label.definition)

    def true_answers(self, truth: pa.Table, findings: pa.Table) -> pa.Table:
        """As given, as predicted or other, by the spans themselves."""
        units = self.unit_rows(truth, "true_label")
        columns = (findings[name].to_pylist() for name in ("unit_id", "given_value", "suggested_value"))
        known = {unit: (given, predicted) for unit, given, predicted in zip(*columns, strict=True)}
        codes = []
        for unit, code, value in zip(*(units[name].to_pylist() for name in _UNIT_COLUMNS), strict=True):
            given, predicted = known.get(unit, (None, None))
            kind = GIVEN if value == given else PREDICTED if value == predicted else OTHER
            codes.append(code - GIVEN + kind)
        return pa.table({"unit_id": units["unit_id"], "given_label": pa.array(codes, pa.int32())})

    def candidates(self, given: int, suggested: int, kind: str) -> list[int]:
        """The spans as given, and as predicted."""
        return [given - given % 3 + GIVEN, given - given % 3 + PREDICTED]

    def further(self, candidates: Iterable[int]) -> list[int]:
        """None: other spans are no candidates."""
        return []

    def assemble(self, units: pa.Table, examples: pa.Table) -> pa.Table:
        """The spans of all classes together; where changed spans of two classes overlap, both classes keep what was
        given.
        """
        changed: dict[int, dict[int, list[Span]]] = {}
        columns = (units[name].to_pylist() for name in ("example_id", "final_label", "final_value"))
        for example, code, value in zip(*columns, strict=True):
            if code % 3 == PREDICTED:
                spans = [Span(start, stop, code // 3) for start, stop in json.loads(value)]
                changed.setdefault(example, {})[code // 3] = spans
        labels = []
        for example, tags in zip(
            *(examples[n].to_pylist() for n in ("example_id", "given_label")), strict=True
        ):
            labels.append(_merged(tags, changed.get(example, {})))
        return pa.table(
            {"example_id": examples["example_id"], "final_label": pa.array(labels, self.label_type)}
        )

    def written(self, label: Any, text: str) -> str:
        """The text with all spans in brackets."""
        words = text.split(" ")
        for span in spans_of(label):
            words[span.start] = f"[{self.labels[span.kind].name} {words[span.start]}"
            words[span.stop - 1] += "]"
        return " ".join(words)

    def metrics(self, labels: pa.Array, truth: pa.Array) -> dict[str, float]:
        """Share of sentences whose tags are all right (`accuracy`), and F1 of whole spans (start, end and class), as
        the evaluation of CoNLL-2003 counts them: micro (`f1_span`), and the mean over the classes, plain and weighted
        by the true spans.
        """
        pairs = list(zip(labels.to_pylist(), truth.to_pylist(), strict=True))
        found = [spans_of(one) for one, _ in pairs]
        true = [spans_of(other) for _, other in pairs]
        scores = span_scores(found, true, len(self.labels))
        exact = [one == other for one, other in zip(found, true, strict=True)]
        return {"accuracy": float(np.mean(exact)) if exact else 0.0, **scores}


_UNIT_COLUMNS = ("unit_id", "given_label", "given_value")


def _spans_by_class(tags: list[int], classes: int) -> list[list[Span]]:
    """The spans of every entity class, in their order."""
    found: list[list[Span]] = [[] for _ in range(classes)]
    for span in spans_of(tags):
        found[span.kind].append(span)
    return found


def _values(tags: list[int], classes: int) -> list[str]:
    """The spans of every entity class as JSON: [[start, stop], ...]."""
    each = _spans_by_class(tags, classes)
    return [json.dumps([[span.start, span.stop] for span in spans]) for spans in each]


def _suggested_tags(p: npt.NDArray[np.float64], tags: list[int]) -> list[int]:
    """The most probable tags; of tokens behind the end of what the network reads, whose probability of O is
    exactly 1, the given ones: it says nothing of them.
    """
    unread = p[:, 0] == 1.0
    best = p.argmax(axis=1).tolist()
    return [given if gone else tag for given, gone, tag in zip(tags, unread, best, strict=True)]


def _label_probability(p: npt.NDArray[np.float64], tags: list[int], kind: int, spans: list[Span]) -> float:
    """Geometric mean of the probabilities of the given tags over the tokens of some spans; without spans, of the
    tokens being outside of the class.
    """
    if len(p) == 0:
        return 1.0
    read = p[:, 0] < 1.0
    rows = sorted({row for span in spans for row in range(span.start, span.stop) if read[row]})
    if rows:
        values = p[rows, [tags[row] for row in rows]]
    else:
        values = 1 - p[:, 1 + 2 * kind] - p[:, 2 + 2 * kind]
    return float(np.exp(np.log(np.clip(values, 1e-9, 1.0)).mean()))


def _merged(tags: list[int], changed: dict[int, list[Span]]) -> list[int]:
    """The tags with the spans of some classes replaced, as far as no two classes then overlap."""
    kept = [span for span in spans_of(tags) if span.kind not in changed]
    given = {kind: [span for span in spans_of(tags) if span.kind == kind] for kind in changed}
    accepted = dict(changed)
    while True:
        spans = [*kept, *(span for kind in accepted for span in accepted[kind])]
        owner: dict[int, int] = {}
        clash: set[int] = set()
        for span in spans:
            for token in range(span.start, span.stop):
                other = owner.setdefault(token, span.kind)
                if other != span.kind:
                    clash |= {other, span.kind}
        back = {kind for kind in clash if kind in accepted and accepted[kind] != given[kind]}
        if not back:
            return tags_of(spans, len(tags))
        for kind in back:
            accepted[kind] = given[kind]
