"""How many actors, and what each of them gets: on pretended clusters."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rayclean.config import ClusterConfig
from rayclean.runtime import actor_pool as module
from rayclean.runtime.actor_pool import PoolSize, size_pool
from tests.runtime.test_lease import cluster as stubs

import ray
from ray import cloudpickle


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def pretend(nodes: list[float], threads: int, gpus: int = 0, embedded: bool = False) -> None:
        monkeypatch.setattr(module, "is_embedded", lambda: embedded)
        each = {"GPU": gpus / len(nodes)} if gpus else {}
        alive = [{"Resources": {"CPU": cpus, **each}, "Alive": True} for cpus in nodes]
        monkeypatch.setattr(ray, "nodes", lambda: alive)
        monkeypatch.setattr(
            module, "own_threads", lambda sharers=1, processes=1: max(1, threads // processes)
        )
        monkeypatch.setattr(module, "gpus_for_inference", lambda config: gpus)

    return pretend


@pytest.mark.parametrize(
    ("nodes", "threads", "actors", "items", "expected"),
    [
        ([4], 2, None, 8, PoolSize(2, 1.0, 0.0, 1)),  # two cores, many items: an actor each
        ([4], 2, None, 7, PoolSize(1, 1.0, 0.0, 2)),  # few items: one with both
        ([4], 2, None, 0, PoolSize(1, 1.0, 0.0, 2)),
        ([16], 16, None, 100, PoolSize(4, 1.0, 0.0, 4)),
        ([16], 16, 8, 100, PoolSize(8, 1.0, 0.0, 2)),  # asked for
        ([16], 16, 8, 3, PoolSize(3, 1.0, 0.0, 5)),
    ],
)
def test_cores_are_shared(cluster, nodes, threads, actors, items, expected: PoolSize) -> None:  # type: ignore[no-untyped-def]
    cluster(nodes, threads)
    assert size_pool(ClusterConfig(), actors, items) == expected


@pytest.mark.parametrize("cpus", [1, 2, 4, 6, 16, 64])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("actors", [None, 2, 5])
def test_actors_fit_and_spread_over_nodes(cluster, cpus: int, count: int, actors: int | None) -> None:  # type: ignore[no-untyped-def]
    cluster([float(cpus)] * count, cpus)
    found = size_pool(ClusterConfig(), actors, 1000)
    per_node = -(-found.actors // count)
    if per_node <= cpus:
        assert per_node * found.num_cpus <= cpus, "they must all find a place"
        assert (per_node + 1) * found.num_cpus > cpus, "one more must go to another node"
    assert found.threads * per_node <= max(cpus, per_node)


@pytest.mark.parametrize(
    ("gpus", "actors", "items", "expected"),
    [
        (4, None, 100, PoolSize(12, 1.0, 0.3333, 1, 2)),
        (4, None, 8, PoolSize(8, 1.0, 0.5, 2, 2)),  # an actor per shard
        (
            4,
            None,
            7,
            PoolSize(4, 1.0, 1.0, 4, 2),
        ),  # three GPUs with two actors each and one without would take longer
        (4, None, 2, PoolSize(2, 1.0, 1.0, 4, 2)),
        (4, 8, 100, PoolSize(8, 1.0, 0.5, 2, 2)),  # asked for, on all GPUs
        (4, 24, 100, PoolSize(24, 0.6, 0.1666, 1, 2)),  # all of them find a CPU
        (4, 3, 100, PoolSize(3, 1.0, 1.0, 4, 2)),
        (1, None, 100, PoolSize(3, 1.0, 0.3333, 5, 2)),
    ],
)
def test_actors_share_gpus(cluster, gpus: int, actors: int | None, items: int, expected: PoolSize) -> None:  # type: ignore[no-untyped-def]
    cluster([16.0], 16, gpus=gpus)
    found = size_pool(ClusterConfig(), actors, items)
    assert found == expected
    per_gpu = -(-found.actors // gpus)
    assert per_gpu * found.num_gpus <= 1.0, "all actors of a GPU must fit on it"
    assert (per_gpu + 1) * found.num_gpus > 1.0, "one more must go to another GPU"
    assert found.actors * found.num_cpus <= 16
    assert found.actors * found.threads <= max(16, found.actors)


def test_actors_beside_trials_that_share_gpus(cluster) -> None:  # type: ignore[no-untyped-def]
    cluster([16.0], 16, gpus=2)
    assert size_pool(ClusterConfig(gpus_per_worker=0.25), None, 100, 2).num_gpus == 0.25
    assert size_pool(ClusterConfig(gpus_per_worker=0.5), None, 100, 2).num_gpus == 0.3333
    assert size_pool(ClusterConfig(), None, 100, 2).threads == 1


def test_actors_on_the_gpus_of_this_machine_share_its_cores(cluster) -> None:  # type: ignore[no-untyped-def]
    """Ray of one's own has more logical CPUs than there are cores."""
    cluster([4.0], 2, gpus=1, embedded=True)
    assert size_pool(ClusterConfig(), None, 100) == PoolSize(3, 1.0, 0.3333, 1, 2)
    assert size_pool(ClusterConfig(), None, 1) == PoolSize(1, 1.0, 1.0, 2, 2)


