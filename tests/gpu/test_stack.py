"""Ray, vLLM and training together, on GPUs: `pytest -m gpu tests/gpu` in the GPU image or after `make install GPU=1`.

Every test also has a size for CPUs, which `make test-slow` runs: what is written here for GPUs is run somewhere. Tests for two
GPUs are skipped where there is one. Rates are written down (`record_property`, and the JSON of B5), never asserted.
"""

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from rayclean.annotators.model_server import ServerOptions
from rayclean.annotators.model_source import model_source
from rayclean.annotators.query import Annotation, Query
from rayclean.annotators.served import ServedAnnotator
from rayclean.config import ClusterConfig, Plugin
from rayclean.errors import ConfigError
from rayclean.run import Run
from rayclean.runtime import serve
from rayclean.runtime.engines import Engines
from rayclean.runtime.needs import EMBEDDED
from rayclean.schema import Candidate, Label
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.sweep import run_sweep
from rayclean.training.loop import fit
from tests import toy
from tests.gpu.training_checks import METHODS, largest_difference, toys
from tests.training.toys import ACCUMULATING, SELF_KILLING, job, write_examples

pytestmark = [pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
SEEN = torch.cuda.device_count() if torch.cuda.is_available() else 0
CONFIGS = ROOT / "configs"
LABELS = [Label(0, "business", "business"), Label(1, "sport", "sports"), Label(2, "harbour", "sea port")]
TEXTS = (
    "The striker scored twice in the cup final and the crowd sang until midnight.",
    "Shares fell by four percent after the bank cut its forecast for the year.",
    "The cranes at the quay unloaded the first container ship of the morning.",
)


@dataclass(frozen=True)
class Hardware:
    """What a test runs on."""

    gpus: int
    """GPUs that it needs; 0: it runs on CPUs."""

    @property
    def gpu(self) -> bool:
        return self.gpus > 0

    @property
    def dtype(self) -> str:
        """Of a language model: few CPUs are fast in bfloat16."""
        return "bfloat16" if self.gpu else "float32"

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    def cluster(self, **values: Any) -> ClusterConfig:
        return ClusterConfig(use_gpu=self.gpu, **values)


def sizes(gpus: int = 1, *marks: pytest.MarkDecorator) -> pytest.MarkDecorator:
    """A test runs on so many GPUs, and as a slow test on CPUs; further marks hold for both."""
    missing = f"needs {gpus} GPUs, PyTorch {torch.__version__} sees {SEEN}"
    has_them = pytest.mark.skipif(gpus > SEEN, reason=missing)  # before a Ray is started
    cpu = pytest.param(Hardware(0), id="cpu", marks=[pytest.mark.slow, *marks])
    gpu = pytest.param(Hardware(gpus), id=f"{gpus}-gpu", marks=[pytest.mark.gpu, has_them, *marks])
    return pytest.mark.parametrize("hardware", [cpu, gpu], indirect=True)


LLM = pytest.mark.llm
OWN_RAY = pytest.mark.ray


@pytest.fixture
def hardware(request: pytest.FixtureRequest) -> Hardware:
    """Skips where there is no language model that could be served."""
    found: Hardware = request.param
    if request.node.get_closest_marker("llm"):
        pytest.importorskip("vllm")
        try:
            model_source("smollm2-135m")
        except ConfigError as error:
            pytest.skip(error.message)
    return found


def environment(**values: str) -> dict[str, str]:
    """The environment of a command that starts a Ray of its own."""
    ours = ("RAY_", EMBEDDED)  # of a Ray that earlier tests have started
    plain = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return {**plain, "RAY_worker_niceness": "0", "PYTHONPATH": str(ROOT), **values}


def rayclean_command(*arguments: str) -> str:
    """What a command prints; it must succeed."""
    command = [sys.executable, "-m", "rayclean", *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=1500, cwd=ROOT)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout + done.stderr


# -- B1: the engine ------------------------------------------------------------------------------------------------


def served(hardware: Hardware, **options: Any) -> ServedAnnotator:
    server = ServerOptions(dtype=hardware.dtype, gpu=hardware.gpu)
    values = {"concurrency": 8, "deadline": 900, "health_timeout": 300, "server": server, **options}
    return ServedAnnotator(ServedAnnotator.Config(**values), LABELS)


def questions(count: int) -> list[Query]:
    candidates = tuple(map(Candidate.of, LABELS))
    return [Query(i, f"{TEXTS[i % len(TEXTS)]} ({i})", candidates) for i in range(count)]


async def asked(annotator: ServedAnnotator, queries: list[Query]) -> list[Annotation]:
    """Answers, after the probe that `start` makes."""
    await annotator.start()
    try:
        return [answer for query in queries for answer in await annotator.annotate([query])]
    finally:
        await annotator.close()


def log_probabilities(annotator: ServedAnnotator, query: Query) -> list[float]:
    """Of each candidate's word after the prompt, by Transformers on the CPU in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_source("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
    prompt = annotator.prompt.render(query)
    start = len(tokenizer(prompt)["input_ids"])
    found = []
    for candidate in query.candidates:
        ids = torch.tensor([tokenizer(f"{prompt} {candidate.word}")["input_ids"]])
        with torch.inference_mode():
            logs = model(ids).logits.float().log_softmax(-1)[0]
        found.append(sum(logs[i - 1, ids[0, i]].item() for i in range(start, ids.shape[1])))
    return found


@sizes(1, LLM)
def test_the_engine_starts_and_scores_are_the_model_s_own(
    hardware: Hardware, ray_embedded: None, record_property: Any
) -> None:
    """B1: its probe passes, scores are within rounding of what Transformers computes, and it chooses from a list."""
    words, choice = served(hardware), served(hardware, form="choice")
    queries = questions(6)
    with serve.hosting([words]) as endpoints:
        with serve.hosted(words, endpoints=endpoints) as running:
            assert isinstance(running, ServedAnnotator)
            answers = asyncio.run(asked(running, queries))
        with serve.hosted(choice, endpoints=endpoints) as running:
            assert isinstance(running, ServedAnnotator)
            chosen = asyncio.run(asked(running, queries))
    assert [answer.error for answer in [*answers, *chosen] if answer.error] == []
    apart = [
        abs(score - expected)
        for query, answer in zip(queries, answers, strict=True)
        for score, expected in zip(answer.scores, log_probabilities(words, query), strict=True)
    ]
    assert len(apart) == len(queries) * len(LABELS)
    record_property("apart", max(apart))
    assert max(apart) <= (
        0.15 if hardware.gpu else 0.01
    )  # log-probabilities are about -5; bfloat16 has 8 bits
    assert all(answer.choice in (None, 0, 1, 2) and answer.raw for answer in chosen)


# -- B2: the quickstart --------------------------------------------------------------------------------------------


@sizes(1, OWN_RAY)
def test_the_quickstart_from_end_to_end(hardware: Hardware, tmp_path: Path) -> None:
    """B2: all six verbs on one GPU; on CPUs a vote of neighbours answers, as the model would take a quarter of an hour."""
    values = tomllib.loads((CONFIGS / "quickstart.toml").read_text())
    values["output"] = str(tmp_path / "runs")
    if hardware.gpu:
        values["annotator"]["server"]["dtype"] = hardware.dtype
    else:
        values["annotator"], values["relabel"] = {"name": "knn"}, {}
    (tmp_path / "quickstart.json").write_text(json.dumps(values))
    size = CONFIGS / "cluster" / ("one-gpu.toml" if hardware.gpu else "laptop.toml")
    rayclean_command("clean", str(tmp_path / "quickstart.json"), str(size))
    run = Run(str(tmp_path / "runs" / "quickstart"))
    metrics = run.read_json("metrics.json")
    assert metrics["noise"]["final"] < (0.3 if hardware.gpu else 0.85) * metrics["noise"]["given"]
    assert metrics["harm"] < 0.05
    assert run.exists("report.html")


# -- B3, and two GPUs: training on Ray -----------------------------------------------------------------------------


def trained_alone(hardware: Hardware, examples: str, folder: Path, name: str) -> Any:
    one = job(examples, folder / f"{name}-alone", keep_last=True)
    how = toys(Plugin(name=ACCUMULATING) if name == "accumulating" else METHODS[name], epochs=4)
    fit(one, how, device=hardware.device)
    return one


def killed(hardware: Hardware, workers: int, folder: Path) -> float:
    """The largest difference between a training whose worker is killed once, and one alone that nobody kills."""
    examples = write_examples(folder / "examples", 37, dev=10)
    one = job(examples, folder / "killed", keep_last=True)
    method = Plugin(name=SELF_KILLING, marker=str(folder / "marker"))
    engines = Engines(hardware.cluster(workers=workers), on_ray=True)
    results = engines.fit_jobs([one], toys(method, epochs=4), str(folder / "work"))
    assert (folder / "marker").exists()
    assert results["toy"].workers == workers
    alone = trained_alone(hardware, examples, folder, "accumulating")
    return largest_difference(alone, one, 1e-5)


@sizes(1)
def test_a_killed_worker_changes_nothing(hardware: Hardware, tmp_path: Path, ray_embedded: None) -> None:
    """B3: it goes on at its last epoch, and leaves what an unkilled training leaves."""
    killed(hardware, 1, tmp_path)


@sizes(2)
def test_a_killed_rank_of_two_changes_nothing(hardware: Hardware, tmp_path: Path, ray_embedded: None) -> None:
    """Its peer is told, both start again."""
    killed(hardware, 2, tmp_path)


@sizes(2)
@pytest.mark.parametrize("name", ["noiseal", "lane"])
def test_two_workers_are_as_one(name: str, hardware: Hardware, tmp_path: Path, ray_embedded: None) -> None:
    """Over NCCL on two GPUs, over gloo on CPUs: the same state to 1e-5."""
    examples = write_examples(tmp_path / "examples", 37, dev=10, noise=0.2, longest=15)
    one = job(examples, tmp_path / "two", keep_last=True)
    engines = Engines(hardware.cluster(workers=2), on_ray=True)
    result = engines.fit_jobs([one], toys(METHODS[name], epochs=4), str(tmp_path / "work"))["toy"]
    assert result.workers == 2
    largest_difference(trained_alone(hardware, examples, tmp_path, name), one, 1e-5)


NODE = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": int(sys.argv[1]), "include_dashboard": False})
cluster.wait_for_nodes()
print(cluster.address, flush=True)
time.sleep(3600)  # longer than any test
"""
BESIDE = """
import json, sys, time
import rayclean.runtime.environment
import ray
from pathlib import Path
from rayclean.config import ClusterConfig
from rayclean.runtime.engines import Engines
from rayclean.runtime.needs import EMBEDDED
from rayclean.runtime.served_resources import counted_as_taken
from tests.training.toys import job, spec, write_examples
folder, held, gpu = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] == "1"
ray.init(address="auto", log_to_driver=False)
@ray.remote
class Model:
    def up(self):
        return True
model = Model.options(num_cpus=held["CPU"], num_gpus=held.get("GPU", 0)).remote()
ray.get(model.up.remote())
one = job(write_examples(folder / "examples", 40), folder / "out")
engines = Engines(ClusterConfig(workers=1, max_workers=2, use_gpu=gpu), on_ray=True)
with counted_as_taken("stub", lambda: [held]):
    time.sleep(2)
    result = engines.fit_jobs([one], spec(epochs=1), str(folder / "work"))["toy"]
print(json.dumps({"epochs": result.epochs, "workers": result.workers}))
"""


@contextmanager
def node(gpus: int) -> Iterator[dict[str, str]]:
    """A cluster of one node in a process of its own; the environment that leads there."""
    own = environment(RAY_AUTH_MODE="disabled", RAY_ENABLE_UV_RUN_RUNTIME_ENV="0")
    process = subprocess.Popen(
        [sys.executable, "-c", NODE, str(gpus)], stdout=subprocess.PIPE, text=True, env=own
    )
    try:
        assert process.stdout is not None
        yield {**own, "RAY_ADDRESS": process.stdout.readline().strip()}
    finally:
        process.kill()


@sizes(2, OWN_RAY)
def test_elastic_training_leaves_a_model_its_gpu(hardware: Hardware, tmp_path: Path) -> None:
    """Two workers would fit if the model's GPU were free; on CPUs the model holds three of four, and one is left."""
    held = {"CPU": 1.0, "GPU": 1.0} if hardware.gpu else {"CPU": 3.0}
    with node(hardware.gpus) as own:
        command = [sys.executable, "-c", BESIDE, str(tmp_path), json.dumps(held), str(int(hardware.gpu))]
        done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"epochs": 1, "workers": 1}


