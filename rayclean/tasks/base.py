"""The interface of a task: whatever depends on what a label is. Nothing outside `tasks/` asks which task it is.

A *label* is what a data set holds for an example: one class, a set of classes, a sequence of tags.

A *unit* is what is doubted: the example itself, one class of an example, one entity class of an example. Each
unit has a few possible *answers*, which are numbered over the whole data set (`Task.answers`). So detection,
decisions and figures work on the units of any task as they work on the examples of a classification: the
`given_label` of a unit is the number of its answer.

    task              unit                      answers
    classification    the example               the K classes
    multi_label       (example, class)          of each class: it does not apply, it does (2 K in all)
    tagging           (example, entity class)   of each entity class: the spans as given, as the model predicts, or
                                                others (3 C in all)

How further tasks fit: in *sequence generation* a unit is the example, its answers are the reference and the
model's text; in *click-through rate* a unit is the example and its answers are 0, 1 and "drop"; in *object
detection* a unit is (example, class) and its answers are sets of boxes; *hierarchical* labels are classes whose
candidates are siblings and parents.

PyTorch is imported only by the methods that compute with tensors: whoever asks how labels are stored does not
wait for it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.functional.hashing import mix
from rayclean.plugins import Options
from rayclean.schema import LABEL_TYPES, Candidate, FormName, LabelSet
from rayclean.tasks import probabilities as tables

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -1
"""Target in the place of a tag that is not there (padding) or not read: it is in no mean."""
LOWEST_LOGIT = -1000.0
"""Logit of all answers but the first one, whose logit is 0, to a word that was not read: their probability is exactly 0."""


class Task:
    """Base class of all tasks."""

    class Config(Options):
        """Options beside `name`."""

    label_form: ClassVar[FormName]
    """How `load` reads and stores a label."""
    per_token: ClassVar[bool] = False
    """Whether the head answers for each token instead of each example."""
    units_are_examples: ClassVar[bool] = True
    """Whether every example is one unit, whose id is that of the example."""
    candidates_are_labels: ClassVar[bool] = True
    """Whether every candidate of a query is named by one of `answers`; else it is a text of its own."""
    decides_alone: ClassVar[bool] = True
    """Whether the model's probabilities of a unit's answers are known to be right as often as they say, so that they may change
    labels without an annotator or an audit; else all that nobody answers is referred to a person."""
    units_are_called: ClassVar[str] = "examples"
    """Units in words, for people."""

    def __init__(self, config: Any, labels: LabelSet):
        self.config = config
        self.labels = labels

    @property
    def outputs(self) -> int:
        """Numbers that the head gives for an example, or for each token of it."""
        return len(self.labels)

    @property
    def units_per_example(self) -> int:
        """Number of units that `unit_rows` makes of every example."""
        return 1

    @property
    def output_names(self) -> list[str]:
        """Name of each of these numbers; where labels are sequences of tags or sets of classes, of each number in them, too."""
        return self.labels.names

    def targets(self, column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
        """What the head learns from B known labels, [B, ...]; a new array."""
        raise NotImplementedError

    def loss(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Loss [B] of each example.

        Args:
            logits: [B, outputs], or [B, T, outputs] of T tokens.
            targets: of `targets`, on the same device.
        """
        raise NotImplementedError

    def correct(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """How right the likeliest answer to each example is: [B] float, from 0 to 1."""
        raise NotImplementedError

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Probabilities of the head's answers, of the shape of the logits [M, outputs]; computed in float64."""
        raise NotImplementedError

    def prediction_table(
        self,
        ids: npt.NDArray[np.int64],
        given: pa.ChunkedArray | pa.Array,
        probabilities: npt.NDArray[np.float32],
        fold: npt.NDArray[np.int16],
        offsets: npt.NDArray[np.int64] | None = None,
    ) -> pa.Table:
        """A shard of `predictions/`.

        Args:
            ids: [N] ids of the examples.
            given: [N] labels in the form of the task; null where there is none.
            probabilities: [N, outputs]; of all tokens one after another, [M, outputs], where the task answers
                for every token.
            fold: [N] the fold whose network predicted, or `FOLD_NONE`.
            offsets: [N + 1] where the tokens of every example begin, and the end of the last; None where
                the task answers once for a text.
        """
        return tables.list_predictions(ids, given, fold, self.probability_column(probabilities, offsets))

    def probability_column(
        self, probabilities: npt.NDArray[np.float32], offsets: npt.NDArray[np.int64] | None
    ) -> pa.Array:
        """The column `probabilities` [N] of `prediction_table`, whose arguments these are."""
        raise NotImplementedError

    def unread(self, probabilities: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Whether the end of each example [N] was not read where the head answers for each token: the probabilities say
        nothing of it.
        """
        return np.zeros(len(probabilities), dtype=np.bool_)

    @property
    def label_type(self) -> pa.DataType:
        """Arrow's type of an example's label."""
        return LABEL_TYPES[self.label_form]

    def predicted_labels(self, probabilities: pa.ChunkedArray) -> pa.Array:
        """The label [N] that the probabilities of each example stand for."""
        raise NotImplementedError

    @property
    def answers(self) -> LabelSet:
        """All answers of all units, with the words by which prompts name them."""
        return self.labels

    def unit_rows(self, examples: pa.Table, label: str = "given_label") -> pa.Table:
        """The units of some examples, in their order: `unit_id`, `example_id`, `given_label` (the number of the
        answer that the example's label gives; null where it has none), `given_value` (the answer itself as JSON,
        where its number does not say it; else null), and all other columns of the examples.

        Args:
            examples: B rows of `schema.EXAMPLES` or of `schema.TRUTH`.
            label: name of the column with the examples' labels.
        """
        raise NotImplementedError

    def unit_probabilities(self, predictions: pa.Table) -> npt.NDArray[np.float32]:
        """Probabilities [U, A] of all A answers for every unit of `unit_rows`; 0 for answers of other units.

        Args:
            predictions: the columns `example_id`, `given_label` and `probabilities` (of the network, a list for
                each example).
        """
        raise NotImplementedError

    def suggested_values(self, predictions: pa.Table) -> pa.Array:
        """The answer that the model suggests for every unit of `unit_rows`, as JSON, where its number does not
        say it; else null.
        """
        units = self.unit_rows(predictions.select(["example_id", "given_label"]))
        return pa.nulls(len(units), pa.string())

    def candidate(self, answer: int, value: str | None, text: str) -> Candidate:
        """An answer as queries offer it.

        Args:
            answer: its number.
            value: the answer itself as JSON, where its number does not say it.
            text: text of the unit's example.
        """
        return self.answers.candidate(answer)

    def answer_written(self, answer: int, value: str | None, text: str) -> str:
        """An answer as people read it: by its name, or by what it says where the name does not. The arguments are those of
        `candidate`.
        """
        return self.answers[answer].name if value is None else self.candidate(answer, value, text).word

    def true_answers(self, truth: pa.Table, findings: pa.Table) -> pa.Table:
        """The true answer of units whose example's true label is known: `unit_id` and `given_label` (its number).

        Args:
            truth: rows of `schema.TRUTH`, without nulls.
            findings: `unit_id`, `given_value` and `suggested_value` of the same examples' units, in any order.
        """
        return self.unit_rows(truth, "true_label").select(["unit_id", "given_label"])

    def candidates(self, given: int, suggested: int, kind: str) -> list[int]:
        """The possible answers about a suspect in the order in which queries offer them: the given and the
        suggested one (`binary`), or all of the unit (`all`).
        """
        raise NotImplementedError

    def further(self, candidates: Iterable[int]) -> list[int]:
        """The answers of a unit beside some candidates."""
        raise NotImplementedError

    def assemble(self, units: pa.Table, examples: pa.Table) -> pa.Table:
        """The label of every example of whole units: `example_id` and `final_label` in the form that
        `load/examples/` has.

        Args:
            units: `example_id`, `final_label` (numbers of answers) and `final_value` of all units.
            examples: `example_id` and `given_label` of the same examples.
        """
        raise NotImplementedError

    def written(self, label: Any, text: str) -> str:
        """A label as people read it.

        Args:
            label: in the form that `load/examples/` has, as Python has it; not null.
            text: of its example.
        """
        raise NotImplementedError

    def metrics(self, labels: pa.Array, truth: pa.Array) -> dict[str, float]:
        """Quality of N labels against the truth, both in the form that `load/examples/` has."""
        raise NotImplementedError


def unit_table(examples: pa.Table, label: str, each: int, given: pa.Array, values: pa.Array) -> pa.Table:
    """What `Task.unit_rows` returns, for a task that makes the same number of units of every example.

    Args:
        examples: B rows.
        label: name of the column with the examples' labels, which the units do not have.
        each: number of units of an example; U = B x each.
        given: [U] int32, the number of the answer that the label gives.
        values: [U] strings, the answer itself as JSON, or null.
    """
    rest = examples.drop_columns([label]).take(np.repeat(np.arange(len(examples)), each))
    rest = rest.append_column("given_label", given).append_column("given_value", values)
    return rest.add_column(
        0, "unit_id", pa.array(unit_ids(examples["example_id"].to_numpy(), each).reshape(-1))
    )


def unit_ids(example_ids: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Ids [B, count] of the units of examples: a hash of the example and the number of the unit in it."""
    parts = [mix(example_ids, part, "unit").astype(np.uint64).view(np.int64) for part in range(count)]
    return np.stack(parts, axis=1)
