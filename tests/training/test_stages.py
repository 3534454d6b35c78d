"""Stages and turns: which networks move when, on which examples, at which rate, and which epoch is the best."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rayclean.config import Plugin
from rayclean.errors import ConfigError, DataError
from rayclean.folder import Folder
from rayclean.methods.base import Stage
from rayclean.models.loading import load_encoder
from rayclean.training import passes
from rayclean.training.loop import fit
from rayclean.training.setup import plan_stages
from tests.training.toys import ACCUMULATING, STAGED, TOY, Accumulating, Staged, job, spec, write_examples

N = 40


class Emptying(Staged):
    """Keeps no example for its last stage."""

    def kept(self, state: Any, stage: str) -> Any:
        return np.zeros(N, dtype=bool) if stage == "kept" else None


class KeepingHalf(Accumulating):
    """Trains once, on some examples."""

    def kept(self, state: Any, stage: str) -> Any:
        return np.arange(N) % 2 == 0


class OfTwoEncoders(Staged):
    """Lets networks of two encoders predict together."""

    def encoders(self, encoder: Plugin) -> dict[str, Plugin]:
        return {"strong": encoder, "weak": Plugin(name="bag_of_words")}


def weights_of(networks: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in networks.state_dict().items()}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What every pass was: its turn, the weights before and after, the examples."""
    found: list[dict[str, Any]] = []
    run = passes.train_pass

    def noted(training: passes.StageTraining, epoch: int, turn: int) -> Any:
        before = weights_of(training.worker.networks)
        sums = run(training, epoch, turn)
        found.append(
            {
                "stage": training.plan.stage.name,
                "epoch": epoch,
                "turn": turn,
                "before": before,
                "after": weights_of(training.worker.networks),
                "positions": np.sort(np.concatenate(training.batches(epoch, turn))),
            }
        )
        return sums

    monkeypatch.setattr(passes, "train_pass", noted)
    return found


def trained(tmp_path: Path, method: str = STAGED, **training: Any) -> tuple[Any, list[dict[str, Any]], Any]:
    examples = write_examples(tmp_path / "examples", N, dev=20, noise=0.3)
    one = job(examples, tmp_path / "out", keep_last=True, keep_epochs=True)
    result = fit(one, spec(method=method, **{"epochs": 3, "learning_rate": 0.05, **training}))
    output = Folder(one.output)
    lines = [json.loads(line) for line in output.read_text("metrics.jsonl").splitlines()]
    return result, lines, output.read_table("dynamics", "part-00000.parquet").to_pandas()


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], network: str = "") -> bool:
    return all(torch.equal(left[name], right[name]) for name in left if name.startswith(network))


def test_stages_in_order(tmp_path: Path, watched: list[dict[str, Any]]) -> None:
    result, lines, _ = trained(tmp_path)
    assert [(line["stage"], line["epoch"], line["epochs"]) for line in lines] == [
        *(("wide", epoch, 7) for epoch in (1, 2)),
        *(("all", epoch, 7) for epoch in (3, 4, 5)),
        *(("kept", epoch, 7) for epoch in (6, 7)),
    ]
    first = {run["stage"]: run for run in reversed(watched)}
    last = {run["stage"]: run for run in watched}
    head = "strong.head.weight"
    assert [first[name]["before"][head].shape[0] for name in ("wide", "all", "kept")] == [4, 3, 3]
    assert same(last["all"]["after"], first["kept"]["before"])  # carried on
    assert not torch.equal(first["wide"]["before"][head][:3], first["all"]["before"][head])  # drawn anew
    table = "strong.embedding.weight"
    assert not torch.equal(last["wide"]["after"][table], first["all"]["before"][table])
    assert result.epochs == 7
    assert {path.name for path in (tmp_path / "out" / "epochs").iterdir()} == {
        f"epoch-00{epoch}" for epoch in range(1, 8)
    }


def test_the_first_stage_begins_like_the_only_one_of_other_methods(
    tmp_path: Path, watched: list[dict[str, Any]]
) -> None:
    trained(tmp_path / "staged")
    trained(tmp_path / "plain", ACCUMULATING)
    staged, plain = watched[0]["before"], watched[-3]["before"]
    table = "strong.embedding.weight"
    assert torch.equal(staged[table], plain[table])


def test_examples_that_a_stage_keeps(tmp_path: Path, watched: list[dict[str, Any]]) -> None:
    result, lines, dynamics = trained(tmp_path)
    kept = {tuple(run["positions"]) for run in watched if run["stage"] == "kept"}
    (positions,) = kept
    assert N / 2 <= len(positions) < N
    assert [line["examples"] for line in lines] == [N] * 5 + [len(positions)] * 2
    assert result.train_examples == len(positions)
    assert all(len(run["positions"]) == N for run in watched if run["stage"] != "kept")
    visits = np.full(N, 5 * 2)  # two turns an epoch
    visits[list(positions)] += 2 * 2
    assert dynamics["visits"].tolist() == visits.tolist()


