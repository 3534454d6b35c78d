"""Options of `[dataset]` that contradict each other or name what is not there: found before any work."""

from rayclean.config import DatasetConfig
from rayclean.errors import ConfigError
from rayclean.plugins import nearest
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
            raise ConfigError(f"dataset.noise.mapping: unknown label {name!r}; {nearest(name, names)}")
    return {names.index(a): names.index(b) for a, b in dataset.noise.mapping.items()}
