"""Ray Tune behind one function: what fits, what is refused, what is stopped early and frees what it held."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rayclean.config import ClusterConfig
from rayclean.errors import RaycleanError, ResourceError
from rayclean.runtime import cluster, nodes
from rayclean.runtime import trial_slots as where
from rayclean.runtime.preflight import ResourceDemand
from rayclean.runtime.ray_data import is_in_this_process
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
    monkeypatch.setattr(cluster, "physical_threads", lambda: 8)
    assert (cluster.sharers(), cluster.own_threads()) == (1, 8)
    with cluster.sharing(3):
        assert (cluster.sharers(), cluster.own_threads()) == (3, 2)
    with cluster.sharing(20):
        assert cluster.own_threads() == 1
    assert cluster.own_threads(3) == 2
    with cluster.sharing(2):
        assert cluster.own_threads(3) == 1
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
    [(1, 0.1, 1, 10), (1, 0.2, 1, 5), (1, 0.5, 1, 2), (4, 0.1, 2, 20), (2, 0.4, 1, 4), (3, 0.6, 1, 3), (4, 2.0, 1, 2)],
)  # fmt: skip
def test_trials_share_gpus(machine: Any, gpus: int, share: float, workers: int, fit: int) -> None:
    """Floats: 1 // .1 is 9, 1 // .2 is 4. And .4 of a GPU goes twice into each of two, not five times into both."""
    machine(64, gpus=gpus)
    cluster = ClusterConfig(workers=workers, gpus_per_worker=share)
    assert trial_slots(cluster, trains=True, concurrent=None, cpus=0.1, trials=50).concurrent == fit


def test_a_training_whose_shares_of_gpus_lie_on_none_is_refused(machine: Any) -> None:
    """Five times .4 are two GPUs, but each of them has room for two workers alone."""
    machine(64, gpus=2)
    with pytest.raises(ResourceError, match=r"5 x 0\.4 GPUs, the cluster has 2, 2 workers on each"):
        trial_slots(
            ClusterConfig(workers=5, gpus_per_worker=0.4), trains=True, concurrent=None, cpus=0.1, trials=9
        )


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

    def told(self, trial: dict[str, Any], record: dict[str, Any]) -> None:
        self.lines[trial["x"]].append(record["dev_accuracy"])

    def ended(self, trial: dict[str, Any], result: dict[str, Any] | None) -> None:
        assert trial["x"] not in self.results
        self.results[trial["x"]] = result


def learn(trial: dict[str, Any], tell: Any) -> dict[str, Any]:
    """Eight epochs, the better the larger x; a group of its own is held meanwhile, like a training's."""

    @ray.remote(num_cpus=1)
    class Training:
        def ready(self) -> bool:
            return True

    training = Training.options(scheduling_strategy="DEFAULT").remote()
    ray.get(training.ready.remote())
    for epoch in range(1, 9):
        tell({"epoch": epoch, "dev_accuracy": trial["x"] + epoch / 100, "note": "words are no metric"})
        time.sleep(0.05)
    ray.kill(training)
    return {"figures": {"dev_accuracy": trial["x"] + 0.08}, "trial": trial["x"]}


def test_early_stopping_stops_the_worst_and_frees_what_they_held(ray_embedded: None) -> None:
    """One trial at a time and 3 CPUs beside it: four leaked actors would leave the last one waiting."""
    heard = Heard()
    run_trials(
        learn, [{"x": x} for x in (9, 8, 2, 1)], TrialSlots(1, 0.1), heard, trains=True,
        objectives=[("dev_accuracy", "max")], early=EarlyStopping("asha", grace=2, reduction=2),
    )  # fmt: skip
    assert set(heard.results) == {9, 8, 2, 1}
    assert heard.results[9]["figures"]["dev_accuracy"] == pytest.approx(9.08)
    assert len(heard.lines[9]) == 8
    assert heard.results[1] is None  # stopped: no result of its own
    assert len(heard.lines[1]) < 8


def quick(trial: dict[str, Any], tell: Any) -> dict[str, Any]:
    """Eight epochs, the better the larger x."""
    for epoch in range(1, 9):
        tell({"epoch": epoch, "dev_accuracy": trial["x"] + epoch / 100})
        time.sleep(0.05)
    return {"figures": {"dev_accuracy": trial["x"] + 0.08}}


def test_the_median_rule_stops_the_worst_of_more_trials_than_fit(ray_embedded: None) -> None:
    """The others are at their end when a later one is compared with them."""
    heard = Heard()
    run_trials(
        quick, [{"x": x} for x in (9, 8, 7, 6, 1)], TrialSlots(1, 0.1), heard, trains=False,
        objectives=[("dev_accuracy", "max")], early=EarlyStopping("median", grace=2),
    )  # fmt: skip
    assert set(heard.results) == {9, 8, 7, 6, 1}
    assert [len(heard.lines[x]) for x in (9, 8, 7)] == [8, 8, 8]  # never paused and begun again
    assert heard.results[1] is None
    assert len(heard.lines[1]) == 2


