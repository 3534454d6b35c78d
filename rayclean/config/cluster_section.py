"""The section `[cluster]` of a config: where the work runs and how large its parts are."""

from pydantic import Field, model_validator

from rayclean.plugins import Options


class LLMSize(Options):
    """Size of a served language model on this cluster; `None` leaves what `annotator.server` says."""

    replicas: int | None = Field(None, ge=1)
    """Copies of the model, each with its share of the requests."""
    max_replicas: int | None = Field(None, ge=1)
    """Largest number of copies, started while requests queue up."""
    tensor_parallel: int | None = Field(None, ge=1)
    """GPUs that share one copy."""
    gpu_share: float | None = Field(None, gt=0, le=1)
    """Part of a GPU that one copy holds; below 1 it leaves room on it for training (`cluster.gpus_per_worker` below 1)."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Sequences that one copy computes together."""
    gpu: bool | None = None
    """Whether the model runs on GPUs; false: on CPUs."""


class ClusterConfig(Options):
    """Where the work runs; it changes no result, so it is part of no fingerprint."""

    address: str | None = None
    """Ray address; `None`: the one in RAY_ADDRESS, else an embedded Ray on this machine."""
    ray: bool | None = None
    """Whether verbs run on Ray: `true`: always; `false`: never, everything runs in this process; `None`: Ray
    starts when it is worth it: for a cluster, several workers, a GPU, a served language model, or more than
    half a minute of work."""
    cpus: int | None = Field(None, ge=1)
    """Logical CPUs of an embedded Ray; `None`: at least 4, so that two-core machines do not starve."""
    gpus: int | None = Field(None, ge=0)
    """GPUs of an embedded Ray; `None`: all that are seen."""
    workers: int = Field(1, ge=1)
    """Number of workers that train one network together; results do not depend on it."""
    max_workers: int | None = Field(None, ge=1)
    """Number of workers if the cluster has room (elastic training); at least `workers` are needed to
    start."""
    cpus_per_worker: float = Field(1.0, gt=0)
    """CPUs reserved for each training worker."""
    use_gpu: bool | None = None
    """Whether training uses GPUs; `None`: a GPU per worker if the cluster has or may add as many, but none for
    heads on frozen features and bags of words, which gain nothing by it."""
    gpus_per_worker: float = Field(1.0, gt=0)
    """GPUs of each training worker; below 1 several trials of a sweep share one."""
    llm: LLMSize = LLMSize()
    """Size of the language model of the annotator `served`."""

    @model_validator(mode="after")
    def _workers_in_order(self) -> "ClusterConfig":
        if self.max_workers is not None and self.max_workers < self.workers:
            raise ValueError(f"max_workers must be at least workers = {self.workers}, got {self.max_workers}")
        return self

    @model_validator(mode="after")
    def _gpus_are_whole_or_not_shared(self) -> "ClusterConfig":
        each, workers = self.gpus_per_worker, max(self.workers, self.max_workers or 1)
        if each > 1 and each != int(each):
            raise ValueError(
                f"gpus_per_worker must be a whole number, or below 1 to share a GPU, got {each:g}"
            )
        if each < 1 and workers > 1 and self.use_gpu is not False:
            raise ValueError(
                f"gpus_per_worker = {each:g} would put several of {workers} workers of one training on one GPU, which NCCL "
                "refuses: set workers = 1 (trials of a sweep may share a GPU), or gpus_per_worker = 1"
            )
        return self
