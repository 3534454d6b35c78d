"""What `precision = "auto"` is, decided once per piece of work in the driver, so that it stands in plans and keys.

A run that goes on on another kind of node then trains anew, and reads other kept features, instead of mixing what was
computed in float32 with what was computed in bfloat16.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from rayclean.config import ClusterConfig
from rayclean.runtime.needs import uses_gpu

if TYPE_CHECKING:
    from rayclean.training.job import FitSpec

logger = logging.getLogger(__name__)

Resolved = Literal["float32", "bfloat16"]

WITHOUT_BFLOAT16 = frozenset({"K80", "P4", "P40", "P100", "V100", "T4"})
"""Ray's names of GPUs before compute capability 8, which emulate bfloat16. GPUs that Ray does not name count as later ones."""


def with_precision(spec: "FitSpec", default: Callable[[], Resolved]) -> "FitSpec":
    """The specification with a precision in the place of `auto`, for the keys of jobs, too."""
    if spec.training.precision != "auto":
        return spec
    return replace(spec, training=spec.training.model_copy(update={"precision": default()}))


def training_precision(cluster: ClusterConfig, on_ray: bool, small: bool) -> Resolved:
    """Precision of training by default: bfloat16 on GPUs that compute in it, of which the cluster has no others; else
    float32.

    Args:
        cluster: what training may use.
        on_ray: whether it runs on the connected Ray.
        small: whether it is so small that GPUs are no gain (`needs.is_small_training`).
    """
    if on_ray:
        from rayclean.runtime.cluster import trains_on_gpu

        on_gpu = trains_on_gpu(cluster, small)
    else:
        on_gpu = trains_here_on_gpu(cluster, small)
    return _told("training", (_of_gpus() if on_ray else _of_this_gpu()) if on_gpu else "float32", on_gpu)


def trains_here_on_gpu(cluster: ClusterConfig, small: bool) -> bool:
    """Whether training in this process is on its GPU; `small` as in `training_precision`."""
    return uses_gpu(cluster) and not (small and cluster.use_gpu is None)


def inference_precision(cluster: ClusterConfig, on_ray: bool) -> Resolved:
    """Precision of inference by default: as of training on GPUs; bfloat16 on CPUs if the driver's is faster in it."""
    if on_ray:
        from rayclean.runtime.cluster import gpus_for_inference

        if gpus_for_inference(cluster):
            return _told("inference", _of_gpus(), True)
    elif uses_gpu(cluster):
        return _told("inference", _of_this_gpu(), True)
    import torch

    from rayclean.models.precision import gains_by_bfloat16

    gains = gains_by_bfloat16(torch.device("cpu"))
    return _told("inference", "bfloat16" if gains else "float32", False)


def _told(work: str, precision: Resolved, on_gpu: bool) -> Resolved:
    logger.info("%s on %s in %s (precision = auto)", work, "GPUs" if on_gpu else "CPUs", precision)
    return precision


def _of_gpus() -> Resolved:
    from rayclean.runtime.nodes import gpu_kinds

    return "float32" if gpu_kinds() & WITHOUT_BFLOAT16 else "bfloat16"


def _of_this_gpu() -> Resolved:
    import torch

    from rayclean.runtime.gpus import require_cuda

    require_cuda()
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
