"""Means, comparisons, choices, and commands that repeat a trial."""

import shlex
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rayclean.config import Config, load_config, parse_config
from rayclean.evaluation.run_figures import TRUTH_FIGURES
from rayclean.evaluation.seed_figures import PointFigure
from rayclean.overrides import put_over
from rayclean.sweeps.plan import SweepPlan, base_values
from rayclean.sweeps.repeat import best_config, trial_command
from rayclean.sweeps.results import Results, Row, best_row, collect, pareto_front, setting
from rayclean.sweeps.space import Point, points
from rayclean.sweeps.spec import OBJECTIVES, Objective, Sweep
from rayclean.verb_fingerprints import check_plugins
from tests.sweeps.bases import base, result, sweep

BUDGET, ACCEPT, RATE = "detect.budget", "relabel.accept", "dataset.noise.rate"


def found(of: Sweep, *trials: tuple[Point, int, dict[str, float]], **more: Any) -> Results:
    return collect(of, dict(result(of, point, seed, **figures) for point, seed, figures in trials), **more)


def references(of: Sweep) -> list[Point]:
    """The points that are references, where every trial has a result."""
    rows = found(of, *((point, seed, {"x": 1.0}) for point in points(of) for seed in of.seeds)).rows
    return [row.point for row in rows if row.is_reference]


def row(point: Point, **means: float) -> Row:
    return Row(point, (0,), {name: PointFigure(mean, None, 1) for name, mean in means.items()}, False, 0)


def objectives(*names: str) -> list[Objective]:
    return [Objective(metric=name, mode=OBJECTIVES[name]) for name in names]


# Figures


def test_means_deviations_and_paired_tests(tmp_path: Path) -> None:
    """The base's budget is .2; the other point's seeds come in another order, and one of them is not in both."""
    of = sweep(tmp_path, {BUDGET: {"grid": [0.1, 0.2]}}, seeds=(0, 1, 2, 3, 4))
    reference, other = [0.80, 0.82, 0.79, 0.85, 0.81], [0.84, 0.83, 0.80, 0.90]
    rows = found(
        of,
        *(({BUDGET: 0.1}, seed, {"dev": value}) for seed, value in reversed(list(enumerate(other)))),
        *(({BUDGET: 0.2}, seed, {"dev": value}) for seed, value in enumerate(reference)),
    ).rows
    assert [each.point[BUDGET] for each in rows] == [0.1, 0.2]
    assert [each.is_reference for each in rows] == [False, True]
    assert [each.seeds for each in rows] == [(0, 1, 2, 3), (0, 1, 2, 3, 4)]
    figure, base_figure = rows[0].figures["dev"], rows[1].figures["dev"]
    assert figure.mean == pytest.approx(np.mean(other))
    assert figure.sd == pytest.approx(np.std(other, ddof=1))
    assert figure.seeds == 4
    assert figure.p == pytest.approx(stats.ttest_rel(other, reference[:4]).pvalue)
    assert figure.difference == pytest.approx(np.mean(np.subtract(other, reference[:4])))
    assert base_figure.mean == pytest.approx(np.mean(reference))
    assert base_figure.sd == pytest.approx(np.std(reference, ddof=1))
    assert (base_figure.p, base_figure.difference) == (None, None)


def test_a_figure_that_some_trials_lack_is_compared_where_both_have_it(tmp_path: Path) -> None:
    of = sweep(tmp_path, {BUDGET: {"grid": [0.1, 0.2]}}, seeds=(0, 1, 2, 3))
    first, second = [1.0, 2.0, 4.0], [0.5, 0.5, 3.0]
    rows = found(
        of,
        ({BUDGET: 0.1}, 0, {"x": first[0]}), ({BUDGET: 0.1}, 1, {"y": 1.0}),
        ({BUDGET: 0.1}, 2, {"x": first[1]}), ({BUDGET: 0.1}, 3, {"x": first[2]}),
        ({BUDGET: 0.2}, 0, {"x": second[0]}), ({BUDGET: 0.2}, 1, {"x": 9.0}),
        ({BUDGET: 0.2}, 2, {"x": second[1]}), ({BUDGET: 0.2}, 3, {"x": second[2]}),
    ).rows  # fmt: skip
    assert rows[0].figures["x"].seeds == 3
    assert rows[0].figures["x"].p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert rows[0].figures["y"] == PointFigure(1.0, None, 1)


