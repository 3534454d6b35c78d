"""What the models made of an example: `predict`, `detect` and `train`."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from rayclean.folder import Folder
from rayclean.functional.lookup import lookup_values
from rayclean.functional.neighbours import NearestNeighbours
from rayclean.hashing import text_group
from rayclean.schema import TRAINED_LABEL, matrix
from rayclean.stories.events import (
    DetectorSays,
    Event,
    Judged,
    Neighbours,
    Predicted,
    Probability,
    Related,
    Trained,
)
from rayclean.stories.subject import Subject, rows_in

LIKELIEST = 3
"""Answers that a prediction lists."""
COPIES = 10
"""Copies of a text that are listed."""
ALL_EXPERTS = "all"
"""Who predicts by the table `predictions/`: the mean of all experts."""


def learning_events(subject: Subject, neighbours: int) -> Iterator[Event]:
    """What `predict` and `detect` know of an example.

    Args:
        subject: the example.
        neighbours: number of nearest neighbours to look for; 0: none.
    """
    predict = subject.done("predict")
    if predict is not None:
        yield from _related(subject, predict)
        yield from _predicted(subject, predict, ALL_EXPERTS, "predictions")
        for expert in predict.names("experts"):  # where somebody kept them: `predict` removes them at its end
            yield from _predicted(subject, predict, expert, "experts", expert)
        if neighbours:
            yield from _neighbours(subject, predict, neighbours)
    detect = subject.done("detect")
    if detect is not None:
        yield from _judged(subject, detect)


def training_events(subject: Subject) -> Iterator[Event]:
    """What the final training knows of an example; a test example or one that no fold trains on has no such event."""
    train = subject.done("train")
    if train is None:
        return
    for shard, table in train.rows_with("dynamics", "example_id", [subject.example_id]):
        row = table.to_pylist()[0]
        label, quality = row.pop(TRAINED_LABEL), row.pop("quality", None)
        yield Trained(
            method=str(subject.metrics("train").get("method", "")),
            label=subject.written(label) or "",
            quality=quality,
            columns=_columns(row),
            epochs={
                int(name.removeprefix("epoch-")): _columns(epoch)
                for name in train.names("epochs")
                for epoch in rows_in(
                    train, ("epochs", name, shard), "example_id", [subject.example_id]
                ).to_pylist()
                if _columns(epoch)
            },
        )


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    """The method's columns of a row, without what every training keeps."""
    return {name: value for name, value in row.items() if name not in ("example_id", "given_label")}


def _related(subject: Subject, predict: Folder) -> Iterator[Event]:
    own = subject.row(predict, "folds")
    if own is None:
        return
    copies, group = (
        _others(subject, predict, "copies", own["copies"]),
        len(_others(subject, predict, "group", own["group"])),
    )
    if copies or group:
        shown = subject.relatives(dict.fromkeys(copies[:COPIES]))
        yield Related(copies=len(copies), group=group, learnt_from=own["stands"], shown=shown)


def _others(subject: Subject, predict: Folder, column: str, number: int) -> list[int]:
    """Sorted ids of the other examples with a number in a column of `folds/`."""
    tables = predict.rows_with("folds", column, [number], columns=["example_id"])
    found = {each for _, table in tables for each in table["example_id"].to_pylist()}
    return sorted(found - {subject.example_id})


def _predicted(subject: Subject, predict: Folder, by: str, *parts: str) -> Iterator[Event]:
    rows = rows_in(predict, (*parts, subject.shard), "example_id", [subject.example_id])
    if not len(rows) or (rows["given_label"].null_count and not subject.task.units_are_examples):
        return  # the answers about a part are told by the label that was given
    fold = rows["fold"][0].as_py() if "fold" in rows.column_names else -1
    values = subject.task.unit_probabilities(rows).astype(np.float64)
    for unit, row in zip(subject.units, values, strict=True):
        order = [answer for answer in np.argsort(-row, kind="stable").tolist() if row[answer] > 0]
        shown = order[:LIKELIEST]
        if unit.given_label is not None and unit.given_label not in shown:
            shown.append(unit.given_label)
        yield Predicted(
            part=unit.part,
            by=by,
            mode=subject.metrics("predict").get("mode"),
            fold=fold if fold >= 0 else None,
            likeliest=tuple(Probability(subject.names[answer], float(row[answer])) for answer in shown),
        )


def _neighbours(subject: Subject, predict: Folder, count: int) -> Iterator[Event]:
    """The nearest examples that are no copies of the text, one shard of features in memory at a time."""
    own = subject.row(predict, "features" if subject.table == "examples" else "test_features")
    if own is None:
        return
    group = np.array([text_group(subject.text)], dtype=np.int64)
    search = NearestNeighbours(np.array([own["features"]], dtype=np.float32), group, count)
    for shard in predict.shards("features"):
        table = predict.read_table("features", shard)
        ids = table["example_id"].to_numpy()
        groups = ids
        if predict.exists("folds", shard):
            folds = predict.read_table("folds", shard, columns=["example_id", "copies"])
            groups = lookup_values(folds["example_id"].to_numpy(), folds["copies"].to_numpy(), ids)
        groups = np.where(ids == subject.example_id, group, groups)  # it is no neighbour of itself
        search.add(matrix(table["features"]), ids, groups)
    found = dict(zip(search.ids[0].tolist(), search.cosines[0].tolist(), strict=True))
    found.pop(-1, None)
    yield Neighbours(nearest=subject.relatives(found))


def _judged(subject: Subject, detect: Folder) -> Iterator[Event]:
    suspects = subject.metrics("detect").get("suspects")
    for unit, row in subject.unit_rows(detect, "findings"):
        detectors = [name.removeprefix("quality_") for name in row if name.startswith("quality_")]
        yield Judged(
            part=unit.part,
            given=subject.answer(row["given_label"], row["given_value"]) or "",
            given_probability=row["given_probability"],
            suggested=subject.answer(row["suggested_label"], row["suggested_value"]) or "",
            suggested_probability=row["suggested_probability"],
            quality=row["quality"],
            detectors=tuple(
                DetectorSays(name, row[f"quality_{name}"], row[f"vote_{name}"]) for name in detectors
            ),
            suspect=row["suspect"],
            rank=row["rank"] if row["suspect"] else None,
            suspects=suspects,
            control=row["control"] if row["control"] >= 0 else None,
            reason=row["reason"],
        )
