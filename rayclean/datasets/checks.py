"""Options of `[dataset]` that contradict each other or name what is not there: found before any work."""

from collections import Counter
from typing import Any

from rayclean.config import DatasetConfig
from rayclean.datasets.first_pass import PieceSummary
from rayclean.datasets.labels import LabelMapping
from rayclean.datasets.rows import NO_LABEL
from rayclean.datasets.second_pass import StagedShard
from rayclean.errors import ConfigError, DataError
from rayclean.plugins import did_you_mean
from rayclean.schema import Label, LabelSet


def check_options(dataset: DatasetConfig) -> None:
    """Options that contradict each other.

    Raises:
        ConfigError: they do; the message says what to change.
    """
    text = (dataset.text,) if isinstance(dataset.text, str) else dataset.text
    if not text:
        raise ConfigError("dataset.text is an empty list; name at least one column")
    for name, column in (("label", dataset.label), ("truth", dataset.truth)):
        if column in text:
            raise ConfigError(
                f"dataset.{name} = {column!r} is also a text column: the model would read the answer"
            )
    if dataset.truth == dataset.label:
        raise ConfigError(
            f"dataset.truth and dataset.label are both {dataset.label!r}; leave truth out if it is not known"
        )
    if dataset.dev.share + dataset.test.share >= 1:
        raise ConfigError(
            f"dataset.dev.share + dataset.test.share = {dataset.dev.share + dataset.test.share:g} leaves nothing to clean"
        )
    for name, split in (("dev", dataset.dev), ("test", dataset.test)):
        if split.label is not None and split.path is None:
            raise ConfigError(
                f"dataset.{name}.label needs dataset.{name}.path: a share has the data set's own label column"
            )
    if dataset.test.clean:
        raise ConfigError("dataset.test.clean has no meaning: test examples are never cleaned; remove it")
    if dataset.labels is not None:
        named = LabelSet(Label(index, name, name) for index, name in enumerate(dataset.labels))
        named.described(dataset.words, dataset.definitions)
        noise_mapping(dataset, list(dataset.labels))
    noise = dataset.noise
    if noise is None:
        return
    if dataset.truth is not None:
        raise ConfigError(
            "dataset.noise on top of real noise would leave no single truth: remove dataset.noise to measure against the "
            f"column {dataset.truth!r}, or set dataset.label to it and remove dataset.truth to inject noise into true labels"
        )
    if (noise.kind == "asym_map") != bool(noise.mapping):
        raise ConfigError(
            "dataset.noise.mapping (label -> wrong label) and kind = 'asym_map' go together; set both or neither"
        )
    if noise.exact and noise.kind not in ("sym", "asym"):
        raise ConfigError(
            f"dataset.noise.exact is for sym and asym; {noise.kind} has its own count (rayclean/functional/noise.py)"
        )
    itself = [name for name, wrong in noise.mapping.items() if name == wrong]
    if itself:
        raise ConfigError(
            f"dataset.noise.mapping maps {itself} to itself; name another label or leave it out"
        )


def noise_mapping(dataset: DatasetConfig, names: list[str]) -> dict[int, int]:
    """`noise.mapping` as indices.

    Raises:
        ConfigError: it names an unknown label.
    """
    if dataset.noise is None:
        return {}
    for name in (*dataset.noise.mapping, *dataset.noise.mapping.values()):
        if name not in names:
            raise ConfigError(f"dataset.noise.mapping: unknown label {name!r}; {did_you_mean(name, names)}")
    return {names.index(a): names.index(b) for a, b in dataset.noise.mapping.items()}


def check_rejected(
    dataset: DatasetConfig,
    summaries: list[PieceSummary],
    labels: LabelMapping | None,
    shards: list[StagedShard],
) -> None:
    """Stop if too many rows cannot be used; rows whose label is one of `unlabelled` do not count.

    Args:
        dataset: for `max_rejected`.
        summaries: of all pieces.
        labels: None before the label set is known.
        shards: with their duplicates.

    Raises:
        DataError: the three most frequent reasons, with an example of each.
    """
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for summary in summaries:
        for reason, entry in summary.rejected.items():
            reasons[reason] += entry["count"]
            examples.setdefault(reason, f"{entry['source']} row {entry['row']}: {entry['value']!r}")
    for codes in (labels.unknown if labels else {}).values():
        for code, seen in codes.items():
            reasons["unknown label"] += seen.count
            assert labels is not None
            examples.setdefault("unknown label", f"{seen.source} row {seen.row}: {labels.explain(code)}")
    for shard in shards:
        for where in shard.duplicates.values():
            reasons["duplicate key"] += 1
            examples.setdefault("duplicate key", f"the key of {where} comes again")
    rows = sum(summary.rows for summary in summaries) - reasons.pop(NO_LABEL, 0)
    count = sum(reasons.values())
    if count <= dataset.max_rejected * rows and rows:
        return
    if not rows:
        raise DataError(
            f"every row is without label (dataset.unlabelled = {list(dataset.unlabelled)}): nothing to load"
        )
    lines = [f"  {n:,} x {reason}, for example {examples[reason]}" for reason, n in reasons.most_common(3)]
    raise DataError(
        f"{count:,} of {rows:,} rows ({count / rows:.1%}) cannot be used, more than dataset.max_rejected = "
        f"{dataset.max_rejected:.0%} allows:\n"
        + "\n".join(lines)
        + "\nMend the config or the data, or raise dataset.max_rejected"
    )


def check_roles(
    metrics: dict[str, Any], summaries: list[PieceSummary], labels: LabelMapping, shards: list[StagedShard]
) -> None:
    """Stop if nothing of the development or test files is left: nobody gives files that are not to be used.

    Raises:
        DataError: why the first row of them cannot be used.
    """
    for role in ("dev", "test"):
        read = sum(summary.rows for summary in summaries if summary.role == role)
        if not read or metrics[role]:
            continue
        repeated = [where for shard in shards if shard.role == role for where in shard.duplicates.values()]
        unknown = sum(seen.count for seen in labels.unknown.get(role, {}).values())
        why = f"{unknown:,} have an unknown label" if unknown else "see the reasons in rejected/"
        if repeated:
            why = (
                f"{len(repeated):,} have a key that came before, the first that of {repeated[0]}: keys (dataset.id) must differ "
                "between all files; without dataset.id a row's text and place are its key"
            )
        raise DataError(f"none of the {read:,} rows of the {role} files can be used: {why}")


def check_truth(dataset: DatasetConfig, summaries: list[PieceSummary]) -> None:
    """Stop if no row at all holds the truth that the config speaks of (JSON Lines may leave it out row by row).

    Raises:
        DataError: it is nowhere.
    """
    if dataset.truth is not None and not any(summary.truths for summary in summaries):
        raise DataError(
            f"dataset.truth = {dataset.truth!r}: no row has a value there; leave dataset.truth out, or check its name"
        )
