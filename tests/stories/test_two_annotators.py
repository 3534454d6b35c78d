"""Annotators that are asked in order may read the same prompt; each has its own answer and its own prices."""

from pathlib import Path

import pytest

import rayclean
from rayclean import pipeline
from rayclean.stories.story import story_of
from tests import toy
from tests.annotators.hostile import serve_in_process, tokenizer_folder
from tests.stories.conftest import VERBS


def test_each_answer_is_told_with_its_own_question(tmp_path: Path) -> None:
    data = toy.write(tmp_path / "data", rows=120, noise=0.2, files=1)
    values = toy.config(data, tmp_path / "runs")
    values["cluster"] = {"ray": False}
    values["predict"] |= {"training": {"epochs": 6}, "experts": ["words"]}
    tokenizer = tokenizer_folder(tmp_path / "tokenizer")
    with serve_in_process(model="small") as small, serve_in_process(model="large") as large:
        annotators = [
            {
                "name": "openai", "model": server.model, "base_url": server.url, "tokenizer": tokenizer,
                "price_prompt": price, "currency": "EUR",
            }
            for server, price in ((small, 1.0), (large, 30.0))
        ]  # fmt: skip
        values["relabel"] = {"controls": 10, "ask_all": True, "annotators": annotators}
        run = pipeline.run_verbs(rayclean.parse_config(values), VERBS)
    annotated = [
        run.read_table("relabel", "annotations", shard) for shard in run.shards("relabel", "annotations")
    ]
    both = 0
    for example in [each for table in annotated for each in table["example_id"].to_pylist()]:
        told = [
            event
            for event in story_of(run, example, neighbours=0).events
            if event.kind in ("asked", "answered")
        ]
        assert [event.kind for event in told] == ["asked", "answered"] * (len(told) // 2)
        models = [event.model for event in told[1::2]]
        assert models in (["small"], ["small", "large"])
        both += len(models) == 2
        for asked, answered in zip(told[::2], told[1::2], strict=True):
            price = {"small": 1.0, "large": 30.0}[answered.model]
            assert asked.prompts_are == "as sent"
            assert answered.cost == pytest.approx(price * answered.prompt_tokens / 1e6)
        assert len({asked.prompts for asked in told[::2]}) == 1, "both read the same"
    assert both >= 5
