"""What `auto` is, by the machines that work is placed on, and that keys say so."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rayclean.config import ClusterConfig, Plugin, PredictConfig
from rayclean.folder import Folder
from rayclean.runtime import auto_precision, cluster, nodes, predict
from rayclean.runtime.engines import Engines
from rayclean.training import loop
from rayclean.training.job import job_key
from tests.training.toys import job, spec, write_examples


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes the cluster believe in GPUs of some kinds."""

    def of(*kinds: str) -> None:
        monkeypatch.setattr(cluster, "gpu_count", lambda: len(kinds))
        marks = {f"accelerator_type:{kind}": 1.0 for kind in kinds}
        monkeypatch.setattr(nodes.ray, "cluster_resources", lambda: {"CPU": 4.0, **marks})

    return of


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [(("H100", "A100"), "bfloat16"), (("A100", "T4"), "float32"), (("V100",), "float32"), ((), "float32")],
)
def test_auto_is_what_all_gpus_compute_in(gpus: Any, kinds: tuple[str, ...], expected: str) -> None:
    gpus(*kinds)
    assert auto_precision.training_precision(ClusterConfig(), on_ray=True, small=False) == expected
    assert (
        auto_precision.training_precision(ClusterConfig(use_gpu=False), on_ray=True, small=False) == "float32"
    )
    # A head is trained on CPUs, unless the config asks for GPUs.
    assert auto_precision.training_precision(ClusterConfig(), on_ray=True, small=True) == "float32"
    if kinds:
        assert (
            auto_precision.training_precision(ClusterConfig(use_gpu=True), on_ray=True, small=True)
            == expected
        )
        assert auto_precision.inference_precision(ClusterConfig(), on_ray=True) == expected


@pytest.mark.parametrize("gains", [True, False])
def test_on_a_cpu_inference_takes_what_is_faster_and_training_float32(
    gains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayclean.models.precision.gains_by_bfloat16", lambda device: gains)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    engines = Engines()
    assert engines.inference_precision("auto") == ("bfloat16" if gains else "float32")
    assert engines.inference_precision("float32") == "float32"
    assert auto_precision.training_precision(engines.cluster, on_ray=False, small=False) == "float32"


def test_a_run_that_goes_on_elsewhere_does_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of a training and of kept features say what `auto` came to."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    examples, plans = write_examples(tmp_path / "examples", 30), []
    one, keys = job(examples, tmp_path / "out"), []
    fit = loop.fit

    def noted(job: Any, spec: Any, **rest: Any) -> Any:
        keys.append((spec.training.precision, job_key(job, spec)))
        return fit(job, spec, **rest)

    monkeypatch.setattr(loop, "fit", noted)
    monkeypatch.setattr(predict, "_run", lambda engines, plan, *rest: plans.append(plan))
    kept = Folder(str(tmp_path / "kept"))
    for precision in ("float32", "bfloat16"):
        for name in ("training_precision", "inference_precision"):
            monkeypatch.setattr(f"rayclean.runtime.auto_precision.{name}", lambda *_, found=precision: found)
        Engines().fit_jobs([one], spec(epochs=1), str(tmp_path / "ray"))
        predict.compute_features(
            Engines(), Folder(examples), Folder(str(tmp_path / "features")), Plugin(name="bag_of_words"), seed=0,
            config=PredictConfig(), kept=kept,
        )  # fmt: skip
    assert [precision for precision, _ in keys] == ["float32", "bfloat16"]
    assert [plan.precision for plan in plans] == ["float32", "bfloat16"]
    assert keys[0][1] != keys[1][1]
    assert plans[0].kept != plans[1].kept
