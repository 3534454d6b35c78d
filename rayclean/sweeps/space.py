"""The points of a swept space, drawn or enumerated."""

import itertools
import json
from collections.abc import Collection
from typing import Any

import optuna

from rayclean.fingerprints import fingerprint
from rayclean.sweeps.dimension import Dimension, is_condition
from rayclean.sweeps.spec import Sweep

Point = dict[str, Any]
"""Value by config path; fields whose condition does not hold are absent."""


def points(sweep: Sweep) -> list[Point]:
    """All distinct points of a sweep without Optuna, in the order of the file.

    >>> lambdas = {"method.lambda_": {"grid": [0.1, 0.7]}, "relabel.demonstrations": {"grid": [0, 5]}}
    >>> len(points(Sweep(name="x", base="b.toml", space=lambdas)))
    4
    """
    grids = {path: each for path, each in sweep.space.items() if not each.drawn}
    others = {path: each for path, each in sweep.space.items() if each.drawn}
    found: dict[str, Point] = {}
    for values in itertools.product(*(each.listed for each in grids.values())):
        # Grids whose condition does not hold must not multiply the number of draws.
        fixed = only_valid(sweep, dict(zip(grids, values, strict=True)), unknown=others)
        for sample in range(sweep.samples if others else 1):
            # Every condition gets the same settings, so that they can be compared. Each sample of each
            # setting has its own seed, so that further grid values or samples change no earlier draw.
            settings = {path: value for path, value in fixed.items() if not is_condition(path)}
            draws = _random_trial(sweep.draw_seed, settings, sample)
            values_drawn = drawn(
                sweep, {path: _suggested(draws, path, each) for path, each in others.items()}
            )
            point = only_valid(sweep, {**fixed, **values_drawn})
            found.setdefault(json.dumps(point, sort_keys=True), point)
    return list(found.values())


def only_valid(sweep: Sweep, values: Point, unknown: Collection[str] = ()) -> Point:
    """The fields whose condition holds, in the order of the file; fields in `unknown` may have any value."""
    kept = {path: values[path] for path in sweep.space if path in values}
    # A condition may depend on a field that is removed by another condition.
    while gone := [path for path in kept if not sweep.space[path].holds(kept, unknown)]:
        for path in gone:
            del kept[path]
    return kept


def suggest(sweep: Sweep, trial: Any) -> None:
    """Draw a point with an Optuna trial, without the fields whose condition does not hold. Tables and lists
    are drawn by their position; `drawn` translates them.
    """
    parameters: Point = {}
    waiting = list(sweep.space)
    while waiting:
        ready = [p for p in waiting if not set(sweep.space[p].when) & set(waiting)] or waiting[:1]
        for path in ready:
            waiting.remove(path)
            if sweep.space[path].holds(drawn(sweep, parameters)):
                parameters[path] = _suggested(trial, path, sweep.space[path])


def drawn(sweep: Sweep, parameters: Point) -> Point:
    """The point that corresponds to the parameters of an Optuna trial."""
    return {
        path: parameters[path] if _is_plain(each) else each.listed[parameters[path]]
        for path, each in sweep.space.items()
        if path in parameters
    }


def _random_trial(*seeds: Any) -> optuna.trial.Trial:
    """A trial of Optuna whose values are drawn at random."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(int(fingerprint(*seeds), 16) % 2**32)
    return optuna.create_study(sampler=sampler).ask()


def _suggested(trial: Any, path: str, dimension: Dimension) -> Any:
    """Draw the value of one field with an Optuna trial."""
    if dimension.integer is not None:
        return trial.suggest_int(path, *dimension.integer)
    if dimension.bounds is not None:
        return trial.suggest_float(path, *dimension.bounds, log=dimension.log_uniform is not None)
    choices = dimension.listed
    return trial.suggest_categorical(path, list(choices if _is_plain(dimension) else range(len(choices))))


def _is_plain(dimension: Dimension) -> bool:
    """Whether Optuna accepts all choices without translation."""
    return all(isinstance(choice, str | int | float | bool) for choice in dimension.listed)
