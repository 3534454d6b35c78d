"""From swept fields to points: every combination once, draws that stay, conditions that hold."""

import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.sweeps.dimension import Dimension, show
from rayclean.sweeps.space import Point, drawn, only_valid, points, suggest
from rayclean.sweeps.spec import Sweep

THRESHOLD, FIXED, EMA = "method.threshold", "method.fixed_threshold", "method.ema_of"


def sweep(space: dict[str, Any], **more: Any) -> Sweep:
    return Sweep(name="s", base="base.json", space=space, **more)


def keys(of: Sweep) -> list[str]:
    return [json.dumps(point, sort_keys=True) for point in points(of)]


def holds(of: Sweep, point: Point) -> bool:
    """Whether exactly the fields are there whose conditions hold, said anew."""
    return all(
        (path in point)
        == all(
            other in point and point[other] in (wanted if isinstance(wanted, list) else [wanted])
            for other, wanted in dimension.when.items()
        )
        for path, dimension in of.space.items()
    )


def is_allowed(dimension: Dimension, value: Any) -> bool:
    if dimension.integer is not None:
        return isinstance(value, int) and dimension.integer[0] <= value <= dimension.integer[1]
    bounds = dimension.uniform or dimension.log_uniform
    if bounds is not None:
        return isinstance(value, float) and bounds[0] <= value <= bounds[1]
    return any(
        value == each and type(value) is type(each) for each in dimension.grid or dimension.choice or ()
    )


def test_every_combination_whose_conditions_hold_once() -> None:
    of = sweep({
        THRESHOLD: {"grid": ["dynamic", "fixed", "mixture"]},
        FIXED: {"grid": [0.5, 0.7], "when": {THRESHOLD: "fixed"}},
        EMA: {"grid": ["max", "label"], "when": {THRESHOLD: ["dynamic"]}},
        "dataset.noise.rate": {"grid": [0.2, 0.4]},
    })  # fmt: skip
    rates = [{"dataset.noise.rate": 0.2}, {"dataset.noise.rate": 0.4}]
    assert points(of) == [
        *({THRESHOLD: "dynamic", EMA: ema, **rate} for ema in ("max", "label") for rate in rates),
        *({THRESHOLD: "fixed", FIXED: fixed, **rate} for fixed in (0.5, 0.7) for rate in rates),
        *({THRESHOLD: "mixture", **rate} for rate in rates),
    ]


