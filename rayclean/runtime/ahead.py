"""A language model that starts with the command, while the verbs before the one that asks still compute.

An engine answers after a minute on CPUs, and after several on GPUs, most of which goes by with loading and waiting. So on a
Ray of this process alone it starts at once, if it takes nothing that the verbs before it need, and ends with the last verb
that asks it. On a cluster that others use it would hold GPUs for hours without a question.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from rayclean.annotators.model_server import ModelServer
from rayclean.annotators.model_source import model_source
from rayclean.config import ClusterConfig
from rayclean.progress import say
from rayclean.runtime.cluster import cpu_count, gpu_count, is_embedded
from rayclean.runtime.machine import GIB
from rayclean.runtime.needs import VerbNeeds
from rayclean.runtime.preflight import ResourceDemand, inference_demand, server_demand, training_demand
from rayclean.runtime.serve import Endpoints, ServedEndpoint, starting_llm

PROCESSES_GIB = 6.0
"""Memory of an engine's processes beside weights and key-value cache, each of which imports PyTorch."""
VERBS_GIB = 4.0
"""Memory that is left to the verbs before."""
WEIGHT_COPIES = 2
"""Memory of the weights over the size of their files, which hold two bytes a number, and an engine on CPUs mostly four."""


def server_to_start(cluster: ClusterConfig, needs: Sequence[VerbNeeds]) -> ModelServer | None:
    """The language model that starts with the command; None: it waits until it is asked.

    Args:
        cluster: section `cluster` of the config.
        needs: of the verbs of the command, in order.
    """
    first = next((position for position, need in enumerate(needs) if need.servers), 0)
    before, asking = needs[:first], needs[first]
    if not (is_embedded() and asking.asks_anew and any(need.network for need in before)):
        return None
    server = asking.servers[0]
    model = server_demand(server.options)
    if not all(_fit(model, other) for need in before for other in _demands(cluster, need)):
        return None
    needed = _memory_gib(server)
    return server if needed is not None and needed <= psutil.virtual_memory().available / GIB else None


def _demands(cluster: ClusterConfig, need: VerbNeeds) -> list[ResourceDemand]:
    """What a verb holds at one time or another."""
    training = [training_demand(cluster, need.small)] if need.trains else []
    return [*training, inference_demand(cluster)] if need.network else training


def _fit(*demands: ResourceDemand) -> bool:
    """Whether there is room for all at once."""
    cpus, gpus = sum(demand.cpus for demand in demands), sum(demand.gpus for demand in demands)
    return cpus <= cpu_count() and gpus <= gpu_count()


def _memory_gib(server: ModelServer) -> float | None:
    """Memory in GiB that has to be free for an engine beside the verbs before it; None: not known, of a model of a hub."""
    folder = Path(model_source(server.model))
    if not folder.is_dir():
        return None
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    copies = WEIGHT_COPIES * weights / GIB * server.options.replicas
    return copies + server.options.kv_cache_gib + PROCESSES_GIB + VERBS_GIB


@contextmanager
def started_ahead(server: ModelServer, owner: str) -> Iterator[Endpoints]:
    """Begin to serve a model, and end it with the block; who looks it up in the endpoints waits until it answers.

    Args:
        server: the model.
        owner: URL of the run.

    Raises:
        ConfigError: the model does not exist, or its context is shorter than `max_model_len`.
        ResourceError: when it is looked up: it does not start; the message holds its error.
    """
    say(f"relabel: {server.model}: starts meanwhile")
    with starting_llm(server.model, server.revision, server.options, owner) as wait_until_up:
        yield _Starting({server.key: wait_until_up})


class _Starting(Mapping[str, ServedEndpoint]):
    """Servers by `ModelServer.key`, each waited for when it is looked up."""

    def __init__(self, servers: Mapping[str, Callable[[], ServedEndpoint]]):
        self._servers = servers

    def __getitem__(self, key: str) -> ServedEndpoint:
        return self._servers[key]()

    def __contains__(self, key: object) -> bool:
        return key in self._servers  # without waiting

    def __iter__(self) -> Iterator[str]:
        return iter(self._servers)

    def __len__(self) -> int:
        return len(self._servers)
