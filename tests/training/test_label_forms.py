"""Networks learn sets of classes and tags, alike for any number of workers, and say what they have learnt."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from rayclean.config import Plugin, PredictConfig
from rayclean.errors import ArtifactError, ConfigError, DataError
from rayclean.folder import Folder
from rayclean.methods import METHODS
from rayclean.models.loading import describe_encoder, load_encoder
from rayclean.runtime.engines import IN_PROCESS
from rayclean.runtime.predict import predict_shards
from rayclean.training.job import DataSpec, FitJob, FitSpec, job_key
from rayclean.training.job_data import open_job
from rayclean.training.loop import fit
from rayclean.training.setup import build_task, check_label_form
from tests.models import tiny
from tests.training.label_forms import BAG, ENCODERS, LSTM, NAMES, SCHEMA, how, write
from tests.training.test_exactness import assert_equal_bits, assert_same, outcome
from tests.training.toys import Attempt, job, run_attempts

FORMS = ["multi_label", "tagging"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks so small lose more by a second thread than they gain, above all where others compute, too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write(tmp_path_factory.mktemp("tiny-bert"))


def encoder(name: str, tiny_bert: str) -> Plugin:
    options: dict[str, dict[str, Any]] = {"trained": {}, "frozen": {"trainable": "head"}}
    if name in options:
        return Plugin(name="transformer", model=tiny_bert, max_length=32, **options[name])
    return {"bag_of_words": BAG, "bilstm": LSTM}[name]


@pytest.mark.parametrize(
    ("task", "name", "epochs", "rate"),
    [
        ("multi_label", "bag_of_words", 20, 0.03),
        ("tagging", "bilstm", 10, 0.03),
        ("tagging", "trained", 4, 5e-3),
        ("tagging", "frozen", 4, 5e-2),
    ],
)
def test_learns_what_words_decide(
    tmp_path: Path, tiny_bert: str, task: str, name: str, epochs: int, rate: float
) -> None:
    examples = write(tmp_path / "examples", task, 120, dev=40)
    specification = how(task, encoder(name, tiny_bert), epochs=epochs, learning_rate=rate)
    one = job(examples, tmp_path / "out")
    result = fit(one, specification)
    assert result.dev_accuracy is not None
    assert result.dev_accuracy > 0.97
    model = str(tmp_path / "out" / "model")
    description = describe_encoder(model)
    assert description["label_form"] == {"multi_label": "classes", "tagging": "tags"}[task]
    assert description["labels"] == list(NAMES)

    # What the loop says of dev is what the saved network says of it, through prediction.
    output = Folder(str(tmp_path / "predictions"))
    settings = PredictConfig(precision="float32")
    figures = predict_shards(
        IN_PROCESS, Folder(examples), output, [model], build_task(specification), folds=None, config=settings,
        features=Folder(str(tmp_path / "features")),
    )  # fmt: skip
    assert figures["rows"] == 160
    assert "labelled" not in figures
    table = pa.concat_tables([output.read_table(shard) for shard in output.shards()])
    source = pa.concat_tables([Folder(examples).read_table(shard) for shard in Folder(examples).shards()])
    assert table["example_id"].equals(source["example_id"])
    assert table["given_label"].equals(source["given_label"])
    assert set(table["fold"].to_pylist()) == {-1}
    shares = []
    for row, label in zip(table.to_pylist(), source.to_pylist(), strict=True):
        found = np.array(row["probabilities"])
        if task == "tagging":
            assert found.shape == (len(label["tokens"]), 7)
            np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
            right = found.argmax(1) == label["given_label"]
        else:
            assert found.shape == (3,)
            right = (found >= 0.5) == np.isin(range(3), label["given_label"])
        if label["split"] == "dev":
            shares.append(right.mean())
    assert float(np.mean(shares)) == pytest.approx(result.dev_accuracy, abs=1e-6)


Runs = dict[tuple[str, str], FitJob]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One, two and three workers, and one that is killed after the first epoch and gone on with by two."""
    folder = tmp_path_factory.mktemp("forms")
    made: Runs = {}
    attempts: list[Attempt] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYCLEAN_CACHE", str(folder / "cache"))
        for task in FORMS:
            examples = write(
                folder / task, task, 37, dev=10, longest=14
            )  # tags: some are longer than is read
            specification = how(task, epochs=3, batch_size=8, learning_rate=0.03)
            for name, kills in {
                "1": [(1, None)], "2": [(2, None)], "3": [(3, None)],
                "1 then 2": [(1, 1), (2, None)], "1 then 1": [(1, 1), (1, None)],
            }.items():  # fmt: skip
                one = job(examples, folder / f"{task} {name}", keep_last=True, keep_epochs=True)
                attempts += [(workers, one, specification, epoch) for workers, epoch in kills]
                made[task, name] = one
        run_attempts(attempts, folder)
    return made


