"""The mean of experts: each at its temperature per fold, the same for any layout, and what is said of it."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayclean import schema
from rayclean.errors import ArtifactError
from rayclean.experts import mean
from rayclean.experts.mean import Mixture, fit_mixture
from rayclean.folder import Folder
from rayclean.functional.calibration import expected_calibration_error
from rayclean.functional.temperature import fit_temperature, log_loss, scaled
from rayclean.schema import matrix
from rayclean.tasks.probabilities import prediction_table

FOLDS = 3


@dataclass(frozen=True)
class Data:
    ids: np.ndarray
    labels: np.ndarray
    """-1: no given label."""
    folds: np.ndarray
    experts: dict[str, np.ndarray]
    """Probabilities [N, K] by expert."""


def data(seed: int = 0, rows: int = 900, classes: int = 4) -> Data:
    """Two experts that know something of the labels; `sure` is surer than it should be, and most in fold 0."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 1.5
    folds = rng.integers(0, FOLDS, rows).astype(np.int16)
    experts = {}
    for name, sharper in (("classifier", np.array([1.0, 1.0, 1.0])), ("sure", np.array([6.0, 3.0, 2.0]))):
        seen = (logits + rng.normal(size=logits.shape)) * sharper[folds][:, None] * 0.7
        p = np.exp(seen - seen.max(axis=1, keepdims=True))
        experts[name] = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(0, classes - 1)
    labels[rng.random(rows) < 0.1] = -1
    return Data(rng.choice(2**62, rows, replace=False) - 2**61, labels, folds, experts)


def write(folder: Path, of: Data, edges: Iterable[int] = (400,), order: Any = None) -> dict[str, str]:
    """A folder of shards per expert."""
    order = np.arange(len(of.ids)) if order is None else order
    for name, p in of.experts.items():
        out = Folder(str(folder / name))
        for number, rows in enumerate(np.split(order, list(edges))):
            labels = pa.array(of.labels[rows], pa.int32(), mask=of.labels[rows] < 0)
            out.write_table(
                prediction_table(of.ids[rows], labels, p[rows], of.folds[rows]), f"part-{number:05d}.parquet"
            )
    return {name: str(folder / name) for name in of.experts}


def in_process(function: Callable[[str], Any], items: Iterable[str]) -> Iterator[Any]:
    return map(function, items)


def backwards(function: Callable[[str], Any], items: Iterable[str]) -> Iterator[Any]:
    return iter([function(item) for item in reversed(list(items))])


def fitted(
    urls: dict[str, str], of: Data, mapper: Any = in_process, seed: int = 0
) -> tuple[Mixture, dict[str, Any]]:
    shards = Folder(next(iter(urls.values()))).shards()
    classes = of.experts["classifier"].shape[1]
    return fit_mixture(urls, shards, mapper, seed, len(of.ids), classes, FOLDS)


def means(mixture: Mixture, url: str) -> dict[int, list[float]]:
    tables = [mixture.table(shard) for shard in Folder(url).shards()]
    return {
        key: row for t in tables for key, row in zip(t["example_id"].to_pylist(), t["probabilities"].to_pylist(), strict=True)
    }  # fmt: skip


def test_the_mean_of_scaled_probabilities(tmp_path: Path) -> None:
    of = data()
    urls = write(tmp_path, of)
    mixture, figures = fitted(urls, of)
    known = of.labels >= 0
    parts = {}
    for name, p in of.experts.items():
        temperatures = [
            fit_temperature(p[known & (of.folds == fold)], of.labels[known & (of.folds == fold)])
            for fold in range(FOLDS)
        ]
        assert figures["temperatures"][name] == pytest.approx(temperatures, rel=1e-3)
        parts[name] = np.empty(p.shape)
        for fold, each in enumerate(figures["temperatures"][name]):
            parts[name][of.folds == fold] = scaled(p[of.folds == fold], each)
    expected = (parts["classifier"] + parts["sure"]) / 2
    found = pa.concat_tables([mixture.table(shard) for shard in ("part-00000.parquet", "part-00001.parquet")])
    assert found.schema.equals(schema.predictions(4))
    assert (found["example_id"].to_numpy() == of.ids).all()
    assert (found["fold"].to_numpy() == of.folds).all()
    assert found["given_label"].to_pylist() == [None if each < 0 else each for each in of.labels.tolist()]
    np.testing.assert_allclose(matrix(found["probabilities"]), expected, atol=1e-6)
    assert (found["predicted_label"].to_numpy() == matrix(found["probabilities"]).argmax(axis=1)).all()

    # an expert that is too sure is made less so, most in the fold where it is surest; both say more together
    sure = figures["temperatures"]["sure"]
    assert sure[0] > sure[1] > sure[2] > 1.3
    labels = of.labels[known]
    losses = {name: log_loss(part[known], labels) for name, part in parts.items()}
    losses["mean"] = log_loss(expected[known], labels)
    assert figures["log_loss"] == pytest.approx(losses, rel=1e-6)
    assert losses["sure"] < log_loss(of.experts["sure"][known], labels) - 0.1
    assert losses["mean"] < min(losses["classifier"], losses["sure"])
    best = expected[known]
    error = expected_calibration_error(best.max(axis=1), best.argmax(axis=1) == labels)
    assert figures["calibration_error"] == pytest.approx(error, abs=1e-6)


