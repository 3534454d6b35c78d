"""A whole run with a language model's endpoint that answers, made once: load to train, in this process."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rayclean
from rayclean import pipeline
from rayclean.run import Run
from rayclean.verbs import train
from tests import toy
from tests.annotators.hostile import serve_in_process, tokenizer_folder

VERBS = ("load", "predict", "detect", "relabel")
EVIL = "[bold red]rose\x1b[2J\x07 soil‮ tulip\r\n                detect    no suspect\nlabel garden [/bold red] :smile: compost hedge"
"""A text that is markup, moves the cursor, turns the direction of writing and imitates lines of a story."""


@dataclass(frozen=True)
class Told:
    """A finished run in a folder of its own."""

    values: dict[str, Any]

    def config(self, *overrides: str) -> rayclean.Config:
        return rayclean.parse_config(self.values, overrides)

    @property
    def run(self) -> Run:
        return pipeline.open_run(self.config())

    @property
    def sent(self) -> set[str]:
        """All prompts that the endpoint got."""
        return {*json.loads(Path(self.values["dataset"]["path"], "..", "prompts.json").read_text())}

    def rows(self, *parts: str) -> list[dict[str, Any]]:
        """All rows of a table."""
        shards = self.run.shards(*parts)
        return [row for shard in shards for row in self.run.read_table(*parts, shard).to_pylist()]

    def row(self, *parts: str, **wanted: Any) -> dict[str, Any]:
        """The one row of a table with some values."""
        ((name, value),) = wanted.items()
        (found,) = [row for row in self.rows(*parts) if row[name] == value]
        return found


def write_data(folder: Path) -> Path:
    """The toy in three files; most texts bear the mark by which the endpoint knows the true label (`token_score`), some rows are
    hostile, copies of others, or of no use.
    """
    toy.write(folder, rows=240, noise=0.15, files=2)
    for name in ("000.parquet", "001.parquet"):
        rows = pq.read_table(folder / name).to_pylist()
        for number, row in enumerate(rows):
            row["text"] += f" *{row['truth'][0]}" if number % 5 else ""
        pq.write_table(pa.Table.from_pylist(rows), folder / name)
    first = pq.read_table(folder / "000.parquet").to_pylist()
    text = first[5]["text"]
    more = [
        {"key": "evil", "text": EVIL, "label": "kitchen", "truth": "garden"},
        {"key": "copy-1", "text": text.upper(), "label": first[5]["label"], "truth": first[5]["truth"]},
        {"key": "copy-2", "text": text, "label": first[5]["label"], "truth": first[5]["truth"]},
        {"key": "row-00003", "text": "the same key once more", "label": "garden", "truth": "garden"},
        {"key": "empty", "text": "   ", "label": "garden", "truth": "garden"},
    ]
    pq.write_table(pa.Table.from_pylist(more), folder / "002.parquet")
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> dict[str, Any]:
    """The config of the run."""
    folder = tmp_path_factory.mktemp("stories")
    values = toy.config(write_data(folder / "data"), folder / "runs")
    values["cluster"] = {"ray": False}
    values["predict"] |= {"training": {"epochs": 8}}
    values["relabel"] = {"controls": 30, "demonstrations": 2, "ask_all": True, "beyond": 4}
    values["method"] = {"name": "aum"}
    values["train"] = {"epochs": 1}
    tokenizer = tokenizer_folder(folder / "tokenizer")
    with serve_in_process() as server:
        values["annotator"] = {
            "name": "openai", "base_url": server.url, "model": "tiny", "tokenizer": tokenizer, "max_prompt_tokens": 260,
            "price_prompt": 2.0, "price_answer": 5.0, "currency": "USD",
        }  # fmt: skip
        config = rayclean.parse_config(values)
        run = pipeline.run_verbs(config, VERBS)
        (folder / "prompts.json").write_text(json.dumps([*server.calls()]))
    out = run.begin("train", "f")
    run.commit("train", "f", out, 0.0, train.run(config, run, out))
    return values


@pytest.fixture
def told(finished: dict[str, Any]) -> Told:
    """The run, which the test only reads."""
    return Told(finished)


@pytest.fixture
def own(finished: dict[str, Any], tmp_path: Path) -> Told:
    """A copy of the run, which the test may change."""
    shutil.copytree(finished["output"], tmp_path / "runs")
    return Told({**finished, "output": str(tmp_path / "runs")})