@pytest.mark.parametrize("workers", ["2", "3", "1 then 2"])
@pytest.mark.parametrize("task", FORMS)
def test_any_number_of_workers_killed_or_not(runs: Runs, task: str, workers: str) -> None:
    assert_same(runs[task, "1"], runs[task, workers])
    _, history, _ = outcome(runs[task, "1"])
    assert history[-1]["loss"] < history[0]["loss"] - 1e-3


@pytest.mark.parametrize("task", FORMS)
def test_resumed_it_repeats_every_bit(runs: Runs, task: str) -> None:
    assert_equal_bits(runs[task, "1"], runs[task, "1 then 1"])


@pytest.mark.parametrize("task", FORMS)
def test_columns_are_kept_per_example_without_labels(runs: Runs, task: str) -> None:
    dynamics, _, _ = outcome(runs[task, "1"])
    assert set(dynamics) == {"example_id", "loss", "trained_label", "quality"}
    assert (dynamics["quality"] == -dynamics["loss"]).all()
    epoch = Folder(runs[task, "1"].output).read_table("epochs", "epoch-001", "part-00000.parquet")
    assert epoch.column_names == ["example_id", "loss"]


def test_words_that_are_not_read_are_in_no_loss(tmp_path: Path) -> None:
    """The second half of the text, which lies behind `max_length`, may be labelled as it likes."""
    results = []
    for name, tags in (("right", [0, 1]), ("wrong", [3, 4])):
        columns = [
            [5, 6],
            ["a b", "c d"],
            [["oak", "bob"] * 8, ["bob"]],
            [[0, 1] * 5 + tags * 3, [1]],
            ["train", "dev"],
        ]

        Folder(str(tmp_path / name)).write_table(pa.table(columns, schema=SCHEMA), "part-00000.parquet")
        result = fit(job(str(tmp_path / name), tmp_path / f"out-{name}"), how("tagging", epochs=3))
        assert result.truncated == 1
        weights = load_encoder(str(tmp_path / f"out-{name}" / "model")).state_dict()
        results.append((result.loss, weights))
    assert results[0][0] == results[1][0] > 0
    assert all(torch.equal(results[0][1][key], results[1][1][key]) for key in results[0][1])


def test_a_word_that_is_not_read_is_predicted_as_outside(tmp_path: Path) -> None:
    examples = write(tmp_path / "examples", "tagging", 30, longest=20)
    specification = how("tagging", epochs=1)
    fit(job(examples, tmp_path / "out"), specification)
    output = Folder(str(tmp_path / "predictions"))
    figures = predict_shards(
        IN_PROCESS, Folder(examples), output, [str(tmp_path / "out" / "model")], build_task(specification),
        folds=None, config=PredictConfig(precision="float32"),
    )  # fmt: skip
    rows = [row for shard in output.shards() for row in output.read_table(shard).to_pylist()]
    longer = [row["probabilities"] for row in rows if len(row["probabilities"]) > 10]
    assert figures["cut"] == len(longer) > 3
    for probabilities in longer:
        assert all(tokens == [1.0, 0, 0, 0, 0, 0, 0] for tokens in probabilities[10:])
        assert all(min(tokens) > 0 for tokens in probabilities[:10])


