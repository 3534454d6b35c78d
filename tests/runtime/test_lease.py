"""Two runs that hold a model while they wait for workers, and an elastic training beside a model: with stubs, and for real."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rayclean.methods.base import State
from rayclean.plugins import Options
from rayclean.runtime import lease
from rayclean.runtime.needs import EMBEDDED
from tests import toy
from tests.training.toys import Accumulating

import ray

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
each = {"num_cpus": int(sys.argv[1]), "num_gpus": int(sys.argv[2])}
cluster = Cluster(initialize_head=True, head_node_args={**each, "include_dashboard": False})
cluster.add_node(**{**each, "num_cpus": int(sys.argv[3])}, node_ip_address="127.0.0.2")
cluster.wait_for_nodes()
print(cluster.address, flush=True)
time.sleep(3600)  # longer than any test
"""
ASKING = """
import contextlib, json, sys, time
import rayclean.runtime.environment
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from rayclean.runtime import lease
from rayclean.runtime.needs import EMBEDDED
ray.init(address="auto", log_to_driver=False)
got = []
with lease.leased(sys.argv[1]) if sys.argv[2] == "leased" else contextlib.nullcontext():
    model = placement_group([{"GPU": 1}])
    got.append(model.wait(40))
    time.sleep(8)  # the other run has begun, too
    for _ in range(2):  # Ray Train asks anew when it has lost a worker
        workers = placement_group([{"GPU": 1}])
        got.append(workers.wait(40 if sys.argv[2] == "leased" else 5))
        remove_placement_group(workers)
        time.sleep(2)
    remove_placement_group(model)
print(json.dumps(got))
"""
SWEEP = """
import json, sys, time
import rayclean.runtime.environment
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from rayclean.config import ClusterConfig
from rayclean.runtime import lease, tune
from rayclean.runtime.preflight import ResourceDemand
from rayclean.runtime.trial_slots import trial_slots
ray.init(address="auto", log_to_driver=False)
ended = []
class Observer:
    def started(self, trial): pass
    def epoch_ended(self, trial, record): pass
    def ended(self, trial, result): ended.append(result)
share, trials = float(sys.argv[2]), int(sys.argv[3])
def trial(config, report, place):
    time.sleep(3)  # a trial reads its data first, and does not hold its workers meanwhile
    workers = placement_group([{"CPU": 0.5, "GPU": share}])
    got = workers.wait(20)
    time.sleep(1)
    remove_placement_group(workers)
    return {"got": got}
shares = ClusterConfig(use_gpu=True, gpus_per_worker=share, cpus_per_worker=0.5)
model = ResourceDemand("the model", 0, 1, "none")
slots = trial_slots(shares, trains=True, concurrent=None, cpus=0.1, trials=trials, beside=[model])
with lease.leased(sys.argv[1]):
    model = placement_group([{"GPU": 1}])
    assert model.wait(200), "the model got no GPU"
    tune.run_trials(trial, [{"number": number} for number in range(trials)], slots, Observer(), trains=True)
    remove_placement_group(model)
print(json.dumps({"concurrent": slots.concurrent, "ended": ended}))
"""
RELABELLING = """
import json, sys, time
from contextlib import contextmanager, nullcontext
import rayclean.runtime.environment
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from rayclean.annotators.model_server import ServerOptions
from rayclean.annotators.served import ServedAnnotator
from rayclean.config import ClusterConfig
from rayclean.runtime import serve, tune
from rayclean.runtime.preflight import server_demand
from rayclean.runtime.trial_slots import trial_slots
from rayclean.schema import Label
ray.init(address="auto", log_to_driver=False)
started = []
class Observer:
    def started(self, trial): started.append(trial["number"])
    def epoch_ended(self, trial, record): pass
    def ended(self, trial, result): pass
@contextmanager
def model(*_):
    held = placement_group([{"CPU": 1}] * 2)  # the engine, and its HTTP side
    assert held.wait(200), "the model got no CPUs"
    time.sleep(8)  # the other sweep has begun, too
    yield None
    remove_placement_group(held)
serve.served_llm, serve.validate_server = model, lambda annotator: None
seconds = 240  # on a busy machine the first trial takes long to start
if sys.argv[2] == "without":
    serve.leased, seconds = lambda what: nullcontext(), 30
options = ServerOptions(gpu=False)
asked = ServedAnnotator(ServedAnnotator.Config(server=options), [Label(0, "a", "a"), Label(1, "b", "b")])
slots = trial_slots(ClusterConfig(), trains=False, concurrent=None, cpus=0.1, trials=4, beside=[server_demand(options)])
with serve.hosting([asked], sys.argv[1]):
    trials = [{"number": number} for number in range(4)]
    tune.run_trials(lambda config, report, place: {}, trials, slots, Observer(), trains=False, seconds=seconds)
print(json.dumps({"concurrent": slots.concurrent, "started": sorted(started)}))
"""
ELASTIC = """
import json, sys, time
import rayclean.runtime.environment
import ray
from pathlib import Path
from rayclean.config import ClusterConfig
from rayclean.runtime.engines import Engines
from rayclean.runtime.served_resources import counted_as_taken
from tests.training.toys import job, spec, write_examples
ray.init(address="auto", log_to_driver=False)
@ray.remote(num_cpus=1)
class Model:
    def up(self):
        return True
model = Model.remote()
ray.get(model.up.remote())
folder = Path(sys.argv[1])
one = job(write_examples(folder / "examples", 40), folder / "out")
engines = Engines(ClusterConfig(workers=1, max_workers=4, use_gpu=False), on_ray=True)
with counted_as_taken("stub", lambda: [{"CPU": 1.0}]):
    time.sleep(2)
    result = engines.fit_jobs([one], spec(epochs=1), str(folder / "work"))["toy"]
print(json.dumps({"epochs": result.epochs, "workers": result.workers}))
"""
LOSING = """
import json, sys, time
import rayclean.runtime.environment
import ray
from pathlib import Path
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rayclean.config import ClusterConfig, Plugin
from rayclean.errors import RaycleanError
from rayclean.runtime import lease, nodes, train
from rayclean.runtime.engines import Engines
from tests.training.toys import job, spec, write_examples
ray.init(address="auto", log_to_driver=False)
folder, name, loses = Path(sys.argv[1]) / sys.argv[2], sys.argv[2], sys.argv[3] == "loses"
train.START_SECONDS = 60.0
head = nodes.head_id()
def on_head(target, **options):
    return target.options(scheduling_strategy=NodeAffinitySchedulingStrategy(head, soft=False), **options)
@ray.remote
class Neighbour:
    def up(self):
        return True
neighbours = []
def make_room(line):
    if neighbours:
        ray.kill(neighbours.pop())
        time.sleep(3)  # whoever else waits for a place on the head takes it now
        (folder / "room").touch()
one = job(write_examples(folder / "examples", 40), folder / "out")
engines = Engines(ClusterConfig(workers=1, use_gpu=False), on_ray=True)
losing = Plugin(name="tests.runtime.test_lease:LosesItsNode", folder=str(folder))
method = losing if loses else Plugin(name="cross_entropy")
with lease.leased(name):
    model = on_head(Neighbour, num_cpus=1).remote() if loses else Neighbour.options(num_cpus=1).remote()
    ray.get(model.up.remote(), timeout=200)
    if loses:
        neighbours.append(on_head(Neighbour, num_cpus=1).remote())
        ray.get(neighbours[0].up.remote())
        (folder / "begun").touch()
    try:
        ended = engines.fit_jobs([one], spec(method=method, epochs=4), str(folder / "work"), make_room)["toy"].epochs
    except RaycleanError as error:
        ended = type(error).__name__
    ray.kill(model)
print(json.dumps([ended, len(nodes.alive())]))
"""


