"""AUM's hooks on columns made by hand: fake labels, margins of each run, who is removed, and what it learns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from rayclean.config import Plugin
from rayclean.folder import Folder
from rayclean.methods.aum import AUM
from rayclean.methods.base import Stage
from rayclean.methods.batch import Output, StepBatch
from rayclean.training.loop import fit
from tests.methods.shared import columns, words, wrongly_labelled
from tests.training.toys import job, write_examples


def method(num_classes: int = 3, **options: Any) -> AUM:
    return AUM(AUM.Config(**options), num_classes)


def test_its_stages() -> None:
    first, second, last = method(num_classes=6).stages()
    assert first == Stage("margins_1", epochs=3, outputs=7, constant_rate=True)
    assert second == Stage("margins_2", epochs=3, outputs=7, constant_rate=True)
    assert last == Stage("train")
    assert method(fixed_threshold=0.0, margin_epochs=2).stages() == (
        Stage("margins_1", epochs=2, constant_rate=True),
        Stage("train"),
    )


def step(stage: str) -> tuple[StepBatch, dict[str, Output], dict[str, torch.Tensor]]:
    """Three examples of labels 0, 1, 2; the first is a threshold sample of run 1, the last one of run 2."""
    batch = StepBatch(
        global_id=np.arange(3), given_label=torch.tensor([0, 1, 2]), valid=torch.ones(3, dtype=torch.bool),
        world_size=1, global_count=3, total=lambda n: n, stage=stage,
    )  # fmt: skip
    width = 3 if stage == "train" else 4
    logits = torch.tensor([[5.0, 1.0, 2.0, 4.0], [1.0, 2.0, 0.0, 6.0], [0.5, 3.0, 1.0, -1.0]])[:, :width]
    return batch, {"main": Output(torch.zeros(3, 1), logits)}, {"threshold_run": torch.tensor([1, 0, 2])}


@pytest.mark.parametrize(
    ("stage", "labels", "margins"),
    [
        ("margins_1", [3, 1, 2], [4 - 5, 2 - 6, 1 - 3]),
        ("margins_2", [0, 1, 3], [5 - 4, 2 - 6, -1 - 3]),
        ("train", [0, 1, 2], None),
    ],
)
def test_threshold_samples_have_a_class_of_their_own(stage: str, labels: list[int], margins: Any) -> None:
    one, (batch, outputs, rows) = method(), step(stage)
    loss = one.loss(outputs, batch, rows, 1)["cross_entropy"]
    expected = torch.nn.functional.cross_entropy(outputs["main"].logits, torch.tensor(labels))
    torch.testing.assert_close(loss, expected)
    seen = {name: value.numpy() for name, value in one.seen(outputs, batch, rows).items()}
    state = columns(one, [0, 1, 2])
    one.observe(state, np.array([2, 0, 1]), seen, 1)
    for name, run in one.runs.items():
        expected = np.array(margins)[[1, 2, 0]] if name == stage else np.zeros(3)
        assert state[f"margin_sum_{run}"].tolist() == expected.tolist()
        assert state[f"visits_{run}"].tolist() == [int(name == stage)] * 3


def collected(count: int = 40, **options: Any) -> tuple[AUM, dict[str, Any]]:
    """Ten threshold samples per run of AUM 0; the others' are `aum_1` and `aum_2` of two visits."""
    one = method(**options)
    state = columns(one, np.arange(count) % 3)
    one.kept(state, "margins_1")
    assert [(state["threshold_run"] == run).sum() for run in (1, 2)] == [count // 4] * 2
    for run in (1, 2):
        state[f"visits_{run}"][:] = 2
        state[f"margin_sum_{run}"][:] = np.where(state["threshold_run"] == run, 0.0, 2.0)
    return one, state


def test_removed_is_what_every_run_finds_too_low() -> None:
    one, state = collected()
    free = np.flatnonzero(state["threshold_run"] == 0)
    state["margin_sum_1"][free[:3]] = [-1.0, -1.0, 0.0]  # too low, too low, no threshold sample is greater
    state["margin_sum_2"][free[:3]] = [-1.0, 1.0, -1.0]
    first, second = (np.flatnonzero(state["threshold_run"] == run) for run in (1, 2))
    state["margin_sum_2"][first[0]] = -1.0  # its only run
    state["margin_sum_1"][second[0]] = 1.0
    kept = one.kept(state, "train")
    assert kept is not None
    assert np.flatnonzero(~kept).tolist() == sorted([free[0], first[0]])
    assert state["used"].tolist() == kept.astype(int).tolist()
    assert one.summary(state) == {"threshold_1": 0.0, "threshold_2": 0.0}
    quality = one.quality(state)  # over the runs with their own label
    assert quality[[free[0], free[1], first[0], second[0]]].tolist() == [-0.5, 0.0, -0.5, 0.5]


def test_more_threshold_samples_above_than_a_percentile_allows() -> None:
    one, state = collected(percentile=75)
    free = np.flatnonzero(state["threshold_run"] == 0)
    for run in (1, 2):
        samples = np.flatnonzero(state["threshold_run"] == run)
        state[f"margin_sum_{run}"][samples[:3]] = 8.0
        state[f"margin_sum_{run}"][free[0]] = -1.0  # all ten are greater
        state[f"margin_sum_{run}"][free[1]] = 1.0  # three of ten: more than a quarter
        state[f"margin_sum_{run}"][samples[3:]] = 0.0
        others = ~np.isin(np.arange(40), [*samples, *free[:2]])
        state[f"margin_sum_{run}"][others] = 9.0
    kept = one.kept(state, "train")
    assert kept is not None
    assert np.flatnonzero(~kept).tolist() == free[:2].tolist()


def test_a_fixed_threshold() -> None:
    one = method(fixed_threshold=-1.0)
    state = columns(one, np.arange(6) % 3)
    state["visits_1"][:] = 2
    state["margin_sum_1"][:] = [-4, -2, 0, 1, -2.1, 3]
    assert one.kept(state, "margins_1") is None
    assert not state["threshold_run"].any()
    kept = one.kept(state, "train")
    assert kept is not None
    assert kept.tolist() == [False, True, True, True, False, True]


def test_a_class_is_never_lost_and_much_removed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    one = method(fixed_threshold=0.0)
    state = columns(one, [0] * 30 + [1] * 10)
    state["visits_1"][:] = 1
    state["margin_sum_1"][:] = [*np.linspace(-4, -1, 30), *[1.0] * 10]
    with caplog.at_level("WARNING"):
        kept = one.kept(state, "train")
    assert kept is not None
    assert np.flatnonzero(kept).tolist() == [27, 28, 29, *range(30, 40)]
    assert "68 % of the examples are removed" in caplog.text


def test_fewer_examples_than_classes(caplog: pytest.LogCaptureFixture) -> None:
    one = method(num_classes=9)
    state = columns(one, [0, 1, 2])
    one.kept(state, "margins_1")
    with caplog.at_level("WARNING"):
        kept = one.kept(state, "train")
    assert kept is not None
    assert kept.all()
    assert "fewer examples than classes" in caplog.text


def test_wrong_labels_have_low_margins_and_are_removed(tmp_path: Path) -> None:
    """METHODS 5.1: AUC above .8 at 20 to 40 % of noise; every visit counts once."""
    examples = write_examples(tmp_path / "examples", 300, dev=60, noise=0.3)
    plugin = Plugin(name="aum")
    fit(job(examples, tmp_path / "out"), words(plugin, epochs=2, batch_size=16))
    output = Folder(str(tmp_path / "out"))
    table = output.read_table("dynamics", "part-00000.parquet").to_pandas()
    assert (table["visits_1"] == 3).all()
    assert (table["visits_2"] == 3).all()
    wrong = wrongly_labelled(examples, table["example_id"])
    assert roc_auc_score(wrong, -table["quality"]) > 0.8
    removed = table["used"].to_numpy() == 0
    assert removed.sum() > 0.2 * wrong.sum()
    assert wrong[removed].mean() > 0.8
    lines = [json.loads(line) for line in output.read_text("metrics.jsonl").splitlines()]
    assert [line["examples"] for line in lines] == [300] * 6 + [300 - removed.sum()] * 2
    assert [line["size_removed"] for line in lines] == [0] * 6 + [removed.sum()] * 2
