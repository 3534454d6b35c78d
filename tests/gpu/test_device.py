"""The checks of a device: on a GPU where there is one, small on the CPU, and each of them sees a planted fault."""

import ast
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rayclean.functional.neighbours import NearestNeighbours
from rayclean.models import inference
from rayclean.models.bilstm import BiLSTMEncoder
from rayclean.models.transformer import TransformerEncoder
from rayclean.training.collectives import Collectives, Distributed
from rayclean.training.steps import agree_on_job
from tests.gpu import device, training_checks
from tests.gpu.place import Check, CheckFailedError, CheckSkippedError, Figures, Place
from tests.training.toys import ToyEncoder

ROOT = Path(__file__).parents[2]
BY_NAME = {check.name: check for check in device.CHECKS}
QUICK = ("A3", "A6", "A8", "A10", "A11")
"""A second or so each, on one core; the others take many small steps."""
QUICK_FAULTS = ("A3", "A8", "A10", "A11")


@pytest.mark.gpu
@pytest.mark.parametrize("name", BY_NAME)
def test_on_a_gpu(name: str, on_gpu: Place, record_property: Callable[[str, object], None]) -> None:
    figures: Figures = {}
    try:
        BY_NAME[name].run(on_gpu, figures)
    finally:
        record_property("figures", json.dumps(figures, default=str))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in BY_NAME]
)
def test_small_on_the_cpu(name: str, on_cpu: Place) -> None:
    """What needs a GPU to be measured is run as well, and then skipped."""
    figures: Figures = {}
    try:
        BY_NAME[name].run(on_cpu, figures)
    except CheckSkippedError:
        assert name in ("A6", "A9")
    else:
        assert figures


# -- planted faults ------------------------------------------------------------------------------------------------


class Drifting:
    """A function of a network whose results drift from call to call, as if the second device computed something else."""

    def __init__(self, function: Any):
        self.function, self.calls = function, 0

    def __get__(self, network: Any, owner: Any) -> Any:
        def call(batch: dict[str, Tensor]) -> Tensor:
            self.calls += 1
            drifted: Tensor = self.function(network, batch) + 0.002 * self.calls
            return drifted

        return call


def half_lstm(self: BiLSTMEncoder, batch: dict[str, Tensor]) -> Tensor:
    """What a network would do whose LSTM runs in the precision of autocast."""
    embedded = self.embedding(self.rows(batch["input_ids"]))
    states, _ = self.lstm(embedded)
    return torch.cat([states.mean(1), states.amax(1)], -1)


def coarse(self: TransformerEncoder, batch: dict[str, Tensor]) -> Tensor:
    """Features that lose nearly all digits where autocast is on."""
    features = ENCODE(self, batch)
    if not torch.is_autocast_enabled("cpu"):
        return features
    return features + features.abs().mean() * torch.sin(torch.arange(features.shape[-1]))


ENCODE = TransformerEncoder.encode


def warn_of_waiting(*_: Any, **__: Any) -> dict[str, float]:
    """As PyTorch does for every copy to the CPU."""
    for _number in range(1000):
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
    return {"answered": 0}


Plant = Callable[[pytest.MonkeyPatch], None]


def drifting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ToyEncoder, "encode", Drifting(ToyEncoder.encode))


def forgetful(patch: pytest.MonkeyPatch) -> None:
    """Optimisers begin anew where a training goes on."""
    patch.setattr(torch.optim.AdamW, "load_state_dict", lambda self, state: None)


def rounding(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Distributed, "sum", lambda self, values: torch.tensor(values, dtype=torch.float32).numpy())


def waiting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("rayclean.methods.base.Method.summary", warn_of_waiting)


def large(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(training_checks, "MOST_GIB", -1.0)
    patch.setattr(Place, "cuda", True)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        patch.setattr(torch.cuda, name, lambda: None)
    patch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)


