"""The loop on one process: it learns, keeps the best epoch, resumes only what is its own, and says what went wrong."""

import itertools
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file

from rayclean.config import Plugin, TrainingConfig
from rayclean.errors import ArtifactError, DataError, RaycleanError
from rayclean.folder import Folder
from rayclean.methods.base import Method
from rayclean.schema import EXAMPLES, LABELS, features, list_column
from rayclean.training import passes
from rayclean.training.checkpoint import TrainingProgress, read_checkpoint
from rayclean.training.fold_table import read_folds, write_folds
from rayclean.training.inputs import open_tokens
from rayclean.training.job import DataSpec, ExampleSelection, FitJob, FitSpec, job_key
from rayclean.training.job_data import JobData, open_job
from rayclean.training.loop import fit
from rayclean.training.setup import build_task, schedule
from rayclean.training.steps import is_best
from tests.training.toys import (
    ACCUMULATING,
    DOUBLE,
    DRIFTING,
    LATE,
    LATER_NAN,
    NAN,
    TOY,
    Answering,
    Killed,
    ToyEncoder,
    errors_of,
    job,
    spec,
    write_examples,
)


def opened(one: FitJob) -> JobData:
    """The job's data for one toy network."""
    return open_job(one, {"main": Plugin(name=TOY)}, build_task(spec()), Plugin(name=TOY))


def history(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Folder(output).read_text("metrics.jsonl").splitlines()]


def test_overfits_32_examples(tmp_path: Path) -> None:
    """Every label is learnt, also the wrong ones; the only word that tells them apart is `x<i>`."""
    examples = write_examples(tmp_path / "examples", 32, dev=0, noise=0.3)
    words = FitSpec(
        Plugin(name="bag_of_words"), Plugin(name="cross_entropy"), TrainingConfig(epochs=60), ("a", "b", "c")
    )
    result = fit(job(examples, tmp_path / "out"), words)
    assert (result.epochs, result.best_epoch, result.selected_by, result.dev_accuracy) == (
        60,
        60,
        "last",
        None,
    )
    table = Folder(str(tmp_path / "out")).read_table("dynamics", "part-00000.parquet").to_pandas()
    assert len(table) == 32
    assert table["loss"].max() < 0.5  # below log 2: every given label has more than half of the probability
    assert np.allclose(table["quality"], -table["loss"])


@pytest.mark.parametrize("encoder", ["bag_of_words", "bilstm"])
def test_words_that_no_example_uses_do_not_matter(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = write_examples(tmp_path / "examples", 32, dev=8)
    options = {"buckets": 300, "embedding": 8, "hidden": 8}
    words = FitSpec(
        Plugin(name=encoder, **options),
        Plugin(name="cross_entropy"),
        TrainingConfig(epochs=3),
        ("a", "b", "c"),
    )
    kept = fit(job(examples, tmp_path / "kept"), words)
    monkeypatch.setattr("rayclean.training.setup.keep_used_tokens", lambda *arguments: None)
    whole = fit(job(examples, tmp_path / "whole"), words)
    assert kept.dev_loss == pytest.approx(whole.dev_loss, abs=1e-5)
    small, large = (
        load_file(tmp_path / name / "model" / "weights.safetensors") for name in ("kept", "whole")
    )
    assert small.keys() == large.keys()
    used = opened_tokens(examples, words.encoder)
    for name in small:
        same = (
            (small[name][used], large[name][used])
            if name == "embedding.weight"
            else (small[name], large[name])
        )
        np.testing.assert_allclose(*same, atol=1e-4)


def opened_tokens(examples: str, encoder: Plugin) -> Any:
    """The token ids that occur in the examples."""
    inputs = open_tokens(examples, encoder)
    return np.unique(np.concatenate(inputs.tokens_of(np.arange(40))))


def test_best_epoch_is_kept_and_last_beside_it(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 60, dev=40, noise=0.4)
    one = job(examples, tmp_path / "out", keep_last=True)
    result = fit(one, spec(epochs=12, learning_rate=0.3))
    losses = [record["dev_loss"] for record in history(one.output)]
    assert result.best_epoch == int(np.argmin(losses)) + 1 < 12  # with 40 % noise it overfits
    assert result.dev_loss == min(losses)
    best, last = (
        load_file(tmp_path / "out" / name / "weights.safetensors") for name in ("model", "model_last")
    )
    assert any((best[name] != last[name]).any() for name in best)
    data = opened(one)
    from rayclean.models.loading import load_encoder

    network = load_encoder(tmp_path / "out" / "model")
    logits = network(data.inputs["main"].batch(data.dev.rows["main"]))[1].detach()
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.dev.targets()))
    assert float(loss) == pytest.approx(result.dev_loss, abs=1e-6)