class LosesItsNode(Accumulating):
    """Kills Ray on its node, and so itself, in the second epoch: once, when there is room elsewhere."""

    class Config(Options):
        folder: str

    def partition(self, state: State, epoch: int, turn: int = 0) -> None:
        super().partition(state, epoch, turn)
        lost = Path(self.config.folder) / "lost"
        if epoch == 2 and not lost.exists():
            while not (lost.parent / "room").exists():
                time.sleep(0.1)
            lost.touch()
            os.kill(os.getppid(), signal.SIGKILL)  # the raylet
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def cluster(cpus: int = 2, gpus: int = 1, others: int | None = None) -> Iterator[dict[str, str]]:
    """Two nodes of some CPUs and GPUs each, the second with `others` CPUs, in which only Ray believes; the environment that leads
    there.
    """
    plain = {
        key: value for key, value in os.environ.items() if not key.startswith("RAY_") and key != EMBEDDED
    }
    environment = {
        **plain,
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "PYTHONPATH": str(Path.cwd()),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(cpus), str(gpus), str(cpus if others is None else others)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        yield {**environment, "RAY_ADDRESS": process.stdout.readline().strip()}
    finally:
        process.kill()


@pytest.mark.parametrize("how", ["leased", "without"])
def test_two_runs_that_ask_while_they_train_both_end(how: str) -> None:
    """Each holds a GPU for its model, and then wants the other for its workers."""
    with cluster() as environment:
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", ASKING, name, how], env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for name in ("first", "second")
        ]  # fmt: skip
        ends = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ends
    got = [json.loads(out) for out, _ in ends]
    if how == "leased":
        assert got == [[True, True, True]] * 2
        assert sum("one run at a time does" in errors for _, errors in ends) == 1
    else:
        assert got == [[True, False, False]] * 2  # what the lease is for


