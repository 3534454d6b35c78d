"""What a sweep says it will ask, before and after the data are loaded."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rayclean.config import parse_config
from rayclean.forecast import forecast
from rayclean.schema import Label, LabelSet
from rayclean.sweeps.plan import SharedWork, Work, make_plan
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.sweep import describe_sweep
from rayclean.verbs import detect
from tests.sweeps.bases import sweep
from tests.tasks import test_multi_label as sets
from tests.tasks import test_tagging as tags

PAID: dict[str, Any] = {"name": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
NAMES = ("garden", "harbour", "kitchen")


def works(of: Sweep) -> list[Work]:
    return list(make_plan(of).work.values())


def said(of: Sweep) -> str:
    return foretold(works(of), make_plan(of).verbs)


def foretold(works: list[Work], verbs: tuple[str, ...], *, drawn: bool = False) -> str:
    return forecast([(work.config, work.run, work.fingerprints) for work in works], verbs, drawn=drawn)


def tokens(of: Sweep) -> int:
    return int(re.search(r"about ([\d,]+) tokens", said(of))[1].replace(",", ""))


def finish(of: Sweep, verb: str, some: list[Work], metrics: dict[str, Any] | None = None) -> None:
    """As after a verb of some trials."""
    for work in some:
        run = work.run
        folder = run.begin(verb, work.fingerprints[verb])
        if verb == "load":
            labels = LabelSet(Label(index, name, name) for index, name in enumerate(NAMES))
            folder.write_text(labels.to_json(), "labels.json")
        run.commit(verb, work.fingerprints[verb], folder, 1.0, metrics or {})


def loaded(of: Sweep) -> None:
    """1,000 examples of 120 characters."""
    finish(of, "load", works(of), {"examples": 1000, "characters": {"mean": 120.0}})


def bare(folder: Path) -> dict[str, Any]:
    """An annotator whose prompt is nothing but texts."""
    template = folder / "bare.jinja"
    template.write_text("{{ text }}{% for shown in demonstrations %}{{ shown.text }}{% endfor %}")
    return {**PAID, "template": str(template), "max_text_chars": 80, "max_demonstration_chars": 40}


def test_questions_of_equal_relabellings_are_counted_once(tmp_path: Path) -> None:
    of = sweep(
        tmp_path, {"detect.budget": {"grid": [0.1, 0.2]}, "train.epochs": {"grid": [1, 2, 3]}}, seeds=(0,)
    )
    assert said(of) == "relabel asks knn by the size of the data, which is not loaded yet, free"
    loaded(of)
    assert said(of) == "relabel asks knn at most 300 questions, free"


@pytest.mark.parametrize("form", [sets, tags])
@pytest.mark.parametrize("budget", [0.1, 200])
def test_as_many_questions_as_detect_allows_suspects(tmp_path: Path, form: Any, budget: float | int) -> None:
    """The budget counts units; 200 are more than there are examples."""
    run, config = form.make(tmp_path)
    config = parse_config(
        config.model_dump(mode="json") | {"annotator": {"name": "knn"}}, [f"detect.budget={budget}"]
    )
    metrics = {"examples": len(sets.rows_of(run, "load", "examples")), "characters": {"mean": 40.0}}
    manifest = {"verb": "load", "fingerprint": "0", "seconds": 0, "rayclean": "0", "metrics": metrics}
    run.write_json(manifest, "load", "manifest.json")
    allowed = sets.do(config, run, detect, "detect")["budget"]
    assert allowed == (budget if isinstance(budget, int) else (36 if form is sets else 30))  # of 360, of 300
    said = forecast([(config, run, {"load": "0", "relabel": "r"})], ["relabel"])
    assert said == f"relabel asks knn at most {allowed} questions, free"


def test_what_an_earlier_attempt_has_asked_is_not_counted_again(tmp_path: Path) -> None:
    method = {"name": "noiseal", "max_queries": 50}
    of = sweep(
        tmp_path, {"detect.budget": {"grid": [0.1, 0.2]}}, seeds=(0,), set={"method": method}, trains=True
    )
    loaded(of)
    finish(of, "relabel", works(of)[1:])
    assert "relabel asks knn at most 100 questions" in said(of)
    assert "noiseal asks knn at most 100 questions while it trains" in said(of)
    finish(of, "relabel", works(of))
    finish(of, "train", works(of)[:1])
    assert said(of) == "noiseal asks knn at most 50 questions while it trains, free"
    finish(of, "train", works(of))
    assert said(of) == "no questions are left"


def test_tokens_and_cost_by_the_length_of_texts(tmp_path: Path) -> None:
    of = sweep(
        tmp_path, {"relabel.demonstrations": {"grid": [0, 3]}}, seeds=(0,),
        set={"annotator": bare(tmp_path), "detect.budget": 0.1, "annotator.price_prompt": 2.0, "annotator.price_answer": 10.0,
             "annotator.currency": "USD", "relabel.controls": 0},
    )  # fmt: skip
    loaded(of)
    # 100 questions of 80 / 4 tokens, 100 of (80 + 3 x 40) / 4, and a token of answer to each:
    # 7,000 at 2 and 200 at 10 per million.
    assert said(of) == (
        "relabel asks openai at most 200 questions, about 7,200 tokens, 0.016 USD at the config's prices; "
        "what was asked before is free"
    )
    capped = {**of.set, "annotator.max_queries": 10}
    assert "at most 20 questions, about 720 tokens, 0.0016" in said(of.model_copy(update={"set": capped}))
    # Each of the two relabellings may cost .002; without it 2,000 tokens and 5,000 tokens of prompts.
    capped = {**of.set, "annotator.max_cost": 0.002, "annotator.max_tokens": 2050}
    assert "about 4,100 tokens, 0.004" in said(of.model_copy(update={"set": capped}))


def test_control_questions_are_counted(tmp_path: Path) -> None:
    """They are asked besides those about suspects, within the same budget; of those who are no second opinion, none."""
    others = {"detect.budget": 0.1, "relabel.controls": 60}
    cases = [
        (bare(tmp_path), 160),
        (bare(tmp_path) | {"max_queries": 130}, 130),
        ({"name": "simulated"}, 160),
        ({"name": "knn"}, 100),
    ]
    for number, (annotator, most) in enumerate(cases):
        of = sweep(tmp_path, {"relabel.demonstrations": {"grid": [0]}}, name=f"s{number}", seeds=(0,),
                   set={"annotator": annotator} | others)  # fmt: skip
        assert ("by the size of the data" in said(of)) == (most != 130)
        loaded(of)
        assert said(of).startswith(f"relabel asks {annotator['name']} at most {most} questions")
    of = sweep(tmp_path, {"relabel.demonstrations": {"grid": [0]}}, name="nobody", seeds=(0,),
               set={"annotator": {"name": "posterior"}} | others)  # fmt: skip
    assert said(of) == "no questions are left"


def test_a_choice_is_asked_in_both_orders(tmp_path: Path) -> None:
    annotator = bare(tmp_path) | {"form": "choice"}
    of = sweep(
        tmp_path, {"relabel.demonstrations": {"grid": [1]}}, seeds=(0,),
        set={"annotator": annotator, "detect.budget": 0.1, "annotator.price_answer": 10.0, "annotator.currency": "EUR",
             "relabel.controls": 0},
    )  # fmt: skip
    loaded(of)
    # Twice (80 + 40) / 4 and 8 of the answer; 1,600 tokens of answers at 10 per million.
    assert said(of).startswith(
        "relabel asks openai at most 100 questions, each in two requests, about 7,600 tokens, 0.016 EUR at"
    )


@pytest.mark.parametrize(
    ("form", "candidates", "more"),
    [
        ("label_words", "binary", 2),
        ("label_words", "all", 3),
        ("choice", "binary", 2 * 2),
        ("choice", "all", 2 * 3),
    ],
)
def test_definitions_are_counted(tmp_path: Path, form: str, candidates: str, more: int) -> None:
    """Those of the candidates, by a choice twice; 398 characters and ': ' are 100 tokens each."""
    same: dict[str, Any] = {
        "annotator": {**PAID, "form": form}, "detect.budget": 0.1, "relabel.candidates": candidates, "relabel.controls": 0,
    }  # fmt: skip
    definitions = {"dataset.definitions": dict.fromkeys(NAMES, "x" * 398)}
    space = {"relabel.accept": {"grid": [0.5]}}
    without, defined = (
        sweep(tmp_path, space, name=name, seeds=(0,), set=same | own)
        for name, own in (("without", {}), ("defined", definitions))
    )
    loaded(without)
    loaded(defined)
    added = (tokens(defined) - tokens(without)) / 100
    assert 100 * more <= added <= 104 * more  # a shown one has a line of its own


def test_what_methods_ask_in_training_is_said(tmp_path: Path) -> None:
    def of(annotator: dict[str, Any], **options: Any) -> Sweep:
        return sweep(
            tmp_path, {"train.epochs": {"grid": [3, 4]}}, seeds=(0, 1), trains=options.pop("trains", True),
            set={
                "method": {"name": "noiseal", "demonstrations": 2, **options}, "annotator": annotator,
                "annotator.max_queries": 0, "annotator.price_prompt": 1.0, "annotator.currency": "USD",
            },
        )  # fmt: skip

    knn, paid = {"name": "knn"}, bare(tmp_path)
    free = "noiseal asks knn in 4 trainings (method.max_queries sets no limit), free"
    assert free in said(of(knn))
    assert "noiseal asks knn at most 200 questions while it trains, free" in said(of(knn, max_queries=50))
    assert "noiseal" not in said(of(knn, max_queries=0))
    assert "noiseal" not in said(of(knn, trains=False))
    loaded(of(paid))
    # (80 + 2 x 40) / 4 tokens and one of answer.
    assert "sets no limit), about 41 tokens a question, 0.000040 USD at the config's prices" in said(of(paid))
    assert "at most 200 questions while it trains, about 8,200 tokens, 0.008" in said(
        of(paid, max_queries=50)
    )


def test_every_annotator_is_named(tmp_path: Path) -> None:
    of = sweep(
        tmp_path, {"annotator": {"grid": [{"name": "knn"}, bare(tmp_path)]}}, seeds=(0,),
        set={"detect.budget": 0.1, "relabel.demonstrations": 0, "relabel.controls": 0},
    )  # fmt: skip
    loaded(of)
    assert said(of) == (
        "relabel asks knn at most 100 questions, free; "
        "relabel asks openai at most 100 questions, about 2,100 tokens; what was asked before is free"
    )


def test_a_label_that_is_none_is_its_trials_own_error(tmp_path: Path) -> None:
    of = sweep(
        tmp_path, {"dataset.words": {"grid": [{"garden": "plants"}, {"no label": "x"}]}}, seeds=(0,),
        set={"annotator": PAID, "detect.budget": 5, "relabel.controls": 0},
    )  # fmt: skip
    assert said(of) == "relabel asks openai at most 10 questions; what was asked before is free"
    loaded(of)
    assert "at most 10 questions, about" in said(of)


def test_optunas_trials_are_counted_by_points_drawn_at_random(tmp_path: Path) -> None:
    """Of 40 between .1 and .3 of 1,000; the learning rate, which is drawn as well, asks nothing."""
    of = sweep(
        tmp_path,
        {"detect.budget": {"uniform": [0.1, 0.3]}, "train.learning_rate": {"log_uniform": [1e-4, 1e-2]}},
        search="optuna", objectives="dev_loss", samples=40, seeds=(0, 1),
    )  # fmt: skip
    plan = make_plan(of)
    some = list(plan.likely(40).work.values())
    assert len(some) == 80
    finish(of, "load", some, {"examples": 1000, "characters": {"mean": 120.0}})
    text = foretold(some, plan.verbs, drawn=True)
    asked = int(re.fullmatch(r"relabel asks knn about ([\d,]+) questions, free", text)[1].replace(",", ""))
    assert 12_800 < asked < 19_200
    assert describe_sweep(plan, 4) == (
        "s: 40 points suggested by Optuna x 2 seeds, 4 finished; what they share runs once: about "
        "load 2x, predict 2x, detect 80x, relabel 80x, train 80x, evaluate 80x"
    )
    unlike = sweep(
        tmp_path, {"train.learning_rate": {"log_uniform": [1e-4, 1e-2]}}, search="optuna", objectives="dev_loss", samples=40, seeds=(0,)
    )  # fmt: skip
    assert "load 1x, predict 1x, detect 1x, relabel 1x, train 40x" in describe_sweep(make_plan(unlike), 0)


def test_every_load_runs_beforehand(tmp_path: Path) -> None:
    """A noise rate leaves nothing to share; only the data say how much there is to ask."""
    of = sweep(tmp_path, {"dataset.noise.rate": {"grid": [0.1, 0.3]}}, seeds=(0, 1))
    (level,) = SharedWork(make_plan(of).verbs, make_plan(of).work).levels()
    assert [verb for verb, _ in level] == ["load"] * 4
    assert json.dumps([work.point for _, work in level]).count("0.3") == 2
    loaded(of)
    assert SharedWork(make_plan(of).verbs, make_plan(of).work).levels() == []
    assert said(of) == "relabel asks knn at most 800 questions, free"