@pytest.mark.parametrize(
    ("own", "reference", "p", "difference"),
    [
        ([0.5], [0.25], None, 0.25),  # one pair says nothing of chance
        ([0.5, 0.75], [0.5, 0.75], 1.0, 0.0),
        (
            [0.5, 0.75],
            [0.25, 0.5],
            None,
            0.25,
        ),  # the same difference under every seed: no spread to test against
    ],
)
def test_comparisons_at_the_edge(
    tmp_path: Path, own: list[float], reference: list[float], p: float | None, difference: float
) -> None:
    of = sweep(tmp_path, {BUDGET: {"grid": [0.1, 0.2]}})
    trials = [({BUDGET: 0.1}, seed, {"x": value}) for seed, value in enumerate(own)]
    trials += [({BUDGET: 0.2}, seed, {"x": value}) for seed, value in enumerate(reference)]
    figure = found(of, *trials).rows[0].figures["x"]
    assert (figure.p, figure.difference) == (p, difference)


def test_what_was_stopped_is_compared_with_nothing(tmp_path: Path) -> None:
    """Its figures are of its last epoch, those of the others of their best: no pair, on either side, and no mean of both."""
    of = sweep(tmp_path, {BUDGET: {"grid": [0.1, 0.2]}}, seeds=(0, 1, 2, 3))
    own, reference = [0.9, 0.8, 0.7, 0.1], [0.5, 0.6, 0.9, 0.8]

    def rows(*stopped: tuple[float, int]) -> list[Row]:
        trials = {}
        for budget, values in ((0.1, own), (0.2, reference)):
            for seed, value in enumerate(values):
                name, each = result(of, {BUDGET: budget}, seed, dev_accuracy=value)
                trials[name] = {**each, "stopped": (budget, seed) in stopped}
        return collect(of, trials).rows

    figure = rows((0.1, 3), (0.2, 0))[0].figures["dev_accuracy"]
    assert figure.mean == pytest.approx(np.mean(own[:3]))
    assert figure.sd == pytest.approx(np.std(own[:3], ddof=1))
    assert figure.seeds == 3
    assert figure.p == pytest.approx(stats.ttest_rel(own[1:3], reference[1:3]).pvalue)
    assert figure.difference == pytest.approx(np.mean(np.subtract(own[1:3], reference[1:3])))
    alone = rows((0.1, 3), (0.2, 0), (0.2, 1))[0].figures["dev_accuracy"]
    assert (alone.p, alone.difference) == (None, pytest.approx(own[2] - reference[2]))
    everyone = rows(*((0.1, seed) for seed in range(4)))[0].figures["dev_accuracy"]
    assert everyone == PointFigure(pytest.approx(np.mean(own)), pytest.approx(np.std(own, ddof=1)), 4)


def test_what_was_at_a_plateau_is_whole_and_may_be_best(tmp_path: Path) -> None:
    """It has converged: its mean counts, but its last epoch is tested against no best one."""
    of = sweep(tmp_path, {BUDGET: {"grid": [0.1, 0.2]}}, seeds=(0, 1, 2), objectives="dev_accuracy")
    trials = {}
    for budget, values in ((0.1, [0.9, 0.7, 0.8]), (0.2, [0.5, 0.7, 0.4])):
        for seed, value in enumerate(values):
            name, each = result(of, {BUDGET: budget}, seed, dev_accuracy=value)
            trials[name] = {**each, "stopped": "plateau" if budget == 0.1 and seed else False}
    results = collect(of, trials)
    first = results.rows[0]
    assert results.best is first
    assert not results.provisional
    assert (first.stopped, first.converged) == (0, 2)
    figure = first.figures["dev_accuracy"]
    assert (figure.mean, figure.seeds) == (pytest.approx(0.8), 3)
    assert (figure.p, figure.difference) == (None, pytest.approx(0.4))


