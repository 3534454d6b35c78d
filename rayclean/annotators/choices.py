"""What an annotator chose, its preference for some labels removed, and what it is worth by control questions.

`decisions.py` and `between_epochs.py` decide with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from rayclean.annotators.answers import AnsweredQuery
from rayclean.functional.calibration import choose, probabilities
from rayclean.functional.worth import LEAST_BELIEF, Worth, marginal_bias, underclaimed

_Indices = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What control questions say of an annotator."""

    worth: Worth
    """By controls that count as often as suspects have their labels."""
    asked: int
    """Control questions answered."""
    right: int
    """Of these, rightly."""
    bias: _Floats
    """[K] its preference for each label, to be subtracted from its scores."""
    underclaimed: float
    """What its confidence lacks, in log-odds (`worth.underclaimed`)."""

    def believed(self, confidence: _Floats) -> _Floats:
        """The confidence of its answers, with what it lacks added."""
        inside = np.clip(confidence, LEAST_BELIEF, 1 - LEAST_BELIEF)
        return np.asarray(expit(logit(inside) + self.underclaimed))

    @classmethod
    def nothing(cls, num_classes: int) -> "Measured":
        """What is known of an annotator that answered no control question."""
        return cls(Worth(0, 0), 0, 0, np.zeros(num_classes), 0.0)

    def to_json(self) -> dict[str, Any]:
        """As `relabel` records it; of the biases those of labels that have one."""
        return {
            "controls": {"asked": self.asked, "right": self.right},
            "worth": asdict(self.worth),
            "bias": {str(label): float(self.bias[label]) for label in np.flatnonzero(self.bias)},
            "underclaimed": self.underclaimed,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any], num_classes: int) -> "Measured":
        """What `to_json` wrote, which may stand among further keys."""
        bias = np.zeros(num_classes)
        for label, value in found["bias"].items():
            bias[int(label)] = value
        return cls(
            Worth(**found["worth"]), **found["controls"], bias=bias, underclaimed=found["underclaimed"]
        )


@dataclass(frozen=True)
class Choices:
    """What an annotator chose, its bias removed, for B answers."""

    label: _Indices
    """[B] chosen label; -1 for a tie."""
    confidence: _Floats
    """[B] probability of it among the candidates."""
    scores: list[tuple[float, ...]]
    """Raw log-probability of each candidate; () if the annotator gives none."""
    probabilities: list[tuple[float, ...]]
    """Probability of each candidate."""


def choices(answers: Sequence[AnsweredQuery], bias: _Floats) -> Choices:
    """The most probable candidate of each answer by softmax(score - bias).

    Args:
        answers: B answers; one without scores, as from people, has probability 1.
        bias: [K], which is subtracted where an answer has no scores of a content-free text.
    """
    indices, raw, offsets = _candidate_arrays(answers, bias)
    calibrated = probabilities(raw, offsets, indices)
    for row, answer in enumerate(answers):
        if not answer.scores:
            calibrated[row] = indices[row] == answer.choice
    label, confidence = choose(calibrated, indices)
    sizes = [len(answer.candidates) for answer in answers]
    return Choices(
        label,
        confidence,
        [tuple(raw[row, :size].tolist()) if answers[row].scores else () for row, size in enumerate(sizes)],
        [tuple(calibrated[row, :size].tolist()) for row, size in enumerate(sizes)],
    )


def measure_annotator(
    controls: Sequence[AnsweredQuery],
    num_classes: int,
    calibration: str,
    suspects: _Indices | None = None,
) -> Measured:
    """An annotator's bias and worth by its answers to control questions, whose given labels are as good as known.

    Args:
        controls: its answers.
        num_classes: K.
        suspects: [K] number of suspects by given label: a control counts by how often its label is asked about (SmolLM2 was
            right on .92 of the controls of one pair of classes, which no suspect had, and on .58 of the others); None: all
            alike.
        calibration: `controls` measures the bias by them; otherwise there is none (or that of a content-free text, which
            every answer has itself).
    """
    bias = shared_bias(controls, num_classes) if calibration == "controls" else np.zeros(num_classes)
    made = choices(controls, bias)
    given = np.array([answer.given for answer in controls], dtype=np.int64)
    right = made.label == given
    worth = _matched(right, given, suspects, num_classes)
    return Measured(
        worth, len(given), int(right.sum()), bias, underclaimed(made.confidence[made.label >= 0], worth.lower)
    )


def _matched(
    right: npt.NDArray[np.bool_], given: _Indices, suspects: _Indices | None, num_classes: int
) -> Worth:
    """The worth by controls with weights, by the effective number of answers (Kish), rounded.

    Suspects whose label no control has are as well known as a coin.
    """
    if suspects is None or not suspects.sum() or not len(given):
        return Worth(int(right.sum()), len(given))
    asked = np.bincount(given, minlength=num_classes)
    weights = (suspects / np.maximum(asked, 1))[given]
    if not weights.sum():
        return Worth(0, 0)
    known = suspects[asked > 0].sum() / suspects.sum()
    accuracy = known * float((weights * right).sum() / weights.sum()) + (1 - known) / 2
    effective = round(weights.sum() ** 2 / (weights**2).sum())
    return Worth(round(accuracy * effective), effective)


def shared_bias(answers: Sequence[AnsweredQuery], num_classes: int) -> _Floats:
    """The bias [K] under which answers have, on the whole, the shares of the given labels (`worth.marginal_bias`)."""
    answers = [answer for answer in answers if answer.scores and not answer.content_free]
    indices, raw, _ = _candidate_arrays(answers, np.zeros(num_classes))
    share = np.bincount([answer.given for answer in answers], minlength=num_classes) + 1.0
    return marginal_bias(raw, indices, np.where(indices >= 0, share[indices], 0.0), num_classes)


def _candidate_arrays(answers: Sequence[AnsweredQuery], bias: _Floats) -> tuple[_Indices, _Floats, _Floats]:
    """Label indices (-1 = no candidate), raw scores and offsets of the candidates, each [B, C]."""
    shape = (len(answers), max((len(answer.candidates) for answer in answers), default=0) or 1)
    indices = np.full(shape, -1, dtype=np.int64)
    raw, offsets = np.zeros(shape), np.zeros(shape)
    for row, answer in enumerate(answers):
        size = len(answer.candidates)
        indices[row, :size] = answer.candidates
        if answer.scores:
            raw[row, :size] = [answer.scores[label] for label in answer.candidates]
            offsets[row, :size] = [answer.content_free.get(label, bias[label]) for label in answer.candidates]
    return indices, raw, offsets
