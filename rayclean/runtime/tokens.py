"""Tokens of a training's texts, made on all cores before its workers and their GPUs are reserved."""

from collections.abc import Iterator, Sequence

from rayclean.config import ClusterConfig
from rayclean.folder import Folder
from rayclean.progress import progress_bar
from rayclean.runtime.shard_figures import count_rows
from rayclean.runtime.threads import tokenizing_on_all_cores
from rayclean.training.job import FitJob, FitSpec
from rayclean.training.setup import token_shards
from rayclean.training.token_shards import TokenShards

FEW_TEXTS = 20_000
"""So many texts are tokenised by whoever reads them: a map over shards would take about as long to begin, and a kill loses
seconds."""


def make_tokens(jobs: Sequence[FitJob], spec: FitSpec, cluster: ClusterConfig, on_ray: bool) -> None:
    """Make the tokens that the networks of jobs read, where there are many and nobody has made them.

    Finished shards outlive a kill, and on Ray the loss of a node.

    Args:
        jobs: trainings that are to begin.
        spec: settings of every training.
        cluster: size of a training worker; no task takes more CPUs.
        on_ray: whether each core of the cluster makes a shard at a time; else all cores of this machine make one after
            another.
    """
    for shards in token_shards(jobs, spec) if jobs else ():
        missing = shards.missing()
        total = count_rows(Folder(shards.examples)) if missing else 0
        if total <= FEW_TEXTS:
            continue
        with progress_bar("train: tokens", total, "texts") as progress:
            progress.advance(count_rows(shards.folder), resumed=True)
            for texts in _keep(shards, missing, cluster, on_ray):
                progress.advance(texts)


def _keep(shards: TokenShards, missing: list[str], cluster: ClusterConfig, on_ray: bool) -> Iterator[int]:
    """Make shards; yields the number of texts of each one that is made."""
    if not on_ray:
        with tokenizing_on_all_cores():
            yield from map(shards.keep, missing)
        return
    from rayclean.runtime import ray_data

    yield from ray_data.map_items(shards.keep, missing, num_cpus=min(1.0, cluster.cpus_per_worker))
