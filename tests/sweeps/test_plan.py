"""Names of trials, what they run, what they share, and what is refused before anything starts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayclean import pipeline
from rayclean.errors import ConfigError
from rayclean.overrides import put_over
from rayclean.run import VERBS
from rayclean.sweeps.plan import (
    LABELS_ONLY,
    SharedWork,
    SweepPlan,
    base_values,
    make_plan,
    needs_training,
    sweep_root,
)
from rayclean.sweeps.spec import Sweep
from tests.sweeps.bases import base, sweep

BUDGET, LABELS = "detect.budget", "train.labels"
SPACE = {BUDGET: {"grid": [0.1, 0.2]}, LABELS: {"grid": ["given", "final"]}}


def names(of: Sweep) -> list[str]:
    return list(make_plan(of).work)


def test_every_point_under_every_seed(tmp_path: Path) -> None:
    of = sweep(tmp_path, SPACE, seeds=(3, 5))
    work = list(make_plan(of).work.values())
    assert [(each.point[BUDGET], each.point[LABELS], each.seed) for each in work] == [
        (budget, labels, seed) for budget in (0.1, 0.2) for labels in ("given", "final") for seed in (3, 5)
    ]
    for each in work:
        assert each.config.detect.budget == each.point[BUDGET]
        assert each.config.train.labels == each.point[LABELS]
        assert each.config.seed == each.seed
        assert each.overrides == {**each.point, "seed": each.seed}
        assert (
            each.title
            == f"detect.budget={each.point[BUDGET]} train.labels={each.point[LABELS]} seed={each.seed}"
        )
        assert not each.config.evaluate.compare
        assert pipeline.open_run(each.config).path() == f"{sweep_root(of)}/trials/{each.name}"


def test_set_holds_in_every_trial_and_may_turn_on_what_is_off(tmp_path: Path) -> None:
    of = sweep(tmp_path, SPACE, set={"relabel.accept": 0.7, "evaluate.compare": True})
    for work in make_plan(of).work.values():
        assert work.config.relabel.accept == 0.7
        assert work.config.evaluate.compare
        assert not work.config.evaluate.report


@pytest.mark.parametrize(
    "more",
    [
        {"name": "other"},
        {"set": {"cluster.cpus": 2}},
        {"set": {"name": "other", "output": "elsewhere"}},
        {"set": {"evaluate.top_changes": 3}},
        {"tracking": {"wandb": "off"}, "trials": {"concurrent": 1, "retries": 3}},
        {"objectives": "tokens"},
        {"trains": True},
        {"set": {"predict.actors": 2, "relabel.max_error_rate": 0.5, "dataset.max_rejected": 0.5}},
        {"set": {"annotator": {"name": "knn", "neighbours": 20}}},  # a default that is named
    ],
)
def test_what_changes_no_result_changes_no_name(tmp_path: Path, more: dict[str, Any]) -> None:
    assert names(sweep(tmp_path, SPACE, **more)) == names(sweep(tmp_path, SPACE))


def test_the_endpoint_changes_no_name(tmp_path: Path) -> None:
    def at(port: int, **more: Any) -> list[str]:
        own = {"name": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "model": "m", **more}
        return names(sweep(tmp_path, SPACE, set={"annotator": own}))

    assert at(1) == at(2, concurrency=3)
    assert not set(at(1)) & set(at(1, model="other"))


def test_a_field_that_changes_no_result_is_not_swept(tmp_path: Path) -> None:
    space = {"predict.actors": {"grid": [1, 2]}, BUDGET: {"grid": [0.1, 0.2]}}
    with pytest.raises(ConfigError, match=r"s: predict\.actors changes no result.*\[set\]"):
        make_plan(sweep(tmp_path, space))


def test_the_folder_changes_no_name(tmp_path: Path) -> None:
    of = sweep(tmp_path, SPACE)
    assert names(of.model_copy(update={"output": str(tmp_path / "elsewhere")})) == names(of)


@pytest.mark.parametrize(
    "more",
    [
        {"seeds": (7, 8, 9)},
        {"set": {"relabel.accept": 0.7}},
        {"set": {"annotator": {"name": "knn", "neighbours": 3}}},
        {"set": {"encoder.hidden": 8}},
        {"set": {"dataset.noise.rate": 0.1}},
        {"set": {"train.epochs": 2}},
        {"set": {"predict.folds": 3}},
        {"trains": False},
    ],
)
def test_what_bears_on_results_changes_every_name(tmp_path: Path, more: dict[str, Any]) -> None:
    assert not set(names(sweep(tmp_path, SPACE, **more))) & set(names(sweep(tmp_path, SPACE)))


def test_a_sweep_that_grew_knows_its_trials(tmp_path: Path) -> None:
    before = names(sweep(tmp_path, SPACE))
    grown = {BUDGET: {"grid": [0.05, 0.1, 0.2]}, LABELS: SPACE[LABELS]}
    after = names(sweep(tmp_path, grown, seeds=(0, 1, 2, 3)))
    assert len(before) == 12
    assert len(after) == 24
    assert set(before) < set(after)


def test_names_and_fingerprints_are_the_same_in_another_process(tmp_path: Path) -> None:
    of = sweep(
        tmp_path, {"annotator": {"grid": [{"name": "knn", "power": 2.0}]}, BUDGET: {"uniform": [0.1, 0.2]}}
    )
    code = (
        "import sys, json; from rayclean.sweeps.plan import make_plan; from rayclean.sweeps.spec import Sweep\n"
        "plan = make_plan(Sweep.model_validate_json(sys.argv[1]))\n"
        "print(json.dumps({name: work.fingerprints for name, work in plan.work.items()}))"
    )
    command = [sys.executable, "-c", code, of.model_dump_json()]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == {name: work.fingerprints for name, work in make_plan(of).work.items()}


@pytest.mark.parametrize(
    ("space", "more", "expected"),
    [
        ({BUDGET: 0.1}, {}, False),
        ({BUDGET: 0.1, "relabel.accept": 0.6, "annotator": {"name": "knn"}}, {}, False),
        ({"annotator.neighbours": 3, "dataset.words": {}, "dataset.definitions": {}}, {}, False),
        ({"detect": {"budget": 0.1}}, {"objectives": ("tokens", "changed")}, False),
        ({"method": {"name": "lane"}}, {}, True),
        ({BUDGET: 0.1, "method.name": "lane"}, {}, True),
        ({"train.epochs": 1}, {}, True),
        ({"dataset.noise.rate": 0.1}, {}, True),
        ({"predict.folds": 3}, {}, True),
        ({BUDGET: 0.1}, {"objectives": "dev_accuracy"}, True),
        ({BUDGET: 0.1}, {"objectives": ("tokens", "dev_loss")}, True),
        ({BUDGET: 0.1}, {"trains": True}, True),
        ({"method.name": "lane"}, {"trains": False}, False),
    ],
)
def test_trials_train_where_a_field_or_an_objective_has_to_do_with_it(
    tmp_path: Path, space: dict[str, Any], more: dict[str, Any], expected: bool
) -> None:
    of = sweep(tmp_path, {path: {"grid": [value]} for path, value in space.items()}, **more)
    assert needs_training(of) is expected
    assert make_plan(of).verbs == (VERBS if expected else LABELS_ONLY)


def test_a_figure_of_a_training_needs_one(tmp_path: Path) -> None:
    of = sweep(tmp_path, SPACE, objectives=("tokens", "dev_loss"), trains=False)
    with pytest.raises(ConfigError, match=r"trains = false.*choose other objectives"):
        make_plan(of)


def finish(of: Sweep, work: Any, verb: str) -> None:
    """As if a trial had run a verb."""
    run = work.run
    run.commit(verb, work.fingerprints[verb], run.begin(verb, work.fingerprints[verb]), 0.0, {})


def test_what_trials_share_is_named_once(tmp_path: Path) -> None:
    """Two budgets x two readings of the labels: load and predict are one, detect and relabel two, train four."""
    of = sweep(tmp_path, SPACE, seeds=(0,))
    plan = make_plan(of)
    assert SharedWork(plan.verbs, plan.work).executions() == {
        "load": 1,
        "predict": 1,
        "detect": 2,
        "relabel": 2,
        "train": 4,
        "evaluate": 4,
    }
    work = list(plan.work.values())
    assert [
        [(verb, each.name) for verb, each in level] for level in SharedWork(plan.verbs, plan.work).levels()
    ] == [
        [("load", work[0].name)],
        [("predict", work[0].name)],
        [("detect", work[0].name), ("detect", work[2].name)],
        [("relabel", work[0].name), ("relabel", work[2].name)],
    ]


def test_what_is_finished_is_not_shared_again(tmp_path: Path) -> None:
    of = sweep(tmp_path, SPACE, seeds=(0,))
    plan = make_plan(of)
    work = list(plan.work.values())
    finish(of, work[3], "load")  # of any of those that share it
    finish(of, work[1], "predict")
    finish(of, work[0], "detect")
    finish(of, work[0], "train")  # of no other trial: never shared
    levels = SharedWork(plan.verbs, plan.work).levels()
    assert [[verb for verb, _ in level] for level in levels] == [["detect"], ["relabel", "relabel"]]
    assert levels[0][0][1].point[BUDGET] == 0.2


def test_one_trial_shares_nothing(tmp_path: Path) -> None:
    """Its data are loaded beforehand all the same: the questions are counted by them."""
    plan = make_plan(sweep(tmp_path, {BUDGET: {"grid": [0.1]}}, seeds=(0,)))
    assert [[verb for verb, _ in level] for level in SharedWork(plan.verbs, plan.work).levels()] == [["load"]]


def test_seeds_share_nothing_that_depends_on_them(tmp_path: Path) -> None:
    plan = make_plan(sweep(tmp_path, {BUDGET: {"grid": [0.1]}}, seeds=(0, 1)))
    assert SharedWork(plan.verbs, plan.work).executions() == {
        "load": 2,
        "predict": 2,
        "detect": 2,
        "relabel": 2,
    }
    assert [[verb for verb, _ in level] for level in SharedWork(plan.verbs, plan.work).levels()] == [
        ["load"] * 2
    ]


@pytest.mark.parametrize(
    ("space", "fragments"),
    [
        ({BUDGET: [0.1, 1.5]}, ["s at detect.budget = 1.5", "(0, 1]"]),
        ({"method": [{"name": "lane"}, {"name": "lame"}]}, ["s at method = {'name': 'lame'}", "lane"]),
        ({"annotator.neighbours": [5, 0]}, ["s at annotator.neighbours = 0", "greater than"]),
        ({"detect.budgt": [1]}, ["s at detect.budgt = 1", "did you mean budget"]),
        ({"relabel.accept": [0.5], "train.labels": ["all"]}, ["relabel.accept = 0.5, train.labels = 'all'"]),
        ({"detect.budget.share": [1]}, ["detect.budget.share", "is a value, not a section"]),
    ],
)
def test_a_wrong_value_names_its_point(
    tmp_path: Path, space: dict[str, list[Any]], fragments: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        make_plan(sweep(tmp_path, {path: {"grid": values} for path, values in space.items()}))
    for fragment in fragments:
        assert fragment in str(error.value)


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    of = sweep(tmp_path, SPACE).model_copy(update={"base": "nowhere.toml"})
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        make_plan(of)


def test_options_over_a_table_of_the_space_stay_in_their_trial(tmp_path: Path) -> None:
    """The same table stands in several points: what one puts into it must not be seen by another."""
    of = sweep(
        tmp_path,
        {
            "annotator": {"grid": [{"name": "knn"}, {"name": "simulated"}]},
            "annotator.neighbours": {"grid": [3, 4], "when": {"annotator": {"name": "knn"}}},
        },
        seeds=(0,),
    )
    before = of.model_dump_json()
    found = [(work.point, work.config.annotator.options) for work in make_plan(of).work.values()]
    assert found == [
        ({"annotator": {"name": "knn"}, "annotator.neighbours": 3}, {"neighbours": 3}),
        ({"annotator": {"name": "knn"}, "annotator.neighbours": 4}, {"neighbours": 4}),
        ({"annotator": {"name": "simulated"}}, {}),
    ]
    assert of.model_dump_json() == before


def test_put_over_touches_neither(tmp_path: Path) -> None:
    values, point = {"a": {"b": 1}}, {"a.c": {"d": 2}, "a.c.e": 3}
    assert put_over(values, point) == {"a": {"b": 1, "c": {"d": 2, "e": 3}}}
    assert values == {"a": {"b": 1}}
    assert point == {"a.c": {"d": 2}, "a.c.e": 3}


def test_optuna_names_no_trials_beforehand(tmp_path: Path) -> None:
    of = sweep(tmp_path, {BUDGET: {"uniform": [0.1, 0.2]}}, search="optuna", objectives="dev_loss", samples=4)
    plan = make_plan(of)
    assert plan.work == {}
    assert plan.verbs == VERBS
    named = sweep(tmp_path, {BUDGET: {"grid": [0.15]}}, objectives="dev_loss", seeds=(2,))
    assert SweepPlan(of, base_values(of)).work_at({BUDGET: 0.15}, 2).name in make_plan(named).work


def test_what_trials_of_optuna_share_is_run_beforehand(tmp_path: Path) -> None:
    """The budget bears on detect and on what follows; load and predict hang on the seed alone."""
    of = sweep(
        tmp_path,
        {BUDGET: {"uniform": [0.1, 0.2]}, LABELS: {"choice": ["given", "final"]}},
        search="optuna",
        objectives="dev_loss",
        seeds=(0, 1),
    )
    shared = make_plan(of).likely(16)
    levels = shared.levels()
    assert [[(verb, work.seed) for verb, work in level] for level in levels] == [
        [("load", 0), ("load", 1)],
        [("predict", 0), ("predict", 1)],
    ]
    assert not shared.leaves("predict")
    assert shared.leaves("detect")
    finish(of, levels[0][0][1], "load")
    assert [work.seed for _, work in shared.levels()[0]] == [1]


def test_what_is_neither_shared_nor_finished_is_left_to_trials(tmp_path: Path) -> None:
    of = sweep(tmp_path, {BUDGET: {"grid": [0.1]}}, seeds=(0, 1))
    plan = make_plan(of)
    work = SharedWork(plan.verbs, plan.work)
    assert work.leaves("predict")
    for each in plan.work.values():
        finish(of, each, "predict")
    assert not work.leaves("predict")
    other = make_plan(sweep(tmp_path, {BUDGET: {"grid": [0.1, 0.2]}}, name="empty", seeds=(0,)))
    assert not SharedWork(other.verbs, other.work).leaves("predict")


def test_the_base_may_lie_in_toml_and_name_a_date(tmp_path: Path) -> None:
    base(tmp_path)
    path = tmp_path / "base.toml"
    path.write_text(f'[dataset]\npath = "{tmp_path}/data"\nid = "key"\nhf_split = 2024-05-01\n')
    of = sweep(tmp_path, SPACE, set={"encoder": {"name": "bag_of_words"}}).model_copy(
        update={"base": str(path)}
    )
    (first, *_) = make_plan(of).work.values()
    assert first.config.dataset.hf_split == "2024-05-01"


def test_costs_in_two_currencies_are_not_compared(tmp_path: Path) -> None:
    base(tmp_path, annotator={"name": "knn", "price_prompt": 1.0, "currency": "EUR"})
    with pytest.raises(ConfigError, match=r"in EUR and USD, and costs are compared.*in one currency"):
        make_plan(sweep(tmp_path, {"annotator.currency": {"grid": ["EUR", "USD"]}}))
