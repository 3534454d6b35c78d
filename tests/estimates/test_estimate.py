"""`rayclean estimate`, against the run itself."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

import rayclean
from rayclean.api import clean
from rayclean.cli.estimates import questions_table, times_table
from rayclean.config import Config, Plugin, parse_config
from rayclean.estimates.estimate import RunEstimate, estimate_run
from rayclean.estimates.model_speed import QUESTIONS, earlier_speed, measure_speed
from rayclean.evaluation.formatting import format_seconds
from rayclean.run import VERBS, Run
from tests import toy
from tests.annotators.hostile import serve_in_process, tokenizer_folder
from tests.command import run_command


def config(folder: Path, rows: int, *overrides: str) -> Config:
    values = toy.config(toy.write(folder / f"data-{rows}", rows=rows), folder / "runs")
    values |= {"cluster": {"ray": False}, "train": {"epochs": 2}}
    values["encoder"]["buckets"] = 4096
    return parse_config(values, overrides)


@pytest.fixture(scope="module")
def estimated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, RunEstimate]:
    of = config(tmp_path_factory.mktemp("estimate"), 300)
    return of, estimate_run(of)


def test_every_verb_has_a_time_and_every_time_a_source(estimated: tuple[Config, RunEstimate]) -> None:
    of, found = estimated
    assert [each.verb for each in found.verbs] == list(VERBS)
    assert (found.rows, found.rows_basis) == (300, "as the files say")
    assert found.examples == pytest.approx(240, abs=30)  # without the test examples
    for each in found.verbs:
        assert each.seconds >= 0
        assert each.parts
        assert all(part.basis.startswith(("measured on", "assumed")) for part in each.parts)
    assert found.seconds == pytest.approx(sum(each.seconds for each in found.verbs))
    assert json.loads(json.dumps(found.to_json()))["examples"] == found.examples
    assert not os.path.exists(of.output)  # the run folder does not come to be


def test_the_speed_of_a_model_is_that_of_the_questions_it_was_asked(tmp_path: Path) -> None:
    """More suspects than are asked about."""
    of = config(tmp_path, 300, "detect.budget=0.6", "relabel.demonstrations=0")
    rayclean.load(of)
    rayclean.predict(of)
    run = rayclean.detect(of)
    manifest = run.manifest("detect")
    assert manifest is not None
    assert manifest.metrics["suspects"] + QUESTIONS > 2 * QUESTIONS
    with serve_in_process(latency=0.05) as server:
        options = {
            "base_url": server.url,
            "model": "tiny",
            "tokenizer": tokenizer_folder(tmp_path / "tokenizer"),
        }
        found = measure_speed(of, run, Plugin(name="openai", **options, concurrency=1))
    assert found.basis.startswith("measured on")
    assert found.seconds_per_question >= 0.05  # each waits for the one before it


def test_ray_counts_where_the_run_will_start_it(
    estimated: tuple[Config, RunEstimate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes by what it expects of the encoder, not by what the rehearsal took."""
    from rayclean.models.bag_of_words import BagOfWordsEncoder

    def starts(found: RunEstimate) -> dict[str, list[str]]:
        return {each.verb: [part.name for part in each.parts if "start" in part.name] for each in found.verbs}

    assert not any(starts(estimated[1]).values())
    monkeypatch.setattr(BagOfWordsEncoder, "seconds_per_text", classmethod(lambda cls, config: 1.0))
    found = starts(estimate_run(config(tmp_path, 120, "evaluate.compare=false", "cluster={}")))
    assert found["predict"] == ["Ray's start", "start of its processes"]
    assert found["train"] == ["start of its processes"]
    assert found["load"] == found["detect"] == found["relabel"] == []


@pytest.mark.slow
def test_what_is_done_costs_nothing(estimated: tuple[Config, RunEstimate]) -> None:
    of, before = estimated
    clean(of)
    found = estimate_run(of)
    assert all(each.is_done and each.seconds == 0 for each in found.verbs)
    assert found.seconds == 0
    again = estimate_run(parse_config(of.model_dump(mode="json"), ["detect.budget=0.3"]))
    assert [each.verb for each in again.verbs if each.is_done] == ["load", "predict"]
    assert again.seconds > 0
    assert again.examples == found.examples == before.examples


@pytest.mark.slow
def test_questions_and_their_price(tmp_path: Path) -> None:
    of = config(
        tmp_path, 200, "annotator.name=openai", "annotator.base_url=http://127.0.0.1:9/v1", "annotator.model=m",
        "annotator.form=choice", "annotator.price_prompt=10", "annotator.price_answer=30", "annotator.currency=USD",
        "detect.budget=40", "relabel.controls=10",
    )  # fmt: skip
    found = estimate_run(of)
    (asked,) = found.questions
    assert (asked.asker, asked.annotator, asked.questions, asked.currency) == ("relabel", "openai", 50, "USD")
    assert asked.seconds is None
    assert "real prompts" in asked.basis
    assert asked.tokens > 50 * 2 * 20  # two requests each, and no prompt is shorter than the text
    assert asked.cost == pytest.approx(asked.tokens * 10 / 1e6, rel=0.5)
    assert any("not known" in note for note in found.notes)
    assert not (tmp_path / "runs").exists()


def test_the_speed_of_an_earlier_run_is_used(tmp_path: Path) -> None:
    of = config(
        tmp_path, 200, "annotator.name=openai", "annotator.base_url=http://127.0.0.1:9/v1", "annotator.model=m",
        "annotator.form=choice",
    )  # fmt: skip
    assert earlier_speed(of, of.annotator) is None
    for name, model, speed in (("other", "n", 5.0), ("before", "m", 4.0)):
        run = Run(str(tmp_path / "runs" / name))
        metrics = {"queries_per_second": speed, "annotator": {"name": "openai", "model": model}}
        run.commit("relabel", "x", run.begin("relabel", "x"), 1.0, metrics)
    found = earlier_speed(of, of.annotator)
    assert found is not None
    assert found.seconds_per_question == 0.25
    assert "the earlier run before" in found.basis


def test_the_tables(estimated: tuple[Config, RunEstimate], capsys: pytest.CaptureFixture[str]) -> None:
    _, found = estimated
    Console(width=200).print(times_table(found), questions_table(found))
    shown = capsys.readouterr().out
    for each in found.verbs:
        for part in each.parts:
            assert part.basis in shown
    assert format_seconds(found.seconds) in shown


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.json"
    path.write_text(config(tmp_path, 150).model_dump_json())
    run = partial(run_command, "estimate", str(path), capsys=capsys, monkeypatch=monkeypatch)
    done = run("--json")
    assert done.code == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["rows"] == 150
    assert {each["verb"] for each in figures["verbs"]} == set(VERBS)
    assert figures["seconds"] == pytest.approx(sum(each["seconds"] for each in figures["verbs"]))
    missing = run("dataset.text=body")
    assert missing.code == 2
    assert "no column 'body'" in missing.stderr
