"""The loop on Ray Train: the same results, through lost workers; errors come out as they went in, and Ctrl-C ends it."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from rayclean.annotators.engine import Budget
from rayclean.annotators.simulated import SimulatedAnnotator
from rayclean.config import ClusterConfig, Plugin, TrainingConfig
from rayclean.errors import ArtifactError, DisagreementError, RaycleanError
from rayclean.folder import Folder
from rayclean.runtime import threads as threads_of
from rayclean.runtime import train as runtime
from rayclean.runtime import trainer, training_board
from rayclean.runtime.asking import AskingPlan
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.places import MissingWorkersError
from rayclean.runtime.trainer import GroupWatch, explained_failure
from rayclean.schema import Label, LabelSet
from rayclean.training.collectives import Collectives
from rayclean.training.fold_table import write_folds
from rayclean.training.job import ExampleSelection, FitJob, FitSpec
from rayclean.training.loop import fit
from tests.training.toys import (
    ACCUMULATING,
    HALF,
    NAN,
    SELF_KILLING,
    SELF_KILLING_NOISEAL,
    SLOW,
    TOY,
    job,
    spec,
    write_examples,
)

from ray.data._internal.cluster_autoscaler.base_autoscaling_coordinator import ResourceRequestPriority
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    DefaultAutoscalingCoordinator,
)
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ReschedulingState,
    RestartingState,
    RunningState,
    SchedulingState,
    TrainControllerState,
)
from ray.train.v2.api.exceptions import ControllerError

ONE = Engines(ClusterConfig(workers=1), on_ray=True)
TWO = Engines(ClusterConfig(workers=2), on_ray=True)


def dynamics(one: FitJob) -> Any:
    return Folder(one.output).read_table("dynamics", "part-00000.parquet").to_pandas()


@pytest.fixture
def heard_ctrl_c() -> Iterator[None]:
    """A handler of Ctrl-C, which a shell without job control lets its background commands ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_training_and_its_workers_and_leaves_no_handler_behind(
    tmp_path: Path, ray_embedded: None, heard_ctrl_c: None
) -> None:
    examples, work = write_examples(tmp_path / "examples", 60), str(tmp_path / "work")
    before, sent = signal.getsignal(signal.SIGINT), 0.0

    def workers() -> list[psutil.Process]:
        family = psutil.Process().children(recursive=True)
        return [each for each in family if "RayTrainWorker" in each.name()]

    def interrupt(line: Any) -> None:
        nonlocal sent
        if not sent:
            sent, training[:] = time.monotonic(), workers()
            os.kill(os.getpid(), signal.SIGINT)

    training: list[psutil.Process] = []
    with pytest.raises(KeyboardInterrupt):
        ONE.fit_jobs([job(examples, tmp_path / "long")], spec(epochs=1_000), work, interrupt)
    assert time.monotonic() - sent < 10
    assert signal.getsignal(signal.SIGINT) is before
    assert training
    _, left = psutil.wait_procs(training, timeout=20)
    assert not left
    assert not list((tmp_path / "work").iterdir())