def test_what_was_stopped_or_failed_is_counted(tmp_path: Path) -> None:
    of = sweep(tmp_path, {BUDGET: {"grid": [0.1, 0.2]}})
    trials = dict(result(of, {BUDGET: 0.1}, seed, dev_loss=1.0) for seed in (0, 1))
    first, second = trials
    trials[second]["stopped"] = True
    lines = [{"epoch": 1, "dev_loss": 2.0}]
    results = collect(of, trials, {"detect.budget=0.2 seed=0": "out of memory"}, {first: lines})
    (only,) = results.rows
    assert only.stopped == 1
    assert only.epochs == {0: lines, 1: []}
    assert results.finished == 2
    assert results.failed == {"detect.budget=0.2 seed=0": "out of memory"}


def test_lucky_and_stopped_points_are_not_chosen(tmp_path: Path) -> None:
    """One seed of three, or the epoch at which a trial was stopped, wins only where nothing else is there."""
    of = sweep(
        tmp_path, {BUDGET: {"grid": [0.1, 0.2, 0.3]}}, seeds=(0, 1), objectives=("dev_accuracy", "tokens")
    )
    trials = dict(result(of, {BUDGET: 0.1}, seed, dev_accuracy=0.7, tokens=9.0) for seed in (0, 1))
    trials |= [result(of, {BUDGET: 0.2}, 0, dev_accuracy=0.9, tokens=1.0)]
    stopped = dict(result(of, {BUDGET: 0.3}, seed, dev_accuracy=0.8, tokens=1.0) for seed in (0, 1))
    stopped = {name: {**each, "stopped": True} for name, each in stopped.items()}
    results = collect(of, trials | stopped)
    assert results.best is not None
    assert results.best.point == {BUDGET: 0.1}
    assert [row.point for row in results.front] == [{BUDGET: 0.1}]
    assert not results.provisional
    early = collect(
        of, {name: each for name, each in trials.items() if each["point"] == {BUDGET: 0.2}} | stopped
    )
    assert early.best is not None
    assert early.best.point == {BUDGET: 0.2}
    assert early.provisional


def test_rows_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    of = sweep(
        tmp_path,
        {
            "relabel.candidates": {"grid": ["binary", "all"]},
            ACCEPT: {"uniform": [0.5, 0.9], "when": {"relabel.candidates": "all"}},
            BUDGET: {"grid": [0.2, 0.1]},
        },
        samples=3,
    )
    rows = found(of, *((point, 0, {"x": 1.0}) for point in reversed(points(of)))).rows
    places = [(each.point["relabel.candidates"], each.point.get(ACCEPT), each.point[BUDGET]) for each in rows]
    assert places[:2] == [("binary", None, 0.2), ("binary", None, 0.1)]
    drawn = [accept for _, accept, _ in places[2:]]
    assert len(drawn) == 6
    assert drawn == sorted(drawn)


def test_metrics_objectives_first_truth_last(tmp_path: Path) -> None:
    of = sweep(tmp_path, {BUDGET: {"grid": [0.1, 0.2]}}, objectives=("tokens", "dev_loss", "cost"))
    metrics = found(
        of,
        ({BUDGET: 0.1}, 0, {"accuracy": 1, "suspects": 1, "noise_given": 1, "dev_loss": 1}),
        ({BUDGET: 0.2}, 0, {"harm": 1, "tokens": 1, "f1_macro": 1, "changed": 1}),
    ).metrics
    assert metrics == [
        "tokens", "dev_loss", "suspects", "changed", "accuracy", "f1_macro", "noise_given", "harm",
    ]  # fmt: skip
    assert [name for name in metrics if name in TRUTH_FIGURES] == metrics[4:]


# References