def test_a_single_expert_keeps_its_order(tmp_path: Path) -> None:
    of = data()
    urls = write(tmp_path, of)
    mixture, _ = fitted({"sure": urls["sure"]}, of)
    found = pa.concat_tables([mixture.table(f"part-0000{n}.parquet") for n in range(2)])
    assert (found["predicted_label"].to_numpy() == of.experts["sure"].argmax(axis=1)).all()


@pytest.mark.parametrize("labels_per_fold", [20_000, 60])
def test_neither_shards_nor_order_nor_workers_change_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels_per_fold: int
) -> None:
    monkeypatch.setattr(mean, "LABELS_PER_FOLD", labels_per_fold)
    of = data()
    one = write(tmp_path / "one", of)
    order = np.random.default_rng(1).permutation(len(of.ids))
    other = write(tmp_path / "other", of, [0, 200, 201, 800], order)
    mixture, figures = fitted(one, of)
    again, same = fitted(other, of, backwards)
    assert same == figures
    assert again.temperatures == mixture.temperatures
    assert means(pickle.loads(pickle.dumps(again)), other["sure"]) == means(mixture, one["sure"])


def test_a_sample_of_the_labels_is_drawn_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more labels than a temperature needs, or more probabilities than a sample may hold."""
    of = data(rows=4000)
    urls = write(tmp_path, of)
    _, whole = fitted(urls, of)
    for name, value in (("LABELS_PER_FOLD", 300), ("MOST_NUMBERS", 900 * 4 * 2)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mean, name, value)
            found = [fitted(urls, of, seed=seed)[1] for seed in (0, 0, 1)]
        assert found[0] == found[1]
        assert found[0] != found[2]
        assert found[0] != whole
        for expert, temperatures in whole["temperatures"].items():
            assert found[0]["temperatures"][expert] == pytest.approx(temperatures, rel=0.4)


def test_without_enough_labels_experts_are_taken_as_they_are(tmp_path: Path) -> None:
    of = data(rows=60)
    of.labels[of.folds != 1] = -1  # fold 1 has about 20, the others none
    of.labels[np.flatnonzero(of.folds == 1)[19:]] = -1
    urls = write(tmp_path, of, [30])
    mixture, figures = fitted(urls, of)
    assert figures["temperatures"] == {"classifier": [1.0], "sure": [1.0]}  # of the folds that have labels
    expected = (of.experts["classifier"] + of.experts["sure"]) / 2
    found = np.concatenate(
        [matrix(mixture.table(f"part-0000{n}.parquet")["probabilities"]) for n in range(2)]
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_without_any_label_there_are_no_figures_about_labels(tmp_path: Path) -> None:
    of = data(rows=60)
    of.labels[:] = -1
    mixture, figures = fitted(write(tmp_path, of, [30]), of)
    assert figures == {"temperatures": {"classifier": [], "sure": []}}
    assert mixture.table("part-00000.parquet")["given_probability"].null_count == 30


def test_other_examples_are_refused(tmp_path: Path) -> None:
    of = data(rows=60)
    urls = write(tmp_path, of, [30])
    mixture, _ = fitted(urls, of)
    table = Folder(urls["sure"]).read_table("part-00000.parquet")
    Folder(urls["sure"]).write_table(table.take(pa.array(np.arange(30)[::-1])), "part-00000.parquet")
    with pytest.raises(ArtifactError, match=r"sure holds other examples.*rayclean predict CONFIG --again"):
        mixture.table("part-00000.parquet")
