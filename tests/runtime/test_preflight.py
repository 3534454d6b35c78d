"""What does not fit is refused before anything expensive, and the message says what to change."""

from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from rayclean.config import Config, parse_config
from rayclean.errors import ResourceError
from rayclean.overrides import read_values
from rayclean.runtime import cluster, preflight
from rayclean.runtime.cluster import trains_on_gpu

ALL = ("load", "predict", "detect", "relabel", "train", "evaluate")
FILES = sorted((Path(__file__).parents[2] / "configs" / "cluster").glob("*.toml"))
Machine = Callable[[int, int], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A cluster of so many CPUs and GPUs, all of them free."""

    def have(cpus: int, gpus: int = 0) -> None:
        total = {"CPU": float(cpus), "GPU": float(gpus)}
        monkeypatch.setattr(ray, "cluster_resources", lambda: total)
        monkeypatch.setattr(ray, "available_resources", lambda: total)
        monkeypatch.setattr(ray._private.state.state, "get_max_resources_from_cluster_config", lambda: None)

    return have


def config(*overrides: str, annotator: str = "served", method: str = "noiseal") -> Config:
    values = {"dataset": {"path": "x.csv"}, "annotator": {"name": annotator}, "method": {"name": method}}
    return parse_config(values, overrides)


def test_training_alone(machine: Machine) -> None:
    machine(4)
    preflight.preflight(config("cluster.workers=3", annotator="knn"), ALL)
    with pytest.raises(ResourceError, match=r"needs 5 CPUs, the cluster has 4.*lower cluster.workers"):
        preflight.preflight(config("cluster.workers=4", annotator="knn"), ALL)


def test_the_language_model_alone_and_beside_a_method_that_asks(machine: Machine) -> None:
    machine(4)
    preflight.preflight(config(), ALL)
    alone = config("cluster.workers=2", "cluster.llm.replicas=3", method="cross_entropy")
    preflight.preflight(alone, ALL)  # one after the other
    together = config("cluster.workers=2", "cluster.llm.replicas=3")
    preflight.preflight(together, ("load", "predict"))  # asks nobody yet
    with pytest.raises(ResourceError, match=r"training on .*, with the language model on .*needs 7 CPUs"):
        preflight.preflight(together, ALL)
    with pytest.raises(
        ResourceError, match=r"the language model on 4 x 1 CPUs.*needs 5 CPUs, the cluster has 4"
    ):
        preflight.preflight(config("cluster.llm.replicas=4", method="cross_entropy"), ALL)


def test_a_sweep_holds_all_its_language_models_beside_its_trainings(machine: Machine) -> None:
    machine(6)
    small, other = config(method="cross_entropy"), config("annotator.server.cpus=2", method="cross_entropy")
    knn = config(annotator="knn")
    assert preflight.preflight_sweep([knn, knn], trains=True) == []
    assert len(preflight.preflight_sweep([small, knn, small], trains=True)) == 1
    assert len(preflight.preflight_sweep([small, other], trains=False)) == 2
    with pytest.raises(ResourceError, match=r"training on .*model on 1 x 1 .*model on 1 x 2 .*needs 7 CPUs"):
        preflight.preflight_sweep([small, other], trains=True)
    machine(16, 1)
    on_gpu = config("annotator.server.gpu=true", "cluster.use_gpu=true", method="cross_entropy")
    preflight.preflight_sweep([on_gpu], trains=False)
    with pytest.raises(ResourceError, match=r"needs 2 GPUs, the cluster has 1"):
        preflight.preflight_sweep([on_gpu], trains=True)


def test_gpus(machine: Machine) -> None:
    machine(16, 1)
    with pytest.raises(ResourceError, match=r"needs 2 GPUs, the cluster has 1.*cluster.llm.tensor_parallel"):
        preflight.preflight(config("cluster.llm.tensor_parallel=2", "cluster.llm.gpu=true"), ALL)
    with pytest.raises(ResourceError, match=r"needs 2 GPUs, the cluster has 1.*use_gpu = false"):
        preflight.preflight(
            config("cluster.use_gpu=true"), ALL
        )  # a GPU for training, one for the model it asks
    preflight.preflight(config("cluster.use_gpu=true", method="cross_entropy"), ALL)


def test_what_the_autoscaler_may_add_counts(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(0)
    one = config(annotator="knn", method="cross_entropy")
    with pytest.raises(ResourceError):
        preflight.preflight(one, ALL)
    most = {"CPU": 64, "GPU": 8}
    monkeypatch.setattr(ray._private.state.state, "get_max_resources_from_cluster_config", lambda: most)
    preflight.preflight(one, ALL)
    assert (cluster.cpu_count(), cluster.gpu_count(), trains_on_gpu(one.cluster)) == (64, 8, True)


def test_resources_that_others_hold_are_only_a_warning(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine(4)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.0})
    preflight.preflight(config(annotator="knn"), ALL)
    assert "of 4 in the cluster 1 are free now" in caplog.text


@pytest.mark.parametrize(
    ("path", "cpus", "gpus"), [("laptop", 4, 0), ("one-gpu", 8, 1), ("eight-gpus", 64, 6), ("mixed", 16, 3)]
)
def test_cluster_files_fit_the_clusters_they_are_named_after(
    path: str, cpus: int, gpus: int, machine: Machine
) -> None:
    assert {file.stem for file in FILES} == {"laptop", "one-gpu", "eight-gpus", "mixed"}
    machine(cpus, gpus)
    file = next(str(file) for file in FILES if file.stem == path)
    method = "cross_entropy" if path == "one-gpu" else "noiseal"  # as one-gpu.toml says
    preflight.preflight(config(file, method=method), ALL)
    assert set(read_values(file)) <= {"cluster", "predict"}
    machine(cpus, gpus - 1) if gpus else machine(1, 0)
    with pytest.raises(ResourceError):
        preflight.preflight(config(file, method=method), ALL)