@pytest.mark.parametrize("best_by", ["dev_loss", "dev_accuracy"])
def test_patience_stops(tmp_path: Path, best_by: Any) -> None:
    examples = write_examples(tmp_path / "examples", 60, dev=40, noise=0.4)
    one = job(examples, tmp_path / "out", best_by=best_by)
    result = fit(one, spec(epochs=50, learning_rate=0.3, patience=2))
    assert result.epochs == result.best_epoch + 2 < 50
    assert result.selected_by == best_by


def rank(record: dict[str, Any]) -> tuple[float, float, int]:
    """Highest accuracy, then lowest loss, then first epoch."""
    return record["dev_accuracy"], -record["dev_loss"], -record["epoch"]


def test_the_job_says_what_selects(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 60, dev=40, noise=0.4)
    found = {
        best_by: fit(job(examples, tmp_path / best_by, best_by=best_by), spec(epochs=12, learning_rate=0.3))
        for best_by in ("dev_loss", "dev_accuracy")
    }
    lines = history(str(tmp_path / "dev_accuracy"))
    best = max(lines, key=rank)
    accurate = found["dev_accuracy"]
    assert (accurate.best_epoch, accurate.dev_accuracy) == (best["epoch"], best["dev_accuracy"])
    assert (accurate.selected_by, found["dev_loss"].selected_by) == ("dev_accuracy", "dev_loss")
    assert found["dev_loss"].dev_loss == min(line["dev_loss"] for line in lines)
    assert found["dev_loss"].key != accurate.key


@pytest.mark.parametrize(
    ("best_by", "new", "better"),
    [
        ("dev_loss", (0.4, 0.1), True),
        ("dev_loss", (0.5, 0.9), False),  # a tie: the earlier epoch
        ("dev_loss", (math.nan, 0.9), False),
        ("dev_accuracy", (0.9, 0.8), True),
        ("dev_accuracy", (0.4, 0.6), False),
        ("dev_accuracy", (0.4, 0.7), True),  # as accurate, of lower loss
        ("dev_accuracy", (0.5, 0.7), False),
        ("dev_accuracy", (None, None), True),  # no development examples: the last epoch
    ],
)
def test_which_epoch_is_better(best_by: Any, new: tuple[Any, Any], better: bool) -> None:
    progress = TrainingProgress(epoch=2, best_epoch=1, history=[{"dev_loss": 0.5, "dev_accuracy": 0.7}] * 2)
    record = {"dev_loss": new[0], "dev_accuracy": new[1]}
    assert is_best(record, progress, job("", Path("unused"), best_by=best_by)) == better


