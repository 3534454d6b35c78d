"""What does not fit is refused before anything expensive, and the message says what to change."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from rayclean.annotators.model_server import ServerOptions
from rayclean.config import Config, parse_config
from rayclean.errors import ResourceError
from rayclean.overrides import read_values
from rayclean.run import Run
from rayclean.runtime import cluster, nodes, preflight
from rayclean.runtime.cluster import trains_on_gpu
from rayclean.runtime.trial_slots import trial_slots
from rayclean.verb_fingerprints import verb_module

import ray

ALL = ("load", "predict", "detect", "relabel", "train", "evaluate")
ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "cluster").glob("*.toml"))
Machine = Callable[..., None]


def pretend(
    patch: pytest.MonkeyPatch, cpus: float, gpus: float = 0, on: int = 1, labels: dict[str, str] | None = None
) -> None:
    """A joined cluster of so many CPUs and GPUs on so many equal nodes, all of them free."""
    total = {"CPU": float(cpus), "GPU": float(gpus)}
    each = {"Alive": True, "Resources": {"CPU": cpus / on, "GPU": gpus / on}, "Labels": labels or {}}
    patch.setattr(ray, "cluster_resources", lambda: total)
    patch.setattr(ray, "available_resources", lambda: total)
    patch.setattr(ray, "nodes", lambda: [each] * on)
    patch.delenv(cluster.EMBEDDED, raising=False)  # other tests of this process may have started a Ray


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`pretend`, where no autoscaler declares anything."""
    monkeypatch.delenv(nodes.DECLARED, raising=False)
    monkeypatch.delenv(cluster.EMBEDDED, raising=False)
    return functools.partial(pretend, monkeypatch)


def check(config: Config, verbs: Sequence[str]) -> None:
    """Preflight of verbs of a run that has not begun; load would look at its files, and holds nothing."""
    run = Run("nowhere")
    needs = [verb_module(verb).needs(config, run) for verb in verbs if verb != "load"]
    preflight.preflight(config.cluster, needs)


def config(*overrides: str, annotator: str = "served", method: str = "noiseal") -> Config:
    values = {"dataset": {"path": "x.csv"}, "annotator": {"name": annotator}, "method": {"name": method}}
    return parse_config(values, overrides)


def test_training_alone(machine: Machine) -> None:
    machine(4)
    check(config("cluster.workers=3", annotator="knn"), ALL)
    with pytest.raises(ResourceError, match=r"needs 5 CPUs, the cluster has 4.*lower cluster.workers"):
        check(config("cluster.workers=4", annotator="knn"), ALL)


def test_the_language_model_alone_and_beside_a_method_that_asks(machine: Machine) -> None:
    machine(4)
    check(config(), ALL)
    alone = config("cluster.workers=2", "cluster.llm.replicas=3", method="cross_entropy")
    check(alone, ALL)  # one after the other
    together = config("cluster.workers=2", "cluster.llm.replicas=3")
    check(together, ("load", "predict"))  # asks nobody yet
    with pytest.raises(ResourceError, match=r"training on .*, with the language model on .*needs 7 CPUs"):
        check(together, ALL)
    with pytest.raises(
        ResourceError, match=r"the language model on 4 x 1 CPUs.*needs 5 CPUs, the cluster has 4"
    ):
        check(config("cluster.llm.replicas=4", method="cross_entropy"), ALL)


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
        check(config("cluster.llm.tensor_parallel=2", "cluster.llm.gpu=true"), ALL)
    with pytest.raises(ResourceError, match=r"needs 2 GPUs, the cluster has 1.*use_gpu = false"):
        check(config("cluster.use_gpu=true"), ALL)  # a GPU for training, one for the model it asks
    check(config("cluster.use_gpu=true", method="cross_entropy"), ALL)


def test_a_model_shares_a_gpu_with_the_training_that_asks_it(machine: Machine) -> None:
    machine(8, 1)
    training = ("cluster.use_gpu=true", "cluster.gpus_per_worker=0.5")
    check(config(*training, "cluster.llm.gpu_share=0.4"), ALL)
    check(config(*training, "annotator.server.gpu_share=0.5"), ALL)
    with pytest.raises(ResourceError, match=r"on 1 x 0.6 GPUs: needs 1.1 GPUs, the cluster has 1.*gpu_share"):
        check(config(*training, "cluster.llm.gpu_share=0.6"), ALL)
    with pytest.raises(ResourceError, match=r"on 2 x 0.4 GPUs: needs 1.3 GPUs"):
        check(config(*training, "cluster.llm.gpu_share=0.4", "cluster.llm.replicas=2"), ALL)


