"""Global pass of `load`: what needs all examples, in the driver between the first and the second pass.

Label values come from the summaries of the first pass. Duplicates take 8 bytes per example in memory, splits 20 (int64
id and group, int32 class; 70 while they are sorted), noise that chooses globally 12 (int64 id, int32 label); texts are read
a shard at a time.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.config import DatasetConfig
from rayclean.datasets.first_pass import LoadJob, PieceSummary
from rayclean.datasets.instance_noise import out_of_fold_probabilities, text_features
from rayclean.datasets.label_forms import InjectedNoise, LabelForm
from rayclean.datasets.labels import LabelCounts, LabelMapping, distinct_names, label_indices, noise_indices
from rayclean.datasets.row_validation import unlabelled_keys
from rayclean.datasets.second_pass import SecondPassJob, StagedShard, read_labelled, select_rows
from rayclean.datasets.sources import SourcePiece
from rayclean.errors import DataError
from rayclean.folder import Folder
from rayclean.functional.held_out import held_out_splits
from rayclean.functional.noise import NEEDS_FEATURES, corrupt, is_local
from rayclean.plugins import did_you_mean


def staged_shards(pieces: Sequence[SourcePiece], summaries: Sequence[PieceSummary]) -> list[StagedShard]:
    """The shards that the first pass has staged, in (role, file, row) order; none is without valid rows."""
    return [
        StagedShard(f"{piece.name}-{number:04d}", piece.source.role, rows, {})
        for piece, summary in zip(pieces, summaries, strict=True)
        for number, rows in enumerate(summary.shards)
        if rows
    ]


def merge_label_counts(summaries: Iterable[PieceSummary]) -> dict[str, dict[str, LabelCounts]]:
    """Role -> code of a label -> its count and its first place in file order, over all pieces."""
    merged: dict[str, dict[str, LabelCounts]] = {"data": {}, "dev": {}, "test": {}}
    for summary in summaries:
        codes = merged[summary.role]
        for code, counts in summary.labels.items():
            if code in codes:
                codes[code].count += counts.count
            else:
                codes[code] = replace(counts)
    return merged


def resolve_truth(
    dataset: DatasetConfig, summaries: Iterable[PieceSummary], labels: LabelMapping
) -> dict[str, dict[str, int]]:
    """Role -> code in the truth column -> index of the label.

    Raises:
        DataError: no value of the column is a label, or numbers in it seem to count from 1.
    """
    found: dict[str, Counter[str]] = {}
    for summary in summaries:
        found.setdefault(summary.role, Counter()).update(summary.truths)
    indices = {
        role: label_indices(
            codes, labels.classes, labels.positions, f"dataset.truth = {dataset.truth!r} of the {role} files"
        )
        for role, codes in found.items()
    }
    if found.get("data") and not indices["data"]:
        values = [code[2:] for code in list(found["data"])[:10]]
        raise DataError(
            f"dataset.truth = {dataset.truth!r} holds {values}, none of which is a label; "
            f"{did_you_mean(values[0], labels.names)}"
        )
    return indices


def names_in_files(dataset: DatasetConfig, form: LabelForm, summaries: Iterable[PieceSummary]) -> list[str]:
    """The classes that the training files themselves name, without those of `dataset.unlabelled`; [] if they name none."""
    names = [name for summary in summaries if summary.role == "data" for name in summary.label_names]
    return distinct_names(form.classes_of(names), without=unlabelled_keys(dataset))


def numberings_in_files(summaries: Iterable[PieceSummary]) -> list[list[str]]:
    """The different ways in which the training files number the names of their labels."""
    found: list[list[str]] = []
    for summary in summaries:
        if summary.role == "data":
            found += [names for names in summary.numberings if names not in found]
    return found


def find_duplicates(folder: Folder, shards: list[StagedShard]) -> list[StagedShard]:
    """The shards, with the rows that repeat the `example_id` of an earlier row (in role, file, row order)."""
    ids = np.empty(sum(shard.rows for shard in shards), np.int64)
    start = 0
    for shard in shards:
        ids[start : start + shard.rows] = _read_ids(folder, shard)
        start += shard.rows
    ids.sort()  # in place, so that all ids are in memory once
    repeated = np.unique(ids[1:][ids[1:] == ids[:-1]])
    if not len(repeated):
        return shards
    first_places: dict[int, tuple[str, str, int]] = {}
    checked = []
    for shard in shards:
        ids_of_shard = _read_ids(folder, shard)
        positions = np.flatnonzero(np.isin(ids_of_shard, repeated))
        duplicates: dict[int, str] = {}
        if len(positions):
            table = folder.read_table("stage", "rows", f"{shard.name}.parquet", columns=["source", "row"])
            rows = table.take(pa.array(positions)).to_pylist()
            for position, row in zip(positions.tolist(), rows, strict=True):
                place = (shard.role, row["source"], row["row"])  # two roles may have files of the same name
                first = first_places.setdefault(int(ids_of_shard[position]), place)
                if first != place:
                    duplicates[position] = f"{first[1]} row {first[2]}"
        checked.append(replace(shard, duplicates=duplicates))
    return checked


def _read_ids(folder: Folder, shard: StagedShard) -> npt.NDArray[np.int64]:
    table = folder.read_table("stage", "rows", f"{shard.name}.parquet", columns=["example_id"])
    ids: npt.NDArray[np.int64] = table["example_id"].to_numpy()
    return ids


def resolve_noise(
    job: LoadJob, summaries: Iterable[PieceSummary], labels: LabelMapping
) -> InjectedNoise | None:
    """The noise that the config asks for; None if it asks for none.

    Raises:
        ConfigError: `dataset.noise.mapping` names an unknown label.
    """
    noise = job.config.noise
    if noise is None:
        return None
    counts = [0] * len(labels.names)
    rows = 0
    for summary in summaries:
        if summary.role == "data":
            rows += sum(summary.shards)
            for code, found in summary.labels.items():
                if code in labels.codes["data"]:
                    counts[labels.codes["data"][code]] += found.count
    return InjectedNoise(
        kind=noise.kind,
        rate=noise.rate,
        exact=noise.exact,
        seed=job.seed if noise.seed is None else noise.seed,
        classes=len(labels.names),
        mapping=noise_indices(job.config, labels.names),
        shares=tuple(count / max(rows, 1) for count in counts),
    )


def prepare_splits(folder: Folder, job: SecondPassJob, shards: list[StagedShard]) -> None:
    """Write `stage/splits/<shard>.parquet` (example_id, split) where shares of the data are held out.

    Classes are those of the label column as it is read; a column of true labels is not looked at. Noise is injected later,
    since only rows that will be cleaned get some, and so makes what was read the truth. That gives nothing away but how
    frequent classes are, as any held-out part does. Examples with sets of classes, and with tags, are all of one class here,
    as for the folds of `predict`.
    """
    config = job.load.config
    if not config.holds_out:
        return
    of_data = [shard for shard in shards if shard.role == "data"]
    rows = sum(shard.rows for shard in of_data)
    ids, groups, classes = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows, np.int32)
    bounds = [0]
    for shard in of_data:
        table, keep, labels = read_labelled(job, shard, ["example_id", "label", "group"])
        part = slice(bounds[-1], bounds[-1] + len(labels))
        ids[part], groups[part] = (table[name].to_numpy()[keep] for name in ("example_id", "group"))
        classes[part] = -1 if pa.types.is_list(labels.type) else labels.fill_null(-1).to_numpy()
        bounds.append(part.stop)
    ids, groups, classes = ids[: bounds[-1]], groups[: bounds[-1]], classes[: bounds[-1]]
    splits = held_out_splits(ids, groups, classes, job.load.seed, config.test.share, config.dev.share)
    for shard, start, stop in zip(of_data, bounds, bounds[1:], strict=False):
        table = pa.table({"example_id": ids[start:stop], "split": splits[start:stop]})
        folder.write_table(table, "stage", "splits", f"{shard.name}.parquet")


def prepare_noise(folder: Folder, job: SecondPassJob, shards: list[StagedShard]) -> None:
    """Write `stage/noise/<shard>.parquet` (example_id, label) for noise that needs all examples at once."""
    noise = job.noise
    if noise is None or is_local(noise.kind, noise.exact):
        return
    needs_features = noise.kind in NEEDS_FEATURES
    columns = ["example_id", "label", *(["text"] if needs_features else [])]
    names, ids_of_shards, labels_of_shards, texts = [], [], [], []
    for shard in shards:
        if shard.role != "data":
            continue
        selected = select_rows(job, shard, columns)
        noisy = pa.array(selected.noisy)
        names.append(shard.name)
        ids_of_shards.append(selected.ids[selected.noisy])
        labels_of_shards.append(selected.labels.filter(noisy).to_numpy())
        if needs_features:
            texts += selected.table["text"].filter(pa.array(selected.keep)).filter(noisy).to_pylist()
    ids, labels = np.concatenate(ids_of_shards), np.concatenate(labels_of_shards)
    features = None
    if needs_features and len(ids):
        features = text_features(ids, texts, noise.seed)
        if noise.kind == "idn_softmax":
            features = out_of_fold_probabilities(ids, features, labels, noise.classes, noise.seed)
    corrupted = corrupt(
        ids, labels, noise.classes, noise.kind, noise.rate, noise.seed, exact=noise.exact, features=features
    )
    start = 0
    for name, ids_of_shard in zip(names, ids_of_shards, strict=True):
        stop = start + len(ids_of_shard)
        table = pa.table({"example_id": ids_of_shard, "label": corrupted[start:stop]})
        folder.write_table(table, "stage", "noise", f"{name}.parquet")
        start = stop
