"""What a sweep says it will ask, before and after the data are loaded."""

from pathlib import Path

from rayclean.artifacts import Folder
from rayclean.sweeps.forecast import forecast
from rayclean.sweeps.plan import Work, make_plan, root
from rayclean.sweeps.spec import Sweep
from tests.sweeps.bases import sweep

PAID = {"name": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m", "max_text_chars": 80}


def works(of: Sweep) -> list[Work]:
    return list(make_plan(of).work.values())


def loaded(of: Sweep) -> None:
    """As after `load`: 1,000 examples of 120 characters."""
    for work in works(of):
        run = work.run(root(of))
        folder = run.begin("load", work.prints["load"])
        run.commit(
            "load", work.prints["load"], folder, 1.0, {"examples": 1000, "characters": {"mean": 120.0}}
        )


def test_questions_of_equal_relabellings_are_counted_once(tmp_path: Path) -> None:
    of = sweep(
        tmp_path, {"detect.budget": {"grid": [0.1, 0.2]}, "train.epochs": {"grid": [1, 2, 3]}}, seeds=(0,)
    )
    folder = Folder(root(of))
    assert "not loaded yet" in forecast(works(of), folder)
    loaded(of)
    said = forecast(works(of), folder)
    assert "at most 300 questions" in said
    assert "tokens" not in said  # kNN costs none
    assert "at most 1,500 questions" in forecast(works(of), folder, times=5)


def test_tokens_and_cost_by_the_length_of_texts(tmp_path: Path) -> None:
    of = sweep(
        tmp_path, {"relabel.demonstrations": {"grid": [0, 3]}}, seeds=(0,),
        set={"annotator": PAID, "detect.budget": 0.1, "relabel.price_prompt": 2.0},
    )  # fmt: skip
    loaded(of)
    # 100 questions of 80 / 4 + 40 tokens, 100 of 4 x 80 / 4 + 40; 2 per million.
    said = forecast(works(of), Folder(root(of)))
    assert "at most 200 questions, about 18,000 tokens, 0.04 at the config's prices" in said
    capped = of.model_copy(update={"set": {**of.set, "relabel.max_queries": 10}})
    assert "at most 20 questions, about 1,800 tokens" in forecast(works(capped), Folder(root(of)))


def test_what_methods_ask_in_training_is_said(tmp_path: Path) -> None:
    def of(**options: int) -> Sweep:
        method = {"name": "noiseal", **options}
        return sweep(
            tmp_path, {"train.epochs": {"grid": [3, 4]}}, seeds=(0, 1), set={"method": method}, trains=True
        )

    folder = Folder(root(of()))
    assert "noiseal asks in 4 trainings as well (method.max_queries sets no limit)" in forecast(
        works(of()), folder
    )
    assert "noiseal asks at most 200 more in training" in forecast(works(of(max_queries=50)), folder)
    assert "noiseal" not in forecast(works(of(max_queries=0)), folder)