def test_elastic_training_must_fit_beside_all_replicas(machine: Machine) -> None:
    machine(16, 4)
    growing = ("cluster.use_gpu=true", "cluster.llm.replicas=1", "cluster.llm.max_replicas=4")
    check(config(*growing), ALL)
    preflight.preflight_sweep([config(*growing)], trains=True)
    elastic = config(*growing, "cluster.max_workers=3")
    with pytest.raises(ResourceError, match=r"language model on 4 x 1 GPUs: needs 5 GPUs, the cluster has 4"):
        check(elastic, ALL)
    with pytest.raises(ResourceError, match=r"language model on 4 x 1 GPUs: needs 5 GPUs, the cluster has 4"):
        preflight.preflight_sweep([elastic], trains=True)
    check(config(*growing, "cluster.max_workers=3", "cluster.llm.max_replicas=3"), ALL)


def test_a_server_is_counted_as_it_is_reserved(machine: Machine) -> None:
    """Its engines, and on GPUs a process of the HTTP side for each."""
    machine(16, 4)
    shared, split = ServerOptions(replicas=2, gpu_share=0.4), ServerOptions(replicas=2, tensor_parallel=2)
    held = {name: preflight.server_demand(each) for name, each in (("shared", shared), ("split", split))}
    assert {name: (each.cpus, each.gpus) for name, each in held.items()} == {
        "shared": (4, 0.8),
        "split": (4, 4),
    }
    on_cpus = preflight.server_demand(ServerOptions(replicas=3, gpu=False, cpus=2))
    assert (on_cpus.cpus, on_cpus.gpus) == (7, 0)


