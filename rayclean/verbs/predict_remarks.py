"""What `predict` says of its predictions: figures that cannot be true, and classes with too few texts for the folds."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from rayclean.config import Config, PredictConfig
from rayclean.errors import DataError
from rayclean.folder import Folder
from rayclean.functional.agreement import (
    chance_agreement,
    is_below_chance,
    is_no_better_than_chance,
    likely_order,
)
from rayclean.functional.types import Ids, Ints
from rayclean.models.loading import encoder_class
from rayclean.origins import Origins
from rayclean.tasks.base import Task

_MOST_CLASSES = 2000
"""With more classes the predictions are not compared with the labels class by class, which takes K x K numbers."""
_MOST_NAMED = 10
"""Rare classes that are named."""
_ANY_LENGTH = 10**9
"""Tokenizers that know no limit of their model say a far greater number."""

_Mapper = Callable[[Callable[[str], Any], Iterable[str]], Iterator[Any]]


def check_divisible(settings: PredictConfig, folds: Folder) -> None:
    """Stop if no network can predict what it has not seen, as all examples belong together.

    Raises:
        DataError: they do.
    """
    seen: set[int] = set()
    examples = 0
    for shard in folds.shards() if settings.mode == "out_of_fold" else ():
        groups = folds.read_table(shard, columns=["group"])["group"].to_numpy()
        examples += len(groups)
        seen.update(np.unique(groups)[:2].tolist())
        if len(seen) > 1:
            return
    if examples > 1:
        raise DataError(
            f"all {examples:,} examples have the same text or belong to one group, so none can be held out and predicted by "
            "a network trained on others, and no label can be learnt; check dataset.text and dataset.group"
        )


def check_agreement(
    settings: PredictConfig, predictions: Folder, mapper: _Mapper, names: Sequence[str]
) -> list[str]:
    """Compare the predictions with the given labels.

    Args:
        settings: of `predict`.
        predictions: folder of `predictions/`, of labels that are one class.
        mapper: reads the shards.
        names: [K] of the classes.

    Returns:
        Alarms, if predictions agree with no more labels than guesses would, or another order of the classes would explain
        the labels far better.

    Raises:
        DataError: the columns of given probabilities are likely in another order, and the config does not say which.
    """
    if len(names) > _MOST_CLASSES:
        return []
    flat = np.zeros(len(names) ** 2, dtype=np.int64)
    for cells, counts in mapper(partial(_cells, predictions.url(), len(names)), predictions.shards()):
        flat[cells] += counts
    confusion = flat.reshape(len(names), len(names))
    order = likely_order(confusion) if settings.mode in ("given", "model") else None
    if order is not None:
        if settings.mode == "given" and settings.columns is None:
            raise DataError(_wrong_order(confusion, order, names))
        return [_explained(confusion, order, names, settings.mode)]
    below = is_below_chance(confusion)
    if not below and not is_no_better_than_chance(confusion):
        return []
    relation = "below" if below else "no better than"
    return [
        f"the predictions agree with {_accuracy(confusion):.1%} of the given labels, {relation} the "
        f"{chance_agreement(confusion):.1%} of guesses that know nothing: {_CAUSES[settings.mode]}"
    ]


def rare_classes(settings: PredictConfig, out: Folder, mapper: _Mapper, names: Sequence[str]) -> list[str]:
    """Name the classes with fewer texts than folds, of which a network may have seen no example when it predicts one.

    Args:
        settings: of `predict`.
        out: folder of the verb, with `predictions/` and `folds/`.
        mapper: reads the shards.
        names: of the classes.
    """
    if settings.mode != "out_of_fold":
        return []
    pairs = [np.zeros((0, 2), dtype=np.int64), *mapper(partial(_groups, out.url()), out.shards("folds"))]
    labels = np.unique(np.concatenate(pairs), axis=0)[:, 1]
    texts = np.bincount(labels, minlength=len(names))
    rare = np.flatnonzero((texts > 0) & (texts < settings.folds))
    if not len(rare):
        return []
    rare = rare[np.argsort(texts[rare], kind="stable")]
    shown = ", ".join(f"{names[index]!r} {texts[index]}" for index in rare[:_MOST_NAMED])
    more = f" and {len(rare) - _MOST_NAMED:,} more" if len(rare) > _MOST_NAMED else ""
    return [
        f"{'1 class has' if len(rare) == 1 else f'{len(rare):,} classes have'} fewer texts than there are folds "
        f"(predict.folds = {settings.folds}): {shown}{more}. Copies share a fold, so a network predicts such a text after "
        "seeing few others of its class, or none, and doubts its label for that: look at these by hand, or merge the classes"
    ]


def unread_tags(
    config: Config, task: Task, load: Folder, predictions: Folder, mapper: _Mapper, max_length: int
) -> list[str]:
    """Say how many texts are longer than the network reads, where labels are tags: those behind the end are never doubted.

    Args:
        config: of the run.
        task: what a label is.
        load: folder of the finished load.
        predictions: folder of `predictions/`.
        mapper: reads the shards.
        max_length: tokens that the network reads.
    """
    found = list(mapper(partial(_unread, predictions.url(), task), predictions.shards()))
    count = sum(number for number, _ in found)
    if not count:
        return []
    example = next(first for _, first in found if first is not None)
    origin = Origins(load).of([example]).get(example)
    which = f"example_id {example}" if origin is None else str(origin)
    return [
        f"{'1 text is' if count == 1 else f'{count:,} texts are'} longer than the {max_length:,} tokens that the network reads "
        f"({which}{'' if count == 1 else ', for one'}): tags behind them stay as given and are never doubted. "
        f"{_longer(config, max_length)}"
    ]


def _longer(config: Config, max_length: int) -> str:
    """How the network may read more of a text."""
    if config.predict.model is not None:
        return "Train the classifier of predict.model again with a larger encoder.max_length"
    cls, options = encoder_class(config.encoder)
    most = cls.tokenizer(options).most_tokens
    if most is not None and max_length >= most:
        return "The model reads no more: divide these texts, or choose a model that does (encoder.model)"
    known = "" if most is None or most > _ANY_LENGTH else f"; the model reads up to {most:,}"
    return f"Raise encoder.max_length{known}"


def _unread(url: str, task: Task, shard: str) -> tuple[int, int | None]:
    """Number of the examples of a shard that were not read to their end, and the first of them."""
    table = Folder(url).read_table(shard, columns=["example_id", "probabilities"])
    ids = table["example_id"].to_numpy()[task.unread(table["probabilities"])]
    return len(ids), int(ids[0]) if len(ids) else None


def _cells(url: str, classes: int, shard: str) -> tuple[Ints, Ints]:
    """Cells of the confusion that a shard has counts for, and these counts."""
    table = Folder(url).read_table(shard, columns=["given_label", "predicted_label"])
    table = table.filter(table["given_label"].is_valid())
    given, predicted = (column.to_numpy().astype(np.int64) for column in table.columns)
    cells, counts = np.unique(given * classes + predicted, return_counts=True)
    return cells, counts


def _groups(url: str, shard: str) -> Ids:
    """The pairs [n, 2] of a group of copies and a given label that occur in a shard."""
    folder = Folder(url)
    folds = folder.read_table("folds", shard, columns=["example_id", "group"]).sort_by("example_id")
    labels = folder.read_table("predictions", shard, columns=["example_id", "given_label"]).sort_by(
        "example_id"
    )
    known = np.asarray(labels["given_label"].is_valid())
    pairs: npt.NDArray[np.int64] = np.column_stack([
        folds["group"].to_numpy()[known],
        labels["given_label"].drop_null().to_numpy().astype(np.int64),
    ])  # fmt: skip
    return np.unique(pairs, axis=0)


def _accuracy(confusion: Ints, order: Ints | None = None) -> float:
    """Share of the labels that predictions agree with, if each column stands for the class that an order says."""
    columns = np.arange(len(confusion))
    return float(confusion[columns if order is None else order, columns].sum() / max(confusion.sum(), 1))


def _wrong_order(confusion: Ints, order: Ints, names: Sequence[str]) -> str:
    likely, present = (json.dumps([names[index] for index in each], ensure_ascii=False) for each in (
        order, range(len(names)),
    ))  # fmt: skip
    return (
        f"predict.path: read in the order of the label set, the probabilities agree with {_accuracy(confusion):.1%} of the "
        f"given labels; with {_accuracy(confusion, order):.1%} if their columns are in another order. Name the columns: set "
        f"predict.columns = {likely} if that is their order, or predict.columns = {present} if they are right as they are"
    )


def _explained(confusion: Ints, order: Ints, names: Sequence[str], mode: str) -> str:
    moved = [index for index, found in enumerate(order) if found != index]
    pairs = ", ".join(
        f"{names[index]!r} mostly bears the label {names[order[index]]!r}" for index in moved[:_MOST_NAMED]
    )
    whose = (
        "predict.columns, or dataset.label"
        if mode == "given"
        else "the classifier's classes, or dataset.label"
    )
    return (
        f"the predictions agree with {_accuracy(confusion):.1%} of the given labels, and with "
        f"{_accuracy(confusion, order):.1%} if classes are exchanged (what is predicted as {pairs}): check {whose}"
    )


_CAUSES = {
    "given": "check that the probabilities are of the same rows (predict.path, dataset.id) and name their columns "
    "(predict.columns)",
    "model": "check that the classifier was trained on labels of this kind, and that dataset.label is the right column",
    "out_of_fold": "check that dataset.text and dataset.label are the right columns, and that labels stand beside their texts",
    "in_sample": "check that dataset.text and dataset.label are the right columns, and that labels stand beside their texts",
}