def test_the_reference_has_the_bases_values_under_the_same_conditions(tmp_path: Path) -> None:
    of = sweep(
        tmp_path, {RATE: {"grid": [0.2, 0.4]}, BUDGET: {"grid": [0.1, 0.2]}, ACCEPT: {"grid": [0.6, 0.8]}}
    )
    assert references(of) == [{RATE: rate, BUDGET: 0.2, ACCEPT: 0.6} for rate in (0.2, 0.4)]
    figures = {0.2: [1.0, 2.0, 4.0], 0.4: [10.0, 30.0, 20.0]}
    rows = found(
        of,
        *(
            (
                {RATE: rate, BUDGET: budget, ACCEPT: 0.6},
                seed,
                {"x": value * (1 if budget == 0.2 else seed + 2)},
            )
            for rate, values in figures.items()
            for budget in (0.1, 0.2)
            for seed, value in enumerate(values)
        ),
    ).rows
    for rate, values in figures.items():
        (other,) = [each for each in rows if each.point[RATE] == rate and not each.is_reference]
        own = [value * (seed + 2) for seed, value in enumerate(values)]
        assert other.figures["x"].p == pytest.approx(stats.ttest_rel(own, values).pvalue)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({BUDGET: [0.05, 0.3]}, None),
        ({"annotator": [{"name": "simulated"}, {"name": "knn"}]}, {"annotator": {"name": "knn"}}),
        (
            {"annotator.neighbours": [5, 20]},
            {"annotator.neighbours": 20},
        ),  # a default that the base does not name
        (
            {"annotator": [{"name": "knn", "neighbours": 20}]},
            {"annotator": {"name": "knn", "neighbours": 20}},
        ),
        ({"method.name": ["lane", "cross_entropy"]}, {"method.name": "cross_entropy"}),
        ({"train.clip": [2, 1]}, {"train.clip": 1}),  # 1.0 in the config
        (
            {"detect.detectors": [["knn_vote"], ["posterior"]]},
            {"detect.detectors": ["posterior"]},
        ),
        ({"train.epochs": [3, 6]}, None),  # the base leaves it to the encoder
    ],
)
def test_the_reference_is_found_however_it_is_written(
    tmp_path: Path, space: dict[str, list[Any]], expected: Point | None
) -> None:
    of = sweep(tmp_path, {path: {"grid": values} for path, values in space.items()}, seeds=(0,))
    assert references(of) == ([] if expected is None else [expected])


def test_what_set_says_is_the_reference(tmp_path: Path) -> None:
    neighbours = {"annotator.neighbours": {"grid": [3, 5]}}
    of = sweep(tmp_path, neighbours, set={"annotator": {"name": "knn", "neighbours": 5}}, seeds=(0,))
    assert references(of) == [{"annotator.neighbours": 5}]


def test_fields_that_are_absent_compare_with_the_one_reference(tmp_path: Path) -> None:
    """As in configs/sweeps/thresholds.toml: no two kinds of threshold have the same fields."""
    base(tmp_path, method={"name": "noiseal"})
    of = sweep(
        tmp_path,
        {
            "method.threshold": {"grid": ["fixed", "dynamic", "mixture"]},
            "method.fixed_threshold": {"grid": [0.5, 0.7], "when": {"method.threshold": "fixed"}},
            "method.ema_of": {"grid": ["label", "max"], "when": {"method.threshold": "dynamic"}},
        },
        seeds=(0, 1),
    )
    rows = found(
        of,
        *(
            (point, seed, {"x": place + seed / (place + 1)})
            for place, point in enumerate(points(of))
            for seed in (0, 1)
        ),
    ).rows
    (reference,) = [each for each in rows if each.is_reference]
    assert reference.point == {"method.threshold": "dynamic", "method.ema_of": "max"}
    assert [each.point for each in rows if each.figures["x"].p is None] == [reference.point]
    assert rows[0].figures["x"].difference == pytest.approx(-3 + (1 - 1 / 4) / 2)


def test_a_base_that_cannot_run_by_itself_is_no_reference(tmp_path: Path) -> None:
    base(tmp_path, annotator={"name": "knn", "max_cost": 1.0, "currency": "USD"})
    of = sweep(tmp_path, {"annotator.price_prompt": {"grid": [1.0, 2.0]}}, seeds=(0,))
    assert references(of) == []


def test_costs_are_in_the_currency_of_the_trials(tmp_path: Path) -> None:
    base(tmp_path, annotator={"name": "knn", "price_prompt": 1.0, "currency": "EUR"})
    of = sweep(tmp_path, {BUDGET: {"grid": [0.1, 0.2]}}, seeds=(0,))
    of = of.model_copy(update={"objectives": tuple(objectives("cost"))})
    both = found(of, ({BUDGET: 0.1}, 0, {"cost": 1.0}), ({BUDGET: 0.2}, 0, {"cost": 2.0}))
    assert both.currency == "EUR"
    assert (both.title("cost"), both.title("tokens")) == ("cost (EUR)", "tokens")
    assert best_config(both).startswith("# Best of the sweep s: cost (EUR) 1.000 over one seed.")
    (tmp_path / "other").mkdir()
    without = sweep(tmp_path / "other", {BUDGET: {"grid": [0.1]}}, seeds=(0,))
    assert found(without, ({BUDGET: 0.1}, 0, {"cost": 0.0})).title("cost") == "cost"