def test_networks_that_read_texts_are_looked_at_beforehand(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a verb that trains nothing, too, whose actors would wait in silence."""
    given = config("predict.mode=model", "predict.model=x", annotator="knn")
    machine(0)
    with pytest.raises(ResourceError, match=r"networks that read texts: needs 1 CPUs, the cluster has 0"):
        check(given, ("load", "predict"))
    machine(8, 1)
    check(given, ("load", "predict", "detect"))
    assert not caplog.messages
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 8.0})
    check(given, ("load", "predict", "detect"))
    (said,) = caplog.messages
    assert (
        "networks that read texts on a share of a GPU: needs 0.333333 GPUs; of 1 in the cluster 0 are free"
        in said
    )


HEAD = ("encoder.name=transformer", "encoder.model=minilm", "encoder.trainable=head")


def test_heads_take_a_gpu_only_where_the_config_asks(machine: Machine) -> None:
    machine(16, 1)
    head, asked, whole = (
        config(*HEAD, method="cross_entropy"),
        config(*HEAD, "cluster.use_gpu=true", method="cross_entropy"),
        config("encoder.name=bilstm", method="cross_entropy"),
    )
    for each, gpus in ((head, 0.0), (asked, 1.0), (whole, 1.0)):
        small = preflight.trains_small([each])
        assert preflight.training_demand(each.cluster, small).gpus == gpus
        slots = trial_slots(each.cluster, trains=True, concurrent=None, cpus=0.1, trials=50, small=small)
        assert slots.concurrent == (1 if gpus else 14)
    needs = verb_module("train").needs(head, Run("nowhere"))
    assert needs.small
    check(
        config(*HEAD, "annotator.server.gpu=true", "method.weak={name='bag_of_words'}"), ALL
    )  # a GPU for the model it asks


def test_a_sweep_of_heads_beside_a_model_on_the_only_gpu(machine: Machine) -> None:
    machine(16, 1)
    served = config(*HEAD, "annotator.server.gpu=true", method="cross_entropy")
    preflight.preflight_sweep([served], trains=True, networks=False)
    with pytest.raises(
        ResourceError, match=r"networks that read texts on a share of a GPU.*cluster.use_gpu = false"
    ):
        preflight.preflight_sweep([served], trains=True)
    alone = config(*HEAD, "annotator.server.gpu=true", "cluster.use_gpu=false", method="cross_entropy")
    preflight.preflight_sweep([alone], trains=True)


def test_a_training_that_gets_none_of_too_few_gpus_is_told(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    wide = config("encoder.name=bilstm", "cluster.workers=3", annotator="knn", method="cross_entropy")
    machine(16, 2)
    check(wide, ALL)
    (said,) = caplog.messages
    assert "3 x 1 GPUs are more than the 2 of the cluster, so it runs on CPUs: lower cluster.workers" in said
    caplog.clear()
    machine(16, labels={nodes.GROUP: "cpu"})  # an autoscaler that may add some, for all that is known
    check(wide, ALL)
    assert "more than the 0 of the cluster" in caplog.messages[0]
    preflight.preflight_sweep([wide], trains=True)
    assert "more than the 0 of the cluster" in caplog.messages[-1]
    caplog.clear()
    for cpus, gpus, quiet in (
        (16, 3, wide),
        (16, 0, wide),
        (16, 2, config(*HEAD, "cluster.workers=3", annotator="knn", method="cross_entropy")),
        (
            16,
            2,
            config("cluster.workers=3", "cluster.use_gpu=false", annotator="knn", method="cross_entropy"),
        ),
    ):
        machine(cpus, gpus)
        check(quiet, ("train",))
        assert not [said for said in caplog.messages if "runs on CPUs" in said]


def test_batches_too_small_for_several_gpus_are_told(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine(16, 4)
    lstm, four = "encoder.name=bilstm", "cluster.workers=4"
    check(config(lstm, four, annotator="knn", method="cross_entropy"), ALL)
    (said,) = caplog.messages  # once, not once a verb
    assert "a batch of 32 rows gives each of 4 GPUs 8" in said
    assert "batch_size = 128" in said
    caplog.clear()
    large = ("train.batch_size=128", "predict.training.batch_size=128")
    for quiet in (
        config(lstm, annotator="knn", method="cross_entropy"),
        config(lstm, four, *large, annotator="knn", method="cross_entropy"),
        config(lstm, four, "cluster.use_gpu=false", annotator="knn", method="cross_entropy"),
        config(*HEAD, four, annotator="knn", method="cross_entropy"),
    ):
        check(quiet, ALL)
    assert not caplog.messages
    preflight.preflight_sweep([config(lstm, four, annotator="knn")] * 2, trains=True)
    assert len(caplog.messages) == 1


def test_what_an_autoscaler_may_add_counts_where_it_is_declared(
    ray_embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real Ray, which has no GPU."""
    big = config("cluster.workers=20", "cluster.use_gpu=true", annotator="knn", method="cross_entropy")
    with pytest.raises(ResourceError, match="needs 21 CPUs, the cluster has 4"):
        check(big, ALL)
    monkeypatch.setenv(nodes.DECLARED, "3xCPU:8, 4xCPU:16+GPU:8")
    check(big, ALL)
    assert (cluster.cpu_count(), cluster.gpu_count(), trains_on_gpu(big.cluster)) == (88, 32, True)
    monkeypatch.setenv(nodes.DECLARED, "1xCPU:1")
    assert (cluster.cpu_count(), cluster.gpu_count()) == (4, 0)  # what is there is there
    monkeypatch.setenv(nodes.DECLARED, "8 nodes")
    with pytest.raises(ResourceError, match=r"cannot read '8 nodes' in RAYCLEAN_MAX_NODES.*8xCPU:8"):
        cluster.cpu_count()


def pods(name: str) -> list[tuple[str, dict[str, str]]]:
    """The environment of every pod of a rendered cluster."""
    (spec,) = [d["spec"] for d in yaml.safe_load_all((ROOT / "cluster" / "kuberay" / name).read_text())]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    return [(c["name"], {entry["name"]: entry.get("value") for entry in c["env"]}) for c in containers]


def test_a_gpu_run_may_start_on_our_own_manifests_before_any_gpu_node_is_there(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(8)
    mixed = config(str(ROOT / "configs" / "cluster" / "mixed.toml"))
    with pytest.raises(ResourceError, match="the cluster has 0"):
        check(mixed, ALL)
    assert not nodes.autoscales()
    for _, environment in pods("raycluster.yaml"):  # trials of a sweep look from worker nodes, too
        monkeypatch.setenv(nodes.DECLARED, environment[nodes.DECLARED])
        assert nodes.autoscales()
        check(mixed, ALL)
        assert (cluster.cpu_count(), cluster.gpu_count()) == (128, 8)


def test_an_autoscaler_of_unknown_limits_is_only_a_warning(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine(4, labels={"ray.io/node-group": "cpu"})
    check(config("cluster.workers=8", annotator="knn"), ALL)
    assert "needs 9 CPUs, the cluster has 4 now" in caplog.text
    assert "RAYCLEAN_MAX_NODES=" in caplog.text


@pytest.mark.slow
@pytest.mark.ray
def test_nodes_of_a_launcher_are_told_by_their_label() -> None:
    """KubeRay and `ray up` name the node's kind in its environment, and Ray puts it where `may_grow_further` looks."""
    code = (
        "from rayclean.config import ClusterConfig; from rayclean.runtime import cluster, nodes; import json\n"
        "with cluster.connected(ClusterConfig(cpus=1)): print(json.dumps(nodes.may_grow_further()))"
    )
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RAY")}
    named = {**plain, "RAY_NODE_TYPE_NAME": "head"}
    done = subprocess.run([sys.executable, "-c", code], env=named, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is True
    # Without it (the Ray that all tests share) nothing is said to grow: the tests above are refused.


def test_each_process_must_fit_on_some_node(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine(16, 4, on=4)
    wide = config("cluster.cpus_per_worker=8", annotator="knn", method="cross_entropy")
    with pytest.raises(
        ResourceError,
        match=r"needs 8 CPUs and 1 GPUs on one node, the nodes have 4 CPUs and 1 GPUs.*cpus_per_worker",
    ):
        check(wide, ALL)
    monkeypatch.setenv(nodes.DECLARED, "1xCPU:16,2xCPU:4+GPU:1")  # CPUs and GPUs, but not together
    with pytest.raises(ResourceError, match="16 CPUs"):
        check(wide, ALL)
    monkeypatch.setenv(nodes.DECLARED, "1xCPU:8+GPU:1")
    check(wide, ALL)
    monkeypatch.delenv(nodes.DECLARED)
    engine = config("annotator.server.cpus=6", "cluster.llm.gpu=false", method="cross_entropy")
    with pytest.raises(ResourceError, match=r"language model .*needs 6 CPUs on one node.*server.cpus"):
        check(engine, ALL)
    spread = config("cluster.llm.tensor_parallel=4", "cluster.llm.gpu=true", method="cross_entropy")
    check(spread, ALL)
    assert "no node has the 4 GPUs of cluster.llm.tensor_parallel" in caplog.text


def test_resources_that_others_hold_are_only_a_warning(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine(4)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.0})
    check(config(annotator="knn"), ALL)
    assert "of 4 in the cluster 1 are free now" in caplog.text


@pytest.mark.parametrize(
    ("path", "cpus", "gpus"),
    [("laptop", 4, 0), ("one-gpu", 8, 1), ("one-gpu-shared", 8, 1), ("eight-gpus", 64, 3), ("mixed", 16, 3)],
)
def test_cluster_files_fit_the_clusters_they_are_named_after(
    path: str, cpus: int, gpus: int, machine: Machine
) -> None:
    assert {file.stem for file in FILES} == {"laptop", "one-gpu", "one-gpu-shared", "eight-gpus", "mixed"}
    machine(cpus, gpus)
    file = next(str(file) for file in FILES if file.stem == path)
    method = "cross_entropy" if path == "one-gpu" else "noiseal"  # as one-gpu.toml says
    check(config(file, method=method), ALL)
    assert set(read_values(file)) <= {"cluster", "predict"}
    machine(cpus, gpus - 1) if gpus else machine(1, 0)
    with pytest.raises(ResourceError):
        check(config(file, method=method), ALL)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("later", [False, True], ids=["there", "declared"])
def test_shipped_sizes_train_heads_on_cpus_and_other_networks_on_gpus(
    file: Path, later: bool, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(64, 0 if later else 8)
    if later:  # no GPU node yet
        monkeypatch.setenv(nodes.DECLARED, "8xCPU:8+GPU:1")
    run, whole = Run("nowhere"), (*HEAD[:2], "encoder.trainable=all")
    for encoder, gpus in ((HEAD, False), (("encoder.name=bag_of_words",), False), (whole, True)):
        each = config(str(file), *encoder, annotator="knn", method="cross_entropy")
        demand = preflight.training_demand(each.cluster, verb_module("train").needs(each, run).small)
        assert demand.gpus == (each.cluster.gpus_per_worker if gpus and file.stem != "laptop" else 0)
