from pathlib import Path

import pytest

import rayclean
from rayclean.run import Run
from tests import toy
from tests.models import tiny


@pytest.fixture(scope="session")
def published_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with a tiny transformer, as `rayclean clean` leaves it."""
    folder: Path = tmp_path_factory.mktemp("published")
    model = tiny.write(folder / "tiny-bert")
    values = toy.config(toy.write(folder / "data", rows=160), folder / "runs", "tickets")
    values["encoder"] = {"name": "transformer", "model": model, "trainable": "head", "max_length": 32}
    values["evaluate"] = {"compare": False, "report": False}
    del values["dataset"]["truth"]
    values["dataset"] |= {"label": "truth", "noise": {"kind": "sym", "rate": 0.15}}
    return rayclean.clean(rayclean.parse_config(values))
