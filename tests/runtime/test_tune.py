"""Ray Tune behind one function: what fits, what is refused, what is stopped early and frees what it held."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rayclean.config import ClusterConfig
from rayclean.errors import RaycleanError, ResourceError
from rayclean.runtime import cluster, nodes, threads
from rayclean.runtime import trial_slots as where
from rayclean.runtime.engines import Workplace
from rayclean.runtime.preflight import ResourceDemand
from rayclean.runtime.threads import own_threads
from rayclean.runtime.trial_slots import TrialSlots, trial_slots
from rayclean.runtime.tune import run_side_by_side, run_trials
from rayclean.runtime.tune_rules import EarlyStopping, Optuna

import ray


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(cpus: int, gpus: int = 0, threads: int = 64, labels: dict[str, str] | None = None) -> None:
        monkeypatch.setattr(where, "cpu_count", lambda: cpus)
        monkeypatch.setattr(where, "gpu_count", lambda: gpus)
        monkeypatch.setattr(cluster, "gpu_count", lambda: gpus)
        monkeypatch.setattr(where, "physical_threads", lambda: threads)
        monkeypatch.setenv(cluster.EMBEDDED, "1")
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {}, "Labels": labels or {}}])

    return of


def test_as_many_trials_as_fit(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(8)
    training = ClusterConfig(workers=2, cpus_per_worker=1.0)
    assert trial_slots(training, trains=True, concurrent=None, cpus=0.1, trials=50).concurrent == 3
    assert trial_slots(training, trains=True, concurrent=None, cpus=0.1, trials=2).concurrent == 2
    assert trial_slots(training, trains=True, concurrent=2, cpus=0.1, trials=50).concurrent == 2
    machine(8, gpus=1)
    shared = ClusterConfig(gpus_per_worker=0.5)
    assert trial_slots(shared, trains=True, concurrent=None, cpus=0.1, trials=50).concurrent == 2
    # One GPU for two workers: trainings use none, and neither does what is computed here.
    assert (
        trial_slots(ClusterConfig(workers=2), trains=True, concurrent=None, cpus=0.1, trials=50).concurrent
        == 3
    )
    machine(64, threads=4)
    assert trial_slots(training, trains=False, concurrent=None, cpus=0.1, trials=50) == TrialSlots(4, 1.0)
    # No more trainings than cores for their workers, however many CPUs Ray was told of; unless the sweep asks for them.
    assert trial_slots(training, trains=True, concurrent=None, cpus=0.1, trials=50).concurrent == 2
    assert trial_slots(training, trains=True, concurrent=5, cpus=0.1, trials=50).concurrent == 5
    # A cluster has what it says, though only its head may be there yet.
    monkeypatch.delenv(cluster.EMBEDDED)
    assert trial_slots(training, trains=False, concurrent=None, cpus=0.1, trials=90).concurrent == 64


def test_what_runs_side_by_side_shares_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "physical_threads", lambda: 8)
    assert own_threads() == 8
    assert own_threads(3) == 2
    assert own_threads(20) == 1
    assert own_threads(processes=3) == 2
    assert own_threads(2, 3) == 1
    there = [(True, 0.0), (True, 8.0), (True, 8.0), (False, 8.0)]  # the first is a head that computes nothing
    monkeypatch.setattr(
        ray, "nodes", lambda: [{"Alive": on, "Resources": {"CPU": cpus}} for on, cpus in there]
    )
    monkeypatch.delenv(nodes.DECLARED, raising=False)
    assert TrialSlots(5, 0.1).per_node == 3
    monkeypatch.setenv(nodes.DECLARED, "3xCPU:8,2xGPU:1,1xCPU:8+GPU:1")
    assert TrialSlots(5, 0.1).per_node == 2


@pytest.mark.parametrize(
    ("gpus", "share", "workers", "fit"),
    [(1, 0.1, 1, 10), (1, 0.2, 1, 5), (1, 0.5, 1, 2), (4, 1.0, 2, 2), (2, 0.4, 1, 4), (3, 0.6, 1, 3), (4, 2.0, 1, 2)],
)  # fmt: skip
def test_trials_share_gpus(machine: Any, gpus: int, share: float, workers: int, fit: int) -> None:
    """Floats: 1 // .1 is 9, 1 // .2 is 4. And .4 of a GPU goes twice into each of two, not five times into both."""
    machine(64, gpus=gpus)
    cluster = ClusterConfig(workers=workers, gpus_per_worker=share)
    assert trial_slots(cluster, trains=True, concurrent=None, cpus=0.1, trials=50).concurrent == fit


