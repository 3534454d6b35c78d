"""Plug-ins of an installed package outside the tree: found by entry point, listed, and used by a whole run."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rayclean
from rayclean import plugins
from rayclean.annotators import ANNOTATORS
from rayclean.cli.options import find_options
from rayclean.detectors import DETECTORS
from rayclean.errors import ConfigError
from rayclean.methods import METHODS
from rayclean.plugins import Plugin
from tests import toy
from tests.contracts import check_annotator, check_detector, check_task

EXTENDING = Path(__file__).parent.parent / "docs" / "extending.md"

DETECTOR = '''
import numpy as np

from rayclean.detectors.base import Detector


class ShortTexts(Detector):
    """Quality = probability of the given label, plus a little for an even id."""

    def score(self, batch, state):
        quality = batch.probabilities[np.arange(len(batch.given_label)), batch.given_label]
        return quality.astype(np.float32), quality < 0.4
'''

ANNOTATOR = '''
from pydantic import Field

from rayclean.annotators.base import Annotator
from rayclean.annotators.query import Annotation


class Optimist(Annotator):
    """Believes the suggested label, with the same confidence each time."""

    class Config(Annotator.Config):
        """Options beside `name`."""

        score: float = Field(2.0, gt=0)
        """Lead of the suggested label."""

    billable = False
    calibrated = True

    async def annotate(self, queries):
        return [self._answer(query) for query in queries]

    def _answer(self, query):
        choice = query.candidates.index(query.suggested)
        scores = tuple(self.config.score * (place == choice) for place in range(len(query.candidates)))
        return Annotation(self.key(query), query.unit_id, choice, scores, model="optimist")
'''


TASK = '''
import numpy as np

from rayclean.tasks.classification import Classification


class Ratings(Classification):
    """Classes in an order: the annotator may also choose what lies between the given and the suggested one."""

    def candidates(self, given, suggested, kind):
        low, high = sorted((given, suggested))
        return self.labels.in_order(range(low, high + 1))

    def metrics(self, labels, truth):
        distance = np.abs(np.asarray(labels) - np.asarray(truth)).mean()
        return {**super().metrics(labels, truth), "distance": float(distance)}
'''


def install(folder: Path, name: str, groups: dict[str, dict[str, str]]) -> None:
    """What `pip install` leaves of a package's metadata."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a method (that of docs/extending.md), a detector, an annotator and a task."""
    folder = tmp_path / "site"
    install(
        folder,
        "stranger",
        {
            "rayclean.methods": {"bootstrapping": "stranger_method:SoftBootstrapping"},
            "rayclean.detectors": {"short_texts": "stranger_detector:ShortTexts"},
            "rayclean.annotators": {"optimist": "stranger_annotator:Optimist"},
            "rayclean.tasks": {"ratings": "stranger_task:Ratings"},
        },
    )
    example = re.search(r"```python\n(.*?)```", EXTENDING.read_text(), re.DOTALL)
    assert example is not None
    texts = {"method": example[1], "detector": DETECTOR, "annotator": ANNOTATOR, "task": TASK}
    for name, text in texts.items():
        assert text.count("\n") < 60
        (folder / f"stranger_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    plugins._entry_points.cache_clear()
    importlib.invalidate_caches()
    yield folder
    plugins._entry_points.cache_clear()
    for name in texts:
        sys.modules.pop(f"stranger_{name}", None)


def test_a_run_with_plug_ins_of_a_stranger(tmp_path: Path, stranger: Path) -> None:
    values = toy.config(toy.write(tmp_path / "data", rows=240, noise=0.2), tmp_path / "runs")
    values["method"] = {"name": "bootstrapping", "beta": 0.9}
    values["detect"] = {"detectors": ["short_texts"], "budget": 0.2}
    values["annotator"] = {"name": "optimist", "score": 3.0}
    values["task"] = {"name": "ratings"}
    values["cluster"] = {"ray": False}
    run = rayclean.clean(rayclean.parse_config(values))
    assert run.exists("evaluate", "report.html")
    assert "soft_bootstrapping" in run.read_text("train", "metrics.jsonl")
    manifest = run.manifest("relabel")
    assert manifest is not None
    assert manifest.metrics["annotator"] == {"name": "optimist", "model": "optimist"}
    assert manifest.metrics["changed"] > 0
    asked = run.sub("relabel", "annotations")
    sizes = {
        len(row["candidates"]) for shard in asked.shards() for row in asked.read_table(shard).to_pylist()
    }
    assert sizes == {2, 3}  # between the first and the last of three classes lies another


def test_they_keep_the_contracts_of_their_kinds(tmp_path: Path, stranger: Path) -> None:
    example = re.findall(r"```python\n(.*?)```", EXTENDING.read_text(), re.DOTALL)[-1]
    namespace: dict[str, Any] = {}
    exec(compile(example, "docs/extending.md", "exec"), namespace)
    namespace["test_soft_bootstrapping"](tmp_path / "method")
    check_detector(Plugin(name="short_texts"))
    check_annotator(Plugin(name="optimist"))
    check_task(Plugin(name="ratings"))


def test_their_options_are_shown_and_their_names_suggested(stranger: Path) -> None:
    assert find_options("annotator.optimist")[0].__name__ == "Optimist"
    with pytest.raises(ConfigError, match="did you mean bootstrapping"):
        METHODS.resolve("bootstraping")
    assert DETECTORS.all_names()["short_texts"] == "stranger_detector:ShortTexts"


def test_one_name_for_two_classes_is_refused(tmp_path: Path, stranger: Path) -> None:
    install(tmp_path / "site", "other", {"rayclean.annotators": {"optimist": "elsewhere:Optimist"}})
    plugins._entry_points.cache_clear()
    with pytest.raises(ConfigError, match=r"'optimist'.*stranger.*uninstall one of the two"):
        ANNOTATORS.resolve("optimist")
    assert ANNOTATORS.resolve("knn").__name__ == "KnnAnnotator"  # a built-in name needs no look at packages