# -- B4, B6: a method that asks, a sweep ---------------------------------------------------------------------------


def toy_config(hardware: Hardware, folder: Path, rows: int, **cluster: Any) -> dict[str, Any]:
    """Toy data, a bag of words, and the served language model."""
    values = toy.config(toy.write(folder / "data", rows=rows), folder / "runs")
    server = {
        "dtype": hardware.dtype,
        "gpu": hardware.gpu,
        "engine_kwargs": {"enforce_eager": True},
    }  # compiling takes longer
    values["annotator"] = {"name": "served", "concurrency": 8, "server": server}
    values["evaluate"] = {"compare": False}
    values["cluster"] = {"ray": True, "use_gpu": hardware.gpu, **cluster}
    return values


@sizes(1, LLM, OWN_RAY)
def test_noiseal_asks_its_model_while_it_trains(hardware: Hardware, tmp_path: Path) -> None:
    """B4: training and model on one GPU, a share each."""
    cluster: dict[str, Any] = {"cpus": 4}
    if hardware.gpu:
        cluster |= {"gpus_per_worker": 0.5, "llm": {"gpu_share": 0.4}}
    values = toy_config(hardware, tmp_path, 120, **cluster)
    # Low thresholds after one epoch: some are purified, and asked about.
    values["method"] = {
        "name": "noiseal", "weak": {"name": "bilstm", "buckets": 500, "embedding": 16, "hidden": 16}, "warmup_epochs": 1,
        "threshold": "fixed", "fixed_threshold": 0.35, "max_queries": 10, "demonstrations": 2,
    }  # fmt: skip
    values["train"] = {"labels": "given", "epochs": 3, "learning_rate": 0.05}
    # A method asks whom control questions have shown to be better than chance.
    values["relabel"] = {"demonstrations": 1, "controls": 30}
    (tmp_path / "config.json").write_text(json.dumps(values))
    for verb in ("load", "predict", "detect", "relabel", "train"):
        rayclean_command(verb, str(tmp_path / "config.json"))
    run = Run(str(tmp_path / "runs" / "toy"))
    lines = [json.loads(line) for line in run.read_text("train", "metrics.jsonl").splitlines()]
    assert len(lines) == 3
    assert sum(line.get("asked", 0) for line in lines) > 0