@pytest.mark.parametrize("told", [False, True])
def test_what_a_map_waits_for_is_said_until_a_process_has_told_that_it_runs(
    told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from rayclean.runtime import ray_data

    store: set[bytes] = set()
    kv = SimpleNamespace(
        _internal_kv_put=lambda key, value: store.add(key),
        _internal_kv_exists=store.__contains__,
        _internal_kv_del=store.discard,
    )
    monkeypatch.setattr(ray_data, "internal_kv", kv)
    monkeypatch.setattr(ray_data, "_SAY_SECONDS", 0.05)
    monkeypatch.setattr(ray_data, "free_resources", lambda: "free are 0 of 4 CPUs")
    begun = ray_data._Begun()
    with begun.awaited("1 CPUs"):
        if told:
            cloudpickle.loads(cloudpickle.dumps(begun)).tell()  # as in another process
        time.sleep(0.3)
    assert ("waits for a process with 1 CPUs since 0 s; free are 0 of 4 CPUs" in caplog.messages) is not told
    assert not store


@pytest.mark.slow
def test_a_map_without_a_place_says_what_it_waits_for_and_gives_up(
    ray_embedded: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another run holds all CPUs; once a process has a place, nothing is said, however long its work takes."""
    from rayclean.runtime import ray_data

    import ray.data
    from ray.data.exceptions import ExecutionTimeoutError

    class Holder:
        def hold(self) -> None:
            """Nothing: its place is what counts."""

    monkeypatch.setattr(ray_data, "_SAY_SECONDS", 0.5)
    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 1)
    holder = ray.remote(num_cpus=4)(Holder).remote()
    ray.get(holder.hold.remote())
    with pytest.raises(ExecutionTimeoutError):
        next(ray_data.map_actors(lambda: abs, [1], actors=1, num_cpus=2))
    assert "waits for a process with 2 CPUs since 0 s; free are 0 of 4 CPUs" in caplog.text
    ray.kill(holder)
    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 1800)

    def slow(item: int) -> float:
        begun = time.time()
        time.sleep(2)
        return begun

    (begun,) = ray_data.map_items(slow, [1])
    assert [record for record in caplog.records if record.created > begun + 0.5] == []


MEETING = """
import json, os, sys, time
import rayclean.runtime.environment
import ray
from pathlib import Path
from rayclean.config import ClusterConfig
from rayclean.runtime.actor_pool import size_pool
from rayclean.runtime.ray_data import map_actors
ray.init(address="auto", log_to_driver=False)
size = size_pool(ClusterConfig(), None, 12)
folder = Path(sys.argv[1])

class Meeting:
    def __call__(self, item):
        (folder / str(os.getpid())).touch()
        end = time.monotonic() + 120
        while len(list(folder.iterdir())) < size.actors and time.monotonic() < end:
            time.sleep(0.1)
        return os.getpid(), ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES")

found = map_actors(
    Meeting, range(12), actors=size.actors, num_cpus=size.num_cpus, num_gpus=size.num_gpus, calls=size.calls
)
print(json.dumps([size.actors, sorted(set(found))]))
"""


@pytest.mark.slow
@pytest.mark.ray
def test_actors_that_share_gpus_are_there_at_once_and_everywhere(tmp_path: Path) -> None:
    """Three on each of two nodes, whose GPUs only Ray believes in."""
    with stubs() as environment:
        done = subprocess.run(
            [sys.executable, "-c", MEETING, str(tmp_path)], env=environment,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    actors, found = json.loads(done.stdout.splitlines()[-1])
    assert actors == len(found) == len(list(tmp_path.iterdir())) == 6
    nodes = [node for _, node, _ in found]
    assert sorted(nodes.count(node) for node in set(nodes)) == [3, 3]
    assert all(device is not None for _, _, device in found)
