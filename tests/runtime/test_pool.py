"""How many actors, and what each of them gets: on pretended clusters."""

import pytest

from rayclean.config import ClusterConfig
from rayclean.runtime import actor_pool as module
from rayclean.runtime.actor_pool import PoolSize, size_pool

import ray


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def pretend(nodes: list[float], threads: int, gpus: int = 0) -> None:
        alive = [{"Resources": {"CPU": cpus}, "Alive": True} for cpus in nodes]
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


def test_an_actor_per_gpu(cluster) -> None:  # type: ignore[no-untyped-def]
    cluster([16.0], 16, gpus=4)
    assert size_pool(ClusterConfig(), None, 100).actors == 4
    assert size_pool(ClusterConfig(), 8, 100).actors == 4
    assert size_pool(ClusterConfig(), None, 2).actors == 2
    assert size_pool(ClusterConfig(), None, 100).num_gpus == 1.0
