"""Networks of all folds trained at the same time are those that the general loop trains one after another."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rayclean.config import Plugin, TrainingConfig
from rayclean.errors import DataError, RaycleanError
from rayclean.folder import Folder
from rayclean.models.loading import build_encoder
from rayclean.training.fold_table import write_folds
from rayclean.training.job import DataSpec, ExampleSelection, FitJob, FitSpec
from rayclean.training.loop import fit
from rayclean.training.side_by_side import BATCHES, clip_each, default_epochs, fit_side_by_side, used_rows
from tests.training.toys import NAN, TOY, write_examples

FOLDS = 3
BAG = Plugin(name="bag_of_words", buckets=300, dropout=0.0)
WHOLE = 1000
"""A batch that holds all examples: then the order of rows, in which the loops differ, does not matter."""


def spec(encoder: Plugin, **training: Any) -> FitSpec:
    method = Plugin(name="cross_entropy")
    return FitSpec(encoder, method, TrainingConfig(**training), ("a", "b", "c"))


def jobs(folder: Path, examples: str) -> list[FitJob]:
    folds = folder.parent / f"folds-of-{Path(examples).name}"
    write_folds(Folder(examples), Folder(str(folds)), map, 3, FOLDS)
    return [
        FitJob(
            f"fold-{fold}", DataSpec(examples), ExampleSelection("fold", fold, str(folds)), 3,
            str(folder / f"fold-{fold}"),
        )
        for fold in range(FOLDS)
    ]  # fmt: skip


def weights(job: FitJob) -> dict[str, Tensor]:
    return load_file(Path(job.output) / "model" / "weights.safetensors")


@pytest.mark.parametrize("encoder", [Plugin(name=TOY), BAG], ids=["toy", "bag"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_general_loop_gives_the_same_networks(tmp_path: Path, encoder: Plugin, accumulate: int) -> None:
    """Weights, development losses and results; with a bag of words a table of rows stands for its embeddings."""
    examples = write_examples(tmp_path / "examples", 90, noise=0.2)
    how = spec(encoder, batch_size=WHOLE, epochs=6, patience=6, accumulate=accumulate, learning_rate=0.05)
    together, alone = jobs(tmp_path / "together", examples), jobs(tmp_path / "alone", examples)
    lines: list[dict[str, Any]] = []
    results = fit_side_by_side(together, how, lines.append)
    assert [(line["job"], line["epoch"]) for line in lines] == [
        (each.name, epoch) for epoch in range(1, 7) for each in together
    ]
    for one, other in zip(together, alone, strict=True):
        expected, found = fit(other, how), results[one.name]
        assert found.train_examples == expected.train_examples
        assert found.dev_examples == expected.dev_examples > 0
        assert found.best_epoch == expected.best_epoch
        assert found.dev_loss == pytest.approx(expected.dev_loss, rel=1e-3)
        assert found.loss == pytest.approx(expected.loss, rel=1e-3)
        ours, theirs = weights(one), weights(other)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-3)
        assert len(Folder(one.output).read_text("metrics.jsonl").splitlines()) == 6


@pytest.mark.parametrize("encoder", [Plugin(name=TOY), BAG], ids=["toy", "bag"])
def test_no_network_sees_a_label_of_its_fold(tmp_path: Path, encoder: Plugin) -> None:
    """Other labels in one fold leave the network of that fold as it is, bit for bit, and change the others."""
    how, found = spec(encoder, batch_size=8, epochs=3), []
    folds = Folder(str(tmp_path / "folds-of-first"))
    for name in ("first", "second"):
        examples = write_examples(tmp_path / name, 90)
        if name == "second":
            source = Folder(examples)
            for shard in source.shards():
                table = source.read_table(shard)
                fold = folds.read_table(shard)["fold"].to_numpy()
                given = table["given_label"].to_numpy()
                changed = pa.array(np.where(fold == 1, (given + 1) % 3, given).astype(np.int32))
                place = table.column_names.index("given_label")
                source.write_table(table.set_column(place, table.schema.field(place), changed), shard)
        all_ = jobs(tmp_path / f"models-{name}", str(tmp_path / "first"))
        data = DataSpec(examples)
        all_ = [
            FitJob(each.name, data, ExampleSelection("fold", fold, folds.url()), 3, each.output)
            for fold, each in enumerate(all_)
        ]
        fit_side_by_side(all_, how)
        found.append([weights(each) for each in all_])
    for fold in range(FOLDS):
        same = all(torch.equal(found[0][fold][name], found[1][fold][name]) for name in found[0][fold])
        assert same == (fold == 1)


def test_shards_do_not_matter_and_finished_jobs_are_read(tmp_path: Path) -> None:
    how, found = spec(BAG, epochs=3), []
    for shards in (1, 4):
        examples = write_examples(tmp_path / f"examples-{shards}", 80, shards=shards)
        all_ = jobs(tmp_path / f"models-{shards}", examples)
        results = fit_side_by_side(all_, how)
        again = fit_side_by_side(all_, how, lambda record: pytest.fail("trained again"))
        assert again == results
        (Path(all_[0].output) / "result.json").unlink()  # a crash between two results
        fit_side_by_side(all_, how)
        found.append([weights(each) for each in all_])
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_patience_ends_each_network_by_itself(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 120, noise=0.4)
    all_ = jobs(tmp_path / "models", examples)
    results = fit_side_by_side(
        all_, spec(BAG, epochs=30, learning_rate=0.05)
    )  # two, where the config names none
    ends = [result.epochs for result in results.values()]
    assert all(result.epochs == min(result.best_epoch + 2, 30) for result in results.values())
    assert min(ends) < 30
    for each in all_:  # the written network is that of the best epoch: its development loss is in the lines
        lines = Folder(each.output).read_text("metrics.jsonl").splitlines()
        assert len(lines) == results[each.name].epochs


def test_an_epoch_has_few_batches_of_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network learns from 32 rows of a batch while that makes few; then from more, unless the config names a size."""
    from rayclean.training import side_by_side

    monkeypatch.setattr(side_by_side, "BATCHES", 2)
    examples = write_examples(tmp_path / "examples", 200)
    all_ = jobs(tmp_path / "models", examples)
    training = side_by_side._Training(all_, spec(BAG))
    assert training.steps == 2
    assert rows_of_a_step(training) > 32
    assert rows_of_a_step(side_by_side._Training(all_, spec(BAG, batch_size=16))) == pytest.approx(16, abs=1)
    monkeypatch.setattr(side_by_side, "BATCHES", BATCHES)
    assert rows_of_a_step(side_by_side._Training(all_, spec(BAG))) == pytest.approx(32, abs=1)