def test_a_warm_up_is_never_the_best_epoch(tmp_path: Path) -> None:
    """Also where the training dies before the first epoch that may be chosen."""
    examples = write_examples(tmp_path / "examples", 60, dev=40, noise=0.4)
    options: dict[str, Any] = {"learning_rate": 0.3, "patience": 2}
    free = fit(job(examples, tmp_path / "free"), spec(method=ACCUMULATING, epochs=12, **options))
    assert free.best_epoch < 5
    late = job(examples, tmp_path / "late")
    how = spec(method=LATE, epochs=12, **options)
    calm = fit(job(examples, tmp_path / "calm"), how)
    with pytest.raises(Killed):
        fit(late, how, on_epoch=stop_at(3), checkpoint_share=math.inf)
    result = fit(late, how)
    lines = history(late.output)
    assert result.best_epoch == min(lines[4:], key=lambda line: line["dev_loss"])["epoch"] == calm.best_epoch
    assert result.epochs == result.best_epoch + 2
    short = fit(job(examples, tmp_path / "short"), spec(method=LATE, epochs=4, learning_rate=0.3))
    losses = [line["dev_loss"] for line in history(str(tmp_path / "short"))]
    assert short.best_epoch == int(np.argmin(losses)) + 1 < 4


def stop_at(epoch: int) -> Any:
    """Dies once an epoch is over."""

    def on_epoch(record: dict[str, Any]) -> None:
        if record["epoch"] == epoch:
            raise Killed

    return on_epoch


def test_goes_on_at_the_last_epoch_and_only_reads_when_done(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 37, dev=10)
    one, told = job(examples, tmp_path / "out"), []
    with pytest.raises(Killed):
        fit(one, spec(epochs=4), on_epoch=stop_at(2), checkpoint_share=math.inf)
    before = history(one.output)
    assert [record["epoch"] for record in before] == [1, 2]
    first = fit(one, spec(epochs=4), on_epoch=told.append)
    assert told == history(one.output)  # every epoch once, those of the first attempt too
    assert told[:2] == before  # with their times: they were not trained again
    assert [record["epoch"] for record in told] == [1, 2, 3, 4]
    assert not Folder(one.output).exists("checkpoint.safetensors")
    again = fit(one, spec(epochs=4), on_epoch=told.append)
    assert len(told) == 4
    assert again == first


def test_an_epoch_that_asked_is_never_trained_again(tmp_path: Path) -> None:
    """However little time may go into checkpoints: begun again, it could come to other questions, and pay for both."""
    examples = write_examples(tmp_path / "examples", 90, noise=0.3)
    weak = {"name": TOY}
    method = Plugin(name="noiseal", weak=weak, warmup_epochs=2, demonstrations=3, lambda_=0.3)
    how = spec(method=method, epochs=6, learning_rate=0.05)
    one, first, second = job(examples, tmp_path / "out"), Answering(), Answering()
    with pytest.raises(Killed):
        fit(one, how, on_epoch=stop_at(5), checkpoint_share=1e-9, consult=first)
    fit(one, how, checkpoint_share=1e-9, consult=second)
    calm = Answering()
    fit(job(examples, tmp_path / "calm"), how, consult=calm)
    asked = [request.ids.tolist() for request in (*first.requests, *second.requests)]
    assert asked == [request.ids.tolist() for request in calm.requests]
    assert first.requests


