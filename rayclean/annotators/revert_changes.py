"""What `rayclean revert` does: choose changes of labels, record that they are reverted, and compute the labels anew."""

from collections.abc import Sequence

import numpy as np

from rayclean.annotations import SuspectRanking
from rayclean.annotators.final_labels import label_changes, write_labels
from rayclean.annotators.reverts import Reverts, write_reverts
from rayclean.errors import ConfigError
from rayclean.functional.types import Bools
from rayclean.origins import Origins
from rayclean.plugins import did_you_mean
from rayclean.run import Run
from rayclean.schema import LabelSet
from rayclean.tasks.base import Task


def revert_label_changes(
    run: Run,
    task: Task,
    *,
    example_ids: Sequence[int] | None = None,
    keys: Sequence[str] | None = None,
    rows: Sequence[tuple[str, int]] | None = None,
    below: float | None = None,
    from_label: str | None = None,
    to_label: str | None = None,
    annotator: str | None = None,
    everything: bool = False,
    undo: bool = False,
) -> dict[str, int]:
    """Revert changes of labels, or apply reverted ones again (`undo`), and recompute the labels.

    A change is selected if it meets all given criteria; examples may be named in three ways, and those of all three count.
    Without keys of the user (`dataset.id`) identical texts with the same given label are reverted together.

    Args:
        run: the run, with a finished relabel.
        task: the run's task.
        example_ids: only these examples.
        keys: only the examples with these keys of the user.
        rows: only the examples that came from these rows, each a file and the 0-based row in it.
        below: only changes with a confidence below this.
        from_label: only changes away from this given label (its name).
        to_label: only changes to this label.
        annotator: only changes that this annotator (as the config names it) or this auditor decided.
        everything: whether to select all changes; required without other criteria.
        undo: whether to apply the selected reverted changes again.

    Returns:
        `reverted`: number of labels that this call reverted (or applied again); `copies`: of these, those that nobody
            selected, whose texts and labels are identical to selected ones; `changed`: number of remaining changes.

    Raises:
        ConfigError: nothing is selected, or an example, a label or an annotator does not exist.
    """
    criteria = (example_ids, keys, rows, below, from_label, to_label, annotator)
    if not everything and all(criterion is None for criterion in criteria):
        raise ConfigError(
            "say what to revert: keys, rows of files, example ids, a confidence, a label to or from which, an annotator, or "
            "everything (--all)"
        )
    relabel = run.require("relabel")
    suspects = SuspectRanking.read(relabel)
    selected = suspects.decided("changed")
    origins = Origins(run.require("load"))
    if example_ids is not None or keys is not None or rows is not None:
        selected &= _is_named(run, suspects, origins, example_ids or (), keys or (), rows or ())
    if below is not None:
        selected &= suspects.certainty < below
    if from_label is not None:
        selected &= suspects.given == _index(task.answers, from_label)
    if to_label is not None:
        selected &= suspects.suggested == _index(task.answers, to_label)
    if annotator is not None:
        selected &= _is_decided_by(suspects, annotator)
    every = label_changes(run, suspects, suspects.decided("changed"), task)
    wanted = set(suspects.unit_id[selected].tolist())
    reverts = Reverts.read(run, origins.keyed)
    undone = {change.unit_id for change in every if reverts.undoes(change)}
    changes = [change for change in every if change.unit_id in wanted and (change.unit_id in undone) == undo]
    if changes:
        write_reverts(run, changes, undo=undo, keyed=origins.keyed)
        write_labels(run, relabel, task)
    reverts = Reverts.read(run, origins.keyed)
    now = {change.unit_id for change in every if reverts.undoes(change)}
    moved = now ^ undone
    return {"reverted": len(moved), "copies": len(moved - wanted), "changed": len(every) - len(now)}


def _is_named(
    run: Run,
    suspects: SuspectRanking,
    origins: Origins,
    example_ids: Sequence[int],
    keys: Sequence[str],
    rows: Sequence[tuple[str, int]],
) -> Bools:
    """Which suspects belong to examples that were named [S].

    Raises:
        ConfigError: an example does not exist, or its label was not changed.
    """
    changed = set(suspects.example_id[suspects.decided("changed")].tolist())
    named = {
        **{example: f"example {example}" for example in example_ids},
        **{example: f"key {key!r}" for key in keys for example in origins.by_key([key])},
        **{example: f"{file} row {row}" for file, row in rows for example in origins.by_row([(file, row)])},
    }
    for example, name in named.items():
        if example not in changed:
            raise ConfigError(
                f"{name}: its label was not changed, so there is nothing to revert; `rayclean export RUN --to changed.csv --only "
                f"changed` lists the changes (and {run.require('relabel').url('annotations')} all decisions)"
            )
    return np.isin(suspects.example_id, np.fromiter(named, dtype=np.int64))


def _is_decided_by(suspects: SuspectRanking, annotator: str) -> Bools:
    """Which suspects an annotator or an auditor decided [S].

    Raises:
        ConfigError: nobody of this name decided anything.
    """
    names = sorted({each for each in suspects.annotator.tolist() if each is not None})
    if annotator not in names:
        raise ConfigError(f"annotator {annotator!r} decided about no label: {did_you_mean(annotator, names)}")
    return np.asarray(suspects.annotator == annotator)


def _index(labels: LabelSet, name: str) -> int:
    """The index of a label name.

    Raises:
        ConfigError: the label does not exist.
    """
    index = labels.index(name)
    if index is None:
        raise ConfigError(f"unknown label {name!r}: {did_you_mean(name, labels.names)}")
    return index