@pytest.mark.parametrize("task", FORMS)
def test_a_label_outside_the_classes_is_refused(tmp_path: Path, task: str) -> None:
    examples = write(tmp_path / "examples", task, 30)
    few = FitSpec(**{**vars(how(task)), "labels": ("a",)})
    with pytest.raises(DataError, match=r"label \d found, expected less than"):
        fit(job(examples, tmp_path / "out"), few)


def test_tags_of_another_text_are_refused(tmp_path: Path) -> None:

    columns = [[5], ["oak bob"], [["oak", "bob"]], [[0, 1, 0]], ["train"]]
    Folder(str(tmp_path / "examples")).write_table(pa.table(columns, schema=SCHEMA), "part-00000.parquet")
    with pytest.raises(DataError, match="example 5 has 2 tokens and 3 tags"):
        fit(job(str(tmp_path / "examples"), tmp_path / "out"), how("tagging"))


def test_a_frozen_body_reads_words_in_every_step(tmp_path: Path, tiny_bert: str) -> None:
    """Features that were computed once are per text: they are not looked at, and need not be there."""
    frozen = encoder("frozen", tiny_bert)
    examples = write(tmp_path / "examples", "tagging", 6)

    one = job(examples, tmp_path / "out", data=DataSpec(examples, features=str(tmp_path / "nowhere")))
    data = open_job(one, {"main": frozen}, build_task(how("tagging")), frozen)
    assert set(data.batch(data.train, np.arange(2))["main"]) == {
        "input_ids",
        "attention_mask",
        "first_tokens",
    }
    whole = write(tmp_path / "whole", "multi_label", 6)
    one = job(whole, tmp_path / "out", data=DataSpec(whole, features=str(tmp_path / "nowhere")))
    with pytest.raises(ArtifactError, match="no shards of features"):
        open_job(one, {"main": frozen}, build_task(how("multi_label")), frozen)


def test_the_task_is_part_of_the_key(tmp_path: Path) -> None:
    examples = write(tmp_path / "examples", "tagging", 6)
    one = job(examples, tmp_path / "out")
    assert len({job_key(one, how(task, LSTM)) for task in (*FORMS, "classification")}) == 3


@pytest.mark.parametrize("task", FORMS)
def test_a_method_that_cannot_learn_from_the_labels_is_refused(tmp_path: Path, task: str) -> None:
    examples = write(tmp_path / "examples", task, 6)
    assert [name for name in METHODS if "class" not in METHODS.resolve(name).label_forms] == []
    for name in METHODS:
        method = Plugin(name=name)
        check_label_form(method, Plugin(name="classification"))
        if name != "cross_entropy":
            with pytest.raises(ConfigError, match=f"{name}.*cannot learn.*{task}.*choose cross_entropy"):
                check_label_form(method, Plugin(name=task))
    with pytest.raises(ConfigError, match="cannot learn"):
        fit(job(examples, tmp_path / "out"), how(task, method="lane"))


def test_a_bag_of_words_cannot_tag(tmp_path: Path) -> None:
    examples = write(tmp_path / "examples", "tagging", 6)
    with pytest.raises(ConfigError, match="answers for whole texts"):
        fit(job(examples, tmp_path / "out"), how("tagging", BAG))


@pytest.mark.parametrize("task", FORMS)
def test_the_loss_of_dev_is_that_of_the_task(runs: Runs, task: str) -> None:
    """By hand: the network of the last epoch on all development examples in one batch."""
    one = runs[task, "1"]
    specification = how(task)
    built = build_task(specification)
    data = open_job(one, {"main": ENCODERS[task]}, built, ENCODERS[task])
    network = load_encoder(Folder(one.output).path("model_last"))
    batch = data.inputs["main"].batch(data.dev.rows["main"])
    targets = torch.from_numpy(data.dev.targets())
    if task == "tagging":
        assert (batch["first_tokens"] < 0).any()
        targets[batch["first_tokens"] < 0] = -1
    with torch.no_grad():
        logits = network(batch)[1]
    last = json.loads(Folder(one.output).read_text("metrics.jsonl").splitlines()[-1])
    assert float(built.loss(logits, targets).mean()) == pytest.approx(last["dev_loss"], abs=1e-5)
    assert float(built.correct(logits, targets).mean()) == pytest.approx(last["dev_accuracy"], abs=1e-6)