def test_a_slow_epoch_is_no_division_by_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour per epoch, of which nobody is asked: the rate of few examples stays above zero."""
    clock = itertools.count(step=3600)
    monkeypatch.setattr("rayclean.training.loop.time.monotonic", lambda: float(next(clock)))
    examples = write_examples(tmp_path / "examples", 40)
    assert fit(job(examples, tmp_path / "out"), spec(epochs=2)).epochs == 2
    assert 0 < history(str(tmp_path / "out"))[0]["examples_per_second"] < 0.05


def test_other_hyper_parameters_never_resume(tmp_path: Path) -> None:
    """The trap of resuming by name: a checkpoint and a result of another learning rate, seed or data are not taken."""
    examples = write_examples(tmp_path / "examples", 37, dev=10)
    one, seen = job(examples, tmp_path / "out"), []
    with pytest.raises(Killed):
        fit(one, spec(epochs=3), on_epoch=stop_at(1), checkpoint_share=math.inf)
    changed = fit(
        one, spec(epochs=3, learning_rate=0.5), on_epoch=lambda record: seen.append(record["epoch"])
    )
    fresh = fit(job(examples, tmp_path / "fresh"), spec(epochs=3, learning_rate=0.5))
    assert seen == [1, 2, 3]
    assert changed.loss == fresh.loss
    assert fit(job(examples, tmp_path / "out", seed=9), spec(epochs=3, learning_rate=0.5)).loss != fresh.loss


def test_workers_that_see_different_states_do_not_go_on(tmp_path: Path) -> None:
    """As on a network file system with cached attributes: here the second worker does not see a checkpoint, then not
    the result.
    """
    examples = write_examples(tmp_path / "examples", 37, dev=10)
    sees, does_not = job(examples, tmp_path / "sees"), job(examples, tmp_path / "empty")
    with pytest.raises(Killed):
        fit(sees, spec(epochs=3), on_epoch=stop_at(2), checkpoint_share=math.inf)
    for number, what in enumerate(("the last finished epoch", "whether the job is finished")):
        (tmp_path / str(number)).mkdir()
        found = errors_of([sees, does_not], spec(epochs=3), tmp_path / str(number))
        assert all(error.startswith(f"DisagreementError: 1 of 2 workers disagree with the first one about {what}")
                   for error in found), found  # fmt: skip
        fit(sees, spec(epochs=3))


def test_key_changes_with_data_and_not_with_place(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 37)
    keys = [job_key(job(examples, tmp_path / "a"), spec()), job_key(job(examples, tmp_path / "b"), spec())]
    assert keys[0] == keys[1]
    write_examples(tmp_path / "examples", 37, noise=0.5)
    assert job_key(job(examples, tmp_path / "a"), spec()) != keys[0]


def test_not_finite_names_epoch_and_step(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 20)
    with pytest.raises(RaycleanError, match=r"epoch 1, step 1 .*cross_entropy = nan.*learning rate"):
        fit(job(examples, tmp_path / "out"), spec(encoder=NAN))
    assert not Folder(str(tmp_path / "out")).exists("result.json")


@pytest.mark.parametrize("method", ["cross_entropy", "lane"])
def test_a_gradient_that_is_not_finite_is_told_of_the_step_that_made_it(tmp_path: Path, method: str) -> None:
    """The host hears of it a step later, also of the last one of an epoch; nothing is saved in between."""
    views = {"views": ["dropout"]} if method == "lane" else {}
    for count, step in ((80, 2), (96, 12)):  # ten batches an epoch; twelve, of which the last one is it
        examples = write_examples(tmp_path / f"examples-{count}", count)
        one = job(examples, tmp_path / f"out-{count}")
        how = spec(encoder=LATER_NAN, method=Plugin(name=method, **views), epochs=4)
        epoch = 2 if count == 80 else 1
        with pytest.raises(RaycleanError, match=rf"epoch {epoch}, step {step} .*lower the learning rate"):
            fit(one, how, checkpoint_share=math.inf)
        saved = read_checkpoint(Folder(one.output), job_key(one, how))
        if epoch == 1:
            assert saved is None
            continue
        assert saved is not None
        assert saved.progress.epoch == 1
        assert all(value.isfinite().all() for value in saved.tensors.values())


def test_weights_that_drift_apart_are_found_at_the_end_of_the_epoch(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 37, dev=10)
    jobs = [job(examples, tmp_path / name) for name in ("first", "second")]
    found = errors_of(jobs, spec(encoder=DRIFTING, epochs=2), tmp_path)
    expected = (
        "DisagreementError: toy: after epoch 1 the weights of 1 of 2 workers are not those of the first one"
    )
    assert all(error.startswith(expected) for error in found), found


def test_the_thread_that_reads_ahead_ends_with_the_epoch_and_tells_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the loop itself stops, by an error or by Ctrl-C."""
    examples = write_examples(tmp_path / "examples", 60, dev=10)
    before = set(threading.enumerate())
    fit(job(examples, tmp_path / "calm"), spec(epochs=2))
    assert set(threading.enumerate()) == before
    read = passes.read_batch

    def broken(*arguments: Any) -> Any:
        if arguments[3] == 2:
            raise DataError("tokens.bin: the file ends early")
        return read(*arguments)

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(passes, "read_batch", broken)
        with pytest.raises(DataError, match=r"^tokens.bin: the file ends early$"):
            fit(job(examples, tmp_path / "broken"), spec(epochs=2))
    assert set(threading.enumerate()) == before
    monkeypatch.setattr(Method, "observe", interrupted)
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(job(examples, tmp_path / "interrupted"), spec(epochs=2))
    assert set(threading.enumerate()) == before, stopped  # although the traceback is still held