def test_a_training_with_more_workers_than_gpus_is_refused(machine: Any) -> None:
    machine(64, gpus=2)
    wide = ClusterConfig(workers=3, use_gpu=True)
    with pytest.raises(ResourceError, match=r"3 x 1 GPUs, the cluster has 2"):
        trial_slots(wide, trains=True, concurrent=None, cpus=0.1, trials=9)


def test_cpus_are_counted_as_ray_counts_them(machine: Any) -> None:
    """In floats 11 // 1.1 is 9, and (5 - 1.1 - 1) / .1 is 28.999999999999996."""
    machine(11)
    assert trial_slots(ClusterConfig(), trains=True, concurrent=None, cpus=0.1, trials=50).concurrent == 10
    machine(5)
    training = ClusterConfig(cpus_per_worker=1.1)
    with pytest.raises(ResourceError, match=r"trials.concurrent to at most 29,"):
        trial_slots(training, trains=True, concurrent=30, cpus=0.1, trials=50)
    assert trial_slots(training, trains=True, concurrent=29, cpus=0.1, trials=50).concurrent == 29


def test_a_sweep_that_would_wait_for_ever_is_refused_with_the_fix(machine: Any) -> None:
    machine(8)
    training = ClusterConfig(workers=4)
    with pytest.raises(
        ResourceError, match=r"6 trials at once hold 6 of 8 CPUs.*trials.concurrent to at most 3"
    ):
        trial_slots(training, trains=True, concurrent=6, cpus=1.0, trials=50)
    assert trial_slots(training, trains=True, concurrent=3, cpus=1.0, trials=50).concurrent == 3
    machine(4)
    with pytest.raises(ResourceError, match=r"lower trials.cpus, cluster.workers"):
        trial_slots(training, trains=True, concurrent=1, cpus=1.0, trials=50)
    machine(64, gpus=2)
    with pytest.raises(ResourceError, match=r"4 x 1 GPUs, the cluster has 2"):
        trial_slots(ClusterConfig(workers=4, use_gpu=True), trains=True, concurrent=1, cpus=0.1, trials=50)


