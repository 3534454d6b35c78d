"""What an annotator is worth, by its answers in `answers/`: those to control questions, beside those about suspects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.annotators import ANNOTATORS, relabel_annotators
from rayclean.annotators.answers import AnsweredQuery, answered_query
from rayclean.annotators.choices import Measured, choices, measure_annotator
from rayclean.config import Config
from rayclean.folder import Folder
from rayclean.functional.worth import confirmation_contrast

NOBODY, NEITHER = -1, -2
"""Answers of `decide`: nobody answered; the annotator chose none of the candidates."""

_Columns = dict[str, npt.NDArray[Any]]
_READ = ["unit_id", "rank", "given_label", "suggested_label", "log_odds", "state", "candidates", "choice", "all_scores",
         "content_free"]  # fmt: skip


@dataclass(frozen=True)
class AnsweredStage:
    """The answers of one annotator, as `decide` needs them."""

    measured: Measured
    suspects: Mapping[str, npt.NDArray[Any]]
    """[S] by name: `unit_id`, `given_label`, `suggested_label`, `answer`, `log_odds`, `confidence`; {} without suspects."""


def measure_answers(
    out: Folder,
    stage: str,
    num_classes: int,
    calibration: str,
    suspects: int,
    given: npt.NDArray[np.int64] | None = None,
) -> AnsweredStage:
    """Read `answers/<stage>/`; a few numbers per suspect are in memory.

    Args:
        out: folder of `relabel`.
        stage: name of the annotator's sub-folders.
        num_classes: number of answers K.
        calibration: `none`, `controls` or `content_free`.
        suspects: number of suspects; a row of a higher rank is a question beyond them (`beyond.py`).
        given: [K] number of suspects by given label; None: of those that are in the files.
    """
    names = out.shards("answers", stage)
    controls: list[AnsweredQuery] = []
    rivals: list[int] = []
    counted = np.zeros(num_classes, dtype=np.int64)
    for name in names:
        table = out.read_table("answers", stage, name, columns=_READ)
        ranks, labels = table["rank"].to_numpy(), table["given_label"].to_numpy()
        counted += np.bincount(labels[(ranks >= 0) & (ranks < suspects)], minlength=num_classes)
        for row in table.filter(pa.array(ranks < 0)).to_pylist():
            answer = answered_query(row)
            if answer is not None:
                controls.append(answer)
                rivals.append(row["suggested_label"])
    measured = measure_annotator(controls, num_classes, calibration, counted if given is None else given)
    parts = [
        _suspects(out.read_table("answers", stage, name, columns=_READ), measured, suspects) for name in names
    ]
    every = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}
    if every:
        contrast = _contrast(controls, rivals, measured, every, num_classes)
        measured = replace(measured, worth=replace(measured.worth, contrast=contrast))
    return AnsweredStage(measured, every)


def _suspects(table: pa.Table, measured: Measured, suspects: int) -> _Columns:
    """The suspects of one file of answers."""
    rows = [row for row in table.to_pylist() if 0 <= row["rank"] < suspects]
    label, confidence = answers_to_decide_by([answered_query(row) for row in rows], measured)
    found: _Columns = {
        key: np.array([row[key] for row in rows], dtype=np.int64)
        for key in ("unit_id", "given_label", "suggested_label")
    }
    log_odds = np.array([row["log_odds"] for row in rows], dtype=np.float64)
    return found | {"answer": label, "log_odds": log_odds, "confidence": confidence}


def answers_to_decide_by(
    answers: Sequence[AnsweredQuery | None], measured: Measured
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """What each answer says [B], `NOBODY` or `NEITHER` where it is for no label, and the confidence in it [B].

    Args:
        answers: B answers; None where there is none.
        measured: of their annotator.
    """
    made = choices([answer for answer in answers if answer is not None], measured.bias)
    answered = np.array([answer is not None for answer in answers], dtype=bool)
    label, confidence = np.full(len(answers), NOBODY), np.ones(len(answers))
    label[answered] = np.where(made.label >= 0, made.label, NEITHER)
    confidence[answered] = measured.believed(made.confidence)
    return label, confidence


def measured_for_methods(
    config: Config, judged: Sequence[Mapping[str, Any]], num_classes: int
) -> Measured | None:
    """What `relabel` measured of `config.annotator`, which methods ask while they train.

    Control questions to another annotator, or to the same one with other options, say nothing of it. None: control questions
    cannot measure it (`Annotator.independent`), and whoever names it for a method wants what it says.

    Args:
        config: config of the run.
        judged: what `relabel` recorded of each annotator, in the order of `relabel_annotators`; () if it has not run.
        num_classes: number of classes K.
    """
    if not ANNOTATORS.resolve(config.annotator.name).independent:
        return None
    for plugin, each in zip(relabel_annotators(config), judged, strict=False):
        if plugin == config.annotator and each["controls"]["asked"]:
            return Measured.from_json(each, num_classes)
    return Measured.nothing(num_classes)


def remark_on(name: str, measured: Measured | None) -> str | None:
    """What to know of an annotator whose answers to a method count for nothing, or unmeasured; None otherwise."""
    nobody = "it is not asked, and the method's questions count as abstained from"
    if measured is None:
        return f"control questions cannot measure {name}: its answers count where it is sure itself (method.accept)"
    if not measured.asked:
        return (
            f"nothing is known of {name}, which answered no control question of relabel: {nobody}. Have relabel ask it "
            "(relabel.controls, relabel.annotators)"
        )
    if not measured.worth.above_chance:
        return f"{name} was no better than chance at relabel's control questions: {nobody}"
    return None


def _contrast(
    controls: Sequence[AnsweredQuery],
    rivals: Sequence[int],
    measured: Measured,
    suspects: _Columns,
    num_classes: int,
) -> float:
    """The p-value of `confirmation_contrast`; answers for neither of the two labels are left out."""
    given = np.array([answer.given for answer in controls], dtype=np.int64)
    sides = (
        (given, np.array(rivals, dtype=np.int64), choices(controls, measured.bias).label),
        (suspects["given_label"], suspects["suggested_label"], suspects["answer"]),
    )
    columns: list[npt.NDArray[Any]] = []
    for labels, others, answers in sides:
        of_both = (answers == labels) | (answers == others)
        columns += [(labels * num_classes + others)[of_both], (answers == labels)[of_both]]
    return confirmation_contrast(*columns)