def test_folds_partition_the_examples(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 200, dev=50)
    everything = opened(job(examples, tmp_path))
    ids = np.sort(np.concatenate([everything.train.ids, everything.dev.ids]))
    assert (len(everything.train.ids), len(everything.dev.ids)) == (200, 50)
    folds = str(tmp_path / "folds")
    write_folds(Folder(examples), Folder(folds), map, seed=3, count=4)
    fold_of_each = read_folds(folds, ids).fold
    for fold in range(4):
        one = job(examples, tmp_path, select=ExampleSelection("fold", fold, folds))
        data = opened(one)
        used = np.sort(np.concatenate([data.train.ids, data.dev.ids]))
        assert used.tolist() == ids[fold_of_each != fold].tolist()
        assert not set(data.train.ids) & set(data.dev.ids)
        assert 5 < len(data.dev.ids) < 45


def test_copies_of_a_text_are_trained_tested_or_left_out_together(tmp_path: Path) -> None:
    """A network that is told how good it is by copies of what it learnt would stop late and be sure of everything."""
    examples = write_examples(tmp_path / "examples", 90, shards=2)
    source, group_of = Folder(examples), {}
    for shard in source.shards():
        table = source.read_table(shard)
        ids = table["example_id"].to_pylist()
        group_of |= {each: each % 30 for each in ids}
        texts = pa.array([f"{'Word' if each % 2 else 'word'}  w{each % 30}" for each in ids])
        source.write_table(table.set_column(table.column_names.index("text"), "text", texts), shard)
    folds = Folder(str(tmp_path / "folds"))
    write_folds(source, folds, map, seed=3, count=3)
    left_out: set[int] = set()
    for fold in range(3):
        data = opened(job(examples, tmp_path, select=ExampleSelection("fold", fold, folds.url())))
        train, dev = ({group_of[each] for each in part.ids} for part in (data.train, data.dev))
        assert not train & dev
        assert len(dev) > 0
        rest = set(group_of.values()) - train - dev
        assert len(rest) > 0
        assert not left_out & rest
        left_out |= rest
    assert left_out == set(group_of.values())


def write_labels(folder: Path, examples: str, shift: int, drop: int = 0) -> str:
    for shard in Folder(examples).shards():
        table = Folder(examples).read_table(shard).to_pandas().iloc[::-1].iloc[drop:]
        final = [None if i == 0 else int(y + shift) % 3 for i, y in enumerate(table["given_label"])]
        columns = [
            table["example_id"],
            table["example_id"],
            table["given_label"],
            final,
            [None] * len(table),
            ["given"] * len(table),
            [None] * len(table),
            [None] * len(table),
            table["split"],
        ]
        Folder(str(folder)).write_table(
            pa.table([pa.array(c) for c in columns], schema=None, names=LABELS.names), shard
        )
    return str(folder)


