"""How often a step waits for its device: counted on a CPU by a double, for which every wait is a mistake on a GPU."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rayclean.config import Plugin, TrainingConfig
from rayclean.folder import Folder
from rayclean.functional.partition import Subset
from rayclean.methods.noiseal import NoiseAL
from rayclean.training import collectives, passes
from rayclean.training.job import FitSpec
from rayclean.training.loop import fit
from tests.models.tiny import write
from tests.training.toys import job, write_examples
from tests.training.waiting import Waits, mark

MOST = 3
"""Waits of a step."""
LSTM = {"name": "bilstm", "buckets": 300, "embedding": 8, "hidden": 8}
METHODS: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "lane": {"views": ["auto"]},
    "noiseal": {"weak": LSTM, "warmup_epochs": 1, "budget": 0.0},
}

WAITS: list[tuple[str, Callable[[Tensor], Any]]] = [
    ("_local_scalar_dense", lambda x: x.sum().item()),
    ("_local_scalar_dense", lambda x: float(x[0])),
    ("_local_scalar_dense", lambda x: bool(x.any())),
    ("_local_scalar_dense", lambda x: int(x.argmax())),
    ("cpu", lambda x: x.cpu()),
    ("numpy", lambda x: x.detach().numpy()),
    ("tolist", lambda x: x.tolist()),
    ("nonzero", lambda x: x.nonzero()),
    ("boolean index", lambda x: x[x > 0]),
    ("masked_select", lambda x: x.masked_select(x > 0)),
    ("_unique2", lambda x: x.unique()),
    ("equal", lambda x: torch.equal(x, x + 1)),
    ("to", lambda x: torch.from_numpy(np.ones(3)).to(torch.device("cpu"))),
]


@pytest.mark.parametrize(("name", "wait"), WAITS)
def test_the_double_counts_what_waits(name: str, wait: Callable[[Tensor], Any]) -> None:
    with Waits() as waits:
        x = torch.tensor([1.0, -2.0, 3.0])
        mark(x)
        wait(x * 2)
    assert waits.counted[name] == waits.counted.total() == 1


def test_the_double_lets_the_host_read_what_is_its_own_and_the_device_compute() -> None:
    with Waits() as waits:
        host = torch.from_numpy(np.array([2, 1]))
        assert host.tolist() == [2, 1]
        assert int(host.max()) == 2
        weight = torch.nn.Parameter(torch.ones(2, 2))
        order = host.sort().indices.to(torch.device("cpu"), non_blocking=True)
        torch.autograd.backward((weight.index_select(0, order) * 2).sum())
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        torch.optim.AdamW([weight], fused=True).step()
    assert waits.counted.total() == 0


def test_what_workers_observe_is_waited_for_once_however_many_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def all_gather(received: list[Tensor], sent: Tensor) -> None:
        for part in received:
            part.copy_(sent)

    group = SimpleNamespace(get_rank=lambda: 0, get_world_size=lambda: 3, all_gather=all_gather)
    monkeypatch.setattr(collectives, "dist", group)
    ids, columns = np.array([5, -1, 2]), {"margin": np.array([0.5, 0.0, 2.0], dtype=np.float16)}
    with Waits() as waits:
        found, seen = collectives.Distributed("cpu").gather(ids, columns)
    assert found.tolist() == [2, 2, 2, 5, 5, 5]
    assert seen["margin"].tolist() == [2.0, 2.0, 2.0, 0.5, 0.5, 0.5]
    assert seen["margin"].dtype == np.float16
    assert (waits.counted["to"], waits.counted["cpu"]) == (0, 1)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_waits_at_most_three_times(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all steps after a warm-up, those that look at the last one of the pass included."""
    examples = write_examples(tmp_path / "examples", 60, longest=9)
    encoder = Plugin(name="transformer", model=write(tmp_path / "bert"), max_length=32)
    found = []
    train = passes.train_pass

    def counted(training: passes.StageTraining, epoch: int, turn: int) -> Any:
        with Waits() as waits:
            sums = train(training, epoch, turn)
        found.append((waits.counted, training.steps))
        return sums

    def split(self: NoiseAL, state: Any) -> Any:
        thirds = np.array([Subset.CLEAN, Subset.HARD, Subset.PURIFIED])
        return thirds[state["example_id"] % 3]

    monkeypatch.setattr(passes, "train_pass", counted)
    monkeypatch.setattr(NoiseAL, "_split", split)
    how = FitSpec(
        encoder, Plugin(name=name, **METHODS[name]), TrainingConfig(epochs=2, batch_size=8), ("a", "b", "c")
    )
    fit(job(examples, tmp_path / "out"), how)
    waits, count = found[-1]
    assert count == 8
    assert waits.total() <= MOST * count, waits
    assert waits["numpy"] >= count  # of the gradient it learns in every step that it is finite
    assert Folder(str(tmp_path / "out")).exists("result.json")
