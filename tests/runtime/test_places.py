"""Trainings side by side: how many, on pretended clusters; what happens when one fails; the same results, on a cluster of stubs."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rayclean.config import ClusterConfig
from rayclean.errors import RaycleanError
from rayclean.methods.base import State
from rayclean.runtime import places
from rayclean.runtime.places import MissingWorkersError, TrainingPlaces, run_groups, training_places
from tests.runtime.test_lease import cluster
from tests.training.toys import SelfKilling

import ray

Pretend = Callable[..., None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    def have(*shapes: tuple[float, float], taken: dict[str, float] | None = None) -> None:
        alive = [{"Resources": {"CPU": cpus, "GPU": gpus}, "Alive": True} for cpus, gpus in shapes]
        total = {unit: sum(shape[place] for shape in shapes) for place, unit in enumerate(("CPU", "GPU"))}
        free = {unit: size - (taken or {}).get(unit, 0.0) for unit, size in total.items()}
        monkeypatch.setattr(ray, "nodes", lambda: alive)
        monkeypatch.setattr(ray, "cluster_resources", lambda: total)
        monkeypatch.setattr(ray, "available_resources", lambda: free)

    return have


EIGHT = [(64.0, 8.0)]
NODES = [(16.0, 0.0)] * 3


@pytest.mark.parametrize(
    ("shapes", "taken", "config", "jobs", "use_gpu", "expected"),
    [
        (EIGHT, {}, {}, 5, True, TrainingPlaces(5, 1.0, 5)),
        (EIGHT, {"GPU": 5}, {}, 5, True, TrainingPlaces(3, 1.0, 3)),  # the others hold a language model
        (EIGHT, {"GPU": 8}, {}, 5, True, TrainingPlaces(1, 1.0)),  # it waits
        (EIGHT, {}, {"gpus_per_worker": 0.5}, 20, True, TrainingPlaces(16, 1.0, 16)),
        (EIGHT, {"GPU": 0.5}, {"gpus_per_worker": 0.5}, 20, True, TrainingPlaces(14, 1.0, 14)),
        (EIGHT, {}, {"gpus_per_worker": 4}, 5, True, TrainingPlaces(2, 1.0, 2)),
        (EIGHT, {}, {"cpus_per_worker": 32}, 5, True, TrainingPlaces(2, 32, 2)),
        (EIGHT, {}, {"workers": 2}, 5, True, TrainingPlaces(1, 1.0)),
        (EIGHT, {}, {"max_workers": 4}, 5, True, TrainingPlaces(1, 1.0)),
        (EIGHT, {}, {}, 1, True, TrainingPlaces(1, 1.0)),
        ([(8.0, 1.0)] * 4, {}, {}, 3, True, TrainingPlaces(3, 1.0, 1)),
        ([(16.0, 0.0)], {}, {}, 5, False, TrainingPlaces(1, 1.0)),  # one node is busy with one training
        (NODES, {}, {}, 5, False, TrainingPlaces(3, 8.01)),  # a node each: two do not fit on one
        (NODES, {}, {}, 2, False, TrainingPlaces(2, 8.01)),
        (NODES, {}, {"cpus_per_worker": 12}, 5, False, TrainingPlaces(3, 12)),
        (NODES, {"CPU": 24}, {}, 5, False, TrainingPlaces(2, 8.01)),
        ([(0.0, 0.0), (64.0, 0.0), (16.0, 0.0)], {}, {}, 5, False, TrainingPlaces(1, 1.0)),  # the others are too small
    ],
)  # fmt: skip
def test_as_many_trainings_as_there_is_room_for(
    shapes: Any, taken: Any, config: Any, jobs: int, use_gpu: bool, expected: TrainingPlaces, pretend: Pretend
) -> None:
    pretend(*shapes, taken=taken)
    assert training_places(ClusterConfig(**config), jobs, use_gpu=use_gpu) == expected


class Stub:
    """A group that raises what it is given, one after the other, and then works until it may end."""

    def __init__(self, *raises: BaseException, until: threading.Event | None = None, obeys: bool = True):
        self.raises, self.until, self.obeys = list(raises), until, obeys
        self.runs, self.stopped, self.killed = 0, threading.Event(), False

    def run(self) -> None:
        self.runs += 1
        if self.raises:
            raise self.raises.pop(0)
        while self.until is not None and not self.until.is_set() and not self.stopped.wait(0.01):
            pass

    def stop(self) -> None:
        if self.obeys:
            self.stopped.set()

    def kill(self) -> None:
        self.killed = True
        self.stopped.set()


def test_the_error_of_a_group_stops_the_others() -> None:
    never = threading.Event()
    groups = [Stub(until=never), Stub(RaycleanError("wrong label")), Stub(until=never)]
    with pytest.raises(RaycleanError, match="wrong label"):
        run_groups(groups)
    assert all(group.stopped.is_set() for group in groups)
    assert groups[1].runs == 1
    assert not any(group.killed for group in groups)


def test_a_group_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "END_SECONDS", 0.2)
    stubborn = Stub(until=threading.Event(), obeys=False)
    with pytest.raises(RaycleanError, match="wrong label"):
        run_groups([stubborn, Stub(RaycleanError("wrong label"))])
    assert stubborn.killed


def test_a_group_without_a_place_is_run_by_the_first_that_ends() -> None:
    done = threading.Event()
    waiting = Stub(MissingWorkersError("no GPU"))
    threading.Timer(0.5, done.set).start()
    run_groups([Stub(until=done), waiting])
    assert waiting.runs == 2
    with pytest.raises(MissingWorkersError):
        run_groups([Stub(MissingWorkersError("no GPU")), Stub(MissingWorkersError("no GPU"))])


def test_ctrl_c_stops_all_groups() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    groups = [Stub(until=threading.Event()) for _ in range(3)]
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_groups(groups)
    finally:
        signal.signal(signal.SIGINT, before)
    assert all(group.stopped.is_set() for group in groups)


class Meeting(SelfKilling):
    """Waits in its first epoch until another process trains, too; kills its process once, in the third."""

    def partition(self, state: State, epoch: int, turn: int = 0) -> None:
        super().partition(state, epoch, turn)
        folder = Path(self.config.marker).parent
        (folder / f"process-{os.getpid()}").touch()
        for _ in range(600):
            if len(list(folder.glob("process-*"))) > 1:
                return
            time.sleep(0.1)
        (folder / "alone").touch()


SIDE_BY_SIDE = """
import json, sys, time
import rayclean.runtime.environment
import ray
from pathlib import Path
from rayclean.config import ClusterConfig, Plugin
from rayclean.errors import ArtifactError
from rayclean.runtime.engines import Engines, Workplace
from tests.training.toys import ACCUMULATING, job, spec, write_examples
ray.init(address="auto", log_to_driver=False)
folder = Path(sys.argv[1])
examples = write_examples(folder / "examples", 60, dev=12)
(folder / "meeting").mkdir()
found, one = {}, ClusterConfig(workers=1, use_gpu=False)
for name, place, method in (
    ("side", Workplace(), Plugin(name="tests.runtime.test_places:Meeting", marker=str(folder / "meeting" / "killed"))),
    ("turn", Workplace(shares_cluster=True), Plugin(name=ACCUMULATING)),
):
    jobs = [job(examples, folder / f"{name}-{seed}", name=f"job-{seed}", seed=seed) for seed in range(4)]
    lines = []
    results = Engines(one, True, place).fit_jobs(jobs, spec(method=method, epochs=4), str(folder / "work"), lines.append)
    found[name] = {job: [result.loss, result.dev_loss, result.best_epoch] for job, result in results.items()}
    found[f"{name}-epochs"] = sorted({(line["job"], line["epoch"]) for line in lines})