def test_labels_come_from_another_folder_and_dev_labels_stay_given(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 60, dev=20, shards=3)
    given = opened(job(examples, tmp_path))
    labels = write_labels(tmp_path / "labels", examples, shift=1)
    data = opened(job(examples, tmp_path, data=DataSpec(examples, labels, "final_label")))
    assert 57 <= len(data.train.ids) < 60  # one label per shard is null
    known = np.isin(given.train.ids, data.train.ids)
    assert (data.train.targets() == (given.train.targets()[known] + 1) % 3).all()
    assert (data.dev.targets() == given.dev.targets()).all()

    other = write_labels(tmp_path / "other", examples, shift=1, drop=2)
    with pytest.raises(DataError, match="no row for 6 of 80"):
        opened(job(examples, tmp_path, data=DataSpec(examples, other, "final_label")))


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 0, dev=9)
    with pytest.raises(DataError, match="no training example"):
        fit(job(examples, tmp_path / "out"), spec())
    with pytest.raises(ArtifactError, match="no shards"):
        fit(job(str(tmp_path / "nowhere"), tmp_path / "out"), spec())
    examples = write_examples(tmp_path / "more", 30)
    with pytest.raises(DataError, match="label 2 found"):
        fit(
            job(examples, tmp_path / "out"),
            FitSpec(Plugin(name=TOY), Plugin(name="cross_entropy"), TrainingConfig(), ("a", "b")),
        )


def test_batch_of_inputs_is_the_text(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 50, dev=0)
    data = opened(job(examples, tmp_path))
    table = (
        pa.concat_tables([Folder(examples).read_table(s) for s in Folder(examples).shards()])
        .to_pandas()
        .set_index("example_id")
    )
    from tests.training.toys import ToyTokenizer

    for position in (0, 17, 49):
        text = table.loc[data.train.ids[position], "text"]
        tokens = data.inputs["main"].batch(data.train.rows["main"][[position]])["input_ids"][0].tolist()
        assert tokens == ToyTokenizer()([text])[0][0].tolist()
        assert data.train.targets()[position] == table.loc[data.train.ids[position], "given_label"]