def test_conditions_on_conditions_and_on_fields_that_come_later() -> None:
    of = sweep({
        "a": {"grid": [1, 2], "when": {"b": 1}},
        "b": {"grid": [1, 2], "when": {"c": 1}},
        "c": {"grid": [1, 2]},
    })  # fmt: skip
    assert sorted(map(str, points(of))) == sorted(
        map(str, [{"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 1, "c": 1}, {"b": 2, "c": 1}, {"c": 2}])
    )
    assert only_valid(of, {"a": 1, "b": 1, "c": 2}) == {"c": 2}


def test_a_grid_that_does_not_count_multiplies_no_draws() -> None:
    of = sweep(
        {
            THRESHOLD: {"grid": ["dynamic", "fixed"]},
            FIXED: {"grid": [0.5, 0.6, 0.7], "when": {THRESHOLD: "fixed"}},
            "method.lambda_": {"uniform": [0, 1]},
        },
        samples=4,
    )
    found = points(of)
    assert sum(point[THRESHOLD] == "dynamic" for point in found) == 4
    assert sum(point[THRESHOLD] == "fixed" for point in found) == 12
    assert all(holds(of, point) for point in found)


def test_a_grid_may_hang_on_a_drawn_field() -> None:
    of = sweep(
        {"a": {"choice": ["x", "y"]}, "b": {"grid": [1, 2, 3], "when": {"a": "x"}}}, samples=20, draw_seed=5
    )
    assert {json.dumps(point) for point in points(of)} == {
        '{"a": "x", "b": 1}', '{"a": "x", "b": 2}', '{"a": "x", "b": 3}', '{"a": "y"}',
    }  # fmt: skip


def test_draws_spread_over_their_range() -> None:
    space = {"a": {"log_uniform": [1e-4, 1.0]}, "b": {"integer": [1, 3]}, "c": {"choice": ["x", "y"]}}
    found = points(sweep(space, samples=400))
    decades = [sum(low <= point["a"] < 10 * low for point in found) for low in (1e-4, 1e-3, 1e-2, 1e-1)]
    assert min(decades) > 60  # of 100
    assert {point["b"] for point in found} == {1, 2, 3}
    assert {point["c"] for point in found} == {"x", "y"}


@pytest.mark.parametrize("kind", ["uniform", "log_uniform"])
def test_rounding_leads_no_draw_across_a_bound(kind: str) -> None:
    for low in [0.1 * place for place in range(1, 40)]:
        bounds = [low, math.nextafter(low, math.inf)]
        for point in points(sweep({"a": {kind: bounds}}, samples=5)):
            assert point["a"] in bounds


def test_another_draw_seed_gives_other_draws() -> None:
    space = {"a": {"uniform": [0, 1]}, "b": {"grid": [1, 2]}}
    first = points(sweep(space, samples=5))
    other = points(sweep(space, samples=5, draw_seed=1))
    assert not {point["a"] for point in first} & {point["a"] for point in other}
    assert len({point["a"] for point in first}) == 10  # draws at different grid points differ, too


def test_draws_are_the_same_under_every_condition() -> None:
    """Settings that occur under one noise rate alone could not be told from easy data."""
    rate = "dataset.noise.rate"
    of = sweep({rate: {"grid": [0.2, 0.4]}, "b": {"grid": [1, 2]}, "a": {"uniform": [0, 1]}}, samples=3)
    under = {
        value: [(point["a"], point["b"]) for point in points(of) if point[rate] == value]
        for value in (0.2, 0.4)
    }
    assert under[0.2] == under[0.4]
    assert len({a for a, _ in under[0.2]}) == 6


VALUES = st.one_of(
    st.integers(-5, 5), st.sampled_from(["x", "y", "z"]), st.booleans(),
    st.fixed_dictionaries({"name": st.sampled_from(["knn", "lane"]), "k": st.integers(0, 2)}),
)  # fmt: skip
BOUNDS = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2, unique=True).map(sorted)
POSITIVE = st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=2, unique=True).map(sorted)
WHOLE = st.lists(st.integers(-9, 9), min_size=2, max_size=2, unique=True).map(sorted)


@st.composite
def spaces(draw: Any) -> dict[str, dict[str, Any]]:
    """One to four fields; a later one may hang on values of one before it."""
    space: dict[str, dict[str, Any]] = {}
    for path in [f"p{i}" for i in range(draw(st.integers(1, 4)))]:
        kind = draw(st.sampled_from(["grid", "grid", "choice", "uniform", "log_uniform", "integer"]))
        values = {
            "uniform": BOUNDS, "log_uniform": POSITIVE, "integer": WHOLE,
        }.get(kind, st.lists(VALUES, min_size=1, max_size=3))  # fmt: skip
        dimension = {kind: draw(values)}
        listed = [p for p, each in space.items() if "grid" in each or "choice" in each]
        if listed and draw(st.booleans()):
            other = draw(st.sampled_from(listed))
            options = space[other].get("grid") or space[other]["choice"]
            dimension["when"] = {other: draw(st.sampled_from([options[0], options[:2]]))}
        space[path] = dimension
    return space


def has_draws(space: dict[str, dict[str, Any]]) -> bool:
    return any("grid" not in dimension for dimension in space.values())


@settings(deadline=None)
@given(spaces(), st.integers(1, 3))
def test_points_are_allowed_unique_and_always_the_same(
    space: dict[str, dict[str, Any]], samples: int
) -> None:
    of = sweep(space, samples=samples if has_draws(space) else 1)
    found = points(of)
    assert found
    assert points(Sweep.model_validate_json(of.model_dump_json())) == found
    assert len(set(keys(of))) == len(found)
    for point in found:
        assert list(point) == [path for path in space if path in point]
        assert holds(of, point)
        assert all(is_allowed(of.space[path], value) for path, value in point.items())


@settings(deadline=None)
@given(spaces(), st.integers(1, 3), VALUES, st.data())
def test_what_grows_keeps_its_points(
    space: dict[str, dict[str, Any]], samples: int, value: Any, data: st.DataObject
) -> None:
    samples = samples if has_draws(space) else 1
    before = keys(sweep(space, samples=samples))
    grids = [path for path, dimension in space.items() if "grid" in dimension]
    grown = dict(space)
    if grids:
        path = data.draw(st.sampled_from(grids))
        values = list(space[path]["grid"])
        values.insert(data.draw(st.integers(0, len(values))), value)
        grown[path] = {**space[path], "grid": values}
    after = keys(sweep(grown, samples=samples + 2 if has_draws(space) else 1))
    assert set(before) <= set(after)


def test_optuna_is_asked_only_for_what_holds() -> None:
    tables = [{"name": "knn", "neighbours": 5}, {"name": "knn", "neighbours": 9}, {"name": "simulated"}]
    of = sweep(
        {
            "method.sigma": {"log_uniform": [1e-3, 1.0], "when": {"annotator": tables[:2]}},  # before its condition
            "annotator": {"choice": tables},
            THRESHOLD: {"choice": ["dynamic", "fixed"]},
            FIXED: {"uniform": [0.4, 0.6], "when": {THRESHOLD: "fixed"}},
            "relabel.demonstrations": {"integer": [1, 3], "when": {THRESHOLD: "fixed", "annotator": tables[2]}},
            "detect.detectors": {"choice": [["knn_vote"], ["dynamics", "knn_vote"]]},
        },
        search="optuna", objectives="tokens", samples=20,
    )  # fmt: skip
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
    found = []
    for number in range(20):
        trial = study.ask()
        suggest(of, trial)
        found.append(drawn(of, trial.params))
        study.tell(trial, float(number % 3))
    assert all(holds(of, point) for point in found)
    assert all(is_allowed(of.space[path], value) for point in found for path, value in point.items())
    assert [point for point in found if point["annotator"] in tables[:2]]
    assert [point for point in found if point["annotator"] == tables[2]]
    assert {len(point["detect.detectors"]) for point in found} == {1, 2}
    assert {FIXED in point for point in found} == {True, False}


def test_a_study_on_disk_knows_the_parameters_again(tmp_path: Path) -> None:
    """What Optuna keeps of a table is its place, so a second process reads the same point."""
    of = sweep(
        {"method": {"choice": [{"name": "lane"}, {"name": "noiseal"}]}}, search="optuna", objectives="cost"
    )
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(study_name="s", storage=url, sampler=optuna.samplers.RandomSampler(seed=1))
    trial = study.ask()
    suggest(of, trial)
    (again,) = optuna.load_study(study_name="s", storage=url).trials
    assert drawn(of, again.params) == drawn(of, trial.params)
    assert drawn(of, again.params)["method"] in ({"name": "lane"}, {"name": "noiseal"})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"name": "knn", "neighbours": 5}, "knn(neighbours=5)"),
        ({"name": "served", "server": {"max_model_len": 2048}}, "served(server=(max_model_len=2048))"),
        ([{"name": "knn_vote"}, "dynamics"], "knn_vote,dynamics"),
        (1e-5, "1e-05"),
        (True, "True"),
        ({}, ""),
    ],
)
def test_values_are_shown_in_a_line(value: Any, shown: str) -> None:
    assert show(value) == shown