def test_a_network_out_of_turn_does_not_move(tmp_path: Path, watched: list[dict[str, Any]]) -> None:
    """Although the optimiser has momentum and weight decay."""
    trained(tmp_path, weight_decay=0.3)
    assert [run["turn"] for run in watched[:4]] == [0, 1, 0, 1]
    for run in watched:
        assert not same(run["before"], run["after"], "strong")
        assert same(run["before"], run["after"], "weak") == (run["turn"] == 0)


def test_a_network_out_of_turn_runs_as_in_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = set()
    loss = Staged.loss

    def noted(self: Staged, outputs: Any, batch: Any, *rest: Any) -> Any:
        for name, output in outputs.items():
            again = batch.again(name, np.arange(len(batch.valid))).logits.requires_grad
            mixed = batch.classify(name, output.features).requires_grad
            gradients.add((name in batch.turn, output.logits.requires_grad, again, mixed))
        return loss(self, outputs, batch, *rest)

    monkeypatch.setattr(Staged, "loss", noted)
    trained(tmp_path)
    assert gradients == {(True, True, True, True), (False, False, False, False)}


def test_between_turns_partition_sees_what_the_turn_before_did(tmp_path: Path) -> None:
    """`judged` adds the visits: before the second turn of the last epoch there were those of its first one."""
    _, _, dynamics = trained(tmp_path)
    visits = dynamics["visits"].to_numpy()
    trains = visits > visits.min()
    before, after = np.floor(dynamics["judged_before"]), np.floor(dynamics["judged"])
    assert (after == visits).all()
    assert (before == visits - trains).all()


def test_learning_rates_of_the_stages(tmp_path: Path) -> None:
    """Constant, then one fall over the five epochs of the networks that are carried on."""
    _, lines, _ = trained(tmp_path, warmup=0)
    rates = [line["learning_rate"] / 0.05 for line in lines]
    assert rates[:2] == [1, 1]
    steps = {"all": N // 8, "kept": -(-lines[-1]["examples"] // 8)}
    expected = [1 - (epoch * steps[name] - 1) / (5 * steps[name])
                for epoch, name in ((1, "all"), (2, "all"), (3, "all"), (4, "kept"), (5, "kept"))]  # fmt: skip
    assert rates[2:] == pytest.approx(expected)


def test_the_best_epoch_is_one_of_the_last_stage(tmp_path: Path) -> None:
    result, lines, _ = trained(tmp_path, patience=1)
    assert result.best_epoch >= 6  # and patience counts from there
    assert result.dev_loss == min(line["dev_loss"] for line in lines[5:])


def test_the_mean_of_two_networks_predicts(tmp_path: Path) -> None:
    result, _, _ = trained(tmp_path)
    network = load_encoder(str(tmp_path / "out" / "model"))
    from rayclean.training.job_data import open_job
    from rayclean.training.setup import build_task

    one = job(str(tmp_path / "examples"), tmp_path / "out")
    data = open_job(one, {"main": Plugin(name=TOY)}, build_task(spec()), Plugin(name=TOY))
    batch, labels = data.inputs["main"].batch(data.dev.rows["main"]), torch.from_numpy(data.dev.targets())
    logits = network(batch)[1].detach()
    assert float(torch.nn.functional.cross_entropy(logits, labels)) == pytest.approx(
        result.dev_loss, abs=1e-6
    )
    assert float((logits.argmax(1) == labels).double().mean()) == pytest.approx(result.dev_accuracy)
    members = [load_encoder(str(tmp_path / "out" / "model" / f"member-{n}"))(batch)[1] for n in (1, 2)]
    torch.testing.assert_close(logits, (members[0] + members[1]).detach() / 2)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    place = "tests.training.test_stages"
    with pytest.raises(DataError, match="stage 'kept' keeps no example"):
        trained(tmp_path / "empty", f"{place}:Emptying")
    with pytest.raises(ConfigError, match="networks strong, weak predict together"):
        trained(tmp_path / "two", f"{place}:OfTwoEncoders")
    with pytest.raises(ValueError, match="different names"):
        plan_stages([Stage("a"), Stage("a")], 3)
    with pytest.raises(ValueError, match="stage b carries on networks of 4 outputs"):
        plan_stages([Stage("a", outputs=4), Stage("b", fresh=False)], 3)


def test_a_method_of_one_stage_has_the_lines_that_it_always_had(tmp_path: Path) -> None:
    _, lines, _ = trained(tmp_path, ACCUMULATING)
    assert not {"stage", "examples"} & set(lines[0])


def test_a_method_of_one_stage_may_keep_some_examples(tmp_path: Path) -> None:
    result, lines, dynamics = trained(tmp_path, "tests.training.test_stages:KeepingHalf")
    assert [(line["stage"], line["examples"]) for line in lines] == [("train", N / 2)] * 3
    assert result.train_examples == N / 2
    assert dynamics["visits"].tolist() == [3, 0] * (N // 2)
