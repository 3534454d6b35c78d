"""Whether Ray is worth starting for a verb."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from rayclean.annotators.model_server import ModelServer, ServerOptions
from rayclean.config import ClusterConfig, Plugin, TrainingConfig, parse_config
from rayclean.errors import ConfigError
from rayclean.pipeline import open_run
from rayclean.runtime import auto_precision, engines, needs
from rayclean.runtime.engines import Workplace
from rayclean.runtime.needs import SMALL_SECONDS, VerbNeeds, is_worth_ray, needs_cluster
from rayclean.runtime.session import Session
from rayclean.training.job import DataSpec, ExampleSelection, FitJob, FitSpec
from rayclean.verbs import predict, train
from rayclean.verbs.compare_networks import comparison_needs
from tests import toy

SMALL, LARGE = VerbNeeds(seconds=SMALL_SECONDS), VerbNeeds(seconds=SMALL_SECONDS + 1)
SERVES = VerbNeeds(servers=(ModelServer("smollm2-135m", None, ServerOptions()),))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster, no GPU."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(needs, "is_on_cluster", lambda: False)
    monkeypatch.setattr(needs, "uses_gpu", lambda cluster: False)


@pytest.mark.parametrize(
    ("cluster", "verb", "on_ray"),
    [
        ({}, SMALL, False),
        ({}, LARGE, True),
        ({}, SERVES, True),
        ({"workers": 2}, SMALL, True),
        ({"max_workers": 2}, SMALL, True),
        ({"address": "auto"}, SMALL, True),
        ({"address": "local"}, SMALL, False),
        ({"ray": True}, SMALL, True),
        ({"ray": False}, LARGE, False),
    ],
)
def test_what_is_small_runs_in_this_process(
    cluster: dict[str, object], verb: VerbNeeds, on_ray: bool
) -> None:
    assert is_worth_ray(ClusterConfig(**cluster), verb) is on_ray


def test_a_gpu_is_worth_ray_to_verbs_that_run_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "uses_gpu", lambda cluster: True)
    assert not needs_cluster(ClusterConfig(), VerbNeeds())
    assert needs_cluster(ClusterConfig(), VerbNeeds(network=True))


@pytest.mark.parametrize(
    ("cluster", "verb"), [({"workers": 2}, SMALL), ({"address": "auto"}, SMALL), ({}, SERVES)]
)
def test_what_needs_ray_cannot_do_without(cluster: dict[str, object], verb: VerbNeeds) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.ray = false"):
        is_worth_ray(ClusterConfig(ray=False, **cluster), verb)


def test_a_session_of_small_verbs_connects_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "_connect", lambda *_: pytest.fail("it connects"))
    with Session(ClusterConfig(), "run", Workplace()) as session:
        session.prepare([SMALL, LARGE])
        assert not session.engines([SMALL, LARGE]).on_ray


@pytest.mark.parametrize(
    ("address", "said"),
    [(None, "starting Ray on this machine\n"), ("head:6379", "connecting to Ray at head:6379\n")],
)
def test_the_wait_for_ray_is_announced_once(
    address: str | None, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rayclean.runtime import cluster

    monkeypatch.setenv(needs.EMBEDDED, "1")  # the end of a connection removes it
    for name in ("_start_embedded", "_connect"):
        monkeypatch.setattr(cluster, name, lambda *_: None)
    for name in ("_watched_node", "told_if_killed", "core_handlers_left_out"):
        monkeypatch.setattr(cluster, name, lambda *_: nullcontext())
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    with cluster.connected(ClusterConfig(address=address)):
        assert capsys.readouterr().err == said
        monkeypatch.setattr(cluster.ray, "is_initialized", lambda: True)
        with cluster.connected(ClusterConfig(address=address)):
            assert capsys.readouterr().err == ""


def test_verbs_and_engines_neither_import_what_is_slow_nor_touch_the_environment() -> None:
    """Every command imports them, and each of these packages takes up to a second of its start."""
    code = (
        "import os, sys; before = dict(os.environ)\n"
        "import rayclean.runtime.session, rayclean.runtime.predict\n"
        "from rayclean.verbs import detect, evaluate, load, predict, relabel, train\n"
        "slow = ['ray', 'datasets', 'pandas', 'sklearn', 'scipy.stats', 'transformers', 'vllm']\n"
        "print([name for name in slow if name in sys.modules], sorted(name for name in os.environ if name.startswith(('RAY', 'TUNE', 'VLLM'))"
        " and name not in before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


HEAD = {"name": "transformer", "model": "minilm", "trainable": "head"}
WHOLE, BAG, LSTM = {"name": "transformer", "model": "minilm"}, {"name": "bag_of_words"}, {"name": "bilstm"}


@pytest.mark.parametrize(
    ("encoder", "method", "task", "small"),
    [
        (HEAD, {"name": "cross_entropy"}, "classification", True),
        (BAG, {"name": "cross_entropy"}, "multi_label", True),
        (WHOLE, {"name": "cross_entropy"}, "classification", False),
        (LSTM, {"name": "cross_entropy"}, "classification", False),
        (HEAD, {"name": "cross_entropy"}, "tagging", False),  # the body runs in every step
        (HEAD, {"name": "lane"}, "classification", True),
        (HEAD, {"name": "lane", "auxiliary": {**HEAD, "max_length": 64}}, "classification", False),  # its body, too
        (HEAD, {"name": "lane", "auxiliary": BAG}, "classification", True),
        (BAG, {"name": "noiseal", "weak": LSTM}, "classification", False),
    ],
)  # fmt: skip
def test_heads_and_bags_of_words_gain_nothing_by_a_gpu(
    encoder: dict[str, str], method: dict[str, Any], task: str, small: bool
) -> None:
    assert needs.is_small_training(Plugin(**encoder), Plugin(**method), Plugin(name=task)) is small


@pytest.mark.parametrize(
    ("encoder", "task", "reads"),
    [(HEAD, "classification", False), (HEAD, "tagging", True), (WHOLE, "classification", True)],
)
def test_features_that_predict_has_kept_cost_nothing_again(
    encoder: dict[str, str], task: str, reads: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """5,000 texts: Ray is worth starting for their transformer, not for a head on its features."""
    monkeypatch.setattr(needs, "loaded_examples", lambda run: 5000)
    values = toy.config(tmp_path, tmp_path / "runs") | {"encoder": encoder, "task": {"name": task}}
    config = parse_config(values)
    run = open_run(config)
    assert is_worth_ray(ClusterConfig(), predict.needs(config, run))
    for needed in (train.needs(config, run), comparison_needs(config, run)):
        assert is_worth_ray(ClusterConfig(), needed) is reads


@pytest.mark.parametrize(
    ("cluster", "encoder", "device"),
    [
        ({}, BAG, "cpu"),
        ({}, LSTM, "cuda"),
        ({"use_gpu": True}, BAG, "cuda"),
        ({"use_gpu": False}, LSTM, "cpu"),
    ],
)
def test_what_gains_nothing_trains_on_the_cpu_in_this_process(
    cluster: dict[str, Any],
    encoder: dict[str, str],
    device: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from rayclean.training import loop

    chosen: list[str] = []
    uses = cluster.get("use_gpu") is not False
    monkeypatch.setattr(auto_precision, "uses_gpu", lambda cluster: uses)
    monkeypatch.setattr(engines, "require_cuda", lambda: None)
    monkeypatch.setattr(loop, "fit", lambda job, spec, *, device, **_: chosen.append(device))
    spec = FitSpec(Plugin(**encoder), Plugin(name="cross_entropy"), TrainingConfig(), ("a", "b"))
    one = FitJob("one", DataSpec(str(tmp_path)), ExampleSelection(), 0, str(tmp_path / "out"))
    engines.Engines(ClusterConfig(**cluster))._fit_here([one], spec, lambda record: None, None)
    assert chosen == [device]
