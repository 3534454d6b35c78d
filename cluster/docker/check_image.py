"""Checks of the GPU image that need no GPU: run while its test stage is built, and by a test on the machine at hand.

    python cluster/docker/check_image.py requirements-gpu-dev.lock

What is installed are the versions of the lock; everything that a run on GPUs imports can be imported; PyTorch is built for
CUDA, with NCCL; compilers of Triton's kernels are there; the application of a served language model can be built for a GPU
and tells its engine to compile no sampler. Exit code 1, and a line for each problem.
"""

import importlib
import importlib.metadata
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MODULES = (
    "rayclean", "rayclean.cli.main", "rayclean.training.loop", "rayclean.runtime.train", "rayclean.runtime.serve",
    "rayclean.runtime.tune", "rayclean.runtime.annotate", "ray.serve.llm", "vllm", "torch", "triton", "transformers",
    "datasets", "pyarrow", "optuna", "s3fs", "gcsfs", "wandb", "gguf", "accelerate", "pytest", "hypothesis",
    "pytest_timeout", "pytest_asyncio",
)  # fmt: skip
"""What runs on GPUs, and their tests, import."""
COMPILERS = ("gcc", "g++")
ENGINE = {"VLLM_USE_FLASHINFER_SAMPLER": "0", "DO_NOT_TRACK": "1"}
"""Environment of an engine: its sampler would need nvcc, which the image lacks."""


def wrong_versions(lock: str) -> Iterator[str]:
    """Packages of a lock that are not installed, or in another version."""
    for line in lock.splitlines():
        name, pinned, version = line.split(";")[0].strip().partition("==")
        if not pinned or name.startswith("#"):
            continue
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found.partition("+")[0] != version.partition("+")[0]:  # what is behind it names a build
            yield f"{name}: expected {version}, found {found}"


def failed_imports(modules: Iterable[str]) -> Iterator[str]:
    """Modules that cannot be imported, with the reason."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            yield f"import {name}: {type(error).__name__}: {error}"


def missing_compilers() -> Iterator[str]:
    """Programs without which kernels cannot be compiled when they are first used."""
    yield from (f"{name} is not on PATH" for name in COMPILERS if shutil.which(name) is None)


def unusable_torch() -> Iterator[str]:
    """What PyTorch was not built with."""
    import torch

    if torch.version.cuda is None:
        yield f"torch {torch.__version__} is built for CPUs"
    if not torch.distributed.is_nccl_available():
        yield f"torch {torch.__version__} has no NCCL"


def wrong_engine() -> Iterator[str]:
    """What the application of a language model on a GPU does not ask for."""
    from rayclean.annotators.model_server import ServerOptions
    from rayclean.runtime import llm_app

    llm_app.quiet()
    application = llm_app.build("name@content", "smollm2-135m", ServerOptions(gpu=True), use_gpu=True)
    (engine,) = application._bound_deployment.init_kwargs["llm_deployments"].values()
    deployment: Any = engine._bound_deployment
    environment = deployment.ray_actor_options["runtime_env"]["env_vars"]
    for name, value in ENGINE.items():
        if environment.get(name) != value:
            yield f"the engine's environment: expected {name}={value}, found {environment.get(name)}"
    bundles = deployment._deployment_config.placement_group_bundles
    if not bundles or sum(bundle.get("GPU", 0) for bundle in bundles) != 1:
        yield f"the engine's placement group: expected one GPU, found {bundles}"


def main() -> int:
    """The command line; returns the exit code."""
    (lock,) = sys.argv[1:]
    problems = [
        *wrong_versions(Path(lock).read_text()),
        *failed_imports(MODULES),
        *missing_compilers(),
        *unusable_torch(),
    ]
    problems += [] if problems else wrong_engine()
    for problem in problems:
        print(problem, file=sys.stderr)
    print("the image is as it should be" if not problems else f"{len(problems)} problems")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