def test_a_plateau_ends_a_trial(ray_embedded: None) -> None:
    def flat(trial: dict[str, Any], tell: Any) -> dict[str, Any]:
        for epoch in range(1, 30):
            tell({"epoch": epoch, "dev_accuracy": 0.5})
            time.sleep(0.05)
        return {"figures": {"dev_accuracy": 0.5}}

    heard = Heard()
    run_trials(
        flat, [{"x": 1}], TrialSlots(1, 0.1), heard, trains=False,
        objectives=[("dev_accuracy", "max")], early=EarlyStopping(plateau=3),
    )  # fmt: skip
    assert heard.results[1] == {"plateau": True}
    assert 3 <= len(heard.lines[1]) < 29


def its_number(trial: Any) -> None:
    trial.suggest_int("x", trial.number, trial.number)


@pytest.mark.parametrize("objectives", [["cost"], ["cost", "asked"]])
def test_optuna_goes_on_after_a_trial_without_figures(ray_embedded: None, objectives: list[str]) -> None:
    """Epochs do not have the objective, and every second point fails."""

    def half(trial: dict[str, Any], tell: Any) -> dict[str, Any]:
        tell({"epoch": 1, "dev_accuracy": 0.5})
        if trial["x"] % 2:
            return {"error": "no label is left", "figures": {}}
        return {"figures": {"cost": float(trial["x"]), "asked": 1.0}}

    heard = Heard()
    run_trials(
        half, [], TrialSlots(1, 0.1), heard, trains=False, objectives=[(name, "min") for name in objectives],
        optuna=Optuna(its_number, 4, 0, None),
    )  # fmt: skip
    assert [("error" in result) for _, result in sorted(heard.results.items())] == [False, True, False, True]


def test_side_by_side_says_what_failed_and_runs_the_others(ray_embedded: None, tmp_path: Path) -> None:
    def work(x: int) -> None:
        if x == 1:
            raise RaycleanError("no more than this")
        (tmp_path / str(x)).touch()

    said = run_side_by_side(work, [0, 1, 2], TrialSlots(1, 0.1))
    assert [str(error) if error else None for error in said] == [None, "no more than this", None]
    assert (tmp_path / "2").exists()


@pytest.mark.parametrize("trains", [True, False])
def test_trials_read_relative_paths_as_the_command_does(
    ray_embedded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trains: bool
) -> None:
    """Also two trials after each other in one process, and with Ray's own default, which moves every trial away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "1")
    Path("given.txt").write_text("found")

    def read(trial: dict[str, Any], tell: Any) -> dict[str, Any]:
        return {"text": Path("given.txt").read_text()}

    heard = Heard()
    run_trials(read, [{"x": 1}, {"x": 2}], TrialSlots(1, 0.1), heard, trains=trains)
    assert heard.results == {1: {"text": "found"}, 2: {"text": "found"}}

    def copy(name: str) -> None:
        Path(name).write_text(Path("given.txt").read_text())

    run_side_by_side(copy, ["one.txt", "two.txt"], TrialSlots(1, 0.1))
    assert (tmp_path / "two.txt").read_text() == "found"


@pytest.mark.parametrize(
    ("trains", "early", "processes"),
    [(True, EarlyStopping(), 1), (False, EarlyStopping("median"), 1), (True, EarlyStopping("median"), 3)],
)
def test_a_process_runs_one_trial_after_another_unless_a_training_may_be_left_in_it(
    ray_embedded: None, trains: bool, early: EarlyStopping, processes: int
) -> None:
    def process(trial: dict[str, Any], tell: Any) -> dict[str, Any]:
        tell({"epoch": 1, "dev_accuracy": 0.5})
        return {"figures": {"dev_accuracy": 0.5}, "process": os.getpid()}

    heard = Heard()
    run_trials(
        process, [{"x": x} for x in range(3)], TrialSlots(1, 0.1), heard, trains=trains,
        objectives=[("dev_accuracy", "max")], early=early,
    )  # fmt: skip
    assert len({result["process"] for result in heard.results.values()}) == processes


@pytest.mark.parametrize("trains", [True, False])
def test_a_trial_computes_on_its_share_of_the_cores(ray_embedded: None, tmp_path: Path, trains: bool) -> None:
    """More threads than cores wait for each other all the time."""

    def threads(trial: dict[str, Any], tell: Any) -> dict[str, Any]:
        return {"threads": torch.get_num_threads(), "sharers": cluster.sharers()}

    heard, at_once = Heard(), 2
    run_trials(threads, [{"x": 1}, {"x": 2}], TrialSlots(at_once, 0.1), heard, trains=trains)
    share = {"threads": max(1, cluster.physical_threads() // at_once), "sharers": at_once}
    assert heard.results == {1: share, 2: share}

    def note(name: str) -> None:
        (tmp_path / name).write_text(f"{cluster.sharers()} {is_in_this_process()}")

    run_side_by_side(note, ["one", "two"], TrialSlots(at_once, 0.1), alone=not trains)
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == f"2 {not trains}"