# Choices


def test_the_best_by_the_first_objective() -> None:
    rows = [row({BUDGET: 0.1}, tokens=3.0, dev_loss=0.1), row({BUDGET: 0.2}, tokens=1.0, dev_loss=0.3)]
    assert best_row(rows, objectives("tokens")) is rows[1]
    assert best_row(rows, objectives("dev_loss", "tokens")) is rows[0]
    assert best_row(rows, [Objective(metric="tokens", mode="max")]) is rows[0]
    assert best_row(rows, []) is None
    assert best_row(rows, objectives("cost")) is None
    assert best_row([], objectives("cost")) is None


def test_the_easiest_condition_does_not_win() -> None:
    """.1 has the single highest figure, .2 the higher mean over the conditions, .3 was not seen under the hard one."""
    means = {(0.1, 0.2): 0.95, (0.1, 0.4): 0.5, (0.2, 0.2): 0.9, (0.2, 0.4): 0.8, (0.3, 0.2): 0.94}
    rows = [row({BUDGET: budget, RATE: rate}, dev_accuracy=m) for (budget, rate), m in means.items()]
    chosen = best_row(rows, objectives("dev_accuracy"))
    assert chosen is not None
    assert chosen.point == {BUDGET: 0.2, RATE: 0.4}


def test_a_setting_that_lacks_a_condition_is_chosen_for_now(tmp_path: Path) -> None:
    of = sweep(
        tmp_path,
        {RATE: {"grid": [0.2, 0.4]}, BUDGET: {"grid": [0.1, 0.2]}},
        seeds=(0,),
        objectives="dev_accuracy",
    )
    easy, hard = (
        ({RATE: 0.2, BUDGET: 0.1}, 0, {"dev_accuracy": 0.9}),
        ({RATE: 0.4, BUDGET: 0.2}, 0, {"dev_accuracy": 0.5}),
    )
    early = found(of, easy, hard)
    assert early.best is not None
    assert early.provisional
    other = found(of, easy, hard, ({RATE: 0.2, BUDGET: 0.2}, 0, {"dev_accuracy": 0.8}))
    assert other.best is not None
    assert other.best.point[BUDGET] == 0.2
    assert not other.provisional


def test_conditions_alone_are_no_choice() -> None:
    rows = [row({RATE: rate}, dev_accuracy=1 - rate) for rate in (0.2, 0.4)]
    assert best_row(rows, objectives("dev_accuracy")) is None


def test_the_front_by_hand() -> None:
    """Highest accuracy, least tokens: c is beaten by b, e by d in one and as good in the other; f has no tokens."""
    a, b, c = (
        row({}, dev_accuracy=0.7, tokens=100),
        row({}, dev_accuracy=0.8, tokens=300),
        row({}, dev_accuracy=0.75, tokens=400),
    )
    d, e, f = (
        row({}, dev_accuracy=0.9, tokens=900),
        row({}, dev_accuracy=0.9, tokens=901),
        row({}, dev_accuracy=0.99),
    )
    g = row({}, dev_accuracy=0.8, tokens=300)  # as b in both
    assert pareto_front([a, b, c, d, e, f, g], objectives("dev_accuracy", "tokens")) == [a, b, d, g]
    assert pareto_front([a, b, c], objectives("dev_accuracy")) == []
    assert pareto_front([f], objectives("dev_accuracy", "tokens")) == []


def test_points_of_other_conditions_beat_nothing() -> None:
    easy = row({RATE: 0.2, BUDGET: 0.1}, dev_accuracy=0.9, tokens=100)
    hard = row({RATE: 0.4, BUDGET: 0.1}, dev_accuracy=0.5, tokens=200)
    beaten = row({RATE: 0.4, BUDGET: 0.2}, dev_accuracy=0.4, tokens=200)
    assert pareto_front([easy, hard, beaten], objectives("dev_accuracy", "tokens")) == [easy, hard]