long = job(examples, folder / "long", name="long")
broken = job(str(folder / "nothing"), folder / "broken", name="broken")
heard = []
try:
    Engines(one, on_ray=True).fit_jobs([long, broken], spec(epochs=100_000), str(folder / "work"), heard.append)
except ArtifactError as error:
    found["error"] = str(error)
for _ in range(60):
    if ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]:
        break
    time.sleep(0.5)
found["free"] = ray.available_resources().get("CPU")
found["left"] = [path.name for path in (folder / "work").iterdir()]
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_trainings_side_by_side_give_what_they_give_in_turn(tmp_path: Path) -> None:
    """On two nodes, with a worker that is killed; then one of two jobs fails."""
    with cluster() as environment:
        done = subprocess.run(
            [sys.executable, "-c", SIDE_BY_SIDE, str(tmp_path)], env=environment,
            capture_output=True, text=True, timeout=500,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (tmp_path / "meeting" / "killed").exists()
    assert not (tmp_path / "meeting" / "alone").exists(), "they trained one after the other"
    assert len(list((tmp_path / "meeting").glob("process-*"))) == 3  # the killed one began again
    assert found["side"] == found["turn"]  # to the last bit
    assert (
        found["side-epochs"]
        == found["turn-epochs"]
        == [[f"job-{n}", e] for n in range(4) for e in (1, 2, 3, 4)]
    )
    for seed in range(4):
        for file in ("model/weights.safetensors", "dynamics/part-00000.parquet"):
            assert (tmp_path / f"side-{seed}" / file).read_bytes() == (
                tmp_path / f"turn-{seed}" / file
            ).read_bytes()
    assert "holds no shards" in found["error"]
    assert found["free"] == 4
    assert found["left"] == []