def test_a_sweep_waits_for_an_autoscaler_that_does_not_say_how_far_it_goes(
    machine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    machine(2, labels={nodes.GROUP: "workers"})
    assert trial_slots(
        ClusterConfig(workers=4), trains=True, concurrent=3, cpus=0.1, trials=50
    ) == TrialSlots(3, 0.1)
    assert "may wait for ever" in caplog.text


def test_trials_leave_room_for_a_language_model(machine: Any) -> None:
    """8 CPUs, of which the model holds 4: one training of 2 and its data beside the trials, no longer three."""
    machine(8)
    model = ResourceDemand("the language model", 4.0, 0.0, "lower cluster.llm.replicas")
    training = ClusterConfig(workers=2)
    assert trial_slots(training, trains=True, concurrent=None, cpus=0.1, trials=50).concurrent == 3
    assert (
        trial_slots(training, trains=True, concurrent=None, cpus=0.1, trials=50, beside=[model]).concurrent
        == 1
    )
    assert (
        trial_slots(training, trains=False, concurrent=None, cpus=0.1, trials=50, beside=[model]).concurrent
        == 4
    )
    with pytest.raises(ResourceError, match=r"of 4 CPUs that the language model leave"):
        trial_slots(
            ClusterConfig(workers=3), trains=True, concurrent=None, cpus=0.1, trials=50, beside=[model]
        )
    with pytest.raises(ResourceError, match=r"holds 1 of 0 CPUs.*lower cluster.llm.replicas"):
        trial_slots(training, trains=False, concurrent=None, cpus=0.1, trials=50, beside=[model, model])


class Heard:
    def __init__(self) -> None:
        self.lines: dict[int, list[float]] = {}
        self.results: dict[int, Any] = {}

    def started(self, trial: dict[str, Any]) -> None:
        self.lines.setdefault(trial["x"], [])

    def epoch_ended(self, trial: dict[str, Any], record: dict[str, Any]) -> None:
        self.lines[trial["x"]].append(record["dev_accuracy"])

    def ended(self, trial: dict[str, Any], result: dict[str, Any] | None) -> None:
        assert trial["x"] not in self.results
        self.results[trial["x"]] = result


def learn(trial: dict[str, Any], tell: Any, place: Workplace) -> dict[str, Any]:
    """Eight epochs, the better the larger x, and no better from one to the next if x is odd.

    A group of its own is held meanwhile, like a training's.
    """

    @ray.remote(num_cpus=1)
    class Training:
        def ready(self) -> bool:
            return True

    Path(trial["folder"], str(os.getpid())).touch()
    training = Training.options(scheduling_strategy="DEFAULT").remote()
    ray.get(training.ready.remote())
    for epoch in range(1, 9):
        better = 0 if trial["x"] % 2 else epoch / 100
        tell({"epoch": epoch, "dev_accuracy": trial["x"] + better, "note": "words are no metric"})
        time.sleep(0.05)
    ray.kill(training)
    return {"figures": {"dev_accuracy": trial["x"] + 0.08}, "trial": trial["x"]}


@pytest.mark.slow
def test_early_stopping_ends_trials_and_frees_what_they_held(ray_embedded: None, tmp_path: Path) -> None:
    """One trial at a time and 3 CPUs beside it: four leaked actors would leave the last one waiting.

    A process whose trial is stopped may have a training under way, so none runs a second trial.
    """
    heard = Heard()
    run_trials(
        learn, [{"x": x, "folder": str(tmp_path)} for x in (3, 10, 8, 2)], TrialSlots(1, 0.1), heard, trains=True,
        objectives=[("dev_accuracy", "max")], early=EarlyStopping("asha", grace=2, reduction=2, plateau=3),
    )  # fmt: skip
    assert set(heard.results) == {3, 10, 8, 2}
    assert heard.results[3] == {"plateau": True}
    assert 3 <= len(heard.lines[3]) < 8
    assert heard.results[10]["figures"]["dev_accuracy"] == pytest.approx(10.08)
    assert len(heard.lines[10]) == 8
    assert heard.results[2] is None  # stopped: no result of its own
    assert len(heard.lines[2]) < 8
    assert len(list(tmp_path.iterdir())) == 4


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the command is given; Ray's own default moves every trial away from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "1")
    Path("given.txt").write_text("found")
    return tmp_path


def situation(place: Workplace) -> dict[str, Any]:
    """Where a trial is, in which process, and how many cores it takes."""
    return {
        "text": Path("given.txt").read_text(), "process": os.getpid(), "threads": torch.get_num_threads(),
        "sharers": place.sharers, "here": place.in_process,
    }  # fmt: skip


def expected_situation(at_once: int, here: bool) -> dict[str, Any]:
    """That of every trial, but for the process."""
    own = max(1, threads.physical_threads() // at_once)
    return {"text": "found", "threads": own, "sharers": at_once, "here": here}


@pytest.mark.slow
def test_trials_that_train_run_where_the_command_does_on_their_share_of_the_cores(
    ray_embedded: None, here: Path
) -> None:
    """Also after each other in one process; more threads than cores wait for each other all the time."""
    heard = Heard()
    run_trials(
        lambda trial, tell, place: situation(place), [{"x": x} for x in range(6)], TrialSlots(2, 0.1), heard, trains=True,
    )  # fmt: skip
    assert set(heard.results) == set(range(6))
    assert len({result.pop("process") for result in heard.results.values()}) < 6
    assert all(result == expected_situation(2, here=False) for result in heard.results.values())


def its_number(trial: Any) -> None:
    trial.suggest_int("x", trial.number, trial.number)


def test_optuna_goes_on_after_a_trial_without_figures(ray_embedded: None, here: Path) -> None:
    """Epochs do not have the objectives, and every second point fails. One process runs all of them."""

    def half(trial: dict[str, Any], tell: Any, place: Workplace) -> dict[str, Any]:
        tell({"epoch": 1, "dev_accuracy": 0.5})
        if trial["x"] % 2:
            return {"error": "no label is left", "figures": {}, **situation(place)}
        return {"figures": {"cost": float(trial["x"]), "asked": 1.0}, **situation(place)}

    heard = Heard()
    run_trials(
        half, [], TrialSlots(1, 0.1), heard, trains=False, objectives=[("cost", "min"), ("asked", "min")],
        early=EarlyStopping("median"), optuna=Optuna(its_number, 4, 0, None),
    )  # fmt: skip
    assert [("error" in result) for _, result in sorted(heard.results.items())] == [False, True, False, True]
    assert len({result.pop("process") for result in heard.results.values()}) == 1
    for result in heard.results.values():
        assert result.items() >= expected_situation(1, here=True).items()


@pytest.mark.parametrize("alone", [True, False])
def test_side_by_side_says_what_failed_and_runs_the_others(
    ray_embedded: None, here: Path, alone: bool
) -> None:
    def work(x: int, place: Workplace) -> None:
        if x == 1:
            raise RaycleanError("no more than this")
        Path(str(x)).write_text(f"{Path('given.txt').read_text()} {place.sharers} {place.in_process}")

    said = run_side_by_side(work, [0, 1, 2], TrialSlots(2, 0.1), alone=alone)
    assert [str(error) if error else None for error in said] == [None, "no more than this", None]
    assert (here / "0").read_text() == (here / "2").read_text() == f"found 2 {alone}"