def test_jobs_share_a_group_are_done_once_and_an_error_comes_out_as_it_was(
    tmp_path: Path, ray_embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, work = write_examples(tmp_path / "examples", 60), str(tmp_path / "work")
    folds = str(tmp_path / "folds")
    write_folds(Folder(examples), Folder(folds), map, seed=3, count=2)
    jobs = [
        job(examples, tmp_path / f"{f}", name=f"fold {f}", select=ExampleSelection("fold", f, folds))
        for f in range(2)
    ]
    broken = job(str(tmp_path / "nothing"), tmp_path / "broken", name="broken")
    lines: list[Any] = []
    with pytest.raises(ArtifactError, match="holds no shards") as caught:
        ONE.fit_jobs([*jobs, broken], spec(epochs=2), work, lines.append)
    assert type(caught.value) is ArtifactError
    expected = [("fold 0", 1), ("fold 0", 2), ("fold 1", 1), ("fold 1", 2)]
    assert [(line["job"], line["epoch"]) for line in lines] == expected
    assert not list((tmp_path / "work").iterdir())

    trained: list[list[str]] = []

    def not_again(todo: list[FitJob], *_: Any) -> None:
        trained.append([job.name for job in todo])

    monkeypatch.setattr(runtime, "train_on_workers", not_again)
    results = ONE.fit_jobs(jobs, spec(epochs=2), work, lines.append)
    assert trained == []  # both are done, nothing is started
    select = ExampleSelection("fold", 1, folds)
    here = fit(job(examples, tmp_path / "here", name="fold 1", select=select), spec(epochs=2))
    assert results["fold 1"].loss == pytest.approx(here.loss, abs=1e-6)
    # Ray Train resumes a run of the same name whatever its hyper-parameters; here they decide what is done.
    with pytest.raises(RaycleanError, match="without a result for"):
        ONE.fit_jobs(jobs[:1], spec(epochs=2, learning_rate=0.5), work, lines.append)
    assert trained == [["fold 0"]]


@pytest.mark.slow  # the test after it covers the same and more
def test_a_killed_worker_changes_nothing(tmp_path: Path, ray_embedded: None) -> None:
    examples = write_examples(tmp_path / "examples", 37, dev=10)
    marker = tmp_path / "marker"
    lines: list[Any] = []

    def how(method: str, **options: Any) -> FitSpec:
        training = TrainingConfig(batch_size=8, epochs=4)
        return FitSpec(Plugin(name=TOY), Plugin(name=method, **options), training, ("a", "b", "c"))

    killed, calm = job(examples, tmp_path / "killed"), job(examples, tmp_path / "calm")
    results = TWO.fit_jobs(
        [killed], how(SELF_KILLING, marker=str(marker)), str(tmp_path / "work"), lines.append
    )
    assert marker.exists()
    first = [line for line in lines if line["epoch"] == 1]
    assert all(
        line == first[0] for line in first
    )  # told again, with its time: it went on, it did not begin again
    assert {line["epoch"] for line in lines} == {1, 2, 3, 4}
    assert results["toy"].workers == 2
    alone = fit(calm, how(ACCUMULATING))
    assert results["toy"].loss == pytest.approx(alone.loss, abs=1e-6)
    assert results["toy"].best_epoch == alone.best_epoch
    left, right = dynamics(killed), dynamics(calm)
    assert (left["visits"] == 4).all()
    for column in left:
        np.testing.assert_allclose(left[column], right[column], rtol=0, atol=1e-5, err_msg=column)


@pytest.mark.slow
def test_a_worker_killed_after_asking_pays_for_no_answer_twice(tmp_path: Path, ray_embedded: None) -> None:
    """NoiseAL on two workers, one SIGKILLed in an epoch with questions: the result of the unkilled run on one."""
    examples = write_examples(tmp_path / "examples", 90, dev=10, noise=0.3)
    labels = LabelSet([Label(i, name, name) for i, name in enumerate("abc")])
    found = {}
    for name in ("killed", "calm"):
        annotator = SimulatedAnnotator(SimulatedAnnotator.Config(tokens=7), tuple(labels))
        plan = AskingPlan(annotator, str(tmp_path / f"ledger-{name}"), "test", Budget(), 0.5)
        options = {"weak": {"name": TOY}, "warmup_epochs": 2, "lambda_": 0.3, "demonstrations": 2}
        method = Plugin(name="noiseal", **options)
        if name == "killed":
            method = Plugin(name=SELF_KILLING_NOISEAL, marker=str(tmp_path / "marker"), **options)
        one = job(examples, tmp_path / name)
        training = TrainingConfig(batch_size=8, epochs=5, learning_rate=0.05)
        how = FitSpec(Plugin(name=TOY), method, training, ("a", "b", "c"))
        engines = TWO if name == "killed" else IN_PROCESS
        with engines.consulting(
            plan, examples=examples, labels=labels, calibration="none", measured=None
        ) as consult:
            engines.fit_jobs([one], how, str(tmp_path / "work"), consult=consult)
        lines = [
            json.loads(line)
            for file in (tmp_path / f"ledger-{name}").rglob("*.jsonl")
            for line in file.read_text().splitlines()
        ]
        keys = [line["key"] for line in lines if "key" in line]
        found[name] = (dynamics(one), sorted(keys))
    assert (tmp_path / "marker").exists()
    (left, keys), (right, calm_keys) = found["killed"], found["calm"]
    assert keys == calm_keys
    assert len(keys) == len(set(keys)) > 0
    for column in left:
        np.testing.assert_allclose(
            left[column], right[column], rtol=0, atol=HALF.get(column, 1e-5), err_msg=column
        )


@pytest.mark.slow
def test_an_error_on_two_workers_ends_the_run(tmp_path: Path, ray_embedded: None) -> None:
    examples = write_examples(tmp_path / "examples", 20)
    with pytest.raises(RaycleanError, match="epoch 1, step 1"):
        TWO.fit_jobs([job(examples, tmp_path / "out")], spec(encoder=NAN), str(tmp_path / "work"))


def work_without_ray(
    monkeypatch: pytest.MonkeyPatch, jobs: list[FitJob], pinned: list[Any], workers: int, sharers: int = 1
) -> list[int]:
    """What one of several workers on a node does, with lists in the place of Ray's actors.

    Returns:
        The numbers of threads that it set.
    """
    chosen: list[int] = []
    context = SimpleNamespace(get_world_size=lambda: workers, get_local_world_size=lambda: workers)
    board = SimpleNamespace(
        error=SimpleNamespace(remote=lambda: None),
        fail=SimpleNamespace(remote=pinned.append),
        add=SimpleNamespace(remote=None),
    )
    fake = SimpleNamespace(get=lambda found: found, train=SimpleNamespace(get_context=lambda: context))
    monkeypatch.setattr(runtime, "ray", fake)
    monkeypatch.setattr(runtime, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(runtime, "Distributed", lambda device: Collectives())  # there are no others
    monkeypatch.setattr(runtime, "prepare_inputs", lambda one, how: None)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    work = {
        "jobs": jobs,
        "spec": spec(),
        "board": board,
        "consult": None,
        "home": ".",
        "sharers": sharers,
        "use_gpu": False,
    }
    runtime._work(work)
    return chosen


@pytest.mark.parametrize(("error", "ends"), [(DisagreementError("a"), False), (RaycleanError("b"), True)])
def test_workers_that_disagree_start_again(
    error: RaycleanError, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pinned on the board ends the run; what is only raised lets Ray Train start the group again."""
    pinned: list[Any] = []

    def fail(*arguments: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(runtime, "fit", fail)
    with pytest.raises(type(error)):
        work_without_ray(monkeypatch, [job("", tmp_path)], pinned, workers=2)
    assert bool(pinned) == ends


@pytest.mark.parametrize(
    ("local", "sharers", "threads"), [(1, 1, 12), (2, 1, 6), (1, 3, 4), (2, 3, 2), (4, 9, 1)]
)
def test_workers_share_the_cores_with_each_other_and_with_other_trainings(
    monkeypatch: pytest.MonkeyPatch, local: int, sharers: int, threads: int
) -> None:
    monkeypatch.setattr(threads_of, "physical_threads", lambda: 12)
    chosen = work_without_ray(monkeypatch, [], [], workers=local, sharers=sharers)
    assert chosen == [threads]


@pytest.mark.slow
def test_a_node_that_tokenises_for_long_is_waited_for(
    tmp_path: Path, ray_embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a worker waits in a collective."""
    monkeypatch.setattr(runtime, "COLLECTIVE_SECONDS", 3)
    one = job(write_examples(tmp_path / "examples", 40), tmp_path / "out")
    result = TWO.fit_jobs([one], spec(SLOW, epochs=1), str(tmp_path / "work"))["toy"]
    assert result.epochs == 1


def test_a_gpu_without_memory_is_told_at_once() -> None:
    error = runtime._named(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert isinstance(error, RaycleanError)
    assert "lower train.batch_size" in str(error)


def test_a_group_given_up_says_what_it_waited_for(ray_embedded: None) -> None:
    group = runtime._Group(
        [], "", spec(), ClusterConfig(workers=2), Folder("nowhere"), print, None, True, 3.0, 1
    )
    wanted = group._wanted
    once = MissingWorkersError("nothing is free")
    assert explained_failure(ControllerError(once), wanted) is once
    late = explained_failure(RuntimeError("WorkerGroupStartupTimeoutError: timed out"), wanted)
    assert "did not get 2 workers of 3 CPUs and 1 GPUs in 30 minutes; free are" in str(late)
    without = RuntimeError("Distributed package doesn't have NCCL built in")
    assert "make install GPU=1" in str(explained_failure(without, wanted))
    assert "NCCL_SOCKET_IFNAME" in str(explained_failure(RuntimeError("ncclInvalidUsage: NCCL 2.29"), wanted))


@pytest.mark.timeout(120)
def test_an_elastic_training_does_not_wait_for_ever(
    tmp_path: Path, ray_embedded: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three of four CPUs are taken, so Ray Train starts no group of two or three workers, and counts no failure."""
    monkeypatch.setattr(runtime, "START_SECONDS", 3.0)
    monkeypatch.setattr(training_board, "SAY_SECONDS", 1.0)
    elastic = Engines(ClusterConfig(workers=2, max_workers=3, use_gpu=False), on_ray=True)
    others = DefaultAutoscalingCoordinator("others")
    others.request_resources([{"CPU": 1.0}] * 3, 120.0, priority=ResourceRequestPriority.HIGH)
    try:
        with pytest.raises(MissingWorkersError, match=r"did not get 2 workers of 1 CPUs in 0\.05 minutes"):
            elastic.fit_jobs([job("", tmp_path / "out")], spec(epochs=1), str(tmp_path / "work"))
    finally:
        others.cancel_request()
    assert "training: waits for 2 workers of 1 CPUs since" in caplog.text


def test_the_loss_of_a_group_begins_a_new_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait is said, and has its time; a board that was lost is told again."""
    now, told = [1000.0], []
    monkeypatch.setattr(
        trainer, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: None)
    )
    monkeypatch.setattr(trainer, "free_resources", lambda: "free are none")
    board: Any = SimpleNamespace(tell=SimpleNamespace(remote=told.append))
    watch = GroupWatch(board, "2 workers", 60.0)

    def at(seconds: float, before: TrainControllerState, after: TrainControllerState) -> None:
        now[0] = 1000 + seconds
        watch.after_controller_state_update(before, after)

    nothing: Any = None
    initial, scheduling, running = InitializingState(), SchedulingState(nothing), RunningState()
    watch.after_controller_start(None)
    at(50, initial, scheduling)
    at(55, scheduling, running)
    assert told == [False, False, True]
    at(56, running, running)
    at(70, running, running)
    assert told == [False, False, True, True]
    at(71, running, RestartingState(nothing))
    assert told[-1] is False
    at(130, RestartingState(nothing), scheduling)
    with pytest.raises(MissingWorkersError, match="did not get 2 workers in 1 minutes; free are none"):
        at(132, scheduling, ReschedulingState(nothing))


def test_a_lost_group_is_waited_for_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers run at first; then they are lost, and what is waited for is said."""
    looks = iter([True] * 3 + [False] * 200)
    stop = threading.Event()
    monkeypatch.setattr(training_board, "SECONDS_BETWEEN_POLLS", 0.001)
    monkeypatch.setattr(training_board, "SAY_SECONDS", 0.02)
    monkeypatch.setattr(training_board, "free_resources", lambda: "free are none")
    monkeypatch.setattr(training_board, "ray", SimpleNamespace(get=lambda found: found))

    def said(*message: Any) -> None:
        logged.append(message)
        stop.set()

    logged: list[Any] = []
    monkeypatch.setattr(training_board.logger, "warning", said)
    board: Any = SimpleNamespace(
        is_running=SimpleNamespace(remote=lambda: next(looks)), take=SimpleNamespace(remote=list)
    )
    training_board.watch_training(board, print, stop, "2 workers")
    assert "waits for" in logged[0][0]
    assert logged[0][1] == "2 workers"