@sizes(1, LLM)
def test_a_sweep_with_a_served_model_ends(hardware: Hardware, tmp_path: Path, ray_embedded: None) -> None:
    """B6: trials share the model; those that predict and train beside it get their part, and none starves."""
    shares = {"gpus_per_worker": 0.25, "workers": 1} if hardware.gpu else {}
    values = toy_config(hardware, tmp_path, 120, **shares)
    values["predict"] = {"mode": "in_sample", "training": {"epochs": 1}}
    values["encoder"] = {"name": "bilstm", "buckets": 500, "embedding": 16, "hidden": 16}
    (tmp_path / "base.json").write_text(json.dumps(values))
    one = Sweep(
        name="toy", base=str(tmp_path / "base.json"), output=str(tmp_path / "sweeps"), seeds=[0],
        space={"detect.budget": {"grid": [0.05, 0.1]}, "train.epochs": {"grid": [1, 2]}},
        objectives="dev_accuracy", tracking={"wandb": "off"},
    )  # fmt: skip
    results = run_sweep(one)
    assert results.failed == {}
    assert len(results.rows) == 4
    assert all("dev_accuracy" in row.figures for row in results.rows)


# -- B5: questions per second --------------------------------------------------------------------------------------


@sizes(1, LLM, OWN_RAY)
def test_questions_per_second_are_written_down(
    hardware: Hardware, tmp_path: Path, record_property: Any
) -> None:
    """B5: at 32, 256 and 1,024 questions under way."""
    output = tmp_path / "questions.json"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "gpu.py"),
        "--only",
        "questions",
        "--output",
        str(output),
    ]
    command += [] if hardware.gpu else ["--small"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=1500, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-6000:]
    rates = json.loads(output.read_text())["figures"]["questions"]
    assert list(rates) == (["32", "256", "1024"] if hardware.gpu else ["2"])
    assert all(rate > 0 for rate in rates.values())
    record_property("questions_per_second", json.dumps(rates))
