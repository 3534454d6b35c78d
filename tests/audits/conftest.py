"""A small run with a finished relabel, made once and copied for every test that changes it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rayclean
from rayclean import pipeline
from tests import toy


@dataclass(frozen=True)
class Relabelled:
    """A finished run in a folder of its own."""

    values: dict[str, Any]

    def config(self, *overrides: str) -> rayclean.Config:
        return rayclean.parse_config(self.values, overrides)

    @property
    def run(self) -> rayclean.Run:
        return pipeline.open_run(self.config())

    @property
    def form(self) -> Path:
        return Path(self.run.path("audit", "form.csv"))


VERBS = ("load", "predict", "detect", "relabel")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Callable[[str], dict[str, Any]]:
    """Makes the run for an annotator of this accuracy, and returns its config."""
    folder = tmp_path_factory.mktemp("audit")
    data = toy.write(folder / "data", rows=700, noise=0.2)

    def make(accuracy: str) -> dict[str, Any]:
        values = toy.config(data, folder / accuracy)
        values["cluster"] = {"ray": False}
        values["predict"] |= {"training": {"epochs": 8}, "experts": ["words"]}
        values["relabel"] = {"controls": 60}
        values["evaluate"] = {"compare": False}
        values["audit"] = {"suspects": 30, "random": 30}
        # It answers by the truth from a place that the copies share.
        truth = str(folder / accuracy / "toy" / "load" / "truth")
        values["annotator"] = {"name": "simulated", "accuracy": float(accuracy), "truth_path": truth}
        if not (folder / accuracy).exists():
            plain = {**values, "annotator": {"name": "posterior"}}
            pipeline.run_verbs(rayclean.parse_config(plain), ("load",))
            pipeline.run_verbs(rayclean.parse_config(values), VERBS)
        return values

    return make


@pytest.fixture
def relabelled(made: Callable[[str], dict[str, Any]], tmp_path: Path) -> Relabelled:
    """A run with an annotator that is right on .85 of the questions."""
    values = made("0.85")
    shutil.copytree(values["output"], tmp_path / "runs")
    return Relabelled({**values, "output": str(tmp_path / "runs")})
