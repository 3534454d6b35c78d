"""DivideMix's hooks on columns and batches made by hand: who divides for whom, targets, the three losses; and it learns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from rayclean.config import Plugin
from rayclean.folder import Folder
from rayclean.functional import mixing
from rayclean.methods.batch import Output, StepBatch
from rayclean.methods.dividemix import DivideMix
from rayclean.training.loop import fit
from tests.methods.shared import columns, words, wrongly_labelled
from tests.training.toys import job, write_examples

LOSSES = [0.05, 0.1, 0.08, 0.12, 0.07, 2, 2.2, 1.9]
IDS, LABELS = torch.arange(30, 34), torch.tensor([0, 1, 2, 1])


def method(num_classes: int = 3, seed: int = 0, **options: Any) -> DivideMix:
    return DivideMix(DivideMix.Config(**options), num_classes, seed)


def test_each_networks_losses_divide_the_labels() -> None:
    """METHODS 10: eight losses in two heaps; the second network's are the other way round."""
    one = method()
    state = columns(one, [0, 1, 2, 0, 1, 2, 0, 1])
    state["loss_first"][:], state["loss_second"][:] = LOSSES, LOSSES[::-1]
    one.partition(state, 2)  # still warming up
    one.partition(state, 3, turn=1)  # once an epoch
    assert (state["labelled_first"] == 1).all()
    one.partition(state, 3)
    assert state["omega_first"].round(3).tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert state["labelled_first"].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert state["labelled_second"].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert state["trusted_by"].tolist() == [1, 1, 1, 2, 2, 1, 1, 1]
    assert one.summary(state) == {"labelled_first": 5, "labelled_second": 5}
    assert one.quality(state)[0] == pytest.approx(-(0.05 + 1.9) / 2)


def test_equal_losses_are_all_trusted() -> None:
    one = method()
    state = columns(one, [0, 1, 2])
    one.partition(state, 3)
    assert (state["omega_first"] == 1).all()
    assert (state["labelled_first"] == 1).all()


def test_too_few_trusted_labels_are_the_tenth_of_each_class(caplog: pytest.LogCaptureFixture) -> None:
    one = method(num_classes=6)
    state = columns(one, np.arange(40) % 2)
    state["loss_first"][:] = [0.0, *np.linspace(5, 6, 39)]
    state["loss_second"][:] = np.repeat([0.1, 4], 20)
    with caplog.at_level("WARNING"):
        one.partition(state, 3)
    labelled = np.flatnonzero(state["labelled_first"])
    assert len(labelled) == 4
    assert np.bincount(labelled % 2).tolist() == [2, 2]
    assert 0 in labelled
    assert caplog.text.count("DivideMix: 1 labels are trusted") == 1


def test_a_review_knows_the_network_that_was_in_turn() -> None:
    one = method()
    state = columns(one, [0, 1])
    logits = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0]])
    seen = one.judged({"second": Output(torch.zeros(2, 1), logits)}, torch.tensor([0, 1]), {})
    one.review(state, np.array([1, 0]), {name: value.numpy() for name, value in seen.items()}, 1)
    assert state["loss_second"].tolist() == pytest.approx([0.407606, 1.407606], abs=1e-6)
    assert (state["loss_first"] == 0).all()


HEAD = {
    "first": torch.tensor([[1.0, -1.0, 0.5], [0.0, 2.0, 1.0]]),
    "second": torch.tensor([[0.3, 1.0, -2.0], [1.0, 0.0, 0.4]]),
}
FEATURES = {
    name: torch.randn(8, 2, generator=torch.Generator().manual_seed(n)) for n, name in enumerate(HEAD)
}


def by_hand(one: DivideMix, turn: str, epoch: int, progress: float, labelled: list[int]) -> dict[str, float]:
    """Loss terms of four examples with two views each; omega is .8 where a label is trusted and .1 elsewhere."""
    outputs = {name: Output(rows, rows @ HEAD[name]) for name, rows in FEATURES.items()}
    batch = StepBatch(
        global_id=IDS.numpy(), given_label=LABELS, valid=torch.ones(4, dtype=torch.bool), world_size=1, global_count=4,
        total=lambda n: n, classify=lambda name, rows: rows @ HEAD[name], turn=(turn,), progress=progress,
    )  # fmt: skip
    peer = {"first": "second", "second": "first"}[turn]
    trusts = torch.tensor(labelled)
    rows = {
        f"labelled_{peer}": trusts, f"omega_{peer}": torch.where(trusts > 0, 0.8, 0.1),
        f"labelled_{turn}": 1 - trusts, f"omega_{turn}": torch.full((4,), 0.5),
    }  # fmt: skip
    return {name: term.item() for name, term in one.loss(outputs, batch, rows, epoch).items()}


