"""The mean of the experts' probabilities, each expert at its own temperature.

An expert's temperature is fitted per fold, as every fold is predicted by a model of its own, on a sample of its given
labels that is drawn by a hash of the ids. A mean of experts that see different things (features, neighbours, words) errs
less than any of them, as long as none is surer than it should be: hence the temperatures.

References: Guo et al., "On calibration of modern neural networks", ICML 2017 (temperature); Genest, Zidek, "Combining
probability distributions", Statistical Science 1986 (the linear pool).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.errors import ArtifactError
from rayclean.folder import Folder
from rayclean.functional.calibration import expected_calibration_error
from rayclean.functional.hashing import uniform
from rayclean.functional.temperature import fit_temperature, log_loss, scaled
from rayclean.functional.types import Ids
from rayclean.schema import matrix
from rayclean.tasks.probabilities import prediction_table

LABELS_PER_FOLD = 20_000
"""Labels by which a temperature is fitted, if there are so many: it is one number, and they give it to 1 %."""
MOST_NUMBERS = 1 << 25
"""Most probabilities of a sample, 128 MiB: with thousands of classes fewer labels are drawn."""

_Mapper = Callable[[Callable[[str], Any], Iterable[str]], Iterator[Any]]


@dataclass(frozen=True)
class _Sample:
    """Sampled examples with a given label, of one shard or of all."""

    ids: Ids
    labels: npt.NDArray[np.int64]
    folds: Mapping[str, npt.NDArray[np.int16]]
    """[M] by expert."""
    probabilities: Mapping[str, npt.NDArray[np.float32]]
    """[M, K] by expert."""


@dataclass(frozen=True)
class Mixture:
    """Experts and their temperatures, which any shard can be combined with."""

    experts: Mapping[str, str]
    """Folder of each expert's shards of predictions (`tasks.probabilities.prediction_table`)."""
    temperatures: Mapping[str, Mapping[int, float]]
    """Temperature by expert and fold."""

    def table(self, shard: str) -> pa.Table:
        """The predictions of a shard: the mean of the experts; `fold` is that of the first one."""
        first: pa.Table | None = None
        total: npt.NDArray[np.float64] | None = None
        for name, url in self.experts.items():
            table = Folder(url).read_table(shard)
            first = table if first is None else first
            if not table["example_id"].equals(first["example_id"]):
                raise ArtifactError(
                    f"{url} holds other examples than the other experts: run 'rayclean predict CONFIG --again'"
                )
            part = self._scaled(name, table["fold"].to_numpy(), matrix(table["probabilities"]))
            total = part if total is None else total + part
        assert first is not None
        assert total is not None
        mean = (total / len(self.experts)).astype(np.float32)
        ids, fold = first["example_id"].to_numpy(), first["fold"].to_numpy()
        return prediction_table(ids, first["given_label"], mean, fold)

    def _scaled(
        self, name: str, folds: npt.NDArray[np.int16], probabilities: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        found = np.empty(probabilities.shape)
        for fold in np.unique(folds):
            rows = folds == fold
            found[rows] = scaled(probabilities[rows], self.temperatures[name].get(int(fold), 1.0))
        return found


def fit_mixture(
    experts: Mapping[str, str],
    shards: Sequence[str],
    mapper: _Mapper,
    seed: int,
    examples: int,
    classes: int,
    folds: int,
) -> tuple[Mixture, dict[str, Any]]:
    """Fit the temperatures.

    Args:
        experts: folder of each expert's shards.
        shards: their names, the same for all.
        mapper: reads the shards.
        seed: seed of the sample.
        examples: number of all examples.
        classes: number of classes.
        folds: number of folds.

    Returns:
        The mixture, and figures on the sample: `temperatures` by expert, in order of the folds; `log_loss` of each expert
        at its temperature and of their `mean`; `calibration_error` of the mean, all against the given labels, and left out
        where there are none.
    """
    most = min(LABELS_PER_FOLD * folds, MOST_NUMBERS // (classes * len(experts)))
    draw = partial(_sample, dict(experts), min(1.0, most / max(examples, 1)), seed)
    sample = _gather(list(mapper(draw, shards)))
    temperatures: dict[str, dict[int, float]] = {}
    for name in experts:
        of_fold = sample.folds[name]
        temperatures[name] = {
            int(fold): fit_temperature(sample.probabilities[name][rows], sample.labels[rows])
            for fold in np.unique(of_fold)
            for rows in (of_fold == fold,)
        }
    mixture = Mixture(dict(experts), temperatures)
    found: dict[str, Any] = {
        "temperatures": {name: [each[fold] for fold in sorted(each)] for name, each in temperatures.items()}
    }
    if not len(sample.labels):
        return mixture, found
    parts = {name: mixture._scaled(name, sample.folds[name], sample.probabilities[name]) for name in experts}
    mean = np.mean(list(parts.values()), axis=0)
    error = expected_calibration_error(mean.max(axis=1, initial=0.0), mean.argmax(axis=1) == sample.labels)
    return mixture, found | {
        "log_loss": {
            **{name: log_loss(part, sample.labels) for name, part in parts.items()},
            "mean": log_loss(mean, sample.labels),
        },
        "calibration_error": error,
    }


def _sample(experts: Mapping[str, str], share: float, seed: int, shard: str) -> _Sample:
    """The sampled examples of one shard that have a given label."""
    tables = {name: Folder(url).read_table(shard) for name, url in experts.items()}
    first = next(iter(tables.values()))
    ids = first["example_id"].to_numpy()
    chosen = np.asarray(first["given_label"].is_valid()) & (uniform(ids, seed, "temperature") < share)
    taken = {name: table.filter(pa.array(chosen)) for name, table in tables.items()}
    return _Sample(
        ids[chosen],
        first["given_label"].filter(pa.array(chosen)).to_numpy().astype(np.int64),
        {name: table["fold"].to_numpy() for name, table in taken.items()},
        {name: matrix(table["probabilities"]) for name, table in taken.items()},
    )


def _gather(samples: Sequence[_Sample]) -> _Sample:
    """All samples in the order of their ids, so that no sum depends on the order of the shards."""
    ids = np.concatenate([each.ids for each in samples])
    order = np.argsort(ids, kind="stable")
    names = list(samples[0].probabilities)
    return _Sample(
        ids[order],
        np.concatenate([each.labels for each in samples])[order],
        {name: np.concatenate([each.folds[name] for each in samples])[order] for name in names},
        {name: np.concatenate([each.probabilities[name] for each in samples])[order] for name in names},
    )
