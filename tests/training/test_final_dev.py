"""The best epoch is chosen by final development labels without unresolved suspects, and on all by given ones, too."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.annotations import DECISIONS, UNDECIDED
from rayclean.config import Plugin
from rayclean.errors import ArtifactError
from rayclean.folder import Folder
from rayclean.models.base import pad
from rayclean.models.loading import load_encoder
from rayclean.schema import LABELS
from rayclean.training.job import FEWEST_SETTLED, DataSpec, FitJob, job_key
from rayclean.training.job_data import JobData, open_job
from rayclean.training.loop import fit
from rayclean.training.setup import build_task
from tests.training.test_exactness import assert_equal_bits, assert_same
from tests.training.test_loop import history
from tests.training.toys import TOY, WORDS, job, run_attempts, spec, write_examples

SOURCES = ("given", "kept", "changed", "reverted", *UNDECIDED)


def relabelled(folder: Path, examples: str, sources: Iterable[str] | None = None) -> str:
    """Final labels in other shards than the examples: `changed` ones are right, all others as given; by rule, the
    suspects that are unresolved are those whose given label is wrong and whose id is odd.
    """
    shards = [Folder(examples).read_table(shard) for shard in Folder(examples).shards()]
    table = pa.concat_tables(shards).sort_by("example_id")
    true = [
        next(c for c, words in enumerate(WORDS) if t.split()[0] in words) for t in table["text"].to_pylist()
    ]
    ids, labels = table["example_id"].to_pylist(), table["given_label"].to_pylist()
    rule = [
        "given" if one == other else "referred" if key % 2 else "changed"
        for key, one, other in zip(ids, labels, true, strict=True)
    ]
    said = rule if sources is None else [*sources]
    final = [other if how == "changed" else one for how, one, other in zip(said, labels, true, strict=True)]
    nothing: list[None] = [None] * len(ids)
    columns = [ids, ids, labels, final, nothing, said, nothing, nothing, table["split"].to_pylist()]
    made = pa.table(dict(zip(LABELS.names, columns, strict=True)), schema=LABELS)
    for number, part in enumerate((made.slice(0, 11), made.slice(11))):
        Folder(str(folder)).write_table(part, f"part-{number:05d}.parquet")
    return str(folder)


def data_of(examples: str, labels: str, sources: bool = True) -> DataSpec:
    return DataSpec(examples, labels, "final_label", sources=labels if sources else None)


def opened(one: FitJob) -> JobData:
    return open_job(one, {"main": Plugin(name=TOY)}, build_task(spec()), Plugin(name=TOY))


def predicted(network: Path, examples: str, ids: np.ndarray) -> np.ndarray:
    """What a saved network says of some examples."""
    shards = [Folder(examples).read_table(shard).to_pydict() for shard in Folder(examples).shards()]
    texts = {
        key: text for shard in shards for key, text in zip(shard["example_id"], shard["text"], strict=True)
    }
    loaded = load_encoder(network).eval()
    tokens, _ = type(loaded).tokenizer(loaded.config)([texts[key] for key in ids.tolist()])
    return np.asarray(loaded(pad(tokens, 0))[1].argmax(-1))


def test_both_figures_are_those_of_the_saved_network(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 60, dev=80, noise=0.5)
    one = job(
        examples, tmp_path / "out", keep_last=True, best_by="dev_accuracy",
        data=data_of(examples, relabelled(tmp_path / "labels", examples)),
    )  # fmt: skip
    result, data = fit(one, spec(epochs=6, learning_rate=0.05)), opened(one)
    assert data.final_dev is not None
    counts, final = data.final_dev.counts, data.final_dev.part.targets()
    assert 0 < (~counts).sum() < 40  # some are unresolved,
    assert (final != data.dev.targets()).sum() > 5  # some are changed
    lines = history(one.output)
    best = lines[result.best_epoch - 1]
    found = predicted(tmp_path / "out" / "model", examples, data.dev.ids)
    assert (found == final)[counts].mean() == pytest.approx(result.dev_accuracy_final)
    assert (found == data.dev.targets()).mean() == pytest.approx(result.dev_accuracy)
    assert (
        result.dev_accuracy_final == best["dev_accuracy_final"] == max(x["dev_accuracy_final"] for x in lines)
    )
    assert (result.dev_accuracy, result.dev_loss) == (best["dev_accuracy"], best["dev_loss"])
    assert (result.dev_settled, result.dev_examples) == (counts.sum(), 80)
    assert result.dev_accuracy < result.dev_accuracy_final  # type: ignore[operator]


def test_unresolved_suspects_choose_no_epoch(tmp_path: Path) -> None:
    """All final labels are right but those of unresolved suspects, which are most: by given labels the epochs that
    learnt least look best.
    """
    examples = write_examples(tmp_path / "examples", 90, dev=80, noise=0.75)
    labels = relabelled(tmp_path / "labels", examples)
    table = pa.concat_tables(Folder(labels).read_table(shard) for shard in Folder(labels).shards())
    right = dict(zip(table["example_id"].to_pylist(), table["final_label"].to_pylist(), strict=True))
    sources = dict(zip(table["example_id"].to_pylist(), table["source"].to_pylist(), strict=True))
    wrong = {key for key, source in sources.items() if source == "referred"}
    assert len(wrong) > 40
    results = {}
    for name in ("given", "settled"):
        one = job(
            examples, tmp_path / name, best_by="dev_accuracy", keep_last=True,
            data=data_of(examples, labels, sources=name == "settled"),
        )  # fmt: skip
        results[name] = fit(one, spec(epochs=8, learning_rate=0.02)), opened(one)
    (by_given, data), (by_settled, again) = results["given"], results["settled"]
    assert data.final_dev is None
    assert by_given.dev_accuracy_final is by_given.dev_settled is None
    assert "dev_loss_final" not in history(str(tmp_path / "given"))[0]
    given_lines, lines = (history(str(tmp_path / name)) for name in results)
    for one_line, other in zip(given_lines, lines, strict=True):
        assert other["dev_accuracy"] == one_line["dev_accuracy"]  # the same training
    assert by_settled.best_epoch != by_given.best_epoch
    settled = np.array([key not in wrong for key in again.dev.ids.tolist()])
    assert (settled == again.final_dev.counts).all()  # type: ignore[union-attr]
    truth = np.array([right[key] for key in again.dev.ids.tolist()])[settled]
    scores = [
        (predicted(tmp_path / name / "model", examples, again.dev.ids)[settled] == truth).mean()
        for name in results
    ]
    assert scores[1] > scores[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(FEWEST_SETTLED - 3, FEWEST_SETTLED + 3))
def test_who_counts(tmp_path_factory: pytest.TempPathFactory, seed: int, settled: int) -> None:
    """Every source but the undecided ones counts, whatever the shards; too few of them: all do."""
    folder, random = tmp_path_factory.mktemp("counts"), np.random.default_rng(seed)
    examples = write_examples(folder / "examples", 3, dev=30, noise=0.3)
    fine = [source for source in SOURCES if source not in UNDECIDED]
    dev = [*random.choice(fine, settled), *random.choice(UNDECIDED, 30 - settled)]
    random.shuffle(dev)
    shards = [Folder(examples).read_table(shard) for shard in Folder(examples).shards()]
    splits = pa.concat_tables(shards).sort_by("example_id")["split"].to_pylist()
    rest = iter(dev)
    labels = relabelled(folder / "labels", examples, [next(rest) if s == "dev" else "error" for s in splits])
    found = opened(job(examples, folder / "out", data=data_of(examples, labels))).final_dev
    assert found is not None
    assert found.settled == settled
    expected = [source not in UNDECIDED or settled < FEWEST_SETTLED for source in dev]
    assert found.counts.tolist() == expected


def test_every_decision_is_settled_or_not() -> None:
    assert set(DECISIONS) <= set(SOURCES)


def test_another_source_is_another_job(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 20, dev=30)
    one = job(examples, tmp_path, data=data_of(examples, relabelled(tmp_path / "labels", examples)))
    without = replace(one, data=replace(one.data, sources=None))
    assert job_key(one, spec()) != job_key(without, spec())
    gone = replace(one, data=replace(one.data, sources=str(tmp_path / "nowhere")))
    with pytest.raises(ArtifactError, match="run the verb that writes it first"):
        opened(gone)


def test_without_dev_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 20)
    one = job(examples, tmp_path / "out", data=data_of(examples, relabelled(tmp_path / "labels", examples)))
    result = fit(one, spec(epochs=2))
    assert (result.selected_by, result.best_epoch, result.dev_settled) == ("last", 2, None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FitJob]:
    """One, two and three workers, and one that is killed and goes on with as many or others."""
    folder = tmp_path_factory.mktemp("final_dev")
    examples = write_examples(folder / "examples", 37, dev=43, noise=0.4, longest=15)
    data = data_of(examples, relabelled(folder / "labels", examples))
    made: dict[str, FitJob] = {}
    attempts: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYCLEAN_CACHE", str(folder / "cache"))
        for name, kills in {
            "1": [(1, None)], "2": [(2, None)], "3": [(3, None)],
            "1 then 2": [(1, 2), (2, None)], "1 then 1": [(1, 2), (1, None)],
        }.items():  # fmt: skip
            one = job(examples, folder / name, data=data, best_by="dev_accuracy", keep_last=True)
            how = spec(epochs=4, batch_size=8, learning_rate=0.03, precision="float32")
            attempts += [(workers, one, how, epoch) for workers, epoch in kills]
            made[name] = one
        run_attempts(attempts, folder)
    return made


@pytest.mark.parametrize("workers", ["2", "3", "1 then 2"])
def test_any_number_of_workers_chooses_the_same_epoch(runs: dict[str, FitJob], workers: str) -> None:
    assert_same(runs["1"], runs[workers])
    one, other = (Folder(runs[name].output).read_json("result.json") for name in ("1", workers))
    assert one["best_epoch"] == other["best_epoch"]
    assert one["dev_settled"] == other["dev_settled"] < 43
    assert one["dev_accuracy_final"] == pytest.approx(other["dev_accuracy_final"], abs=1e-12)
    assert math.isfinite(one["dev_loss_final"])


def test_resumed_it_repeats_every_bit(runs: dict[str, FitJob]) -> None:
    assert_equal_bits(runs["1"], runs["1 then 1"])


def test_development_texts_of_the_training_data_choose_no_epoch(tmp_path: Path) -> None:
    """`load` lists them beside the examples; without such a list all count."""
    examples = write_examples(tmp_path / "load" / "examples", 40, dev=12)
    one = job(examples, tmp_path / "out")
    every = opened(one).dev.ids
    assert len(every) == 12
    load = Folder(str(tmp_path / "load"))
    for number, ids in enumerate((every[:2], every[5:6])):
        load.write_table(pa.table({"example_id": ids}), "shared", f"part-{number:05d}.parquet")
    data = opened(one)
    assert data.dev.ids.tolist() == [*every[2:5], *every[6:]]
    assert len(data.train.ids) == 40