def test_schedule_rises_then_falls() -> None:
    values = [schedule(step, 100, 0.1) for step in range(100)]
    assert values.index(1.0) == 9
    assert np.diff(values[:10]).min() > 0 > np.diff(values[10:]).max()
    assert values[-1] == pytest.approx(1 / 90)
    assert [schedule(step, 4, 0.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_head_on_cached_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen encoder reads features, an encoder that is trained whole never does."""
    examples = write_examples(tmp_path / "examples", 120, dev=30)
    generator = np.random.default_rng(0)
    for shard in Folder(examples).shards():
        table = Folder(examples).read_table(shard)
        values = generator.normal(0, 0.3, (len(table), 8)).astype(np.float32)
        values[np.arange(len(table)), table["given_label"].to_numpy()] += 3
        columns = [table["example_id"], list_column(values)]
        Folder(str(tmp_path / "features")).write_table(pa.table(columns, schema=features(8)), shard)
    from tests.training import toys

    one = job(examples, tmp_path / "out", data=DataSpec(examples, features=str(tmp_path / "features")))
    assert set(opened(one).inputs["main"].batch(np.array([0]))) == {
        "input_ids",
        "attention_mask",
    }
    monkeypatch.setattr(toys.ToyEncoder, "is_frozen", classmethod(lambda cls, config: True))
    monkeypatch.setattr(toys.ToyEncoder, "encode", None)  # nobody may call it
    assert fit(one, spec(epochs=10)).dev_accuracy == 1.0


def test_bfloat16_runs_and_keeps_logits_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = write_examples(tmp_path / "examples", 40, dev=20)
    computed, handed = set(), set()
    classify, seen = ToyEncoder.classify, Method.seen

    def classified(self: ToyEncoder, refined: torch.Tensor) -> torch.Tensor:
        logits = classify(self, refined)
        computed.add(logits.dtype)
        return logits

    def noted(self: Method, outputs: Any, *rest: Any) -> Any:
        handed.add(outputs["main"].logits.dtype)
        return seen(self, outputs, *rest)

    monkeypatch.setattr(ToyEncoder, "classify", classified)
    monkeypatch.setattr(Method, "seen", noted)
    half = fit(job(examples, tmp_path / "half"), spec(epochs=2, precision="bfloat16"))
    assert (computed, handed) == ({torch.bfloat16}, {torch.float32})
    full = fit(job(examples, tmp_path / "full"), spec(epochs=2, precision="float32"))
    assert half.loss == pytest.approx(full.loss, rel=0.02)
    assert half.loss != full.loss
    handed.clear()
    fit(job(examples, tmp_path / "double"), spec(encoder=DOUBLE, epochs=1, precision="float32"))
    assert handed == {torch.float64}


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    """Cross-entropy over 60 examples: one step over 60, or over 2 x 30 or 4 x 15 with averaged gradients."""
    examples = write_examples(tmp_path / "examples", 60)
    found = {}
    for size, accumulate in ((60, 1), (30, 2), (15, 4)):
        one = job(examples, tmp_path / str(size), keep_last=True)
        fit(one, spec(epochs=3, batch_size=size, accumulate=accumulate))
        found[size] = load_file(tmp_path / str(size) / "model_last" / "weights.safetensors")
    for size in (30, 15):
        for name, values in found[60].items():
            np.testing.assert_allclose(values, found[size][name], atol=1e-6)


def test_a_last_group_that_is_smaller_still_steps(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 50)
    fit(job(examples, tmp_path / "out"), spec(epochs=1, batch_size=10, accumulate=3))  # 5 batches: 3 and 2
    assert math.isfinite(history(str(tmp_path / "out"))[0]["loss"])


def test_columns_of_every_epoch_are_kept(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", 40)
    fit(job(examples, tmp_path / "out", keep_epochs=True), spec(epochs=3))
    tables = [
        Folder(str(tmp_path / "out")).read_table("epochs", f"epoch-{n:03d}", "part-00000.parquet").to_pandas()
        for n in (1, 2, 3)
    ]
    assert all(set(table) == {"example_id", "given_label", "loss"} for table in tables)
    assert tables[0]["loss"].mean() > tables[2]["loss"].mean()


def test_columns_of_epochs_after_the_checkpoint_go(tmp_path: Path) -> None:
    """An attempt that had none left them; the one that goes on may stop before."""
    examples = write_examples(tmp_path / "examples", 40)
    one, output = job(examples, tmp_path / "out", keep_epochs=True), Folder(str(tmp_path / "out"))
    with pytest.raises(Killed):
        fit(one, spec(epochs=3), on_epoch=stop_at(1), checkpoint_share=math.inf)
    output.write_text("of an epoch that is trained again", "epochs", "epoch-003", "part-00007.parquet")
    with pytest.raises(Killed):
        fit(one, spec(epochs=3), on_epoch=stop_at(2), checkpoint_share=math.inf)
    assert not output.exists("epochs", "epoch-003")
    assert output.exists("epochs", "epoch-001")


def test_equal_texts_have_equal_hashes(tmp_path: Path) -> None:
    """By position among the training examples, wherever their shards are, and none of the development examples'."""
    ids, texts = [5, 1, 9, 3, 7], ["one", " two", "two ", "three", "one"]
    for number, rows in enumerate(([0, 1], [2, 3, 4])):
        columns = [
            [ids[row] for row in rows], [texts[row] for row in rows], pa.array([0] * len(rows), pa.int32()),
            ["dev" if ids[row] == 3 else "train" for row in rows],
        ]  # fmt: skip
        Folder(str(tmp_path)).write_table(pa.table(columns, schema=EXAMPLES), f"part-{number}.parquet")
    data = opened(job(str(tmp_path), tmp_path / "out"))
    assert data.train.ids.tolist() == [1, 5, 7, 9]
    two, one, again, other = data.texts_of_train.tolist()
    assert (two, one) == (other, again)
    assert one != two