@pytest.mark.parametrize(("share", "trials", "concurrent"), [(0.5, 4, 2), (1.0, 3, 1)])
def test_two_sweeps_with_a_model_both_end(share: float, trials: int, concurrent: int) -> None:
    """Of two GPUs the model takes one, and trials share the other or follow each other on it; the second sweep's model waits
    for the end of the first sweep, as it would take the GPU between two trials.
    """
    with cluster() as environment:
        sweeps = [
            subprocess.Popen(
                [sys.executable, "-c", SWEEP, name, str(share), str(trials)], env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for name in ("first", "second")
        ]  # fmt: skip
        ends = [sweep.communicate(timeout=400) for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], ends
    for out, _ in ends:
        assert json.loads(out.splitlines()[-1]) == {
            "concurrent": concurrent,
            "ended": [{"got": True}] * trials,
        }


@pytest.mark.parametrize("how", ["leased", "without"])
def test_two_sweeps_that_only_relabel_both_end(how: str) -> None:
    """Of four CPUs each model takes two, and each trial, which trains nothing, needs one: two models leave none."""
    with cluster(gpus=0) as environment:
        sweeps = [
            subprocess.Popen(
                [sys.executable, "-c", RELABELLING, name, how], env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for name in ("first", "second")
        ]  # fmt: skip
        ends = [sweep.communicate(timeout=400) for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], ends
    ran = (
        [0, 1, 2, 3] if how == "leased" else []
    )  # what the lease is for: none finds a place in half a minute
    assert [json.loads(out.splitlines()[-1]) for out, _ in ends] == [{"concurrent": 2, "started": ran}] * 2
    assert sum("one run at a time does" in errors for _, errors in ends) == (how == "leased")


def test_two_runs_with_models_end_when_a_node_is_lost(tmp_path: Path) -> None:
    """The first run's model is on the head, where a neighbour's place becomes free, and its worker on the node that is lost. The
    second run's model must not take that place, or both would wait for a worker.
    """
    with cluster(cpus=2, gpus=0, others=1) as environment:
        runs = []
        for name, how in (("first", "loses"), ("second", "waits")):
            runs.append(
                subprocess.Popen(
                    [sys.executable, "-c", LOSING, str(tmp_path), name, how], env=environment,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
            for _ in range(600):
                if (tmp_path / "first" / "begun").exists():
                    break
                time.sleep(0.1)
        ends = [run.communicate(timeout=400) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ends
    assert [json.loads(out.splitlines()[-1]) for out, _ in ends] == [[4, 1], [4, 1]], ends
    assert "one run at a time does" in ends[1][1]


def test_the_loss_of_its_process_does_not_lose_the_lease(ray_embedded: None) -> None:
    actor = lease._Lease.remote()
    driver = ray.get_runtime_context().get_job_id()

    def take(job: str, block: str) -> str:
        return str(ray.get(actor.take.remote(job, block, f"the run of {block}")))

    try:
        assert take("of a driver that is gone", "first") == ""
        assert take(driver, "second") == ""
        ray.kill(actor, no_restart=False)
        assert take("other", "third") == "the run of second"
        assert take(driver, "fourth") == ""
        ray.get(actor.give.remote("fourth"))  # shared the lease, and ends before the second
        assert take("other", "third") == "the run of second"
        ray.get(actor.give.remote("second"))
        ray.kill(actor, no_restart=False)
        assert take("other", "third") == ""
    finally:
        ray.get(actor.give.remote("third"))


def test_elastic_training_leaves_a_served_model_its_place(tmp_path: Path) -> None:
    """Four workers would fit if the model's CPU were free, and would be waited for again and again."""
    with cluster() as environment:
        done = subprocess.run(
            [sys.executable, "-c", ELASTIC, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"epochs": 1, "workers": 3}


@pytest.mark.llm
@pytest.mark.timeout(1500)
def test_two_noiseal_runs_with_their_models_both_end(tmp_path: Path) -> None:
    """Six CPUs: a run takes two for its model and three to train, so two models leave too few for either training."""
    pytest.importorskip("vllm")
    data, files = toy.write(tmp_path / "data", rows=120, noise=0.3), []
    for name in ("first", "second"):
        values = toy.config(data, tmp_path / "runs", name=name)
        values["annotator"] = {
            "name": "served",
            "concurrency": 8,
            "server": {"dtype": "float32", "gpu": False},
        }
        values["relabel"] = {"demonstrations": 1, "controls": 30}
        weak = {"name": "bilstm", "hidden": 16, "buckets": 2000}
        values["method"] = {"name": "noiseal", "weak": weak, "demonstrations": 1, "warmup_epochs": 1}
        values["train"] = {"labels": "given", "epochs": 6, "batch_size": 8}
        values["cluster"] = {"workers": 2, "use_gpu": False}
        values["evaluate"] = {"compare": False}
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(values))
    with cluster(cpus=3, gpus=0) as environment:
        runs = [
            subprocess.Popen(
                [sys.executable, "-m", "rayclean", "clean", str(file)], env=environment, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True,
            )
            for file in files
        ]  # fmt: skip
        printed = [run.communicate(timeout=1400)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], printed
    assert sum("one run at a time does" in each for each in printed) >= 1
    for name in ("first", "second"):
        folder = tmp_path / "runs" / name
        epochs = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
        assert len(epochs) == 6
        assert sum(epoch.get("asked", 0) + epoch.get("from_ledger", 0) for epoch in epochs) > 0