@pytest.mark.parametrize("turn", ["first", "second"])
@pytest.mark.parametrize("labelled", [[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_the_three_losses_step_by_step(turn: str, labelled: list[int]) -> None:
    """METHODS 10 in numpy; half of the rise of lambda_u = 3 is over."""
    one = method(seed=7, unlabelled_weight=3.0)
    terms = by_hand(one, turn, 4, 3.0, labelled)
    p = {name: (FEATURES[name] @ HEAD[name]).softmax(1).double().numpy() for name in HEAD}
    mean = {name: (rows[:4] + rows[4:]) / 2 for name, rows in p.items()}
    trust, is_labelled = np.array([[0.8]] * 4), np.array(labelled) > 0
    refined = trust * np.eye(3)[LABELS] + (1 - trust) * mean[turn]
    guessed = (mean["first"] + mean["second"]) / 2
    target = np.where(is_labelled[:, None], refined, guessed) ** 2
    target = np.tile(target / target.sum(1, keepdims=True), (2, 1))
    keys = mixing.copy_keys(IDS.numpy(), 2)
    partner = mixing.partners(keys, torch.ones(8, dtype=torch.bool), 7, 4).numpy()
    share = mixing.mix_weights(keys, 7, 4, alpha=4.0)[:, None]
    assert (share >= 0.5).all()
    target = share * target + (1 - share) * target[partner]
    features = FEATURES[turn].double().numpy()
    logits = (share * features + (1 - share) * features[partner]) @ HEAD[turn].double().numpy()
    q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = np.tile(is_labelled, 2)
    expected = {
        f"labelled_{turn}": (-(target * np.log(q)).sum(1))[rows].sum() / max(rows.sum(), 1),
        f"unlabelled_{turn}": 1.5 * ((q - target) ** 2)[~rows].sum() / 3 / max((~rows).sum(), 1),
        f"prior_{turn}": (np.log(1 / 3 / q.mean(0)) / 3).sum(),
    }
    assert terms == pytest.approx(expected, abs=1e-5)
    assert (terms[f"unlabelled_{turn}"] == 0) == all(labelled)
    assert (terms[f"labelled_{turn}"] == 0) == (not any(labelled))


@pytest.mark.parametrize(("progress", "share"), [(2.0, 0.0), (2.5, 0.25), (4.0, 1.0), (5.5, 1.0)])
def test_lambda_u_rises_by_fractions_of_an_epoch(progress: float, share: float) -> None:
    full = by_hand(method(rampup_epochs=0), "first", 3, progress, [1, 0, 1, 0])["unlabelled_first"]
    terms = by_hand(method(), "first", 3, progress, [1, 0, 1, 0])
    assert terms["unlabelled_first"] == pytest.approx(share * full)


def test_warming_up_is_cross_entropy_of_both_views_with_a_penalty_if_asked() -> None:
    logits = FEATURES["second"] @ HEAD["second"]
    expected = torch.nn.functional.cross_entropy(logits, LABELS.repeat(2))
    terms = by_hand(method(), "second", 2, 1.0, [1, 0, 1, 0])
    assert terms == {"warmup_second": pytest.approx(float(expected), abs=1e-6)}
    terms = by_hand(method(confidence_penalty=True), "second", 2, 1.0, [1, 0, 1, 0])
    p = logits.softmax(1)
    assert terms["penalty_second"] == pytest.approx(float((p * p.log()).sum(1).mean()), abs=1e-6)


def test_targets_have_no_gradient_and_only_the_network_in_turn_has_one() -> None:
    features = {name: rows.clone().requires_grad_(name == "first") for name, rows in FEATURES.items()}
    outputs = {name: Output(rows, rows @ HEAD[name]) for name, rows in features.items()}
    batch = StepBatch(
        global_id=IDS.numpy(), given_label=LABELS, valid=torch.tensor([True, True, True, False]), world_size=1,
        global_count=3, total=lambda n: n, classify=lambda name, rows: rows @ HEAD[name], turn=("first",),
        progress=9.0,
    )  # fmt: skip
    rows = {"labelled_second": torch.tensor([1, 0, 0, 1]), "omega_second": torch.ones(4)}
    sum(method().loss(outputs, batch, rows, 9).values()).backward()
    gradient = features["first"].grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert (gradient[[0, 1, 2, 4, 5, 6]] != 0).any(1).all()
    assert (gradient[[3, 7]] == 0).all()  # the padding row and its view


@pytest.mark.parametrize("views", [[], pytest.param(["drop", "switch_out"], marks=pytest.mark.slow)])
def test_wrong_labels_are_told_from_right_ones(tmp_path: Path, views: list[str]) -> None:
    examples = write_examples(tmp_path / "examples", 300, dev=60, noise=0.3)
    plugin = Plugin(name="dividemix", views=views)
    one = job(examples, tmp_path / "out")
    result = fit(one, words(plugin, epochs=6, batch_size=16))
    output = Folder(one.output)
    table = output.read_table("dynamics", "part-00000.parquet").to_pandas()
    wrong = wrongly_labelled(examples, table["example_id"])
    assert roc_auc_score(wrong, -table["quality"]) > 0.95
    for name in ("first", "second"):
        assert (table[f"labelled_{name}"].to_numpy() == ~wrong).mean() > 0.9
    lines = [json.loads(line) for line in output.read_text("metrics.jsonl").splitlines()]
    assert [line["loss_unlabelled_first"] > 0 for line in lines[2:]] == [True] * 4
    assert all("loss_unlabelled_first" not in line for line in lines[:2])
    assert result.best_epoch > 2
    assert (tmp_path / "out" / "model" / "member-2").is_dir()