def wrong_neighbours(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(NearestNeighbours, "cosines", property(lambda self: self.steps * 0.0))


def not_finite(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inference, "LOWEST_LOGIT", float("nan"))
    patch.setattr(TransformerEncoder, "encode", lambda self, batch: ENCODE(self, batch) * float("nan"))


FAULTS: dict[str, Plant] = {
    "A1": drifting,
    "A2": forgetful,
    "A3": rounding,
    "A4": drifting,
    "A5": lambda patch: patch.setattr(BiLSTMEncoder, "encode", half_lstm),
    "A6": waiting,
    "A7": lambda patch: patch.setattr("benchmarks.train_overhead.fit", lambda *_, **__: None),
    "A8": not_finite,
    "A9": large,
    "A10": lambda patch: patch.setattr(TransformerEncoder, "encode", coarse),
    "A11": wrong_neighbours,
}
MESSAGES: dict[str, str | None] = {
    "A1": "apart|differ|right", "A2": "apart|differ|right", "A3": "sum", "A4": "apart|differ|right", "A5": "LSTM computes in",
    "A6": "waits .* times in a step", "A7": None, "A8": None, "A9": "_gib", "A10": "cosine", "A11": "nearest of the first query",
}  # fmt: skip
"""What a failed check says; None: the fault itself raises."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK_FAULTS else pytest.mark.slow) for name in FAULTS]
)
def test_a_planted_fault_is_seen(name: str, on_cpu: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[name](monkeypatch)
    with pytest.raises(CheckFailedError if MESSAGES[name] else Exception, match=MESSAGES[name]):
        BY_NAME[name].run(on_cpu, {})


def test_waiting_is_counted_where_it_happens(on_cpu: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch warns of it, from inside of rayclean."""

    def copied(of: Collectives, values: Any) -> Any:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return np.asarray(values)

    monkeypatch.setattr(Collectives, "from_first", copied)
    with training_checks.synchronisations() as found:
        agree_on_job(Collectives(), "nothing", 1)
        agree_on_job(Collectives(), "nothing", 1)
        warnings.warn("something else", stacklevel=1)
    assert found == {"training/steps.py:_compared": 2}


def test_every_check_has_a_fault() -> None:
    assert FAULTS.keys() == MESSAGES.keys() == BY_NAME.keys()


# -- the script ----------------------------------------------------------------------------------------------------


def test_a_check_that_fails_stops_no_other_and_what_was_not_run_was_not_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(place: Place, figures: Figures) -> None:
        figures["seen"] = 1
        raise ZeroDivisionError("planted")

    def hangs(place: Place, figures: Figures) -> None:
        while True:
            pass

    def lacks(place: Place, figures: Figures) -> None:
        raise CheckSkippedError("no such thing")

    checks = [
        Check("one", "fails", fails, 1),
        Check("two", "hangs", hangs, 1),
        Check("three", "lacks", lacks, 1),
        Check("four", "passes", lambda place, figures: None, 1),
        Check("five", "takes long", lambda place, figures: None, 10_000),
    ]
    monkeypatch.setattr(device, "CHECKS", checks)
    monkeypatch.setattr(device, "PATIENCE", 0.2)
    output = tmp_path / "result.json"
    assert device.main(["--device", "cpu", "--output", str(output)]) == 1
    result = json.loads(output.read_text())
    ends = result["checks"]
    assert [end["outcome"] for end in ends.values()] == ["failed", "failed", "skipped", "passed", "skipped"]
    assert ends["one"]["error"] == "ZeroDivisionError: planted"
    assert ends["one"]["figures"] == {"seen": 1}
    assert "TimeoutError" in ends["two"]["error"]
    assert ends["three"]["reason"] == "no such thing"
    assert "s are left of --limit-seconds 540, it takes about 10000 s" in ends["five"]["reason"]
    assert {"machine", "versions", "commit", "device", "date"} <= result.keys()
    assert device.main(["--device", "cpu", "--only", "four,five", "--output", str(output)]) == 0
    assert list(json.loads(output.read_text())["checks"]) == ["four", "five"]
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            device.main(["--output", str(output)])
        assert "sees no GPU" in capsys.readouterr().err


BLOCKED = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "vllm"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from rayclean.methods import METHODS
from rayclean.models import ENCODERS
from rayclean.tasks import TASKS
from rayclean.plugins import Plugin
import rayclean.training.loop, rayclean.training.side_by_side, rayclean.models.inference
import rayclean.functional.neighbours, rayclean.functional.confident_learning
for registry in (METHODS, ENCODERS, TASKS):
    for name in registry:
        registry.resolve(name)
import tests.gpu.device
import benchmarks.gpu
print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in {"rayclean", "tests", "benchmarks"} and m.__file__]))
"""
OPTIONAL = {"nltk", "ray"}
"""Imported inside of functions that a check does not call."""


def test_training_models_and_methods_need_neither_ray_nor_vllm() -> None:
    """Nor do the checks of a device, which run where neither is installed; and the packages to carry there are all named."""
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    needed = set()
    for file in json.loads(done.stdout.splitlines()[-1]):
        for node in ast.walk(ast.parse(Path(file).read_text())):
            if isinstance(node, ast.Import):
                needed |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                needed.add(node.module.split(".")[0])
    needed -= {*sys.stdlib_module_names, "rayclean", "tests", "benchmarks"} | OPTIONAL
    assert {"torch", "pydantic", "numpy"} <= needed
    text = str(device.__doc__).replace("scikit-learn", "sklearn")
    assert sorted(name for name in needed if not re.search(rf"\b{name}\b", text)) == []