# Configs and commands

SPACES: list[dict[str, list[Any]]] = [
    {BUDGET: [0.1, 7], "train.learning_rate": [1e-07, 0.5]},
    {"annotator": [{"name": "knn", "neighbours": 3, "power": 2.0}, {"name": "simulated"}]},
    {"detect.detectors": [["knn_vote"], [{"name": "knn_vote", "neighbours": 3}, "self_confidence"]]},
    {"encoder": [{"name": "bag_of_words"}], "encoder.hidden": [8, 16], RATE: [0.1]},
    {"dataset.definitions": [{"garden": 'soil, "roses"\n\u00e9 \U0001f337', "a.b": "c\\d'\x7f"}], BUDGET: [0.2]},
    {"dataset.labels": [["harbour", "garden", "kitchen"]], "dataset.dev.clean": [True, False]},
    {"method": [{"name": "noiseal", "weak": {"name": "bilstm", "hidden": 8}}], "method.lambda_": [0.0, 1.0]},
]  # fmt: skip


def swept(folder: Path, space: dict[str, list[Any]]) -> Sweep:
    return sweep(
        folder,
        {path: {"grid": values} for path, values in space.items()},
        set={"train.epochs": 2, "dataset.words": {"garden": "a = b # no"}},
        seeds=(0, 4),
        objectives="changed",
    )


def plain(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"name", "output", "evaluate"})


@pytest.mark.parametrize("space", SPACES, ids=lambda space: " ".join(space))
def test_the_printed_command_repeats_the_trial(tmp_path: Path, space: dict[str, list[Any]]) -> None:
    of = swept(tmp_path, space)
    values = base_values(of)
    for point in points(of):
        for seed in of.seeds:
            program, verb, path, *overrides = shlex.split(trial_command(of, point, seed))
            assert (program, verb) == ("rayclean", "clean")
            config = load_config(path, overrides)
            assert plain(config) == plain(SweepPlan(of, values).work_at(point, seed).config)
            assert config.name.startswith("s-")


def test_commands_of_different_trials_write_to_different_folders(tmp_path: Path) -> None:
    of = swept(tmp_path, SPACES[0])
    named = [
        load_config(of.base, shlex.split(trial_command(of, point, seed))[3:]).name
        for point in points(of)
        for seed in of.seeds
    ]
    assert len(set(named)) == len(named) == 8


@pytest.mark.parametrize("space", SPACES, ids=lambda space: " ".join(space))
def test_the_best_config_is_the_points(tmp_path: Path, space: dict[str, list[Any]]) -> None:
    of = swept(tmp_path, space)
    every = points(of)
    for wanted in every:
        results = found(of, *((point, 0, {"changed": float(point != wanted)}) for point in every))
        if not setting(wanted):
            assert results.best is None
            continue
        assert results.best is not None
        assert setting(results.best.point) == setting(wanted)
        config = parse_config(tomllib.loads(best_config(results)))
        assert config.name == "s-best"
        expected = parse_config(put_over(base_values(of), setting(wanted)))
        assert plain(config) == plain(expected)
        check_plugins(config)


def test_the_best_config_says_where_it_comes_from_and_keeps_the_bases_conditions(tmp_path: Path) -> None:
    of = sweep(tmp_path, {RATE: {"grid": [0.2, 0.4]}, BUDGET: {"grid": [0.1]}}, objectives="dev_loss")
    trials = [
        ({RATE: r, BUDGET: 0.1}, s, {"dev_loss": r + s, "accuracy": 1}) for r in (0.2, 0.4) for s in (0, 2)
    ]
    text = best_config(found(of, *trials))
    assert text.startswith(
        "# Best of the sweep s: dev_loss 1.400 ± 1.414 over 2 seeds at dataset.noise.rate = 0.4.\n"
    )
    config = parse_config(tomllib.loads(text))
    assert config.dataset.noise is None
    assert config.evaluate.compare  # what a sweep leaves out is no part of what was found
    assert config.output == str(tmp_path / "runs")
    with pytest.raises(ValueError, match="without objectives"):
        best_config(found(of.model_copy(update={"objectives": ()}), *trials))