@pytest.mark.parametrize(("steps", "epochs"), [(1, 10), (76, 10), (100, 7), (256, 3), (10_000, 3)])
def test_a_bag_of_words_makes_fewer_epochs_where_these_are_long(steps: int, epochs: int) -> None:
    bag = build_encoder(BAG, 2, 0)
    assert default_epochs(bag, steps) == epochs
    bag.default_epochs = 2
    assert default_epochs(bag, steps) == 2
    assert default_epochs(build_encoder(Plugin(name=TOY), 2, 0), steps) == 3


def rows_of_a_step(training: Any) -> float:
    """Rows of a batch that a network learns from, on average."""
    return training.batch_size * float(training.data.train[:, training.pool].mean())


def test_faults_say_what_is_wrong(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 60)
    with pytest.raises(RaycleanError, match="gradient is not finite"):
        fit_side_by_side(jobs(tmp_path / "nan", examples), spec(Plugin(name=NAN), epochs=2))
    two = FitSpec(BAG, Plugin(name="cross_entropy"), TrainingConfig(), ("a", "b"))
    with pytest.raises(DataError, match="label 2 found, expected less than 2"):
        fit_side_by_side(jobs(tmp_path / "two", examples), two)


def test_gradients_are_clipped_network_by_network() -> None:
    gradients = [[torch.tensor([3.0]), torch.tensor([[4.0]])], [torch.tensor([0.3])]]
    assert clip_each(gradients, 1.0) == pytest.approx([5.0, 0.3])
    assert [value.item() for own in gradients for value in own] == pytest.approx([0.6, 0.8, 0.3])


def test_used_rows_have_padding_first() -> None:
    rows, places = used_rows(torch.tensor([[7, 3], [3, 9]]), 12)
    assert rows.tolist() == [0, 3, 7, 9]
    assert places.tolist() == [[2, 1], [1, 3]]
